"""PostgreSQL: the same queries, through an async engine with a pool of fixed size."""

from __future__ import annotations

from sqlalchemy import exc, make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from models import migrating
from models.database import Database, DatabaseUnavailable, P, Query, T, is_unavailable

# Deadlock, and serialization failure: the server asks for another try.
TRY_AGAIN = {"40P01", "40001"}
TRIES = 5
WAIT_SECONDS = 5


class PostgresDatabase(Database):
    """A PostgreSQL server, which other servers of ours may share."""

    def __init__(self, url: str, pool_size: int) -> None:
        self._engine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"),
            pool_size=pool_size,
            # Connections past the pool would be made anew each time: four fifths of the throughput.
            max_overflow=0,
            pool_timeout=WAIT_SECONDS,
            connect_args={"timeout": WAIT_SECONDS},
        )

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(query, *args, **kwargs)

    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(query, *args, **kwargs)

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(query, *args, **kwargs)

    async def migrate(self) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(migrating.upgrade)

    async def is_current(self) -> bool:
        try:
            async with self._engine.connect() as connection:
                return await connection.run_sync(migrating.is_current)
        except Exception as error:
            raise _told_apart(error) from error

    async def close(self) -> None:
        await self._engine.dispose()

    async def _run(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(TRIES):
            try:
                async with AsyncSession(self._engine) as db, db.begin():
                    return await db.run_sync(query, *args, **kwargs)
            except exc.DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in TRY_AGAIN or attempt == TRIES - 1:
                    raise _told_apart(error) from error
            except (OSError, exc.TimeoutError) as error:
                raise _told_apart(error) from error
        raise AssertionError("the last try returns or raises")


def _told_apart(error: Exception) -> Exception:
    return DatabaseUnavailable(str(error.__cause__ or error)) if is_unavailable(error) else error

"""PostgreSQL: the same queries, through an async engine with a pool of fixed size."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Any, cast

import asyncpg
from sqlalchemy import URL, event, exc, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from models import migrating
from models.database import Database, DatabaseUnavailable, Happened, P, Query, Statement, T, is_unavailable

# Deadlock, and serialization failure: the server asks for another try.
TRY_AGAIN = {"40P01", "40001"}
TRIES = 5
WAIT_SECONDS = 5
# The longest that a query is waited for; a scan reads more.
ANSWER_SECONDS = 10
SCAN_SECONDS = 30
LEAVE_SECONDS = 1
# So long the server waits for us in the middle of a transaction: where we are gone without a word, its locks are not.
IDLE_SECONDS = 15
LOOK_SECONDS = 0.25
MARK_SECONDS = 5
CHANNEL = "sessions_events"
# What may follow the ? of the URL, as psql reads it.
OPTIONS = ("host", "port", "sslmode", "sslrootcert")
TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# What the driver raises while the server is away, or goes away in the middle of a call.
AWAY = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresError)

# Every transaction before this one has ended, and what it committed can be seen.
_OLDEST_RUNNING = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
# What has the number of a transaction to come was restored, from a server that had counted further: it is no news.
_EVENTS_SINCE = """
    SELECT id, kind, account_id, type, session_id, cause FROM events
    WHERE tx >= $1 AND tx < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
        AND (account_id IS NOT NULL OR type = 'emergency') ORDER BY id
"""

# A day and a year of the log are found in different ways, which one plan for both is not. Nor are further processes
# started: what there is to read side by side is asked for side by side. And compiling a statement takes longer than it.
SCAN_SETTINGS = {"plan_cache_mode": "force_custom_plan", "max_parallel_workers_per_gather": "0", "jit": "off"}
# Connections for scans alone, so that whoever signs in waits for none: a list takes two, one for each kind of account.
SCANS = 4


class _Connections:
    """A pool of fixed size, and whoever waits for a place at it."""

    def __init__(
        self, url: URL, size: int, tls: ssl.SSLContext | str | None, settings: dict[str, str], **options: Any
    ) -> None:
        self.engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg"),
            pool_size=size,
            # Connections past the pool would be made anew each time: four fifths of the throughput.
            max_overflow=0,
            pool_timeout=WAIT_SECONDS,
            connect_args={
                "timeout": WAIT_SECONDS,
                "server_settings": {
                    "lock_timeout": f"{WAIT_SECONDS}s",
                    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
                    **settings,
                },
                "ssl": tls,
            },
            # Errors are logged: without what was looked for or written.
            hide_parameters=True,
            **options,
        )
        event.listen(self.engine.sync_engine, "checkout", _check_open)
        self._turns = asyncio.Semaphore(size)

    async def run(self, seconds: float, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a query gives within so many seconds; from outside of it, as it does not even leave what hangs."""
        task = asyncio.create_task(self._run(query, *args, **kwargs))
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            task.cancel()
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise DatabaseUnavailable("it does not answer")
        return task.result()

    async def _run(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        for attempt in range(TRIES):
            try:
                async with self._turn(), self.engine.begin() as db:
                    return await db.run_sync(query, *args, **kwargs)
            except exc.DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in TRY_AGAIN or attempt == TRIES - 1:
                    raise _told_apart(error) from error
            except (*AWAY, exc.TimeoutError) as error:
                raise _told_apart(error) from error
        raise AssertionError("the last try returns or raises")

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """A place at the pool, first come, first served: its own queue lets newcomers overtake."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("all connections are busy") from None
        try:
            yield
        finally:
            self._turns.release()


class PostgresDatabase(Database):
    """A PostgreSQL server, which other servers of ours may share."""

    def __init__(self, url: str, pool_size: int) -> None:
        parsed = make_url(url)
        # Apart from the URL: SQLAlchemy hands its options to the driver, and the driver to the server, as they are.
        tls = _read_tls(parsed)
        parsed = parsed.difference_update_query(("sslmode", "sslrootcert"))
        self._dsn = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        self._tls = tls
        self._size = pool_size
        self._heard: int | None = None
        self._connections = _Connections(parsed, pool_size, tls, {})
        # A scan reads only, and each of its statements sees what was committed before it: no round trips for a
        # transaction.
        self._scanning = _Connections(parsed, SCANS, tls, SCAN_SETTINGS, isolation_level="AUTOCOMMIT")
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        # First come, first served: its own queue, too, lets newcomers overtake.
        self._turns = asyncio.Semaphore(pool_size)
        self._opening = asyncio.Lock()

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._connections.run(ANSWER_SECONDS, query, *args, **kwargs)

    async def fetch(self, statement: Statement, values: dict[str, Any]) -> list[asyncpg.Record]:
        text, parameters = statement.prepare(self._connections.engine.dialect, values)
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._turns:
                pool = self._pool or await self._open_pool()
                connection = await pool.acquire()
                try:
                    rows: list[asyncpg.Record] = await connection.fetch(text, *parameters)
                    return rows
                finally:
                    # A server that hangs does not even let a query go: then its connection is given up.
                    await pool.release(connection, timeout=LEAVE_SECONDS)
        except AWAY as error:
            raise _told_apart(error) from error

    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._scanning.run(SCAN_SECONDS, query, *args, **kwargs)

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._connections.run(ANSWER_SECONDS, query, *args, **kwargs)

    async def follow(self, tell: Callable[[Happened], None], heard: Callable[[], object]) -> None:
        def hear(_connection: object, _process: int, _channel: str, payload: str) -> None:
            tell(Happened(**json.loads(payload)))

        lost = asyncio.Event()
        try:
            connection = await asyncpg.connect(self._dsn, timeout=WAIT_SECONDS, ssl=self._tls)
        except AWAY as error:
            raise _told_apart(error) from error
        try:
            connection.add_termination_listener(lambda _connection: lost.set())
            async with asyncio.timeout(WAIT_SECONDS):
                await connection.add_listener(CHANNEL, hear)
                mark = await connection.fetchval(_OLDEST_RUNNING)
            if self._heard is None:
                self._heard = mark
            # Ids may commit out of order, so nothing is skipped by id: whatever was not committed when the log
            # was last known to be heard is told, and what was heard already is told twice.
            for row in await connection.fetch(_EVENTS_SINCE, self._heard, timeout=SCAN_SECONDS):
                tell(Happened(**row))
            marked_at = monotonic()
            while not lost.is_set():
                heard()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), LOOK_SECONDS)
                newest = await connection.fetchval(_OLDEST_RUNNING, timeout=WAIT_SECONDS)
                if monotonic() - marked_at > MARK_SECONDS:
                    # One mark late: what was committed before the last mark has surely been heard.
                    self._heard, mark, marked_at = mark, newest, monotonic()
            raise DatabaseUnavailable("the connection that listens was lost")
        except AWAY as error:
            raise _told_apart(error) from error
        finally:
            connection.terminate()

    async def migrate(self) -> None:
        try:
            async with self._connections.engine.begin() as connection:
                await connection.run_sync(migrating.upgrade)
        except Exception as error:
            raise _told_apart(error) from error

    async def close(self) -> None:
        # A server that says nothing lets no connection go: then they are left.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                if self._pool:
                    await self._pool.close()
                await self._connections.engine.dispose()
                await self._scanning.engine.dispose()
        if self._pool:
            self._pool.terminate()

    async def _open_pool(self) -> asyncpg.Pool[asyncpg.Record]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=1,
                    max_size=self._size,
                    timeout=WAIT_SECONDS,
                    ssl=self._tls,
                    # Its one statement leaves nothing behind; resetting would be a second round trip.
                    reset=_leave,
                )
            return self._pool


def _read_tls(url: URL) -> ssl.SSLContext | str | None:
    """How `url` wants connections encrypted, for the driver; None: by TLS where the server has it.

    Raises ValueError with one line where an option of the URL is unknown or means nothing.
    """
    for name, value in url.query.items():
        if name not in OPTIONS:
            raise ValueError(f"unknown option in its URL: {name}: expected one of {', '.join(OPTIONS)}")
        if name.startswith("ssl") and not isinstance(value, str):
            raise ValueError(f"{name} is in its URL twice")
    mode, file = (cast(str | None, url.query.get(name)) for name in ("sslmode", "sslrootcert"))
    if mode is not None and mode not in TLS_MODES:
        raise ValueError(f"sslmode in its URL: expected one of {', '.join(TLS_MODES)}")
    is_checked = mode in ("verify-ca", "verify-full")
    if is_checked != (file is not None):
        raise ValueError("sslrootcert in its URL: expected a file or system, with sslmode=verify-ca or verify-full")
    if not is_checked:
        return mode
    try:
        context = ssl.create_default_context(cafile=None if file == "system" else file)
    except OSError as error:
        raise ValueError(f"sslrootcert in its URL: {file} can't be read: {error.strerror or error}") from None
    context.check_hostname = mode == "verify-full"
    return context


async def _leave(_connection: object) -> None:
    """Leave a connection as it is."""


def _check_open(driver: Any, _record: object, _proxy: object) -> None:
    """Have the pool make a new connection where the server closed this one: no ping, no round trip."""
    if driver.driver_connection.is_closed():
        raise exc.DisconnectionError


def _told_apart(error: Exception) -> Exception:
    # A time that ran out has a cause of asyncio's own, which tells nothing.
    reason = (error.__cause__ if isinstance(error, exc.SQLAlchemyError) else None) or error
    # The driver's own come from a connection that is lost while it is made; those of a query are SQLAlchemy's.
    is_away = is_unavailable(error) or isinstance(error, AWAY)
    return DatabaseUnavailable(str(reason) or type(reason).__name__) if is_away else error

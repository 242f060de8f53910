"""SQLite: reads run where they are called, writes on one thread that shares commits."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, NullPool, create_engine, event, make_url
from sqlalchemy.orm import Session

from models import migrating
from models.database import Database, DatabaseUnavailable, P, Query, T, is_unavailable

# Waiting for another process's write; past this the database counts as away.
BUSY_MILLISECONDS = 5000
MOST_IN_A_COMMIT = 256


@dataclass(slots=True)
class _Write:
    """A query that waits for the writer, and whoever waits for its result."""

    run: Callable[[Session], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class SQLiteDatabase(Database):
    """A file beside the server, in WAL mode, synced to disk at every commit."""

    def __init__(self, url: str) -> None:
        self._file = Path(make_url(url).database or "")
        self._reader = _make_engine(self._file, "BEGIN", query_only=True)
        self._writer = _make_engine(self._file, "BEGIN IMMEDIATE")
        self._reading = self._reader.connect()
        self._scans = ThreadPoolExecutor(2, thread_name_prefix="scan")
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="writer", daemon=True)
        self._thread.start()

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _told_apart(), Session(self._reading) as db:
            return query(db, *args, **kwargs)

    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._scans, partial(self._scan, query, *args, **kwargs)
        )

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        write = _Write(partial(_call, query, args, kwargs), asyncio.get_running_loop().create_future())
        self._writes.put(write)
        result: T = await write.future
        return result

    async def migrate(self) -> None:
        def run() -> None:
            with self._writer.connect() as connection, connection.begin():
                migrating.upgrade(connection)

        with _told_apart():
            await asyncio.to_thread(run)

    async def is_current(self) -> bool:
        with _told_apart(), self._reader.connect() as connection:
            return migrating.is_current(connection)

    async def close(self) -> None:
        self._writes.put(None)
        await asyncio.to_thread(self._thread.join)
        self._scans.shutdown()
        self._reading.close()
        self._reader.dispose()
        self._writer.dispose()

    def _scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _told_apart(), Session(self._reader) as db:
            return query(db, *args, **kwargs)

    def _write_all(self) -> None:
        while write := self._writes.get():
            writes = [write]
            is_last = False
            with contextlib.suppress(queue.Empty):
                while len(writes) < MOST_IN_A_COMMIT and not is_last:
                    another = self._writes.get_nowait()
                    if another:
                        writes.append(another)
                    is_last = another is None
            self._commit(writes)
            _answer(writes)
            if is_last:
                return

    def _commit(self, writes: list[_Write]) -> None:
        """Run `writes` in one transaction, each in its savepoint, so that one that fails takes no other along."""
        try:
            with _told_apart(), Session(self._writer) as db, db.begin():
                for write in writes:
                    try:
                        with db.begin_nested():
                            write.result = write.run(db)
                    except Exception as error:
                        if is_unavailable(error):
                            raise
                        write.error = error
        except Exception as error:
            for write in writes:
                write.error = write.error or error


def _call(query: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], db: Session) -> T:
    return query(db, *args, **kwargs)


def _answer(writes: list[_Write]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
    for write in writes:
        by_loop.setdefault(write.future.get_loop(), []).append(write)
    for loop, group in by_loop.items():
        # A loop that was closed meanwhile has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_resolve, group)


def _resolve(writes: list[_Write]) -> None:
    for write in writes:
        if write.future.done():
            continue
        if write.error:
            write.future.set_exception(write.error)
        else:
            write.future.set_result(write.result)


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if is_unavailable(error):
            raise DatabaseUnavailable(str(error.__cause__ or error)) from error
        raise


def _make_engine(file: Path, begin: str, query_only: bool = False) -> Engine:
    file.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool, connect_args={"check_same_thread": False})

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own transactions start too late to be safe; ours are started by name.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={BUSY_MILLISECONDS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"query_only={int(query_only)}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine

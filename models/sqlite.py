"""SQLite: reads run where they are called, in microseconds; writes, which wait for the disk, run on a thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from time import monotonic
from typing import Any, cast
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event, make_url
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler

from models import ends, migrating
from models.database import (
    A,
    Database,
    DatabaseUnavailable,
    Happened,
    P,
    Query,
    QueryOfMany,
    Statement,
    T,
    is_unavailable,
)
from models.turns import Place, Turn

# Waiting for another process's write; past this the database counts as away.
BUSY_SECONDS = 5
# So many that a commit is shared, so few that others are read and answered while it is written.
MOST_IN_A_COMMIT = 32
LOOK_SECONDS = 0.04
# Threads, each with a connection, for what takes longer than the loop should wait.
SCANS = 2
# Bytes of the log: past so many whoever writes writes it back to its end, so that it begins anew.
LONG_LOG = 64 * 1024 * 1024
# Rows that are changed before it is written back: many, as a page that was changed twice is written once; few where it
# has so many pages that it is nearly long, so that little is left.
MANY_IN_LOG, FEW_IN_LOG, MANY_PAGES = 500, 100, 12_000
# So long whoever writes waits for another who writes a long log back.
PLACE_SECONDS = 1
PRAGMAS = (
    f"busy_timeout={BUSY_SECONDS * 1000}",
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    # A write's savepoint keeps what its pages were, in a file that would be made for each.
    "temp_store=MEMORY",
    # Written back by `_Log` alone.
    "wal_autocheckpoint=0",
    # What it was longer than that is given back when it begins anew; a long read puts that off.
    f"journal_size_limit={LONG_LOG}",
)
# Whoever computes lets another thread go on after so many seconds: the one that writes is done with little at a time.
SWITCH_SECONDS = 0.0005
# What the driver raises where it can't ask, or where what it reads is damaged.
DAMAGED = (sqlite3.DatabaseError, MemoryError, UnicodeDecodeError)

_NEWEST_EVENT = "SELECT coalesce(max(id), 0) FROM events"
_EVENTS_SINCE = """
    SELECT id, kind, account_id, type, session_id, cause FROM events
    WHERE id > ? AND (account_id IS NOT NULL OR type = 'emergency') ORDER BY id
"""


@dataclass(slots=True)
class _Write:
    """What is asked of a query that waits for its commit, and whoever waits for the result."""

    query: QueryOfMany[Any, Any]
    asked: Any
    future: asyncio.Future[Any]
    # Whether all that the query does is one statement: alone, that is a transaction by itself.
    is_statement: bool
    result: Any = None
    error: Exception | None = None

    def answer(self) -> None:
        """Tell whoever waits."""
        if self.future.done():
            return
        if self.error:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Compiler(SQLiteCompiler):
    """SQLAlchemy's, with the hints of a statement: which index a list goes by is ours to say."""

    def get_from_hint_text(self, table: Any, text: str | None) -> str | None:
        return text


class SQLiteDatabase(Database):
    """A file beside the server, in WAL mode, synced to disk at every commit.

    Reads run in the loop: a thread would cost more than they do. Writes run on a thread of their own, and those that
    come while one commits share the next; another thread writes the log back to the file meanwhile.
    """

    def __init__(self, url: str) -> None:
        self._file = Path(make_url(url).database or "")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # For its owner alone, it holds password hashes; the files that SQLite makes beside it follow it.
        self._file.touch(mode=0o600)
        # Asked, and not tried: closing a file lets go of every lock that this process has on it.
        if not os.access(self._file, os.W_OK):
            raise PermissionError(f"{self._file} may only be read")
        # Transactions are begun and committed by name: the driver's own start too late to be safe.
        self._engine = self._make_engine(poolclass=NullPool)
        # Kept open: a new connection learns the tables' shapes first, which takes longer than most that is asked.
        self._scanning = self._make_engine(poolclass=QueuePool, pool_size=SCANS, max_overflow=0)
        self._identity = _identify(self._file)
        # Set while the file at our path is another than the one that is open.
        self._is_gone = False
        # Set from when damage was read until the file was found whole: what is held in memory would hide it.
        self._is_damaged = False
        with _told_apart():
            self._reading = self._engine.connect()
            self._writing = self._engine.connect()
            self._read_driver = _driver(self._reading)
            self._write_driver = _driver(self._writing)
            self._read_driver.execute("PRAGMA query_only=ON")
            for text in ends.make_setup():
                self._write_driver.execute(text)
            # SQLite itself locks the other two files: closing those would let go of its locks.
            shared = FileIO(f"{os.path.realpath(self._file)}-wal", "r+")
            self._log = _Log(self._connect(), shared)
            # SQLite gives its lock to whoever asks at the right moment, and has the others sleep longer and longer.
            self._turn = Turn(Place(shared, 1), Place(shared, 2))
        self._scans = ThreadPoolExecutor(SCANS, thread_name_prefix="scan")
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._waiting: deque[_Write] = deque()
        self._writes: asyncio.Task[None] | None = None
        self._told: int | None = None
        sys.setswitchinterval(SWITCH_SECONDS)

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._told_apart():
            self._check_gone()
            return query(self._reading, *args, **kwargs)

    async def fetch(self, statement: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        return self.fetch_now(statement, values)

    def fetch_now(self, statement: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        text, parameters = statement.prepare(self._engine.dialect, values)
        self._check_gone()
        try:
            return self._read_driver.execute(text, parameters).fetchall()
        except DAMAGED as error:
            self._note_damage(error)
            raise DatabaseUnavailable(str(error)) from error

    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def run() -> T:
            self._check_gone()
            with self._told_apart(), self._scanning.connect() as db:
                return query(db, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._scans, run)

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def run(db: Connection, _: Sequence[None]) -> Sequence[T]:
            return [query(db, *args, **kwargs)]

        return await self._write(run, None, is_statement=False)

    def write_gathered(self, query: QueryOfMany[A, T], asked: A) -> asyncio.Future[T]:
        return self._write(query, asked, is_statement=True)

    def _write(self, query: QueryOfMany[A, T], asked: A, *, is_statement: bool) -> asyncio.Future[T]:
        write = _Write(query, asked, asyncio.get_running_loop().create_future(), is_statement)
        self._waiting.append(write)
        if self._writes is None:
            self._writes = asyncio.create_task(self._write_all())
        return write.future

    async def follow(self, tell: Callable[[Happened], None], heard: Callable[[], object]) -> None:
        with self._told_apart():
            if self._is_damaged:
                loop = asyncio.get_running_loop()
                is_whole = await loop.run_in_executor(self._scans, self._is_whole)
                # What they hold in memory was read while the file was damaged.
                self._read_driver.execute("PRAGMA shrink_memory")
                await loop.run_in_executor(self._disk, self._write_driver.execute, "PRAGMA shrink_memory")
                self._scanning.dispose()
                self._is_damaged = not is_whole
            self._look_for_file()
            if self._told is None:
                self._told = self._read_driver.execute(_NEWEST_EVENT).fetchone()[0]
            version = None
            while True:
                self._look_for_file()
                # Moves when any other connection commits, this process's or another's; costs two microseconds.
                if version != (version := self._read_driver.execute("PRAGMA data_version").fetchone()):
                    for row in self._read_driver.execute(_EVENTS_SINCE, (self._told,)).fetchall():
                        self._told = row[0]
                        tell(Happened(*row))
                heard()
                await asyncio.sleep(LOOK_SECONDS)

    async def migrate(self) -> None:
        def run() -> None:
            with _told_apart(), self._engine.connect() as connection:
                # Where another does not end its turn, SQLite's own lock decides.
                self._turn.take(BUSY_SECONDS)
                try:
                    _driver(connection).execute("BEGIN IMMEDIATE")
                    migrating.upgrade(connection)
                    connection.commit()
                finally:
                    self._turn.give()

        await asyncio.get_running_loop().run_in_executor(self._disk, run)

    async def close(self) -> None:
        while self._writes:
            await self._writes
        self._scans.shutdown()
        self._disk.shutdown()
        self._log.close()
        self._reading.close()
        self._writing.close()
        self._scanning.dispose()
        self._engine.dispose()

    async def _write_all(self) -> None:
        """Write what waits, and what comes meanwhile, until nothing does."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                try:
                    writing = loop.run_in_executor(self._disk, self._write_waiting, loop)
                except RuntimeError as error:
                    # Closed: nothing is written any more.
                    for write in self._take_waiting(len(self._waiting)):
                        write.error = DatabaseUnavailable(str(error))
                        write.answer()
                else:
                    await writing
        finally:
            self._writes = None

    def _write_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._waiting:
                self._write_some(loop)
        finally:
            self._turn.give()

    def _write_some(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write what waits when it is our turn, in one commit."""
        writes, is_due, is_away = self._take_waiting(MOST_IN_A_COMMIT), False, False
        try:
            with self._told_apart():
                if not self._turn.take(BUSY_SECONDS):
                    raise DatabaseUnavailable("another process does not end its turn to write")
                # What came while it was another's turn is in it too.
                writes += self._take_waiting(MOST_IN_A_COMMIT - len(writes))
                self._check_gone()
                is_due = self._log.claim(self._write_driver.total_changes)
                self._commit(writes)
        except Exception as error:
            is_away = isinstance(error, DatabaseUnavailable)
            if is_away:
                # It is away for those that came meanwhile, too: they don't wait for it as long once more.
                writes += self._take_waiting(len(self._waiting))
            for write in writes:
                write.error = write.error or error
        loop.call_soon_threadsafe(_answer, writes)
        if is_due:
            # Where nothing could be committed the disk is full perhaps: once the log is written back it has room.
            self._log.write_back(must=is_away)

    def _commit(self, writes: list[_Write]) -> None:
        """One transaction with `writes`.

        A statement alone is one without our saying so: in one go, where between its parts the thread would have to wait
        for others.
        """
        if writes[0].is_statement and all(write.query is writes[0].query for write in writes):
            self._run_statement(writes)
            self._look_for_file()
            return
        execute = self._write_driver.execute
        execute("BEGIN IMMEDIATE")
        try:
            gathered: defaultdict[QueryOfMany[Any, Any], list[_Write]] = defaultdict(list)
            for write in writes:
                gathered[write.query].append(write)
            for query, ones in gathered.items():
                self._run(query, ones, is_alone=len(gathered) == 1)
            if self._write_driver.in_transaction:
                execute("COMMIT")
            # Before anybody is told: what is on disk in no file of ours is kept by nobody.
            self._look_for_file()
        finally:
            if self._write_driver.in_transaction:
                execute("ROLLBACK")
            # Nothing is open now: where a savepoint was lost with the transaction, SQLAlchemy is to know.
            self._writing.rollback()

    def _make_engine(self, **pool: Any) -> Engine:
        # Errors are logged: without what was looked for or written.
        engine = create_engine(
            "sqlite://", creator=self._connect, hide_parameters=True, isolation_level="AUTOCOMMIT", **pool
        )
        engine.dialect.statement_compiler = _Compiler
        event.listen(engine, "connect", _set_up)
        return engine

    def _connect(self) -> sqlite3.Connection:
        # Where the file is gone, none is made in its place.
        address = f"file:{quote(str(self._file))}?mode=rw"
        return sqlite3.connect(address, uri=True, check_same_thread=False)

    def _look_for_file(self) -> None:
        """Raise DatabaseUnavailable while the file that is open is not the one that others, and a restart, find."""
        self._is_gone = _identify(self._file) != self._identity
        self._check_gone()

    def _check_gone(self) -> None:
        if self._is_gone:
            raise DatabaseUnavailable("the file was moved, deleted or replaced while it was open")
        if self._is_damaged:
            raise DatabaseUnavailable("the file is damaged")

    def _note_damage(self, error: BaseException) -> None:
        # And none of its subclasses: a lock, a full disk, a mistake of ours leave the file whole.
        if type(error) in DAMAGED:
            self._is_damaged = True

    def _is_whole(self) -> bool:
        """Whether all of the file can be read, on a connection that holds nothing of it yet."""
        with _told_apart(), self._engine.connect() as connection:
            found: tuple[str] = _driver(connection).execute("PRAGMA quick_check(1)").fetchone()
            return found == ("ok",)

    @contextlib.contextmanager
    def _told_apart(self) -> Iterator[None]:
        with _told_apart():
            try:
                yield
            except Exception as error:
                self._note_damage(getattr(error, "orig", None) or error)
                raise

    def _take_waiting(self, most: int) -> list[_Write]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]

    def _run_statement(self, writes: list[_Write]) -> None:
        """Run what is asked of one query that is one statement, and commit it."""
        results = writes[0].query(self._writing, [write.asked for write in writes])
        for write, result in zip(writes, results, strict=True):
            write.result = result

    def _run(self, query: QueryOfMany[Any, Any], writes: list[_Write], *, is_alone: bool) -> None:
        """Run what is asked of one query; beside others in a savepoint, so that one that fails takes none along."""
        execute = self._write_driver.execute
        if not is_alone:
            execute("SAVEPOINT write")
        try:
            results = query(self._writing, [write.asked for write in writes])
        except Exception as error:
            if is_unavailable(error) or not self._write_driver.in_transaction:
                raise
            for write in writes:
                write.error = error
            execute("ROLLBACK" if is_alone else "ROLLBACK TO write")
        else:
            if not self._write_driver.in_transaction:
                raise DatabaseUnavailable("what was written was taken back")
            for write, result in zip(writes, results, strict=True):
                write.result = result
        if not is_alone:
            execute("RELEASE write")


class _Log:
    """SQLite's log, which what is committed is in until it is written back to the file; that is done beside writes.

    By one process at a time, and where something was committed since it took its place, or where nobody can commit:
    what SQLite before 3.51.3 has committed while nothing was left to write back, and another process began to all the
    same, it can lose (https://sqlite.org/wal.html#walresetbug).
    """

    def __init__(self, connection: sqlite3.Connection, shared: FileIO) -> None:
        _set_up(connection, None)
        self._connection = connection
        self._shared = shared
        self._place = Place(shared, 0)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._changes = 0
        self._pages = 0
        self._version = 0
        self._is_ours = False
        self._is_long = False

    def claim(self, changes: int) -> bool:
        """Whether it is to be written back after the next commit, as many of the `changes` so far came since the last
        time; until then no other process does. Where it is long whoever else does is waited for."""
        self._is_long = os.fstat(self._shared.fileno()).st_size > LONG_LOG
        most = FEW_IN_LOG if self._pages > MANY_PAGES else MANY_IN_LOG
        if self._is_ours or not (self._is_long or changes - self._changes > most):
            return False
        if not self._place.take(monotonic() + PLACE_SECONDS if self._is_long else 0):
            return False
        try:
            self._version = self._read_version()
        except DAMAGED:
            self._place.give()
            return False
        self._is_ours, self._changes = True, changes
        return True

    def write_back(self, *, must: bool = False) -> None:
        """Begin to; where it must, it is long, or there can be no other thread, whoever writes does it in his turn."""
        if not (must or self._is_long):
            with contextlib.suppress(RuntimeError):
                self._thread.submit(self._run, is_alone=False)
                return
        self._run(is_alone=True)

    def close(self) -> None:
        """Finish what was begun."""
        self._thread.shutdown()
        self._connection.close()
        self._shared.close()

    def _run(self, *, is_alone: bool) -> None:
        try:
            # What can't be written back now is with what comes next; a file that is damaged is noted by who reads it.
            with contextlib.suppress(*DAMAGED):
                if is_alone or self._read_version() != self._version:
                    # Passive: it waits for nobody, and nobody for it.
                    [(_, self._pages, _)] = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            # In this order: whoever asks in between is told that it is ours still.
            self._place.give()
            self._is_ours = False

    def _read_version(self) -> int:
        """What every commit moves."""
        [(version,)] = self._connection.execute("PRAGMA data_version").fetchall()
        return int(version)


def _answer(writes: list[_Write]) -> None:
    for write in writes:
        write.answer()


def _identify(file: Path) -> tuple[int, int] | None:
    """What tells the file at a path from another that takes its place; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _driver(connection: Connection) -> sqlite3.Connection:
    return cast(sqlite3.Connection, connection.connection.driver_connection)


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        raise DatabaseUnavailable(str(error)) from error
    except Exception as error:
        if is_unavailable(error):
            raise DatabaseUnavailable(str(error.__cause__ or error)) from error
        raise


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()

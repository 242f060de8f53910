"""SQLite: when its log is written back to the file, and by whom."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
from collections.abc import Callable, Coroutine
from io import FileIO
from pathlib import Path

import pytest
from sqlalchemy import Connection

from models.database import DatabaseUnavailable
from models.sqlite import MANY_IN_LOG, MOST_IN_A_COMMIT, SQLiteDatabase
from models.turns import Place, Turn
from tests.conftest import wait_until


def stir(db: Connection) -> None:
    """Change more rows than wait to be written back."""
    db.exec_driver_sql(
        "WITH RECURSIVE n(n) AS (VALUES (0) UNION ALL SELECT n + 1 FROM n WHERE n < ?)"
        " INSERT INTO rows SELECT n FROM n",
        (MANY_IN_LOG,),
    )


def look(db: Connection) -> None:
    """Change nothing."""
    db.exec_driver_sql("SELECT 1")


class Log:
    """A database's log, as another process sees it."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._shared = FileIO(f"{file}-wal", "r+")
        # Whoever holds it may write the log back.
        self.place = Place(self._shared, 0)
        self.turn = Turn(Place(self._shared, 1), Place(self._shared, 2))

    def mark(self) -> None:
        """Have `is_written_back` look from now on. The file is not opened: closing it would let go of its locks."""
        os.utime(self.file, (0, 0))

    def is_written_back(self) -> bool:
        """Whether anything was written to the file since it was marked."""
        return self.file.stat().st_mtime != 0

    def measure(self) -> int:
        """How many bytes it has."""
        return os.fstat(self._shared.fileno()).st_size

    def close(self) -> None:
        """See it no more."""
        self._shared.close()


Check = Callable[[SQLiteDatabase, Log], Coroutine[None, None, None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Check], None]:
    """What runs a check on a database with a table, whose rows are written back."""

    async def run(check: Check) -> None:
        file = tmp_path / "sessions.sqlite3"
        database = SQLiteDatabase(f"sqlite:///{file}")
        log = Log(file)
        try:
            await database.write(lambda db: db.exec_driver_sql("CREATE TABLE rows (n INTEGER)"))
            log.mark()
            await database.write(stir)
            await database.write(stir)
            await asyncio.to_thread(wait_until, log.is_written_back)
            await asyncio.to_thread(wait_until, log.place.take)
            log.place.give()
            log.mark()
            await check(database, log)
        finally:
            await database.close()
            log.close()

    return lambda check: asyncio.run(run(check))


def test_whoever_writes_waits_for_the_disk(run: Callable[[Check], None]) -> None:
    async def check(database: SQLiteDatabase, _log: Log) -> None:
        # FULL: what was committed outlives a loss of power, which no test here can bring about.
        assert await database.write(lambda db: db.exec_driver_sql("PRAGMA synchronous").scalar()) == 2

    run(check)


def test_the_log_is_written_back_by_one_process_at_a_time(run: Callable[[Check], None]) -> None:
    async def check(database: SQLiteDatabase, log: Log) -> None:
        assert log.place.take()
        for _ in range(3):
            await database.write(stir)
        # Whoever writes it back begins to before the next commit.
        await database.write(look)
        assert not log.is_written_back()
        log.place.give()
        await database.write(stir)
        await asyncio.to_thread(wait_until, log.is_written_back)

    run(check)


def test_the_log_is_not_written_back_where_nothing_was_committed_since_the_last_who_did(
    run: Callable[[Check], None],
) -> None:
    async def check(database: SQLiteDatabase, log: Log) -> None:
        other = sqlite3.connect(log.file, isolation_level=None)
        await database.write(stir)
        await asyncio.to_thread(wait_until, log.place.take)
        log.place.give()
        other.execute("INSERT INTO rows VALUES (0)")
        log.mark()
        # It is its turn now, and what came before that may have been written back by another.
        await database.write(look)
        await asyncio.to_thread(wait_until, log.place.take)
        assert not log.is_written_back()
        log.place.give()
        # And many come before it looks again.
        await database.write(stir)
        await database.write(stir)
        await asyncio.to_thread(wait_until, log.is_written_back)
        other.close()

    run(check)


def test_where_the_disk_was_full_there_is_room_in_the_log_again(run: Callable[[Check], None]) -> None:
    async def check(database: SQLiteDatabase, log: Log) -> None:
        async def is_written() -> bool:
            try:
                # Not so many that they are written back.
                await database.write(lambda db: db.exec_driver_sql("UPDATE rows SET n = n + 1 WHERE rowid < 100"))
            except DatabaseUnavailable:
                return False
            return True

        await database.write(stir)
        await asyncio.to_thread(wait_until, log.place.take)
        log.place.give()
        assert await is_written()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.measure(), before[1]))
        try:
            written = [await is_written() for _ in range(20)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert not all(written), "it was not full"
        assert written[-1]

    run(check)


def test_a_file_may_be_named_by_a_link(tmp_path: Path) -> None:
    async def check() -> None:
        link = tmp_path / "link.sqlite3"
        link.symlink_to(tmp_path / "sessions.sqlite3")
        database = SQLiteDatabase(f"sqlite:///{link}")
        await database.write(lambda db: db.exec_driver_sql("CREATE TABLE rows (n INTEGER)"))
        await database.close()

    asyncio.run(check())


@pytest.mark.long
def test_a_process_that_does_not_end_its_turn_to_write_keeps_others_waiting_for_five_seconds_and_no_more(
    run: Callable[[Check], None],
) -> None:
    async def check(database: SQLiteDatabase, log: Log) -> None:
        assert log.turn.take(0)
        asked = [asyncio.ensure_future(database.write(look)) for _ in range(MOST_IN_A_COMMIT + 1)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0)
        assert {type(one.exception()) for one in asked} == {DatabaseUnavailable}
        log.turn.give()
        await database.write(look)

    run(check)

"""Migrations: equal to the models on both databases, safe to repeat, refused where the tables are newer."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from models.database import DatabaseUnavailable
from models.migrating import MIGRATIONS, NEWEST, NewerTables
from models.schema import METADATA
from tests.conftest import KEY, ROOT, House, open_database
from tests.postgres import make_database

DOMAIN_TABLES = sorted(METADATA.tables)
NUMBERED_TABLES = sorted(name for name, table in METADATA.tables.items() if "id" in table.c)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.sqlite3"
    return make_database(request.getfixturevalue("postgres"))


def on_connection(url: str, work: Callable[[Connection], Any]) -> Any:
    """What `work` gives in a transaction on the database, past our own engines."""
    if url.startswith("sqlite"):
        engine = create_engine(url)
        try:
            with engine.begin() as connection:
                return work(connection)
        finally:
            engine.dispose()

    async def run() -> Any:
        engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(work)
        finally:
            await engine.dispose()

    return asyncio.run(run())


def migrate(url: str) -> bool:
    """Migrate as the server does; whether the tables are current then."""

    async def run() -> bool:
        database = open_database(url)
        try:
            await database.migrate()
            return await database.is_current()
        finally:
            await database.close()

    return asyncio.run(run())


def is_current(url: str) -> bool:
    async def run() -> bool:
        database = open_database(url)
        try:
            return await database.is_current()
        finally:
            await database.close()

    return asyncio.run(run())


def config(connection: Connection | None = None) -> Config:
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    made.attributes["connection"] = connection
    return made


def read_tables(connection: Connection) -> list[str]:
    names = inspect(connection).get_table_names()
    return sorted(name for name in names if name != "alembic_version")


def run_program(folder: Path, url: str, *arguments: str) -> tuple[str, str, int]:
    """What a command writes to stdout and stderr, and its exit code."""
    program = start_program(folder, url, *arguments)
    return (*program.communicate(timeout=60), program.returncode)


def start_program(folder: Path, url: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "SESSIONS_DATABASE__URL": url,
        "SESSIONS_SERVER__PORT": "0",
        "SESSIONS_TOKENS__KEYS": f'[{{"kid": "test", "secret": "{KEY}"}}]',
    }
    return subprocess.Popen(
        [sys.executable, ROOT / "server.py", *arguments], env=environment, cwd=folder, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_program_expects_the_newest_migration() -> None:
    script = ScriptDirectory.from_config(config())
    assert script.get_heads() == [NEWEST]


def test_the_migrations_make_what_the_models_say(house: House) -> None:
    def compare(db: Connection) -> Any:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        return compare_metadata(context, METADATA)

    assert house.read(compare) == []


def test_an_id_is_never_used_again(house: House) -> None:
    def read(db: Connection) -> Any:
        if house.url.startswith("sqlite"):
            found = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%' ORDER BY 1"
            return list(db.scalars(text(found)))
        found = "SELECT table_name FROM information_schema.columns WHERE column_default LIKE 'nextval(%' ORDER BY 1"
        return list(db.scalars(text(found)))

    assert house.read(read) == NUMBERED_TABLES


def test_an_empty_database_is_brought_up_and_then_left_alone(empty: str) -> None:
    assert not is_current(empty)
    assert migrate(empty)

    def add(connection: Connection) -> None:
        connection.execute(text("INSERT INTO events (at, type) VALUES (1, 'named')"))

    on_connection(empty, add)
    assert migrate(empty)

    def read(connection: Connection) -> Any:
        counted = connection.scalar(text("SELECT count(*) FROM events"))
        return read_tables(connection), counted, list(connection.scalars(text("SELECT * FROM alembic_version")))

    assert on_connection(empty, read) == (DOMAIN_TABLES, 1, [NEWEST])


def test_older_tables_are_not_current_and_keep_their_rows(empty: str) -> None:
    add = (
        "INSERT INTO users (id, surname, name, patronymic, address, password_hash, email, confirmed_email, is_staff,"
        " confirmed_phone, created_at, updated_at, revision)"
        " VALUES (5, 'user3', '', '', '', '', 'user3@gmail.com', true, false, false, 1, 1, 1)"
    )

    def make_old(connection: Connection) -> None:
        command.upgrade(config(connection), "0001")
        connection.execute(text(add))

    on_connection(empty, make_old)
    assert not is_current(empty)
    assert migrate(empty)
    assert (
        on_connection(empty, lambda connection: connection.scalar(text("SELECT email FROM users"))) == "user3@gmail.com"
    )


def test_each_migration_can_be_undone(empty: str) -> None:
    migrate(empty)
    on_connection(empty, lambda connection: command.downgrade(config(connection), "base"))
    assert on_connection(empty, read_tables) == []
    assert migrate(empty)
    assert on_connection(empty, read_tables) == DOMAIN_TABLES


def test_a_migration_that_fails_leaves_nothing_behind(empty: str) -> None:
    # The last table that the first migration makes is in its way.
    on_connection(empty, lambda connection: connection.execute(text("CREATE TABLE user_sessions (id integer)")))
    with pytest.raises((DatabaseUnavailable, DBAPIError), match="user_sessions"):
        migrate(empty)
    assert on_connection(empty, read_tables) == ["user_sessions"]
    on_connection(empty, lambda connection: connection.execute(text("DROP TABLE user_sessions")))
    assert migrate(empty)


@pytest.mark.long
def test_several_that_migrate_at_once_are_safe(empty: str, tmp_path: Path) -> None:
    programs = [start_program(tmp_path, empty, "migrate") for _ in range(2)]
    for program in programs:
        out, err = program.communicate(timeout=60)
        assert (program.returncode, out, err) == (0, "The database's tables are of this version.\n", "")
    assert is_current(empty)
    assert on_connection(empty, read_tables) == DOMAIN_TABLES


@pytest.mark.long
def test_tables_of_a_newer_version_are_refused_in_one_line(empty: str, tmp_path: Path) -> None:
    migrate(empty)
    on_connection(empty, lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    assert not is_current(empty)
    with pytest.raises(NewerTables, match=r"newer version \(9999\) than this program"):
        migrate(empty)
    out, err, code = run_program(tmp_path, empty, "migrate" if empty.startswith("postgresql") else "serve")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "newer version (9999) than this program" in err
    assert on_connection(empty, lambda connection: connection.scalar(text("SELECT * FROM alembic_version"))) == "9999"


def test_a_server_on_postgresql_says_to_migrate_and_does_not_do_it(postgres: str, tmp_path: Path) -> None:
    url = make_database(postgres)
    out, err, code = run_program(tmp_path, url, "serve")
    assert (code, out) == (1, "")
    assert err == "The database's tables are not of this version. Run server.py migrate, with the same settings.\n"
    assert on_connection(url, read_tables) == []


def test_sessions_that_were_there_are_counted_by_their_days_and_know_them(empty: str) -> None:
    day = 86_400_000_000

    def make_old(connection: Connection) -> None:
        # The last of them before it was started, by a clock that was set back.
        command.upgrade(config(connection), "0010")
        connection.execute(
            text(
                "INSERT INTO clients (id, surname, name, patronymic, address, password_hash, confirmed_phone,"
                " created_at, updated_at, revision) VALUES (1, '', '', '', '', '', true, 1, 1, 1)"
            )
        )
        for number, (started, seen) in enumerate(((3, 5), (3, 5), (3, 4), (6, 5))):
            connection.execute(
                text(
                    "INSERT INTO client_sessions (account_id, sid, device, ip, browser, os, device_kind, country, city,"
                    " created_at, last_seen_at, expires_at, generation, refreshed_at)"
                    f" VALUES (1, '{number}', '', '', 'curl', '', 'program', '', '', {started * day + number},"
                    f" {seen * day + number}, 1, 1, 1)"
                )
            )

    def read(connection: Connection) -> Any:
        makes = connection.execute(text("SELECT browser, sum(count) FROM session_counts GROUP BY browser"))
        days = connection.execute(text("SELECT kind, started_on, seen_on, count FROM session_days ORDER BY seen_on"))
        seen = connection.scalars(text("SELECT seen_on FROM client_sessions ORDER BY id"))
        return [tuple(row) for row in makes], [tuple(row) for row in days], list(seen)

    on_connection(empty, make_old)
    assert migrate(empty)
    assert on_connection(empty, read) == (
        [("curl", 4)],
        [("client", 3, 4, 1), ("client", 3, 5, 2), ("client", 6, 6, 1)],
        [5, 5, 4, 6],
    )

"""PostgreSQL: how it is connected to by TLS, what the URL may say of that, and how it plans what is scanned."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Pool, event, func, literal, select, text, update

from models import clock, counts, events
from models.database import Database, DatabaseUnavailable, Happened, Statement
from models.events import Type
from models.postgres import PostgresDatabase
from models.schema import EVENT_COUNTS, EVENT_MARKS, EVENTS, USER
from tests.conftest import need_postgres, open_database, open_loop
from tests.postgres import make_database, running_postgres

IDLE = "idle_in_transaction_session_timeout"

pytestmark = pytest.mark.postgresql


@dataclass(frozen=True)
class Encrypted:
    """A database on a server that takes connections by TLS alone, and the certificate that it shows."""

    url: str
    certificate: Path


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Encrypted]:
    need_postgres()
    folder = Path(tempfile.mkdtemp(prefix="sessions-tls-"))
    certificate, key, rules = (folder / name for name in ("server.crt", "server.key", "pg_hba.conf"))
    subprocess.run(
        ["openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-newkey", "rsa:2048", "-keyout", key,
         "-out", certificate, "-subj", "/CN=sessions", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    rules.write_text("local all all trust\nhostssl all all all trust\n")
    for file in (folder, certificate, key, rules):
        shutil.chown(file, "postgres")
    options = {"ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key, "hba_file": rules}
    try:
        with running_postgres(" ".join(f"-c {name}={value}" for name, value in options.items())) as server:
            yield Encrypted(make_database(server.address), certificate)
    finally:
        shutil.rmtree(folder)


async def use(database: Database) -> tuple[bool, int]:
    """Whether a query of the engine came by TLS, and what a statement of the pool gives, while the log is followed."""
    heard = asyncio.Event()
    following = asyncio.create_task(database.follow(lambda _: None, heard.set))
    waiting = asyncio.create_task(heard.wait())
    try:
        await asyncio.wait({following, waiting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            following.result()
        assert heard.is_set()
        is_tls = text("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE backend_type = "
                      "'client backend'")  # fmt: skip
        return await database.read(lambda db: bool(db.scalar(is_tls))), (
            await database.fetch(Statement(select(literal(7))), {})
        )[0][0]
    finally:
        following.cancel()
        waiting.cancel()
        await asyncio.wait({following, waiting})


def connect(url: str) -> tuple[bool, int]:
    """The same of a new database."""

    async def connected() -> tuple[bool, int]:
        database = PostgresDatabase(url, 1)
        try:
            await database.migrate()
            return await use(database)
        finally:
            await database.close()

    return asyncio.run(connected())


@pytest.mark.parametrize("options", ["", "?sslmode=require", "?sslmode=verify-ca&{}", "?sslmode=verify-full&{}"])
def test_each_connection_is_encrypted_as_the_url_asks(encrypted: Encrypted, options: str) -> None:
    assert connect(encrypted.url + options.format(f"sslrootcert={encrypted.certificate}")) == (True, 7)


@pytest.mark.parametrize(
    "options",
    ["?sslmode=disable", "?sslmode=verify-full&sslrootcert=system"],
)
def test_a_server_that_may_not_be_talked_to_so_is_unavailable(encrypted: Encrypted, options: str) -> None:
    with pytest.raises(DatabaseUnavailable):
        connect(encrypted.url + options)


def test_a_certificate_is_for_a_name_where_that_is_asked(encrypted: Encrypted) -> None:
    url = encrypted.url.replace("127.0.0.1", "localhost")
    rest = f"sslrootcert={encrypted.certificate}"
    assert connect(f"{url}?sslmode=verify-ca&{rest}") == (True, 7)
    with pytest.raises(DatabaseUnavailable):
        connect(f"{url}?sslmode=verify-full&{rest}")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("ssl=require", "unknown option in its URL: ssl: expected one of host, port, sslmode, sslrootcert"),
        ("sslmode=on", "sslmode in its URL: expected one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("sslmode=require&sslmode=disable", "sslmode is in its URL twice"),
        ("sslmode=verify-full", "sslrootcert in its URL: expected a file or system, "),
        ("sslrootcert=system", "sslrootcert in its URL: expected a file or system, "),
        ("sslmode=verify-ca&sslrootcert=/nowhere", "sslrootcert in its URL: /nowhere can't be read: No such file"),
    ],
)
def test_an_option_that_means_nothing_is_told_in_one_line(options: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)) as raised:
        PostgresDatabase(f"postgresql://me:s3cret@127.0.0.1/none?{options}", 1)
    assert "\n" not in str(raised.value)


def test_what_is_scanned_is_planned_for_its_values_and_what_comes_after_it_is_not(postgres: str) -> None:
    def read(db: Connection) -> str:
        return str(db.scalar(text("SELECT current_setting('plan_cache_mode')")))

    async def run() -> list[str]:
        database = PostgresDatabase(make_database(postgres), 1)
        try:
            return [await database.scan(read), await database.read(read)]
        finally:
            await database.close()

    assert asyncio.run(run()) == ["force_custom_plan", "auto"]


def test_whoever_is_gone_in_the_middle_of_a_transaction_holds_its_locks_no_longer(postgres: str) -> None:
    async def run() -> None:
        database = PostgresDatabase(make_database(postgres), 1)
        try:
            assert await database.read(lambda db: db.scalar(text(f"SHOW {IDLE}"))) == "15s"
            # As it is for one that goes on without a word.
            with pytest.raises(DatabaseUnavailable):
                await database.write(go_away)
        finally:
            await database.close()

    asyncio.run(run())


def go_away(db: Connection) -> None:
    """Be silent in the middle of a transaction, for longer than is waited for; here that is not long."""
    db.execute(text(f"SET LOCAL {IDLE} = '10ms'"))
    time.sleep(0.5)
    db.execute(text("SELECT 1"))


@pytest.mark.parametrize("way", ["fetch", "read"])
def test_who_comes_later_is_answered_later(postgres: str, way: str) -> None:
    answered: list[int] = []

    async def ask(database: Database, asker: int) -> None:
        if way == "fetch":
            await database.fetch(Statement(select(literal(7))), {})
        else:
            await database.read(lambda db: db.scalar(select(literal(7))))
        answered.append(asker)

    async def run() -> None:
        database = PostgresDatabase(make_database(postgres), 1)
        asking: list[asyncio.Task[None]] = []
        try:
            await ask(database, -1)
            answered.clear()
            # One in each round of the loop, so that some come just as the connection is given to one who waits.
            while len(answered) < 20:
                asking.append(asyncio.create_task(ask(database, len(asking))))
                await asyncio.sleep(0)
            await asyncio.gather(*asking)
        finally:
            await database.close()

    asyncio.run(run())
    assert answered == list(range(len(answered)))


@pytest.fixture
def losing() -> Iterator[None]:
    """Each connection is lost once it is there, before it is set up."""

    def lose(driver: Any, _record: object) -> None:
        driver.driver_connection.terminate()

    event.listen(Pool, "connect", lose)
    yield
    event.remove(Pool, "connect", lose)


@pytest.mark.usefixtures("losing")
@pytest.mark.parametrize("migrates", [False, True], ids=["asked", "migrated"])
def test_a_server_that_is_lost_once_it_let_us_in_is_unavailable(postgres: str, migrates: bool) -> None:
    async def ask() -> None:
        database = PostgresDatabase(postgres, 1)
        try:
            await (database.migrate() if migrates else database.write(lambda db: db.scalar(select(literal(7)))))
        finally:
            await database.close()

    with pytest.raises(DatabaseUnavailable, match="connection is closed"):
        asyncio.run(ask())


def test_a_log_restored_where_transactions_are_counted_from_the_beginning_is_no_news_and_counted_anew(
    make_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "MOST_FORGOTTEN", 100)
    database, now, told = open_database(make_url("postgresql")), clock.now(), list[Happened]()
    made = [events.make(USER, 1, Type.STARTED, now, session_id=number) for number in range(250)]

    def restore(db: Connection) -> None:
        events.append(db, *made)
        counts.fold(db)
        db.execute(update(EVENTS).values(tx=EVENTS.c.id + 10**12))
        db.execute(update(EVENT_MARKS).values(mark=10**12 + 100))

    async def hear() -> None:
        heard = asyncio.Event()
        following = asyncio.create_task(database.follow(told.append, heard.set))
        await asyncio.wait_for(heard.wait(), 10)
        following.cancel()
        await asyncio.wait({following})

    with open_loop() as run:
        run(database.write(restore))
        run(hear())
        steps = [run(database.write(counts.fold)) for _ in range(4)]
        numbers = run(database.read(lambda db: db.scalars(select(EVENTS.c.tx)).all()))
        counted = run(database.read(lambda db: db.scalar(select(func.sum(EVENT_COUNTS.c.count)))))
        run(database.write(lambda db: events.append(db, made[0])))
        run(database.write(counts.fold))
        counted_next = run(database.read(lambda db: db.scalar(select(func.sum(EVENT_COUNTS.c.count)))))
        run(database.close())

    assert told == []
    assert steps == [True, True, True, False]
    assert numbers == [None] * 250
    assert (counted, counted_next) == (250, 251)

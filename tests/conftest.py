"""Real parts: a server process on each database, accounts in it, and an HTTP client."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import re
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from argon2 import PasswordHasher
from sqlalchemy import Connection, text
from tornado.ioloop import IOLoop

from models import accounts, clock, sessions
from models.database import Database, is_postgres
from models.keys import Key, KeySet
from models.origins import make_origin
from models.places import Places
from models.postgres import PostgresDatabase
from models.schema import KINDS
from models.sessions import Started
from models.settings import SessionSettings
from models.sqlite import SQLiteDatabase
from models.tokens import Tokens
from tests.postgres import Postgres, is_installed, make_database, running_postgres

ROOT = Path(__file__).parent.parent
PASSWORD = "a quiet harbour at dusk"
KEY = "k" * 64
KEY_SET = KeySet([Key("test", KEY.encode(), "HS256")])
TOKENS = Tokens(KEY_SET, 900, timedelta(days=366))
PLACES = Places()
# Nothing here speaks TLS: loading the world's certificates for each client would be most of what it costs.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# What starts PostgreSQL.
POSTGRES = frozenset({"postgres", "postgres_alone", "postgresql_house"})
_numbers = itertools.count(1)
# Servers are started some hundred times: what one compiled, the next need not.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on PostgreSQL."""
    for item in items:
        if isinstance(item, pytest.Function):
            given = item.callspec.params.values() if hasattr(item, "callspec") else ()
            if "postgresql" in given or not POSTGRES.isdisjoint(item.fixturenames):
                item.add_marker("postgresql")


def pytest_collection_finish() -> None:
    """What is collected stays: garbage is not sought among it, test after test."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class Account:
    """An account made for a test."""

    kind: str
    id: int
    contact: str
    password: str = PASSWORD

    @property
    def credentials(self) -> dict[str, str]:
        """What it signs in with."""
        return {"phone": self.contact, "password": self.password}


@dataclass(frozen=True)
class Device:
    """A signed-in device: its tokens and its session's id."""

    account: Account
    access: str
    refresh: str
    session: int
    agent: str

    @property
    def headers(self) -> dict[str, str]:
        """What it sends with each request."""
        return {"Authorization": f"Bearer {self.access}", "User-Agent": self.agent}


class House:
    """A running server, its database from the inside, and short ways to accounts and devices."""

    def __init__(
        self, address: str, url: str, run: Callable[[Any], Any], log: Path, *, keeps_connections: bool = True
    ) -> None:
        self.address = address
        self.url = url
        self.run = run
        self.log = log
        # The parent of the server's workers, where a test tells.
        self.pid = 0
        self.database = open_database(url)
        limits = httpx.Limits(max_keepalive_connections=20 if keeps_connections else 0)
        self.client = httpx.Client(
            base_url=address, headers={"User-Agent": "tests/1"}, timeout=20, verify=NO_TLS, limits=limits
        )

    def close(self) -> None:
        """Let go of the server's database and of the connections to it."""
        self.client.close()
        self.run(self.database.close())

    def read(self, query: Any, *args: Any) -> Any:
        """What a query reads from the server's database."""
        return self.run(self.database.read(query, *args))

    def write(self, query: Any, *args: Any) -> Any:
        """Write to the server's database, beside the server."""
        return self.run(self.database.write(query, *args))

    def add(self, kind: str, *, confirmed: bool = True, disabled: bool = False, staff: bool = False) -> Account:
        """A new account; its phone is its contact."""
        phone = f"+7913{next(_numbers):07}"
        now = clock.now()
        fields: dict[str, Any] = {
            "surname": "Test",
            "phone": phone,
            "confirmed_by_staff_at": now if confirmed else None,
            "disabled_at": now if disabled else None,
        }
        if staff:
            fields["is_staff"] = True
        row = self.write(accounts.create, KINDS[kind], fields, password_hash(), None, now)
        return Account(kind, row["id"], phone)

    def start(self, account: Account, agent: str, device_id: str | None = None) -> Started:
        """A session of `account`, with no setting changed, as it is started once the password was seen to be right."""
        origin = make_origin("127.0.0.1", agent, PLACES).described()
        started: Started | None = self.write(
            sessions.start, KINDS[account.kind], account.id, password_hash(), device_id, origin, SessionSettings(),
            clock.now(),
        )  # fmt: skip
        assert started, "a password that was checked by the server is hashed anew: sign in there"
        return started

    def enter(self, account: Account, agent: str = "tests/1", device_id: str | None = None) -> Device:
        """A device that `account` signed in on, where that is not what is tested: no password is checked."""
        # Imported where it is used: whoever only hands the tests out needs no handlers.
        from handlers.answers import shape_tokens

        body = shape_tokens(TOKENS, self.start(account, agent, device_id))
        return Device(account, body["access"], body["refresh"], body["session"], agent)

    def sign_in(self, account: Account, agent: str = "tests/1", **more: Any) -> Device:
        """A device that `account` signed in on, by the server."""
        answer = self.client.post(
            f"/auth/{account.kind}/token/", json=account.credentials | more, headers={"User-Agent": agent}
        )
        assert answer.status_code == 200, answer.text
        body = answer.json()
        return Device(account, body["access"], body["refresh"], body["session"], agent)

    def ask(self, method: str, address: str, device: Device | None = None, **more: Any) -> httpx.Response:
        """The answer to a request from `device`, or from nobody."""
        headers = (device.headers if device else {}) | more.pop("headers", {})
        return self.client.request(method, address, headers=headers, **more)


@cache
def password_hash() -> str:
    """The hash of PASSWORD, by Argon2id too, but quickly: checking it is most of what a test would wait for."""
    return PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


def open_database(url: str) -> Database:
    """The database at `url`."""
    return SQLiteDatabase(url) if url.startswith("sqlite") else PostgresDatabase(url, 2)


@dataclass
class Server:
    """A server process and where it answers."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return httpx.get(f"{self.address}/healthz", verify=NO_TLS).status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code, once it has ended."""
        self.process.send_signal(number)
        return self.process.wait(30)


def start_server(folder: Path, url: str, *arguments: str, **settings: str) -> Server:
    """Start `server.py serve` on a free port and wait until it says where it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"server-{secrets.token_hex(4)}.log"
    environment = {
        **os.environ,
        "SESSIONS_DATABASE__URL": url,
        "SESSIONS_SERVER__PORT": "0",
        # Every test is at one address.
        "SESSIONS_GUESSES__NETWORK_TRIES": "1000000",
        "SESSIONS_GUESSES__NETWORK_SENDS": "1000000",
        "SESSIONS_TOKENS__KEYS": f'[{{"kid": "test", "secret": "{KEY}"}}]',
        **settings,
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, ROOT / "server.py", "serve", *(arguments or ("--workers", "1"))],
            env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=folder,
        )  # fmt: skip
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := re.search(r"answers on (\S+)/", log.read_text()):
            server = Server(process, found[1], log)
            wait_until(server.is_up)
            return server
        if process.poll() is not None:
            break
        time.sleep(0.02)
    process.kill()
    raise AssertionError(f"the server did not start: {log.read_text()}")


@contextlib.contextmanager
def open_loop() -> Iterator[Callable[[Any], Any]]:
    """What runs coroutines, one after another, in a loop of their own.

    Not the runner's run(): it takes SIGINT over for each, which costs as much as a short read.
    """
    with asyncio.Runner() as runner:
        yield runner.get_loop().run_until_complete


@contextlib.contextmanager
def open_house(server: Server, url: str) -> Iterator[House]:
    """A running server as tests see it."""
    with open_loop() as run:
        house = House(server.address, url, run, server.log)
        try:
            yield house
        finally:
            house.close()


def wait_until(is_true: Callable[[], Any], seconds: float = 20) -> Any:
    """What `is_true` gives once it gives something true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := is_true()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server of our own on a scratch folder; skips where none is installed."""
    need_postgres()
    with running_postgres("-c max_connections=200") as server:
        yield server.address


@pytest.fixture(scope="session")
def postgres_alone() -> Iterator[Postgres]:
    """Another one, which tests take away and make crash."""
    need_postgres()
    with running_postgres() as server:
        yield server


def need_postgres() -> None:
    """Skip, and in CI fail, where PostgreSQL is not installed."""
    if not is_installed():
        message = "PostgreSQL is not here, or this is not root: apt install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


def part_numbers(db: Connection) -> None:
    """Begin the numbers of sessions far above those of accounts: an address takes either, and they shall not meet."""
    for kind in KINDS.values():
        name = kind.sessions.name
        if is_postgres(db):
            db.execute(text("SELECT setval(pg_get_serial_sequence(:name, 'id'), 1000000)"), {"name": name})
        else:
            db.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, 1000000)"), {"name": name})


@pytest.fixture(scope="session")
def make_url(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The URL of a new database of the kind that is named, with all its tables and nothing in them."""

    def make_file() -> Path:
        return tmp_path_factory.mktemp("database") / "sessions.sqlite3"

    async def migrate(url: str) -> None:
        opened = open_database(url)
        await opened.migrate()
        await opened.write(part_numbers)
        await opened.close()

    @cache
    def make_model(name: str) -> str:
        url = f"sqlite:///{make_file()}" if name == "sqlite" else make_database(request.getfixturevalue("postgres"))
        asyncio.run(migrate(url))
        return url

    def make(name: str) -> str:
        model = make_model(name)
        if name == "sqlite":
            return f"sqlite:///{shutil.copy(model.removeprefix('sqlite:///'), make_file())}"
        address, _, name = model.rpartition("/")
        return make_database(address, name)

    return make


@pytest.fixture(scope="session")
def sqlite_house(make_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The running server on SQLite."""
    yield from _run_house(make_url("sqlite"), tmp_path_factory)


@pytest.fixture(scope="session")
def postgresql_house(make_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The running server on PostgreSQL."""
    yield from _run_house(make_url("postgresql"), tmp_path_factory)


def _run_house(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    server = start_server(tmp_path_factory.mktemp("server"), url)
    with open_house(server, url) as opened:
        yield opened
    assert server.stop() == 0, server.log.read_text()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest) -> House:
    """A running server on each database; tests share it, each with accounts of its own.

    Each server is a fixture of its own: one with parameters is made anew whenever the parameter changes.
    """
    found: House = request.getfixturevalue(f"{request.param}_house")
    return found


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """A loop for `gen_test`, as the server has it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        asyncio.set_event_loop(runner.get_loop())
        yield IOLoop.current()
        asyncio.set_event_loop(None)

"""What can befall a server: a clear answer while it lasts, nothing acknowledged that is not kept, and on it goes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from handlers.listening import KEPT
from handlers.live import BEAT
from tests.conftest import NO_TLS, PASSWORD, ROOT, Device, House, Server, open_house, start_server, wait_until
from tests.postgres import Postgres, make_database

pytestmark = pytest.mark.long

# As unshare(2) knows it; os.unshare is there from Python 3.12 on.
CLONE_NEWNS = 0x0002_0000

Strike = Callable[["Place"], AbstractContextManager[None]]


@dataclass
class Place:
    """A server on a database of its own, and a person and staff who are signed in there."""

    house: House
    server: Server
    folder: Path
    device: Device
    staff: Device
    name: str = ""

    @property
    def file(self) -> Path:
        """The database, where it is a file."""
        return self.folder / "sessions.sqlite3"

    def rename(self, name: str) -> httpx.Response:
        """Name the device; what was answered is remembered."""
        path = f"/sessions/session-user-u/{self.device.session}/"
        answer = self.house.ask("PATCH", path, self.device, json={"name": name})
        if answer.status_code == 200:
            self.name = name
        return answer

    def read(self) -> httpx.Response:
        """The device's own list."""
        return self.house.ask("GET", "/sessions/session-user-l/?details=true", self.device)

    def ask_everything(self) -> dict[str, httpx.Response]:
        """The answers to a read, and to writes under each address, asked at once."""
        house, account = self.house, self.device.account
        form = {"identity": account.contact, "password": PASSWORD, "kind": "user", "next": ""}
        asks: dict[str, Callable[[], httpx.Response]] = {
            "read": self.read,
            "sessions": lambda: self.rename("struck"),
            "end": lambda: house.ask("DELETE", f"/sessions/session-user-d/{self.device.session}/", self.staff),
            "auth": lambda: house.ask("POST", "/auth/user/token/", json=account.credentials),
            "accounts": lambda: house.ask(
                "PATCH", f"/accounts/user/{account.id}/", self.staff, json={"disabled": True}
            ),
            "page": lambda: house.ask("POST", "/sign-in/", data=form, headers={"Accept": "text/html"}),
        }
        with ThreadPoolExecutor(len(asks)) as pool:
            asked = {name: pool.submit(ask) for name, ask in asks.items()}
            # Who waits for the database keeps nobody else from being answered.
            assert house.client.get("/healthz").status_code == 200
            return {name: answer.result() for name, answer in asked.items()}


def suffer(place: Place, strike: Strike, *, reads: bool = False) -> None:
    """See what is answered while `strike` lasts, and that all is as it was acknowledged once it is over."""
    assert place.rename("before").status_code == 200
    with strike(place):
        for name, answer in place.ask_everything().items():
            if name == "read" and reads:
                assert [one["name"] for one in answer.json()] == ["before"]
            else:
                assert_away(answer, "text/html" if name == "page" else "application/json")
    wait_until(lambda: place.read().status_code == 200)
    assert [one["name"] for one in place.read().json()] == [place.name]
    assert place.rename("after").status_code == 200
    other = place.house.sign_in(place.device.account)
    assert place.house.ask("DELETE", f"/sessions/session-user-d/{other.session}/", place.device).status_code == 204
    assert place.house.ask("GET", "/sessions/session-user-l/", other).status_code == 403
    assert "Traceback" not in place.server.log.read_text()


def assert_away(answer: httpx.Response, content_type: str) -> None:
    """The answer says to come again, in the form that was asked for."""
    assert answer.status_code == 503, (answer.request.url, answer.status_code, answer.text[:300])
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Content-Type"].partition(";")[0] == content_type
    if content_type == "application/json":
        assert list(answer.json()) == ["detail"]


@contextlib.contextmanager
def open_place(folder: Path, log_folder: Path, url: str) -> Iterator[Place]:
    """A server that must outlive whatever is done to it."""
    server = start_server(log_folder, url)
    with open_house(server, url) as house:
        account, staff = house.add("user"), house.add("user", staff=True)
        # Our own connections would be struck too, or hold what is to be taken away.
        house.run(house.database.close())
        yield Place(house, server, folder, house.sign_in(account), house.sign_in(staff))
    assert server.process.poll() is None, server.log.read_text()
    assert server.stop() == 0


@pytest.fixture(scope="module")
def on_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """On SQLite, on a small file system of its own where one can be made."""
    folder = tmp_path_factory.mktemp("small")
    is_mounted = mount_small(folder)
    try:
        with open_place(folder, tmp_path_factory.mktemp("log"), f"sqlite:///{folder}/sessions.sqlite3") as place:
            yield place
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", folder], check=True)


def mount_small(folder: Path) -> bool:
    """Whether a file system of 4 MiB is on the folder now, for this process and those that it starts from here on."""
    # In a mount namespace of our own: a run that is killed leaves no mount behind for the next to fail on.
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
        return False
    commands = ["mount --make-rprivate /", f"mount -t tmpfs -o size=4m tmpfs {shlex.quote(str(folder))}"]
    return all(
        subprocess.run(shlex.split(command), check=False, capture_output=True).returncode == 0 for command in commands
    )


def test_a_file_that_another_program_has_locked(on_file: Place) -> None:
    @contextlib.contextmanager
    def lock(place: Place) -> Iterator[None]:
        with contextlib.closing(sqlite3.connect(place.file, isolation_level=None)) as other:
            # Closing takes it back.
            other.execute("BEGIN EXCLUSIVE")
            yield

    suffer(on_file, lock, reads=True)


def test_a_full_disk(on_file: Place) -> None:
    @contextlib.contextmanager
    def fill(place: Place) -> Iterator[None]:
        if not os.path.ismount(place.folder):
            with limited(place, resource.RLIMIT_FSIZE, 1000):
                yield
            return
        filling = place.folder / "filling"
        with filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(512))
        try:
            yield
        finally:
            filling.unlink()

    suffer(on_file, fill, reads=True)


def test_a_damaged_file(on_file: Place) -> None:
    @contextlib.contextmanager
    def damage(place: Place) -> Iterator[None]:
        files = [place.file, place.file.with_name("sessions.sqlite3-wal")]
        whole = {file: file.read_bytes() for file in files}
        for file, content in whole.items():
            overwrite(file, os.urandom(len(content)))
        try:
            yield
        finally:
            for file, content in whole.items():
                overwrite(file, content)

    suffer(on_file, damage)


def test_a_file_that_is_moved_away_while_the_server_runs(on_file: Place) -> None:
    @contextlib.contextmanager
    def move(place: Place) -> Iterator[None]:
        away = place.folder / "away"
        away.mkdir()
        files = list(place.folder.glob("sessions.sqlite3*"))
        for file in files:
            file.rename(away / file.name)
        try:
            wait_until(lambda: place.read().status_code == 503)
            yield
        finally:
            for file in files:
                (away / file.name).rename(file)

    suffer(on_file, move)


def test_no_file_descriptor_left(on_file: Place) -> None:
    place, port = on_file, int(on_file.house.address.rpartition(":")[2])
    held = len(list(Path(f"/proc/{place.server.process.pid}/fd").iterdir()))
    with limited(place, resource.RLIMIT_NOFILE, held + KEPT + 4), contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 20)) for _ in range(20)]
        # Who is let in no more is told so.
        assert connections[-1].recv(4096).startswith(b"HTTP/1.1 503 ")
        with httpx.Client(base_url=place.house.address, verify=NO_TLS) as late:
            assert_away(late.get("/healthz"), "application/json")
        # Who is in goes on, and what asks for descriptors has them.
        assert place.rename("before").status_code == 200
    wait_until(lambda: httpx.get(f"{place.house.address}/healthz", verify=NO_TLS).status_code == 200)
    assert "Traceback" not in place.server.log.read_text()


@contextlib.contextmanager
def limited(place: Place, what: int, most: int) -> Iterator[None]:
    """The running server may have at most so much."""
    before = resource.prlimit(place.server.process.pid, what)
    resource.prlimit(place.server.process.pid, what, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(place.server.process.pid, what, before)


def overwrite(file: Path, content: bytes) -> None:
    """Write over a file that others have open."""
    with file.open("r+b") as out:
        out.write(content)


def migrate(url: str) -> None:
    """Make the tables of the database at `url`."""
    environment = {**os.environ, "SESSIONS_DATABASE__URL": url}
    subprocess.run([sys.executable, ROOT / "server.py", "migrate"], env=environment, check=True, capture_output=True)


@contextlib.contextmanager
def silenced(server: Postgres) -> Iterator[None]:
    """PostgreSQL is there, and says nothing."""
    processes = server.list_processes()
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory, postgres_alone: Postgres) -> Iterator[Place]:
    """On a PostgreSQL server that nobody else uses, under a name of its own."""
    url = make_database(postgres_alone.address)
    query(url, "CREATE ROLE place LOGIN", "GRANT ALL ON SCHEMA public TO place")
    url = url.replace("//postgres@", "//place@")
    migrate(url)
    folder = tmp_path_factory.mktemp("log")
    with open_place(folder, folder, url) as place:
        yield place


def test_postgresql_that_is_gone(on_postgres: Place, postgres_alone: Postgres) -> None:
    @contextlib.contextmanager
    def take_away(place: Place) -> Iterator[None]:
        postgres_alone.stop()
        try:
            yield
        finally:
            postgres_alone.start()

    suffer(on_postgres, take_away)


def test_postgresql_that_has_no_connection_left(on_postgres: Place, postgres_alone: Postgres) -> None:
    as_root = f"{postgres_alone.address}/postgres"

    @contextlib.contextmanager
    def use_up(place: Place) -> Iterator[None]:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'place'"
        query(as_root, "ALTER ROLE place CONNECTION LIMIT 0", cut)
        try:
            yield
        finally:
            query(as_root, "ALTER ROLE place CONNECTION LIMIT -1")

    suffer(on_postgres, use_up)


def test_tables_that_another_program_has_locked(on_postgres: Place) -> None:
    @contextlib.contextmanager
    def lock(place: Place) -> Iterator[None]:
        with subprocess.Popen(["psql", "-q", place.house.url], stdin=subprocess.PIPE, text=True) as other:
            assert other.stdin
            other.stdin.write("BEGIN; LOCK TABLE users, user_sessions IN ACCESS EXCLUSIVE MODE;\n")
            other.stdin.flush()
            locks = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock'"
            wait_until(lambda: query(place.house.url, locks) != "0")
            yield

    suffer(on_postgres, lock)


def test_postgresql_that_says_nothing_more(on_postgres: Place, postgres_alone: Postgres) -> None:
    @contextlib.contextmanager
    def stop(place: Place) -> Iterator[None]:
        with place.house.client.stream("GET", "/sessions/live/", headers=place.device.headers, timeout=5) as live:
            told = live.iter_raw()
            assert next(told).startswith(b"retry:")
            with silenced(postgres_alone):
                # Another server may end the session, which this one does not hear of. A beat may come in between.
                assert set(told) <= {BEAT}
                yield

    suffer(on_postgres, stop)


def test_a_stop_while_postgresql_says_nothing_more(tmp_path: Path, postgres_alone: Postgres) -> None:
    url = make_database(postgres_alone.address)
    migrate(url)
    server = start_server(tmp_path, url)
    # A connection of each pool is open.
    with open_house(server, url) as house:
        house.ask("GET", "/sessions/session-user-l/", house.enter(house.add("user")))
    try:
        with silenced(postgres_alone):
            assert server.stop() == 0
    finally:
        server.process.kill()
        server.process.wait()
    assert "Traceback" not in server.log.read_text()


def query(url: str, *statements: str) -> str:
    """What PostgreSQL answers to the last of these, asked past our own engines."""
    commands = [argument for statement in statements for argument in ("-c", statement)]
    return subprocess.check_output(["psql", "-qtA", url, *commands], text=True).strip()


def test_a_log_that_nobody_reads_any_more(tmp_path: Path) -> None:
    """Whoever read it is gone: what is written to it comes back as an error, and once as SIGPIPE."""
    environment = {**os.environ, "SESSIONS_DATABASE__URL": f"sqlite:///{tmp_path}/sessions.sqlite3"}
    command = [sys.executable, str(ROOT / "server.py"), "serve", "--port", "0", "--workers", "1"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        address = re.findall(r"answers on (\S+)/", process.stdout.readline())[0]
        wait_until(lambda: is_up(address))
        process.stdout.close()
        for _ in range(50):
            assert httpx.get(f"{address}/sessions/session-user-l/", verify=NO_TLS).status_code == 401
        answer = httpx.post(
            f"{address}/auth/user/register/", json={"email": "a@example.com", "password": PASSWORD}, verify=NO_TLS
        )
        # Its code goes to the log, as no mail server is configured.
        assert answer.status_code == 201
        assert is_up(address)
        process.terminate()
        assert process.wait(30) == 0


def is_up(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", verify=NO_TLS).status_code == 200
    except httpx.HTTPError:
        return False


def test_a_file_that_may_only_be_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/sessions.sqlite3"
    assert start_server(tmp_path, url).stop() == 0
    (tmp_path / "sessions.sqlite3").chmod(0o400)
    # Without this root may write to what nobody may write to.
    command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.getuid() == 0 else []
    command += [sys.executable, str(ROOT / "server.py"), "serve", "--port", "0", "--workers", "1"]
    environment = {**os.environ, "SESSIONS_DATABASE__URL": url}
    ended = subprocess.run(
        command, env=environment, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert ended.stderr.startswith("The database can't be opened: ")
    assert ended.stderr.endswith("sessions.sqlite3 may only be read\n")

"""The command line as a person types it, and a server's first start and last moment."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

import server
from models.schema import KINDS
from tests.conftest import KEY, NO_TLS, PASSWORD, ROOT, House, start_server, wait_until

COMMANDS = ["serve", "demo", "add-user", "add-client", "issue-token", "migrate"]
Ended = tuple[int, str, str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Any]:
    """Runs a command line in an empty folder; gives its exit code and what it wrote to stdout and stderr."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, typed: str = "", **settings: str) -> Ended:
        for name, value in settings.items():
            monkeypatch.setenv(f"SESSIONS_{name}", value)
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        try:
            code = server.main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = int(error.code or 0)
        written = capsys.readouterr()
        return code, written.out, written.err

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def at_house(run: Callable[..., Ended], house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """The same on the database of a running server."""
    monkeypatch.setenv("SESSIONS_DATABASE__URL", house.url)
    monkeypatch.setenv("SESSIONS_TOKENS__KEYS", f'[{{"kid": "test", "secret": "{KEY}"}}]')
    return run


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_is_worth_reading(run: Callable[..., Ended], tmp_path: Path, command: str | None) -> None:
    code, out, err = run(*([command] if command else []), "--help")
    assert (code, err) == (0, "")
    assert out.startswith("usage: server.py")
    if command is None:
        assert all(name in out for name in COMMANDS)
        assert "SESSIONS_<SECTION>__<NAME>" in out
    else:
        assert "--config FILE" in out
    assert "inherit" not in out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [["sing"], ["serve", "--prot", "1"], ["serve", "--port", "x"], ["--port", "65536"], ["--port", "-1"],
     ["serve", "--port", "1_0"], ["--workers", "-1"], ["--workers", "257"], ["serve", "more"], ["issue-token"],
     ["issue-token", "--user", "1", "--client", "1"], ["issue-token", "--user", "x"], ["add-client", "--email", "x"]],
    ids=" ".join,
)  # fmt: skip
def test_a_command_that_is_typed_wrongly_is_told_its_usage(
    run: Callable[..., Ended], tmp_path: Path, arguments: list[str]
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: server.py")
    assert "error: " in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_with_a_typed_password_signs_in(at_house: Callable[..., Ended], house: House, kind: str) -> None:
    phone = {"user": "+79150000001", "client": "+79150000002"}[kind]
    code, out, err = at_house(
        f"add-{kind}", "--phone", "8 (915) " + phone[5:], "--name", "Anna", "--surname", "Иванова", "--password-stdin",
        typed=f"{PASSWORD}\n", ACCOUNTS__COUNTRY="RU",
    )  # fmt: skip
    assert (code, err) == (0, "")
    (made,) = re.findall(rf"^{kind} ([0-9]+) made$", out, re.MULTILINE)
    answer = house.client.post(f"/auth/{kind}/token/", json={"phone": phone, "password": PASSWORD})
    assert answer.status_code == 200
    headers = {"Authorization": f"Bearer {answer.json()['access']}"}
    (session,) = house.client.get(f"/sessions/session-{kind}-l/", headers=headers).json()
    account = session[kind]
    assert (account["id"], account["name"], account["surname"]) == (int(made), "Anna", "Иванова")


def test_a_password_that_nobody_types_is_made_and_printed(at_house: Callable[..., Ended], house: House) -> None:
    email = f"made-{house.url[:6]}@example.com"
    code, out, err = at_house("add-user", "--email", email.upper())
    assert (code, err) == (0, "")
    (password,) = re.findall(r"^user [0-9]+ made, with the password (\S{16})$", out, re.MULTILINE)
    answer = house.client.post("/auth/user/token/", json={"email": email, "password": password})
    assert answer.status_code == 200


def test_staff_are_made_here(at_house: Callable[..., Ended], house: House) -> None:
    email = f"staff-{house.url[:6]}@example.com"
    code, _, _ = at_house("add-user", "--staff", "--email", email, "--password-stdin", typed=PASSWORD)
    assert code == 0
    answer = house.client.post("/auth/user/token/", json={"email": email, "password": PASSWORD})
    headers = {"Authorization": f"Bearer {answer.json()['access']}"}
    client = house.add("client")
    assert house.client.get(f"/sessions/session-client-l/{client.id}/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "typed", "told"),
    [
        (["add-user"], "", "Give --email or --phone."),
        (["add-client"], "", "Give --phone."),
        (["add-user", "--email", "nobody"], "", "An email address must have an @-sign."),
        (["add-user", "--phone", "112"], "", "Enter a phone number in international form"),
        (["add-user", "--email", "a@example.com", "--password-stdin"], "short\n", "Use at least 8 characters."),
        (["add-user", "--email", "a@example.com", "--password-stdin"], "", "Use at least 8 characters."),
        (["add-user", "--email", "a@example.com", "--password-stdin"], "password1\n", "This password is too common"),
        (["issue-token", "--user", "1"], "", "There is no user 1, or it is disabled."),
        (["issue-token", "--client", "0"], "", "There is no client 0, or it is disabled."),
        (["issue-token", "--user", str(2**63)], "", "There is no user "),
        (["issue-token", "--user", "-1"], "", "There is no user -1, or it is disabled."),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    run: Callable[..., Ended], arguments: list[str], typed: str, told: str
) -> None:
    assert run("migrate")[0] == 0
    code, out, err = run(*arguments, typed=typed)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(told)


@pytest.mark.parametrize("arguments", [["issue-token", "--user", "1"], ["restored", "--keep"]])
def test_what_is_of_no_use_without_a_database_makes_none(
    run: Callable[..., Ended], tmp_path: Path, arguments: list[str]
) -> None:
    told = f"There is no database at {tmp_path}/data/sessions.sqlite3.\n"
    assert run(*arguments) == (1, "", told)
    assert not (tmp_path / "data").exists()


def test_the_first_account_is_told_with_where_it_is_and_how_to_make_one_of_the_staff(
    run: Callable[..., Ended], tmp_path: Path
) -> None:
    _, first, _ = run("add-client", "--phone", "+79150000003")
    place = f"in a database that is new: {tmp_path}/data/sessions.sqlite3"
    assert re.fullmatch(rf"client 1 made, .+\n{place}\nNobody is staff yet: (.+)\n", first)
    python, _, *words = shlex.split(first.splitlines()[-1].partition(": ")[2])
    assert python == sys.executable
    _, second, _ = run(*words)
    assert re.fullmatch(r"user 1 made, with the password \S+\n", second)


@pytest.mark.parametrize("kind", KINDS)
def test_a_contact_that_is_taken_is_told(at_house: Callable[..., Ended], house: House, kind: str) -> None:
    phone = house.add(kind).contact
    code, out, err = at_house(f"add-{kind}", "--phone", phone)
    assert (code, out, err) == (1, "", f"Another {kind} has this phone.\n")


@pytest.mark.parametrize("kind", KINDS)
def test_issued_tokens_work_against_the_server(at_house: Callable[..., Ended], house: House, kind: str) -> None:
    account = house.add(kind)
    code, out, err = at_house("issue-token", f"--{kind}", account.id, "--device", "a script of ours")
    assert (code, err) == (0, "")
    issued = json.loads(out)
    assert list(issued) == ["access", "refresh", "token_type", "expires_in", "session"]
    headers = {"Authorization": f"Bearer {issued['access']}"}
    (session,) = house.client.get(f"/sessions/session-{kind}-l/", headers=headers).json()
    assert (session["id"], session["device"]) == (issued["session"], "a script of ours")
    answer = house.client.post("/auth/token/refresh/", json={"refresh": issued["refresh"]})
    assert answer.status_code == 200


def test_no_token_is_issued_for_an_account_that_is_disabled(at_house: Callable[..., Ended], house: House) -> None:
    account = house.add("user", disabled=True)
    code, out, err = at_house("issue-token", "--user", account.id)
    assert (code, out, err) == (1, "", f"There is no user {account.id}, or it is disabled.\n")


def test_migrating_what_is_of_this_version_changes_nothing(at_house: Callable[..., Ended]) -> None:
    assert at_house("migrate") == (0, "The database's tables are of this version.\n", "")


def test_a_database_that_is_away_is_told_in_one_line(run: Callable[..., Ended], tmp_path: Path, postgres: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("this is no database, and it is longer than a header of one\n" * 20)
    for url in (
        "postgresql://nobody:s3cret@127.0.0.1:1/none",
        postgres.replace("//postgres@", "//nobody:s3cret@") + "/postgres",
        f"{postgres}/none",
        f"{postgres}/postgres?ssl=require",
        f"sqlite:///{tmp_path}/folder",
        f"sqlite:///{tmp_path}/text",
    ):
        for arguments in (["migrate"], ["add-client", "--phone", "+79150000003"], ["issue-token", "--user", "1"]):
            code, out, err = run(*arguments, DATABASE__URL=url)
            assert (code, out, err.count("\n")) == (1, "", 1), err
            assert err.startswith("The database can't be ")
            assert "s3cret" not in err


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_settings_are_told_in_one_line_by_each_command(run: Callable[..., Ended], command: str) -> None:
    options = {"issue-token": ["--user", "1"]}.get(command, [])
    code, out, err = run(command, *options, "--config", "missing.yaml")
    assert (code, out, err) == (2, "", "missing.yaml: can't be read: No such file or directory\n")
    code, out, err = run(command, *options, SERVER__PORT="high")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("SESSIONS_SERVER__PORT: expected a valid integer")


@pytest.mark.long
def test_the_first_start_makes_data_and_says_how_to_begin(tmp_path: Path) -> None:
    started = Started(tmp_path)
    said = started.wait_for("add-user")
    assert re.findall(rf"{started.address}/docs/", said)
    assert re.findall(rf"{started.address}/setup/[\w-]{{32}}/", said)
    files = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "data").iterdir()}
    assert files["signing.key"] == 0o600
    assert {mode & 0o007 for mode in files.values()} == {0}
    assert "sessions.sqlite3" in files

    # A second one on its port is told so, and ends.
    port = started.address.rpartition(":")[2]
    second = run_program(tmp_path, "serve", "--port", port)
    assert (second.returncode, second.stdout, second.stderr.count("\n")) == (1, "", 1)
    assert second.stderr.startswith(f"Can't listen on 127.0.0.1, port {port}: ")
    assert httpx.get(f"{started.address}/healthz", verify=NO_TLS).status_code == 200
    assert started.stop(signal.SIGINT) == 0

    key = (tmp_path / "data" / "signing.key").read_bytes()
    made = run_program(tmp_path, "add-user", "--staff", "--email", "first@example.com")
    assert made.returncode == 0
    again = Started(tmp_path)
    assert httpx.get(f"{again.address}/readyz", verify=NO_TLS).status_code == 200
    assert "/setup/" not in again.log.read_text()
    assert (tmp_path / "data" / "signing.key").read_bytes() == key
    assert again.stop(signal.SIGTERM) == 0


class Started:
    """`server.py` without a command and with its default settings, but for the port."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "server.log"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "server.py", "--port", "0", "--workers", "1"],
                cwd=folder, env=clean_environment(), stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        said = self.wait_for("answers on")
        self.address = re.findall(r"answers on (\S+)/", said)[0]
        wait_until(self._is_up)

    def wait_for(self, text: str) -> str:
        return str(wait_until(lambda: (said := self.log.read_text()) and text in said and said.endswith("\n") and said))

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def _is_up(self) -> bool:
        try:
            return httpx.get(f"{self.address}/healthz", verify=NO_TLS).status_code == 200
        except httpx.HTTPError:
            return False


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SESSIONS_")}


def run_program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "server.py", *arguments], cwd=folder, env=clean_environment(),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_what_is_in_flight_is_answered_before_the_server_ends(tmp_path: Path, number: int) -> None:
    file = tmp_path / "sessions.sqlite3"
    running = start_server(tmp_path, f"sqlite:///{file}")
    port = int(running.address.rpartition(":")[2])
    body = json.dumps({"email": "slow@example.com", "password": PASSWORD}).encode()
    head = (
        "POST /auth/user/register/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    # A write that waits for another process's is in flight for as long as we like.
    blocking = sqlite3.connect(file, isolation_level=None)
    blocking.execute("BEGIN IMMEDIATE")
    with socket.create_connection(("127.0.0.1", port), timeout=20) as asking, httpx.Client(verify=NO_TLS) as client:
        # And what its client asks next on that connection.
        asking.sendall(head.encode() + body + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        # Whatever was sent before an answered request has been read.
        for _ in range(3):
            assert client.get(f"{running.address}/healthz").status_code == 200
        running.process.send_signal(number)
        wait_until(lambda: is_refused(port))
        assert running.process.poll() is None
        # Who kept a connection is told to ask elsewhere from now on.
        told = client.get(f"{running.address}/healthz")
        assert (told.status_code, told.headers.get("Connection")) == (200, "close")
        blocking.execute("ROLLBACK")
        answers = b"".join(iter(lambda: asking.recv(65_536), b""))
    blocking.close()
    first, _, second = answers.rpartition(b"HTTP/1.1 ")
    assert first.startswith(b"HTTP/1.1 201 "), answers
    assert second.startswith(b"200 "), answers
    assert b"\r\nConnection: close\r\n" in second, answers
    assert running.process.wait(30) == 0
    with contextlib.closing(sqlite3.connect(file)) as kept:
        assert kept.execute("SELECT email FROM users").fetchall() == [("slow@example.com",)]
    assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_demo_that_is_stopped_while_it_is_made_leaves_nothing(tmp_path: Path, number: int) -> None:
    made = subprocess.Popen(
        [sys.executable, ROOT / "server.py", "demo", "--port", "0"], cwd=tmp_path,
        env=clean_environment() | {"TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with made:
        try:
            assert made.stdout
            assert "Making some 300 accounts" in made.stdout.readline()
            made.send_signal(number)
            told = made.communicate(timeout=60)
        finally:
            made.kill()

    assert made.returncode == 0
    assert "Traceback" not in told[1]
    assert list(tmp_path.iterdir()) == []


def test_what_is_asked_for_a_password_and_stopped_makes_no_account(tmp_path: Path) -> None:
    us, terminal = os.openpty()
    # On a terminal of its own, where it asks.
    asking = subprocess.Popen(
        [sys.executable, ROOT / "server.py", "add-user", "--email", "anna@example.com"], cwd=tmp_path,
        env=clean_environment(), stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    with asking:
        try:
            told = b""
            while b"assword" not in told:
                told += os.read(us, 1024)
            asking.send_signal(signal.SIGINT)
            assert asking.wait(60) == 130
        finally:
            asking.kill()
    os.close(us)
    assert b"Traceback" not in told


def test_a_connection_that_was_taken_is_answered_though_the_server_ends(tmp_path: Path) -> None:
    running = start_server(tmp_path, f"sqlite:///{tmp_path}/sessions.sqlite3")
    port = int(running.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as asking, httpx.Client(verify=NO_TLS) as client:
        # Whoever came before an answered request was taken.
        assert client.get(f"{running.address}/healthz").status_code == 200
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(port))
        asking.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = asking.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert running.process.wait(30) == 0


def test_a_connection_that_was_kept_and_says_nothing_more_holds_up_no_end(tmp_path: Path) -> None:
    running = start_server(tmp_path, f"sqlite:///{tmp_path}/sessions.sqlite3")
    with httpx.Client(verify=NO_TLS) as client:
        assert client.get(f"{running.address}/healthz").status_code == 200
        running.process.send_signal(signal.SIGTERM)
        # Far less than `server.shutdown_seconds`.
        assert running.process.wait(10) == 0


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        # It came while the listener was closed: the next one is refused.
        return False
    return False


def test_the_collector_looks_again_at_what_stayed_once_in_so_many_long_rounds() -> None:
    # In a process of its own: what is frozen is frozen for all of it.
    program = """
import gc, server
server.LONG_ROUND_SECONDS = 0
server.spare_what_stays()
kept = [[] for _ in range(1000)]
counts = [gc.get_freeze_count()]
for _ in range(server.LONG_ROUNDS + 1):
    gc.collect()
    counts.append(gc.get_freeze_count())
print(counts[1] - counts[0] >= 1000, counts.index(0) == server.LONG_ROUNDS, counts[-1] > 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.stdout, done.stderr) == ("True True True\n", "")

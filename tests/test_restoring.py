"""A back-up is made of a live database; when it is restored, what was ended since is told, and can be ended again."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KEY, ROOT, House, Server, open_house, start_server

pytestmark = pytest.mark.long

NOTE = "it was restored from a back-up"


class Place:
    """A folder that a server runs in, again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "data" / "sessions.sqlite3"
        self.url = f"sqlite:///{self.file}"

    @contextlib.contextmanager
    def serve(self) -> Iterator[tuple[Server, House]]:
        server = start_server(self.folder, self.url)
        try:
            with open_house(server, self.url) as house:
                yield server, house
        finally:
            assert server.stop() == 0

    def back_up(self, copy: Path) -> None:
        """As README says, while the server runs."""
        with contextlib.closing(sqlite3.connect(self.file)) as database:
            database.execute("VACUUM INTO ?", [str(copy)])
        with contextlib.closing(sqlite3.connect(copy)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def restore(self, copy: Path) -> None:
        """As README says: what a server that was killed leaves beside the file belongs to the old one."""
        for left in ("-wal", "-shm"):
            self.file.with_name(self.file.name + left).unlink(missing_ok=True)
        shutil.copy(copy, self.file)

    def decide(self, how: str) -> str:
        environment = {
            "SESSIONS_DATABASE__URL": self.url,
            "SESSIONS_TOKENS__KEYS": f'[{{"kid": "test", "secret": "{KEY}"}}]',
        }
        command = [sys.executable, str(ROOT / "server.py"), "restored", how]
        done = subprocess.run(command, env=environment, cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("decision", ["--end-all", "--keep"])
def test_a_restored_database_is_told_until_it_is_decided_what_becomes_of_its_sessions(
    place: Place, tmp_path: Path, decision: str
) -> None:
    copy = tmp_path / "copy.sqlite3"
    with place.serve() as (_, house):
        account = house.add("user")
        mine, other = house.sign_in(account), house.sign_in(account)
        place.back_up(copy)
        assert house.ask("DELETE", f"/sessions/session-user-d/{other.session}/", mine).status_code == 204
        assert house.ask("GET", "/sessions/session-user-l/", other).status_code == 403
    with place.serve() as (server, _):
        assert NOTE not in server.log.read_text()
    place.restore(copy)
    for _ in range(2):
        with place.serve() as (server, house):
            # What happens now does not hide it.
            house.sign_in(house.add("client"))
            assert NOTE in server.log.read_text()
            assert "server.py restored --end-all" in server.log.read_text()
            assert house.ask("GET", "/sessions/session-user-l/", other).status_code == 200
    told = place.decide(decision)
    assert told == ("4 sessions ended: everybody signs in again.\n" if decision == "--end-all"
                    else "The sessions are kept.\n")  # fmt: skip
    with place.serve() as (server, house):
        assert NOTE not in server.log.read_text()
        status = house.ask("GET", "/sessions/session-user-l/", other).status_code
        assert status == (403 if decision == "--end-all" else 200)


def test_what_a_server_that_was_killed_left_does_not_spoil_the_file_that_is_put_in_its_place(
    place: Place, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.sqlite3"
    server = start_server(place.folder, place.url)
    with open_house(server, place.url) as house:
        account = house.add("user")
        place.back_up(copy)
        house.sign_in(account)
    server.stop(signal.SIGKILL)
    assert place.file.with_name("sessions.sqlite3-wal").exists()
    place.restore(copy)
    with place.serve() as (_, house):
        house.sign_in(account)


def test_another_database_in_the_same_place_is_no_restored_one(place: Place) -> None:
    with place.serve() as (_, house):
        house.sign_in(house.add("user"))
    other = Place(place.folder)
    other.file = place.folder / "data" / "other.sqlite3"
    other.url = f"sqlite:///{other.file}"
    with other.serve() as (server, house):
        house.sign_in(house.add("user"))
        assert NOTE not in server.log.read_text()


def test_an_empty_database_brings_nobody_back(place: Place) -> None:
    with place.serve() as (_, house):
        house.sign_in(house.add("user"))
    place.file.unlink()
    with place.serve() as (server, _):
        assert NOTE not in server.log.read_text()


def test_a_place_that_cannot_be_written_to_is_told_once_and_stops_nothing(place: Place) -> None:
    (place.folder / "data").mkdir()
    (place.folder / "data" / "newest-events.json").mkdir()
    with place.serve() as (server, house):
        house.sign_in(house.add("user"))
    assert server.log.read_text().count("can't remember the newest event") == 1

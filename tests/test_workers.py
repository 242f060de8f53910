"""Several workers behind one address: killed, rolled over, stopped, and none left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import workers
from tests.conftest import ROOT, Server, start_server, wait_until

pytestmark = pytest.mark.long

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: sessions\r\n"


def list_workers(parent: int) -> set[int]:
    """The processes that `parent` started and that still run."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    except OSError:
        return set()
    return {int(child) for child in children.split() if is_running(int(child))}


def is_running(process: int) -> bool:
    """Whether a process runs; one that ended and was not asked for its exit code does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_workers(folder: Path, *arguments: str) -> Server:
    """A server of two workers, both of which answer."""
    server = start_server(folder, f"sqlite:///{folder}/sessions.sqlite3", "--workers", "2", *arguments)
    # The kernel deals connections out to both; those of a worker that is not there yet wait for it.
    for _ in range(20):
        ask(server.address)
    assert len(list_workers(server.process.pid)) == 2
    return server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers; at the end SIGTERM leaves none of them."""
    started = start_workers(tmp_path_factory.mktemp("workers"))
    yield started
    workers = list_workers(started.process.pid)
    assert len(workers) == 2
    assert started.stop() == 0
    assert not any(is_running(worker) for worker in workers)
    assert "Traceback" not in started.log.read_text()


def ask(address: str, *, keep: bool = False) -> socket.socket:
    """Ask on a connection of its own, and close it unless it is to be kept."""
    host, _, port = address.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    try:
        connection.sendall(REQUEST + (b"\r\n" if keep else b"Connection: close\r\n\r\n"))
        answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
    except BaseException:
        connection.close()
        raise
    if not keep:
        connection.close()
    return connection


class Load:
    """Requests without a pause, each on a new connection; what went wrong with any."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.count = 0
        self.errors: list[str] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._go_on) for _ in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.count > 20)
        return self

    def __exit__(self, *_: object) -> None:
        so_far = self.count
        with contextlib.suppress(AssertionError):
            wait_until(lambda: self.count > so_far + 20, 5)
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self) -> None:
        while not self._is_over.is_set():
            try:
                ask(self.address)
            except (OSError, AssertionError) as error:
                self.errors.append(repr(error))
            self.count += 1


def test_a_worker_that_is_killed_is_started_again_and_requests_wait_for_it(server: Server) -> None:
    parent = server.process.pid
    before = list_workers(parent)
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    # Some of these wait at the dead worker's socket, which the parent keeps open.
    for _ in range(20):
        ask(server.address)
    wait_until(lambda: len(list_workers(parent)) == 2)
    assert killed not in list_workers(parent)
    assert max(before) in list_workers(parent)
    wait_until(lambda: "a worker died and is started again" in server.log.read_text())


def test_a_hangup_rolls_over_without_a_request_that_fails(server: Server) -> None:
    parent = server.process.pid
    before = wait_until(lambda: len(found := list_workers(parent)) == 2 and found)
    kept = [ask(server.address, keep=True) for _ in range(8)]
    with Load(server.address) as load:
        # The second waits until the first is through.
        for _ in range(2):
            server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(now := list_workers(parent)) == 2 and not now & before, 40)
    assert load.errors == []
    assert load.count > 40
    for connection in kept:
        # Closed between requests, and not in the middle of one.
        assert connection.recv(1) == b""
        connection.close()


def test_a_new_worker_that_cannot_start_leaves_the_old_and_none_outlives_a_parent_that_is_killed(
    tmp_path: Path,
) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("server: {workers: 2}\n")
    server = start_workers(tmp_path, "--config", str(settings))
    before = list_workers(server.process.pid)
    settings.write_text("server: {workers: none}\n")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.log.read_text().count("a new worker did not start; the old one goes on") == 2, 40)
    # What did not start takes a moment to be gone.
    wait_until(lambda: list_workers(server.process.pid) == before)
    ask(server.address)

    # However it goes, its workers go with it.
    server.process.kill()
    server.process.wait(10)
    wait_until(lambda: not any(is_running(worker) for worker in before))
    with pytest.raises(ConnectionRefusedError):
        ask(server.address)


def test_one_worker_alone_outlives_what_would_roll_it_over_and_says_so(tmp_path: Path) -> None:
    server = start_server(tmp_path, f"sqlite:///{tmp_path}/sessions.sqlite3", "--workers", "1")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "can't be rolled over" in server.log.read_text())
    assert server.is_up()
    assert server.stop() == 0


STUB = """
import pathlib, socket, sys, time
pathlib.Path(sys.argv[1]).open("a").write("started\\n")
socket.socket(fileno=int(sys.argv[3].split(",")[0])).send(b"r")
time.sleep(60)
"""


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """This process may open no file that it has not opened yet."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("lack", ["program", "files"])
def test_a_place_whose_worker_could_not_be_started_is_filled_later(tmp_path: Path, lack: str) -> None:
    program, told = tmp_path / "python", tmp_path / "told"
    if lack == "files":
        program.symlink_to(sys.executable)

    async def work() -> int:
        parent = workers.Parent([str(program), "-c", STUB, str(told)], [[]])
        with capture_logs() as logs, no_more_files() if lack == "files" else contextlib.nullcontext():
            working = asyncio.create_task(parent.run())
            await asyncio.to_thread(wait_until, lambda: logs or working.done())
        assert [entry["event"] for entry in logs][:1] == ["a worker could not be started"]
        if lack == "program":
            program.symlink_to(sys.executable)
        await asyncio.to_thread(wait_until, told.exists)
        os.kill(os.getpid(), signal.SIGTERM)
        return await working

    assert asyncio.run(asyncio.wait_for(work(), 60)) == 0


def has_started(told: Path, count: int) -> bool:
    """Whether so many workers have said so there."""
    return told.exists() and told.read_text().count("started") == count


HASTY = """
import pathlib, socket, sys, time
told = pathlib.Path(sys.argv[1])
count = len(told.read_text().split()) if told.exists() else 0
told.open("a").write("started\\n")
if count:
    socket.socket(fileno=int(sys.argv[3].split(",")[0])).send(b"r")
while count != 1 or not pathlib.Path(sys.argv[1] + ".die").exists():
    time.sleep(0.01)
sys.exit(1)
"""


def test_a_worker_that_took_over_from_one_that_was_not_ready_yet_is_started_again_when_it_dies(tmp_path: Path) -> None:
    told = tmp_path / "told"

    async def work() -> int:
        parent = workers.Parent([sys.executable, "-c", HASTY, str(told)], [[]])
        working = asyncio.create_task(parent.run())
        await asyncio.to_thread(wait_until, lambda: has_started(told, 1))
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.to_thread(wait_until, lambda: has_started(told, 2) and len(parent._slots[0].processes) == 1)
        (tmp_path / "told.die").touch()
        await asyncio.to_thread(wait_until, lambda: has_started(told, 3) or working.done())
        assert has_started(told, 3)
        os.kill(os.getpid(), signal.SIGTERM)
        return await working

    assert asyncio.run(asyncio.wait_for(work(), 60)) == 0


DRAINING = """
import pathlib, signal, socket, sys, time
told = pathlib.Path(sys.argv[1])
count = len(told.read_text().split()) if told.exists() else 0
if count == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
told.open("a").write("started\\n")
socket.socket(fileno=int(sys.argv[3].split(",")[0])).send(b"r")
until = time.monotonic() + 60
while time.monotonic() < until and not pathlib.Path(f"{told}.{count}").exists():
    time.sleep(0.01)
sys.exit(1)
"""


def test_a_worker_that_dies_while_the_one_before_it_still_finishes_is_started_again(tmp_path: Path) -> None:
    told = tmp_path / "told"

    async def work() -> int:
        parent = workers.Parent([sys.executable, "-c", DRAINING, str(told)], [[]])
        (slot,) = parent._slots
        working = asyncio.create_task(parent.run())
        await asyncio.to_thread(wait_until, lambda: slot.was_ready)
        (first,) = slot.processes
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.to_thread(wait_until, lambda: first not in slot.serving)
        (tmp_path / "told.1").touch()
        await asyncio.to_thread(wait_until, lambda: has_started(told, 3))
        assert first in slot.processes
        (tmp_path / "told.0").touch()
        await asyncio.to_thread(wait_until, lambda: first not in slot.processes)
        os.kill(os.getpid(), signal.SIGTERM)
        return await working

    assert asyncio.run(asyncio.wait_for(work(), 60)) == 0


LATE = """
import pathlib, socket, sys, time
told = pathlib.Path(sys.argv[1])
told.open("a").write("started\\n")
if told.read_text().count("started") < 3:
    socket.socket(fileno=int(sys.argv[3].split(",")[0])).send(b"r")
time.sleep(60)
"""


def test_nobody_is_started_any_more_once_all_are_stopped_while_rolling_over(tmp_path: Path) -> None:
    told = tmp_path / "told"

    async def work() -> int:
        parent = workers.Parent([sys.executable, "-c", LATE, str(told)], [[], []])
        working = asyncio.create_task(parent.run())
        await asyncio.to_thread(wait_until, lambda: all(slot.was_ready for slot in parent._slots))
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.to_thread(wait_until, lambda: has_started(told, 3))
        with capture_logs() as logs:
            os.kill(os.getpid(), signal.SIGTERM)
            code = await working
        assert logs == []
        assert not any(slot.processes for slot in parent._slots)
        return code

    assert asyncio.run(asyncio.wait_for(work(), 60)) == 0
    assert has_started(told, 3)


def test_a_hangup_before_there_are_workers_is_outlived(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, ROOT / "server.py", "serve", "--workers", "2", "--port", "0"],
            env={**os.environ, "SESSIONS_DATABASE__URL": f"sqlite:///{tmp_path}/sessions.sqlite3"},
            stdout=out, stderr=subprocess.STDOUT, cwd=tmp_path,
        )  # fmt: skip
    try:
        # Long before it has read its settings.
        wait_until(lambda: ignores(process.pid, signal.SIGHUP))
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "answers on" in (tmp_path / "log").read_text() or process.poll() is not None)
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)


def ignores(process: int, number: int) -> bool:
    """Whether a process takes no notice of a signal."""
    found = re.search(r"^SigIgn:\s*([0-9a-f]+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return bool(found and int(found[1], 16) >> (number - 1) & 1)


def test_a_place_that_rolling_over_filled_is_not_filled_again(tmp_path: Path) -> None:
    told = tmp_path / "told"

    async def work() -> None:
        parent = workers.Parent([sys.executable, "-c", STUB, str(told)], [[]])
        (slot,) = parent._slots
        first = await parent._start(slot)
        assert first
        assert await first.is_ready()
        occupying = asyncio.create_task(parent._occupy(slot))
        second = await parent._start(slot)
        assert second
        assert await second.is_ready()
        assert slot.processes == [first, second]
        with told.open("a") as file:
            file.write("ended\n")
        for process in list(slot.processes):
            process.stop()
        await asyncio.to_thread(wait_until, lambda: slot.processes and slot.processes[0] not in (first, second))
        (third,) = slot.processes
        assert await third.is_ready()
        occupying.cancel()
        third.process.kill()
        await third.is_over.wait()

    asyncio.run(asyncio.wait_for(work(), 20))
    assert told.read_text().split() == ["started", "started", "ended", "started"]

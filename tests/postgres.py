"""A PostgreSQL server of our own on a scratch folder, which can be taken away and given back."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), default=None)


@dataclass(frozen=True)
class Postgres:
    """A server that runs, or was stopped and can be started again on the same data."""

    folder: Path
    port: int
    options: str

    @property
    def address(self) -> str:
        """Where it answers, without a database's name."""
        return f"postgresql://postgres@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it answers."""
        while self._pid_file.exists() and Path(f"/proc/{self._read_pid()}").exists():
            # It was killed, and its parent did not look yet: it does not start while its number is in use.
            time.sleep(0.01)
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 {self.options}"
        self._control("-o", options, "-l", self.folder / "log", "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is a crash."""
        self._control("-m", mode, "stop")

    def crash(self) -> None:
        """Have it crash and come back."""
        self.stop("immediate")
        self.start()

    def kill(self) -> None:
        """Kill it and all that it started, with SIGKILL."""
        for number in self.list_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def list_processes(self) -> list[int]:
        """The server and all that it started."""
        parent = self._read_pid()
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]

    @property
    def _pid_file(self) -> Path:
        return self.folder / "data" / "postmaster.pid"

    def _read_pid(self) -> int:
        return int(self._pid_file.read_text().split()[0])

    def _control(self, *arguments: object) -> None:
        run_as_postgres("pg_ctl", "-D", self.folder / "data", *arguments)


def is_installed() -> bool:
    """Whether one can be made here: it refuses to run as root, and only root can become somebody else."""
    return PROGRAMS is not None and shutil.which("runuser") is not None and os.getuid() == 0


def run_as_postgres(program: str, *arguments: object) -> str:
    """Run one of PostgreSQL's own programs; what it says."""
    assert PROGRAMS, "apt install postgresql"
    command = ["runuser", "-u", "postgres", "--", str(PROGRAMS / program), *map(str, arguments)]
    # To a file: a server that this starts inherits it, and would keep a pipe open.
    with tempfile.TemporaryFile("w+") as out:
        subprocess.run(command, check=True, stdout=out, stderr=subprocess.STDOUT)
        out.seek(0)
        return out.read()


def make_database(address: str, model: str = "template1") -> str:
    """The URL of a new database on the server at `address`: a copy of the one named `model`, by itself empty."""
    name = f"test_{secrets.token_hex(6)}"
    made = f"CREATE DATABASE {name} TEMPLATE {model}"
    subprocess.run(["psql", "-q", f"{address}/postgres", "-c", made], check=True)
    return f"{address}/{name}"


def free_port() -> int:
    """A port that nobody listens on, below those that connections are given: it stays free over a restart."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def running_postgres(options: str = "") -> Iterator[Postgres]:
    """A new server, gone afterwards with all that it holds."""
    folder = Path(tempfile.mkdtemp(prefix="sessions-postgres-"))
    shutil.chown(folder, "postgres")
    server = Postgres(folder, free_port(), options)
    try:
        run_as_postgres("initdb", "-D", folder / "data", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        server.start()
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)

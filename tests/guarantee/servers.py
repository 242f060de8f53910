"""The servers under the checker, and what can befall them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import asyncpg

from tests.guarantee.wire import Broken, Wire
from tests.postgres import free_port

CLOCK = Path(__file__).parent / "clock"
SECRET = "checker!" * 8
START_SECONDS = 60
MOST_LAUNCHES = 5
STOP_SECONDS = 30


class Clock:
    """How far the servers' clocks are shifted."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "clock"
        self.file.write_bytes(bytes(8))
        with self.file.open("r+b") as file:
            self._shift = mmap.mmap(file.fileno(), 8)

    def shift(self, seconds: float) -> None:
        """Set them off by `seconds`."""
        self._shift[:8] = struct.pack("d", seconds)


@dataclass
class Server:
    """A server: a process, or a parent with workers. It can be killed and started again where it was."""

    root: Path
    folder: Path
    url: str
    workers: int
    settings: dict[str, str]
    # None: the real one.
    clock: Clock | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    python: str = sys.executable

    def __post_init__(self) -> None:
        self.wire = Wire(self.port)
        self.log = self.folder / f"server-{self.port}.log"

    def launch(self) -> None:
        """Start the process."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")} | {
            "SESSIONS_DATABASE__URL": self.url,
            "SESSIONS_TOKENS__KEYS": json.dumps([{"kid": "checker", "secret": SECRET}]),
            "SESSIONS_TOKENS__ACCESS_SECONDS": "86400",
            "SESSIONS_LOG__REQUESTS": "false",
            # What one start compiled, the next need not.
            "PYTHONDONTWRITEBYTECODE": "",
            **self.settings,
        }
        if self.clock:
            environment |= {
                "PYTHONPATH": str(CLOCK),
                "CHECKER_CLOCK": str(self.clock.file),
                "CHECKER_ROOT": str(self.root),
            }
        command = [self.python, str(self.root / "server.py"), "serve", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", str(self.workers)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=self.folder
            )

    async def start(self) -> None:
        """Start, and return when it answers."""
        self.launch()
        launches = 1
        give_up_at = monotonic() + START_SECONDS
        while monotonic() < give_up_at:
            with contextlib.suppress(Broken):
                if (await self.wire.ask("GET", "/readyz")).status == 200:
                    return
            if self.process and self.process.poll() is not None:
                if launches == MOST_LAUNCHES:
                    break
                # What was killed may hold the port a moment longer.
                await asyncio.sleep(0.2)
                self.launch()
                launches += 1
            await asyncio.sleep(0.02)
        raise AssertionError(f"a server did not start: {self.read_log()}")

    def poll(self) -> int | None:
        """Its exit code, where it has ended."""
        return self.process.poll() if self.process else None

    def read_log(self) -> str:
        """The end of what it said."""
        return self.log.read_text()[-2000:]

    def find_in_log(self, word: str) -> str | None:
        """What it said around the first such word; None where it said none."""
        log = self.log.read_text()
        return log[max(0, log.index(word) - 500) :][:2000] if word in log else None

    def find_workers(self) -> list[int]:
        """The processes that answer."""
        if self.process is None or self.workers == 1:
            return []
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
            return [int(number) for number in children.split()]
        return []

    def kill_worker(self) -> bool:
        """Kill one of the workers; False where there is none."""
        workers = self.find_workers()
        if not workers:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(workers), signal.SIGKILL)
        return True

    def kill(self) -> None:
        """Kill the parent and all workers."""
        if self.process is None:
            return
        workers = self.find_workers()
        for number in (self.process.pid, *workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()
        self.process = None

    async def stop(self) -> str | None:
        """Stop it as an operator does; what was wrong with that."""
        self.wire.close()
        if self.process is None:
            return None
        self.process.terminate()
        try:
            code = await asyncio.to_thread(self.process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"it still ran {STOP_SECONDS} s after SIGTERM"
        return f"it ended with {code}: {self.read_log()}" if code else None


async def cut_backends(url: str) -> None:
    """Cut every connection to this database but the one that says so."""
    connection = await asyncpg.connect(url, timeout=5)
    try:
        await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    finally:
        await connection.close()


@contextlib.contextmanager
def running(servers: list[Server]) -> Iterator[None]:
    """Leaves none of the servers behind."""
    try:
        yield
    finally:
        for server in servers:
            server.wire.close()
            server.kill()

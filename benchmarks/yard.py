"""Where benchmarks run: a scratch folder, a filled database, our server and the bare one beside it, wrk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
from sqlalchemy import Connection, insert

from models import clock
from models.keys import Key, KeySet
from models.postgres import PostgresDatabase
from models.schema import CLIENT, USER, Kind
from models.sqlite import SQLiteDatabase
from models.tokens import Tokens
from tests.postgres import make_database, running_postgres

ROOT = Path(__file__).parent.parent
SECRET = "benchmark" * 8
KEYS = KeySet([Key("bench", SECRET.encode(), "HS256")])
AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
KEEP_ALIVE = "function init(a) end"


@dataclass
class Yard:
    """A scratch folder with a database, and the processes that were started on it."""

    folder: Path
    url: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def open(self) -> SQLiteDatabase | PostgresDatabase:
        """The database from the inside."""
        return SQLiteDatabase(self.url) if self.url.startswith("sqlite") else PostgresDatabase(self.url, 2)

    def serve(self, *, workers: int = 1, **settings: str) -> str:
        """Start our server as it ships; where it answers."""
        log = self.folder / f"server-{len(self.processes)}.log"
        environment = {
            **os.environ,
            "SESSIONS_DATABASE__URL": self.url,
            "SESSIONS_SERVER__PORT": "0",
            "SESSIONS_TOKENS__KEYS": f'[{{"kid": "bench", "secret": "{SECRET}"}}]',
            **settings,
        }
        with log.open("wb") as out:
            started = subprocess.Popen(
                [sys.executable, str(ROOT / "server.py"), "serve", "--workers", str(workers)],
                env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=self.folder,
            )  # fmt: skip
        self.processes.append(started)
        while not (found := re.search(r"answers on (\S+)/", log.read_text())):
            if started.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.01)
        self.wait(found[1])
        return found[1]

    def find_worker(self) -> int:
        """The process id of the first server, or of a worker where it has several."""
        first = self.processes[0].pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return int(children[0]) if children else first

    def serve_bare(self, body: bytes, workers: int = 1) -> str:
        """Start bare Tornado with the same bytes; where it answers."""
        file = self.folder / "body"
        file.write_bytes(body)
        port = 0
        for _ in range(workers):
            listening = socket.socket()
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listening.bind(("127.0.0.1", port))
            listening.listen(128)
            listening.setblocking(False)
            port = listening.getsockname()[1]
            number = listening.fileno()
            command = [
                sys.executable,
                str(ROOT / "benchmarks" / "bare.py"),
                "--socket",
                str(number),
                "--body",
                str(file),
            ]
            self.processes.append(subprocess.Popen(command, pass_fds=[number], stderr=subprocess.DEVNULL))
            listening.close()
        self.wait(f"http://127.0.0.1:{port}")
        return f"http://127.0.0.1:{port}"

    @staticmethod
    def wait(address: str) -> None:
        """Return when somebody answers there."""
        while True:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{address}/healthz", timeout=5)
                return
            time.sleep(0.01)

    def write_script(self, name: str, requests: list[tuple[str, str, str]]) -> Path:
        """A wrk script that sends `requests` (method, path, token) in turn."""
        lines = "\n".join(f"{method} {path} {token}" for method, path, token in requests)
        (self.folder / f"{name}.txt").write_text(lines)
        script = self.folder / f"{name}.lua"
        script.write_text(
            f'''
local requests, at = {{}}, 0
function init(args)
  for line in io.lines("{self.folder / name}.txt") do
    local method, path, token = line:match("(%S+) (%S+) (%S+)")
    requests[#requests + 1] = wrk.format(method, path, {{
      ["Authorization"] = "Bearer " .. token, ["User-Agent"] = "{AGENT}", ["Accept"] = "*/*"}})
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  io.write(string.format("p50=%d p99=%d bad=%d\\n", latency:percentile(50), latency:percentile(99),
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
'''
        )
        return script


@dataclass(frozen=True)
class Round:
    """What wrk saw."""

    rate: float
    p50: float
    p99: float
    bad: int


def wrk(address: str, script: Path, connections: int, seconds: int) -> Round:
    """Requests for each second, milliseconds at the 50th and 99th percentile, and answers that were no 2xx or 3xx."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), address]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    told = re.search(r"p50=(\d+) p99=(\d+) bad=(\d+)", out)
    if not rate or not told:
        raise SystemExit(out)
    return Round(float(rate[1]), int(told[1]) / 1000, int(told[2]) / 1000, int(told[3]))


def read_memory(pid: int) -> int:
    """Bytes of memory that a process holds, what it shares with others included."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def median(values: list[float]) -> float:
    """The middle one."""
    return statistics.median(values)


@contextlib.contextmanager
def scratch(url: str | None = None) -> Iterator[Yard]:
    """A yard that is gone afterwards, with all that ran on it."""
    folder = Path(tempfile.mkdtemp(prefix="sessions-bench-"))
    yard = Yard(folder, url or f"sqlite:///{folder}/sessions.sqlite3")
    try:
        yield yard
    finally:
        for process in yard.processes:
            process.terminate()
        for process in yard.processes:
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL server of our own."""
    with running_postgres() as server:
        yield make_database(server.address)


@dataclass(frozen=True)
class Filled:
    """Tokens of the sessions that were made: (path of the account's own list, session id, token)."""

    tokens: list[tuple[str, int, str]]


def fill(yard: Yard, accounts: int, sessions: int, kind: Kind = USER, *, tokens: int | None = None) -> Filled:
    """Make `accounts` with `sessions` each; tokens for `tokens` of these, of accounts from all over the database."""
    maker = Tokens(KEYS, 86_400, timedelta(days=1))
    now = clock.now()
    sids = [[secrets.token_urlsafe(16) for _ in range(sessions)] for _ in range(accounts)]

    def make(db: Connection, first: int, last: int) -> None:
        db.execute(
            insert(kind.accounts),
            [
                {
                    "id": number,
                    "surname": f"Surname{number}",
                    "name": f"Name{number}",
                    "patronymic": f"Patronymic{number}",
                    "address": f"{number} High Street",
                    "phone": f"+7{9_000_000_000 + number}",
                    **({"email": f"user{number}@example.com"} if kind is USER else {}),
                    "password_hash": "",
                    "confirmed_phone": True,
                    "created_at": now,
                    "updated_at": now,
                }
                for number in range(first, last)
            ],
        )
        db.execute(
            insert(kind.sessions),
            [
                {
                    "sid": sid,
                    "account_id": number,
                    "device": AGENT,
                    "ip": "127.0.0.1",
                    "browser": "Chrome",
                    "os": "Linux",
                    "device_kind": "computer",
                    "country": "",
                    "city": "",
                    "created_at": now,
                    "last_seen_at": now,
                    "refreshed_at": now,
                    "expires_at": now + timedelta(days=30),
                }
                for number in range(first, last)
                for sid in sids[number - 1]
            ],
        )

    async def run() -> None:
        database = yard.open()
        await database.migrate()
        for first in range(1, accounts + 1, 2000):
            await database.write(make, first, min(first + 2000, accounts + 1))
        await database.close()

    asyncio.run(run())
    listed: list[tuple[str, int, str]] = []
    some = accounts if tokens is None else -(-tokens // sessions)
    for number in range(1, accounts + 1, max(1, accounts // some)):
        for index, sid in enumerate(sids[number - 1]):
            account = {"id": number, "surname": "", "name": "", "patronymic": "", "phone": ""}
            token = maker.make_access(kind, account, sid, now)
            path = f"/sessions/session-{kind.name}-l/{number}/"
            listed.append((path, (number - 1) * sessions + index + 1, token))
    return Filled(listed[:tokens])


__all__ = ["CLIENT", "USER", "Filled", "Round", "Yard", "fill", "median", "postgres", "read_memory", "scratch", "wrk"]

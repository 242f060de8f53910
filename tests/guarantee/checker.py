"""Drives real servers with all that people do to sessions, with faults, and says what promise was broken."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop
from argon2 import PasswordHasher
from sqlalchemy import Connection, and_, or_, select, true

from models import accounts, clock
from models.database import Database
from models.schema import EVENTS, KINDS
from tests.conftest import ROOT, open_database
from tests.guarantee.actors import Actors
from tests.guarantee.history import Account, Event, History, Key, Ledger, Live
from tests.guarantee.judge import Violation, judge
from tests.guarantee.servers import Clock, Server, cut_backends, running
from tests.postgres import Postgres

FAULTS = ("workers", "server", "postgres", "backends", "connections", "clock")
ONLY_POSTGRES = {"postgres", "backends"}
PASSWORD = "a quiet harbour at dusk"
PULSE_SECONDS = 0.05
PATIENCE = 30


@dataclass(frozen=True)
class Plan:
    """What to run, on what, for how long, with which faults."""

    url: str
    workers: tuple[int, ...]
    # The server of that URL, where it is PostgreSQL's.
    postgres: Postgres | None = None
    seconds: float = 0
    # Goes on until so many ends were answered, however slow the machine is.
    ends: int = 0
    faults: frozenset[str] = frozenset()
    # Seconds between two faults, on average.
    every: float = 1.5
    actors: int = 16
    users: int = 8
    clients: int = 4
    most: int = 5
    # Whether all servers are killed in the middle of it in the end, and not stopped.
    crash: bool = False
    root: Path = ROOT


@dataclass
class Report:
    """What was done and what was found."""

    history: History
    violations: list[Violation]
    seconds: float

    @property
    def kinds(self) -> set[str]:
        """Which kinds of violation there were."""
        return {violation.kind for violation in self.violations}

    def tell(self, most: int = 5) -> str:
        """For a person: counts of every kind, and the first violations of each."""
        lines = [f"{len(self.history.calls)} calls, {len(self.history.sessions)} sessions, {self.seconds:.1f} s"]
        lines.append(f"{len(self.history.streams)} live streams; the checker's own delays: {self._worst_delay():.2f} s")
        lines += [f"  {count:8} {name}" for name, count in sorted(self.history.count_acts().items())]
        lines.append(
            "faults: " + (", ".join(f"{n} {name}" for name, n in self.history.count_faults().items()) or "none")
        )
        lines.append(f"violations: {len(self.violations)}")
        for kind in sorted(self.kinds):
            found = [violation.what for violation in self.violations if violation.kind == kind]
            lines.append(f"  {len(found):8} {kind}")
            lines += [f"           {what}" for what in found[:most]]
        return "\n".join(lines)

    def _worst_delay(self) -> float:
        return max((late for _, late in self.history.delays), default=0)


def check(plan: Plan, folder: Path) -> Report:
    """Carry out `plan` with its scratch in `folder`."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Checker(plan, folder).run())


@dataclass
class Checker:
    """One run of a plan."""

    plan: Plan
    folder: Path
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self._clock = Clock(self.folder)
        # Everybody is at one address, and signs in as often as can be.
        unlimited = dict.fromkeys(("SESSIONS_GUESSES__TRIES", "SESSIONS_GUESSES__NETWORK_TRIES"), "1000000")
        settings = {"SESSIONS_SESSIONS__MOST": str(self.plan.most), **unlimited}
        self._servers = [
            Server(self.plan.root, self.folder, self.plan.url, count, settings, self._clock)
            for count in self.plan.workers
        ]

    async def run(self) -> Report:
        """All of it."""
        began = monotonic()
        if task := asyncio.current_task():
            # Told to stop, it leaves no server behind.
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with running(self._servers):
            database = open_database(self.plan.url)
            try:
                await self._fill(database)
                await asyncio.gather(*(server.start() for server in self._servers))
                pulse = asyncio.create_task(self._feel_pulse())
                await self._act()
                pulse.cancel()
                for server in self._servers:
                    if wrong := await server.stop():
                        self.history.failures.append(("a server did not stop well", wrong))
                self._read_logs()
                ledger = await database.read(read_ledger)
            finally:
                await database.close()
        violations = judge(self.history, ledger, self.plan.most)
        return Report(self.history, violations, monotonic() - began)

    async def _fill(self, database: Database) -> None:
        """Make the accounts. Their first passwords are hashed cheaply: many sign in here, and the CPU is ours."""
        await database.migrate()
        cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
        for kind, count in (("user", self.plan.users), ("client", self.plan.clients)):
            for number in range(count):
                phone = f"+7913{len(self.history.accounts):07}"
                is_staff = kind == "user" and number < 2
                now = clock.now()
                fields: dict[str, Any] = {"phone": phone, "confirmed_by_staff_at": now}
                if is_staff:
                    fields["is_staff"] = True
                row = await database.write(accounts.create, KINDS[kind], fields, cheap, None, now)
                self.history.accounts.append(Account(kind, row["id"], phone, [PASSWORD], is_staff))

    async def _act(self) -> None:
        actors = Actors(self.history, self._servers, self.history.accounts, self.plan.most)
        acting = [asyncio.create_task(actors.act()) for _ in range(self.plan.actors)]
        befalling = asyncio.create_task(self._befall())
        # Either ends early only by its own mistake.
        await asyncio.wait([*acting, befalling], timeout=self.plan.seconds, return_when=asyncio.FIRST_EXCEPTION)
        give_up_at = monotonic() + PATIENCE
        while actors.ends < self.plan.ends and monotonic() < give_up_at:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if actors.ends < self.plan.ends:
            self.history.failures.append(("too few ends to tell", f"{actors.ends} of {self.plan.ends}"))
        await befalling
        if self.plan.crash:
            self._note("crash")
            for server in self._servers:
                server.kill()
        actors.stop()
        await asyncio.gather(*acting)
        if not self.plan.crash:
            for server in self._servers:
                if (code := server.poll()) is not None:
                    self.history.failures.append(("a server ended by itself", f"with {code}: {server.read_log()}"))
            await actors.use_all()
            await actors.watch_streams()
        await actors.close_streams()

    def _read_logs(self) -> None:
        """What the servers say of mistakes, and of workers that died and were not killed."""
        for server in self._servers:
            if told := server.find_in_log("Traceback"):
                self.history.failures.append(("a mistake in the server's log", told))
        died = sum(server.log.read_text().count("a worker died") for server in self._servers)
        if died > (killed := self.history.count_faults()["workers"]):
            self.history.failures.append(("workers died by themselves", f"{died}, and {killed} were killed"))

    async def _feel_pulse(self) -> None:
        while True:
            before = monotonic()
            await asyncio.sleep(PULSE_SECONDS)
            now = monotonic()
            if (late := now - before - PULSE_SECONDS) > PULSE_SECONDS:
                self.history.delays.append((now, late))

    async def _befall(self) -> None:
        """One fault after another, each kind once before any comes again."""
        possible = [name for name in FAULTS if name in self.plan.faults]
        if not self.plan.postgres:
            possible = [name for name in possible if name not in ONLY_POSTGRES]
        if not possible:
            return
        over_at = monotonic() + self.plan.seconds
        faults: dict[str, Callable[[], Coroutine[None, None, None]]] = {
            "workers": self._kill_worker,
            "server": self._kill_server,
            "postgres": self._restart_postgres,
            "backends": self._cut_backends,
            "connections": self._cut_connections,
            "clock": self._set_clock,
        }
        turn: list[str] = []
        while True:
            wait = random.uniform(0.5, 1.5) * self.plan.every
            if monotonic() + wait > over_at:
                break
            await asyncio.sleep(wait)
            turn = turn or random.sample(possible, len(possible))
            await faults[turn.pop()]()
        self._clock.shift(0)

    def _note(self, name: str) -> None:
        self.history.faults.append((monotonic(), name))

    async def _kill_worker(self) -> None:
        self._note("workers")
        random.choice(self._servers).kill_worker()

    async def _kill_server(self) -> None:
        server = random.choice(self._servers)
        self._note("server")
        server.kill()
        await server.start()

    async def _restart_postgres(self) -> None:
        self._note("postgres")
        assert self.plan.postgres
        await asyncio.to_thread(self.plan.postgres.crash)
        # Whoever asked while it was away may still wait for a connection.
        self._note("postgres back")

    async def _cut_backends(self) -> None:
        self._note("backends")
        await cut_backends(self.plan.url)

    async def _cut_connections(self) -> None:
        self._note("connections")
        for server in self._servers:
            server.wire.cut(0.7)

    async def _set_clock(self) -> None:
        # By less than staff may be idle: a session that starts while the clock is behind by more has expired, and
        # rightly so, when it is right again. Nothing here waits for that.
        self._clock.shift(random.choice([-600, -40, -1, -0.001, 0, 40, 600]))
        self._note("clock")


def read_ledger(db: Connection, accounts: Collection[Key] | None = None) -> Ledger:
    """What the database holds, of all accounts or of these."""
    columns = EVENTS.c
    live: dict[Key, Live] = {}
    concerned = []
    for name, kind in KINDS.items():
        ids = [number for of, number in accounts or () if of == name]
        owner = kind.sessions.c.account_id
        for row in db.execute(select(kind.sessions).where(true() if accounts is None else owner.in_(ids))):
            live[name, row.id] = Live(row.account_id, row.name, row.generation)
        concerned.append(and_(columns.kind == name, columns.account_id.in_(ids)))
    rows = db.execute(
        select(columns.id, columns.type, columns.cause, columns.kind, columns.account_id, columns.session_id)
        .where(true() if accounts is None else or_(*concerned))
        .order_by(columns.id)
    )
    return Ledger(live, [Event(*row) for row in rows])

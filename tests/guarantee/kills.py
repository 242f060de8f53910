"""Kills a server at random moments under load, starts it again, and says what it had answered and then lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import asyncpg
import uvloop
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from sqlalchemy import Connection, make_url, select

from models import accounts, clock
from models.database import Database
from models.schema import KINDS
from tests.conftest import PASSWORD, ROOT, open_database, password_hash
from tests.guarantee.actors import Actors
from tests.guarantee.checker import read_ledger
from tests.guarantee.history import Account, History
from tests.guarantee.judge import Violation, judge
from tests.guarantee.servers import Server, running
from tests.postgres import Postgres

# What is done until a kill, and how often beside the others.
ACTS = {"start": 24, "start at once": 2, "end": 22, "sign out": 8, "rename": 34, "password": 4, "refresh": 4, "list": 2}
# As what acts are reported.
NAMES = {
    "start": "sign-ins",
    "end": "ends",
    "sign out": "ends",
    "rename": "renames",
    "password": "password changes",
}
# What one lost act of each shows itself by; whatever else is violated may follow from it.
LOST = {
    "a start that was answered is lost": "sign-ins",
    "gone without its end": "sign-ins",
    "an end that was answered is lost": "ends",
    "a name was lost": "renames",
    "a password change was lost": "password changes",
}
# The most sessions of an account.
MOST = 12
# Of PostgreSQL's catalogue.
OURS = "relnamespace = 'public'::regnamespace"
# So many sessions of earlier rounds are used after each kill; in the database all are looked at.
EARLIER = 20


@dataclass(frozen=True)
class Plan:
    """How often what is killed."""

    url: str
    # The server of that URL, where it is PostgreSQL's, and in which share of the kills it is killed too.
    postgres: Postgres | None = None
    share: float = 0
    times: int = 200
    # Goes on no longer than this, however many that were.
    minutes: float = float("inf")
    # Seconds of load until a kill, at most.
    longest: float = 1.6
    actors: int = 12
    # Made anew for each kill.
    users: int = 6
    clients: int = 4
    root: Path = ROOT
    # The interpreter that the server is started with.
    python: str = sys.executable


@dataclass
class Report:
    """What was done and what was found."""

    history: History = field(default_factory=History)
    violations: set[Violation] = field(default_factory=set)
    kills: int = 0
    postgres_kills: int = 0
    # Acts that were answered as carried out until a kill, and those that it interrupted.
    acknowledged: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    # Seconds from a process's start until it and its database answer.
    starts: list[float] = field(default_factory=list)

    @property
    def lost(self) -> Counter[str]:
        """How many acts that were answered are not in the database."""
        return Counter(LOST[violation.kind] for violation in self.violations if violation.kind in LOST)

    def tell(self, most: int = 5) -> str:
        """For a person: a table of the acts, the checks, the seconds, and the first violations of each kind."""
        killed = f", {self.postgres_kills} of them of PostgreSQL too" if self.postgres_kills else ""
        lines = [f"{self.kills} kills{killed}", f"{'':18}{'acknowledged':>14}{'in flight':>14}{'lost':>14}"]
        for name in dict.fromkeys(NAMES.values()):
            counts = (self.acknowledged[name], self.in_flight[name], self.lost[name])
            lines.append(f"{name:18}" + "".join(f"{count:14,}" for count in counts))
        failed = sum(violation.kind == "not whole" for violation in self.violations)
        lines.append(f"integrity checks: {self.kills - failed} passed, {failed} failed")
        ranked = sorted(self.starts)
        p95 = ranked[min(len(ranked) - 1, round(0.95 * len(ranked)))]
        middle = statistics.median(ranked)
        lines.append(f"start-up: median {middle:.2f} s, p95 {p95:.2f} s, max {ranked[-1]:.2f} s")
        lines.append(f"violations: {len(self.violations)}")
        for kind, count in sorted(Counter(violation.kind for violation in self.violations).items()):
            lines.append(f"  {count:8} {kind}")
            lines += [f"           {what}" for what in sorted(w for k, w in self.violations if k == kind)[:most]]
        return "\n".join(lines)


def kill(plan: Plan, folder: Path) -> Report:
    """Carry out `plan` with its scratch in `folder`."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Killer(plan, folder).run())


class Killer:
    """One run of a plan."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._report = Report()
        unlimited = dict.fromkeys(("SESSIONS_GUESSES__TRIES", "SESSIONS_GUESSES__NETWORK_TRIES"), "1000000")
        # Where it is installed it finds itself compiled.
        settings = {"SESSIONS_SESSIONS__MOST": str(MOST), "PYTHONDONTWRITEBYTECODE": "", **unlimited}
        self._server = Server(plan.root, folder, plan.url, 1, settings, python=plan.python)
        # What earlier rounds left, which nothing changes any more.
        self._left: dict[tuple[str, str, int], object] = {}

    async def run(self) -> Report:
        """All of it."""
        with running([self._server]):
            async with self._open() as database:
                await database.migrate()
            await self._server.start()
            give_up_at = monotonic() + self._plan.minutes * 60
            while self._report.kills < self._plan.times and monotonic() < give_up_at:
                await self._round()
            if wrong := await self._server.stop():
                self._note("a server did not stop well", wrong)
        # Once more all rounds' acts, now that all kills are over.
        async with self._open() as database:
            self._report.violations.update(judge(self._report.history, await database.read(read_ledger), MOST))
        for alarm in ("Traceback", "restored from a back-up"):
            if told := self._server.find_in_log(alarm):
                self._note("an alarm without reason", told)
        return self._report

    async def _round(self) -> None:
        """Load, a kill, a start, and a look at everything."""
        history = History()
        history.accounts = await self._add()
        await self._load_and_kill(history)
        await self._look_whole()
        began = monotonic()
        await self._server.start()
        self._report.starts.append(monotonic() - began)
        await self._look(history)
        total = self._report.history
        total.calls += history.calls
        total.sessions += history.sessions
        total.accounts += history.accounts
        total.faults += history.faults
        total.failures += history.failures

    async def _add(self) -> list[Account]:
        """New accounts, with first passwords that are hashed cheaply: many sign in, and the CPU is ours."""
        made: list[Account] = []
        async with self._open() as database:
            for kind, count in (("user", self._plan.users), ("client", self._plan.clients)):
                for _ in range(count):
                    now, phone = clock.now(), f"+7913{len(self._report.history.accounts) + len(made):07}"
                    fields = {"phone": phone, "confirmed_by_staff_at": now}
                    row = await database.write(accounts.create, KINDS[kind], fields, password_hash(), None, now)
                    made.append(Account(kind, row["id"], phone, [PASSWORD]))
        return made

    async def _load_and_kill(self, history: History) -> None:
        """Act until a random moment, and kill the server then."""
        actors = Actors(history, [self._server], history.accounts, MOST, ACTS)
        await asyncio.gather(*(actors.start(account) for account in history.accounts * 2))
        acting = [asyncio.create_task(actors.act()) for _ in range(self._plan.actors)]
        # An actor ends early only by its own mistake.
        seconds = random.uniform(0.05, self._plan.longest)
        await asyncio.wait(acting, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        if self._server.poll() is not None:
            history.failures.append(("a server ended by itself", self._server.read_log()))
        killed_at = monotonic()
        history.faults.append((killed_at, "crash"))
        along = self._plan.postgres if random.random() < self._plan.share else None
        if along:
            history.faults.append((killed_at, "postgres"))
            along.kill()
            self._report.postgres_kills += 1
        self._server.kill()
        self._report.kills += 1
        if along:
            along.start()
        actors.stop()
        await asyncio.gather(*acting)
        await actors.close_streams()
        self._server.wire.close()
        for call in history.calls:
            if call.act in NAMES and (call.is_done or (call.is_unknown and call.sent < killed_at)):
                counted = self._report.acknowledged if call.is_done else self._report.in_flight
                counted[NAMES[call.act]] += 1

    async def _look_whole(self) -> None:
        """See whether the database is whole as the kill left it."""
        if self._plan.postgres:
            wrong = await check_postgres(self._plan.url)
        else:
            wrong = check_file(Path(make_url(self._plan.url).database or ""))
        if wrong:
            self._note("not whole", f"after kill {self._report.kills}: {wrong}")

    async def _look(self, history: History) -> None:
        """Look for everything that was answered, over HTTP and in the database."""
        actors = Actors(history, [self._server], history.accounts, MOST)
        earlier = self._report.history.sessions
        for session in [*history.sessions, *random.sample(earlier, min(EARLIER, len(earlier)))]:
            await actors.read_list(session)
        async with self._open() as database:
            for account in history.accounts:
                row = await database.read(accounts.get, KINDS[account.kind], account.id)
                await self._try_passwords(history, actors, account, row["password_hash"] if row else "")
            ledger = await database.read(read_ledger, [account.key for account in history.accounts])
            self._report.violations.update(judge(history, ledger, MOST))
            left = await database.read(read_left)
        for key, value in self._left.items():
            if left.get(key) != value:
                self._note("changed by a later kill", f"{key}: {left.get(key)}, not {value}")
        self._left = left

    async def _try_passwords(self, history: History, actors: Actors, account: Account, kept: str) -> None:
        """The password is the one that was answered last, or one that was in flight; no other signs in."""
        changes = [call for call in history.calls if call.act == "password" and call.by and call.by.account is account]
        good = [password for password in account.passwords if is_right(kept, password)]
        if not good:
            self._note("a password change was lost", f"{account.key}: the password is none of {account.passwords}")
        for password in [PASSWORD, *(call.value[1] for call in changes if call.is_done or call.is_unknown)]:
            account.passwords = [password]
            if bool(await actors.start(account)) != (password in good):
                self._note("signing in contradicts the database", f"{account.key}: {password!r}, kept is {good}")

    def _note(self, kind: str, what: str) -> None:
        self._report.violations.add(Violation(kind, what))

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[Database]:
        """The database, for a moment: at a kill nobody but the server has it open."""
        database = open_database(self._plan.url)
        try:
            yield database
        finally:
            await database.close()


def read_left(db: Connection) -> dict[tuple[str, str, int], object]:
    """Every account's password, and every live session."""
    left: dict[tuple[str, str, int], object] = {}
    for name, kind in KINDS.items():
        account, session = kind.accounts.c, kind.sessions.c
        for number, kept in db.execute(select(account.id, account.password_hash)):
            left[name, "account", number] = kept
        for number, *values in db.execute(select(session.id, session.account_id, session.name, session.generation)):
            left[name, "session", number] = values
    return left


def is_right(kept: str, password: str) -> bool:
    """Whether the hash is the password's."""
    try:
        return PasswordHasher().verify(kept, password)
    except (Argon2Error, InvalidHashError):
        return False


def check_file(file: Path) -> str:
    """What is wrong with an SQLite file; a copy is read, so that the server finds it as the kill left it."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        for one in (file, file.with_name(f"{file.name}-wal")):
            if one.exists():
                shutil.copy2(one, folder)
        with contextlib.closing(sqlite3.connect(Path(folder) / file.name)) as copy:
            try:
                found = [*copy.execute("PRAGMA integrity_check"), *copy.execute("PRAGMA foreign_key_check")]
            except sqlite3.DatabaseError as error:
                return str(error)
    return "" if found == [("ok",)] else str(found)


async def check_postgres(url: str) -> str:
    """What is wrong with a database of PostgreSQL: with its indexes or its tables, where amcheck is installed."""
    connection = await asyncpg.connect(url, timeout=30)
    try:
        if not await connection.fetch("SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'"):
            return ""
        await connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
        await connection.fetch(f"SELECT bt_index_check(oid, true) FROM pg_class WHERE {OURS} AND relkind = 'i'")
        found = await connection.fetch(
            f"SELECT relname, v.* FROM pg_class, verify_heapam(oid) v WHERE {OURS} AND relkind = 'r'"
        )
        return "; ".join(map(str, found))
    except asyncpg.PostgresError as error:
        return str(error)
    finally:
        await connection.close()

"""The desk with a million sessions: every list with every filter, sign-ins beside it, ending many, the emergency."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import math
import random
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self
from urllib.parse import urlencode

import asyncpg
import httpx
from sqlalchemy import Connection, text

from benchmarks.yard import AGENT, KEYS, Yard, postgres, scratch
from handlers.queries import encode
from models import accounts, clock, counts, cutoffs, desk, jobs, sessions
from models.chores import Chore
from models.database import Database, is_postgres
from models.filters import AccountFilter, EventFilter, SessionFilter
from models.networks import Network, make_key
from models.origins import Origin
from models.postgres import PostgresDatabase
from models.principals import Principal, prove
from models.schema import CLIENT, KINDS, USER, Kind, Row, fold_text
from models.settings import SessionSettings
from models.sqlite import SQLiteDatabase
from models.tokens import Claims, Tokens
from server import FOLD_SECONDS, fold

AT_ONCE = 20_000
DAYS = 60
# What the pages are measured beside.
FEW = 10_000
SETTINGS = SessionSettings()
COUNTRIES = ("RU", "DE", "US", "GB", "FR", "KZ", "TR", "IT", "JP", "PL", "ES", "FI", "")
MAKES = (
    ("Chrome", "Windows", "computer", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/146.0.0.0"),
    ("Chrome", "Android", "phone", "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/146.0.0.0 Mobile"),
    ("Safari", "iOS", "phone", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) Version/26.3 Safari/604.1"),
    ("Edge", "Windows", "computer", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/146.0.0.0 Edg/146.0.0.0"),
    ("Firefox", "Linux", "computer", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Safari", "iPadOS", "tablet", "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) Version/17.7 Safari/604.1"),
    ("curl 8.14", "", "program", "curl/8.14.1"),
    ("okhttp 5.1", "", "program", "okhttp/5.1.0"),
)
SURNAMES = ("Ivanov", "Smirnov", "Müller", "Nguyen", "Garcia", "O'Connor", "Kowalski", "Lefèvre", "Okafor", "Chen")
LABELS = (("started", None), ("started", None), ("ended", "expired"), ("ended", "signed_out"), ("refused", None))


@dataclass(frozen=True)
class Size:
    """How much there is."""

    accounts: int
    sessions: int
    events: int

    @classmethod
    def of(cls, sessions: int) -> Self:
        """With so many sessions."""
        return cls(sessions // 5, sessions, sessions * 3)


class Filler:
    """Makes rows, quickly: as they are copied, without SQLAlchemy."""

    def __init__(self, size: Size, now: datetime) -> None:
        self.size = size
        self.now = clock.to_microseconds(now)
        self.chance = random.Random(7)

    def tables(self) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
        """Every table with its rows, in the order in which they can be written."""
        for kind in KINDS.values():
            yield kind.accounts.name, self.list_accounts(kind.name)
        for kind in KINDS.values():
            yield kind.sessions.name, self.list_sessions(kind.name)
        yield "events", self.list_events()

    def list_accounts(self, kind: str) -> Iterator[dict[str, Any]]:
        for number in range(1, self.size.accounts // 2 + 1):
            surname = f"{SURNAMES[number % len(SURNAMES)]}{number % 5000}"
            row = {
                "id": number, "surname": surname, "surname_key": fold_text(surname), "name": f"Name{number}",
                "patronymic": "", "address": "", "phone": f"+7{9_000_000_000 + number}", "password_hash": "",
                "confirmed_phone": number % 50 != 0, "disabled_at": self.now if number % 200 == 3 else None,
                "created_at": self.now, "updated_at": self.now, "revision": 1,
            }  # fmt: skip
            if kind == "user":
                row |= {"email": f"person{number}@example.com", "confirmed_email": False, "is_staff": number == 1}
            yield row

    def list_sessions(self, kind: str) -> Iterator[dict[str, Any]]:
        day, count = 86_400_000_000, self.size.sessions // 2
        weights = (30, 28, 20, 8, 6, 4, 3, 1)
        makes = self.chance.choices(MAKES, weights, k=count)
        countries = self.chance.choices(COUNTRIES, [300, 120, 110, 90, 80, 60, 60, 50, 40, 40, 30, 10, 10], k=count)
        for number in range(count):
            browser, os, device_kind, device = makes[number]
            created = self.now - (count - number) * DAYS * day // count
            seen = min(self.now, created + int(self.chance.random() ** 2 * DAYS * day))
            ip = f"{10 + number % 40}.{number // 40 % 200}.{number % 251}.{number % 241}"
            yield {
                "id": number + 1, "sid": f"{kind}-sid-{number:012}", "device": device,
                "device_key": fold_text(device)[:64], "device_id": None, "name": None, "ip": ip, "ip_key": make_key(ip),
                "browser": browser, "os": os, "device_kind": device_kind, "country": countries[number], "city": "",
                "created_at": created, "last_seen_at": seen, "seen_on": seen // day,
                "expires_at": self.now + (1 + number % 30) * day,
                "generation": 1, "refreshed_at": seen, "password_at": None, "novelty": "",
                "account_id": 1 + number * 7919 % (self.size.accounts // 2),
            }  # fmt: skip

    def list_events(self) -> Iterator[dict[str, Any]]:
        day, count = 86_400_000_000, self.size.events
        device = MAKES[0][3]
        for number in range(count):
            type_, cause = LABELS[number % 5]
            ip = f"{10 + number % 40}.{number // 40 % 200}.{number % 251}.{number % 241}"
            is_staff = number % 1000 == 2
            yield {
                "id": number + 1, "at": self.now - (count - number) * DAYS * day // count, "type": type_,
                "cause": "staff" if is_staff else cause, "kind": ("user", "client")[number % 2],
                "account_id": 1 + number * 7919 % (self.size.accounts // 2), "session_id": number + 1,
                "by_kind": "user" if is_staff else None, "by_id": 1 if is_staff else None, "device": device, "ip": ip,
                "ip_key": make_key(ip), "country": COUNTRIES[number % len(COUNTRIES)], "reason": None,
            }  # fmt: skip


async def fill(yard: Yard, size: Size, now: datetime) -> None:
    """Make the tables and their rows."""
    database = yard.open()
    await database.migrate()
    filler = Filler(size, now)
    if isinstance(database, SQLiteDatabase):
        driver = database._write_driver
        driver.execute("PRAGMA synchronous=OFF")
        driver.execute("PRAGMA cache_size=-400000")
        # Made anew when the rows are there: one after another they would be ten times as slow.
        made = driver.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite%'"
            " AND (type = 'trigger' OR (type = 'index' AND tbl_name IN"
            " ('events', 'user_sessions', 'client_sessions')))"
        ).fetchall()
        driver.execute("BEGIN")
        for name, sql in made:
            driver.execute(f"DROP {'TRIGGER' if sql.startswith('CREATE TRIGGER') else 'INDEX'} {name}")
        for table, rows in filler.tables():
            first = next(rows)
            statement = f"INSERT INTO {table} ({', '.join(first)}) VALUES ({', '.join('?' * len(first))})"
            driver.execute(statement, tuple(first.values()))
            driver.executemany(statement, (tuple(row.values()) for row in rows))
        for _, sql in made:
            driver.execute(sql)
        driver.execute("COMMIT")
    else:
        connection = await asyncpg.connect(yard.url)
        await connection.execute("ALTER TABLE events DISABLE TRIGGER tell_of_event")
        for table, rows in filler.tables():
            while some := [row for _, row in zip(range(AT_ONCE), rows, strict=False)]:
                records = [tuple(row.values()) for row in some]
                await connection.copy_records_to_table(table, records=records, columns=list(some[0]))
            await connection.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}")
        await connection.execute("ALTER TABLE events ENABLE TRIGGER tell_of_event")
        await connection.close()
    await database.write(counts.recount_events)
    await database.write(counts.recount_sessions)
    if isinstance(database, SQLiteDatabase):
        database._write_driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    else:
        connection = await asyncpg.connect(yard.url)
        await connection.execute("VACUUM ANALYZE")
        await connection.close()
    await database.close()


async def start(database: Database, kind: Kind, account_id: int, now: datetime) -> Row:
    """A new session of an account."""
    started = await database.write(sessions.start, kind, account_id, None, None, Origin(), SETTINGS, now)
    if started is None:
        raise SystemExit("there is no such account")
    return started.session


@dataclass(frozen=True)
class Words:
    """What is searched for: how what some accounts are known by begins."""

    email: str
    phone: str
    surname: str
    surnames: str


# Shorter where there is little: a page is full here and there, one of nothing would be measured beside it.
MANY_FOUND = Words("person4321", "+79000012", "kowalski321", "kowalski32")
FEW_FOUND = Words("person43", "+7900000012", "kowalski3", "kowalski")


def list_cases(now: datetime, words: Words = MANY_FOUND) -> dict[str, SessionFilter]:
    """Filters of every sort, alone and together."""
    day = timedelta(days=1)
    return {
        "all": SessionFilter(),
        "kind": SessionFilter(kind="client"),
        "account": SessionFilter(kind="user", account=77),
        "browser": SessionFilter(browser="Chrome"),
        "browser, rare": SessionFilter(browser="okhttp 5.1"),
        "os": SessionFilter(os="iPadOS"),
        "device kind": SessionFilter(device_kind="phone"),
        "country": SessionFilter(country="RU"),
        "country, rare": SessionFilter(country="FI"),
        "four together": SessionFilter(country="RU", browser="Chrome", os="Windows", device_kind="computer"),
        "address": SessionFilter(network=Network.parse("10.0.0.0")),
        "network /16": SessionFilter(network=Network.parse("12.34.0.0/16")),
        "network /8": SessionFilter(network=Network.parse("12.0.0.0/8")),
        "network /8, country": SessionFilter(network=Network.parse("12.0.0.0/8"), country="RU"),
        "started, a day": SessionFilter(started_from=now - 20 * day, started_to=now - 19 * day),
        "started, 30 days": SessionFilter(started_from=now - 40 * day, started_to=now - 10 * day),
        "started, 30 days, country": SessionFilter(
            started_from=now - 40 * day, started_to=now - 10 * day, country="RU"
        ),
        "seen, a day": SessionFilter(seen_from=now - 2 * day, seen_to=now - day),
        "seen, 20 days": SessionFilter(seen_from=now - 20 * day, seen_to=now - day, sort="-seen"),
        "idle 30 days": SessionFilter(idle=30 * day),
        "idle 7 days, country": SessionFilter(idle=7 * day, country="DE", sort="-seen"),
        "started and seen": SessionFilter(started_from=now - 40 * day, seen_from=now - 20 * day, sort="-seen"),
        "e-mail": SessionFilter(q=words.email),
        "phone": SessionFilter(q=words.phone),
        "surname": SessionFilter(q=words.surname),
        "device": SessionFilter(device="curl"),
        "device, most": SessionFilter(device="Mozilla"),
        "network /8, started": SessionFilter(network=Network.parse("12.0.0.0/8"), started_from=now - 30 * day),
        "network /8, seen": SessionFilter(network=Network.parse("12.0.0.0/8"), seen_from=now - 20 * day),
        "phone, seen": SessionFilter(q=words.phone, seen_from=now - 20 * day),
        "device, most, seen": SessionFilter(device="Mozilla", seen_from=now - 20 * day),
        "seen first": SessionFilter(sort="-seen"),
        "seen last": SessionFilter(sort="seen", country="RU"),
    }


def list_event_cases(now: datetime) -> dict[str, EventFilter]:
    """The same for the log."""
    day = timedelta(days=1)
    return {
        "all": EventFilter(),
        "type": EventFilter(type="refused"),
        "cause": EventFilter(cause="expired"),
        "type, kind": EventFilter(type="started", kind="client"),
        "account": EventFilter(kind="user", account=77),
        "by whom": EventFilter(by_kind="user", by=1),
        "by whom, type": EventFilter(by_kind="user", by=1, type="ended"),
        "network /16": EventFilter(network=Network.parse("12.34.0.0/16")),
        "network /8": EventFilter(network=Network.parse("12.0.0.0/8")),
        "between": EventFilter(since=now - 20 * day, until=now - 10 * day),
        "between, type": EventFilter(since=now - 20 * day, until=now - 10 * day, type="refused"),
    }


Ask = Callable[[], Awaitable[Any]]
Open = Callable[[str], Awaitable[None]]
# By their names: how many match, the address, and one deep inside.
Pages = dict[str, tuple[int, str, str]]


async def measure(asks: Sequence[Ask], repeats: int) -> list[tuple[float, float, float]]:
    """Milliseconds of each, asked in turn: the median, the 99th percentile, and the longest."""
    taken: list[list[float]] = [[] for _ in asks]
    for ask in asks:
        await ask()
    for _ in range(repeats):
        for ask, times in zip(asks, taken, strict=True):
            begun = time.perf_counter()
            await ask()
            times.append((time.perf_counter() - begun) * 1000)
    return [(statistics.median(times), sorted(times)[math.ceil(len(times) * 0.99) - 1], max(times)) for times in taken]


async def list_pages(database: Database, staff: Principal, now: datetime, words: Words) -> Pages:
    """Every page of the desk, its lists with every filter: how many match, its address, and one deep inside it."""
    lists: list[tuple[str, str, Any, Any]] = []
    for name, sought in list_cases(now, words).items():
        ask: Any = partial(desk.list_sessions, database, staff, sought, now)
        lists.append((f"sessions: {name}", "sessions", sought, ask))
    of_accounts = {
        "all": AccountFilter(), "surname order": AccountFilter(sort="surname"),
        "search": AccountFilter(q=words.surnames), "phone": AccountFilter(q="+7900"),
        "active": AccountFilter(state="active"), "disabled": AccountFilter(state="disabled"),
        "staff": AccountFilter(role="staff"),
    }  # fmt: skip
    for name, some in of_accounts.items():
        ask = partial(desk.list_accounts, database, staff, USER, some, now)
        lists.append((f"accounts: {name}", "accounts/user", some, ask))
    for name, of_events in list_event_cases(now).items():
        ask = partial(desk.list_events, database, staff, of_events, now)
        lists.append((f"events: {name}", "events", of_events, ask))
    pages = {}
    for name, place, asked, ask in lists:
        page, address = await ask(), f"/admin/{place}/?{urlencode(encode(asked))}"
        deep = f"{address}&{urlencode({'after': await find_inside(ask, page.next)})}" if page.next else ""
        pages[name] = (page.total, address, deep)
    alone = {
        "overview": "", "overview, 7 days": "?span=week", "overview, 30 days": "?span=month",
        "account": "accounts/user/5/", "session": "sessions/client/77/", "ends": "sessions/ends/",
        "emergency": "emergency/", "new account": "accounts/client/new/",
    }  # fmt: skip
    return pages | {name: (1, f"/admin/{address}", "") for name, address in alone.items()}


@contextlib.asynccontextmanager
async def at_desk(yard: Yard, database: Database, now: datetime, words: Words) -> AsyncIterator[tuple[Open, Pages]]:
    """A server, somebody of the staff signed in there, and its pages."""
    row = await start(database, USER, 1, now)
    cookie = Tokens(KEYS, 900, timedelta(days=1)).make_cookie(USER, 1, row, now + timedelta(days=1))
    pages = await list_pages(database, Principal(USER, 1, row["id"], "staff"), now, words)
    headers = {"User-Agent": AGENT, "Cookie": f"session={cookie}"}
    async with httpx.AsyncClient(base_url=yard.serve(), headers=headers, timeout=60) as client:

        async def open_(address: str) -> None:
            answer = await client.get(address)
            if answer.status_code != 200:
                raise SystemExit(f"{address}: {answer.status_code}")

        yield open_, pages


def leave_alone() -> None:
    """Keep the collector off what was made so far, as the server does: its rounds would be measured too."""
    gc.collect()
    gc.freeze()


async def measure_pages(small: tuple[Open, Pages], large: tuple[Open, Pages], repeats: int) -> None:
    """Print how many each page tells of, there and where there is little, and how long it takes, to its last byte.

    Milliseconds, p50, p99 and the longest, of its first page and of one deep inside it; and how many times what it
    takes, at p50, where there is little, measured in turn with it.
    """
    (open_small, few), (open_large, many) = small, large
    leave_alone()
    for name, (total, *addresses) in many.items():
        told = []
        for beside, address in zip(few[name][1:], addresses, strict=True):
            if address:
                asks = [partial(open_small, beside or few[name][1]), partial(open_large, address)]
                base, taken = await measure(asks, repeats)
                told.append(f"{taken[0]:5.1f} {taken[1]:5.1f} {taken[2]:5.1f} x{taken[0] / base[0]:4.1f}")
        print(f"{name:36} {total:>9} {few[name][0]:>6}  first {'   deep '.join(told)}", flush=True)


async def find_inside(ask: Any, cursor: str) -> str:
    """A cursor some thousands of rows inside the list."""
    for _ in range(20):
        page = await ask(after=cursor, most=200)
        if not page.next:
            break
        cursor = page.next
    return cursor


async def measure_sign_ins(database: Database, staff: Principal, seconds: int, rate: int, rounds: int) -> str:
    """Sign-ins at a rate, alone and while staff list, in turn: the median and the 99th percentile of each."""
    origin = Origin(ip="198.51.100.7", device=MAKES[0][3], browser="Chrome", os="Windows", device_kind="computer")
    numbers = itertools.count(10)

    async def one(taken: list[float]) -> None:
        begun = time.perf_counter()
        await database.write(sessions.start, CLIENT, next(numbers), None, None, origin, SETTINGS, clock.now())
        taken.append((time.perf_counter() - begun) * 1000)

    async def run() -> tuple[float, float]:
        taken: list[float] = []
        begun, running = time.perf_counter(), []
        for turn in range(seconds * rate):
            await asyncio.sleep(max(0, begun + turn / rate - time.perf_counter()))
            running.append(asyncio.create_task(one(taken)))
        await asyncio.gather(*running)
        taken.sort()
        return statistics.median(taken), taken[int(len(taken) * 0.99)]

    async def look() -> None:
        while True:
            for sought in list_cases(clock.now()).values():
                await desk.list_sessions(database, staff, sought, clock.now())
                # One person who clicks quickly.
                await asyncio.sleep(0.1)

    await fold(database)
    leave_alone()
    # As in a server: what is not yet added up is added up by each list.
    folding = asyncio.create_task(Chore("counts", FOLD_SECONDS, partial(fold, database)).run())
    alone, beside = [], []
    for _ in range(rounds):
        alone.append(await run())
        looking = asyncio.create_task(look())
        beside.append(await run())
        looking.cancel()
    folding.cancel()
    told = [[statistics.median(one[place] for one in seen) for place in (0, 1)] for seen in (alone, beside)]
    slower = statistics.median(late[0] / early[0] for early, late in zip(alone, beside, strict=True))
    return (
        f"{rate} sign-ins a second: alone p50 {told[0][0]:.2f} p99 {told[0][1]:.2f} ms, while staff list "
        f"p50 {told[1][0]:.2f} p99 {told[1][1]:.2f} ms; the median x{slower:.2f}"
    )


async def measure_ending(yard: Yard, database: Database, staff: Principal, name: str, most: float) -> str:
    """Ending all that match, while a server that works on it is asked by others: how long it takes, and their times.

    Each is asked when it is due, whether or not the last was answered, and its time counts from then.
    """
    sought, now = SessionFilter(country=name), clock.now()
    total = await desk.count_sessions(database, staff, sought, now)
    tokens = Tokens(KEYS, 900, timedelta(days=1))
    asking = []
    for number in range(10, 30):
        row = await start(database, CLIENT, number, now)
        account = {"id": number, "surname": "", "name": "", "patronymic": "", "phone": ""}
        asking.append((row["id"], tokens.make_access(CLIENT, account, row["sid"], now)))
    taken: dict[str, list[float]] = {"lists": [], "names": []}
    async with httpx.AsyncClient(base_url=yard.serve(), headers={"User-Agent": AGENT}, timeout=60) as client:

        async def ask(what: str, due: float, turn: int) -> None:
            session, token = asking[turn % len(asking)]
            method, path, body = (
                ("GET", "/sessions/session-client-l/", None)
                if what == "lists"
                else ("PATCH", f"/sessions/session-client-u/{session}/", {"name": f"Name {turn}"})
            )
            answer = await client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})
            answer.raise_for_status()
            taken[what].append((time.perf_counter() - due) * 1000)

        job = await database.write(jobs.start, staff, sought, total or 0, "benchmark", Origin(), now)
        if job is None:
            raise SystemExit("not allowed")
        begun, running, turn = time.perf_counter(), [], 0
        while time.perf_counter() - begun < most:
            # A hundred a second, every fifth of them a write.
            turn, due = turn + 1, begun + turn / 100
            await asyncio.sleep(max(0, due - time.perf_counter()))
            running.append(asyncio.create_task(ask("names" if turn % 5 == 0 else "lists", due, turn)))
            if turn % 100 == 0:
                job = await database.read(jobs.get, staff, job["id"], clock.now())
                if job is None or job["finished_at"]:
                    break
        seconds = time.perf_counter() - begun
        await asyncio.gather(*running)
    told = [
        f"{what} p50 {statistics.median(times):.1f} p99 {sorted(times)[int(len(times) * 0.99)]:.1f} ms"
        for what, times in taken.items()
    ]
    ended = job["ended"] if job else 0
    return f"{ended} of {total} ended in {seconds:.1f} s ({ended / seconds:.0f}/s); meanwhile {', '.join(told)}"


async def measure_emergency(database: Database, staff: Principal, seconds: float) -> str:
    """Ending everything at once: how long that takes, and how quickly the rows go."""
    claims = Claims(CLIENT, 1 + 5 * 7919 % 1000, "client-sid-000000000005", float("inf"), 1)
    begun = time.perf_counter()
    await database.write(cutoffs.cut, staff, list(KINDS.values()), None, "drill", Origin(), clock.now())
    taken = (time.perf_counter() - begun) * 1000
    is_refused = await prove(database, claims, "", clock.microseconds()) is None
    begun, swept = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        ended = await database.write(sessions.sweep_cut, CLIENT, clock.now())
        swept += ended
        if not ended:
            break
    rate = swept / (time.perf_counter() - begun)
    return f"cut off in {taken:.1f} ms, refused: {is_refused}; {rate:.0f} rows swept a second"


def measure_size(db: Connection) -> str:
    """The size of the database."""
    if is_postgres(db):
        return str(db.scalar(text("SELECT pg_size_pretty(pg_database_size(current_database()))")))
    pages = db.scalar(text("PRAGMA page_count")) * db.scalar(text("PRAGMA page_size"))
    return f"{pages / 2**20:.0f} MB"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sessions", type=int, default=1_000_000, help="with a fifth of it accounts, three times events"
    )
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--url", help="a database to keep: filled where it is empty, measured again where it is not")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--only", default="pages,sign-ins,ending,emergency")
    parser.add_argument("--seconds", type=int, default=5, help="of each round of sign-ins")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = options.url or (stack.enter_context(postgres()) if options.postgres else None)
        options.few = stack.enter_context(postgres()) if options.postgres and "pages" in options.only else None
        yard = stack.enter_context(scratch(url))
        asyncio.run(run(yard, Size.of(options.sessions), options))


async def open_filled(yard: Yard, size: Size, now: datetime) -> Database:
    """The database, filled where it is empty."""
    database = yard.open() if yard.url.startswith("sqlite") else PostgresDatabase(yard.url, 5)
    await database.migrate()
    if await database.read(accounts.is_empty):
        begun = time.perf_counter()
        await fill(yard, size, now)
        print(f"{size.sessions} sessions filled in {time.perf_counter() - begun:.0f} s")
    return database


async def run(yard: Yard, size: Size, options: argparse.Namespace) -> None:
    """Everything that was asked for."""
    now = clock.now()
    database = await open_filled(yard, size, now)
    print(await database.scan(measure_size))
    staff = Principal(USER, 1, (await start(database, USER, 1, now))["id"], "staff")
    if "pages" in options.only:
        with scratch(options.few) as other:
            beside = await open_filled(other, Size.of(FEW), now)
            async with (
                at_desk(other, beside, now, FEW_FOUND) as small,
                at_desk(yard, database, now, MANY_FOUND) as large,
            ):
                await measure_pages(small, large, options.repeats)
            await beside.close()
    if "sign-ins" in options.only:
        print(await measure_sign_ins(database, staff, options.seconds, 200, options.rounds))
    if "ending" in options.only:
        print(await measure_ending(yard, database, staff, "DE", 90))
    if "emergency" in options.only:
        print(await measure_emergency(database, staff, 5))
    await database.close()


if __name__ == "__main__":
    main()

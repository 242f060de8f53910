"""Staff's lists against a model of them in plain Python: filters, counts, pages, on both databases."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event, func, insert, select

from models import clock, counts, cutoffs, desk, events, overview, sessions
from models.database import Database, is_postgres
from models.desk import TooWide, indexes, searches
from models.events import Cause, Type
from models.filters import AccountFilter, EventFilter, SessionFilter
from models.networks import Network
from models.origins import Origin
from models.paging import InvalidCursor, Page, Place
from models.principals import Principal
from models.schema import CLIENT, EVENTS, FACETS, KINDS, SESSION_COUNTS, SESSION_DAYS, USER, Row, fold_text
from models.settings import SessionSettings
from tests.conftest import open_database, open_loop

NOW = clock.now().replace(microsecond=0)
CHANCE = random.Random(11)
SETTINGS = SessionSettings()
MAKES = (
    ("Chrome", "Windows", "computer", "Mozilla/5.0 (Windows NT 10.0) Chrome/146"),
    ("Chrome", "Android", "phone", "Mozilla/5.0 (Linux; Android 10; K) Chrome/146 Mobile"),
    ("Safari", "iOS", "phone", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_7) Safari/604"),
    ("curl 8.14", "", "program", "curl/8.14.1"),
)
SURNAMES = ("Иванова", "Smith", "smithson", "O'Connor", "Ёлкина", "")
NAMES = ("Anna", "Вера Павловна", "")


@dataclass
class Desk:
    """A database of its own, full of sessions, and one who may see it."""

    url: str
    database: Database
    run: Callable[[Any], Any]
    staff: Principal
    rows: list[Row]
    accounts: dict[tuple[str, int], Row]
    events: list[Row]

    def list_all(self, sought: SessionFilter, most: int = 19, *, is_back: bool = False) -> list[Page]:
        """Every page of a list, from its beginning, or from its end back to it."""
        pages = [self.run(desk.list_sessions(self.database, self.staff, sought, NOW, most=most))]
        while pages[-1].next:
            pages.append(
                self.run(desk.list_sessions(self.database, self.staff, sought, NOW, after=pages[-1].next, most=most))
            )
        if not is_back:
            return pages
        back = [pages[-1]]
        while back[-1].previous:
            back.append(
                self.run(
                    desk.list_sessions(self.database, self.staff, sought, NOW, before=back[-1].previous, most=most)
                )
            )
        return back[::-1]


def make_account(db: Connection, kind: Any, number: int, **fields: Any) -> Row:
    values = {
        "surname": SURNAMES[number % len(SURNAMES)],
        "name": NAMES[number % len(NAMES)],
        "phone": f"+7913{number:07}",
        "password_hash": "",
        "confirmed_phone": number % 5 != 0,
        "disabled_at": NOW if number % 7 == 3 else None,
        "created_at": NOW - timedelta(days=100 - number),
        "updated_at": NOW,
    }
    if kind is USER:
        values["email"] = f"person{number}@example.com"
    return db.execute(insert(kind.accounts).values(values | fields).returning(*kind.accounts.c)).mappings().one()


def make_session(kind: Any, account_id: int, number: int) -> dict[str, Any]:
    browser, os, device_kind, device = CHANCE.choice(MAKES)
    created_at = NOW - timedelta(minutes=CHANCE.randrange(1, 60 * 24 * 40))
    # Many at the very same time: pages must not lose them.
    created_at = created_at if number % 3 else NOW - timedelta(days=10)
    seen_at = min(NOW, created_at + timedelta(minutes=CHANCE.randrange(60 * 24 * 20)))
    return {
        "sid": f"{kind.name}{number}",
        "account_id": account_id,
        "device": device,
        "ip": CHANCE.choice(("10.1.2.3", "10.1.9.9", "192.0.2.200", "2001:db8:1::5", "2001:db8:2::5", "")),
        "browser": browser,
        "os": os,
        "device_kind": device_kind,
        "country": CHANCE.choice(("RU", "DE", "")),
        "city": "",
        "created_at": created_at,
        "last_seen_at": seen_at,
        "refreshed_at": seen_at,
        "expires_at": NOW - timedelta(minutes=1) if number % 11 == 0 else NOW + timedelta(days=5),
    }


def fill(db: Connection) -> tuple[Principal, list[Row], dict[tuple[str, int], Row], list[Row]]:
    rows: list[Row] = []
    accounts: dict[tuple[str, int], Row] = {}
    made: list[dict[str, Any]] = []
    for kind in KINDS.values():
        ids = []
        for number in range(1, 31):
            account = make_account(db, kind, number)
            accounts[kind.name, account["id"]] = account
            ids.append(account["id"])
        values = [make_session(kind, ids[number % len(ids)], number) for number in range(1, 71)]
        db.execute(insert(kind.sessions), values)
        rows += [{**row, "kind": kind.name} for row in db.execute(select(kind.sessions)).mappings()]
    staff = make_account(db, USER, 100, surname="Staff", is_staff=True, confirmed_phone=True, disabled_at=None)
    accounts["user", staff["id"]] = staff
    started = sessions.start(db, USER, staff["id"], None, None, Origin(), SETTINGS, NOW - timedelta(minutes=5))
    assert started
    rows.append({**started.session, "kind": "user"})
    caller = Principal(USER, staff["id"], started.session["id"], "staff")
    for number in range(250):
        kind = CHANCE.choice(list(KINDS.values()))
        type_, cause = CHANCE.choice(
            [(Type.STARTED, None), (Type.STARTED, "device"), (Type.REFUSED, None), (Type.ENDED, "staff"),
             (Type.ENDED, "expired")]
        )  # fmt: skip
        at = NOW - timedelta(minutes=CHANCE.randrange(60 * 24 * 3)) if number % 4 else NOW - timedelta(hours=30)
        made.append(
            events.make(
                kind, CHANCE.randrange(1, 31), type_, at, cause=cause, session_id=CHANCE.randrange(1, 9),
                by=caller if cause == "staff" else None,
                origin=Origin(ip=CHANCE.choice(("10.1.2.3", "2001:db8:1::5"))) if number % 5 else None,
            )
        )  # fmt: skip
    events.append(db, *made)
    return caller, rows, accounts, [dict(row) for row in db.execute(select(EVENTS)).mappings()]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, make_url: Callable[[str], str]) -> Iterator[Desk]:
    """A database full of sessions; half of what is counted is added up already."""
    url = make_url(request.param)
    with open_loop() as run:
        database = open_database(url)
        CHANCE.seed(11)
        yield Desk(url, database, run, *run(database.write(fill)))
        run(database.close())


WAYS = ("narrow", "days", "many", "outside")


@pytest.fixture(params=["few", *(pytest.param(way, marks=pytest.mark.long) for way in WAYS)])
def filled(house: Desk, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Found each way: as where few match, before what came is added up; and as where many do, after it is: by one of
    several conditions, by the days of their times, by none, and by what is outside of a range."""
    if request.param != "few":
        house.run(house.database.write(counts.fold))
        monkeypatch.setattr(indexes, "FEW", 5)
    if request.param == "days":
        monkeypatch.setattr(indexes, "MANY", 30)
    if request.param == "many":
        monkeypatch.setattr(indexes, "MANY", 5)
    if request.param == "outside":
        monkeypatch.setattr(indexes, "MANY", 10)
        monkeypatch.setattr(searches, "ONE_OUTSIDE_OF", 1)
    return house


def is_sought(row: Row, account: Row, sought: SessionFilter) -> bool:
    """Whether a filter finds a session, by the plainest reading of it."""
    if row["expires_at"] <= NOW:
        return False
    for name in ("kind", "browser", "os", "device_kind", "country"):
        if getattr(sought, name) not in (None, row[name]):
            return False
    if sought.account not in (None, row["account_id"]):
        return False
    if sought.network:
        network = ip_network(str(sought.network))
        if not row["ip"] or ip_address(row["ip"]) not in network:
            return False
    times = (
        (sought.started_from, sought.started_to, row["created_at"]),
        (sought.seen_from, sought.seen_to, row["last_seen_at"]),
    )
    if any((since and at < since) or (until and at >= until) for since, until, at in times):
        return False
    if sought.idle and row["last_seen_at"] >= NOW - sought.idle:
        return False
    if sought.device and not row["device"].casefold().startswith(sought.device.casefold()):
        return False
    if sought.ids is not None and (row["kind"], row["id"]) not in sought.ids:
        return False
    return sought.q is None or begins(account, sought.q)


def begins(account: Row, q: str) -> bool:
    known = [fold_text(account["surname"]), account["phone"] or "", account.get("email") or ""]
    full = [fold_text(f"{account['name']} {account['surname']}"), fold_text(f"{account['surname']} {account['name']}")]
    return " ".join(fold_text(q).split()) in full or any(
        one.startswith(start) for one in known for start in (fold_text(q), f"+{q}")
    )


DAY = timedelta(days=1)
MIDNIGHT = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
FILTERS = [
    SessionFilter(),
    SessionFilter(kind="user"),
    SessionFilter(kind="client", sort="started"),
    SessionFilter(kind="client", account=5),
    SessionFilter(browser="Chrome", sort="-seen"),
    SessionFilter(os="", device_kind="program"),
    SessionFilter(country="DE", browser="Safari", os="iOS"),
    SessionFilter(country="", sort="seen"),
    SessionFilter(network=Network.parse("10.1.0.0/16")),
    SessionFilter(network=Network.parse("10.1.2.3"), country="RU"),
    SessionFilter(network=Network.parse("2001:db8::/32"), sort="-seen"),
    SessionFilter(network=Network.parse("0.0.0.0/0")),
    SessionFilter(network=Network.parse("10.0.0.0/8"), started_from=NOW - 20 * DAY, country="RU"),
    SessionFilter(network=Network.parse("10.0.0.0/8"), seen_from=NOW - 20 * DAY, sort="seen"),
    SessionFilter(started_from=NOW - 20 * DAY, started_to=NOW - 9 * DAY),
    SessionFilter(started_from=NOW - 10 * DAY, sort="seen", browser="Chrome"),
    SessionFilter(started_to=NOW - 10 * DAY, sort="started"),
    SessionFilter(seen_from=NOW - 5 * DAY, seen_to=NOW - 2 * DAY, sort="-seen"),
    # Some hours of a day, some days and hours of others, whole days, and no time at all.
    SessionFilter(started_from=NOW - 10 * DAY, started_to=NOW - 10 * DAY + DAY / 24),
    SessionFilter(started_from=NOW - 20 * DAY, seen_from=NOW - 12 * DAY, sort="-seen"),
    SessionFilter(started_from=NOW - 33 * DAY, started_to=NOW - 4 * DAY, seen_from=NOW - 25 * DAY, idle=DAY / 2),
    SessionFilter(started_from=MIDNIGHT - 22 * DAY, started_to=MIDNIGHT - 2 * DAY, seen_to=MIDNIGHT - DAY),
    SessionFilter(started_from=NOW - 5 * DAY, started_to=NOW - 9 * DAY, seen_from=NOW - 20 * DAY),
    # Of these it is counted what they leave out.
    SessionFilter(started_from=NOW - 38 * DAY, country="RU"),
    SessionFilter(seen_from=NOW - 36 * DAY, seen_to=NOW - DAY / 12, country="RU", sort="seen"),
    SessionFilter(idle=7 * DAY),
    SessionFilter(idle=7 * DAY, seen_to=NOW - 20 * DAY),
    SessionFilter(idle=20 * DAY, seen_to=NOW - 7 * DAY),
    SessionFilter(idle=7 * DAY, seen_from=NOW - 30 * DAY, country="RU", sort="-seen"),
    SessionFilter(q="smith"),
    SessionFilter(q="ИВАН", kind="user"),
    SessionFilter(q="Person1", idle=DAY),
    SessionFilter(q="7913000001"),
    SessionFilter(q="nobody"),
    SessionFilter(q="anna  o'connor"),
    SessionFilter(q="Smith Вера Павловна"),
    SessionFilter(device="mozilla/5.0 (IPHONE"),
    SessionFilter(device="Curl", country="RU"),
    SessionFilter(device="mozilla", started_to=NOW - 9 * DAY, sort="-seen"),
    SessionFilter(device="mozilla", seen_from=NOW - 20 * DAY, country="RU"),
    # Where an index has the day alone on which they were seen: whole days, some hours of one, up to another's.
    SessionFilter(network=Network.parse("10.0.0.0/8"), seen_from=MIDNIGHT - 12 * DAY, seen_to=MIDNIGHT - 3 * DAY),
    SessionFilter(device="mozilla", seen_from=MIDNIGHT - 9 * DAY, seen_to=MIDNIGHT - 9 * DAY + DAY / 3),
    SessionFilter(q="smith", seen_from=NOW - 9 * DAY, seen_to=NOW - 8 * DAY),
    SessionFilter(q="7913", idle=2 * DAY, sort="seen"),
    SessionFilter(ids=frozenset({("user", 3), ("client", 4), ("client", 5)})),
    SessionFilter(browser="Lynx"),
]


@pytest.mark.parametrize("sought", FILTERS)
def test_a_filter_finds_what_the_plainest_reading_of_it_does(filled: Desk, sought: SessionFilter) -> None:
    wanted = [row for row in filled.rows if is_sought(row, filled.accounts[row["kind"], row["account_id"]], sought)]
    column = "created_at" if "started" in sought.sort else "last_seen_at"
    wanted.sort(
        key=lambda row: (row[column], list(KINDS).index(row["kind"]), row["id"]), reverse=sought.sort.startswith("-")
    )
    expected = [(row["kind"], row["id"]) for row in wanted]

    pages = filled.list_all(sought)

    assert [(row["kind"], row["id"]) for page in pages for row in page.rows] == expected
    assert {page.total for page in pages} == {len(expected)}
    assert pages[0].previous is None
    back = filled.list_all(sought, is_back=True)
    assert [(row["kind"], row["id"]) for page in back for row in page.rows] == expected


def explain(db: Connection, read: Callable[[Connection], Any]) -> list[str]:
    """The plans of all that `read` asks."""
    asked = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        asked.append((statement, parameters))

    event.listen(db, "before_cursor_execute", note)
    read(db)
    event.remove(db, "before_cursor_execute", note)
    if is_postgres(db):
        # Tables this small are read from end to end wherever that is allowed.
        db.exec_driver_sql("SET enable_seqscan = off")
    how = "EXPLAIN" if is_postgres(db) else "EXPLAIN QUERY PLAN"
    plans = [
        str(row[-1]).strip()
        for statement, parameters in asked
        for row in db.exec_driver_sql(f"{how} {statement}", parameters)
    ]
    if is_postgres(db):
        db.exec_driver_sql("RESET enable_seqscan")
    return plans


LARGE = "(user_sessions|client_sessions|events|users|clients)"
UNINDEXED = re.compile(rf"SCAN {LARGE}( AS \w+)?$|Seq Scan on {LARGE}\b")


@pytest.mark.parametrize("sought", FILTERS)
def test_every_filter_of_sessions_goes_by_an_index(filled: Desk, sought: SessionFilter) -> None:
    def read(db: Connection) -> None:
        for kind in sought.kinds:
            found = desk.sessions._read_sessions(db, filled.staff, kind, sought, NOW, sought.order(Place()), 50)
            assert found
            desk.sessions._show_sessions(db, filled.staff, found[1], NOW)

    plans = filled.run(filled.database.scan(explain, read))
    assert plans
    assert not [line for line in plans if UNINDEXED.search(line)]


def test_a_page_s_rows_have_their_accounts_and_nothing_that_signs_in(filled: Desk) -> None:
    row = filled.list_all(SessionFilter(kind="user"))[0].rows[1]
    account = filled.accounts["user", row["account_id"]]
    assert (row["account_surname"], row["account_email"]) == (account["surname"], account["email"])
    assert "account_password_hash" not in row


def test_a_search_that_finds_too_many_accounts_is_refused(filled: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "MOST_ACCOUNTS", 3)
    with pytest.raises(TooWide):
        filled.list_all(SessionFilter(q="smith"))


@pytest.mark.parametrize("sought", [SessionFilter(), SessionFilter(kind="user", q="smith")])
def test_a_page_that_nothing_is_left_of_tells_how_many_there_are(filled: Desk, sought: SessionFilter) -> None:
    total = filled.list_all(sought)[0].total
    page = filled.run(desk.list_sessions(filled.database, filled.staff, sought, NOW, after="user.0~n0"))
    assert total
    assert page == Page([], total, None, None)


CURSORS = ("x", "user.1", "user.1~n", "user.x~n5", "nobody.1~n5", "user.1~tabc", f"user.1~n{'9' * 30}", "user.1~t\0")


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_cursor_that_names_no_place_is_refused(filled: Desk, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        filled.run(desk.list_sessions(filled.database, filled.staff, SessionFilter(), NOW, after=cursor))


def test_a_filter_is_kept_as_text_and_read_again() -> None:
    for sought in FILTERS:
        assert SessionFilter.load(sought.dump()) == sought


def test_choices_are_the_values_of_live_sessions_with_their_counts(filled: Desk) -> None:
    found = filled.run(desk.list_choices(filled.database, filled.staff, NOW))
    live = [row for row in filled.rows if row["expires_at"] > NOW]
    for name in ("browser", "os", "device_kind", "country"):
        expected = {value: sum(row[name] == value for row in live) for value in {row[name] for row in live}}
        assert dict(found[name]) == expected
        assert [count for _, count in found[name]] == sorted(expected.values(), reverse=True)


ACCOUNTS = [
    AccountFilter(sort=sort, q=q, state=state, role=role)  # type: ignore[arg-type]
    for sort in ("-created", "surname")
    for q, state, role in (
        (None, None, None), ("smi", None, None), ("person2", "active", None), ("+79130000", None, None),
        (None, "active", None), (None, "unconfirmed", None), (None, "disabled", None), (None, None, "staff"),
        (None, None, "viewer"), ("ёл", "disabled", None), ("иванова  ANNA", None, None),
        ("вера павловна Ёлкина", None, None), ("вера Ёлкина", None, None),
    )
]  # fmt: skip


def find_accounts(filled: Desk, name: str, sought: AccountFilter) -> list[int]:
    rows = [account for (kind, _), account in filled.accounts.items() if kind == name]
    if sought.q:
        rows = [row for row in rows if begins(row, sought.q)]
    if sought.role:
        rows = [row for row in rows if row.get(f"is_{sought.role}")]
    if sought.state:
        confirmed = ("confirmed_email", "confirmed_phone", "confirmed_by_staff_at")
        states = {
            "disabled": lambda row: row["disabled_at"] is not None,
            "unconfirmed": lambda row: not row["disabled_at"] and not any(row.get(one) for one in confirmed),
            "active": lambda row: not row["disabled_at"] and any(row.get(one) for one in confirmed),
        }
        rows = [row for row in rows if states[sought.state](row)]
    key = (lambda row: (row["surname_key"], row["id"])) if sought.sort == "surname" else (lambda row: row["id"])
    return [row["id"] for row in sorted(rows, key=key, reverse=sought.sort == "-created")]


@pytest.mark.parametrize("sought", ACCOUNTS, ids=str)
@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_accounts_are_found_and_paged(filled: Desk, kind: Any, sought: AccountFilter) -> None:
    expected = find_accounts(filled, kind.name, sought)

    def read(**place: Any) -> Page:
        page: Page = filled.run(desk.list_accounts(filled.database, filled.staff, kind, sought, NOW, most=9, **place))
        assert page.total == len(expected)
        return page

    pages = [read()]
    while pages[-1].next:
        pages.append(read(after=pages[-1].next))
    assert [row["id"] for page in pages for row in page.rows] == expected
    back = [pages[-1]]
    while back[-1].previous:
        back.append(read(before=back[-1].previous))
    assert [row["id"] for page in reversed(back) for row in page.rows] == expected


def test_an_account_has_the_number_of_its_live_sessions(filled: Desk) -> None:
    row = filled.run(desk.get_account(filled.database, filled.staff, CLIENT, 5, NOW))
    live = [one for one in filled.rows if (one["kind"], one["account_id"]) == ("client", 5) and one["expires_at"] > NOW]
    assert row["live"] == len(live) > 0
    assert "password_hash" not in row
    assert filled.run(desk.get_account(filled.database, filled.staff, CLIENT, 10**9, NOW)) is None


EVENT_FILTERS = [
    EventFilter(),
    EventFilter(type="started"),
    EventFilter(type="started", cause="device"),
    EventFilter(cause="staff"),
    EventFilter(kind="client", type="refused"),
    EventFilter(kind="user", account=4),
    EventFilter(kind="user", account=4, session=3),
    EventFilter(by_kind="user", by=31),
    EventFilter(by_kind="client", by=31),
    EventFilter(by_kind="user", since=NOW - DAY),
    EventFilter(network=Network.parse("10.0.0.0/8")),
    EventFilter(network=Network.parse("2001:db8::/32"), type="ended"),
    EventFilter(since=NOW - timedelta(minutes=90), until=NOW - timedelta(minutes=7)),
    EventFilter(since=NOW - timedelta(hours=40), until=NOW - timedelta(hours=20), type="ended", kind="user"),
    EventFilter(until=NOW - timedelta(hours=30)),
    EventFilter(since=NOW - timedelta(hours=30), cause="expired"),
    EventFilter(type="never"),
]


def find_events(filled: Desk, sought: EventFilter) -> list[int]:
    pairs = {"type": "type", "cause": "cause", "kind": "kind", "account": "account_id", "session": "session_id",
             "by_kind": "by_kind", "by": "by_id"}  # fmt: skip
    rows = [
        row
        for row in filled.events
        if all(getattr(sought, name) in (None, row[column]) for name, column in pairs.items())
        and (sought.since is None or row["at"] >= sought.since)
        and (sought.until is None or row["at"] < sought.until)
        and (sought.network is None or (row["ip"] and ip_address(row["ip"]) in ip_network(str(sought.network))))
    ]
    return [row["id"] for row in sorted(rows, key=lambda row: (row["at"], row["id"]), reverse=True)]


@pytest.mark.parametrize("sought", EVENT_FILTERS)
def test_events_are_found_paged_and_streamed(filled: Desk, sought: EventFilter) -> None:
    expected = find_events(filled, sought)

    def read(**place: Any) -> Page:
        page: Page = filled.run(desk.list_events(filled.database, filled.staff, sought, NOW, most=50, **place))
        assert page.total == len(expected)
        return page

    pages = [read()]
    while pages[-1].next:
        pages.append(read(after=pages[-1].next))
    assert [row["id"] for page in pages for row in page.rows] == expected
    back = [pages[-1]]
    while back[-1].previous:
        back.append(read(before=back[-1].previous))
    assert [row["id"] for page in reversed(back) for row in page.rows] == expected

    async def stream() -> list[list[Row]]:
        return [rows async for rows in desk.stream_events(filled.database, filled.staff, sought, NOW, 30)]

    batches = filled.run(stream())
    assert [row["id"] for rows in batches for row in rows] == expected
    assert all(len(rows) <= 30 for rows in batches)


@pytest.mark.parametrize("sought", EVENT_FILTERS)
def test_every_filter_of_events_goes_by_an_index(filled: Desk, sought: EventFilter) -> None:
    def read(db: Connection) -> None:
        desk.events._read_events(db, filled.staff, sought, NOW, Place(), 50)

    plans = filled.run(filled.database.scan(explain, read))
    assert plans
    assert not [line for line in plans if UNINDEXED.search(line)]


def test_an_event_tells_who_did_it_to_whom(filled: Desk) -> None:
    page = filled.run(desk.list_events(filled.database, filled.staff, EventFilter(cause="staff"), NOW))
    row = page.rows[0]
    account = filled.accounts[row["kind"], row["account_id"]]
    named = " ".join(filter(None, (account["name"], account["surname"])))
    assert row["by_label"] == f"{NAMES[100 % len(NAMES)]} Staff"
    assert row["account_label"] == (named or account.get("email") or account["phone"])


def test_the_overview_counts_what_is_there(filled: Desk) -> None:
    since = NOW - timedelta(hours=20, minutes=13)
    found = filled.run(overview.read(filled.database, filled.staff, since, NOW))
    today = [row for row in filled.events if row["at"] >= since]
    live = [row for row in filled.rows if row["expires_at"] > NOW]
    assert found.live == {name: sum(row["kind"] == name for row in live) for name in KINDS}
    assert found.accounts == {name: sum(kind == name for kind, _ in filled.accounts) for name in KINDS}
    assert found.started == sum(row["type"] == "started" for row in today)
    assert found.refused == sum(row["type"] == "refused" for row in today)
    assert found.new_devices == sum(row["cause"] == "device" for row in today)
    ended = [row["cause"] for row in today if row["type"] == "ended"]
    assert found.ended == {cause: ended.count(cause) for cause in set(ended)}


@pytest.mark.parametrize("minutes", [0, -5 * 60, 14 * 60, 5 * 60 + 30, -(3 * 60 + 30)])
@pytest.mark.parametrize("span", overview.SPANS)
def test_series_count_what_happened(filled: Desk, span: overview.Span, minutes: int) -> None:
    ahead = timedelta(minutes=minutes)
    points = filled.run(overview.read_series(filled.database, filled.staff, span, NOW, ahead))
    number, hours = overview.SPANS[span]
    assert len(points) == number
    step = timedelta(hours=hours)
    assert points[-1].at <= NOW < points[-1].at + step
    local = points[-1].at + ahead
    assert local.hour % hours == 0
    assert local.minute == minutes % 60
    for point in points:
        inside = [row["type"] for row in filled.events if point.at <= row["at"] < point.at + step]
        assert [point.started, point.ended, point.refused] == [
            inside.count(type_) for type_ in ("started", "ended", "refused")
        ]


@pytest.mark.parametrize("role", ["", "viewer"])
def test_whoever_has_no_such_role_sees_nothing(filled: Desk, role: Any) -> None:
    stranger = replace(filled.staff, account_id=1, session_id=1, role=role)
    database = filled.database
    asked: list[Any] = [
        desk.list_sessions(database, stranger, SessionFilter(), NOW),
        desk.count_sessions(database, stranger, SessionFilter(browser="Chrome"), NOW),
        desk.list_choices(database, stranger, NOW),
        desk.list_accounts(database, stranger, USER, AccountFilter(), NOW),
        desk.list_accounts(database, stranger, USER, AccountFilter(state="active"), NOW),
        desk.get_account(database, stranger, USER, 1, NOW),
        desk.list_events(database, stranger, EventFilter(), NOW),
        desk.list_events(database, stranger, EventFilter(by_kind="user", by=31), NOW),
        overview.read(database, stranger, NOW - DAY, NOW),
        overview.read_series(database, stranger, "day", NOW),
        database.read(cutoffs.count_waiting, stranger, NOW),
    ]
    assert [filled.run(one) for one in asked] == [None] * len(asked)

    async def stream() -> list[Any]:
        return [rows async for rows in desk.stream_events(database, stranger, EventFilter(), NOW)]

    with pytest.raises(desk.NoLongerStaff):
        filled.run(stream())


def read_counts(db: Connection) -> list[dict[tuple[Any, ...], int]]:
    """What is kept, added up: of sessions by make and by day, and of events."""
    read = []
    for counted in (counts.sessions_by_make(), counts.sessions_by_day(), counts.events_by_hour(db, 0, 2**62)):
        keys = [column for column in counted.c if column.name != "count"]
        found = db.execute(select(*keys, func.sum(counted.c.count)).group_by(*keys))
        read.append({tuple(key): int(count) for *key, count in found if count})
    return read


def count_rows(db: Connection) -> list[dict[tuple[Any, ...], int]]:
    """The same, of the rows."""
    makes, days, of_events = Counter[tuple[Any, ...]](), Counter[tuple[Any, ...]](), Counter[tuple[Any, ...]]()
    for kind in KINDS.values():
        for row in db.execute(select(kind.sessions)).mappings():
            makes[kind.name, *(row[name] for name in FACETS)] += 1
            started_on, seen_on = ((row[name] - clock.EPOCH).days for name in ("created_at", "last_seen_at"))
            assert row["seen_on"] == seen_on
            days[kind.name, started_on, seen_on] += 1
    for row in db.execute(select(EVENTS)).mappings():
        hour = clock.to_microseconds(row["at"]) // counts.HOUR * counts.HOUR
        of_events[hour, row["type"], row["cause"] or "", row["kind"] or ""] += 1
    return [dict(counted) for counted in (makes, days, of_events)]


def remove_account(db: Connection, account_id: int) -> None:
    """Its sessions go with it."""
    db.execute(delete(CLIENT.accounts).where(CLIENT.accounts.c.id == account_id))


def test_counts_equal_the_rows_after_everything(make_url: Callable[[str], str], house: Desk) -> None:
    url = make_url(house.url.partition(":")[0])
    with open_loop() as run:
        database = open_database(url)
        CHANCE.seed(5)
        staff, rows, _, _ = run(database.write(fill))

        def check() -> None:
            assert run(database.read(read_counts)) == run(database.read(count_rows))

        check()
        ended = [row["id"] for row in rows if row["kind"] == "client"][:9]
        seen = {row["id"]: NOW + number * DAY / 2 for number, row in enumerate(rows[:4]) if row["kind"] == "user"}
        origin = Origin(ip="10.9.9.9")
        for step in (
            lambda: database.write(counts.fold),
            lambda: database.write(sessions.sweep, USER, NOW, 5),
            lambda: database.write(sessions.see, USER, seen, SETTINGS, NOW),
            lambda: database.write(sessions.end, staff, CLIENT, ended[0], origin, NOW),
            lambda: database.write(sessions.end_account, CLIENT, 4, Cause.DISABLED, NOW),
            lambda: database.write(remove_account, 9),
            lambda: database.write(counts.forget_events, NOW - timedelta(hours=30), 50),
            lambda: database.write(counts.fold),
            lambda: database.write(cutoffs.cut, staff, [CLIENT], NOW - 10 * DAY, "drill", origin, NOW),
            lambda: database.write(sessions.sweep_cut, CLIENT, NOW),
            lambda: database.write(counts.forget_events, NOW - timedelta(hours=2), 500),
            lambda: database.write(counts.fold),
            lambda: database.write(counts.recount_events),
            lambda: database.write(counts.recount_sessions),
        ):
            run(step())
            check()
        run(database.close())


LONG_AGO = NOW - 300 * DAY


def test_of_makes_and_days_that_no_session_is_of_any_more_no_count_is_kept(house: Desk) -> None:
    once = {**make_session(CLIENT, 1, 1000), "browser": "Once 1.0", "created_at": LONG_AGO}

    def list_makes(db: Connection) -> Sequence[int]:
        return db.scalars(select(SESSION_COUNTS.c.count).where(SESSION_COUNTS.c.browser == "Once 1.0")).all()

    def list_days(db: Connection) -> Sequence[int]:
        day = (LONG_AGO - clock.EPOCH).days
        return db.scalars(select(SESSION_DAYS.c.count).where(SESSION_DAYS.c.started_on == day)).all()

    house.run(house.database.write(lambda db: db.execute(insert(CLIENT.sessions).values(once))))
    house.run(house.database.write(counts.fold))
    assert [house.run(house.database.read(list_kept)) for list_kept in (list_makes, list_days)] == [[1], [1]]
    gone = delete(CLIENT.sessions).where(CLIENT.sessions.c.browser == "Once 1.0")
    house.run(house.database.write(lambda db: db.execute(gone)))
    house.run(house.database.write(counts.fold))
    house.run(house.database.write(counts.forget_empty))
    assert [house.run(house.database.read(list_kept)) for list_kept in (list_makes, list_days)] == [[], []]

"""Sessions from their start to their one end, on both databases and with clocks that go wrong."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError

from models import accounts, clock, codes, cutoffs, known_devices, principals, restores, sessions
from models.accounts import AccountChange, ContactTaken
from models.activity import MOST_IN_A_BATCH, Activity
from models.database import Database, DatabaseUnavailable
from models.events import Cause
from models.keys import Key, KeySet
from models.origins import Origin
from models.principals import Principal
from models.schema import CLIENT, CUTOFFS, EVENTS, KINDS, KNOWN_DEVICES, USER, Kind, Row
from models.sessions import GRACE, MOST_REFRESHES, Started
from models.settings import ClientLimits, Limits, SessionSettings, StaffLimits, UserLimits
from models.tokens import Claims
from tests.conftest import open_database, open_loop, wait_until

HASH = "no password has this hash"
ORIGIN = Origin(ip="192.0.2.7", device="tests/1")
SETTINGS = SessionSettings()
# Short lives, different for each: idle, absolute.
SHORT = SessionSettings(
    user=UserLimits(idle_minutes=30, absolute_hours=2),
    client=ClientLimits(idle_minutes=40, absolute_hours=3),
    staff=StaffLimits(idle_minutes=10, absolute_hours=1),
    seen_seconds=60,
)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
NOW = clock.now()
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Store:
    """A database, opened twice as two workers would."""

    database: Database
    second: Database
    run: Callable[[Any], Any]

    def read(self, query: Any, *args: Any) -> Any:
        """What a query reads."""
        return self.run(self.database.read(query, *args))

    def write(self, query: Any, *args: Any, **more: Any) -> Any:
        """What a query gives once it has written."""
        return self.run(self.database.write(query, *args, **more))

    def at_once(self, *queries: tuple[Any, ...]) -> list[Any]:
        """What each of the queries gives or raises, all at once, every second one in the other worker."""

        async def gather() -> list[Any]:
            both = itertools.cycle((self.database, self.second))
            writes = [database.write(*query) for database, query in zip(both, queries, strict=False)]
            return await asyncio.gather(*writes, return_exceptions=True)

        given: list[Any] = self.run(gather())
        return given


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, make_url: Callable[[str], str]) -> Iterator[Store]:
    """Each database, without a server."""
    with open_store(make_url(request.param)) as opened:
        yield opened


@contextmanager
def open_store(url: str) -> Iterator[Store]:
    """The database at `url`, opened twice, and closed."""
    with open_loop() as run:
        opened = Store(open_database(url), open_database(url), run)
        yield opened
        run(opened.database.close())
        run(opened.second.close())


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Either kind of account."""
    return KINDS[request.param]


@pytest.fixture
def account(store: Store, kind: Kind) -> Row:
    """A confirmed account."""
    return add(store, kind)


def add(store: Store, kind: Kind, **fields: Any) -> Row:
    """A new account, confirmed."""
    made: Row = store.write(accounts.create, kind, {"confirmed_by_staff_at": NOW, **fields}, HASH, None, NOW)
    return made


def start(
    store: Store,
    kind: Kind,
    account: Row,
    at: datetime = NOW,
    settings: SessionSettings = SETTINGS,
    device_id: str | None = None,
) -> Started:
    """A new session of an account."""
    started: Started = store.write(sessions.start, kind, account["id"], HASH, device_id, ORIGIN, settings, at)
    return started


def principal_of(started: Started, *, is_staff: bool = False) -> Principal:
    """Whoever asks from a session."""
    return Principal(started.kind, started.account["id"], started.session["id"], "staff" if is_staff else "")


def claims_of(started: Started, generation: int = 1) -> Claims:
    """What a session's tokens say."""
    return Claims(started.kind, started.account["id"], started.session["sid"], float("inf"), generation)


def get_live(db: Connection, kind: Kind, account: Row) -> list[Row]:
    """The rows of an account's sessions, oldest first."""
    table = kind.sessions
    mine = select(table).where(table.c.account_id == account["id"]).order_by(table.c.id)
    return list(db.execute(mine).mappings())


def get_ends(db: Connection, kind: Kind, account: Row) -> list[tuple[int, str]]:
    """Which sessions of an account ended and why, in the order that they did."""
    columns = EVENTS.c
    mine = (columns.kind == kind.name) & (columns.account_id == account["id"]) & (columns.type == "ended")
    found = db.execute(select(columns.session_id, columns.cause).where(mine).order_by(columns.id))
    return [(row.session_id, row.cause) for row in found]


def ids_of(*rows: Started) -> list[int]:
    """The ids of sessions that were started."""
    return [row.session["id"] for row in rows]


def live_ids(store: Store, kind: Kind, account: Row) -> list[int]:
    """The ids of an account's sessions, oldest first."""
    return [row["id"] for row in store.read(get_live, kind, account)]


# Starting.


def test_past_the_cap_the_one_seen_longest_ago_ends(store: Store, kind: Kind, account: Row) -> None:
    settings = SessionSettings(most=3)
    a, b, c = (start(store, kind, account, NOW + number * SECOND, settings) for number in range(3))
    store.write(sessions.see, kind, {a.session["id"]: NOW + MINUTE}, settings, NOW + MINUTE)

    d = start(store, kind, account, NOW + 2 * MINUTE, settings)

    assert live_ids(store, kind, account) == ids_of(a, c, d)
    assert store.read(get_ends, kind, account) == [(b.session["id"], "cap")]


def test_a_cap_that_was_lowered_ends_as_many_as_are_too_many(store: Store, kind: Kind, account: Row) -> None:
    old = [start(store, kind, account, NOW + number * SECOND) for number in range(5)]

    new = start(store, kind, account, NOW + MINUTE, SessionSettings(most=2))

    assert live_ids(store, kind, account) == ids_of(old[4], new)
    assert sorted(store.read(get_ends, kind, account)) == [(one, "cap") for one in ids_of(*old[:4])]


def test_whoever_signs_in_after_an_emergency_is_let_in_though_a_clock_was_ahead(
    store: Store, kind: Kind, account: Row
) -> None:
    staff = start(store, USER, add(store, USER, is_staff=True))
    ahead = start(store, kind, account, NOW + HOUR)
    at = clock.to_microseconds(NOW + MINUTE)

    def is_let_in(started: Started) -> bool:
        return store.run(principals.prove(store.database, claims_of(started), "", at)) is not None

    try:
        assert store.write(cutoffs.cut, principal_of(staff, is_staff=True), [kind], None, None, ORIGIN, NOW)
        started = start(store, kind, account)
        assert (is_let_in(ahead), is_let_in(started)) == (False, True)

        # It is ended as any other: by a second emergency, and in a database that was restored.
        staff = start(store, USER, add(store, USER, is_staff=True))
        assert store.write(cutoffs.cut, principal_of(staff, is_staff=True), [kind], None, None, ORIGIN, NOW)
        again = start(store, kind, account)
        assert (is_let_in(started), is_let_in(again)) == (False, True)
        while store.write(restores.end_some, NOW):
            pass
        assert not is_let_in(again)
    finally:
        store.write(cut, kind, clock.EPOCH)


def test_nobody_is_seen_before_he_signed_in_whatever_the_clock_says(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account, NOW + HOUR)

    # The clock was set right.
    refreshed = store.write(sessions.refresh, claims_of(started), ORIGIN, SETTINGS, NOW)

    assert refreshed.session["last_seen_at"] == refreshed.session["created_at"] == NOW + HOUR


def test_the_session_that_starts_is_never_the_one_too_many(store: Store, kind: Kind, account: Row) -> None:
    old = start(store, kind, account)

    # The clock was set back: the new one looks as if it had been seen longest ago.
    new = start(store, kind, account, NOW - HOUR, SessionSettings(most=1))

    assert live_ids(store, kind, account) == ids_of(new)
    assert store.read(get_ends, kind, account) == [(old.session["id"], "cap")]


def test_the_cap_counts_one_account_s_sessions_alone(store: Store, kind: Kind, account: Row) -> None:
    other = add(store, kind)
    theirs = [start(store, kind, other, NOW - HOUR) for _ in range(3)]

    mine = [start(store, kind, account, NOW, SessionSettings(most=2)) for _ in range(2)]

    assert (live_ids(store, kind, account), live_ids(store, kind, other)) == (ids_of(*mine), ids_of(*theirs))


def test_many_who_sign_in_at_once_stay_within_the_cap(store: Store, kind: Kind, account: Row) -> None:
    settings = SessionSettings(most=3)
    query = (sessions.start, kind, account["id"], HASH, None, ORIGIN, settings, NOW)

    started = store.at_once(*[query] * 12)

    live = live_ids(store, kind, account)
    assert len(live) == 3
    assert sorted([*live, *(one for one, _ in store.read(get_ends, kind, account))]) == sorted(ids_of(*started))


def test_signing_in_again_on_a_device_replaces_its_session(store: Store, kind: Kind, account: Row) -> None:
    other = add(store, kind)
    first = start(store, kind, account, device_id="phone")
    tablet = start(store, kind, account, device_id="tablet")
    unnamed = start(store, kind, account)
    theirs = start(store, kind, other, device_id="phone")

    second = start(store, kind, account, device_id="phone")

    assert live_ids(store, kind, account) == ids_of(tablet, unnamed, second)
    assert live_ids(store, kind, other) == ids_of(theirs)
    assert store.read(get_ends, kind, account) == [(first.session["id"], "replaced")]
    assert second.session["sid"] != first.session["sid"]


def test_of_many_who_sign_in_on_one_device_at_once_one_session_stays(store: Store, kind: Kind, account: Row) -> None:
    started = store.at_once(*[(sessions.start, kind, account["id"], HASH, "phone", ORIGIN, SETTINGS, NOW)] * 8)

    assert not [one for one in started if not isinstance(one, Started)]
    (live,) = live_ids(store, kind, account)
    assert live in ids_of(*started)
    assert len(store.read(get_ends, kind, account)) == 7


@pytest.mark.parametrize("what", ["its password was changed", "it was disabled", "it is gone"])
def test_none_starts_where_meanwhile(store: Store, kind: Kind, account: Row, what: str) -> None:
    table, mine = kind.accounts, kind.accounts.c.id == account["id"]
    happened = {
        "its password was changed": update(table).where(mine).values(password_hash="another"),
        "it was disabled": update(table).where(mine).values(disabled_at=NOW),
        "it is gone": delete(table).where(mine),
    }[what]
    store.write(lambda db: db.execute(happened) and None)
    before = store.read(count_events)

    assert start(store, kind, account) is None

    assert live_ids(store, kind, account) == []
    assert store.read(count_events) == before


def count_events(db: Connection) -> int:
    """How many events there are."""
    return db.scalar(select(func.count()).select_from(EVENTS)) or 0


def test_ids_and_names_of_sessions_are_never_used_again(store: Store, kind: Kind, account: Row) -> None:
    seen_ids, seen_names = set(), set()
    for _ in range(3):
        started = start(store, kind, account)
        assert started.session["id"] not in seen_ids
        assert started.session["sid"] not in seen_names
        # 128 random bits.
        assert len(started.session["sid"]) == 22
        seen_ids.add(started.session["id"])
        seen_names.add(started.session["sid"])
        store.write(sessions.end_one, kind, started.session["id"], Cause.OWNER, NOW)


# Expiring.

LIVES = [
    pytest.param(USER, False, SHORT.user, id="user"),
    pytest.param(CLIENT, False, SHORT.client, id="client"),
    pytest.param(USER, True, SHORT.staff, id="staff"),
]


def is_good(store: Store, started: Started, is_staff: bool, at: datetime) -> bool:
    """Whether a session is accepted at a time: by all who ask of it, or by none."""
    caller, kind = principal_of(started, is_staff=is_staff), started.kind
    now = clock.to_microseconds(at)
    proved = store.run(principals.prove(store.database, claims_of(started), "", now))
    by_device = Claims(kind, started.account["id"], None, float("inf"))
    answers = {
        proved is not None,
        store.run(principals.prove(store.database, by_device, ORIGIN.device, now)) is not None,
        store.run(sessions.list_own(store.database, claims_of(started), "", now)) is not None,
        bool(store.read(sessions.list_visible, caller, kind, started.session["id"], at, None, 0)),
        store.read(sessions.get_visible, caller, kind, started.session["id"], at) is not None,
    }
    assert len(answers) == 1, "they disagree"
    if proved:
        assert proved[0] == caller
        return True
    assert store.write(sessions.name, caller, kind, started.session["id"], "x", ORIGIN, at) is None
    assert store.write(sessions.end, caller, kind, started.session["id"], ORIGIN, at) is False
    assert store.write(sessions.end_others, caller, ORIGIN, at) is None
    assert store.write(sessions.refresh, claims_of(started), ORIGIN, SHORT, at) is None
    return False


def add_for(store: Store, kind: Kind, is_staff: bool) -> Row:
    """An account; where it says so, one of the staff."""
    return add(store, kind, **({"is_staff": True} if is_staff else {}))


@pytest.mark.parametrize(("kind", "is_staff", "limits"), LIVES)
def test_without_use_it_is_refused_at_once_and_swept_with_one_event(
    store: Store, kind: Kind, is_staff: bool, limits: Limits
) -> None:
    account = add_for(store, kind, is_staff)
    started = start(store, kind, account, NOW, SHORT)

    assert is_good(store, started, is_staff, NOW + limits.idle - MICROSECOND)
    assert not is_good(store, started, is_staff, NOW + limits.idle)

    assert store.read(get_ends, kind, account) == []
    sweep(store, NOW + limits.idle)
    sweep(store, NOW + limits.idle)
    assert live_ids(store, kind, account) == []
    assert store.read(get_ends, kind, account) == [(started.session["id"], "expired")]


@pytest.mark.parametrize(("kind", "is_staff", "limits"), LIVES)
def test_with_use_it_lives_on_but_not_past_its_longest_life(
    store: Store, kind: Kind, is_staff: bool, limits: Limits
) -> None:
    account = add_for(store, kind, is_staff)
    started = start(store, kind, account, NOW, SHORT)
    at, end = NOW, NOW + limits.absolute

    while at + limits.idle < end:
        at += limits.idle - SECOND
        assert is_good(store, started, is_staff, at)
        store.write(sessions.see, kind, {started.session["id"]: at}, SHORT, at)

    assert store.read(get_live, kind, account)[0]["expires_at"] == end
    assert is_good(store, started, is_staff, end - MICROSECOND)
    assert not is_good(store, started, is_staff, end)


@pytest.mark.parametrize(("kind", "is_staff", "limits"), LIVES)
def test_refreshing_is_use_and_goes_no_further(store: Store, kind: Kind, is_staff: bool, limits: Limits) -> None:
    account = add_for(store, kind, is_staff)
    started = start(store, kind, account, NOW, SHORT)
    end, generation = NOW + limits.absolute, 1
    assert started.ends_at == end

    at = NOW
    while at + limits.idle < end:
        at += limits.idle - SECOND
        refreshed = store.write(sessions.refresh, claims_of(started, generation), ORIGIN, SHORT, at)
        generation += 1
        assert refreshed.ends_at == end
        assert refreshed.session["expires_at"] == min(at + limits.idle, end)

    assert not is_good(store, started, is_staff, end)


def test_a_life_that_is_shorter_than_its_idle_time_is_as_long_as_it_is(store: Store) -> None:
    settings = SessionSettings(client=ClientLimits(idle_minutes=600, absolute_hours=1))

    started = start(store, CLIENT, add(store, CLIENT), NOW, settings)

    assert started.session["expires_at"] == NOW + HOUR


def sweep(store: Store, at: datetime, most: int = 500) -> int:
    """Sweep as the server does; how many ended."""
    return sum(store.write(sessions.sweep, kind, at, most) for kind in KINDS.values())


def test_sweeping_ends_what_has_expired_and_nothing_else(store: Store, kind: Kind, account: Row) -> None:
    sweep(store, NOW)
    old = [start(store, kind, account, NOW - HOUR, SHORT) for _ in range(5)]
    live = start(store, kind, account, NOW, SHORT)

    swept = [store.write(sessions.sweep, kind, NOW, 2) for _ in range(4)]

    assert swept == [2, 2, 1, 0]
    assert live_ids(store, kind, account) == ids_of(live)
    assert sorted(store.read(get_ends, kind, account)) == [(one, "expired") for one in ids_of(*old)]


def test_two_who_sweep_at_once_write_one_event_for_each(store: Store, kind: Kind, account: Row) -> None:
    old = [start(store, kind, account, NOW - HOUR, SHORT) for _ in range(4)]

    store.at_once(*[(sessions.sweep, kind, NOW, 500)] * 6)

    assert live_ids(store, kind, account) == []
    assert sorted(store.read(get_ends, kind, account)) == [(one, "expired") for one in ids_of(*old)]


# Being seen.


def test_what_has_expired_is_not_woken_by_having_been_seen_before(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account, NOW, SHORT)
    gone = started.session["expires_at"]

    # Seen in time, but the batch is written after its end: an answer without it may have been given.
    store.write(sessions.see, kind, {started.session["id"]: gone - SECOND}, SHORT, gone)

    assert store.read(get_live, kind, account)[0]["expires_at"] == gone


def test_having_been_seen_earlier_counts_for_nothing(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account, NOW, SHORT)
    (before,) = store.read(get_live, kind, account)

    store.write(sessions.see, kind, {started.session["id"]: NOW - MINUTE}, SHORT, NOW)

    assert store.read(get_live, kind, account) == [before]


async def is_anybody_waiting(url: str) -> bool:
    """Whether somebody waits for what another transaction holds."""
    other = open_database(url)
    waiting = await other.read(lambda db: db.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
    await other.close()
    return bool(waiting)


@pytest.mark.postgresql
def test_whoever_s_session_ends_while_it_waits_changes_nothing(make_url: Callable[[str], str]) -> None:
    # On SQLite nobody else writes meanwhile.
    url = make_url("postgresql")
    with ThreadPoolExecutor(2) as aside, open_store(url) as store:
        mine = add(store, USER)
        owner, thief = (principal_of(start(store, USER, mine)) for _ in range(2))
        changing: list[Future[bool]] = []

        async def change() -> bool:
            other = open_database(url)
            asked = (thief, mine["password_hash"], "another hash", Origin(), NOW)
            is_changed = await other.write(accounts.change_password, *asked)
            await other.close()
            return is_changed

        def end(db: Connection) -> None:
            assert sessions.end(db, owner, USER, thief.session_id, Origin(), NOW)
            changing.append(aside.submit(asyncio.run, change()))
            wait_until(lambda: aside.submit(asyncio.run, is_anybody_waiting(url)).result())

        store.write(end)
        assert not changing[0].result()
        left = [row["id"] for row in store.read(get_live, USER, mine)]

    assert left == [owner.session_id]


@pytest.mark.postgresql
def test_whoever_is_made_staff_while_it_is_written_who_was_seen_has_the_limits_of_staff(
    make_url: Callable[[str], str],
) -> None:
    # On SQLite nobody else writes meanwhile.
    url = make_url("postgresql")

    async def make_staff() -> None:
        change = AccountChange(staff=True)
        other = open_database(url)
        await other.write(accounts.change_by_staff, None, USER, mine["id"], change, None, None, SETTINGS, NOW)
        await other.close()

    class Meanwhile(SessionSettings):
        def limits(self, kind: Kind, is_staff: bool) -> Limits:
            making.append(aside.submit(asyncio.run, make_staff()))
            wait_until(lambda: aside.submit(asyncio.run, is_anybody_waiting(url)).result())
            return super().limits(kind, is_staff)

    making: list[Future[None]] = []
    with ThreadPoolExecutor(2) as aside, open_store(url) as store:
        mine = add(store, USER)
        seen = start(store, USER, mine).session["id"]
        ends = []
        for after, settings in ((MINUTE, Meanwhile()), (2 * MINUTE, SETTINGS)):
            store.write(sessions.see, USER, {seen: NOW + after}, settings, NOW)
            making[0].result()
            ends += [row["expires_at"] for row in store.read(get_live, USER, mine)]

    assert ends == [NOW + MINUTE + SETTINGS.staff.idle, NOW + 2 * MINUTE + SETTINGS.staff.idle]


@pytest.mark.postgresql
def test_writing_who_was_seen_waits_for_nobody(make_url: Callable[[str], str]) -> None:
    # On SQLite nobody else writes meanwhile.
    url = make_url("postgresql")
    with open_store(url) as store:
        mine = add(store, USER)
        held, free = (start(store, USER, mine).session["id"] for _ in range(2))

        def hold(db: Connection) -> None:
            db.execute(update(USER.sessions).where(USER.sessions.c.id == held).values(name="held"))
            with ThreadPoolExecutor(1) as aside:
                aside.submit(asyncio.run, see()).result()

        async def see() -> None:
            other = open_database(url)
            await other.write(sessions.see, USER, {held: NOW + MINUTE, free: NOW + MINUTE}, SETTINGS, NOW)
            await other.close()

        store.write(hold)
        last = {row["id"]: row["last_seen_at"] for row in store.read(get_live, USER, mine)}

    assert last == {held: NOW, free: NOW + MINUTE}


def test_being_seen_moves_no_revision(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account)
    before = store.read(accounts.get, kind, account["id"])

    store.write(sessions.see, kind, {started.session["id"]: NOW + MINUTE}, SETTINGS, NOW + MINUTE)

    assert store.read(accounts.get, kind, account["id"]) == before


def test_activity_is_written_in_batches_and_at_most_once_in_its_time(store: Store, kind: Kind, account: Row) -> None:
    started = [start(store, kind, account) for _ in range(3)]
    activity = Activity(store.database, SHORT)
    at = clock.now()

    def note(after: timedelta) -> list[datetime]:
        for one in started:
            activity.note(principal_of(one), clock.to_microseconds(at + after))
        store.run(activity.write())
        return [row["last_seen_at"] - at for row in store.read(get_live, kind, account)]

    assert note(timedelta()) == [timedelta()] * 3
    assert note(59 * SECOND) == [timedelta()] * 3
    assert note(60 * SECOND) == [60 * SECOND] * 3


def test_activity_of_more_sessions_than_a_batch_holds_is_written_too(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account)
    activity = Activity(store.database, SHORT)
    at = clock.now()
    # The real one is the last of many that have ended meanwhile.
    for number in range(MOST_IN_A_BATCH + 1):
        activity.note(Principal(kind, account["id"], 2**40 + number), clock.to_microseconds(at))
    activity.note(principal_of(started), clock.to_microseconds(at))

    store.run(activity.write())

    assert store.read(get_live, kind, account)[0]["last_seen_at"] == at


def test_a_clock_that_is_set_back_stops_no_session_from_being_seen(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account)
    activity = Activity(store.database, SHORT)
    ahead, back = clock.now() + HOUR, clock.now()
    activity.note(principal_of(started), clock.to_microseconds(ahead))

    activity.note(principal_of(started), clock.to_microseconds(back))
    store.run(activity.write())

    assert store.read(get_live, kind, account)[0]["last_seen_at"] == back


# Refreshing.


def test_each_refresh_gives_a_new_generation(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account)

    for generation in (1, 2, 3):
        at = NOW + generation * MINUTE
        refreshed = store.write(sessions.refresh, claims_of(started, generation), ORIGIN, SETTINGS, at)
        assert (refreshed.session["id"], refreshed.session["generation"]) == (started.session["id"], generation + 1)
        assert (refreshed.session["refreshed_at"], refreshed.session["last_seen_at"]) == (at, at)
        assert refreshed.account["id"] == account["id"]

    assert store.read(get_ends, kind, account) == []


def test_within_the_grace_a_token_that_was_used_gives_the_same_successor(
    store: Store, kind: Kind, account: Row
) -> None:
    started = start(store, kind, account)
    first = store.write(sessions.refresh, claims_of(started), ORIGIN, SETTINGS, NOW)

    again = store.write(sessions.refresh, claims_of(started), ORIGIN, SETTINGS, NOW + GRACE)

    # All that the refresh token is made of.
    for name in ("id", "sid", "generation", "refreshed_at"):
        assert again.session[name] == first.session[name]
    assert again.ends_at == first.ends_at
    assert live_ids(store, kind, account) == ids_of(started)


def test_past_the_grace_it_is_theft_and_ends_the_session(store: Store, kind: Kind, account: Row) -> None:
    started, other = start(store, kind, account), start(store, kind, account)
    store.write(sessions.refresh, claims_of(started), ORIGIN, SETTINGS, NOW)

    for _ in range(2):
        at = NOW + GRACE + MICROSECOND
        assert store.write(sessions.refresh, claims_of(started), ORIGIN, SETTINGS, at) is None

    assert store.write(sessions.refresh, claims_of(started, 2), ORIGIN, SETTINGS, NOW + MINUTE) is None
    assert live_ids(store, kind, account) == ids_of(other)
    assert store.read(get_ends, kind, account) == [(started.session["id"], "theft")]


def test_each_token_has_its_own_grace_whatever_was_refreshed_since(store: Store, kind: Kind, account: Row) -> None:
    started, tenth = start(store, kind, account), GRACE / 10

    def refresh(generation: int, tenths: int) -> Started | None:
        at = NOW + tenths * tenth
        refreshed: Started | None = store.write(sessions.refresh, claims_of(started, generation), ORIGIN, SETTINGS, at)
        return refreshed

    first = {generation: refresh(generation, 4 * generation) for generation in (1, 2, 3)}

    for generation, tenths in ((1, 12), (2, 12), (1, 14), (3, 18), (2, 18)):
        again, was = refresh(generation, tenths), first[generation]
        assert again
        assert was
        for name in ("id", "sid", "generation", "refreshed_at"):
            assert again.session[name] == was.session[name]
    assert store.read(get_ends, kind, account) == []
    # What was used too long ago is forgotten, or known to be so.
    assert refresh(4, 20)
    assert store.read(get_live, kind, account)[0]["generation"] == 5
    assert refresh(1, 20) is None
    assert store.read(get_ends, kind, account) == [(started.session["id"], "theft")]


def test_of_a_flood_of_refreshes_the_last_are_known(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account)
    for generation in range(1, MOST_REFRESHES + 3):
        assert store.write(sessions.refresh, claims_of(started, generation), ORIGIN, SETTINGS, NOW)
    (row,) = store.read(get_live, kind, account)
    assert len(row["refreshed_before"]) == MOST_REFRESHES

    assert store.write(sessions.refresh, claims_of(started, 2), ORIGIN, SETTINGS, NOW).session["generation"] == 3
    # It can't be known whether it was used just now: refused, and nobody is a thief.
    assert store.write(sessions.refresh, claims_of(started, 1), ORIGIN, SETTINGS, NOW + GRACE) is None
    assert live_ids(store, kind, account) == ids_of(started)
    assert store.write(sessions.refresh, claims_of(started, 1), ORIGIN, SETTINGS, NOW + GRACE + MICROSECOND) is None
    assert store.read(get_ends, kind, account) == [(started.session["id"], "theft")]


def test_a_clock_that_was_set_back_hides_no_thief_of_what_was_used_since(
    store: Store, kind: Kind, account: Row
) -> None:
    started = start(store, kind, account)
    for generation, at in ((1, NOW + HOUR), (2, NOW), (3, NOW + MINUTE)):
        assert store.write(sessions.refresh, claims_of(started, generation), ORIGIN, SETTINGS, at)

    assert store.write(sessions.refresh, claims_of(started, 2), ORIGIN, SETTINGS, NOW + MINUTE) is None

    assert store.read(get_ends, kind, account) == [(started.session["id"], "theft")]


@pytest.mark.parametrize("generation", [0, -1])
def test_a_generation_that_never_was_is_theft(store: Store, kind: Kind, account: Row, generation: int) -> None:
    for refreshes in range(3):
        started = start(store, kind, account)
        for number in range(refreshes):
            store.write(sessions.refresh, claims_of(started, 1 + number), ORIGIN, SETTINGS, NOW)
        assert store.write(sessions.refresh, claims_of(started, generation), ORIGIN, SETTINGS, NOW) is None
    assert [cause for _, cause in store.read(get_ends, kind, account)] == ["theft"] * 3


def test_a_token_that_was_not_given_yet_is_refused_and_ends_nothing(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account)
    (before,) = store.read(get_live, kind, account)

    # Such as from before the database was restored from yesterday's copy.
    assert store.write(sessions.refresh, claims_of(started, 2), ORIGIN, SETTINGS, NOW) is None

    assert store.read(get_live, kind, account) == [before]


def test_a_clock_that_is_set_back_makes_no_thief(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account)
    store.write(sessions.refresh, claims_of(started), ORIGIN, SETTINGS, NOW)

    again = store.write(sessions.refresh, claims_of(started), ORIGIN, SETTINGS, NOW - HOUR)
    newest = store.write(sessions.refresh, claims_of(started, 2), ORIGIN, SETTINGS, NOW - HOUR)

    assert (again.session["generation"], newest.session["generation"]) == (2, 3)
    assert store.read(get_ends, kind, account) == []


def test_of_many_who_refresh_at_once_all_get_the_same_successor(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account)

    given = store.at_once(*[(sessions.refresh, claims_of(started), ORIGIN, SETTINGS, NOW)] * 40)

    assert {one.session["generation"] for one in given} == {2}
    assert store.read(get_ends, kind, account) == []
    assert store.read(get_live, kind, account)[0]["generation"] == 2


@pytest.mark.parametrize("values", [{"disabled_at": NOW}, {"confirmed_by_staff_at": None}], ids=["disabled", "not"])
def test_an_account_that_may_do_nothing_refreshes_nothing(
    store: Store, kind: Kind, account: Row, values: dict[str, Any]
) -> None:
    started = start(store, kind, account)
    mine = kind.accounts.c.id == account["id"]
    store.write(lambda db: db.execute(update(kind.accounts).where(mine).values(values)) and None)
    before = store.read(get_live, kind, account)

    for generation in (1, 0, -1):
        assert store.write(sessions.refresh, claims_of(started, generation), ORIGIN, SETTINGS, NOW) is None

    assert store.read(get_live, kind, account) == before


# Ending: however it comes about, one event.


def _end_by(store: Store, kind: Kind, account: Row, session: Started, cause: Cause) -> None:
    one, now = session.session["id"], NOW
    other = start(store, kind, account)
    match cause:
        case Cause.SIGNED_OUT:
            assert store.write(sessions.end, principal_of(session), kind, one, ORIGIN, now)
        case Cause.OWNER:
            assert store.write(sessions.end, principal_of(other), kind, one, ORIGIN, now)
        case Cause.STAFF:
            staff = start(store, USER, add(store, USER, is_staff=True))
            assert store.write(sessions.end, principal_of(staff, is_staff=True), kind, one, ORIGIN, now)
        case Cause.LINK:
            assert store.write(sessions.end_by_link, kind, one, ORIGIN, now)
        case Cause.EXPIRED:
            sweep(store, NOW)
            late = session.session["expires_at"]
            store.write(sessions.see, kind, {other.session["id"]: late}, SETTINGS, late - SECOND)
            sweep(store, late)
        case Cause.CAP:
            store.write(sessions.see, kind, {other.session["id"]: now + SECOND}, SETTINGS, now)
            start(store, kind, account, now + MINUTE, SessionSettings(most=2))
        case Cause.REPLACED:
            start(store, kind, account, device_id="phone")
        case Cause.DISABLED:
            store.write(sessions.end_one, kind, other.session["id"], Cause.OWNER, now)
            disabling = AccountChange(disabled=True)
            assert store.write(
                accounts.change_by_staff, None, kind, account["id"], disabling, None, None, SETTINGS, now
            )
        case Cause.EMERGENCY:
            store.write(sessions.end_one, kind, other.session["id"], Cause.OWNER, now)
            store.write(cut, kind, session.session["created_at"])
            while store.write(sessions.sweep_cut, kind, now):
                pass
            # Others' sessions of this database go on.
            store.write(cut, kind, clock.EPOCH)
        case Cause.PASSWORD:
            assert store.write(accounts.change_password, principal_of(other), HASH, "another", ORIGIN, now)
        case Cause.THEFT:
            for _ in range(3):
                store.write(sessions.refresh, claims_of(session, 0), ORIGIN, SETTINGS, now + MINUTE)
        case Cause.RESTORED:
            while store.write(restores.end_some, now):
                pass


def cut(db: Connection, kind: Kind, at: datetime) -> None:
    db.execute(update(CUTOFFS).where(CUTOFFS.c.kind == kind.name).values(at=at))


@pytest.mark.parametrize("cause", Cause)
def test_every_end_has_exactly_one_event_that_says_why(store: Store, kind: Kind, account: Row, cause: Cause) -> None:
    session = start(store, kind, account, device_id="phone")

    _end_by(store, kind, account, session, cause)

    assert session.session["id"] not in live_ids(store, kind, account)
    ends = [end for end in store.read(get_ends, kind, account) if end[0] == session.session["id"]]
    assert ends == [(session.session["id"], cause)]


def test_the_emergency_is_why_a_session_ended_before_its_row_is_swept_too(
    store: Store, kind: Kind, account: Row
) -> None:
    session = start(store, kind, account)
    claims = replace(claims_of(session), session_id=session.session["id"])

    assert store.read(sessions.why_ended, claims) is None
    store.write(cut, kind, NOW)
    assert store.read(sessions.why_ended, claims) == Cause.EMERGENCY
    while store.write(sessions.sweep_cut, kind, NOW):
        pass
    store.write(cut, kind, clock.EPOCH)
    assert store.read(sessions.why_ended, claims) == Cause.EMERGENCY


def test_of_many_who_end_one_session_at_once_one_did(store: Store, kind: Kind, account: Row) -> None:
    caller, target = start(store, kind, account), start(store, kind, account)
    query = (sessions.end, principal_of(caller), kind, target.session["id"], ORIGIN, NOW)

    given = store.at_once(*[query] * 10)

    assert sorted(given) == [False] * 9 + [True]
    assert store.read(get_ends, kind, account) == [(target.session["id"], "owner")]


def test_two_who_end_all_others_at_once_leave_one_of_them(store: Store, kind: Kind, account: Row) -> None:
    for _ in range(3):
        started = [start(store, kind, account) for _ in range(4)]
        before = len(store.read(get_ends, kind, account))

        given = store.at_once(*((sessions.end_others, principal_of(one), ORIGIN, NOW) for one in started[:2]))

        (left,) = live_ids(store, kind, account)
        assert left in ids_of(*started[:2])
        assert set(given) == {None, 3}
        assert len(store.read(get_ends, kind, account)) - before == 3
        store.write(sessions.end_account, kind, account["id"], Cause.OWNER, NOW)


def test_who_was_ended_meanwhile_ends_names_and_sees_nothing(store: Store, kind: Kind, account: Row) -> None:
    ended, target = start(store, kind, account), start(store, kind, account)
    store.write(sessions.end_one, kind, ended.session["id"], Cause.OWNER, NOW)
    caller, one = principal_of(ended), target.session["id"]

    assert store.write(sessions.end, caller, kind, one, ORIGIN, NOW) is False
    assert store.write(sessions.end_others, caller, ORIGIN, NOW) is None
    assert store.write(sessions.name, caller, kind, one, "x", ORIGIN, NOW) is None
    assert store.read(sessions.get_visible, caller, kind, one, NOW) is None
    assert store.read(sessions.list_visible, caller, kind, account["id"], NOW, None, 0) is None
    assert store.write(accounts.change_password, caller, HASH, "another", ORIGIN, NOW) is False
    assert live_ids(store, kind, account) == [one]


def test_what_ends_in_a_transaction_that_fails_has_not_ended(store: Store, kind: Kind, account: Row) -> None:
    started = start(store, kind, account)

    def fail(db: Connection) -> None:
        sessions.end_one(db, kind, started.session["id"], Cause.OWNER, NOW)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.write(fail)

    assert live_ids(store, kind, account) == ids_of(started)
    assert store.read(get_ends, kind, account) == []


# Sharing a commit.


def rename(db: Connection, account: Row, name: str) -> str:
    table = USER.accounts
    db.execute(update(table).where(table.c.id == account["id"]).values(name=name))
    return name


def rename_and_divide(db: Connection, account: Row, name: str) -> None:
    rename(db, account, name)
    raise ZeroDivisionError


def rename_and_break_a_rule(db: Connection, account: Row, name: str) -> None:
    rename(db, account, name)
    db.execute(insert(USER.sessions).values(account_id=account["id"]))


def _write_all(database: Database, queries: Sequence[tuple[Any, ...]]) -> Any:
    async def gather() -> list[Any]:
        return await asyncio.gather(*(database.write(*query) for query in queries), return_exceptions=True)

    return gather()


def test_of_the_devices_that_an_account_has_met_those_met_last_are_remembered(
    store: Store, kind: Kind, account: Row
) -> None:
    def meet(device_id: str) -> str:
        novelty: str = store.write(known_devices.meet, kind, account["id"], device_id, ORIGIN, NOW)
        return novelty

    def meet_many(db: Connection) -> None:
        for number in range(known_devices.MOST - 1):
            known_devices.meet(db, kind, account["id"], f"many {number}", ORIGIN, NOW)

    table = KNOWN_DEVICES
    mine = (table.c.kind == kind.name) & (table.c.account_id == account["id"])
    assert [meet("daily"), meet("once"), meet("daily")] == ["", "device", ""]

    store.write(meet_many)

    assert store.read(lambda db: db.scalar(select(func.count()).select_from(table).where(mine))) == known_devices.MOST
    assert [meet("daily"), meet("once")] == ["", "device"]


def test_a_query_that_fails_takes_no_other_of_its_commit_along(store: Store) -> None:
    rows = [add(store, USER) for _ in range(5)]
    first, dividing, second, breaking, third = rows

    given = store.run(
        _write_all(
            store.database,
            [
                (rename, first, "first"),
                (rename_and_divide, dividing, "never"),
                (rename, second, "second"),
                (rename_and_break_a_rule, breaking, "never"),
                (rename, third, "third"),
            ],
        )
    )

    assert [type(one) for one in given] == [str, ZeroDivisionError, str, IntegrityError, str]
    names = [store.read(accounts.get, USER, row["id"])["name"] for row in rows]
    assert names == ["first", "", "second", "", "third"]


def test_of_two_accounts_with_one_phone_in_a_commit_one_is_made(store: Store, kind: Kind) -> None:
    phones = [f"+7900{next(_numbers):07}" for _ in range(2)]
    queries = [(accounts.create, kind, {"phone": phone}, HASH, None, NOW) for phone in (*phones, phones[0])]

    given = store.run(_write_all(store.database, queries))

    assert sorted(type(one) is ContactTaken for one in given) == [False, False, True]
    for phone in phones:
        assert store.read(accounts.find, kind, "phone", phone)["phone"] == phone


def test_who_waits_no_longer_takes_no_other_along(store: Store) -> None:
    rows = [add(store, USER) for _ in range(3)]

    async def write() -> list[Any]:
        tasks = [asyncio.create_task(store.database.write(rename, row, "new")) for row in rows]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    given = store.run(write())

    assert [given[0], type(given[1]), given[2]] == ["new", asyncio.CancelledError, "new"]
    assert [store.read(accounts.get, USER, rows[number]["id"])["name"] for number in (0, 2)] == ["new", "new"]


def test_more_writes_than_one_commit_holds_are_all_written(store: Store) -> None:
    row = add(store, USER)
    table = USER.accounts

    def count(db: Connection) -> None:
        db.execute(update(table).where(table.c.id == row["id"]).values(revision=table.c.revision + 1))

    before = store.read(accounts.get, USER, row["id"])["revision"]
    given = store.run(_write_all(store.database, [(count,)] * 300))

    assert given == [None] * 300
    assert store.read(accounts.get, USER, row["id"])["revision"] == before + 300


@pytest.mark.parametrize("change", [AccountChange(staff=True), AccountChange(viewer=True)], ids=["staff", "viewer"])
def test_who_is_made_staff_has_no_session_longer_than_staff(store: Store, change: AccountChange) -> None:
    account = add(store, USER)
    old = start(store, USER, account, NOW - timedelta(days=20))
    fresh = start(store, USER, account, NOW - timedelta(minutes=5))
    store.write(sessions.see, USER, {old.session["id"]: NOW - timedelta(minutes=1)}, SETTINGS, NOW)
    assert store.write(accounts.change_by_staff, None, USER, account["id"], change, None, None, SETTINGS, NOW)
    rows = {row["id"]: row for row in store.read(get_live, USER, account)}
    assert rows[old.session["id"]]["expires_at"] <= NOW
    assert rows[fresh.session["id"]]["expires_at"] == NOW - timedelta(minutes=5) + SETTINGS.staff.idle


def test_a_restored_database_is_not_told_by_an_event_that_is_no_longer_kept(store: Store) -> None:
    start(store, USER, add(store, USER))
    gone = restores.Seen(2**40, NOW - timedelta(days=30))
    assert store.read(restores.is_restored, gone, None)
    assert store.read(restores.is_restored, gone, NOW - timedelta(days=31))
    assert not store.read(restores.is_restored, gone, NOW - timedelta(days=29))


def test_where_one_write_finds_the_database_away_each_that_waits_is_told(store: Store) -> None:
    def fail(_db: Connection) -> None:
        raise OperationalError("", {}, sqlite3.OperationalError("disk I/O error"))

    def look(db: Connection) -> Any:
        return db.scalar(select(1))

    async def gather() -> list[Any]:
        writes = (store.database.write(query) for query in (look, fail, look, look))
        return await asyncio.gather(*writes, return_exceptions=True)

    # On PostgreSQL each write has a connection of its own.
    given = store.run(asyncio.wait_for(gather(), 10))
    assert isinstance(given[1], DatabaseUnavailable)
    assert all(one == 1 or isinstance(one, DatabaseUnavailable) for one in given)
    assert store.write(look) == 1


def test_of_two_links_that_are_sent_at_once_one_is_good(store: Store) -> None:
    account = add(store, USER)
    keys = KeySet([Key("test", b"k" * 32, "HS256")])
    links = store.at_once(*[(codes.make_link, keys, USER, account["id"], NOW)] * 6)
    good = [store.read(codes.is_link, keys, USER, account["id"], link, NOW) for link in links]
    assert sorted(good) == [False] * 5 + [True]

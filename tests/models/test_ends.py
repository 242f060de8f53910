"""Ends that many ask for at once, which SQLite does in one go, and the writes that share their commit."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Table, select, update

from models import accounts, ends, sessions
from models.database import DatabaseUnavailable
from models.ends import End
from models.events import Cause, Type
from models.origins import Origin
from models.schema import CLIENT, EVENTS, USER, Kind, Row
from models.sessions import Started
from models.sqlite import MOST_IN_A_COMMIT
from tests.models.test_sessions import (
    NOW,
    ORIGIN,
    SECOND,
    SETTINGS,
    Store,
    add,
    claims_of,
    cut,
    get_ends,
    ids_of,
    live_ids,
    open_store,
    principal_of,
    rename,
    rename_and_divide,
    start,
)


@pytest.fixture
def store(make_url: Callable[[str], str]) -> Iterator[Store]:
    """SQLite: no other database gathers."""
    with open_store(make_url("sqlite")) as opened:
        yield opened


def ask(by: Started, session_id: int) -> End:
    """What the owner of a session asks for from it."""
    return End(claims_of(by), session_id, ORIGIN, NOW)


def end_all(store: Store, *asked: End) -> list[Any]:
    """Who ended what, all asked for at once."""

    async def gather() -> list[Any]:
        waiting = [store.database.write_gathered(ends.END_OWN[end.claims.kind.name], end) for end in asked]
        return await asyncio.gather(*filter(None, waiting))

    given: list[Any] = store.run(gather())
    assert len(given) == len(asked)
    return given


def test_each_ends_its_own_in_one_commit(store: Store) -> None:
    asked, given, houses = [], [], []
    for kind in (USER, CLIENT, USER):
        account = add(store, kind)
        caller, other, kept = (start(store, kind, account) for _ in range(3))
        asked += [ask(caller, other.session["id"]), ask(caller, caller.session["id"])]
        given += [principal_of(caller)] * 2
        houses.append((kind, store.read(accounts.get, kind, account["id"]), caller, other, kept))

    assert end_all(store, *asked) == given

    for kind, account, caller, other, kept in houses:
        ends = [(other.session["id"], "owner"), (caller.session["id"], "signed_out")]
        assert store.read(get_ends, kind, account) == ends
        assert live_ids(store, kind, account) == ids_of(kept)
        assert store.read(accounts.get, kind, account["id"])["revision"] > account["revision"]


def test_signing_out_by_id_is_told_as_that(store: Store) -> None:
    account = add(store, USER)
    caller, other = start(store, USER, account), start(store, USER, account)

    assert end_all(store, ask(caller, caller.session["id"])) == [principal_of(caller)]

    assert store.read(get_ends, USER, account) == [(caller.session["id"], "signed_out")]
    assert live_ids(store, USER, account) == ids_of(other)


def test_what_is_asked_for_twice_ends_once(store: Store) -> None:
    account = add(store, USER)
    first, second, target = (start(store, USER, account) for _ in range(3))

    given = end_all(store, *(ask(by, target.session["id"]) for by in (first, second, first)))

    assert given == [principal_of(first), None, None]
    assert store.read(get_ends, USER, account) == [(target.session["id"], "owner")]


def test_of_two_who_end_each_other_one_does(store: Store) -> None:
    account = add(store, USER)
    first, second = start(store, USER, account), start(store, USER, account)

    given = end_all(store, ask(first, second.session["id"]), ask(second, first.session["id"]))

    assert given == [principal_of(first), None]
    assert live_ids(store, USER, account) == ids_of(first)


def _set(store: Store, table: Table, row: Row, **values: Any) -> None:
    def change(db: Connection) -> None:
        db.execute(update(table).where(table.c.id == row["id"]).values(values))

    store.write(change)


def _cut_off(store: Store, kind: Kind, started: Started) -> None:
    store.write(cut, kind, started.session["created_at"])


def _disable(store: Store, kind: Kind, started: Started) -> None:
    _set(store, kind.accounts, started.account, disabled_at=NOW)


def _unconfirm(store: Store, kind: Kind, started: Started) -> None:
    _set(store, kind.accounts, started.account, confirmed_by_staff_at=None)


def _end(store: Store, kind: Kind, started: Started) -> None:
    assert store.write(sessions.end_one, kind, started.session["id"], Cause.STAFF, NOW)


def _expire(store: Store, kind: Kind, started: Started) -> None:
    _set(store, kind.sessions, started.session, expires_at=NOW)


@pytest.mark.parametrize("kind", [USER, CLIENT], ids=["user", "client"])
@pytest.mark.parametrize("spoil", [_cut_off, _disable, _unconfirm, _end, _expire])
def test_who_may_do_nothing_ends_nothing(
    store: Store, kind: Kind, spoil: Callable[[Store, Kind, Started], None]
) -> None:
    account, other = add(store, kind), add(store, kind)
    caller, target = start(store, kind, account), start(store, kind, account, NOW + SECOND)
    good, its = start(store, kind, other, NOW + SECOND), start(store, kind, other, NOW + SECOND)
    spoil(store, kind, caller)
    before = store.read(get_ends, kind, account)

    given = end_all(store, ask(caller, target.session["id"]), ask(good, its.session["id"]))

    assert given == [None, principal_of(good)]
    assert target.session["id"] in live_ids(store, kind, account)
    assert store.read(get_ends, kind, account) == before


@pytest.mark.parametrize("spoil", [_cut_off, _end, _expire])
def test_what_has_ended_ends_no_more(store: Store, spoil: Callable[[Store, Kind, Started], None]) -> None:
    account = add(store, USER)
    target, caller = start(store, USER, account), start(store, USER, account, NOW + SECOND)
    spoil(store, USER, target)
    before = store.read(get_ends, USER, account)

    assert end_all(store, ask(caller, target.session["id"])) == [None]
    assert store.read(get_ends, USER, account) == before


def test_what_is_another_s_is_left_whatever_the_role(store: Store) -> None:
    staff, owner = add(store, USER, is_staff=True), add(store, USER)
    by, its = start(store, USER, staff), start(store, USER, owner)
    wrong = [ask(by, its.session["id"]), ask(its, by.session["id"]), ask(its, 2**62), ask(its, 0)]

    assert end_all(store, *wrong) == [None] * 4

    assert live_ids(store, USER, owner) == ids_of(its)
    assert live_ids(store, USER, staff) == ids_of(by)


def test_a_session_is_named_with_its_account(store: Store) -> None:
    account, other = add(store, USER), add(store, USER)
    caller, target = start(store, USER, account), start(store, USER, other)
    false = replace(claims_of(caller), account_id=other["id"])

    assert end_all(store, End(false, target.session["id"], ORIGIN, NOW)) == [None]
    assert live_ids(store, USER, other) == ids_of(target)


def test_more_than_one_commit_holds_are_all_ended(store: Store) -> None:
    account = add(store, USER)
    caller, *targets = (
        start(store, USER, account, settings=SETTINGS.model_copy(update={"most": 99})) for _ in range(90)
    )

    given = end_all(store, *(ask(caller, target.session["id"]) for target in targets))

    assert given == [principal_of(caller)] * 89
    assert live_ids(store, USER, account) == ids_of(caller)
    assert sorted(store.read(get_ends, USER, account)) == [(one, "owner") for one in ids_of(*targets)]


@pytest.mark.parametrize("kind", [USER, CLIENT], ids=["user", "client"])
@pytest.mark.parametrize("ip", ["203.0.113.7", "2001:db8::7", ""])
def test_the_event_is_as_of_an_end_that_comes_alone(store: Store, kind: Kind, ip: str) -> None:
    account, origin = add(store, kind), Origin(ip=ip, country="NO")
    caller, *targets = (start(store, kind, account) for _ in range(3))
    store.write(sessions.end, principal_of(caller), kind, targets[0].session["id"], origin, NOW)

    by = principal_of(caller)
    assert end_all(store, End(claims_of(caller), targets[1].session["id"], origin, NOW)) == [by]

    alone, together = store.read(read_ended)
    assert together == {**alone, "session_id": targets[1].session["id"]}


def read_ended(db: Connection) -> list[dict[str, Any]]:
    """The events of ends, oldest first, without their ids."""
    found = select(EVENTS).where(EVENTS.c.type == Type.ENDED).order_by(EVENTS.c.id)
    return [{name: row[name] for name in row if name != "id"} for row in db.execute(found).mappings()]


def _fail(_: Connection, __: Sequence[End]) -> Sequence[None]:
    raise ZeroDivisionError


def _end_and_fail(db: Connection, asked: Sequence[End]) -> Sequence[None]:
    ends.END_OWN["user"](db, asked)
    raise ZeroDivisionError


@pytest.mark.parametrize("is_alone", [True, False], ids=["alone", "beside others"])
def test_those_that_fail_together_take_no_other_of_their_commit_along(store: Store, is_alone: bool) -> None:
    account, renamed = add(store, USER), add(store, USER)
    caller, spared, target = (start(store, USER, account) for _ in range(3))

    async def gather() -> list[Any]:
        database = store.database
        query = _fail if is_alone else _end_and_fail
        waiting: list[Any] = [database.write_gathered(query, ask(caller, spared.session["id"])) for _ in range(2)]
        if not is_alone:
            waiting += [
                database.write_gathered(ends.END_OWN["user"], ask(caller, target.session["id"])),
                asyncio.ensure_future(database.write(rename_and_divide, renamed, "never")),
                asyncio.ensure_future(database.write(rename, renamed, "new")),
            ]
        return await asyncio.gather(*waiting, return_exceptions=True)

    first, second, *others = store.run(gather())

    assert [type(first), type(second)] == [ZeroDivisionError] * 2
    if is_alone:
        assert store.read(get_ends, USER, account) == []
        assert live_ids(store, USER, account) == ids_of(caller, spared, target)
    else:
        assert [others[0], type(others[1]), others[2]] == [principal_of(caller), ZeroDivisionError, "new"]
        assert store.read(accounts.get, USER, renamed["id"])["name"] == "new"
        assert store.read(get_ends, USER, account) == [(target.session["id"], "owner")]
        assert live_ids(store, USER, account) == ids_of(caller, spared)


def test_what_is_asked_for_once_the_database_is_closed_fails(store: Store) -> None:
    account = add(store, USER)

    async def ask_after() -> list[Any]:
        await store.database.close()
        writes = [store.database.write(rename, account, "never") for _ in range(40)]
        return await asyncio.gather(*writes, return_exceptions=True)

    assert {type(one) for one in store.run(ask_after())} == {DatabaseUnavailable}


@pytest.mark.parametrize("others", [0, 1])
def test_what_the_database_took_back_is_answered_to_nobody(store: Store, others: int) -> None:
    lost, *beside = (add(store, USER) for _ in range(1 + others))

    def lose(db: Connection, row: Row) -> str:
        rename(db, row, "never")
        with contextlib.suppress(sqlite3.IntegrityError):
            # As it does of itself where the disk is full.
            db.connection.cursor().execute("INSERT OR ROLLBACK INTO cutoffs SELECT * FROM cutoffs")
        return "done"

    async def gather() -> list[Any]:
        writes = [store.database.write(lose, lost)]
        writes += [store.database.write(rename, row, "never") for row in beside]
        return await asyncio.gather(*writes, return_exceptions=True)

    assert {type(one) for one in store.run(gather())} == {DatabaseUnavailable}
    assert {store.read(accounts.get, USER, row["id"])["name"] for row in (lost, *beside)} == {""}
    assert store.write(rename, lost, "new") == "new"


def test_what_comes_while_another_waits_for_the_lock_is_told_with_it(store: Store) -> None:
    account = add(store, USER)
    file = store.read(lambda db: db.exec_driver_sql("PRAGMA database_list").fetchall()[0][2])

    async def ask_meanwhile() -> list[bool]:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            first = asyncio.create_task(store.database.write(rename, account, "never"))
            await asyncio.sleep(0)
            while vars(store.database)["_waiting"]:  # noqa: ASYNC110 - the thread that takes it tells nobody
                await asyncio.sleep(0)
            # More than one commit takes.
            others = range(MOST_IN_A_COMMIT + 1)
            writes = [first, *(asyncio.create_task(store.database.write(rename, account, "never")) for _ in others)]
            await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
            done = [one.done() for one in writes]
            await asyncio.gather(*writes, return_exceptions=True)
            assert {type(one.exception()) for one in writes} == {DatabaseUnavailable}
        return done

    assert all(store.run(ask_meanwhile()))
    assert store.write(rename, account, "new") == "new"

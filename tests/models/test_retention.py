"""Addresses are forgotten after their time, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, insert, select, update

from models import accounts, clock, events, jobs
from models.events import Type
from models.networks import make_key
from models.origins import Origin
from models.retention import ADDRESSES, STEP, Retention, forget_some
from models.schema import EVENTS, JOBS, KINDS, METADATA
from tests.conftest import House, open_database, start_server, wait_until

NOW = clock.now()
DAY = timedelta(days=1)
ORIGIN = Origin("192.0.2.1", "Thing/1", "DE")


def test_addresses_of_old_events_go_and_all_else_of_them_stays(house: House) -> None:
    account = house.add("user")

    def write(db: Connection) -> None:
        for days in (3, 1):
            made = events.make(KINDS["user"], account.id, Type.REFUSED, NOW - days * DAY, device="Thing/1",
                               origin=ORIGIN)  # fmt: skip
            events.append(db, made | {"target": f"t{days}", "network": f"n{days}"})

    def read(db: Connection) -> list[Any]:
        columns = EVENTS.c
        asked = select(columns.ip, columns.network, columns.target, columns.device, columns.country)
        mine = (columns.account_id == account.id) & (columns.kind == "user") & (columns.type == "refused")
        return [tuple(row) for row in db.execute(asked.where(mine).order_by(columns.id)).all()]

    house.write(write)
    # The log is written in order: this one's first event is the oldest that is looked at.
    first = house.read(lambda db: db.scalar(select(func.min(EVENTS.c.id)).where(EVENTS.c.account_id == account.id)))
    house.write(forget_some, EVENTS, first - 1, NOW - 2 * DAY)
    old, young = read_back = house.read(read)
    assert len(read_back) == 2
    assert old == (None, None, "t3", "Thing/1", "DE")
    assert young == ("192.0.2.1", "n1", "t1", "Thing/1", "DE")


def test_addresses_of_old_sessions_go_and_their_places_stay(house: House) -> None:
    old, young = house.enter(house.add("client")), house.enter(house.add("client"))
    sessions = KINDS["client"].sessions
    house.write(
        lambda db: (
            db.execute(update(sessions).where(sessions.c.id == old.session).values(created_at=NOW - 3 * DAY)) and None
        )
    )
    house.write(forget_some, sessions, old.session - 1, NOW - 2 * DAY)
    columns = (sessions.c.id, sessions.c.ip, sessions.c.ip_key)
    ips = {row.id: (row.ip, row.ip_key) for row in house.read(lambda db: db.execute(select(*columns)).all())}
    # Nor is it found by what searches compare.
    assert ips[old.session] == ("", None)
    assert ips[young.session] == ("127.0.0.1", make_key("127.0.0.1"))
    details = house.ask("GET", f"/sessions/session-client-r/{old.session}/", old).json()
    assert details["ip"] == ""


def test_old_jobs_that_are_finished_go(house: House) -> None:
    ages = {"old": NOW - 3000 * DAY, "older": NOW - 3001 * DAY, "young": NOW - 2000 * DAY, "open": None}

    def run(db: Connection) -> tuple[list[int], set[str]]:
        shared = {"filter": "{}", "by_id": 0, "total": 0, "ip": "", "country": "", "created_at": NOW}
        made = insert(JOBS).returning(JOBS.c.id)
        ids = {name: db.execute(made.values(shared | {"finished_at": at})).scalar_one() for name, at in ages.items()}
        gone = [jobs.forget(db, NOW - 2500 * DAY, 1) for _ in range(3)]
        kept = set(db.scalars(select(JOBS.c.id)))
        # In the same transaction, so that nobody takes up the open one.
        db.execute(delete(JOBS).where(JOBS.c.id.in_(ids.values())))
        return gone, {name for name, number in ids.items() if number in kept}

    assert house.write(run) == ([1, 1, 0], {"young", "open"})


def test_nothing_that_holds_an_address_is_left_out() -> None:
    assert set(ADDRESSES) == {table for table in METADATA.sorted_tables if "ip" in table.c} - {JOBS}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_server_forgets_step_by_step_however_many_there_are(
    make_url: Callable[[str], str], tmp_path: Path, kind: str
) -> None:
    url = make_url(kind)
    of = KINDS["client"]
    ages = [NOW - (3 if number < 2 * STEP else 1) * DAY for number in range(2 * STEP + 10)]

    def fill(db: Connection) -> None:
        refused = [events.make(KINDS["user"], None, Type.REFUSED, at, origin=ORIGIN) for at in ages]
        events.append(db, *refused)
        fields = {"surname": "Test", "phone": "+79130000000"}
        account_id = accounts.create(db, of, fields, "", None, NOW)["id"]
        made = [
            {"sid": f"sid{number}", "account_id": account_id, "device": "Thing/1", "browser": "", "os": "",
             "device_kind": "program", "country": "DE", "city": "", "ip": "192.0.2.1", "ip_key": make_key("192.0.2.1"),
             "created_at": at, "last_seen_at": at, "refreshed_at": at, "expires_at": NOW + DAY}
            for number, at in enumerate(ages)
        ]  # fmt: skip
        db.execute(insert(of.sessions), made)

    def count(db: Connection) -> tuple[int | None, ...]:
        asked = [select(func.count()).where(EVENTS.c.ip.is_not(None), EVENTS.c.type == "refused")]
        asked.append(select(func.count()).where(of.sessions.c.ip_key.is_not(None), of.sessions.c.ip != ""))
        return tuple(db.scalar(one) for one in asked)

    async def look() -> tuple[int | None, ...]:
        database = open_database(url)
        counted = await database.read(count)
        await database.close()
        return counted

    async def prepare() -> None:
        database = open_database(url)
        await database.write(fill)
        await database.close()

    asyncio.run(prepare())
    server = start_server(tmp_path, url, SESSIONS_EVENTS__KEEP_ADDRESSES_DAYS="2", SESSIONS_SESSIONS__SWEEP_SECONDS="1")
    try:
        wait_until(lambda: asyncio.run(look()) == (10, 10))
    finally:
        server.stop()


def test_what_was_gone_through_is_not_gone_through_again(house: House) -> None:
    house.enter(house.add("user"))
    one = Retention()
    for table in ADDRESSES:
        while house.run(one.forget(house.database, table, NOW - 1000 * DAY)):
            pass
    assert set(one.done.values()) == {0}

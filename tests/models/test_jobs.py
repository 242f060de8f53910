"""Jobs: taken by one at a time, and by another where that one does not come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert

from models import accounts, clock, desk, jobs, sessions
from models.database import Database
from models.desk import searches
from models.filters import SessionFilter
from models.jobs import LEASE, Jobs
from models.origins import Origin
from models.principals import Principal
from models.schema import CLIENT, JOBS, USER, Kind, Row
from models.sessions import Started
from models.settings import SessionSettings
from tests.conftest import open_database

NOW = clock.now()
HOUR = timedelta(hours=1)
MOST = SessionSettings(most=50)


async def sign_in(database: Database, kind: Kind, number: int, at: datetime = NOW, **fields: Any) -> Started:
    """A session of a new account, started at `at`."""
    fields |= {"confirmed_by_staff_at": NOW, "phone": f"+7913{number:07}"}
    account = await database.write(accounts.create, kind, fields, "", None, NOW)
    started = await database.write(sessions.start, kind, account["id"], None, None, Origin(), MOST, at)
    assert started
    return started


async def sign_in_staff(database: Database) -> Principal:
    """One who may end everything."""
    started = await sign_in(database, USER, 1, is_staff=True)
    return Principal(USER, started.account["id"], started.session["id"], "staff")


async def work_off(database: Database, staff: Principal, now: datetime) -> Row:
    """The only job there is, when it is over."""
    job = await database.write(jobs.take, now)
    assert job
    await Jobs(database).work(job)
    done = await database.read(jobs.get, staff, job["id"], NOW)
    assert done
    return done


@pytest.mark.parametrize("address", ["sqlite", "postgresql"])
def test_what_a_clock_that_is_ahead_started_is_ended_too(make_url: Callable[[str], str], address: str) -> None:
    url = make_url(address)

    async def run() -> tuple[int, int, int | None]:
        database = open_database(url)
        staff = await sign_in_staff(database)
        for number in range(2, 5):
            await sign_in(database, CLIENT, number, NOW + number * clock.SKEW / 10)
        sought = SessionFilter(kind="client")
        job = await database.write(jobs.start, staff, sought, 3, None, Origin(), NOW)
        assert job
        done = await work_off(database, staff, NOW)
        left = await desk.count_sessions(database, staff, sought, NOW)
        await database.close()
        return done["total"], done["ended"], left

    assert asyncio.run(run()) == (3, 3, 0)


@pytest.mark.parametrize("address", ["sqlite", "postgresql"])
def test_a_job_goes_on_where_more_accounts_are_found_than_a_search_may(
    make_url: Callable[[str], str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "MOST_ACCOUNTS", 2)
    url = make_url(address)

    async def run() -> tuple[int, str]:
        database = open_database(url)
        staff = await sign_in_staff(database)
        await sign_in(database, CLIENT, 2)
        job = await database.write(
            jobs.start, staff, SessionFilter(kind="client", q="+7913"), 1, None, Origin(), NOW + clock.SKEW
        )
        assert job
        # They registered since.
        for number in range(3, 6):
            await sign_in(database, CLIENT, number)
        done = await work_off(database, staff, clock.now())
        await database.close()
        return done["ended"], done["state"]

    assert asyncio.run(run()) == (4, "done")


@pytest.mark.parametrize(
    ("ahead", "is_free"),
    [
        (None, True),
        (-HOUR, True),
        (LEASE, False),
        # Another server's clock may be a little ahead.
        (LEASE + clock.SKEW / 2, False),
        # It was taken before the clock was set back.
        (HOUR, True),
    ],
)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_job_is_free_where_nobody_can_be_at_work_on_it(
    make_url: Callable[[str], str], database: str, ahead: timedelta | None, is_free: bool
) -> None:
    url = make_url(database)
    row: dict[str, Any] = {"filter": "{}", "by_id": 1, "total": 0, "ip": "", "country": "", "created_at": NOW}
    row["taken_until"] = None if ahead is None else NOW + ahead

    def take(db: Connection) -> list[bool]:
        db.execute(delete(JOBS))
        db.execute(insert(JOBS).values(row))
        return [jobs.take(db, NOW) is not None for _ in range(2)]

    async def run() -> list[bool]:
        opened = open_database(url)
        taken = await opened.write(take)
        await opened.close()
        return taken

    assert asyncio.run(run()) == [is_free, False]

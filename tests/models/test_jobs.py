"""Jobs: taken by one at a time, and by another where that one does not come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert

from models import clock, jobs
from models.jobs import LEASE
from models.schema import JOBS
from tests.conftest import open_database

NOW = clock.now()
HOUR = timedelta(hours=1)


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

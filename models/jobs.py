"""Ending many sessions, some at a time: kept in the database, so that whoever is interrupted is followed by another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from models import clock, desk, sessions
from models.chores import Chore
from models.database import Database
from models.filters import SessionFilter
from models.origins import Origin
from models.paging import RANKS, Cursor, Place
from models.principals import Principal, is_usable, may_act, may_see
from models.schema import JOBS, KINDS, USER, Kind, Row

# A worker that does not come back in time is taken for dead.
LEASE = timedelta(seconds=10)
LOOK_SECONDS = 2
# Others write too: so long is left to them for each second of ours.
PAUSE = 0.5
# How many are looked for at a time; they are ended some at a time.
FOUND_AT_ONCE = 200


def start(
    db: Connection,
    principal: Principal,
    sought: SessionFilter,
    total: int,
    reason: str | None,
    origin: Origin,
    now: datetime,
) -> Row | None:
    """Have the sessions that are sought ended, those of them that were started by now; None where he may not.

    `total` is how many match, as whoever asked was told.
    """
    if not db.scalar(select(may_act(principal, now))):
        return None
    bound = sessions.newest(db, sought.kinds, now) + clock.MICROSECOND
    bound = min(sought.started_to, bound) if sought.started_to else bound
    # From the oldest on: what is committed late is among the newest, and still to come.
    sought = replace(sought, started_to=bound, idle=None, seen_to=sought.seen_before(now), sort="started")
    made = insert(JOBS).values(
        filter=sought.dump(),
        reason=reason,
        by_id=principal.account_id,
        ip=origin.ip,
        country=origin.country,
        created_at=now,
        total=total,
        ended=0,
    )
    return _show(db.execute(made.returning(*JOBS.c)).mappings().one())


def get(db: Connection, principal: Principal, job_id: int, now: datetime) -> Row | None:
    """One job with its `state`; None where there is none, or the principal may not see it."""
    found = select(JOBS).where(JOBS.c.id == job_id, may_see(principal, now))
    row = db.execute(found).mappings().first()
    return _show(row) if row else None


def list_latest(db: Connection, principal: Principal, most: int, now: datetime) -> list[Row] | None:
    """The latest jobs, newest first; None where the principal may not see them."""
    if not db.scalar(select(may_see(principal, now))):
        return None
    found = select(JOBS).where(may_see(principal, now)).order_by(JOBS.c.id.desc()).limit(most)
    return [_show(row) for row in db.execute(found).mappings()]


def forget(db: Connection, before: datetime, most: int) -> int:
    """Delete up to `most` of the jobs that were finished before `before`; how many those were."""
    old = select(JOBS.c.id).where(JOBS.c.finished_at < before).order_by(JOBS.c.id).limit(most)
    return db.execute(delete(JOBS).where(JOBS.c.id.in_(old.scalar_subquery()))).rowcount


def take(db: Connection, now: datetime) -> Row | None:
    """The oldest job that nobody works on, which is the caller's until the lease is over; None where there is none."""
    columns = JOBS.c
    # None is taken for longer: one that is was taken before the clock was set back.
    is_free = (
        columns.taken_until.is_(None) | (columns.taken_until <= now) | (columns.taken_until > now + LEASE + clock.SKEW)
    )
    free = select(columns.id).where(columns.finished_at.is_(None), is_free).order_by(columns.id).limit(1)
    return (
        db.execute(
            update(JOBS)
            .where(columns.id.in_(free.with_for_update(skip_locked=True).scalar_subquery()))
            .values(taken_until=now + LEASE)
            .returning(*columns)
        )
        .mappings()
        .first()
    )


def _show(row: Row) -> Row:
    if row["finished_at"] is None:
        state = "running" if row["taken_until"] else "waiting"
    else:
        state = "stopped" if row["is_stopped"] else "done"
    shown: dict[str, Any] = {**row, "state": state, "filter": SessionFilter.load(row["filter"])}
    return shown


def _end(
    db: Connection, job: Row, kind: Kind, ids: Sequence[int], seen_to: datetime | None, place: str | None, now: datetime
) -> Row | None:
    """End some of a job's sessions and remember how far it is; None where it is another's by now, or over."""
    columns, users = JOBS.c, USER.accounts.c
    mine = (columns.id == job["id"], columns.taken_until == job["taken_until"], columns.finished_at.is_(None))
    # Asked again each time, and for the length of this transaction: whoever is staff no more ends nothing.
    is_staff = select(users.id).where(users.id == job["by_id"], users.is_staff, is_usable(USER))
    values: dict[str, Any] = {"taken_until": now + LEASE, "place": place}
    if db.scalar(is_staff.with_for_update(read=True)) is None:
        values = {"finished_at": now, "is_stopped": True}
    elif place is None:
        values |= {"finished_at": now}
    taken = db.execute(update(JOBS).where(*mine).values(values).returning(*columns)).mappings().first()
    if taken is None or taken["is_stopped"] or not ids:
        return taken if taken and taken["finished_at"] is None else None
    by = Principal(USER, job["by_id"], 0, "staff")
    origin = Origin(ip=job["ip"], country=job["country"])
    # What was seen meanwhile is no longer what was sought.
    seen_before = seen_to - clock.MICROSECOND if seen_to else now + timedelta(days=1)
    ended = sessions.end_many(db, kind, ids, seen_before, now, by=by, origin=origin, reason=job["reason"])
    db.execute(update(JOBS).where(columns.id == job["id"]).values(ended=columns.ended + ended))
    return taken if taken["finished_at"] is None else None


class Jobs(Chore):
    """Takes jobs and works on them, batch by batch."""

    def __init__(self, database: Database) -> None:
        self._database = database
        super().__init__("jobs", LOOK_SECONDS, self._work_on_all)

    async def _work_on_all(self) -> None:
        while job := await self._database.write(take, clock.now()):
            await self.work(job)

    async def work(self, job: Row) -> None:
        """End what the job says, until it is done or is another's."""
        sought = SessionFilter.load(job["filter"])
        loop = asyncio.get_running_loop()
        taken: Row | None = job
        while taken:
            cursor = Cursor.read(taken["place"]) if taken["place"] else None
            kind = sought.kinds[0] if cursor is None else list(KINDS.values())[cursor.rank]
            place = Place(cursor if cursor and cursor.id else None)
            begun = loop.time()
            rows = await self._database.scan(desk.list_session_ids, kind, sought, clock.now(), place, FOUND_AT_ONCE)
            for first in range(0, max(len(rows), 1), sessions.MOST_AT_ONCE):
                some = rows[first : first + sessions.MOST_AT_ONCE]
                goes_on, ids = _next_place(kind, sought.kinds, some), [row["id"] for row in some]
                taken = await self._database.write(_end, taken, kind, ids, sought.seen_to, goes_on, clock.now())
                await asyncio.sleep((loop.time() - begun) * PAUSE)
                if not taken:
                    break
                begun = loop.time()


def _next_place(kind: Kind, kinds: Sequence[Kind], rows: Sequence[Row]) -> str | None:
    """Where the job goes on: after the last row, or with the next kind; None where it is done."""
    if rows:
        return str(Cursor(clock.to_microseconds(rows[-1]["created_at"]), RANKS[kind.name], rows[-1]["id"]))
    later = kinds[kinds.index(kind) + 1 :]
    return str(Cursor(0, RANKS[later[0].name], 0)) if later else None

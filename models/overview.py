"""The house in numbers: what is live now, what happened today, and how that went over time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, func, literal_column, select

from models import clock, counts, desk
from models.database import Database
from models.events import Type
from models.filters import AccountFilter, SessionFilter
from models.principals import Principal, may_see
from models.schema import KINDS

Span = Literal["day", "week", "month"]
# How many points a span has, and the hours of each.
SPANS: dict[Span, tuple[int, int]] = {"day": (24, 1), "week": (28, 6), "month": (30, 24)}


@dataclass(frozen=True, slots=True)
class Overview:
    """The house now, and since some time."""

    live: dict[str, int]
    accounts: dict[str, int]
    started: int
    ended: dict[str, int]
    refused: int
    # Sign-ins on devices that the account had never used.
    new_devices: int


@dataclass(frozen=True, slots=True)
class Point:
    """What happened from `at` on, up to the next point."""

    at: datetime
    started: int
    ended: int
    refused: int


async def read(database: Database, principal: Principal, since: datetime, now: datetime) -> Overview | None:
    """The numbers now, and of what happened since `since`; None where the principal may not."""
    kinds = list(KINDS.values())
    live = await asyncio.gather(
        *(desk.count_sessions(database, principal, SessionFilter(kind=kind.name), now) for kind in kinds)
    )
    accounts = await asyncio.gather(
        *(desk.list_accounts(database, principal, kind, AccountFilter(), now, most=0) for kind in kinds)
    )
    happened = await database.scan(_read_happened, principal, since, now)
    if happened is None or None in live or None in accounts:
        return None
    return Overview(
        live={kind.name: one or 0 for kind, one in zip(kinds, live, strict=True)},
        accounts={kind.name: one.total if one else 0 for kind, one in zip(kinds, accounts, strict=True)},
        started=sum(count for (type_, _), count in happened.items() if type_ == Type.STARTED),
        ended={cause: count for (type_, cause), count in happened.items() if type_ == Type.ENDED},
        refused=sum(count for (type_, _), count in happened.items() if type_ == Type.REFUSED),
        new_devices=happened.get((Type.STARTED.value, "device"), 0),
    )


async def read_series(
    database: Database, principal: Principal, span: Span, now: datetime, ahead: timedelta = timedelta()
) -> list[Point] | None:
    """Sign-ins, ends and refusals over a span up to now, oldest first; None where the principal may not.

    Days begin at midnight on a clock that is `ahead` of UTC, as far as whole hours, which are what is counted, allow.
    """
    return await database.scan(_read_series, principal, span, now, ahead)


def _read_happened(
    db: Connection, principal: Principal, since: datetime, now: datetime
) -> dict[tuple[str, str], int] | None:
    """How many events of each type and cause there were since `since`."""
    begin = clock.to_microseconds(since)
    first = -(-begin // counts.HOUR) * counts.HOUR
    happened: dict[tuple[str, str], int] = {}
    if not db.scalar(select(may_see(principal, now))):
        return None
    hours = counts.events_by_hour(db, first, 2**62).c
    whole = select(hours.type, hours.cause, func.sum(hours.count)).group_by(hours.type, hours.cause)
    for part in (whole, counts.events_between(begin, first)):
        for type_, cause, count in db.execute(part.where(may_see(principal, now))):
            happened[type_, cause] = happened.get((type_, cause), 0) + int(count)
    return happened


def _read_series(
    db: Connection, principal: Principal, span: Span, now: datetime, ahead: timedelta
) -> list[Point] | None:
    number, hours = SPANS[span]
    step = hours * counts.HOUR
    shift = ahead // timedelta(hours=1) * counts.HOUR
    last = (clock.to_microseconds(now) + shift) // step * step - shift
    first = last - (number - 1) * step
    if not db.scalar(select(may_see(principal, now))):
        return None
    counted = counts.events_by_hour(db, first, last + step).c
    at = ((counted.at + shift) // step * step - shift).label("begin")
    wanted = (Type.STARTED.value, Type.ENDED.value, Type.REFUSED.value)
    found = (
        select(at, counted.type, func.sum(counted.count))
        .where(counted.type.in_(wanted), may_see(principal, now))
        .group_by(literal_column("1"), literal_column("2"))
    )
    sums: dict[tuple[int, str], int] = {(begin, type_): int(count) for begin, type_, count in db.execute(found)}
    return [
        Point(clock.from_microseconds(begin), *(sums.get((begin, type_), 0) for type_ in wanted))
        for begin in range(first, last + step, step)
    ]

"""Live sessions, by page, with exact counts.

How many match decides how they are found: a few by the index of what is rarest, and sorted; many by walking the list's
own order until the page is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select, true, union_all

from models import clock, counts, cutoffs
from models.database import Database
from models.desk import indexes, searches
from models.desk.searches import Search
from models.filters import SessionFilter
from models.paging import RANKS, Cursor, Order, Page, Place
from models.principals import Principal, is_live, may_see
from models.schema import FACETS, KINDS, Kind, Role, Row
from models.sessions import visible_to

# The indexes in whose order lists are walked, by the column that they are sorted by.
_INDEXES = {"created_at": "started", "last_seen_at": "seen"}


async def list_sessions(
    database: Database,
    principal: Principal,
    sought: SessionFilter,
    now: datetime,
    after: str | None = None,
    before: str | None = None,
    most: int = 50,
) -> Page | None:
    """A page of live sessions, of both kinds unless one is asked for, each with its account and `kind`.

    None where the principal may not. Raises InvalidCursor, and TooWide.
    """
    order = sought.order(Place.read(after, before))
    # Side by side: counting half a million rows takes a thread as long as all the rest.
    found = await asyncio.gather(
        *(database.scan(_read_sessions, principal, kind, sought, now, order, most) for kind in sought.kinds)
    )
    if None in found:
        return None

    def key(row: Row) -> Cursor:
        return Cursor(clock.to_microseconds(row[order.sort]), RANKS[row["kind"]], row["id"])

    rows, total = [row for one in found if one for row in one[1]], sum(one[0] for one in found if one)
    page = order.cut(rows, most, key, total)
    return replace(page, rows=await database.scan(_show_sessions, principal, page.rows, now)) if page.rows else page


async def count_sessions(database: Database, principal: Principal, sought: SessionFilter, now: datetime) -> int | None:
    """How many live sessions there are; None where the principal may not know. Raises TooWide."""
    page = await list_sessions(database, principal, sought, now, most=0)
    return None if page is None else page.total


def list_session_ids(
    db: Connection, kind: Kind, sought: SessionFilter, now: datetime, place: Place, most: int
) -> Sequence[Row]:
    """The ids of live sessions of `kind`, each with when it was started; for whoever was allowed to end them."""
    return _find_sessions(db, kind, sought, now, sought.order(place), most, true(), is_counted=False)[1]


async def list_choices(
    database: Database, principal: Principal, now: datetime
) -> dict[str, list[tuple[str, int]]] | None:
    """The live sessions by country, browser, system and kind of device: each value with how many, most first."""
    return await database.scan(_read_choices, principal, now)


def _read_sessions(
    db: Connection, principal: Principal, kind: Kind, sought: SessionFilter, now: datetime, order: Order, most: int
) -> tuple[int, list[Row]] | None:
    allowed = may_see(principal, now)
    # Before accounts are searched for: that they are too many tells something, too.
    if sought.q and not db.scalar(select(allowed)):
        return None
    # One more than is shown: it tells whether there are others.
    total, rows = _find_sessions(db, kind, sought, now, order, most + 1 if most else 0, allowed)
    return None if total is None else (total, [{**row, "kind": kind.name} for row in rows])


def _show_sessions(db: Connection, principal: Principal, found: Sequence[Row], now: datetime) -> list[Row]:
    """All of the sessions that were found and are still there, in their order, each with its account."""
    shown: dict[tuple[str, int], Row] = {}
    for kind in KINDS.values():
        if ids := [row["id"] for row in found if row["kind"] == kind.name]:
            rows = db.execute(_with_account(kind, principal.kind, principal.role), principal.values(now) | {"ids": ids})
            shown |= {(kind.name, row["id"]): {**row, "kind": kind.name} for row in rows.mappings()}
    return [shown[key] for row in found if (key := (row["kind"], row["id"])) in shown]


# What proves somebody and what only queries need: neither is shown.
_INSIDE = frozenset({"id", "password_hash", "surname_key"})


@cache
def _with_account(kind: Kind, caller: Kind, role: Role) -> Select[Any]:
    """The sessions of some `ids` that a caller of this kind and role may see, with their accounts."""
    accounts, sessions = kind.accounts, kind.sessions
    beside = [column.label(f"account_{column.name}") for column in accounts.c if column.name not in _INSIDE]
    return (
        select(sessions, *beside)
        .join_from(sessions, accounts, accounts.c.id == sessions.c.account_id)
        .where(sessions.c.id.in_(bindparam("ids", expanding=True)), visible_to(caller, role, kind))
    )


def _find_sessions(
    db: Connection,
    kind: Kind,
    sought: SessionFilter,
    now: datetime,
    order: Order,
    most: int,
    allowed: ColumnElement[bool],
    *,
    is_counted: bool = True,
) -> tuple[int | None, Sequence[Row]]:
    """How many sessions match, None where that is not `allowed`, and the ids of those of the page, in its order.

    Raises TooWide where they are counted, for somebody who is waiting.
    """
    sessions, columns = kind.sessions, kind.sessions.c
    search = searches.make_search(db, kind, sought, now, searches.MOST_ACCOUNTS if is_counted else None)
    total, most_read = None, _count_most_read(search, most)
    # Where it would be read even if all of its bound match, it is not counted first.
    if is_counted and (not most or search.plan.bound > most_read):
        total = searches.count_matching(db, search, now, allowed)
        if not most or not total:
            return total, []
    if (total or search.plan.bound) <= most_read:
        # No row is read to learn that it did not expire.
        expired = searches.select_expired(kind, now, columns.id).cte("expired").prefix_with("MATERIALIZED")
        matching = search.select(search.plan.index, columns.id, columns[order.sort])
        matching = matching.outerjoin(expired, expired.c.id == columns.id).where(expired.c.id.is_(None))
        return indexes.read_few(db, matching, order, kind.name, most, allowed)
    walked = search.select(_INDEXES[order.sort], columns.id, columns[order.sort])
    walked = walked.where(is_live(kind, now), *sought.implied(kind), allowed)
    return total, db.execute(order.page(walked, sessions, kind.name, most)).mappings().all()


def _count_most_read(search: Search, most: int) -> int:
    """Up to how many that match they are read and sorted; of more the list is walked until `most` were met."""
    bound = search.plan.bound
    if search.plan.is_few:
        return bound
    if not search.is_narrow:
        return 0
    # Walking to the last of `most` among so many passes more than the bound.
    return search.everything * most // (bound + 1)


def _read_choices(db: Connection, principal: Principal, now: datetime) -> dict[str, list[tuple[str, int]]] | None:
    kinds = list(KINDS.values())
    allowed, *are_waiting = db.execute(select(may_see(principal, now), *map(cutoffs.is_waiting, kinds))).one()
    if not allowed:
        return None
    parts: list[Select[Any]] = []
    for kind, is_waiting in zip(kinds, are_waiting, strict=True):
        columns = kind.sessions.c
        facets = [columns[name] for name in FACETS]
        if is_waiting:
            parts.append(select(*facets, func.count().label("count")).where(is_live(kind, now)).group_by(*facets))
        else:
            kept = counts.of_make(kind.name, {})
            parts.append(kept.with_only_columns(*(kept.selected_columns[name] for name in (*FACETS, "count"))))
            parts.append(searches.select_expired(kind, now, *facets, (-func.count()).label("count")).group_by(*facets))
    counted = union_all(*parts).subquery().c
    made = [counted[name] for name in FACETS]
    found: dict[str, dict[str, int]] = {name: {} for name in FACETS}
    grouped = select(*made, func.sum(counted.count)).where(may_see(principal, now)).group_by(*made)
    for *values, count in db.execute(grouped):
        for name, value in zip(FACETS, values, strict=True):
            found[name][value] = found[name].get(value, 0) + int(count)
    return {
        name: sorted(((value, count) for value, count in some.items() if count), key=lambda one: (-one[1], one[0]))
        for name, some in found.items()
    }

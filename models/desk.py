"""What staff see: every session, account and event, by page, with exact counts.

How many match decides how they are found: a few by the index of what is rarest, and sorted; many by walking the list's
own order until the page is full. Whether the principal may see them is part of each statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    CompoundSelect,
    Connection,
    FromClause,
    Select,
    Table,
    case,
    false,
    func,
    or_,
    select,
    true,
    tuple_,
    union,
    union_all,
)

from models import clock, counts, cutoffs
from models.database import Database, is_among
from models.filters import AccountFilter, EventFilter, SessionFilter, Term, begins_of_account
from models.paging import RANKS, Cursor, Page, Place
from models.principals import Principal, cut_at, is_live, may_see
from models.schema import EVENTS, FACETS, KINDS, Kind, Row

# So many rows are read and sorted rather than a list walked.
FEW = 4000
# So many are counted one by one by the index of one of several conditions, whatever the others ask of them.
MANY = 40_000
# So many accounts may begin as a search for their sessions says.
MOST_ACCOUNTS = 1000
MOST_STREAMED = 1000


class TooWide(Exception):
    """A search that finds more than MOST_ACCOUNTS accounts."""


class NoLongerStaff(Exception):
    """Whoever is read to has lost the role, or the session."""


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
    place, column = Place.read(after, before), _sort_column(sought)
    kinds = [KINDS[sought.kind]] if sought.kind else list(KINDS.values())
    # Side by side: counting half a million rows takes a thread as long as all the rest.
    found = await asyncio.gather(
        *(database.scan(_read_sessions, principal, kind, sought, now, place, most) for kind in kinds)
    )
    if None in found:
        return None

    def key(row: Row) -> Cursor:
        return Cursor(clock.to_microseconds(row[column]), RANKS[row["kind"]], row["id"])

    rows, total = [row for one in found if one for row in one[1]], sum(one[0] for one in found if one)
    page = place.cut(rows, most, sought.sort.startswith("-"), key, total)
    return replace(page, rows=await database.scan(_show_sessions, principal, page.rows, now)) if page.rows else page


async def count_sessions(database: Database, principal: Principal, sought: SessionFilter, now: datetime) -> int | None:
    """How many live sessions there are; None where the principal may not know. Raises TooWide."""
    page = await list_sessions(database, principal, sought, now, most=0)
    return None if page is None else page.total


def list_session_ids(
    db: Connection, kind: Kind, sought: SessionFilter, now: datetime, place: Place, most: int
) -> Sequence[Row]:
    """The ids of live sessions of `kind`, each with when it was started; for whoever was allowed to end them."""
    return _find_sessions(db, kind, sought, now, place, most, true(), is_counted=False)[1]


def _read_sessions(
    db: Connection, principal: Principal, kind: Kind, sought: SessionFilter, now: datetime, place: Place, most: int
) -> tuple[int, list[Row]] | None:
    allowed = may_see(principal, now)
    if not db.scalar(select(allowed)):
        return None
    # One more than is shown: it tells whether there are others.
    total, rows = _find_sessions(db, kind, sought, now, place, most + 1 if most else 0, allowed)
    return total, [{**row, "kind": kind.name} for row in rows]


def _show_sessions(db: Connection, principal: Principal, found: Sequence[Row], now: datetime) -> list[Row]:
    """All of the sessions that were found and are still there, in their order, each with its account."""
    shown: dict[tuple[str, int], Row] = {}
    for kind in KINDS.values():
        accounts, sessions = kind.accounts, kind.sessions
        if not (ids := [row["id"] for row in found if row["kind"] == kind.name]):
            continue
        beside = [column.label(f"account_{column.name}") for column in accounts.c if column.name not in _INSIDE]
        rows = db.execute(
            select(sessions, *beside)
            .join_from(sessions, accounts, accounts.c.id == sessions.c.account_id)
            .where(sessions.c.id.in_(ids), is_live(kind, now), may_see(principal, now))
        ).mappings()
        shown |= {(kind.name, row["id"]): {**row, "kind": kind.name} for row in rows.all()}
    return [shown[key] for row in found if (key := (row["kind"], row["id"])) in shown]


# What proves somebody and what only queries need: neither is shown.
_INSIDE = frozenset({"id", "password_hash", "surname_key"})


@dataclass(frozen=True, slots=True)
class _Plan:
    """How rows are found: by which index, among how many."""

    index: str | None
    bound: int

    @property
    def is_few(self) -> bool:
        """Whether they are read and sorted."""
        return self.bound <= FEW


@dataclass(frozen=True, slots=True)
class _Search:
    """What is asked of the sessions of a kind, and how it is found."""

    kind: Kind
    facets: dict[str, str]
    terms: list[Term]
    plan: _Plan
    # All that is asked, but that they are live.
    conditions: list[ColumnElement[bool]]

    @property
    def is_narrow(self) -> bool:
        """Whether what matches is counted by the index of the plan."""
        return self.plan.is_few or (len(self.terms) > 1 and self.plan.bound <= MANY)

    def select(self, *what: ColumnElement[Any]) -> Select[Any]:
        """`what` of the rows that match, those that expired among them, by the index of the plan."""
        found = _by(self.plan.index, self.kind.sessions, select(*what)).where(*self.conditions)
        return found.where(_has_make(self.kind, self.facets)) if self.plan.index == "make" else found


def _search(db: Connection, kind: Kind, sought: SessionFilter, now: datetime) -> _Search:
    """Raises TooWide."""
    columns, of_accounts = kind.sessions.c, _of_accounts(db, kind, sought.q) if sought.q else None
    facets, terms = sought.facets, sought.terms(kind, of_accounts, now)
    if cutoffs.is_waiting(db, kind):
        # Rows of a cut-off that wait to be swept: they are no sessions any more, and may be most.
        at = db.scalar(select(cut_at(kind)))
        terms.append(Term("started", columns.created_at > at))
    plan = _plan(db, kind, facets, terms)
    asked = [columns[name] == value for name, value in facets.items()]
    return _Search(kind, facets, terms, plan, [*asked, *(term.condition for term in terms)])


def _sort_column(sought: SessionFilter) -> str:
    return "created_at" if "started" in sought.sort else "last_seen_at"


def _find_sessions(
    db: Connection,
    kind: Kind,
    sought: SessionFilter,
    now: datetime,
    place: Place,
    most: int,
    allowed: ColumnElement[bool],
    *,
    is_counted: bool = True,
) -> tuple[int, Sequence[Row]]:
    """How many sessions match, and the ids of those of the page, in its order; none where that is not `allowed`."""
    sessions, columns = kind.sessions, kind.sessions.c
    search = _search(db, kind, sought, now)
    total = _count_sessions(db, search, now, allowed) if is_counted else 0
    if not most or (is_counted and not total):
        return total, []
    is_descending = sought.sort.startswith("-")
    sort = columns[_sort_column(sought)]
    listed: FromClause = sessions
    if _is_read(db, search, total, most):
        listed = _fence(search.select(columns.id, sort).where(is_live(kind, now)))
        page = select(listed)
    else:
        walked = _by("started" if sort is columns.created_at else "seen", sessions, select(columns.id, sort))
        page = walked.where(*search.conditions, is_live(kind, now), *sought.implied(kind, now))
    key, number = listed.c[sort.name], listed.c.id
    page = page.where(*place.follows(key, number, kind.name, is_descending))
    page = page.order_by(*_ordered(key, number, is_descending is not place.is_back))
    rows: Sequence[Row] = db.execute(page.where(allowed).limit(most)).mappings().all()
    return total, rows


def _ordered(sort: ColumnElement[Any], row: ColumnElement[Any], is_down: bool) -> tuple[ColumnElement[Any], ...]:
    return (sort.desc(), row.desc()) if is_down else (sort, row)


def _is_read(db: Connection, search: _Search, total: int, most: int) -> bool:
    """Whether what matches is read and sorted, and the list not walked until `most` of `total` were met."""
    if search.plan.is_few or not search.is_narrow or not total:
        return search.plan.is_few
    met = (db.scalar(counts.sum_sessions(search.kind.name, {})) or 0) * most // total
    return bool(met > search.plan.bound)


def _fence(matching: Select[Any]) -> CTE:
    """The few rows that match, found first: a planner that sees the place or the limit would walk the list for them."""
    return matching.cte("matching").prefix_with("MATERIALIZED")


def _by(index: str | None, table: Table, found: Select[Any]) -> Select[Any]:
    """The same, by this index of the table; PostgreSQL, which knows how often each value is there, needs no hint."""
    name = f"ix_{table.name}_{index}"
    if not any(one.name == name for one in table.indexes):
        return found
    return found.with_hint(table, f"INDEXED BY {name}", "sqlite")


def _unindexed(kind: Kind, found: Select[Any]) -> Select[Any]:
    """The same, of accounts in the order of their ids."""
    return found.with_hint(kind.accounts, "NOT INDEXED", "sqlite")


def _plan(db: Connection, kind: Kind, facets: dict[str, str], terms: list[Term]) -> _Plan:
    """By which index the fewest rows are read, and how many those are at most; past MANY they are not counted."""
    plan = _Plan("make" if facets else None, int(db.scalar(counts.sum_sessions(kind.name, facets)) or 0))
    # Of a condition that is alone its own index counts the rows, however many they are.
    most = MANY if len(terms) > 1 else FEW
    for term in terms:
        if plan.is_few:
            break
        capped = _by(term.index, kind.sessions, select(kind.sessions.c.id)).where(term.condition).limit(most + 1)
        bound = db.scalar(select(func.count()).select_from(capped.subquery())) or 0
        if bound <= most and bound < plan.bound:
            plan = _Plan(term.index, bound)
    return plan


def _has_make(kind: Kind, facets: dict[str, str]) -> ColumnElement[bool]:
    """Which sessions are of a make that has these values: the makes are few, and the index is of all four."""
    made = counts.of_make(kind.name, facets)
    makes = made.with_only_columns(*(made.selected_columns[name] for name in FACETS))
    return tuple_(*(kind.sessions.c[name] for name in FACETS)).in_(makes)


def _count_sessions(db: Connection, search: _Search, now: datetime, allowed: ColumnElement[bool]) -> int:
    """How many live sessions match; none where that is not `allowed`."""
    sessions = search.kind.sessions
    # The rows that expired and wait to be swept are few: they are counted by themselves, and taken off.
    expired = select(func.count()).where(*search.conditions, sessions.c.expires_at <= now).select_from(sessions)
    by_expiry = _by("expires_at", sessions, expired)
    counted = select(_count_rows(search).scalar_subquery(), by_expiry.scalar_subquery())
    found = db.execute(counted.where(allowed)).first()
    return int(found[0]) - int(found[1]) if found else 0


def _count_rows(search: _Search) -> Select[Any]:
    """How many rows match, those that expired among them."""
    kind, facets, terms, plan = search.kind, search.facets, search.terms, search.plan
    sessions, kept = kind.sessions, counts.sum_sessions(kind.name, facets)
    if not terms:
        return kept
    if search.is_narrow:
        return search.select(func.count())
    # Where many match: each index knows the makes and when a session was started, one alone when it was seen.
    indexes = [term.index for term in terms]
    index = "seen" if "seen" in indexes else indexes[0]
    one_by_one = _by(index, sessions, select(func.count()).select_from(sessions)).where(*search.conditions)
    if facets or len(terms) > 1 or not terms[0].outside:
        return one_by_one
    # Where no more than a sixteenth is outside of a range, those are counted instead. Whether it is so costs little.
    most = plan.bound // 16
    others = [_by(index, sessions, select(sessions.c.id)).where(part) for part in terms[0].outside]
    outside = union_all(*others).limit(most + 1).subquery()
    left_out = select(func.count().label("count")).select_from(outside).cte("left_out").prefix_with("MATERIALIZED")
    rest = kept.scalar_subquery() - left_out.c.count
    return select(case((left_out.c.count <= most, rest), else_=one_by_one.scalar_subquery()))


def _of_accounts(db: Connection, kind: Kind, q: str) -> ColumnElement[bool]:
    """Which sessions are of an account that `q` is the beginning of; raises TooWide."""
    found = list(db.scalars(_matching(kind, q).limit(MOST_ACCOUNTS + 1)))
    if len(found) > MOST_ACCOUNTS:
        raise TooWide
    return is_among(db, kind.sessions.c.account_id, found)


def _matching(kind: Kind, q: str) -> CompoundSelect[Any]:
    """The ids of the accounts that `q` is the beginning of, by the index of each way to know them."""
    return union(*(select(kind.accounts.c.id).where(way) for way in begins_of_account(kind, q)))


async def list_choices(
    database: Database, principal: Principal, now: datetime
) -> dict[str, list[tuple[str, int]]] | None:
    """The live sessions by country, browser, system and kind of device: each value with how many, most first."""
    return await database.scan(_read_choices, principal, now)


def _read_choices(db: Connection, principal: Principal, now: datetime) -> dict[str, list[tuple[str, int]]] | None:
    if not db.scalar(select(may_see(principal, now))):
        return None
    parts: list[Select[Any]] = []
    for kind in KINDS.values():
        columns = kind.sessions.c
        facets = [columns[name] for name in FACETS]
        if cutoffs.is_waiting(db, kind):
            parts.append(select(*facets, func.count().label("count")).where(is_live(kind, now)).group_by(*facets))
        else:
            kept = counts.of_make(kind.name, {})
            parts.append(kept.with_only_columns(*(kept.selected_columns[name] for name in (*FACETS, "count"))))
            expired = _by("expires_at", kind.sessions, select(*facets, (-func.count()).label("count")))
            parts.append(expired.where(columns.expires_at <= now).group_by(*facets))
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


async def list_accounts(
    database: Database,
    principal: Principal,
    kind: Kind,
    sought: AccountFilter,
    now: datetime,
    after: str | None = None,
    before: str | None = None,
    most: int = 50,
) -> Page | None:
    """A page of accounts, each with `kind` and `live`, the number of its live sessions.

    None where the principal may not. Raises InvalidCursor.
    """
    return await database.scan(_read_accounts, principal, kind, sought, now, Place.read(after, before), most)


async def get_account(
    database: Database, principal: Principal, kind: Kind, account_id: int, now: datetime
) -> Row | None:
    """One account as `list_accounts` gives it; None where there is none, or the principal may not."""
    return await database.scan(_read_account, principal, kind, account_id, now)


def _read_account(db: Connection, principal: Principal, kind: Kind, account_id: int, now: datetime) -> Row | None:
    rows = _show_accounts(db, principal, kind, [kind.accounts.c.id == account_id], now)
    return rows[0] if rows else None


def _read_accounts(
    db: Connection, principal: Principal, kind: Kind, sought: AccountFilter, now: datetime, place: Place, most: int
) -> Page | None:
    columns = kind.accounts.c
    total = _count_accounts(db, principal, kind, sought, now)
    if total is None:
        return None
    is_descending = sought.sort.startswith("-")
    sort = columns.surname_key if sought.sort == "surname" else columns.id
    follows = place.follows(sort, columns.id, kind.name, is_descending)
    order = _ordered(sort, columns.id, is_descending is not place.is_back)
    found = _by(sought.index, kind.accounts, select(columns.id))
    if sought.q and total > FEW:
        # Any of the list's own order soon is one of so many.
        found = _by("surname_key", kind.accounts, found) if sort is columns.surname_key else _unindexed(kind, found)
        found = found.where(or_(*begins_of_account(kind, sought.q)))
    elif sought.q:
        found = found.where(columns.id.in_(_matching(kind, sought.q)))
    found = found.where(*sought.conditions(kind), *follows, may_see(principal, now)).order_by(*order).limit(most + 1)
    rows = _show_accounts(db, principal, kind, [columns.id.in_(db.scalars(found).all())], now)

    def key(row: Row) -> Cursor:
        return Cursor(row[sort.name], RANKS[kind.name], row["id"])

    return place.cut(rows, most, is_descending, key, total)


def _count_accounts(
    db: Connection, principal: Principal, kind: Kind, sought: AccountFilter, now: datetime
) -> int | None:
    accounts = kind.accounts

    def count(sought: AccountFilter) -> int | None:
        counted = _by(sought.index, accounts, select(func.count()).select_from(accounts))
        counted = counted.where(*sought.conditions(kind))
        ways = begins_of_account(kind, sought.q) if sought.q else [true()]
        # Each way by its own index, without those that an earlier one finds.
        parts = [
            counted.where(way, *(~func.coalesce(other, false()) for other in ways[:number])).scalar_subquery()
            for number, way in enumerate(ways)
        ]
        found = db.execute(select(*parts).where(may_see(principal, now))).first()
        return None if found is None else sum(int(part) for part in found)

    if sought == AccountFilter(state="active", sort=sought.sort):
        # Most are: those that are not are fewer to count.
        others = [count(AccountFilter(state=state)) for state in (None, "disabled", "unconfirmed")]
        return None if None in others else (others[0] or 0) - (others[1] or 0) - (others[2] or 0)
    return count(sought)


def _show_accounts(
    db: Connection, principal: Principal, kind: Kind, wanted: list[ColumnElement[bool]], now: datetime
) -> list[Row]:
    accounts, sessions = kind.accounts, kind.sessions.c
    shown = [column for column in accounts.c if column.name != "password_hash"]
    live = select(func.count()).where(sessions.account_id == accounts.c.id, is_live(kind, now)).scalar_subquery()
    rows = db.execute(select(*shown, live.label("live")).where(*wanted, may_see(principal, now))).mappings()
    return [{**row, "kind": kind.name} for row in rows]


async def list_events(
    database: Database,
    principal: Principal,
    sought: EventFilter,
    now: datetime,
    after: str | None = None,
    before: str | None = None,
    most: int = 50,
) -> Page | None:
    """A page of the log, newest first; each with `account_label` and `by_label`, what the accounts are called.

    None where the principal may not. Raises InvalidCursor.
    """
    return await database.scan(_read_events, principal, sought, now, Place.read(after, before), most)


async def stream_events(
    database: Database, principal: Principal, sought: EventFilter, now: datetime, most: int = MOST_STREAMED
) -> AsyncIterator[list[Row]]:
    """All that is sought, newest first, `most` at a time, as `list_events` gives them.

    Raises NoLongerStaff where the principal may not see them, or not the rest of them.
    """
    place = Place()
    while rows := await database.scan(_read_some_events, principal, sought, now, place, most):
        yield rows
        place = Place(_event_key(rows[-1]))
    if rows is None:
        raise NoLongerStaff


def _event_key(row: Row) -> Cursor:
    return Cursor(clock.to_microseconds(row["at"]), 0, row["id"])


def _read_some_events(
    db: Connection, principal: Principal, sought: EventFilter, now: datetime, place: Place, most: int
) -> list[Row] | None:
    """None where the principal may not see them."""
    rows = _find_events(db, principal, sought, now, place, most, _plan_events(db, sought.terms()))
    return rows if rows or db.scalar(select(may_see(principal, now))) else None


def _read_events(
    db: Connection, principal: Principal, sought: EventFilter, now: datetime, place: Place, most: int
) -> Page | None:
    terms = sought.terms()
    plan = _plan_events(db, terms)
    if sought.is_counted:
        asked = {"type": sought.type, "cause": sought.cause, "kind": sought.kind}
        total = counts.count_events(db, sought.since, sought.until, may_see(principal, now), **asked)
    else:
        other = next(term.index for term in terms if term.index not in ("cause", "type", "at"))
        counted = _by(plan.index or other, EVENTS, select(func.count()).select_from(EVENTS))
        counted = counted.where(*(term.condition for term in terms))
        total = db.scalar(select(counted.scalar_subquery()).where(may_see(principal, now)))
    if total is None:
        return None
    rows = _find_events(db, principal, sought, now, place, most + 1, plan) if total else []
    return place.cut(rows, most, True, _event_key, total)


def _plan_events(db: Connection, terms: list[Term]) -> _Plan:
    plan = _Plan(None, FEW + 1)
    for term in terms:
        if term.index is None or plan.is_few:
            continue
        capped = _by(term.index, EVENTS, select(EVENTS.c.id)).where(term.condition).limit(FEW + 1)
        bound = db.scalar(select(func.count()).select_from(capped.subquery())) or 0
        # What an account did is in no order that a list could walk: it is read and sorted, however much it is.
        if bound <= FEW or term.index == "kind_account_id_id":
            plan = _Plan(term.index, min(bound, FEW))
    return plan


def _find_events(
    db: Connection, principal: Principal, sought: EventFilter, now: datetime, place: Place, most: int, plan: _Plan
) -> list[Row]:
    columns, terms = EVENTS.c, sought.terms()
    is_down = not place.is_back
    listed: FromClause = EVENTS
    page = select(columns.id, columns.at).where(*(term.condition for term in terms))
    if plan.is_few:
        listed = _fence(_by(plan.index, EVENTS, page))
        page = select(listed)
    else:
        page = _by(next((term.index for term in terms if term.index in ("cause", "type", "by")), "at"), EVENTS, page)
    page = page.where(*place.follows(listed.c.at, listed.c.id, "user", True), may_see(principal, now))
    ids = db.scalars(page.order_by(*_ordered(listed.c.at, listed.c.id, is_down)).limit(most)).all()
    found = select(EVENTS).where(columns.id.in_(ids), may_see(principal, now))
    rows = db.execute(found.order_by(*_ordered(columns.at, columns.id, is_down))).mappings().all()
    labels = _read_labels(db, rows)
    return [
        {
            **row,
            "account_label": labels.get((row["kind"], row["account_id"])),
            "by_label": labels.get((row["by_kind"], row["by_id"])),
        }
        for row in rows
    ]


def _read_labels(db: Connection, rows: Sequence[Row]) -> dict[tuple[str, int], str]:
    """What the accounts of these events are called, by kind and id."""
    labels: dict[tuple[str, int], str] = {}
    named = {(row["kind"], row["account_id"]) for row in rows} | {(row["by_kind"], row["by_id"]) for row in rows}
    for kind in KINDS.values():
        columns = kind.accounts.c
        ids = [number for name, number in named if name == kind.name and number is not None]
        contacts = [columns[contact] for contact in kind.contacts]
        for row in db.execute(select(columns.id, columns.surname, columns.name, *contacts).where(columns.id.in_(ids))):
            number, surname, name, *known = row
            label = " ".join(filter(None, (name, surname))) or next(filter(None, known), "")
            labels[kind.name, number] = label
    return labels

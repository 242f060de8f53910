"""What staff see: every session, account and event, by page, with exact counts.

How many match decides how they are found: a few by the index of what is rarest, and sorted; many by walking the list's
own order until the page is full. Whether the principal may see them is part of each statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Table,
    bindparam,
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
from models.database import Database, is_among, is_postgres
from models.filters import AccountFilter, EventFilter, SessionFilter, Term, begins_of_account
from models.paging import RANKS, Cursor, Order, Page, Place
from models.principals import Principal, cut_at, is_live, may_see, seeing
from models.schema import EVENTS, FACETS, KINDS, Kind, Role, Row
from models.spans import Span

# So many rows are read and sorted rather than a list walked.
FEW = 4000
# Of several conditions: up to so many rows of the rarest are read to count those that meet the others.
MANY = 40_000
# Where no more than one of so many is outside of a range, as far as must be counted to know, those outside are counted,
# and not those inside.
ONE_OUTSIDE_OF = 16
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
    """The live sessions of some `ids` with their accounts, for a caller of this kind and role."""
    accounts, sessions = kind.accounts, kind.sessions
    beside = [column.label(f"account_{column.name}") for column in accounts.c if column.name not in _INSIDE]
    return (
        select(sessions, *beside)
        .join_from(sessions, accounts, accounts.c.id == sessions.c.account_id)
        .where(sessions.c.id.in_(bindparam("ids", expanding=True)), is_live(kind), seeing(caller, role))
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """How rows are found: by which index, among how many."""

    index: str | None
    bound: int
    # Of which ranges it is known that nearly all are in them: by their indexes.
    wide: frozenset[str | None] = frozenset()

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
    # How many rows the kind has.
    everything: int

    @property
    def is_narrow(self) -> bool:
        """Whether what matches is counted by the index of the plan."""
        return self.plan.is_few or (len(self.terms) > 1 and self.plan.bound <= MANY)

    @property
    def spans(self) -> tuple[Span, Span] | None:
        """When what matches was started and last seen, where nothing else is asked."""
        spans = {term.index: term.span for term in self.terms}
        if self.facets or None in spans.values():
            return None
        return spans.get("started") or Span(), spans.get("seen") or Span()

    def select(self, index: str | None, *what: ColumnElement[Any]) -> Select[Any]:
        """`what` of the rows that match, those that expired among them, by an index."""
        return self.within(_by(index, self.kind.sessions, select(*what).select_from(self.kind.sessions)), index)

    def within(self, found: Select[Any], index: str | None) -> Select[Any]:
        """What matches of that which is found by an index."""
        columns = self.kind.sessions.c
        is_made = [columns[name] == value for name, value in self.facets.items()]
        if index == "make":
            # The makes are few, and the index is of all four.
            made = counts.of_make(self.kind.name, self.facets)
            makes = made.with_only_columns(*(made.selected_columns[name] for name in FACETS))
            is_made = [tuple_(*(columns[name] for name in FACETS)).in_(makes)]
        return found.where(*is_made, *(term.by(index) for term in self.terms))


def _search(db: Connection, kind: Kind, sought: SessionFilter, now: datetime, most_accounts: int | None) -> _Search:
    """Raises TooWide."""
    of_accounts = _of_accounts(db, kind, sought.q, most_accounts) if sought.q else None
    facets = sought.facets
    is_waiting, bound, everything = db.execute(_known_before(kind, tuple(facets.items()))).one()
    if is_waiting:
        # Rows of a cut-off that wait to be swept: they are no sessions any more, and may be most.
        after_cut = db.execute(select(cut_at(kind))).scalar_one() + clock.MICROSECOND
        sought = replace(sought, started_from=max(sought.started_from or after_cut, after_cut))
    terms = sought.terms(kind, of_accounts, now, holds_seen=is_postgres(db))
    plan = _plan(db, kind, terms, _Plan("make" if facets else None, int(bound)))
    return _Search(kind, facets, terms, plan, int(everything))


# Of what is asked most the statements are kept as they were built.
@lru_cache(maxsize=64)
def _known_before(kind: Kind, facets: tuple[tuple[str, str], ...]) -> Select[Any]:
    """Whether sessions wait to be swept; how many rows there are of these facets, and of any."""
    sums = (counts.sum_sessions(kind.name, some).scalar_subquery() for some in (dict(facets), {}))
    return select(cutoffs.is_waiting(kind), *sums)


# The indexes in whose order lists are walked, by the column that they are sorted by.
_INDEXES = {"created_at": "started", "last_seen_at": "seen"}


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
    search = _search(db, kind, sought, now, MOST_ACCOUNTS if is_counted else None)
    total, most_read = None, _count_most_read(search, most)
    # Where it would be read even if all of its bound match, it is not counted first.
    if is_counted and (not most or search.plan.bound > most_read):
        total = _count_sessions(db, search, now, allowed)
        if not most or not total:
            return total, []
    if (total or search.plan.bound) <= most_read:
        # No row is read to learn that it did not expire.
        expired = _expired(kind, now, columns.id).cte("expired").prefix_with("MATERIALIZED")
        matching = search.select(search.plan.index, columns.id, columns[order.sort])
        matching = matching.outerjoin(expired, expired.c.id == columns.id).where(expired.c.id.is_(None))
        return _read_few(db, matching, order, kind.name, most, allowed)
    walked = search.select(_INDEXES[order.sort], columns.id, columns[order.sort])
    walked = walked.where(is_live(kind, now), *sought.implied(kind), allowed)
    return total, db.execute(order.page(walked, sessions, kind.name, most)).mappings().all()


def _count_most_read(search: _Search, most: int) -> int:
    """Up to how many that match they are read and sorted; of more the list is walked until `most` were met."""
    bound = search.plan.bound
    if search.plan.is_few:
        return bound
    if not search.is_narrow:
        return 0
    # Walking to the last of `most` among so many passes more than the bound.
    return search.everything * most // (bound + 1)


def _read_few(
    db: Connection, matching: Select[Any], order: Order, kind: str, most: int, allowed: ColumnElement[bool]
) -> tuple[int | None, Sequence[Row]]:
    """How many match, None where that is not `allowed`, and the rows of the page: they are read once for both."""
    # Found first: a planner that sees the place or the limit would walk the list for them.
    few = matching.cte("matching").prefix_with("MATERIALIZED")
    total = select(func.count().label("total")).select_from(few).subquery()
    page = order.page(select(few), few, kind, most).subquery()
    # Where the page is empty, a row with the total alone.
    found = select(total.c.total, page).select_from(total.outerjoin(page, true())).where(allowed)
    rows = db.execute(order.ordered(found, page)).mappings().all()
    return (rows[0]["total"] if rows else None), [row for row in rows if row["id"] is not None]


def _by(index: str | None, table: Table, found: Select[Any]) -> Select[Any]:
    """The same, by this index of the table; PostgreSQL, which knows how often each value is there, needs no hint."""
    name = f"ix_{table.name}_{index}"
    if not any(one.name == name for one in table.indexes):
        return found
    return found.with_hint(table, f"INDEXED BY {name}", "sqlite")


def _expired(kind: Kind, now: datetime, *what: ColumnElement[Any]) -> Select[Any]:
    """`what` of the rows that expired and wait to be swept: they are few, and found by themselves."""
    found = _by("expires_at", kind.sessions, select(*what).select_from(kind.sessions))
    return found.where(kind.sessions.c.expires_at <= now)


def _unindexed(kind: Kind, found: Select[Any]) -> Select[Any]:
    """The same, of accounts in the order of their ids."""
    return found.with_hint(kind.accounts, "NOT INDEXED", "sqlite")


def _plan(db: Connection, kind: Kind, terms: list[Term], plan: _Plan) -> _Plan:
    """By which index fewer rows are read than by `plan`, and how many those are at most; past MANY not counted."""
    for term in terms:
        if plan.is_few:
            break
        # Of a condition that is alone its own index counts the rows, however many they are.
        most = min(plan.bound, MANY if len(terms) > 1 else FEW)
        # Where its whole days have more than that, no row is read to learn it.
        if term.span and db.execute(_sum_days(kind, term, term.span.whole)).scalar_one() > most:
            continue
        met = _in_order(db, kind, term, term.condition)
        # In a range that is not of times nearly all may be: those outside are fewer to count then.
        may_be_wide = most > FEW and term.outside and not term.span
        bound = _count_up_to(db, met, FEW if may_be_wide else most)
        if may_be_wide and bound > FEW:
            if _leaves_few_out(db, kind, term, plan.bound):
                plan = replace(plan, wide=plan.wide | {term.index})
                continue
            bound = _count_up_to(db, met, most)
        if bound <= most:
            plan = replace(plan, index=term.index, bound=bound)
    return plan


def _count_sessions(db: Connection, search: _Search, now: datetime, allowed: ColumnElement[bool]) -> int | None:
    """How many live sessions match; None where that is not `allowed`."""
    expired = search.within(_expired(search.kind, now, func.count()), "expires_at")
    found = db.execute(select(_count_rows(db, search, now), expired.scalar_subquery()).where(allowed)).first()
    return int(found[0]) - int(found[1]) if found else None


def _count_rows(db: Connection, search: _Search, now: datetime) -> ColumnElement[int]:
    """How many rows match, those that expired among them."""
    kind, sessions = search.kind, search.kind.sessions
    if not search.terms:
        return counts.sum_sessions(kind.name, search.facets).scalar_subquery()
    if search.is_narrow:
        return search.select(search.plan.index, func.count()).scalar_subquery()
    if search.spans and (counted := _count_spans(db, kind, *search.spans, clock.to_microseconds(now))) is not None:
        return counted
    indexes = [term.index for term in search.terms]
    # Each index holds the makes and when a session was started; one when it was seen; one the times of each make.
    index = "seen" if "seen" in indexes else "make" if search.facets and set(indexes) == {"started"} else indexes[0]
    for term in search.terms:
        if len(indexes) > 1 and term.index in (index, "started"):
            continue
        # A range that is alone, or that the index does not hold: where it is quicker, those outside of it are counted.
        if term.outside and _is_less_outside(db, search, term, index):
            others = replace(search, terms=[other for other in search.terms if other is not term])
            found = [_by(term.index, sessions, select(func.count()).where(part)) for part in term.outside]
            left_out = [others.within(one, term.index) for one in found]
            return _count_rows(db, others, now) - sum(one.scalar_subquery() for one in left_out)
    return search.select(index, func.count()).scalar_subquery()


def _is_less_outside(db: Connection, search: _Search, term: Term, index: str | None) -> bool:
    """Whether those outside of a range are quicker to count than those in it, by an index."""
    kind = search.kind
    if term.index in search.plan.wide:
        return True
    if term.span:
        # The days tell, but for those that are partly in it.
        sums = (_sum_days(kind, term, span).scalar_subquery() for span in (term.span.whole, term.span.widened))
        fewest, most = map(int, db.execute(select(*sums)).one())
        # Of makes, those that lie in it alone are read.
        share = search.plan.bound / max(search.everything, 1) if index == "make" else 1
        if search.everything - fewest <= fewest * share:
            return True
        if search.everything - most >= most * share:
            return False
    return _leaves_few_out(db, kind, term, search.plan.bound)


def _leaves_few_out(db: Connection, kind: Kind, term: Term, bound: int) -> bool:
    """Whether a range leaves no more than one of ONE_OUTSIDE_OF out, of so many rows."""
    most, parts = bound // ONE_OUTSIDE_OF, [_in_order(db, kind, term, part).subquery() for part in term.outside]
    return _count_up_to(db, union_all(*(select(part.c.id) for part in parts)), most) <= most


def _in_order(db: Connection, kind: Kind, term: Term, condition: ColumnElement[bool]) -> Select[Any]:
    """The ids of what meets a condition of a term, by its index."""
    found = _by(term.index, kind.sessions, select(kind.sessions.c.id)).where(condition)
    # Of a range that is wide, PostgreSQL reads the first rows of the table where any will do.
    return found if term.column is None or not is_postgres(db) else found.order_by(term.column)


def _sum_days(kind: Kind, term: Term, span: Span) -> Select[Any]:
    """How many rows have the time that `term` is about in a span of whole days."""
    spans = {"started": Span(), "seen": Span()} | {str(term.index): span}
    return counts.sum_days(kind.name, **spans)


def _count_spans(db: Connection, kind: Kind, started: Span, seen: Span, now: int) -> ColumnElement[int] | None:
    """How many rows were started and last seen in these spans; None where that is better counted otherwise.

    Of whole days by the counts that are kept, of hours by the rows.
    """
    columns = kind.sessions.c
    days, hours = started.rounded(now)
    days_seen, hours_seen = seen.rounded(now)
    # The index of when they were started does not hold when they were seen.
    read = [counts.sum_days(kind.name, edge.widened, Span()) for _, edge in hours if seen != Span()]
    if sum(db.execute(one).scalar_one() for one in read) > MANY:
        return None
    left = [(sign, "started", edge, seen) for sign, edge in hours]
    left += [(sign, "seen", days, edge) for sign, edge in hours_seen if not days.is_empty]
    counted: ColumnElement[int] = counts.sum_days(kind.name, days, days_seen).scalar_subquery()
    for sign, index, begun, last in left:
        rows = _by(index, kind.sessions, select(func.count()).select_from(kind.sessions))
        rows = rows.where(*begun.within(columns.created_at), *last.within(columns.last_seen_at))
        counted = counted + sign * rows.scalar_subquery()
    return counted


def _count_up_to(db: Connection, found: Select[Any] | CompoundSelect[Any], most: int) -> int:
    """How many are found, `most` + 1 where there are more: no others are looked at."""
    return db.scalar(select(func.count()).select_from(found.limit(most + 1).subquery())) or 0


def _of_accounts(db: Connection, kind: Kind, q: str, most: int | None) -> ColumnElement[bool]:
    """Which sessions are of an account that `q` is the beginning of; raises TooWide past `most` of them."""
    found = db.scalars(_matching(kind, q).limit(None if most is None else most + 1)).all()
    if most is not None and len(found) > most:
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
            parts.append(_expired(kind, now, *facets, (-func.count()).label("count")).group_by(*facets))
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
    order = sought.order(place)
    found = _by(sought.index, kind.accounts, select(columns.id))
    if sought.q and total > FEW:
        # Any of the list's own order soon is one of so many.
        found = _by("surname_key", kind.accounts, found) if sought.sort == "surname" else _unindexed(kind, found)
        found = found.where(or_(*begins_of_account(kind, sought.q)))
    elif sought.q:
        found = found.where(columns.id.in_(_matching(kind, sought.q)))
    found = found.where(*sought.conditions(kind), may_see(principal, now))
    found = order.page(found, kind.accounts, kind.name, most + 1)
    rows = _show_accounts(db, principal, kind, [columns.id.in_(db.scalars(found).all())], now)

    def key(row: Row) -> Cursor:
        return Cursor(row[order.sort], RANKS[kind.name], row["id"])

    return order.cut(rows, most, key, total)


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
    order = sought.order(place)
    rows = _find_events(db, principal, sought, now, order, most, _plan_events(db, sought.terms()))[1]
    return rows if rows or db.scalar(select(may_see(principal, now))) else None


def _read_events(
    db: Connection, principal: Principal, sought: EventFilter, now: datetime, place: Place, most: int
) -> Page | None:
    order, terms = sought.order(place), sought.terms()
    if _is_held(terms):
        # What counts them tells how to find them.
        total = _count_events(db, principal, sought, now)
        few = "ip_key" if total is not None and total <= MANY else None
    else:
        few = _plan_events(db, terms)
        total = None if few else _count_events(db, principal, sought, now)
    rows: list[Row] = []
    if few:
        total, rows = _find_events(db, principal, sought, now, order, most + 1, few)
    elif total:
        # The log is walked only where that finds something.
        rows = _find_events(db, principal, sought, now, order, most + 1, None)[1]
    return None if total is None else order.cut(rows, most, _event_key, total)


def _count_events(db: Connection, principal: Principal, sought: EventFilter, now: datetime) -> int | None:
    """None where the principal may not know."""
    if sought.is_counted:
        asked = {"type": sought.type, "cause": sought.cause, "kind": sought.kind}
        return counts.count_events(db, sought.since, sought.until, may_see(principal, now), **asked)
    terms = sought.terms()
    index = next(term.index for term in terms if term.index not in ("cause", "type", "at"))
    counted = _by(index, EVENTS, select(func.count()).select_from(EVENTS)).where(*(term.condition for term in terms))
    return db.scalar(select(counted.scalar_subquery()).where(may_see(principal, now)))


def _is_held(terms: list[Term]) -> bool:
    """Whether the index of addresses holds all that is asked: with their times, so that no row is read to sort them."""
    return "ip_key" in (indexes := {term.index for term in terms}) and indexes <= {"ip_key", "at"}


def _plan_events(db: Connection, terms: list[Term]) -> str | None:
    """The index by which all that matches is read and sorted; None where the log is walked for it."""
    for term in terms:
        most = MANY if term.index == "ip_key" and _is_held(terms) else FEW
        # What an account did is in no order that a list could walk: it is read and sorted, however much it is.
        if term.index == "kind_account_id_id":
            return term.index
        met = _by(term.index, EVENTS, select(EVENTS.c.id)).where(term.condition)
        if term.index and _count_up_to(db, met, most) <= most:
            return term.index
    return None


def _find_events(
    db: Connection,
    principal: Principal,
    sought: EventFilter,
    now: datetime,
    order: Order,
    most: int,
    few: str | None,
) -> tuple[int | None, list[Row]]:
    """The events of the page, and how many there are where they are the `few` of an index."""
    columns, terms, allowed = EVENTS.c, sought.terms(), may_see(principal, now)
    total, matching = None, select(columns.id, columns.at).where(*(term.condition for term in terms))
    if few:
        total, found = _read_few(db, _by(few, EVENTS, matching), order, "user", most, allowed)
    else:
        index = next((term.index for term in terms if term.index in ("cause", "type", "by")), "at")
        walked = _by(index, EVENTS, matching.where(allowed))
        found = db.execute(order.page(walked, EVENTS, "user", most)).mappings().all()
    if not found:
        return total, []
    shown = select(EVENTS).where(columns.id.in_([row["id"] for row in found]), allowed)
    rows = db.execute(order.ordered(shown, EVENTS)).mappings().all()
    labels = _read_labels(db, rows)
    return total, [
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

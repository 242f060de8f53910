"""What is asked of the sessions of a kind: by which indexes it is found, and how many match."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, tuple_, union_all

from models import clock, counts, cutoffs
from models.database import is_among, is_postgres
from models.desk import indexes
from models.desk.accounts import matching
from models.filters import SessionFilter, Term
from models.principals import cut_at
from models.schema import FACETS, Kind
from models.spans import Span

# Where no more than one of so many is outside of a range, as far as must be counted to know, those outside are counted,
# and not those inside.
ONE_OUTSIDE_OF = 16
# So many accounts may begin as a search for their sessions says.
MOST_ACCOUNTS = 1000


class TooWide(Exception):
    """A search that finds more than MOST_ACCOUNTS accounts."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows are found: by which index, among how many."""

    index: str | None
    bound: int
    # Of which ranges it is known that nearly all are in them: by their indexes.
    wide: frozenset[str | None] = frozenset()

    @property
    def is_few(self) -> bool:
        """Whether they are read and sorted."""
        return self.bound <= indexes.FEW


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked of the sessions of a kind, and how it is found."""

    kind: Kind
    facets: dict[str, str]
    terms: list[Term]
    plan: Plan
    # How many rows the kind has.
    everything: int

    @property
    def is_narrow(self) -> bool:
        """Whether what matches is counted by the index of the plan."""
        return self.plan.is_few or (len(self.terms) > 1 and self.plan.bound <= indexes.MANY)

    @property
    def spans(self) -> tuple[Span, Span] | None:
        """When what matches was started and last seen, where nothing else is asked."""
        spans = {term.index: term.span for term in self.terms}
        if self.facets or None in spans.values():
            return None
        return spans.get("started") or Span(), spans.get("seen") or Span()

    def select(self, index: str | None, *what: ColumnElement[Any]) -> Select[Any]:
        """`what` of the rows that match, those that expired among them, by an index."""
        return self.within(indexes.by(index, self.kind.sessions, select(*what).select_from(self.kind.sessions)), index)

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


def make_search(db: Connection, kind: Kind, sought: SessionFilter, now: datetime, most_accounts: int | None) -> Search:
    """What is sought of the sessions of `kind`; raises TooWide where it is of more than `most_accounts`."""
    of_accounts = _of_accounts(db, kind, sought.q, most_accounts) if sought.q else None
    facets = sought.facets
    is_waiting, bound, everything = db.execute(_known_before(kind, tuple(facets.items()))).one()
    if is_waiting:
        # Rows of a cut-off that wait to be swept: they are no sessions any more, and may be most.
        after_cut = db.execute(select(cut_at(kind))).scalar_one() + clock.MICROSECOND
        sought = replace(sought, started_from=max(sought.started_from or after_cut, after_cut))
    terms = sought.terms(kind, of_accounts, now, holds_seen=is_postgres(db))
    plan = _plan(db, kind, terms, Plan("make" if facets else None, int(bound)))
    return Search(kind, facets, terms, plan, int(everything))


# Of what is asked most the statements are kept as they were built.
@lru_cache(maxsize=64)
def _known_before(kind: Kind, facets: tuple[tuple[str, str], ...]) -> Select[Any]:
    """Whether sessions wait to be swept; how many rows there are of these facets, and of any."""
    sums = (counts.sum_sessions(kind.name, some).scalar_subquery() for some in (dict(facets), {}))
    return select(cutoffs.is_waiting(kind), *sums)


def count_matching(db: Connection, search: Search, now: datetime, allowed: ColumnElement[bool]) -> int | None:
    """How many live sessions match; None where that is not `allowed`."""
    expired = search.within(select_expired(search.kind, now, func.count()), "expires_at")
    found = db.execute(select(_count_rows(db, search, now), expired.scalar_subquery()).where(allowed)).first()
    return int(found[0]) - int(found[1]) if found else None


def select_expired(kind: Kind, now: datetime, *what: ColumnElement[Any]) -> Select[Any]:
    """`what` of the rows that expired and wait to be swept: they are few, and found by themselves."""
    found = indexes.by("expires_at", kind.sessions, select(*what).select_from(kind.sessions))
    return found.where(kind.sessions.c.expires_at <= now)


def _of_accounts(db: Connection, kind: Kind, q: str, most: int | None) -> ColumnElement[bool]:
    """Which sessions are of an account that `q` is the beginning of; raises TooWide past `most` of them."""
    found = db.scalars(matching(kind, q).limit(None if most is None else most + 1)).all()
    if most is not None and len(found) > most:
        raise TooWide
    return is_among(db, kind.sessions.c.account_id, found)


def _plan(db: Connection, kind: Kind, terms: list[Term], plan: Plan) -> Plan:
    """By which index fewer rows are read than by `plan`, and how many those are at most; past MANY not counted."""
    for term in terms:
        if plan.is_few:
            break
        # Of a condition that is alone its own index counts the rows, however many they are.
        most = min(plan.bound, indexes.MANY if len(terms) > 1 else indexes.FEW)
        # Where its whole days have more than that, no row is read to learn it.
        if term.span and db.execute(_sum_days(kind, term, term.span.whole)).scalar_one() > most:
            continue
        met = _in_order(db, kind, term, term.condition)
        # In a range that is not of times nearly all may be: those outside are fewer to count then.
        may_be_wide = most > indexes.FEW and term.outside and not term.span
        bound = indexes.count_up_to(db, met, indexes.FEW if may_be_wide else most)
        if may_be_wide and bound > indexes.FEW:
            if _leaves_few_out(db, kind, term, plan.bound):
                plan = replace(plan, wide=plan.wide | {term.index})
                continue
            bound = indexes.count_up_to(db, met, most)
        if bound <= most:
            plan = replace(plan, index=term.index, bound=bound)
    return plan


def _count_rows(db: Connection, search: Search, now: datetime) -> ColumnElement[int]:
    """How many rows match, those that expired among them."""
    kind, sessions = search.kind, search.kind.sessions
    if not search.terms:
        return counts.sum_sessions(kind.name, search.facets).scalar_subquery()
    if search.is_narrow:
        return search.select(search.plan.index, func.count()).scalar_subquery()
    if search.spans and (counted := _count_spans(db, kind, *search.spans, clock.to_microseconds(now))) is not None:
        return counted
    held = [term.index for term in search.terms]
    # Each index holds the makes and when a session was started; one when it was seen; one the times of each make.
    index = "seen" if "seen" in held else "make" if search.facets and set(held) == {"started"} else held[0]
    for term in search.terms:
        if len(held) > 1 and term.index in (index, "started"):
            continue
        # A range that is alone, or that the index does not hold: where it is quicker, those outside of it are counted.
        if term.outside and _is_less_outside(db, search, term, index):
            others = replace(search, terms=[other for other in search.terms if other is not term])
            found = [indexes.by(term.index, sessions, select(func.count()).where(part)) for part in term.outside]
            left_out = [others.within(one, term.index) for one in found]
            return _count_rows(db, others, now) - sum(one.scalar_subquery() for one in left_out)
    return search.select(index, func.count()).scalar_subquery()


def _is_less_outside(db: Connection, search: Search, term: Term, index: str | None) -> bool:
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
    return indexes.count_up_to(db, union_all(*(select(part.c.id) for part in parts)), most) <= most


def _in_order(db: Connection, kind: Kind, term: Term, condition: ColumnElement[bool]) -> Select[Any]:
    """The ids of what meets a condition of a term, by its index."""
    found = indexes.by(term.index, kind.sessions, select(kind.sessions.c.id)).where(condition)
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
    if sum(db.execute(one).scalar_one() for one in read) > indexes.MANY:
        return None
    left = [(sign, "started", edge, seen) for sign, edge in hours]
    left += [(sign, "seen", days, edge) for sign, edge in hours_seen if not days.is_empty]
    counted: ColumnElement[int] = counts.sum_days(kind.name, days, days_seen).scalar_subquery()
    for sign, index, begun, last in left:
        rows = indexes.by(index, kind.sessions, select(func.count()).select_from(kind.sessions))
        rows = rows.where(*begun.within(columns.created_at), *last.within(columns.last_seen_at))
        counted = counted + sign * rows.scalar_subquery()
    return counted

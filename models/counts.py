"""Counts that are kept, so that none has to be taken over a million rows.

Of sessions by their make and country, and by the days on which they were started and last seen: the database writes
each change beside the session's own row (a trigger), so that writers don't wait for each other's counters, and a chore
adds the changes up. Of events by the hour: a chore adds up what was logged since, and whoever reads adds what was not
yet. So both equal the rows at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    text,
    tuple_,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.sql.expression import Subquery

from models import clock
from models.database import insert_into, is_postgres
from models.schema import (
    EVENT_COUNTS,
    EVENT_MARKS,
    EVENTS,
    FACETS,
    KINDS,
    SESSION_COUNTS,
    SESSION_DAYS,
    SESSION_MOVES,
    UTC,
)
from models.spans import DAY, Span

HOUR = 3_600_000_000
MOST_AT_ONCE = 500
# And so many events of a restored log lose the numbers of their transactions.
MOST_FORGOTTEN = 2000


@cache
def sessions_by_make() -> Subquery:
    """How many rows there are of each kind, make and country; of one there may be several counts, to be added up."""
    return _with_moves(SESSION_COUNTS)


@cache
def sessions_by_day() -> Subquery:
    """The same of each kind and each two days on which they were started and last seen."""
    return _with_moves(SESSION_DAYS)


def _with_moves(table: Table) -> Subquery:
    """What was added up, and what was not yet."""
    parts = [select(*(one.c[column.name] for column in table.c)) for one in (table, SESSION_MOVES)]
    return union_all(*parts).subquery("made")


def of_make(kind: str, facets: Mapping[str, str]) -> Select[Any]:
    """What is counted of a kind's sessions whose make and country have these values."""
    made = sessions_by_make()
    return select(made).where(made.c.kind == kind, *(made.c[name] == value for name, value in facets.items()))


def sum_sessions(kind: str, facets: Mapping[str, str]) -> Select[Any]:
    """How many rows there are, those that expired and wait to be swept among them."""
    made = of_make(kind, facets)
    return made.with_only_columns(func.coalesce(func.sum(made.selected_columns["count"]), 0))


def sum_days(kind: str, started: Span, seen: Span) -> Select[Any]:
    """How many rows there are that were started and last seen in these spans of whole days."""
    made = sessions_by_day().c
    days = [*started.within(made.started_on, DAY), *seen.within(made.seen_on, DAY)]
    return select(func.coalesce(func.sum(made.count), 0)).where(made.kind == kind, *days)


def fold_sessions(db: Connection) -> int:
    """Add up to MOST_AT_ONCE moves to the counts; how many those were."""
    oldest = select(SESSION_MOVES.c.id).order_by(SESSION_MOVES.c.id).limit(MOST_AT_ONCE)
    if is_postgres(db):
        # Of two that do so at once one leaves the other's rows alone.
        oldest = oldest.with_for_update(skip_locked=True)
    taken = db.execute(
        delete(SESSION_MOVES).where(SESSION_MOVES.c.id.in_(oldest.scalar_subquery())).returning(*SESSION_MOVES.c)
    ).mappings()
    moves = taken.all()
    for table in (SESSION_COUNTS, SESSION_DAYS):
        names = [column.name for column in table.primary_key]
        sums: dict[tuple[Any, ...], int] = {}
        for move in moves:
            key = tuple(move[name] for name in names)
            sums[key] = sums.get(key, 0) + move["count"]
        # In one order, so that two that meet wait and don't deadlock.
        rows = [{**dict(zip(names, key, strict=True)), "count": count} for key, count in sorted(sums.items()) if count]
        _add(db, table, rows)
    return len(moves)


def forget_empty(db: Connection) -> None:
    """Delete the counts that came to nothing: whoever signs in names as many makes as he likes."""
    for table in (SESSION_COUNTS, SESSION_DAYS):
        keys = list(table.primary_key)
        # What another adds to now is left alone.
        gone = select(*keys).where(table.c.count == 0).with_for_update(skip_locked=True)
        db.execute(delete(table).where(tuple_(*keys).in_(gone)))


def recount_sessions(db: Connection) -> None:
    """Count the rows anew."""
    for table in (SESSION_COUNTS, SESSION_DAYS, SESSION_MOVES):
        db.execute(delete(table))
    for kind in KINDS.values():
        columns = kind.sessions.c
        facets = [columns[name] for name in FACETS]
        days = [type_coerce(columns[name], BigInteger) // DAY for name in ("created_at", "last_seen_at")]
        for table, keys in ((SESSION_COUNTS, facets), (SESSION_DAYS, days)):
            places: list[ColumnElement[Any]] = [literal_column(str(number)) for number, _ in enumerate(keys, 2)]
            counted = select(literal(kind.name), *keys, func.count()).group_by(*places)
            db.execute(insert(table).from_select(list(table.c), counted))


def is_new(db: Connection) -> ColumnElement[bool]:
    """Which events were not added up yet."""
    mark = select(EVENT_MARKS.c.mark).scalar_subquery()
    return EVENTS.c.tx >= mark if is_postgres(db) else EVENTS.c.id >= mark


def _by_hour(*conditions: ColumnElement[bool]) -> Any:
    columns = EVENTS.c
    hour = (type_coerce(columns.at, BigInteger) // HOUR * HOUR).label("at")
    # None is the empty text; and of what is wrapped no index is tempting: the new events are few, those of a type many.
    sorts = [func.coalesce(columns[name], "").label(name) for name in ("type", "cause", "kind")]
    counted = select(hour, *sorts, func.count().label("count")).where(*conditions)
    return counted.group_by(literal_column("1"), literal_column("2"), literal_column("3"), literal_column("4"))


def events_by_hour(db: Connection, since: int, until: int) -> Subquery:
    """How many events of each sort there are in the whole hours from `since` up to `until`, in microseconds."""
    span = Span(since, until)
    kept = select(
        type_coerce(EVENT_COUNTS.c.at, BigInteger).label("at"),
        *(EVENT_COUNTS.c[name] for name in ("type", "cause", "kind", "count")),
    ).where(*span.within(EVENT_COUNTS.c.at))
    # What is new is found by that alone: added to nothing, the time tempts no planner to go by it.
    at = type_coerce(EVENTS.c.at, BigInteger) + literal_column("0")
    fresh = _by_hour(is_new(db), *span.within(at))
    return union_all(kept, fresh).subquery("counted")


def events_between(since: int, until: int) -> Select[Any]:
    """How many events of each type and cause there are from `since` up to `until`, in microseconds, by their rows."""
    columns, cause = EVENTS.c, func.coalesce(EVENTS.c.cause, "").label("cause")
    counted = select(columns.type, cause, func.count()).where(*Span(since, until).within(columns.at))
    return counted.group_by(literal_column("1"), literal_column("2"))


def fold_events(db: Connection) -> bool:
    """Add what was logged since the last time to the counts; whether more is left for the next call."""
    # Two that do so at once wait for each other.
    marked = db.execute(select(EVENT_MARKS.c.mark).with_for_update()).scalar_one()
    columns = EVENTS.c
    if is_postgres(db):
        # Every transaction before this one has ended: what it wrote can be seen, and nothing is added to it.
        next_mark = db.scalar(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"))
        if next_mark < marked:
            # Restored on a server that counts its transactions from the beginning.
            if _forget_transactions(db):
                return True
            recount_events(db)
            return False
        wanted = and_(columns.tx >= marked, columns.tx < next_mark)
    else:
        next_mark = (db.scalar(select(func.max(columns.id))) or 0) + 1
        wanted = and_(columns.id >= marked, columns.id < next_mark)
    if next_mark <= marked:
        return False
    rows = db.execute(_by_hour(wanted).order_by(literal_column("1"))).mappings().all()
    _add(db, EVENT_COUNTS, [{**row, "at": clock.from_microseconds(row["at"])} for row in rows])
    db.execute(update(EVENT_MARKS).values(mark=next_mark))
    return False


def _forget_transactions(db: Connection) -> int:
    """Take the numbers of transactions that are yet to come off some events; how many those were."""
    columns = EVENTS.c
    # What can be seen and has a number of this server's own is before this.
    to_come = columns.tx >= literal_column("pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    some = select(columns.id).where(to_come).limit(MOST_FORGOTTEN).scalar_subquery()
    return db.execute(update(EVENTS).where(columns.id.in_(some)).values(tx=None)).rowcount


def recount_events(db: Connection) -> None:
    """Count the log anew."""
    db.execute(delete(EVENT_COUNTS))
    if is_postgres(db):
        newest = db.scalar(text("SELECT pg_current_xact_id()::text::bigint"))
        db.execute(update(EVENTS).where(EVENTS.c.tx >= newest).values(tx=None))
        counted = _by_hour(or_(EVENTS.c.tx < newest, EVENTS.c.tx.is_(None)))
    else:
        newest = (db.scalar(select(func.max(EVENTS.c.id))) or 0) + 1
        counted = _by_hour(EVENTS.c.id < newest)
    db.execute(insert(EVENT_COUNTS).from_select(["at", "type", "cause", "kind", "count"], counted))
    db.execute(update(EVENT_MARKS).values(mark=newest))


def forget_events(db: Connection, before: datetime, most: int) -> int:
    """Delete up to `most` of the events from before `before`, and take them off the counts; how many those were."""
    columns = EVENTS.c
    mark = select(EVENT_MARKS.c.mark).scalar_subquery()
    is_added = or_(columns.tx < mark, columns.tx.is_(None)) if is_postgres(db) else columns.id < mark
    old = select(columns.id).where(columns.at < literal(before, UTC), is_added).order_by(columns.at).limit(most)
    gone = db.execute(
        delete(EVENTS)
        .where(columns.id.in_(old.scalar_subquery()))
        .returning(columns.at, columns.type, columns.cause, columns.kind)
    ).all()
    sums: dict[tuple[int, str, str, str], int] = {}
    for at, type_, cause, kind in gone:
        key = (clock.to_microseconds(at) // HOUR * HOUR, type_, cause or "", kind or "")
        sums[key] = sums.get(key, 0) - 1
    rows = [
        {"at": clock.from_microseconds(at), "type": type_, "cause": cause, "kind": kind, "count": count}
        for (at, type_, cause, kind), count in sorted(sums.items())
    ]
    _add(db, EVENT_COUNTS, rows)
    db.execute(delete(EVENT_COUNTS).where(EVENT_COUNTS.c.at < literal(before, UTC), EVENT_COUNTS.c.count == 0))
    return len(gone)


def count_events(
    db: Connection, since: datetime | None, until: datetime | None, allowed: ColumnElement[bool], **asked: str | None
) -> int | None:
    """How many events there are of a type, cause and kind, from `since` up to `until`; None where not `allowed`."""
    begin = 0 if since is None else clock.to_microseconds(since)
    end = 2**62 if until is None else clock.to_microseconds(until)
    # Hours that are asked for in part are counted by their rows.
    first, last = -(-begin // HOUR) * HOUR, end // HOUR * HOUR
    edges = [(begin, first), (last, end)] if first <= last else [(begin, end)]
    counted = events_by_hour(db, first, max(first, last)).c
    wanted = {name: value for name, value in asked.items() if value is not None}
    total = select(func.coalesce(func.sum(counted.count), 0)).where(
        *(counted[name] == value for name, value in wanted.items())
    )
    parts = [total.scalar_subquery()]
    for low, high in edges:
        if low < high < 2**62:
            rows = select(func.count()).where(*Span(low, high).within(EVENTS.c.at))
            rows = rows.where(*(EVENTS.c[name] == value for name, value in wanted.items()))
            parts.append(rows.scalar_subquery())
    found = db.execute(select(*parts).where(allowed)).first()
    return None if found is None else sum(int(part) for part in found)


def fold(db: Connection) -> bool:
    """Add up what came since; whether more is surely left for the next call."""
    is_more = fold_events(db)
    return fold_sessions(db) >= MOST_AT_ONCE or is_more


def _add(db: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Add each row's count to the one that is there."""
    if not rows:
        return
    made = insert_into(db, table).values({column.name: bindparam(column.name, type_=column.type) for column in table.c})
    keys = [column.name for column in table.primary_key]
    db.execute(
        made.on_conflict_do_update(index_elements=keys, set_={"count": table.c.count + made.excluded.count}), rows
    )

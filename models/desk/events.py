"""The log by page, with exact counts, and all of it in a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from sqlalchemy import Connection, func, select

from models import clock, counts
from models.database import Database
from models.desk import indexes
from models.filters import EventFilter, Term
from models.paging import Cursor, Order, Page, Place
from models.principals import Principal, may_see
from models.schema import EVENTS, KINDS, Row

MOST_STREAMED = 1000


class NoLongerStaff(Exception):
    """Whoever is read to has lost the role, or the session."""


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
        few = "ip_key" if total is not None and total <= indexes.MANY else None
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
    counted = indexes.by(index, EVENTS, select(func.count()).select_from(EVENTS))
    counted = counted.where(*(term.condition for term in terms))
    return db.scalar(select(counted.scalar_subquery()).where(may_see(principal, now)))


def _is_held(terms: list[Term]) -> bool:
    """Whether the index of addresses holds all that is asked: with their times, so that no row is read to sort them."""
    return "ip_key" in (held := {term.index for term in terms}) and held <= {"ip_key", "at"}


def _plan_events(db: Connection, terms: list[Term]) -> str | None:
    """The index by which all that matches is read and sorted; None where the log is walked for it."""
    for term in terms:
        most = indexes.MANY if term.index == "ip_key" and _is_held(terms) else indexes.FEW
        # What an account did is in no order that a list could walk: it is read and sorted, however much it is.
        if term.index == "kind_account_id_id":
            return term.index
        met = indexes.by(term.index, EVENTS, select(EVENTS.c.id)).where(term.condition)
        if term.index and indexes.count_up_to(db, met, most) <= most:
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
        total, found = indexes.read_few(db, indexes.by(few, EVENTS, matching), order, "user", most, allowed)
    else:
        index = next((term.index for term in terms if term.index in ("cause", "type", "by")), "at")
        walked = indexes.by(index, EVENTS, matching.where(allowed))
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

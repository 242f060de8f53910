"""The emergency: every session of the house, or of a kind, ended at once by one time that every check honours."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, literal, select, update

from models import clock, events, sessions
from models.database import is_postgres
from models.events import Type
from models.origins import Origin
from models.principals import Principal, cut_at, may_act, may_see
from models.schema import CUTOFFS, KINDS, UTC, Kind


def cut(
    db: Connection,
    principal: Principal,
    kinds: Sequence[Kind],
    before: datetime | None,
    reason: str | None,
    origin: Origin,
    now: datetime,
) -> datetime | None:
    """End every session of `kinds` that was started before `before`, or up to now; the time up to which.

    The principal's own among them: it may be the one that was stolen (ASVS 7.4.5). The rows are swept later. None
    where the principal is not staff.
    """
    at = sessions.newest(db, kinds, now)
    at = min(before - clock.MICROSECOND, at) if before else at
    # A cut-off is never taken back: what was ended stays ended.
    later = func.greatest if is_postgres(db) else func.max
    # Asked once for all kinds: the first cut-off ends the principal's own session.
    moved = db.execute(
        update(CUTOFFS)
        .where(CUTOFFS.c.kind.in_([kind.name for kind in kinds]))
        .where(may_act(principal, now))
        .values(at=later(CUTOFFS.c.at, literal(at, UTC)))
        .returning(CUTOFFS.c.kind)
    ).all()
    if not moved:
        return None
    cause = "before" if before else None
    events.append(
        db,
        *(
            events.make(kind, None, Type.EMERGENCY, now, cause=cause, by=principal, origin=origin, reason=reason)
            for kind in kinds
        ),
    )
    return at


def is_waiting(kind: Kind) -> ColumnElement[bool]:
    """Whether any session of `kind` that a cut-off ended waits to be swept; empty where there is none at all."""
    columns = kind.sessions.c
    # The oldest alone, by the index: PostgreSQL would look at every row for one that is as old as a subquery says.
    return select(columns.created_at <= cut_at(kind)).order_by(columns.created_at).limit(1).scalar_subquery()


def count_waiting(db: Connection, principal: Principal, now: datetime) -> int | None:
    """How many sessions that a cut-off ended wait to be swept; None where the principal may not see that."""
    if not db.scalar(select(may_see(principal, now))):
        return None
    waiting = [select(func.count()).where(kind.sessions.c.created_at <= cut_at(kind)) for kind in KINDS.values()]
    return sum(db.scalar(one) or 0 for one in waiting)

"""What is not kept for good: the addresses that requests came from."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from models.events import EVENTS
from models.schema import Kind

# How many events one write looks at: others wait for it.
STEP = 1000


def forget_events(db: Session, after: int, before: datetime) -> int | None:
    """Take the addresses out of some events that follow the event `after` and are older than `before`.

    The last event that was looked at; None where no older one is left.
    """
    columns = EVENTS.c
    ids = db.scalars(select(columns.id).where(columns.id > after).order_by(columns.id).limit(STEP)).all()
    if not ids:
        return None
    some = (columns.id >= ids[0], columns.id <= ids[-1], columns.at < before)
    db.execute(update(EVENTS).where(*some, columns.ip.is_not(None)).values(ip=None, ip_key=None, network=None))
    last = db.scalar(select(columns.id).where(*some).order_by(columns.id.desc()).limit(1))
    return ids[-1] if last == ids[-1] else None


def forget_sessions(db: Session, kind: Kind, before: datetime) -> None:
    """Take the addresses out of the live sessions that were started before `before`; their places stay."""
    columns = kind.sessions.c
    db.execute(update(kind.sessions).where(columns.created_at < before, columns.ip != "").values(ip="", ip_key=None))


class Retention:
    """Goes through the events from the oldest on, and goes on where it was."""

    def __init__(self) -> None:
        self.done = 0

    def forget(self, db: Session, before: datetime) -> bool:
        """Take the addresses out of some more events; whether older ones may be left."""
        last = forget_events(db, self.done, before)
        self.done = last or self.done
        return last is not None

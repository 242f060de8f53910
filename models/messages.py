"""Mail and SMS: queued by the transaction that causes them, sent outside the request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, delete, insert, or_, select, update

from models import clock
from models.keys import KeySet
from models.schema import MESSAGES, Contact

# Whoever takes a message has so long to send it before another tries.
LEASE = timedelta(minutes=2)
WAIT = timedelta(seconds=10)
LONGEST_WAIT = timedelta(hours=1)
GIVE_UP_AFTER = timedelta(hours=24)

Channel = Literal["mail", "sms"]
CHANNELS: dict[Contact, Channel] = {"email": "mail", "phone": "sms"}


@dataclass(frozen=True, slots=True)
class Letter:
    """What a person reads."""

    channel: Channel
    recipient: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A queued letter that is ours to send; no letter where no key of ours opens it."""

    id: int
    attempts: int
    created_at: datetime
    letter: Letter | None


def queue(db: Connection, keys: KeySet, letter: Letter, now: datetime) -> None:
    """Have `letter` sent once this transaction is committed."""
    sealed = keys.seal(json.dumps([letter.subject, letter.text]))
    db.execute(
        insert(MESSAGES)
        .inline()
        .values(channel=letter.channel, recipient=letter.recipient, sealed=sealed, created_at=now, due_at=now)
    )


def take(db: Connection, keys: KeySet, now: datetime, most: int) -> list[Taken]:
    """Up to `most` letters that are due; nobody else takes them before the lease is over."""
    columns = MESSAGES.c
    # No letter waits longer: one that would was queued before the clock was set back.
    is_due = or_(columns.due_at <= now, columns.due_at > now + max(LEASE, LONGEST_WAIT) + clock.SKEW)
    due = select(columns.id).where(is_due).order_by(columns.due_at).limit(most)
    rows = db.execute(
        update(MESSAGES)
        .where(columns.id.in_(due.with_for_update(skip_locked=True).scalar_subquery()), is_due)
        .values(due_at=now + LEASE, attempts=columns.attempts + 1)
        .returning(*columns)
    ).all()
    taken = []
    for row in rows:
        opened = keys.unseal(row.sealed)
        letter = Letter(row.channel, row.recipient, *json.loads(opened)) if opened else None
        taken.append(Taken(row.id, row.attempts, row.created_at, letter))
    return taken


def finish(db: Connection, message_id: int) -> None:
    """Forget a letter that was sent or given up."""
    db.execute(delete(MESSAGES).where(MESSAGES.c.id == message_id))


def retry(db: Connection, taken: Taken, now: datetime) -> bool:
    """Have a letter tried again after a wait that doubles; False where it is given up."""
    if now - taken.created_at > GIVE_UP_AFTER:
        finish(db, taken.id)
        return False
    wait = min(WAIT * 2 ** min(taken.attempts - 1, 16), LONGEST_WAIT)
    db.execute(update(MESSAGES).where(MESSAGES.c.id == taken.id).values(due_at=now + wait))
    return True

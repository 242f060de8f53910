"""A database that was restored from a back-up: known by what the server remembers of its event log, beside its key.

What was ended after the back-up was made is live again in it: whoever restored it is told, and can end all it holds.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, make_url, select

from models import clock, sessions
from models.events import Cause
from models.schema import EVENTS, KINDS
from models.settings import Settings

# How many sessions one write ends: others wait for it.
STEP = 100


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest event that the server saw."""

    id: int
    at: datetime


class Memory:
    """What is remembered of one database, in a file beside the key; several databases may share the file."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.tokens.key_file.with_name("newest-events.json")
        url = make_url(settings.database.url.get_secret_value())
        # Without its password, which may change.
        self._name = hashlib.sha256(f"{url.host} {url.port} {url.database}".encode()).hexdigest()[:16]
        self._kept: Seen | None = None

    def read(self) -> Seen | None:
        """The newest event that was seen in this database; None where nothing is remembered."""
        kept = self._read_all().get(self._name)
        return Seen(kept[0], clock.from_microseconds(kept[1])) if kept else None

    def keep(self, seen: Seen | None) -> None:
        """Remember it; raises OSError where that can't be written."""
        if seen is None or seen == self._kept:
            return
        everything = self._read_all() | {self._name: [seen.id, clock.to_microseconds(seen.at)]}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and moved into place: several workers do so.
        draft = self._file.with_name(f".{self._file.name}.{secrets.token_hex(8)}")
        try:
            draft.write_text(json.dumps(everything))
            draft.replace(self._file)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        self._kept = seen

    def _read_all(self) -> dict[str, list[int]]:
        try:
            kept: dict[str, list[int]] = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return {}
        return kept


def find_newest(db: Connection) -> Seen | None:
    """The newest event; None where nothing happened yet."""
    row = db.execute(select(EVENTS.c.id, EVENTS.c.at).order_by(EVENTS.c.id.desc()).limit(1)).first()
    return Seen(row.id, row.at) if row else None


def is_restored(db: Connection, seen: Seen | None, since: datetime | None) -> bool:
    """Whether the database is an older one than that in which `seen` was seen, and holds sessions.

    Events from before `since` are no longer kept: that one of them is missing says nothing.
    """
    if seen is None or (since and seen.at < since):
        return False
    if db.scalar(select(EVENTS.c.at).where(EVENTS.c.id == seen.id)) == seen.at:
        return False
    return any(db.scalar(select(kind.sessions.c.id).limit(1)) is not None for kind in KINDS.values())


def find_to_remember(db: Connection, seen: Seen | None, since: datetime | None) -> Seen | None:
    """The newest event, to be remembered; None while it is undecided what becomes of what was restored."""
    return None if is_restored(db, seen, since) else find_newest(db)


def end_some(db: Connection, now: datetime) -> int:
    """End some of the sessions of a restored database; how many that were."""
    ended = 0
    for kind in KINDS.values():
        for session_id in db.scalars(select(kind.sessions.c.id).limit(STEP)).all():
            ended += sessions.end_one(db, kind, session_id, Cause.RESTORED, now)
    return ended

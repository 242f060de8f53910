"""Telling an account that somebody signed in to it on a device never seen before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from models import messages
from models.keys import KeySet
from models.messages import CHANNELS, Letter
from models.schema import Kind, Row


@dataclass(frozen=True, slots=True)
class Announcement:
    """A letter that is written once the session is there: its subject and text, from the account and the session."""

    keys: KeySet
    write: Callable[[Kind, Row, Row], tuple[str, str]]

    def send(self, db: Connection, kind: Kind, account: Row, session: Row, now: datetime) -> None:
        """Queue it to the account's first contact that is proved to be its own; without one nobody is told."""
        for contact in kind.list_proven(account)[:1]:
            subject, text = self.write(kind, account, session)
            messages.queue(db, self.keys, Letter(CHANNELS[contact], account[contact], subject, text), now)

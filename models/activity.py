"""When sessions were last seen: gathered in memory, written in batches."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from models import clock, sessions
from models.database import Database
from models.principals import Principal
from models.schema import KINDS
from models.settings import SessionSettings

# Others wait while a batch is written.
MOST_IN_A_BATCH = 50


class Activity:
    """Remembers who was seen; writes each session at most once in `seen_seconds`."""

    def __init__(self, database: Database, settings: SessionSettings) -> None:
        self._database = database
        self._settings = settings
        self._often = settings.seen_seconds * 1_000_000
        self._written: dict[tuple[str, int], int] = {}
        self._waiting: dict[str, dict[int, datetime]] = defaultdict(dict)

    def note(self, principal: Principal, now: int) -> None:
        """Remember that this session made a request at `now`, microseconds since 1970."""
        key = (principal.kind.name, principal.session_id)
        last = self._written.get(key)
        # The clock may have been set back: then the last time lies ahead, and counts for nothing.
        if last is None or not 0 <= now - last < self._often:
            self._written[key] = now
            self._waiting[key[0]][key[1]] = clock.from_microseconds(now)

    async def write(self) -> None:
        """Write what is waiting; what can't be written now is tried with the next batch."""
        oldest = clock.microseconds() - self._often
        self._written = {key: at for key, at in self._written.items() if at > oldest}
        for name, kind in KINDS.items():
            while waiting := dict(list(self._waiting[name].items())[:MOST_IN_A_BATCH]):
                await self._database.write(sessions.see, kind, waiting, self._settings, clock.now())
                for session_id, at in waiting.items():
                    if self._waiting[name].get(session_id) == at:
                        del self._waiting[name][session_id]

"""When sessions were last seen: gathered in memory, written in batches."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from models import clock, sessions
from models.database import Database
from models.principals import Principal
from models.schema import KINDS
from models.settings import SessionSettings

MOST_IN_A_BATCH = 500


class Activity:
    """Remembers who was seen; writes each session at most once in `seen_seconds`."""

    def __init__(self, database: Database, settings: SessionSettings) -> None:
        self._database = database
        self._settings = settings
        self._written: dict[tuple[str, int], float] = {}
        self._waiting: dict[str, dict[int, datetime]] = defaultdict(dict)

    def note(self, principal: Principal, timestamp: float) -> None:
        """Remember that this session made a request at `timestamp`, seconds since 1970."""
        key = (principal.kind.name, principal.session_id)
        last = self._written.get(key)
        # The clock may have been set back: then the last time lies ahead, and counts for nothing.
        if last is None or not 0 <= timestamp - last < self._settings.seen_seconds:
            self._written[key] = timestamp
            self._waiting[key[0]][key[1]] = clock.from_microseconds(int(timestamp * 1_000_000))

    async def write(self) -> None:
        """Write what is waiting; what can't be written now is tried with the next batch."""
        oldest = clock.now().timestamp() - self._settings.seen_seconds
        self._written = {key: at for key, at in self._written.items() if at > oldest}
        for name, kind in KINDS.items():
            while waiting := dict(list(self._waiting[name].items())[:MOST_IN_A_BATCH]):
                await self._database.write(sessions.see, kind, waiting, self._settings)
                for session_id, at in waiting.items():
                    if self._waiting[name].get(session_id) == at:
                        del self._waiting[name][session_id]

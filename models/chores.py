"""Work in the background, which goes on whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from models.database import DatabaseUnavailable

log = structlog.get_logger("chores")


class Chore:
    """Something that is done every so many seconds, and at once when it is woken."""

    def __init__(self, name: str, seconds: float, work: Callable[[], Awaitable[Any]]) -> None:
        self._name = name
        self._seconds = seconds
        self._work = work
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something to do: don't wait for the next time."""
        self._woken.set()

    async def run(self) -> None:
        """Do it again and again, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._seconds)
            self._woken.clear()
            try:
                await self._work()
            except DatabaseUnavailable as error:
                log.warning("a chore waits: database unavailable", chore=self._name, error=str(error))
            except Exception:
                log.exception("a chore failed", chore=self._name)

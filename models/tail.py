"""The tail of the event log: each worker follows it, and wakes only who waits for the account concerned."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from models.database import Database, DatabaseUnavailable, Happened

# So long the log may go unheard before the streams are closed, together.
LOST_SECONDS = 0.7
ONCE_MORE_SECONDS = 0.1
AGAIN_SECONDS = 0.2

# Whoever subscribes to this kind and account is told of every event of the house.
HOUSE = ("", 0)

log = structlog.get_logger("tail")


class Subscriber(Protocol):
    """Who waits for the events of one account."""

    def wake(self, happened: Happened) -> None:
        """Something happened to the account."""

    def lose(self) -> None:
        """The tail can't be followed: what happens now goes unheard."""


class Tail:
    """Hands each event to the subscribers of its account; each is told at least once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._losing: asyncio.TimerHandle | None = None
        # Why the log can't be followed, as it was logged.
        self._why = ""
        self._was_heard = False
        self._subscribers: defaultdict[tuple[str, int], set[Subscriber]] = defaultdict(set)

    def subscribe(self, kind: str, account_id: int, subscriber: Subscriber) -> None:
        """Have `subscriber` told of the account's events from now on."""
        self._subscribers[kind, account_id].add(subscriber)

    def unsubscribe(self, kind: str, account_id: int, subscriber: Subscriber) -> None:
        """Tell it no more."""
        waiting = self._subscribers.get((kind, account_id))
        if waiting:
            waiting.discard(subscriber)
            if not waiting:
                del self._subscribers[kind, account_id]

    def of(self, kind: str, account_id: int) -> Collection[Subscriber]:
        """Who is told of the account's events."""
        return self._subscribers.get((kind, account_id), ())

    def all(self) -> list[Subscriber]:
        """Everyone who waits."""
        return [subscriber for waiting in self._subscribers.values() for subscriber in waiting]

    async def run(self) -> None:
        """Follow the log until cancelled, whatever happens to the database."""
        self._listen(LOST_SECONDS, self._doubt)
        while True:
            try:
                await self._database.follow(self._dispatch, self._hear)
            except DatabaseUnavailable as error:
                # Once, and not several times a second while it lasts.
                if str(error) != self._why:
                    log.warning("the event log can't be followed", error=str(error))
                self._why = str(error)
            except Exception:
                # Without the tail no stream would close: it goes on whatever happens.
                log.exception("following the event log failed")
            await asyncio.sleep(AGAIN_SECONDS)

    def _dispatch(self, happened: Happened) -> None:
        if happened.account_id is None:
            for kind, account_id in list(self._subscribers):
                if kind == happened.kind:
                    self._wake(kind, account_id, happened)
        else:
            self._wake(happened.kind, happened.account_id, happened)
        self._wake(*HOUSE, happened)

    def _wake(self, kind: str, account_id: int, happened: Happened) -> None:
        for subscriber in list(self._subscribers.get((kind, account_id), ())):
            try:
                subscriber.wake(happened)
            except Exception:
                # The others are to hear it all the same.
                log.exception("one who waits could not be told")

    def _hear(self) -> None:
        """All that was committed so far has been told; but what was before the first time was told to nobody."""
        if not self._was_heard:
            self._lose()
        self._was_heard, self._why = True, ""
        self._listen(LOST_SECONDS, self._doubt)

    def _doubt(self) -> None:
        """Nothing was heard, or this loop was itself too late to hear it: what waits is heard meanwhile."""
        self._listen(ONCE_MORE_SECONDS, self._lose)

    def _lose(self) -> None:
        for subscriber in self.all():
            subscriber.lose()
        self._listen(LOST_SECONDS, self._doubt)

    def _listen(self, seconds: float, otherwise: Callable[[], None]) -> None:
        if self._losing:
            self._losing.cancel()
        self._losing = asyncio.get_running_loop().call_later(seconds, otherwise)

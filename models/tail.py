"""The tail of the event log: each worker follows it, and wakes only who waits for the account concerned."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Protocol

import structlog

from models.database import Database, DatabaseUnavailable, Happened

# What wakes a live stream comes at most so late; so long a tail may be lost before its streams are closed.
LOST_SECONDS = 0.8
AGAIN_SECONDS = 0.2

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

    def all(self) -> list[Subscriber]:
        """Everyone who waits."""
        return [subscriber for waiting in self._subscribers.values() for subscriber in waiting]

    async def run(self) -> None:
        """Follow the log until cancelled, whatever happens to the database."""
        told = ""

        def begin() -> None:
            nonlocal told
            told = ""
            lost.cancel()

        while True:
            lost = asyncio.get_running_loop().call_later(LOST_SECONDS, self._lose)
            try:
                await self._database.follow(self._dispatch, begin)
            except DatabaseUnavailable as error:
                # Once, and not several times a second while it lasts.
                if str(error) != told:
                    log.warning("the event log can't be followed", error=str(error))
                told = str(error)
            except Exception:
                # Without the tail no stream would close: it goes on whatever happens.
                log.exception("following the event log failed")
            await asyncio.sleep(AGAIN_SECONDS)

    def _dispatch(self, happened: Happened) -> None:
        for subscriber in list(self._subscribers.get((happened.kind, happened.account_id), ())):
            subscriber.wake(happened)

    def _lose(self) -> None:
        for subscriber in self.all():
            subscriber.lose()

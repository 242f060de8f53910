"""Spans of time, and the whole days in them, by which sessions are counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import BigInteger, ColumnElement, literal

from models import clock

DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """From a time up to another and not with it, in microseconds since 1970; None: without an end there."""

    since: int | None = None
    until: int | None = None

    @classmethod
    def between(cls, since: datetime | None, until: datetime | None) -> Self:
        """The span between two times."""
        return cls(*(None if at is None else clock.to_microseconds(at) for at in (since, until)))

    def within(self, column: ColumnElement[Any], size: int = 1) -> list[ColumnElement[bool]]:
        """The conditions for what is in it; `column` counts in so many microseconds."""
        since = [] if self.since is None else [column >= literal(self.since // size, BigInteger)]
        return since + ([] if self.until is None else [column < literal(self.until // size, BigInteger)])

    def outside(self, column: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
        """The conditions for what is before, and for what is after it."""
        before = () if self.since is None else (column < literal(self.since, BigInteger),)
        return before + (() if self.until is None else (column >= literal(self.until, BigInteger),))

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be in it."""
        return self.since is not None and self.until is not None and self.since >= self.until

    @property
    def whole(self) -> Span:
        """The whole days (UTC) in it; where there is none, a span that is empty."""
        days = Span(_round_up(self.since), _round_down(self.until))
        return EMPTY if days.is_empty else days

    @property
    def widened(self) -> Span:
        """The whole days that it touches."""
        return Span(_round_down(self.since), _round_up(self.until))

    def rounded(self, now: int) -> tuple[Span, list[tuple[int, Span]]]:
        """Whole days, and what is to be added to them, 1, or to be taken off, -1, for what is in this span.

        Each end goes where less is between: today goes up to `now`, as nothing is after it.
        """
        since, until = (_round(at, now) for at in (self.since, self.until))
        days = Span(since, until)
        if self.is_empty or days.is_empty:
            return EMPTY, [(1, self)]
        edges = [(1, Span(self.since, since)), (-1, Span(since, self.since))] if since is not None else []
        edges += [(1, Span(until, self.until)), (-1, Span(self.until, until))] if until is not None else []
        return days, [(sign, edge) for sign, edge in edges if not edge.is_empty]


EMPTY = Span(0, 0)


def _round_down(at: int | None) -> int | None:
    return None if at is None else at // DAY * DAY


def _round_up(at: int | None) -> int | None:
    return None if at is None else -(-at // DAY) * DAY


def _round(at: int | None, now: int) -> int | None:
    if at is None:
        return None
    begins = at // DAY * DAY
    return begins if at - begins < min(begins + DAY, now) - at else begins + DAY

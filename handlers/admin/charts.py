"""What charts show: numbers counted, scaled and named, for the macros of _charts.html to draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from handlers.languages import Language

DAY = timedelta(days=1)
# Half of a chart of columns, in its own units: as much above the line as below it.
HALF = 100


@dataclass(frozen=True, slots=True)
class Slot:
    """One column: a stretch of time and what happened in it."""

    label: str
    # What stands below it; most have nothing. The main ones have room on a phone too.
    tick: str
    is_main: bool
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns side by side, up and down from one line."""

    slots: list[Slot]
    # The number at the end of the scale.
    most: int

    def height(self, count: int) -> float:
        """How high a column of `count` is; what is there at all is seen."""
        return round(max(count / self.most * HALF, 1), 2)


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a whole."""

    label: str
    count: int
    # Of the largest, in hundredths; and of the whole, in words.
    width: float
    percent: str
    address: str | None


def make_columns(
    points: Sequence[tuple[datetime, int, int]], length: timedelta, now: datetime, language: Language
) -> Columns:
    """Columns of slots of `length`: each point is when a slot begins, and what happened up and down in it."""
    every = max(len(points) // 6, 1)
    slots = [
        Slot(
            label=_tell(at, length, now, language),
            tick=_tick(at, length, language) if number % every == 0 else "",
            is_main=number % (2 * every) == 0,
            up=up,
            down=down,
        )
        for number, (at, up, down) in enumerate(points)
    ]
    return Columns(slots, round_up(max((max(slot.up, slot.down) for slot in slots), default=0)))


def make_bars(
    parts: Iterable[tuple[str, int]],
    language: Language,
    name: Callable[[str], str],
    address: Callable[[str], str | None],
    whole: int | None = None,
) -> list[Bar]:
    """The parts of a whole, by their value and count; `name` and `address` tell what a value is and where it leads."""
    counted = [(value, count) for value, count in parts if count]
    most = max((count for _, count in counted), default=1)
    whole = sum(count for _, count in counted) if whole is None else whole
    return [
        Bar(
            name(value),
            count,
            round(count / most * 100, 2),
            language.percent(count / max(whole, count)),
            address(value),
        )
        for value, count in counted
    ]


def round_up(count: int) -> int:
    """The next number that scales end at: 1 to 6, 8, 10, 12, 15, 20, 25, 30 …"""
    if count <= 10:
        return next(end for end in (1, 2, 3, 4, 5, 6, 8, 10) if end >= count)
    step: int = 10 ** (len(str(count)) - 2)
    return next(end * step for end in (10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100) if end * step >= count)


def _tell(at: datetime, length: timedelta, now: datetime, language: Language) -> str:
    if length >= DAY:
        return language.near_day(_middle(at, length), now)
    return f"{language.near_day(at, now)}, {language.hour(at)}–{language.hour(at + length)}"


def _tick(at: datetime, length: timedelta, language: Language) -> str:
    if length >= DAY:
        return language.short_day(_middle(at, length))
    return language.hour(at) if length <= timedelta(hours=1) else language.short_day(at)


def _middle(at: datetime, length: timedelta) -> datetime:
    """What a whole day goes by: where clocks were put forward or back since, it begins an hour beside midnight."""
    return at + length / 2

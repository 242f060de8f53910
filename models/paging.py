"""Pages of lists that are too long to number: each goes on from a row of the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, FromClause, Select, String, literal, tuple_

from models.schema import KINDS, Row

RANKS = {name: rank for rank, name in enumerate(KINDS)}


class InvalidCursor(ValueError):
    """It names no place in a list."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A row's place in a list: what the list is sorted by, then its kind, then its id."""

    value: int | str
    rank: int
    id: int

    @classmethod
    def read(cls, text: str) -> Self:
        """As `str` writes it; raises InvalidCursor."""
        head, _, value = text.partition("~")
        kind, _, number = head.partition(".")
        sort, value = value[:1], value[1:]
        # No database takes a NUL, nor an id past 64 bits.
        is_plain = kind in RANKS and number.isascii() and number.isdigit() and len(number) <= 18 and "\0" not in value
        if not is_plain or sort not in ("n", "t") or (sort == "n" and not _is_integer(value)):
            raise InvalidCursor(text)
        return cls(int(value) if sort == "n" else value, RANKS[kind], int(number))

    def __str__(self) -> str:
        sort = "t" if isinstance(self.value, str) else "n"
        return f"{list(KINDS)[self.rank]}.{self.id}~{sort}{self.value}"


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= 18


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a list, how many there are in all, and the cursors of what comes after and before."""

    rows: list[Row]
    total: int
    next: str | None
    previous: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins, and whether it is read towards the list's beginning."""

    cursor: Cursor | None = None
    is_back: bool = False

    @classmethod
    def read(cls, after: str | None, before: str | None) -> Self:
        """The place after, or before, a cursor; raises InvalidCursor."""
        if after and before:
            raise InvalidCursor(before)
        text = after or before
        return cls(Cursor.read(text) if text else None, bool(before))


@dataclass(frozen=True, slots=True)
class Order:
    """How a list is sorted, by a column and then by its ids, and where a page of it begins."""

    place: Place
    sort: str
    is_descending: bool = True

    @property
    def _is_down(self) -> bool:
        return self.is_descending is not self.place.is_back

    def ordered(self, found: Select[Any], listed: FromClause) -> Select[Any]:
        """What is found in `listed`, as it is read from the place on."""
        key, row = listed.c[self.sort], listed.c.id
        return found.order_by(*((key.desc(), row.desc()) if self._is_down else (key, row)))

    def page(self, found: Select[Any], listed: FromClause, kind: str, most: int) -> Select[Any]:
        """The first `most` of the rows of `kind` from the place on; raises InvalidCursor."""
        follows = self._follows(listed.c[self.sort], listed.c.id, kind)
        return self.ordered(found.where(*follows), listed).limit(most)

    def cut(self, rows: Sequence[Row], most: int, key: Callable[[Row], Cursor], total: int) -> Page:
        """The page, of up to `most` + 1 rows of each kind."""
        rows = sorted(rows, key=lambda row: _order(key(row)), reverse=self._is_down)
        is_more, rows = len(rows) > most, rows[:most]
        if self.place.is_back:
            rows.reverse()
        has_next = is_more or self.place.is_back
        has_previous = is_more if self.place.is_back else self.place.cursor is not None
        return Page(
            rows,
            total,
            str(key(rows[-1])) if rows and has_next else None,
            str(key(rows[0])) if rows and has_previous else None,
        )

    def _follows(self, sort: ColumnElement[Any], row: ColumnElement[Any], kind: str) -> list[ColumnElement[bool]]:
        if self.place.cursor is None:
            return []
        kept = self.place.cursor
        if isinstance(kept.value, str) is not isinstance(sort.type, String):
            # A cursor of a list that is sorted by what is no such value.
            raise InvalidCursor(str(kept))
        value = literal(kept.value) if isinstance(kept.value, str) else literal(kept.value, row.type)
        rank = RANKS[kind]
        if rank == kept.rank:
            there, here = tuple_(sort, row), tuple_(value, literal(kept.id, row.type))
            return [there < here if self._is_down else there > here]
        if (rank < kept.rank) is self._is_down:
            return [sort <= value if self._is_down else sort >= value]
        return [sort < value if self._is_down else sort > value]


def _order(cursor: Cursor) -> tuple[Any, int, int]:
    return cursor.value, cursor.rank, cursor.id

"""Rows that an index finds: how many, and which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Connection, Select, Table, func, select, true

from models.paging import Order
from models.schema import Row

# So many rows are read and sorted rather than a list walked.
FEW = 4000
# Of several conditions: up to so many rows of the rarest are read to count those that meet the others.
MANY = 40_000


def by(index: str | None, table: Table, found: Select[Any]) -> Select[Any]:
    """The same, by this index of the table; PostgreSQL, which knows how often each value is there, needs no hint."""
    name = f"ix_{table.name}_{index}"
    if not any(one.name == name for one in table.indexes):
        return found
    return found.with_hint(table, f"INDEXED BY {name}", "sqlite")


def count_up_to(db: Connection, found: Select[Any] | CompoundSelect[Any], most: int) -> int:
    """How many are found, `most` + 1 where there are more: no others are looked at."""
    return db.scalar(select(func.count()).select_from(found.limit(most + 1).subquery())) or 0


def read_few(
    db: Connection, matching: Select[Any], order: Order, kind: str, most: int, allowed: ColumnElement[bool]
) -> tuple[int | None, Sequence[Row]]:
    """How many match, None where that is not `allowed`, and the rows of the page: they are read once for both."""
    # Found first: a planner that sees the place or the limit would walk the list for them.
    few = matching.cte("matching").prefix_with("MATERIALIZED")
    total = select(func.count().label("total")).select_from(few).subquery()
    page = order.page(select(few), few, kind, most).subquery()
    # Where the page is empty, a row with the total alone.
    found = select(total.c.total, page).select_from(total.outerjoin(page, true())).where(allowed)
    rows = db.execute(order.ordered(found, page)).mappings().all()
    return (rows[0]["total"] if rows else None), [row for row in rows if row["id"] is not None]

"""What is not kept for good: the addresses that requests came from."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Table, select, update

from models.database import Database
from models.schema import EVENTS, KINDS

# How many rows one write looks at: others wait for it.
STEP = 200
# What holds addresses: which column tells a row's age, and what stands where an address was. Places stay.
ADDRESSES: dict[Table, tuple[str, dict[str, str | None]]] = {
    EVENTS: ("at", {"ip": None, "ip_key": None, "network": None}),
    **{kind.sessions: ("created_at", {"ip": "", "ip_key": None}) for kind in KINDS.values()},
}


def forget_some(db: Connection, table: Table, after: int, before: datetime) -> int | None:
    """Take the addresses out of some rows that follow the row `after` and are older than `before`.

    The last row that was looked at; None where no older one is left.
    """
    columns, (age, gone) = table.c, ADDRESSES[table]
    ids = db.scalars(select(columns.id).where(columns.id > after).order_by(columns.id).limit(STEP)).all()
    if not ids:
        return None
    some = (columns.id >= ids[0], columns.id <= ids[-1], columns[age] < before)
    db.execute(update(table).where(*some, columns.ip != gone["ip"]).values(gone))
    last = db.scalar(select(columns.id).where(*some).order_by(columns.id.desc()).limit(1))
    return ids[-1] if last == ids[-1] else None


class Retention:
    """Goes through events and sessions from the oldest on, and goes on where it was."""

    def __init__(self) -> None:
        self.done = dict.fromkeys(ADDRESSES, 0)

    async def forget(self, database: Database, table: Table, before: datetime) -> bool:
        """Take the addresses out of some more rows; whether older ones may be left."""
        last = await database.write(forget_some, table, self.done[table], before)
        self.done[table] = last or self.done[table]
        return last is not None

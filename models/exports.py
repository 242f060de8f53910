"""Everything that is held on one account."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, select

from models import accounts, events
from models.principals import Principal, is_proven
from models.schema import CODES, EVENTS, KNOWN_DEVICES, PICTURES, Row

# What proves somebody, and what only means something inside: neither is about the person.
LEFT_OUT = frozenset(
    {
        "password_hash", "sid", "device_id", "hash", "revision", "generation", "refreshed_before", "kind", "account_id",
        "surname_key", "device_key", "ip_key", "seen_on", "target", "network", "tx",
    }
)  # fmt: skip


def gather(db: Connection, principal: Principal, now: datetime) -> dict[str, Any] | None:
    """The account's rows in every table, without what would sign somebody in; None where the session has ended."""
    kind = principal.kind
    account = accounts.get(db, kind, principal.account_id, is_proven(principal, now))
    if account is None:
        return None
    sessions = select(kind.sessions).where(kind.sessions.c.account_id == principal.account_id)
    picture = db.scalar(_of(PICTURES, principal, PICTURES.c.jpeg))
    return {
        "kind": kind.name,
        "account": _shown(account),
        "picture": base64.b64encode(picture).decode() if picture else None,
        "sessions": [_shown(row) for row in db.execute(sessions.order_by(kind.sessions.c.id)).mappings()],
        "events": [_shown(events.show_own(row, principal)) for row in _read(db, EVENTS, principal)],
        **{str(table.name): [_shown(row) for row in _read(db, table, principal)] for table in (KNOWN_DEVICES, CODES)},
    }


def _read(db: Connection, table: Table, principal: Principal) -> Iterable[Row]:
    return db.execute(_of(table, principal).order_by(table.c.id)).mappings()


def _of(table: Table, principal: Principal, *columns: Any) -> Any:
    mine = (table.c.kind == principal.kind.name) & (table.c.account_id == principal.account_id)
    return select(*(columns or table.c)).where(mine)


def _shown(row: Row) -> dict[str, Any]:
    return {str(name): value for name, value in row.items() if name not in LEFT_OUT}

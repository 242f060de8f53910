"""The event log: every start, end, refusal and staff act, written in the transaction that did it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, insert, select

from models import clock
from models.database import Statement
from models.networks import make_key
from models.origins import Origin
from models.principals import Principal, is_proven
from models.schema import EVENTS, Kind, Row

# So many are written by one statement.
MOST_AT_ONCE = 32
_COLUMNS = [column for column in EVENTS.c if column.name not in ("id", "tx")]


class Type(StrEnum):
    """What happened."""

    REGISTERED = "registered"
    CONFIRMED = "confirmed"
    STARTED = "started"
    REFUSED = "refused"
    # A code was sent, or would have been if there were such an account.
    SENT = "sent"
    NAMED = "named"
    ENDED = "ended"
    # A contact was replaced by another; which one is the cause: "email", or, where it was taken away, "no_email". Or
    # whether new devices are told: "messages" and "no_messages".
    CHANGED = "changed"
    # By its owner; or by a code or by the link that staff sent: "reset" and "link" are the causes.
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    DISABLED = "disabled"
    ENABLED = "enabled"
    MADE_STAFF = "made_staff"
    UNMADE_STAFF = "unmade_staff"
    MADE_VIEWER = "made_viewer"
    UNMADE_VIEWER = "unmade_viewer"
    # A link that sets a new password was sent to the account.
    RESET_SENT = "reset_sent"
    # Every session of a kind was ended at once; "before" is the cause where later ones were not.
    EMERGENCY = "emergency"


class Cause(StrEnum):
    """Why a session ended."""

    SIGNED_OUT = "signed_out"
    OWNER = "owner"
    # By the link in the message that told of a new device: whoever reads the account's mail.
    LINK = "link"
    STAFF = "staff"
    EXPIRED = "expired"
    CAP = "cap"
    REPLACED = "replaced"
    DISABLED = "disabled"
    PASSWORD = "password"  # noqa: S105
    THEFT = "theft"
    # The database was restored from a back-up, and what it held was ended.
    RESTORED = "restored"
    EMERGENCY = "emergency"


def make(
    kind: Kind,
    account_id: int | None,
    event: Type,
    now: datetime,
    *,
    session_id: int | None = None,
    device: str | None = None,
    cause: str | None = None,
    by: Principal | None = None,
    origin: Origin | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """One event: what happened to which account and session, by whom, from where."""
    return {
        "at": clock.to_microseconds(now),
        "type": event.value,
        "cause": cause,
        "kind": kind.name,
        "account_id": account_id,
        "session_id": session_id,
        "by_kind": by.kind.name if by else None,
        "by_id": by.account_id if by else None,
        "device": device,
        "ip": origin.ip if origin else None,
        "ip_key": make_key(origin.ip) if origin else None,
        "country": origin.country if origin else None,
        "reason": reason,
        "target": None,
        "network": None,
    }


def append(db: Connection, *made: dict[str, Any]) -> None:
    """Write events to the log."""
    for first in range(0, len(made), MOST_AT_ONCE):
        some = made[first : first + MOST_AT_ONCE]
        statement, names = _appending(len(some))
        values = [event[column.name] for event in some for column in _COLUMNS]
        statement.run(db, dict(zip(names, values, strict=True)))


@cache
def _appending(count: int) -> tuple[Statement, list[str]]:
    """Writes so many events, and what their values are called in it."""
    rows = [
        {
            column.name: bindparam(f"{column.name}{number}", type_=BigInteger() if column.name == "at" else column.type)
            for column in _COLUMNS
        }
        for number in range(count)
    ]
    # Nobody asks for the ids: the log is only ever appended to.
    return Statement(insert(EVENTS).inline().values(rows)), [value.key for row in rows for value in row.values()]


def list_own(
    db: Connection, principal: Principal, session_id: int | None, before: int | None, most: int, now: datetime
) -> Sequence[Row]:
    """The latest `most` events of the principal's account, or of one of its sessions, that are older than the
    event `before`; newest first."""
    columns = EVENTS.c
    wanted = [columns.kind == principal.kind.name, columns.account_id == principal.account_id]
    if session_id is not None:
        wanted.append(columns.session_id == session_id)
    if before is not None:
        wanted.append(columns.id < before)
    found = select(EVENTS).where(*wanted, is_proven(principal, now)).order_by(columns.id.desc()).limit(most)
    return [show_own(row, principal) for row in db.execute(found).mappings()]


def show_own(row: Row, principal: Principal) -> Row:
    """An event of the principal's account as that may read it: where another did it, not who, from where and why."""
    if row["by_id"] is None or (row["by_kind"], row["by_id"]) == (principal.kind.name, principal.account_id):
        return row
    return {**row, "by_id": None, "ip": None, "ip_key": None, "country": None, "reason": None}

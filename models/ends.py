"""Ends of one's own sessions that come together, and that SQLite does together: there each writer waits for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, cast

from sqlalchemy import BindParameter, ColumnElement, Connection, Select, and_, func, literal_column, select, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql import visitors

from models import clock, sessions
from models.database import QueryOfMany, Statement
from models.events import Cause, Type
from models.networks import make_key
from models.origins import Origin
from models.principals import Principal, proofs
from models.schema import EVENTS, KINDS, Kind
from models.tokens import Claims

KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class End:
    """A session that its owner asks to end: whoever `claims` speak of, which are checked, and have a `sid`."""

    claims: Claims
    session_id: int
    origin: Origin
    at: datetime


def _end_own(kind: Kind, db: Connection, asked: Sequence[End]) -> Sequence[Principal | None]:
    """End what each asks to end, and say who that was.

    None where it may do nothing, or not that; where the session has ended; or where it met another of them that was
    asked before it, done or not: asked for alone, it may be done.
    """
    wanted = [
        (
            number,
            end.claims.sid,
            end.claims.account_id,
            end.session_id,
            clock.to_microseconds(end.at),
            end.origin.ip,
            end.origin.country,
        )
        for number, end in enumerate(asked)
    ]
    values = {
        "asked": json.dumps(wanted),
        # Apart: JSON holds no bytes.
        "keys": b"".join(make_key(end.origin.ip) or bytes(KEY_BYTES) for end in asked),
        "now": clock.to_microseconds(max(end.at for end in asked)),
    }
    ended_by: list[Principal | None] = [None] * len(asked)
    [[found]] = _ENDING[kind.name].run(db, values)
    for number, session_id, role in json.loads(found):
        ended_by[number] = Principal(kind, asked[number].claims.account_id, session_id, role)
    return ended_by


# Of each kind, what `Database.write_gathered` is asked for: one statement, and so a transaction of its own.
END_OWN: dict[str, QueryOfMany[End, Principal | None]] = {name: partial(_end_own, kind) for name, kind in KINDS.items()}

_ENDING = {
    name: Statement(
        text(
            f"""
            INSERT INTO {name}_ends VALUES (:asked, :keys, :now)
            RETURNING (SELECT json_group_array(json_array(number, calling, role)) FROM {name}_ended)
            """  # noqa: S608 - the names are our own
        )
    )
    for name in KINDS
}


def make_setup() -> list[str]:
    """What a connection of SQLite is told before it is asked for ends; for no other database it is worth making."""
    return [one for kind in KINDS.values() for one in _make_setup(kind)]


def _make_setup(kind: Kind) -> tuple[str, str, str]:
    ends, ended = f"{kind.name}_ends", f"{kind.name}_ended"
    # The names are our own.
    return (
        # What the statement may end, and then what it does: nothing is ended twice.
        f"""
        CREATE TEMP TABLE {ended} (
            number INTEGER, calling INTEGER, role TEXT, account_id INTEGER, session_id INTEGER PRIMARY KEY, device TEXT,
            at INTEGER, ip TEXT, ip_key BLOB, country TEXT
        )
        """,
        f"CREATE TEMP VIEW {ends} AS SELECT NULL AS asked, NULL AS keys, NULL AS now",
        # Whoever was to be ended by one that was asked before it ends nothing.
        f"""
        CREATE TEMP TRIGGER end_{kind.name} INSTEAD OF INSERT ON {ends} BEGIN
            DELETE FROM {ended};
            INSERT OR IGNORE INTO {ended} {_proving(kind)};
            DELETE FROM {ended} WHERE EXISTS (
                SELECT 1 FROM {ended} AS earlier
                WHERE earlier.session_id = {ended}.calling AND earlier.number < {ended}.number
            );
            UPDATE {kind.accounts} SET revision = revision + 1 WHERE id IN (SELECT account_id FROM {ended});
            DELETE FROM {kind.sessions} WHERE id IN (SELECT session_id FROM {ended});
            INSERT INTO {EVENTS}
                (at, type, cause, kind, account_id, session_id, by_kind, by_id, device, ip, ip_key, country)
                SELECT
                    at, '{Type.ENDED}', iif(calling = session_id, '{Cause.SIGNED_OUT}', '{Cause.OWNER}'),
                    '{kind.name}', account_id, session_id, '{kind.name}', account_id, device, ip, ip_key, country
                FROM {ended} ORDER BY number;
        END
        """,  # noqa: S608
    )


def _proving(kind: Kind) -> str:
    """Of the ends that many ask for, those that each may, with the columns of what is ended."""
    columns = kind.sessions.c
    asked = func.json_each(literal_column("NEW.asked")).table_valued("value")
    number, sid, account_id, wanted, at, ip, country = (
        func.json_extract(asked.c.value, literal_column(f"'$[{place}]'")) for place in range(7)
    )
    named = {"number": number, "wanted": wanted, "at": at, "ip": ip, "country": country}
    calling = (
        proofs(kind, and_(columns.sid == sid, columns.account_id == account_id))
        .add_columns(columns.account_id, *(one.label(name) for name, one in named.items()))
        .subquery("asking")
    ).c
    first = calling.number * literal_column(str(KEY_BYTES)) + literal_column("1")
    key = func.substr(literal_column("NEW.keys"), first, literal_column(str(KEY_BYTES)))
    found = (
        select(calling.number, calling.id, calling.role, columns.account_id, columns.id, columns.device)
        .add_columns(calling.at, calling.ip, func.nullif(key, func.zeroblob(literal_column(str(KEY_BYTES)))))
        .add_columns(calling.country)
        .where(columns.id == calling.wanted, sessions.endable_by(kind, "", kind))
        .order_by(calling.number)
    )
    # Where a statement for one has its value.
    values: dict[str, ColumnElement[Any]] = {
        "caller": calling.account_id,
        "calling": calling.id,
        "now": literal_column("NEW.now"),
    }

    def put(element: Any, **_: Any) -> Any:
        return values.get(element.key) if isinstance(element, BindParameter) else None

    put_in = cast(Select[Any], visitors.replacement_traverse(found, {}, put))
    # A trigger has no values but its row's.
    return str(put_in.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))

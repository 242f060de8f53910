"""Ends of one's own sessions that come together, and that SQLite does together: there each writer waits for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Column, Connection, MetaData, Table, and_, bindparam, func, select
from sqlalchemy.sql import visitors

from models import clock, events, sessions
from models.database import Statement
from models.origins import Origin
from models.principals import Principal, proofs
from models.schema import EVENTS, KINDS, Kind
from models.tokens import Claims

# Where the events of ends are put, and each ends its session: a view of the connection's own, and not of the file.
# One statement, because the thread that writes may have to wait for others between two.
_ENDS = {
    kind.name: Table(f"{kind.name}_ends", MetaData(), *(Column(one.name, one.type) for one in events.COLUMNS))
    for kind in KINDS.values()
}


def _make_setup(kind: Kind) -> tuple[str, str]:
    ends, names = _ENDS[kind.name], [column.name for column in events.COLUMNS]
    return (
        f"CREATE TEMP VIEW {ends} AS SELECT {', '.join(f'NULL AS {name}' for name in names)}",
        f"""
        CREATE TEMP TRIGGER end_{kind.name} INSTEAD OF INSERT ON {ends} BEGIN
            UPDATE {kind.accounts} SET revision = revision + 1 WHERE id = NEW.account_id;
            DELETE FROM {kind.sessions} WHERE id = NEW.session_id;
            INSERT INTO {EVENTS} ({", ".join(names)}) VALUES ({", ".join(f"NEW.{name}" for name in names)});
        END
        """,  # noqa: S608 - the names are our own
    )


# What a connection of SQLite needs before it is asked for ends.
SETUP = [text for kind in KINDS.values() for text in _make_setup(kind)]


@dataclass(frozen=True, slots=True)
class End:
    """A session that its owner asks to end: whoever `claims` speak of, which are checked, and have a `sid`."""

    claims: Claims
    session_id: int
    origin: Origin
    at: datetime


def end_own(db: Connection, asked: Sequence[End]) -> Sequence[Principal | None]:
    """End what each asks to end, and say who that was.

    None where it may do nothing, or not that; where the session has ended; or where another of them was before it.
    """
    ended_by: list[Principal | None] = [None] * len(asked)
    now = clock.to_microseconds(max(end.at for end in asked))
    for kind in dict.fromkeys(end.claims.kind for end in asked):
        wanted = [
            (number, end.claims.sid, end.claims.account_id, end.session_id)
            for number, end in enumerate(asked)
            if end.claims.kind is kind
        ]
        made: dict[int, dict[str, Any]] = {}
        [[found]] = _proving(kind).run(db, {"asked": json.dumps(wanted), "now": now})
        for number, calling, role, session_id, device in json.loads(found):
            # Nothing is ended twice, and whoever was ended by another of them ends nothing.
            if session_id in made or calling in made:
                continue
            end = asked[number]
            by = ended_by[number] = Principal(kind, end.claims.account_id, calling, role)
            made[session_id] = events.make(
                kind,
                by.account_id,
                events.Type.ENDED,
                end.at,
                session_id=session_id,
                device=device,
                cause=sessions.why(by, kind, by.account_id, session_id),
                by=by,
                origin=end.origin,
            )
        events.append(db, *made.values(), into=_ENDS[kind.name])
    return ended_by


@cache
def _proving(kind: Kind) -> Statement:
    """Of the ends that many ask for, those that each may: its number, who asks, and the session.

    Asked and answered in JSON: between a row and the next the thread may have to wait, too.
    """
    columns = kind.sessions.c
    asked = func.json_each(bindparam("asked")).table_valued("value")
    number, sid, account_id, wanted = (func.json_extract(asked.c.value, f"$[{place}]") for place in range(4))
    calling = (
        proofs(kind, and_(columns.sid == sid, columns.account_id == account_id))
        .add_columns(columns.account_id, number.label("number"), wanted.label("wanted"))
        .subquery("asking")
    ).c

    def put(element: Any, **_: Any) -> Any:
        """The caller's column, where a statement for one has its value."""
        callers = {"caller": calling.account_id, "calling": calling.id}
        return callers.get(element.key) if isinstance(element, BindParameter) else None

    allowed = visitors.replacement_traverse(sessions.endable_by(kind, "", kind), {}, put)
    found = func.json_array(calling.number, calling.id, calling.role, columns.id, columns.device)
    return Statement(select(func.json_group_array(found)).where(columns.id == calling.wanted, allowed))

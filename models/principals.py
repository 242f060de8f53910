"""Who is asking: the claims of a token, proved against the live sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    false,
    literal,
    literal_column,
    or_,
    select,
    type_coerce,
)

from models import clock
from models.database import Database, Statement
from models.schema import CUTOFFS, KINDS, USER, UTC, Kind, Role, Row
from models.tokens import Claims


@dataclass(frozen=True, slots=True)
class Principal:
    """An account, in one of its live sessions."""

    kind: Kind
    account_id: int
    session_id: int
    role: Role = ""

    @property
    def is_staff(self) -> bool:
        """Whether it may see and end anything."""
        return self.role == "staff"

    @property
    def sees_all(self) -> bool:
        """Whether it may see anything."""
        return self.role != ""

    def values(self, now: datetime) -> dict[str, Any]:
        """What statements that the principal causes are asked with."""
        return {"caller": self.account_id, "calling": self.session_id, "now": clock.to_microseconds(now)}


def has_limits_of_staff(kind: Kind) -> ColumnElement[bool]:
    """Whether the sessions of an account of this kind are as short as those of staff."""
    return or_(kind.accounts.c.is_staff, kind.accounts.c.is_viewer) if kind is USER else false()


def _has_role(accounts: FromClause, role: Role) -> list[ColumnElement[bool]]:
    """What must be true of an account that has this role, or a greater one."""
    if role == "staff":
        return [accounts.c.is_staff]
    return [or_(accounts.c.is_staff, accounts.c.is_viewer)] if role else []


def _role(kind: Kind) -> ColumnElement[str]:
    if kind is not USER:
        return literal_column("''")
    columns = kind.accounts.c
    return case(
        (columns.is_staff, literal_column("'staff'")),
        (columns.is_viewer, literal_column("'viewer'")),
        else_=literal_column("''"),
    )


NOW: ColumnElement[Any] = bindparam("now", type_=BigInteger)

# A page asks several statements with the same conditions: the few of the latest requests are kept as they were built.


@lru_cache(maxsize=256)
def is_live(
    kind: Kind, now: datetime | ColumnElement[Any] = NOW, sessions: FromClause | None = None
) -> ColumnElement[bool]:
    """Which sessions of `kind` are live: the one place that says it.

    At `now`, or at the statement's own value of that name, in microseconds; of `sessions`, where they have an alias.
    """
    columns = (kind.sessions if sessions is None else sessions).c
    # Nearly all were started after it. Added to nothing, the time tempts no planner to read all of those by its index.
    started_at = type_coerce(columns.created_at, BigInteger) + literal_column("0")
    return and_(columns.expires_at > now, started_at > cut_at(kind))


def cut_at(kind: Kind) -> ColumnElement[Any]:
    """The time up to which every session of `kind` was ended at once."""
    return select(CUTOFFS.c.at).where(CUTOFFS.c.kind == literal_column(f"'{kind.name}'")).scalar_subquery()


def _revision(kind: Kind) -> ColumnElement[int]:
    """What moves whenever the account or any session of it does: neither part of the sum ever becomes less."""
    return kind.accounts.c.revision + type_coerce(cut_at(kind), BigInteger)


def is_usable(kind: Kind) -> ColumnElement[bool]:
    """Whether an account may do anything at all: confirmed, and not disabled."""
    return kind.accounts.c.disabled_at.is_(None) & kind.is_confirmed


def proof(kind: Kind, device: bool = False) -> Select[Any]:
    """The live session that checked claims speak of, of an account that may do something; none where it ended.

    Named by `sid`, or, where `device` says so, the account's newest that this device started.
    """
    sessions = kind.sessions.c
    named = sessions.device == bindparam("device") if device else sessions.sid == bindparam("sid")
    mine = and_(named, sessions.account_id == bindparam("account_id"))
    return proofs(kind, mine).order_by(sessions.id.desc()).limit(literal_column("1"))


def proofs(kind: Kind, named: ColumnElement[bool]) -> Select[Any]:
    """Which of the sessions that are `named` are live, of accounts that may do something."""
    accounts, sessions = kind.accounts.c, kind.sessions.c
    return (
        select(sessions.id, _role(kind).label("role"), _revision(kind).label("revision"))
        .join_from(kind.sessions, kind.accounts, accounts.id == sessions.account_id)
        .where(named, is_usable(kind), is_live(kind))
    )


_PROOFS = {(kind.name, device): Statement(proof(kind, device)) for kind in KINDS.values() for device in (False, True)}


async def prove(database: Database, claims: Claims, device: str, now: int) -> tuple[Principal, int] | None:
    """The principal that `claims` speak of, and its account's revision, at `now` in microseconds.

    None where its session has ended or its account may do nothing.
    """
    return _read(claims, await database.fetch(_PROOFS[claims.kind.name, claims.sid is None], _ask(claims, device, now)))


def prove_now(database: Database, claims: Claims, now: int) -> tuple[Principal, int] | None:
    """The same at once, for claims with a `sid`; None also from a database that has to be waited for."""
    return _read(claims, database.fetch_now(_PROOFS[claims.kind.name, False], _ask(claims, "", now)))


def _ask(claims: Claims, device: str, now: int) -> dict[str, Any]:
    return {"sid": claims.sid, "device": device, "account_id": claims.account_id, "now": now}


def _read(claims: Claims, rows: Sequence[Sequence[Any]] | None) -> tuple[Principal, int] | None:
    if not rows:
        return None
    session_id, role, revision = rows[0]
    return Principal(claims.kind, claims.account_id, session_id, role), revision


def recognise(db: Connection, claims: Claims, now: datetime) -> Row | None:
    """The account of a live session that still has to confirm itself; None where there is no such.

    Such an account can do nothing but that, so it is no principal.
    """
    accounts, sessions = claims.kind.accounts, claims.kind.sessions.c
    return (
        db.execute(
            select(accounts)
            .join(claims.kind.sessions, accounts.c.id == sessions.account_id)
            .where(sessions.sid == claims.sid, sessions.account_id == claims.account_id, is_live(claims.kind, now))
            .where(accounts.c.disabled_at.is_(None), ~claims.kind.is_confirmed)
        )
        .mappings()
        .first()
    )


@lru_cache(maxsize=64)
def is_proven(principal: Principal, now: datetime) -> ColumnElement[bool]:
    """Whether the principal still is what it was proved to be: part of every statement that it causes."""
    return _proving(principal.kind, principal.role, literal(principal.session_id), literal(now, UTC))


@lru_cache(maxsize=64)
def may_see(principal: Principal, now: datetime) -> ColumnElement[bool]:
    """Whether the principal may see everything: part of every statement that shows the house."""
    return and_(literal(principal.sees_all), is_proven(principal, now))


def may_act(principal: Principal, now: datetime) -> ColumnElement[bool]:
    """Whether the principal may change and end everything: part of every statement that does."""
    return and_(literal(principal.is_staff), is_proven(principal, now))


@cache
def proving(kind: Kind, role: Role) -> ColumnElement[bool]:
    """The same for every principal of `kind`, for statements that are built once; asked with `Principal.values`."""
    return _proving(kind, role, bindparam("calling"), NOW)


@cache
def _callers(kind: Kind) -> tuple[FromClause, FromClause]:
    """The caller's account and session, beside those that a statement is about; made once, as they cost the most."""
    return kind.accounts.alias("caller"), kind.sessions.alias("calling")


def _proving(kind: Kind, role: Role, session_id: ColumnElement[int], now: ColumnElement[Any]) -> ColumnElement[bool]:
    accounts, sessions = _callers(kind)
    conditions = [sessions.c.id == session_id, is_live(kind, now, sessions), accounts.c.disabled_at.is_(None)]
    conditions += _has_role(accounts, role)
    return (
        select(sessions.c.id)
        .join_from(sessions, accounts, accounts.c.id == sessions.c.account_id)
        .where(*conditions)
        .exists()
    )

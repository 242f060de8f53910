"""Who is asking: the claims of a token, proved against the live sessions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, false, select
from sqlalchemy.orm import Session

from models.schema import USER, Kind, Row
from models.tokens import Claims


@dataclass(frozen=True, slots=True)
class Principal:
    """An account, in one of its live sessions."""

    kind: Kind
    account_id: int
    session_id: int
    is_staff: bool


def is_staff(kind: Kind) -> ColumnElement[bool]:
    """Whether an account of this kind is staff; only users are."""
    return kind.accounts.c.is_staff if kind is USER else false()


def is_usable(kind: Kind) -> ColumnElement[bool]:
    """Whether an account may do anything at all: confirmed, and not disabled."""
    return kind.accounts.c.disabled_at.is_(None) & kind.is_confirmed


def prove(db: Session, claims: Claims, device: str, now: datetime) -> Principal | None:
    """The principal that `claims` speak of; None where its session has ended or its account may do nothing.

    Claims without `sid` speak of the account's live session that was started by this `device`.
    """
    accounts, sessions = claims.kind.accounts.c, claims.kind.sessions.c
    named = sessions.device == device if claims.sid is None else sessions.sid == claims.sid
    found = db.execute(
        select(sessions.id, is_staff(claims.kind))
        .join_from(claims.kind.sessions, claims.kind.accounts, accounts.id == sessions.account_id)
        .where(named, sessions.account_id == claims.account_id, sessions.expires_at > now, is_usable(claims.kind))
        .order_by(sessions.id.desc())
        .limit(1)
    ).first()
    return Principal(claims.kind, claims.account_id, found[0], bool(found[1])) if found else None


def recognise(db: Session, claims: Claims, now: datetime) -> Row | None:
    """The account of a live session that still has to confirm itself; None where there is no such.

    Such an account can do nothing but that, so it is no principal.
    """
    accounts, sessions = claims.kind.accounts, claims.kind.sessions.c
    return (
        db.execute(
            select(accounts)
            .join(claims.kind.sessions, accounts.c.id == sessions.account_id)
            .where(sessions.sid == claims.sid, sessions.account_id == claims.account_id, sessions.expires_at > now)
            .where(accounts.c.disabled_at.is_(None), ~claims.kind.is_confirmed)
        )
        .mappings()
        .first()
    )


def is_proven(principal: Principal, now: datetime) -> ColumnElement[bool]:
    """Whether the principal is still what it was proved to be: part of every statement that it causes."""
    kind = principal.kind
    accounts, sessions = kind.accounts.alias("caller"), kind.sessions.alias("calling")
    conditions = [
        sessions.c.id == principal.session_id,
        sessions.c.expires_at > now,
        accounts.c.disabled_at.is_(None),
    ]
    if principal.is_staff:
        conditions.append(accounts.c.is_staff)
    return (
        select(sessions.c.id)
        .join_from(sessions, accounts, accounts.c.id == sessions.c.account_id)
        .where(*conditions)
        .exists()
    )

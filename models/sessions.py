"""Live sessions: who may see and end them, and every query over them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, false, func, insert, select, true, update
from sqlalchemy.orm import Session

from models import events, known_devices
from models.announcements import Announcement
from models.events import EVENTS, Cause, Type
from models.origins import Origin
from models.principals import Principal, is_proven, is_staff
from models.schema import Kind, Row
from models.settings import SessionSettings
from models.tokens import Claims

# Two tabs, or a lost answer: so long the last refresh token but one gives the same successor again.
GRACE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Started:
    """A session that was started or refreshed, with its account: all that its tokens are made of."""

    kind: Kind
    account: Row
    session: Row
    ends_at: datetime


def visible_to(principal: Principal, kind: Kind, now: datetime) -> ColumnElement[bool]:
    """Which sessions of `kind` the principal may see and therefore end: the live ones of its own account;
    for staff all that are live."""
    allowed = true() if principal.is_staff else owned_by(principal, kind)
    return and_(kind.sessions.c.expires_at > now, allowed, is_proven(principal, now))


def owned_by(principal: Principal, kind: Kind) -> ColumnElement[bool]:
    """Which sessions of `kind` are of the principal's own account; of the other kind none is."""
    if principal.kind is not kind:
        return false()
    return kind.sessions.c.account_id == principal.account_id


def list_visible(
    db: Session, principal: Principal, kind: Kind, account_id: int, now: datetime, limit: int | None, offset: int
) -> tuple[int, Sequence[Row]] | None:
    """How many sessions an account has, and those asked for, newest first, each with its account.

    Where `account_id` is no account that the principal may see, it is read as the id of one session. None
    where it is neither.
    """
    accounts, sessions = kind.accounts, kind.sessions
    visible = visible_to(principal, kind, now)
    is_own = principal.kind is kind and principal.account_id == account_id
    if is_own or (principal.is_staff and _is_account(db, kind, account_id)):
        wanted = and_(visible, sessions.c.account_id == account_id)
    else:
        wanted = and_(visible, sessions.c.id == account_id)
    rows = (
        db.execute(
            select(sessions, *_prefixed(kind))
            .join_from(sessions, accounts, accounts.c.id == sessions.c.account_id)
            .where(wanted)
            .order_by(sessions.c.id.desc())
            .limit(limit)
            .offset(offset)
        )
        .mappings()
        .all()
    )
    total = len(rows)
    if limit is not None or offset:
        total = db.scalar(select(func.count()).select_from(sessions).where(wanted)) or 0
    if not total and not (principal.is_staff and _is_account(db, kind, account_id)):
        return None
    return total, rows


def get_visible(db: Session, principal: Principal, kind: Kind, session_id: int, now: datetime) -> Row | None:
    """One session with its account; None where the principal sees no such session."""
    accounts, sessions = kind.accounts, kind.sessions
    return (
        db.execute(
            select(sessions, *_prefixed(kind))
            .join_from(sessions, accounts, accounts.c.id == sessions.c.account_id)
            .where(visible_to(principal, kind, now), sessions.c.id == session_id)
        )
        .mappings()
        .first()
    )


def name(
    db: Session, principal: Principal, kind: Kind, session_id: int, new_name: str | None, origin: Origin, now: datetime
) -> Row | None:
    """Name a session and give it as `get_visible` does; None where the principal sees no such session."""
    wanted = and_(visible_to(principal, kind, now), kind.sessions.c.id == session_id)
    _move_revisions(db, kind, wanted)
    named = db.execute(
        update(kind.sessions).where(wanted).values(name=new_name).returning(kind.sessions.c.account_id)
    ).scalar()
    if named is None:
        return None
    events.append(db, events.make(kind, named, Type.NAMED, now, session_id=session_id, by=principal, origin=origin))
    return get_visible(db, principal, kind, session_id, now)


def end(db: Session, principal: Principal, kind: Kind, session_id: int, origin: Origin, now: datetime) -> bool:
    """End one session; False where the principal sees no such session."""
    wanted = and_(visible_to(principal, kind, now), kind.sessions.c.id == session_id)
    return end_where(db, kind, wanted, None, now, by=principal, origin=origin) == 1


def end_others(db: Session, principal: Principal, origin: Origin, now: datetime) -> int:
    """End every session of the principal's account but the one it is in; how many that were."""
    kind = principal.kind
    wanted = and_(
        visible_to(principal, kind, now),
        owned_by(principal, kind),
        kind.sessions.c.id != principal.session_id,
    )
    return end_where(db, kind, wanted, None, now, by=principal, origin=origin)


def end_where(
    db: Session,
    kind: Kind,
    wanted: ColumnElement[bool],
    cause: Cause | None,
    now: datetime,
    *,
    by: Principal | None = None,
    origin: Origin | None = None,
) -> int:
    """End the sessions that `wanted` says, with their events; how many that were.

    Without `cause` it is who did it: the owner, from this session or another, or staff.
    """
    # The account before its sessions, as every write does: two that meet wait, and don't deadlock.
    if not _move_revisions(db, kind, wanted):
        return 0
    columns = kind.sessions.c
    ended = db.execute(
        delete(kind.sessions).where(wanted).returning(columns.id, columns.account_id, columns.device)
    ).all()
    made = [
        events.make(
            kind,
            account_id,
            Type.ENDED,
            now,
            session_id=session_id,
            device=device,
            cause=cause or _who(by, kind, account_id, session_id),
            by=by,
            origin=origin,
        )
        for session_id, account_id, device in ended
    ]
    if made:
        events.append(db, *made)
    return len(made)


def start(
    db: Session,
    kind: Kind,
    account_id: int,
    password_hash: str | None,
    device_id: str | None,
    origin: Origin,
    settings: SessionSettings,
    now: datetime,
    *,
    previous: Claims | None = None,
    announcement: Announcement | None = None,
    language: str | None = None,
) -> Started | None:
    """Start a session, in place of the same device's; past the cap, end the one seen longest ago.

    `previous` is the session that the browser was in, and is no more. `announcement` is sent where the account has
    never signed in on this device, and wants to know; where it has, `language` becomes the account's.

    None where the account is gone or disabled, or where its password is no longer the one that was checked.
    """
    accounts, columns = kind.accounts.c, kind.sessions.c
    usable = [accounts.id == account_id, accounts.disabled_at.is_(None)]
    if password_hash is not None:
        usable.append(accounts.password_hash == password_hash)
    # Also the lock that makes two sign-ins of one account wait for each other.
    account = (
        db.execute(
            update(kind.accounts)
            .where(*usable)
            .values(revision=accounts.revision + 1)
            .returning(*accounts, is_staff(kind).label("staff"))
        )
        .mappings()
        .first()
    )
    if account is None:
        return None
    mine = columns.account_id == account_id
    if device_id is not None:
        end_where(db, kind, and_(mine, columns.device_id == device_id), Cause.REPLACED, now, origin=origin)
    if previous:
        last = previous.kind.sessions.c.sid == previous.sid
        end_where(db, previous.kind, last, Cause.REPLACED, now, origin=origin)
    novelty = known_devices.meet(db, kind, account_id, device_id, origin, now)
    if language and language != account["language"] and novelty != "device":
        # A stranger's browser does not choose what the owner reads.
        db.execute(update(kind.accounts).where(accounts.id == account_id).values(language=language))
    limits = settings.limits(kind, account["staff"])
    session = (
        db.execute(
            insert(kind.sessions)
            .values(
                sid=secrets.token_urlsafe(16),
                account_id=account_id,
                device=origin.device,
                device_id=device_id,
                ip=origin.ip,
                browser=origin.browser,
                os=origin.os,
                device_kind=origin.device_kind,
                country=origin.country,
                city=origin.city,
                created_at=now,
                last_seen_at=now,
                refreshed_at=now,
                password_at=None if password_hash is None else now,
                novelty=novelty,
                expires_at=now + min(limits.idle, limits.absolute),
            )
            .returning(*columns)
        )
        .mappings()
        .one()
    )
    started = events.make(
        kind, account_id, Type.STARTED, now, session_id=session["id"], device=origin.device, origin=origin
    )
    events.append(db, started)
    too_many = (
        select(columns.id)
        .where(mine, columns.id != session["id"])
        .order_by(columns.last_seen_at.desc(), columns.id.desc())
        .offset(settings.most - 1)
    )
    if surplus := db.scalars(too_many).all():
        end_where(db, kind, columns.id.in_(surplus), Cause.CAP, now, origin=origin)
    if announcement and novelty == "device" and account["tells_new_devices"]:
        announcement.send(db, kind, account, session, now)
    return Started(kind, account, session, now + limits.absolute)


def is_recent(db: Session, principal: Principal, since: datetime) -> bool:
    """Whether the password was given in the principal's session after `since`."""
    columns = principal.kind.sessions.c
    mine = (columns.id == principal.session_id) & (columns.password_at >= since)
    return db.scalar(select(columns.id).where(mine)) is not None


def confirm_password(db: Session, principal: Principal, password_hash: str, now: datetime) -> bool:
    """Remember that the account's password was given in this session; False where it is another by now."""
    accounts, columns = principal.kind.accounts.c, principal.kind.sessions.c
    is_same = select(accounts.id).where(accounts.id == principal.account_id, accounts.password_hash == password_hash)
    changed = db.execute(
        update(principal.kind.sessions)
        .where(columns.id == principal.session_id, is_same.exists(), is_proven(principal, now))
        .values(password_at=now)
        .returning(columns.id)
    ).first()
    return changed is not None


def why_ended(db: Session, claims: Claims) -> str | None:
    """The cause of the end of the session that `claims` speak of; None where it is live, or was swept from the log."""
    return db.scalar(
        select(EVENTS.c.cause)
        .where(EVENTS.c.kind == claims.kind.name, EVENTS.c.account_id == claims.account_id)
        .where(EVENTS.c.session_id == claims.session_id, EVENTS.c.type == Type.ENDED)
        .order_by(EVENTS.c.id.desc())
        .limit(1)
    )


def sign_out(db: Session, claims: Claims, origin: Origin, now: datetime) -> bool:
    """End the session that `claims` speak of, whatever its account may do; False where it has ended."""
    kind, columns = claims.kind, claims.kind.sessions.c
    wanted = and_(columns.sid == claims.sid, columns.account_id == claims.account_id)
    return end_where(db, kind, wanted, Cause.SIGNED_OUT, now, origin=origin) == 1


def get_named(db: Session, kind: Kind, session_id: int, now: datetime) -> Row | None:
    """A live session, for whoever holds the link that ends it."""
    columns = kind.sessions.c
    found = select(kind.sessions).where(columns.id == session_id, columns.expires_at > now)
    return db.execute(found).mappings().first()


def end_by_link(db: Session, kind: Kind, session_id: int, origin: Origin, now: datetime) -> bool:
    """End the session whose link was sent to its owner; False where it has ended."""
    columns = kind.sessions.c
    wanted = and_(columns.id == session_id, columns.expires_at > now)
    return end_where(db, kind, wanted, Cause.LINK, now, origin=origin) == 1


def refresh(db: Session, claims: Claims, origin: Origin, settings: SessionSettings, now: datetime) -> Started | None:
    """Rotate a session's refresh token. None where the session has ended or its account may do nothing.

    The newest token gives a successor; the one before it, within the grace, the same one; any older one was
    stolen, from its owner or by him, and ends the session.
    """
    kind = claims.kind
    accounts, columns = kind.accounts.c, kind.sessions.c
    found = (
        select(*columns, *_prefixed(kind), is_staff(kind).label("staff"))
        .join_from(kind.sessions, kind.accounts, accounts.id == columns.account_id)
        .where(columns.sid == claims.sid, columns.account_id == claims.account_id, columns.expires_at > now)
        .where(accounts.disabled_at.is_(None), kind.is_confirmed)
    )
    row = db.execute(found).mappings().first()
    if row is None or claims.generation > row["generation"]:
        return None
    limits = settings.limits(kind, row["staff"])
    ends_at = row["created_at"] + limits.absolute
    if claims.generation == row["generation"]:
        # The generation is asked again by the write: of two that came at once one rotates.
        db.execute(
            update(kind.sessions)
            .where(columns.id == row["id"], columns.generation == claims.generation)
            .values(
                generation=columns.generation + 1,
                refreshed_at=now,
                last_seen_at=now,
                expires_at=min(now + limits.idle, ends_at),
            )
        )
        row = db.execute(found).mappings().first()
        if row is None:
            return None
    elif claims.generation < row["generation"] - 1 or now - row["refreshed_at"] > GRACE:
        end_where(db, kind, columns.id == row["id"], Cause.THEFT, now, origin=origin)
        return None
    account = {key.removeprefix("account_"): value for key, value in row.items() if key.startswith("account_")}
    return Started(kind, account | {"id": claims.account_id}, row, ends_at)


def sweep(db: Session, kind: Kind, now: datetime, most: int) -> int:
    """End up to `most` sessions that have expired, with their events; how many that were."""
    columns = kind.sessions.c
    expired = select(columns.id).where(columns.expires_at <= now).order_by(columns.expires_at).limit(most)
    if ids := db.scalars(expired).all():
        return end_where(db, kind, and_(columns.id.in_(ids), columns.expires_at <= now), Cause.EXPIRED, now)
    return 0


def see(db: Session, kind: Kind, seen: Mapping[int, datetime], settings: SessionSettings) -> None:
    """Write when sessions were last seen, and with it when they will have been idle too long."""
    accounts, columns = kind.accounts.c, kind.sessions.c
    rows = db.execute(
        select(columns.id, columns.created_at, is_staff(kind).label("staff"))
        .join_from(kind.sessions, kind.accounts, accounts.id == columns.account_id)
        .where(columns.id.in_(seen))
        .order_by(columns.id)
    ).all()
    if not rows:
        return
    values = []
    for row in rows:
        limits = settings.limits(kind, row.staff)
        expires_at = min(seen[row.id] + limits.idle, row.created_at + limits.absolute)
        values.append({"session": row.id, "seen_at": seen[row.id], "idle_at": expires_at})
    db.connection().execute(
        update(kind.sessions)
        .where(columns.id == bindparam("session"), columns.last_seen_at < bindparam("seen_at"))
        .values(last_seen_at=bindparam("seen_at"), expires_at=bindparam("idle_at")),
        values,
    )


def _who(by: Principal | None, kind: Kind, account_id: int, session_id: int) -> Cause:
    if by is None or by.kind is not kind or by.account_id != account_id:
        return Cause.STAFF
    return Cause.SIGNED_OUT if by.session_id == session_id else Cause.OWNER


def _is_account(db: Session, kind: Kind, account_id: int) -> bool:
    return db.scalar(select(kind.accounts.c.id).where(kind.accounts.c.id == account_id)) is not None


def _prefixed(kind: Kind) -> list[ColumnElement[Any]]:
    """The account's columns, as `account_…` beside the session's."""
    return [column.label(f"account_{column.name}") for column in kind.accounts.c if column.name != "id"]


def _move_revisions(db: Session, kind: Kind, wanted: ColumnElement[bool]) -> int:
    """Move the revision of each account that owns a session that `wanted` says; how many accounts those are."""
    accounts = kind.accounts.c
    concerned = select(kind.sessions.c.account_id).where(wanted)
    return len(
        db.execute(
            update(kind.accounts)
            .where(accounts.id.in_(concerned))
            .values(revision=accounts.revision + 1)
            .returning(accounts.id)
        ).all()
    )

"""Live sessions: who may see and end them, and every query over them but `ends`, which asks here who may."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import islice, takewhile
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Integer,
    and_,
    bindparam,
    delete,
    false,
    func,
    insert,
    select,
    true,
    type_coerce,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from models import clock, events, known_devices
from models.announcements import Announcement
from models.database import Database, Statement
from models.events import Cause, Type
from models.origins import Origin
from models.principals import NOW, Principal, cut_at, has_limits_of_staff, is_live, is_proven, proof, proving
from models.schema import EVENTS, KINDS, UTC, Kind, Role, Row
from models.settings import Limits, SessionSettings
from models.tokens import Claims

# How many one write of the background ends: so few that whoever asks meanwhile need not wait for it.
MOST_AT_ONCE = 25
# Two tabs, or a lost answer: so long after its first use a refresh token gives the same successor again.
GRACE = timedelta(seconds=30)
# More refreshes of one session within the grace than anybody needs: of those before, it is not known when they were.
MOST_REFRESHES = 100


@dataclass(frozen=True, slots=True)
class Started:
    """A session that was started or refreshed, with its account: all that its tokens are made of."""

    kind: Kind
    account: Row
    session: Row
    ends_at: datetime


@cache
def visible_to(of: Kind, role: Role, kind: Kind) -> ColumnElement[bool]:
    """Which sessions of `kind` a principal of `of` may see: the live ones of its own account; with a role all that
    are live. Its values are `Principal.values`."""
    allowed = true() if role else owned_by(of, kind)
    return and_(is_live(kind), allowed, proving(of, role))


@cache
def endable_by(of: Kind, role: Role, kind: Kind) -> ColumnElement[bool]:
    """Which of those it may end and name: all for staff; for everybody else, viewers too, those of its own account."""
    visible = visible_to(of, role, kind)
    return visible if role == "staff" else and_(visible, owned_by(of, kind))


@cache
def owned_by(of: Kind, kind: Kind) -> ColumnElement[bool]:
    """Which sessions of `kind` are of the own account of a principal of `of`; of the other kind none is."""
    return kind.sessions.c.account_id == bindparam("caller") if of is kind else false()


def list_visible(
    db: Connection, principal: Principal, kind: Kind, account_id: int, now: datetime, limit: int | None, offset: int
) -> tuple[int, Sequence[Row]] | None:
    """How many sessions an account has, and those asked for, newest first, each with its account.

    Where `account_id` is no account that the principal may see, it is read as the id of one session. None
    where it is neither.
    """
    accounts, sessions = kind.accounts, kind.sessions
    visible = visible_to(principal.kind, principal.role, kind)
    values = principal.values(now)
    is_own = principal.kind is kind and principal.account_id == account_id
    if is_own or (principal.sees_all and _is_account(db, kind, account_id)):
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
            .offset(offset),
            values,
        )
        .mappings()
        .all()
    )
    total = len(rows)
    if limit is not None or offset:
        total = db.scalar(select(func.count()).select_from(sessions).where(wanted), values) or 0
    if not total and not (
        principal.sees_all and _is_account(db, kind, account_id) and db.scalar(select(is_proven(principal, now)))
    ):
        return None
    return total, rows


@dataclass(frozen=True, slots=True)
class OwnList:
    """The sessions of the caller's own account as one statement read them, with the proof of the caller."""

    principal: Principal
    revision: int
    # Microseconds since 1970; until then no session of the list expires.
    until: int
    rows: list[dict[str, Any]]


# The columns that a statement gives, and how each is read.
Columns = list[tuple[str, Callable[[Any], Any]]]


def _own_list(kind: Kind, device: bool) -> tuple[Statement, Columns]:
    """The statement that proves the caller and lists its account's sessions, and how to read its columns."""
    accounts, sessions = kind.accounts.c, kind.sessions.c
    caller = proof(kind, device).add_columns(sessions.account_id).subquery("caller")
    columns = [sessions.id, sessions.device, sessions.expires_at, *_prefixed(kind)]
    listed = (
        select(*caller.c, *columns)
        .select_from(caller)
        .join(kind.accounts, accounts.id == caller.c.account_id)
        .join(kind.sessions, sessions.account_id == caller.c.account_id)
        .where(is_live(kind))
        .order_by(sessions.id.desc())
    )
    return Statement(listed), _to_read(columns)


def _to_read(columns: Sequence[ColumnElement[Any]]) -> Columns:
    return [(column.name, _reading(column)) for column in columns]


def _read(columns: Columns, values: Sequence[Any]) -> dict[str, Any]:
    return {name: read(value) for (name, read), value in zip(columns, values, strict=True)}


def _reading(column: ColumnElement[Any]) -> Callable[[Any], Any]:
    """How the driver's value of `column` is read."""
    if isinstance(column.type, UTC):
        return lambda value: None if value is None else clock.from_microseconds(value)
    return bool if isinstance(column.type, Boolean) else lambda value: value


async def list_own(database: Database, claims: Claims, device: str, now: int) -> OwnList | None:
    """The live sessions of the account that `claims` speak of, newest first, at `now` in microseconds.

    None where the caller's own session has ended or its account may do nothing.
    """
    kind = claims.kind
    statement, columns = _OWN_LISTS[kind.name, claims.sid is None]
    found = await database.fetch(
        statement, {"sid": claims.sid, "device": device, "account_id": claims.account_id, "now": now}
    )
    if not found:
        return None
    session_id, role, revision, account_id = found[0][:4]
    rows = [{"account_id": account_id, **_read(columns, row[4:])} for row in found]
    until = clock.to_microseconds(min(row["expires_at"] for row in rows))
    return OwnList(Principal(kind, account_id, session_id, role), revision, until, rows)


def get_visible(db: Connection, principal: Principal, kind: Kind, session_id: int, now: datetime) -> Row | None:
    """One session with its account; None where the principal sees no such session."""
    accounts, sessions = kind.accounts, kind.sessions
    return (
        db.execute(
            select(sessions, *_prefixed(kind))
            .join_from(sessions, accounts, accounts.c.id == sessions.c.account_id)
            .where(_visible_one(principal.kind, principal.role, kind)),
            principal.values(now) | {"session_id": session_id},
        )
        .mappings()
        .first()
    )


def name(
    db: Connection,
    principal: Principal,
    kind: Kind,
    session_id: int,
    new_name: str | None,
    origin: Origin,
    now: datetime,
) -> Row | None:
    """Name a session and give it as `get_visible` does; None where the principal sees no such session."""
    wanted = _endable_one(principal.kind, principal.role, kind)
    values = principal.values(now) | {"session_id": session_id, "new_name": new_name}
    if db.scalar(select(kind.sessions.c.id).where(wanted, kind.sessions.c.name == new_name), values):
        # It is called so already: nothing happened, and the log says nothing.
        return get_visible(db, principal, kind, session_id, now)
    if not _moving(kind, wanted).run(db, values):
        return None
    named = _naming(kind, wanted).run(db, values)
    if not named:
        # It ended between the two statements.
        return None
    account_id: int = named[0][0]
    is_own = (kind.name, account_id) == (principal.kind.name, principal.account_id)
    cause = None if is_own else Cause.STAFF
    made = events.make(
        kind, account_id, Type.NAMED, now, session_id=session_id, cause=cause, by=principal, origin=origin
    )
    events.append(db, made)
    return get_visible(db, principal, kind, session_id, now)


def end(
    db: Connection,
    principal: Principal,
    kind: Kind,
    session_id: int,
    origin: Origin,
    now: datetime,
) -> bool:
    """End one session; False where the principal may end no such session."""
    wanted = _endable_one(principal.kind, principal.role, kind)
    values = principal.values(now) | {"session_id": session_id}
    return end_where(db, kind, wanted, values, None, now, by=principal, origin=origin) == 1


def newest(db: Connection, kinds: Sequence[Kind], now: datetime) -> datetime:
    """The time by which every session of `kinds` was started: now, or later where another server's clock is ahead."""
    for kind in kinds:
        column = kind.sessions.c.created_at
        now = max(now, db.scalar(select(column).order_by(column.desc()).limit(1)) or now)
    return now


def end_many(
    db: Connection,
    kind: Kind,
    ids: Sequence[int],
    seen_before: datetime,
    now: datetime,
    *,
    by: Principal,
    origin: Origin,
    reason: str | None,
) -> int:
    """End the sessions of these ids, at most MOST_AT_ONCE, that are live and were not seen since; how many that were.

    Whether `by` may do so is asked by whoever calls, in the same transaction.
    """
    values = _number(ids) | {"now": clock.to_microseconds(now), "seen_at": clock.to_microseconds(seen_before)}
    return end_where(db, kind, _many(kind), values, Cause.STAFF, now, by=by, origin=origin, reason=reason)


def _number(ids: Sequence[int]) -> dict[str, Any]:
    """The ids as the values of a statement that takes MOST_AT_ONCE of them; no session has the id 0."""
    return {f"id{number}": ids[number] if number < len(ids) else 0 for number in range(MOST_AT_ONCE)}


def end_others(db: Connection, principal: Principal, origin: Origin, now: datetime) -> int | None:
    """End every session of the principal's account but the one it is in; how many that were.

    None where the principal's own session has ended meanwhile: then nothing was done.
    """
    kind = principal.kind
    wanted = _endable_others(kind, principal.role)
    ended = end_where(db, kind, wanted, principal.values(now), None, now, by=principal, origin=origin)
    if not ended and not db.scalar(select(is_proven(principal, now))):
        return None
    return ended


def end_one(
    db: Connection, kind: Kind, session_id: int, cause: Cause, now: datetime, *, origin: Origin | None = None
) -> bool:
    """End one session, whosesoever it is; False where it has ended."""
    return end_where(db, kind, _one(kind), {"session_id": session_id}, cause, now, origin=origin) == 1


def end_account(
    db: Connection,
    kind: Kind,
    account_id: int,
    cause: Cause,
    now: datetime,
    *,
    but: int = 0,
    by: Principal | None = None,
    origin: Origin | None = None,
    reason: str | None = None,
) -> int:
    """End every session of an account, `but` the one of this id; how many that were."""
    values = {"account_id": account_id, "but": but}
    return end_where(db, kind, _of_account(kind), values, cause, now, by=by, origin=origin, reason=reason)


def end_where(
    db: Connection,
    kind: Kind,
    wanted: ColumnElement[bool],
    values: dict[str, Any],
    cause: Cause | None,
    now: datetime,
    *,
    by: Principal | None = None,
    origin: Origin | None = None,
    reason: str | None = None,
) -> int:
    """End the sessions that `wanted` says, with their events; how many that were.

    `wanted` is built once, for `values`. Without `cause` it is who did it: the owner, from this session or
    another, or staff.
    """
    # The account before its sessions, as every write does: two that meet wait, and don't deadlock.
    if not _moving(kind, wanted).run(db, values):
        return 0
    # In the order in which they were started, whichever way the database found them.
    ended = sorted(_deleting(kind, wanted).run(db, values), key=lambda row: int(row[0]))
    made = [
        events.make(
            kind,
            account_id,
            Type.ENDED,
            now,
            session_id=session_id,
            device=device,
            cause=cause or _why(by, kind, account_id, session_id),
            by=by,
            origin=origin,
            reason=reason,
        )
        for session_id, account_id, device in ended
    ]
    if made:
        events.append(db, *made)
    return len(made)


def start(
    db: Connection,
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
    accounts = kind.accounts.c
    admitting, columns = _admitting(kind, password_hash is not None)
    admitted = admitting.run(db, {"signing_in": account_id, "checked": password_hash})
    if not admitted:
        return None
    account = _read(columns, admitted[0])
    if device_id is not None:
        values = {"account_id": account_id, "device_id": device_id}
        end_where(db, kind, _of_device(kind), values, Cause.REPLACED, now, origin=origin)
    if previous:
        end_where(db, previous.kind, _of_sid(previous.kind), {"sid": previous.sid}, Cause.REPLACED, now, origin=origin)
    novelty = known_devices.meet(db, kind, account_id, device_id, origin, now)
    if language and language != account["language"] and novelty != "device":
        # A stranger's browser does not choose what the owner reads.
        db.execute(update(kind.accounts).where(accounts.id == account_id).values(language=language))
    limits = settings.limits(kind, account["staff"])
    # An emergency may have cut off what a clock that was ahead will only come to: whoever signs in after it is let in.
    created_at = max(now, account["cut_at"] + clock.MICROSECOND)
    session = (
        db.execute(
            _inserting(kind),
            {
                "sid": secrets.token_urlsafe(16),
                "account_id": account_id,
                "device_id": device_id,
                **origin.values(),
                "created_at": created_at,
                # Nobody is seen before he signed in: lists go by that.
                "last_seen_at": created_at,
                "refreshed_at": now,
                "password_at": None if password_hash is None else now,
                "novelty": novelty,
                "expires_at": now + min(limits.idle, limits.absolute),
            },
        )
        .mappings()
        .one()
    )
    started = events.make(
        kind,
        account_id,
        Type.STARTED,
        now,
        session_id=session["id"],
        device=origin.device,
        cause=novelty or None,
        origin=origin,
    )
    events.append(db, started)
    others = {"account_id": account_id, "but": session["id"], "kept": settings.most - 1}
    for (session_id,) in _past_cap(kind).run(db, others):
        end_one(db, kind, session_id, Cause.CAP, now, origin=origin)
    if announcement and novelty == "device" and account["tells_new_devices"]:
        announcement.send(db, kind, account, session, now)
    return Started(kind, account, session, now + limits.absolute)


def is_recent(db: Connection, principal: Principal, since: datetime) -> bool:
    """Whether the password was given in the principal's session after `since`."""
    columns = principal.kind.sessions.c
    mine = (columns.id == principal.session_id) & (columns.password_at >= since)
    return db.scalar(select(columns.id).where(mine)) is not None


def confirm_password(db: Connection, principal: Principal, password_hash: str, now: datetime) -> bool:
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


def why_ended(db: Connection, claims: Claims) -> str | None:
    """The cause of the end of the session that `claims` speak of; None where it is live, or was swept from the log."""
    columns = claims.kind.sessions.c
    # What a cut-off ended has its row until it is swept, and no event.
    mine = (columns.id == claims.session_id, columns.account_id == claims.account_id)
    if db.scalar(select(columns.id).where(*mine, columns.created_at <= cut_at(claims.kind))) is not None:
        return Cause.EMERGENCY
    return db.scalar(
        select(EVENTS.c.cause)
        .where(EVENTS.c.kind == claims.kind.name, EVENTS.c.account_id == claims.account_id)
        .where(EVENTS.c.session_id == claims.session_id, EVENTS.c.type == Type.ENDED)
        .order_by(EVENTS.c.id.desc())
        .limit(1)
    )


def sign_out(db: Connection, claims: Claims, origin: Origin, now: datetime) -> bool:
    """End the session that `claims` speak of, whatever its account may do; False where it has ended."""
    kind = claims.kind
    return end_where(db, kind, _of_sid(kind), {"sid": claims.sid}, Cause.SIGNED_OUT, now, origin=origin) == 1


def get_named(db: Connection, kind: Kind, session_id: int, now: datetime) -> Row | None:
    """A live session, for whoever holds the link that ends it."""
    columns = kind.sessions.c
    found = select(kind.sessions).where(columns.id == session_id, is_live(kind, now))
    return db.execute(found).mappings().first()


def end_by_link(db: Connection, kind: Kind, session_id: int, origin: Origin, now: datetime) -> bool:
    """End the session whose link was sent to its owner; False where it has ended."""
    return end_one(db, kind, session_id, Cause.LINK, now, origin=origin)


def refresh(db: Connection, claims: Claims, origin: Origin, settings: SessionSettings, now: datetime) -> Started | None:
    """Rotate a session's refresh token. None where the session has ended or its account may do nothing.

    The newest token gives a successor; one that was used already, within the grace of its first use the same one.
    Used again later it was stolen, from its owner or by him, and ends the session (RFC 9700, 4.14.2).
    """
    kind = claims.kind
    accounts, columns = kind.accounts.c, kind.sessions.c
    # The account first, and read after it: whoever changes what it or its sessions may do has done so, or waits.
    db.execute(select(accounts.id).where(accounts.id == claims.account_id).with_for_update(key_share=True))
    found = (
        select(*columns, *_prefixed(kind), has_limits_of_staff(kind).label("staff"))
        .join_from(kind.sessions, kind.accounts, accounts.id == columns.account_id)
        .where(columns.sid == claims.sid, columns.account_id == claims.account_id, is_live(kind, now))
        .where(accounts.disabled_at.is_(None), kind.is_confirmed)
    )
    row = db.execute(found).mappings().first()
    if row is None or claims.generation > row["generation"]:
        return None
    limits = settings.limits(kind, row["staff"])
    ends_at = row["created_at"] + limits.absolute
    refreshes = [*row["refreshed_before"], row["refreshed_at"]] if row["generation"] > 1 else []
    session: dict[str, Any] = {**row, "generation": claims.generation + 1}
    if claims.generation == row["generation"]:
        latest = takewhile(lambda at: now - at <= GRACE, reversed(refreshes))
        changed = {
            "generation": claims.generation + 1,
            "refreshed_at": now,
            "refreshed_before": list(islice(latest, MOST_REFRESHES))[::-1],
            "last_seen_at": max(now, row["last_seen_at"]),
            "expires_at": min(now + limits.idle, ends_at),
        }
        db.execute(update(kind.sessions).where(columns.id == row["id"]).values(changed))
        session |= changed
    else:
        age = row["generation"] - claims.generation
        if age > len(refreshes) > MOST_REFRESHES and now - refreshes[0] <= GRACE:
            # It may have been used a moment ago: there were too many since to know.
            return None
        if age > len(refreshes) or now - refreshes[-age] > GRACE:
            end_one(db, kind, row["id"], Cause.THEFT, now, origin=origin)
            return None
        session["refreshed_at"] = refreshes[-age]
    account = {key.removeprefix("account_"): value for key, value in row.items() if key.startswith("account_")}
    return Started(kind, account | {"id": claims.account_id}, session, ends_at)


def sweep(db: Connection, kind: Kind, now: datetime, most: int = MOST_AT_ONCE) -> int:
    """End up to `most` sessions that have expired, with their events; how many that were."""
    columns = kind.sessions.c
    expired = select(columns.id).where(columns.expires_at <= now).order_by(columns.expires_at).limit(most)
    at = clock.to_microseconds(now)
    ids = db.scalars(expired).all()
    for session_id in ids:
        end_where(db, kind, _expired_one(kind), {"session_id": session_id, "now": at}, Cause.EXPIRED, now)
    return len(ids)


def sweep_cut(db: Connection, kind: Kind, now: datetime) -> int:
    """End up to MOST_AT_ONCE sessions that a cut-off ended already, with their events; how many that were."""
    columns = kind.sessions.c
    # Compared as a value: what a subquery gives no index is sought by.
    at = db.scalar(select(cut_at(kind)))
    cut = select(columns.id).where(columns.created_at <= at).order_by(columns.created_at).limit(MOST_AT_ONCE)
    ids = db.scalars(cut).all()
    if not ids:
        return 0
    return end_where(db, kind, _cut(kind), _number(ids), Cause.EMERGENCY, now)


def shorten(db: Connection, kind: Kind, account_id: int, limits: Limits) -> None:
    """Have the sessions that an account has already end when `limits` say; those may be shorter than what they had."""
    columns = kind.sessions.c
    expires_at = type_coerce(columns.expires_at, BigInteger)
    for begins, most in ((columns.last_seen_at, limits.idle), (columns.created_at, limits.absolute)):
        ends_at = type_coerce(begins, BigInteger) + most // clock.MICROSECOND
        longer = (columns.account_id == account_id, expires_at > ends_at)
        db.execute(update(kind.sessions).where(*longer).values(expires_at=type_coerce(ends_at, UTC)))


def see(db: Connection, kind: Kind, seen: Mapping[int, datetime], settings: SessionSettings, now: datetime) -> None:
    """Write when sessions were last seen, and with it when they will have been idle too long.

    What others hold, because they end or change it, is left to the next time that it is seen.
    """
    accounts, columns = kind.accounts.c, kind.sessions.c
    # Whoever waits for nobody is in nobody's way. Read only after that: an account that is made staff meanwhile
    # waits here, and shortens what is written.
    free = select(columns.id).where(columns.id.in_(seen)).with_for_update(key_share=True, skip_locked=True)
    rows = db.execute(
        select(columns.id, columns.created_at, has_limits_of_staff(kind).label("staff"))
        .join_from(kind.sessions, kind.accounts, accounts.id == columns.account_id)
        .where(columns.id.in_(db.scalars(free).all()))
    ).all()
    if not rows:
        return
    values = []
    for row in rows:
        limits = settings.limits(kind, row.staff)
        idle_at = min(seen[row.id] + limits.idle, row.created_at + limits.absolute)
        values.append(
            {
                "session_id": row.id,
                "seen_at": clock.to_microseconds(seen[row.id]),
                "idle_at": clock.to_microseconds(idle_at),
                "now": clock.to_microseconds(now),
            }
        )
    _seeing(kind).run(db, *values)


def _why(by: Principal | None, kind: Kind, account_id: int, session_id: int) -> Cause:
    """The cause of an end that somebody asked for: its owner, from this session or another, or staff."""
    if by is None or by.kind is not kind or by.account_id != account_id:
        return Cause.STAFF
    return Cause.SIGNED_OUT if by.session_id == session_id else Cause.OWNER


def _is_account(db: Connection, kind: Kind, account_id: int) -> bool:
    return db.scalar(select(kind.accounts.c.id).where(kind.accounts.c.id == account_id)) is not None


def _prefixed(kind: Kind) -> list[ColumnElement[Any]]:
    """The account's columns, as `account_…` beside the session's."""
    return [column.label(f"account_{column.name}") for column in kind.accounts.c if column.name != "id"]


_OWN_LISTS = {(kind.name, device): _own_list(kind, device) for kind in KINDS.values() for device in (False, True)}


# What statements ask of sessions, and the statements of a sign-in and an end, each built once.


@cache
def _admitting(kind: Kind, is_checked: bool) -> tuple[Statement, Columns]:
    """Moves the account's revision, where it may sign in. Also the lock that makes two of its sign-ins wait."""
    accounts = kind.accounts.c
    usable = [accounts.id == bindparam("signing_in"), accounts.disabled_at.is_(None)]
    if is_checked:
        usable.append(accounts.password_hash == bindparam("checked"))
    moved = update(kind.accounts).where(*usable).values(revision=accounts.revision + 1)
    columns = [*accounts, has_limits_of_staff(kind).label("staff"), cut_at(kind).label("cut_at")]
    return Statement(moved.returning(*columns)), _to_read(columns)


@cache
def _inserting(kind: Kind) -> ReturningInsert[Any]:
    return insert(kind.sessions).returning(*kind.sessions.c)


@cache
def _past_cap(kind: Kind) -> Statement:
    """The account's sessions that are more than `kept`, `but` one aside: those seen longest ago."""
    columns = kind.sessions.c
    by_use = (columns.last_seen_at.desc(), columns.id.desc())
    kept = bindparam("kept", type_=Integer)
    return Statement(select(columns.id).where(_of_account(kind)).order_by(*by_use).offset(kept))


@cache
def _one(kind: Kind) -> ColumnElement[bool]:
    return kind.sessions.c.id == bindparam("session_id")


@cache
def _expired_one(kind: Kind) -> ColumnElement[bool]:
    return and_(_one(kind), kind.sessions.c.expires_at <= NOW)


@cache
def _of_sid(kind: Kind) -> ColumnElement[bool]:
    return kind.sessions.c.sid == bindparam("sid")


@cache
def _of_device(kind: Kind) -> ColumnElement[bool]:
    sessions = kind.sessions.c
    return and_(sessions.account_id == bindparam("account_id"), sessions.device_id == bindparam("device_id"))


@cache
def _of_account(kind: Kind) -> ColumnElement[bool]:
    sessions = kind.sessions.c
    return and_(sessions.account_id == bindparam("account_id"), sessions.id != bindparam("but"))


@cache
def _visible_one(of: Kind, role: Role, kind: Kind) -> ColumnElement[bool]:
    return and_(visible_to(of, role, kind), _one(kind))


@cache
def _endable_one(of: Kind, role: Role, kind: Kind) -> ColumnElement[bool]:
    return and_(endable_by(of, role, kind), _one(kind))


@cache
def _endable_others(kind: Kind, role: Role) -> ColumnElement[bool]:
    return and_(endable_by(kind, role, kind), owned_by(kind, kind), kind.sessions.c.id != bindparam("calling"))


@cache
def _many(kind: Kind) -> ColumnElement[bool]:
    """Those of some sessions that are live and were not seen after `seen_at`."""
    seen_at = bindparam("seen_at", type_=BigInteger)
    return and_(_among(kind), is_live(kind), kind.sessions.c.last_seen_at <= seen_at)


@cache
def _cut(kind: Kind) -> ColumnElement[bool]:
    return and_(_among(kind), kind.sessions.c.created_at <= cut_at(kind))


def _among(kind: Kind) -> ColumnElement[bool]:
    """Up to MOST_AT_ONCE sessions, by the ids that `_number` gives."""
    row = kind.sessions.c.id
    return row.in_([bindparam(f"id{number}", type_=row.type) for number in range(MOST_AT_ONCE)])


@cache
def _moving(kind: Kind, wanted: ColumnElement[bool]) -> Statement:
    """Moves the revision of each account that owns a session that `wanted` says, and gives their ids."""
    accounts = kind.accounts.c
    concerned = select(kind.sessions.c.account_id).where(wanted)
    return Statement(
        update(kind.accounts)
        .where(accounts.id.in_(concerned))
        .values(revision=accounts.revision + 1)
        .returning(accounts.id)
    )


@cache
def _naming(kind: Kind, wanted: ColumnElement[bool]) -> Statement:
    return Statement(
        update(kind.sessions).where(wanted).values(name=bindparam("new_name")).returning(kind.sessions.c.account_id)
    )


@cache
def _seeing(kind: Kind) -> Statement:
    columns = kind.sessions.c
    seen_at, idle_at = (bindparam(name, type_=BigInteger) for name in ("seen_at", "idle_at"))
    return Statement(
        update(kind.sessions)
        # What has expired stays expired: an answer without it may have been given.
        .where(_one(kind), columns.last_seen_at < seen_at, is_live(kind))
        .values({"last_seen_at": seen_at, "expires_at": idle_at})
    )


@cache
def _deleting(kind: Kind, wanted: ColumnElement[bool]) -> Statement:
    columns = kind.sessions.c
    return Statement(delete(kind.sessions).where(wanted).returning(columns.id, columns.account_id, columns.device))

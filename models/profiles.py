"""What an account changes of itself: its fields, its contacts, what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, false, func, or_, select
from sqlalchemy.exc import IntegrityError

from models import accounts, codes, events
from models.accounts import ContactTaken, TellCode
from models.events import Type
from models.keys import KeySet
from models.origins import Origin
from models.principals import Principal, is_proven
from models.schema import CODES, Contact, Kind, Row
from models.settings import AccountSettings

FIELDS = ("surname", "name", "patronymic", "address")


def change_fields(db: Connection, principal: Principal, values: Mapping[str, Any], now: datetime) -> Row | None:
    """Change what the account says of itself; None where its session has ended."""
    kind = principal.kind
    return accounts.change(db, kind, principal.account_id, now, dict(values), is_proven(principal, now))


def tell_new_devices(db: Connection, principal: Principal, tells: bool, origin: Origin, now: datetime) -> bool:
    """Have sign-ins on new devices told to the account, or not; False where its session has ended."""
    kind = principal.kind
    values, differs = {"tells_new_devices": tells}, kind.accounts.c.tells_new_devices.is_not(tells)
    if accounts.change(db, kind, principal.account_id, now, values, is_proven(principal, now), differs) is None:
        return accounts.get(db, kind, principal.account_id, is_proven(principal, now)) is not None
    cause = "messages" if tells else "no_messages"
    made = events.make(kind, principal.account_id, Type.CHANGED, now, cause=cause, by=principal, origin=origin)
    events.append(db, made)
    return True


def ask_contact(
    db: Connection,
    principal: Principal,
    contact: Contact,
    value: str,
    keys: KeySet,
    settings: AccountSettings,
    now: datetime,
    tell: TellCode,
) -> bool:
    """Send a code to a new contact, which replaces the old one once the code is typed in.

    The old one stays until then: a mistyped address locks nobody out. False where the last code was sent a moment
    ago, or the session has ended. Raises ContactTaken.
    """
    kind = principal.kind
    row = accounts.get(db, kind, principal.account_id, is_proven(principal, now))
    if row is None:
        return False
    if accounts.find(db, kind, contact, value):
        raise ContactTaken(contact)
    columns = CODES.c
    waiting = _waiting(principal, contact)
    last = db.scalar(select(columns.created_at).where(waiting).order_by(columns.created_at.desc()).limit(1))
    if last and codes.is_fresh(last, settings, now):
        return False
    db.execute(delete(CODES).where(waiting))
    purpose = _purpose(contact, value)
    accounts.queue_code(db, kind, row, purpose, contact, value, keys, settings, now, tell)
    return True


def list_asked(db: Connection, principal: Principal, now: datetime) -> dict[str, str]:
    """The new contacts that wait for their codes."""
    columns = CODES.c
    asked: dict[str, str] = {}
    for contact in principal.kind.contacts:
        purpose = db.scalar(
            select(columns.purpose).where(_waiting(principal, contact), columns.expires_at > now).limit(1)
        )
        if purpose:
            asked[contact] = purpose.removeprefix(_purpose(contact, ""))
    return asked


def replace_contact(
    db: Connection,
    principal: Principal,
    contact: Contact,
    value: str,
    code: str,
    origin: Origin,
    keys: KeySet,
    now: datetime,
) -> bool:
    """Replace a contact by the one that proved itself by its code; False where the code is not good.

    Raises ContactTaken where another account was faster.
    """
    kind = principal.kind
    if not codes.use(db, keys, kind, principal.account_id, _purpose(contact, value), code, now):
        return False
    values = {contact: value, f"confirmed_{contact}": True, "doubtful_contact": _but(kind, contact)}
    try:
        with db.begin_nested():
            row = accounts.change(db, kind, principal.account_id, now, values, is_proven(principal, now))
    except IntegrityError:
        raise ContactTaken(contact) from None
    if row is None:
        return False
    codes.void_resets(db, kind, principal.account_id)
    made = events.make(kind, principal.account_id, Type.CHANGED, now, cause=contact, by=principal, origin=origin)
    events.append(db, made)
    return True


def remove_contact(db: Connection, principal: Principal, contact: Contact, origin: Origin, now: datetime) -> bool:
    """Take a contact away, with the codes that were sent to it; False where no other one of the account is confirmed:
    whoever has none left could neither be told anything nor set a new password."""
    kind = principal.kind
    columns = kind.accounts.c
    others = [
        and_(columns[f"confirmed_{other}"], columns.doubtful_contact.is_distinct_from(other))
        for other in kind.contacts
        if other != contact
    ]
    values = {contact: None, f"confirmed_{contact}": False, "doubtful_contact": _but(kind, contact)}
    conditions = [columns[contact].is_not(None), or_(false(), *others), is_proven(principal, now)]
    if accounts.change(db, kind, principal.account_id, now, values, *conditions) is None:
        return False
    codes.void(db, kind, principal.account_id, f"confirm {contact}")
    codes.void_resets(db, kind, principal.account_id)
    cause = f"no_{contact}"
    events.append(
        db, events.make(kind, principal.account_id, Type.CHANGED, now, cause=cause, by=principal, origin=origin)
    )
    return True


def _but(kind: Kind, contact: Contact) -> ColumnElement[str | None]:
    """The doubtful contact, unless it is this one."""
    return func.nullif(kind.accounts.c.doubtful_contact, contact)


def _purpose(contact: Contact, value: str) -> str:
    return f"change {contact} {value}"


def _waiting(principal: Principal, contact: Contact) -> Any:
    columns = CODES.c
    return (
        (columns.kind == principal.kind.name)
        & (columns.account_id == principal.account_id)
        & columns.purpose.startswith(_purpose(contact, ""), autoescape=True)
    )

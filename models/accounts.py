"""Accounts of both kinds: made, confirmed, disabled, their passwords changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, func, insert, literal, select, text, update
from sqlalchemy.exc import IntegrityError

from models import codes, events, known_devices, messages, sessions
from models.database import is_postgres
from models.events import Cause, Type
from models.keys import KeySet
from models.messages import CHANNELS, Letter
from models.origins import Origin
from models.principals import Principal, is_proven, is_usable, may_act
from models.schema import KINDS, USER, Contact, Kind, Row, fold_text
from models.settings import AccountSettings, SessionSettings

# The id that no account has: what is done for an account is done for it where there is none, and takes as long.
NOBODY = 0
# The subject and the text that tell a code, and how many minutes it is good for.
TellCode = Callable[[str, int], tuple[str, str]]
# The subject and the text that tell an account of a link, by what the link's address ends in.
TellLink = Callable[[Kind, Row, str], tuple[str, str]]


def personal_words(kind: Kind, account: Mapping[str, Any]) -> list[str]:
    """What everybody knows of an account, which is no password for it: its contacts and names."""
    given = [account.get(name) for name in (*kind.contacts, "surname", "name", "patronymic")]
    words = [str(word) for word in given if word]
    return words + [word.partition("@")[0] for word in words if "@" in word]


class LastStaff(Exception):
    """Nobody would be left who is staff."""


class NotAUser(Exception):
    """Clients have no roles."""


class ContactTaken(Exception):
    """Another account of this kind has the contact; its name is the argument."""

    def __init__(self, contact: Contact) -> None:
        super().__init__(contact)
        self.contact = contact


def create(
    db: Connection,
    kind: Kind,
    fields: Mapping[str, Any],
    password_hash: str,
    origin: Origin | None,
    now: datetime,
    *,
    by: Principal | None = None,
) -> Row:
    """Make an account with its event; raises ContactTaken."""
    for contact in kind.contacts:
        if fields.get(contact) and find(db, kind, contact, fields[contact]):
            raise ContactTaken(contact)
    values = {**fields, "password_hash": password_hash, "created_at": now, "updated_at": now}
    try:
        with db.begin_nested():
            row = db.execute(insert(kind.accounts).values(values).returning(*kind.accounts.c)).mappings().one()
    except IntegrityError as error:
        # Two registered at once; the constraint's name or the message says with which contact.
        message = str(error.orig)
        raise ContactTaken("email" if "email" in message and "email" in kind.contacts else "phone") from None
    cause = "staff" if by else None
    events.append(db, events.make(kind, row["id"], Type.REGISTERED, now, cause=cause, by=by, origin=origin))
    return row


def register(
    db: Connection,
    kind: Kind,
    fields: Mapping[str, Any],
    password_hash: str,
    origin: Origin,
    keys: KeySet,
    settings: AccountSettings,
    now: datetime,
    tell: TellCode,
) -> Row:
    """Make an account and queue the codes that confirm its contacts; raises ContactTaken."""
    row = create(db, kind, fields, password_hash, origin, now)
    for contact in kind.contacts:
        if row[contact]:
            queue_code(db, kind, row, f"confirm {contact}", contact, row[contact], keys, settings, now, tell)
    return row


def find(db: Connection, kind: Kind, contact: Contact, value: str) -> Row | None:
    """The account that has this contact, in its normal form."""
    accounts = kind.accounts
    return db.execute(select(accounts).where(accounts.c[contact] == value)).mappings().first()


def find_usable(
    db: Connection, kinds: Sequence[Kind], contact: Contact, value: str
) -> Sequence[tuple[Kind, Row | None]]:
    """For each of these kinds that has such a contact: the account that has this one, unless it is disabled."""
    found = [(kind, find(db, kind, contact, value)) for kind in kinds if contact in kind.contacts]
    return [(kind, row if row and row["disabled_at"] is None else None) for kind, row in found]


def get(db: Connection, kind: Kind, account_id: int, *conditions: ColumnElement[bool]) -> Row | None:
    """One account; None too where it does not meet the conditions."""
    return db.execute(select(kind.accounts).where(kind.accounts.c.id == account_id, *conditions)).mappings().first()


def is_confirmed(kind: Kind, account: Row) -> bool:
    """Whether the account may do more than confirm itself."""
    by_contact = any(account[f"confirmed_{contact}"] for contact in kind.contacts)
    return by_contact or account["confirmed_by_staff_at"] is not None


def is_empty(db: Connection) -> bool:
    """Whether there is no account yet."""
    return not any(db.scalar(select(func.count()).select_from(kind.accounts)) for kind in KINDS.values())


def has_staff(db: Connection) -> bool:
    """Whether anybody is staff."""
    return db.scalar(select(USER.accounts.c.id).where(USER.accounts.c.is_staff).limit(1)) is not None


def send_code(
    db: Connection,
    kinds: Sequence[Kind],
    contact: Contact,
    value: str,
    keys: KeySet,
    settings: AccountSettings,
    now: datetime,
    tell: TellCode,
) -> None:
    """Queue a new code for a contact that is not confirmed yet; whether there was one stays unsaid."""
    for kind, row in find_usable(db, kinds, contact, value):
        if row and not row[f"confirmed_{contact}"]:
            queue_code(db, kind, row, f"confirm {contact}", contact, value, keys, settings, now, tell)


def confirm(
    db: Connection,
    kinds: Sequence[Kind],
    contact: Contact,
    value: str,
    code: str,
    by: Principal | None,
    origin: Origin,
    keys: KeySet,
    now: datetime,
) -> Row | None:
    """Confirm a contact by its code; None where the code is not good for it. A wrong code costs a try.

    Where the account has proved another contact, and is not `by` whom this one is confirmed, it stays doubtful: it may
    be a stranger's, and sets no password.
    """
    for kind, row in find_usable(db, kinds, contact, value):
        if codes.use(db, keys, kind, row["id"] if row else NOBODY, f"confirm {contact}", code, now) and row:
            is_own = by is not None and by.kind is kind and by.account_id == row["id"]
            is_sure = not kind.list_proven(row) or (is_own and db.scalar(select(is_proven(by, now))))
            values = {f"confirmed_{contact}": True} | ({} if is_sure else {"doubtful_contact": contact})
            events.append(db, events.make(kind, row["id"], Type.CONFIRMED, now, cause=contact, origin=origin))
            return change(db, kind, row["id"], now, values)
    return None


def change_password(
    db: Connection, principal: Principal, old_hash: str, new_hash: str, origin: Origin, now: datetime
) -> bool:
    """Change the principal's password and end every other session of the account.

    False where the session has ended meanwhile, or another change came first.
    """
    kind = principal.kind
    conditions = [kind.accounts.c.password_hash == old_hash, is_proven(principal, now)]
    if not change(db, kind, principal.account_id, now, {"password_hash": new_hash}, *conditions):
        return False
    codes.void_resets(db, kind, principal.account_id)
    made = events.make(kind, principal.account_id, Type.PASSWORD_CHANGED, now, by=principal, origin=origin)
    events.append(db, made)
    sessions.end_account(
        db,
        kind,
        principal.account_id,
        Cause.PASSWORD,
        now,
        but=principal.session_id,
        by=principal,
        origin=origin,
    )
    return True


def send_reset(
    db: Connection,
    kinds: Sequence[Kind],
    contact: Contact,
    value: str,
    keys: KeySet,
    settings: AccountSettings,
    now: datetime,
    tell: TellCode,
) -> None:
    """Queue a code that sets a new password to whoever has this contact; whether anybody has stays unsaid."""
    for kind, row in find_usable(db, kinds, contact, value):
        if row and _may_reset(kind, row, contact):
            queue_code(db, kind, row, f"reset {contact}", contact, value, keys, settings, now, tell)


def reset_password(
    db: Connection,
    kinds: Sequence[Kind],
    contact: Contact,
    value: str,
    code: str,
    new_hash: str,
    device_id: str,
    origin: Origin,
    keys: KeySet,
    now: datetime,
) -> bool:
    """Set the password of the account that `code` was sent to, and end every session of it.

    False where the code is not good. A good one also proves the contact that it came by, and lets this device, and no
    other that the account knew, sign in however often strangers try to. Where it is the first that is proved, the
    account loses the others: they may be those of whoever registered it with somebody else's.
    """
    for kind, row in find_usable(db, kinds, contact, value):
        account_id = row["id"] if row and _may_reset(kind, row, contact) else NOBODY
        if not codes.use(db, keys, kind, account_id, f"reset {contact}", code, now) or row is None:
            continue
        values = {"password_hash": new_hash, f"confirmed_{contact}": True}
        lost = [other for other in kind.contacts if row[other] and other != contact and not kind.list_proven(row)]
        for other in lost:
            codes.void(db, kind, account_id, f"confirm {other}")
            events.append(db, events.make(kind, account_id, Type.CHANGED, now, cause=f"no_{other}", origin=origin))
        _set_password(db, kind, account_id, values | dict.fromkeys(lost), device_id, "reset", origin, now)
        return True
    return False


def _may_reset(kind: Kind, row: Row, contact: Contact) -> bool:
    """Whether whoever has this contact of the account may set its password: one that is not proved may be a stranger's,
    by a slip or on purpose, and is enough only where the account has nothing better."""
    return contact in (kind.list_proven(row) or kind.contacts)


def create_first(
    db: Connection, kind: Kind, fields: Mapping[str, Any], password_hash: str, origin: Origin, now: datetime
) -> Row | None:
    """Make the first account of all; None where there is one by now."""
    # Two that do so at once: the second waits, and finds the first's.
    _wait_turn(db, "sessions setup")
    return create(db, kind, fields, password_hash, origin, now) if is_empty(db) else None


def _wait_turn(db: Connection, name: str) -> None:
    """Wait for whoever does the same to commit; on SQLite writers take turns anyway."""
    if is_postgres(db):
        db.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": name})


@dataclass(frozen=True, slots=True)
class AccountChange:
    """What staff change of an account; what is None stays as it is."""

    # By hand; its contacts' flags stay as they are.
    confirmed: Literal[True] | None = None
    disabled: bool | None = None
    staff: bool | None = None
    viewer: bool | None = None

    def without(self, row: Row) -> AccountChange:
        """What of it the account is not already."""
        return AccountChange(
            confirmed=None if row["confirmed_by_staff_at"] else self.confirmed,
            disabled=None if self.disabled == (row["disabled_at"] is not None) else self.disabled,
            staff=None if self.staff == row.get("is_staff") else self.staff,
            viewer=None if self.viewer == row.get("is_viewer") else self.viewer,
        )

    def list_values(self, now: datetime) -> dict[str, Any]:
        """The columns that change."""
        return {
            **({"confirmed_by_staff_at": now} if self.confirmed else {}),
            **({"disabled_at": now if self.disabled else None} if self.disabled is not None else {}),
            **({"is_staff": self.staff} if self.staff is not None else {}),
            **({"is_viewer": self.viewer} if self.viewer is not None else {}),
        }

    def list_events(self) -> list[tuple[Type, str | None]]:
        """The events that tell of it, each with its cause."""
        pairs = (
            (self.disabled, Type.DISABLED, Type.ENABLED),
            (self.staff, Type.MADE_STAFF, Type.UNMADE_STAFF),
            (self.viewer, Type.MADE_VIEWER, Type.UNMADE_VIEWER),
        )
        told: list[tuple[Type, str | None]] = [(Type.CONFIRMED, "staff")] if self.confirmed else []
        return told + [(yes if value else no, None) for value, yes, no in pairs if value is not None]


def change_by_staff(
    db: Connection,
    principal: Principal | None,
    kind: Kind,
    account_id: int,
    asked: AccountChange,
    reason: str | None,
    origin: Origin | None,
    settings: SessionSettings,
    now: datetime,
) -> Row | None:
    """Confirm an account by hand, disable it, which ends its sessions, or enable it; give or take a role.

    What it is already is not done, or told, again. None where `principal` is not staff or there is no such account; the
    operator at the command line is no principal, and may. Raises LastStaff, and NotAUser.
    """
    allowed = [] if principal is None else [may_act(principal, now)]
    if kind is not USER and (asked.staff is not None or asked.viewer is not None):
        if db.scalar(select(literal(1)).where(*allowed)) is None:
            return None
        raise NotAUser
    if kind is USER and (asked.staff is False or asked.disabled):
        _require_other_staff(db, account_id, allowed)
    # Of two who do the same at once the second waits, and finds it done.
    found = select(kind.accounts).where(kind.accounts.c.id == account_id, *allowed).with_for_update()
    before = db.execute(found).mappings().first()
    if before is None:
        return None
    asked = asked.without(before)
    if asked == AccountChange():
        return before
    row = change(db, kind, account_id, now, asked.list_values(now), *allowed)
    if row is None:
        return None
    if made := asked.list_events():
        events.append(
            db,
            *(
                events.make(kind, account_id, event, now, cause=cause, by=principal, origin=origin, reason=reason)
                for event, cause in made
            ),
        )
    if asked.staff or asked.viewer:
        # What was started as anybody's lives no longer than staff's.
        sessions.shorten(db, kind, account_id, settings.limits(kind, is_staff=True))
    if asked.disabled:
        sessions.end_account(db, kind, account_id, Cause.DISABLED, now, by=principal, origin=origin, reason=reason)
    return row


def _require_other_staff(db: Connection, account_id: int, allowed: list[ColumnElement[bool]]) -> None:
    """Raise LastStaff where nobody but this account is staff and can sign in."""
    # Two who unmake each other at once: the second waits, and finds the first's.
    _wait_turn(db, "sessions staff")
    users = USER.accounts.c
    able = select(users.id).where(users.is_staff, is_usable(USER))
    is_one = db.scalar(able.where(users.id == account_id, *allowed)) is not None
    if is_one and db.scalar(able.where(users.id != account_id).limit(1)) is None:
        raise LastStaff


def create_by_staff(
    db: Connection,
    principal: Principal,
    kind: Kind,
    fields: Mapping[str, Any],
    keys: KeySet,
    origin: Origin,
    now: datetime,
    tell: TellLink,
) -> Row | None:
    """Make a confirmed account without a password, and send it a link to set one; None where the principal may not.

    Raises ContactTaken.
    """
    if not db.scalar(select(may_act(principal, now))):
        return None
    row = create(db, kind, {**fields, "confirmed_by_staff_at": now}, "", origin, now, by=principal)
    _send_link(db, kind, row, keys, now, tell)
    return row


def send_reset_link(
    db: Connection,
    principal: Principal,
    kind: Kind,
    account_id: int,
    keys: KeySet,
    reason: str | None,
    origin: Origin,
    now: datetime,
    tell: TellLink,
) -> bool | None:
    """Send the account a link that sets a new password, good once; staff never see it.

    False where it has no contact or is disabled; None where there is none or the principal may not.
    """
    found = select(kind.accounts).where(kind.accounts.c.id == account_id, may_act(principal, now))
    row = db.execute(found).mappings().first()
    if row is None:
        return None
    if row["disabled_at"] is not None or not _send_link(db, kind, row, keys, now, tell):
        return False
    made = events.make(kind, account_id, Type.RESET_SENT, now, by=principal, origin=origin, reason=reason)
    events.append(db, made)
    return True


def _send_link(db: Connection, kind: Kind, row: Row, keys: KeySet, now: datetime, tell: TellLink) -> bool:
    """Queue it to a contact that is proved to be the account's own, or else to its first; False where it has none."""
    given = kind.list_proven(row) or [contact for contact in kind.contacts if row[contact]]
    if not given:
        return False
    contact = given[0]
    subject, text = tell(kind, row, codes.make_link(db, keys, kind, row["id"], now))
    messages.queue(db, keys, Letter(CHANNELS[contact], row[contact], subject, text), now)
    return True


def reset_by_link(
    db: Connection,
    kind: Kind,
    account_id: int,
    code: str,
    new_hash: str,
    device_id: str,
    origin: Origin,
    keys: KeySet,
    now: datetime,
) -> bool:
    """Set the password of the account that a link was sent to, and end every session of it; False where it is used.

    This device, and no other that the account knew, may sign in then however often strangers try to.
    """
    row = get(db, kind, account_id)
    if row is None or row["disabled_at"] is not None:
        return False
    if not codes.use(db, keys, kind, account_id, codes.LINK, code, now):
        return False
    _set_password(db, kind, account_id, {"password_hash": new_hash}, device_id, "link", origin, now)
    return True


def _set_password(
    db: Connection,
    kind: Kind,
    account_id: int,
    values: dict[str, Any],
    device_id: str,
    cause: str,
    origin: Origin,
    now: datetime,
) -> None:
    change(db, kind, account_id, now, values)
    known_devices.trust_alone(db, kind, account_id, device_id, now)
    codes.void_resets(db, kind, account_id)
    events.append(db, events.make(kind, account_id, Type.PASSWORD_CHANGED, now, cause=cause, origin=origin))
    sessions.end_account(db, kind, account_id, Cause.PASSWORD, now, origin=origin)


def change(
    db: Connection, kind: Kind, account_id: int, now: datetime, values: dict[str, Any], *conditions: Any
) -> Row | None:
    """Change an account, and with it its revision; None where there is none that meets the conditions."""
    accounts = kind.accounts
    if "surname" in values:
        values = {**values, "surname_key": fold_text(values["surname"])}
    if conditions:
        # The account first, and judged after it, by a statement of its own: PostgreSQL would judge by what was there
        # before whoever held it ended the session that asks.
        db.execute(select(accounts.c.id).where(accounts.c.id == account_id).with_for_update(key_share=True))
    return (
        db.execute(
            update(accounts)
            .where(accounts.c.id == account_id, *conditions)
            .values(values | {"updated_at": now, "revision": accounts.c.revision + 1})
            .returning(*accounts.c)
        )
        .mappings()
        .first()
    )


def queue_code(
    db: Connection,
    kind: Kind,
    row: Row,
    purpose: str,
    contact: Contact,
    value: str,
    keys: KeySet,
    settings: AccountSettings,
    now: datetime,
    tell: TellCode,
) -> None:
    """Queue a new code for `purpose` to a contact, unless one was sent a moment ago."""
    code = codes.make(db, keys, kind, row["id"], purpose, settings, now)
    if code is not None:
        messages.queue(db, keys, Letter(CHANNELS[contact], value, *tell(code, settings.code_minutes)), now)

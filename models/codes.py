"""Six-digit codes that prove a contact: single use, short-lived, few tries, kept as keyed hashes."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select, update

from models.database import insert_into
from models.keys import KeySet
from models.schema import CODES, Kind
from models.settings import AccountSettings

# The purpose of a link that sets a new password.
LINK = "link"
LINK_LIFETIME = timedelta(hours=24)


def make(
    db: Connection, keys: KeySet, kind: Kind, account_id: int, purpose: str, settings: AccountSettings, now: datetime
) -> str | None:
    """A new code in place of the last one; None where that one was made a moment ago."""
    columns = CODES.c
    mine = (columns.kind == kind.name) & (columns.account_id == account_id) & (columns.purpose == purpose)
    made_at = db.scalar(select(columns.created_at).where(mine))
    if made_at and is_fresh(made_at, settings, now):
        return None
    code = f"{secrets.randbelow(1_000_000):06}"
    lifetime = timedelta(minutes=settings.code_minutes)
    _keep(db, keys, kind, account_id, purpose, code, settings.code_attempts, lifetime, now)
    return code


def is_fresh(made_at: datetime, settings: AccountSettings, now: datetime) -> bool:
    """Whether a code was made a moment ago; not where the clock was set back since, which may be by a day."""
    return timedelta() <= now - made_at < timedelta(seconds=settings.code_again_seconds)


def make_link(db: Connection, keys: KeySet, kind: Kind, account_id: int, now: datetime) -> str:
    """What the address of a link that sets a new password ends in; the link before it is no longer good."""
    code = secrets.token_hex(24)
    # It can't be guessed: no number of tries makes it void, or anybody could.
    _keep(db, keys, kind, account_id, LINK, code, 2**31 - 1, LINK_LIFETIME, now)
    return code


def is_link(db: Connection, keys: KeySet, kind: Kind, account_id: int, code: str, now: datetime) -> bool:
    """Whether a link is still good; nothing is used up."""
    columns = CODES.c
    mine = (columns.kind == kind.name) & (columns.account_id == account_id) & (columns.purpose == LINK)
    kept = db.scalar(select(columns.hash).where(mine, columns.expires_at > now))
    return kept is not None and keys.is_fingerprint(kept, LINK, _text(kind, account_id, code))


def void_resets(db: Connection, kind: Kind, account_id: int) -> None:
    """Make void what was sent to set a new password: by now it may be somebody else who reads it."""
    void(db, kind, account_id, LINK, *(f"reset {contact}" for contact in kind.contacts))


def void(db: Connection, kind: Kind, account_id: int, *purposes: str) -> None:
    """Make void what was sent to the account for these purposes."""
    columns = CODES.c
    db.execute(
        delete(CODES).where(columns.kind == kind.name, columns.account_id == account_id, columns.purpose.in_(purposes))
    )


def _keep(
    db: Connection,
    keys: KeySet,
    kind: Kind,
    account_id: int,
    purpose: str,
    code: str,
    attempts: int,
    lifetime: timedelta,
    now: datetime,
) -> None:
    whose = {"kind": kind.name, "account_id": account_id, "purpose": purpose}
    made = {
        "hash": _hash(keys, kind, account_id, purpose, code),
        "attempts_left": attempts,
        "created_at": now,
        "expires_at": now + lifetime,
    }
    # In place of the last one; of two that are made at once the later one stays.
    db.execute(insert_into(db, CODES).values(whose | made).on_conflict_do_update(index_elements=list(whose), set_=made))


def use(db: Connection, keys: KeySet, kind: Kind, account_id: int, purpose: str, code: str, now: datetime) -> bool:
    """Whether `code` is good. A good one is used up; a wrong one costs a try."""
    columns = CODES.c
    # The try is taken before the code is compared: of many tries at once none is free.
    row = db.execute(
        update(CODES)
        .where(columns.kind == kind.name, columns.account_id == account_id, columns.purpose == purpose)
        .where(columns.attempts_left > 0, columns.expires_at > now)
        .values(attempts_left=columns.attempts_left - 1)
        .returning(columns.id, columns.hash)
    ).first()
    text = _text(kind, account_id, code)
    if row is None or not keys.is_fingerprint(row.hash, purpose, text):
        return False
    return db.execute(delete(CODES).where(columns.id == row.id).returning(columns.id)).first() is not None


def _hash(keys: KeySet, kind: Kind, account_id: int, purpose: str, code: str) -> str:
    return keys.fingerprint(purpose, _text(kind, account_id, code))


def _text(kind: Kind, account_id: int, code: str) -> str:
    return f"{kind.name} {account_id} {code}"

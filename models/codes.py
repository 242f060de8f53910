"""Six-digit codes that prove a contact: single use, short-lived, few tries, kept as keyed hashes."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from models.keys import KeySet
from models.schema import Base, Kind
from models.settings import AccountSettings

CODES = Base.metadata.tables["codes"]


def make(
    db: Session, keys: KeySet, kind: Kind, account_id: int, purpose: str, settings: AccountSettings, now: datetime
) -> str | None:
    """A new code in place of the last one; None where that one was made a moment ago."""
    columns = CODES.c
    mine = (columns.kind == kind.name) & (columns.account_id == account_id) & (columns.purpose == purpose)
    made_at = db.scalar(select(columns.created_at).where(mine))
    if made_at and now - made_at < timedelta(seconds=settings.code_again_seconds):
        return None
    code = f"{secrets.randbelow(1_000_000):06}"
    db.execute(delete(CODES).where(mine))
    db.execute(
        insert(CODES)
        .inline()
        .values(
            kind=kind.name,
            account_id=account_id,
            purpose=purpose,
            hash=_hash(keys, kind, account_id, purpose, code),
            attempts_left=settings.code_attempts,
            created_at=now,
            expires_at=now + timedelta(minutes=settings.code_minutes),
        )
    )
    return code


def use(db: Session, keys: KeySet, kind: Kind, account_id: int, purpose: str, code: str, now: datetime) -> bool:
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

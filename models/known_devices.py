"""The devices and countries that an account has signed in from: what is new to it."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import BigInteger, Connection, and_, bindparam, delete, func, insert, literal_column, not_, select

from models import clock
from models.database import Statement
from models.origins import Origin
from models.schema import KNOWN_DEVICES, Kind

COUNTRY = "country "
# So many are remembered of an account, those met last.
MOST = 200

TRUSTED = "trusted "

_COLUMNS = KNOWN_DEVICES.c
_MINE = and_(_COLUMNS.kind == bindparam("kind"), _COLUMNS.account_id == bindparam("account_id"))
_EITHER = and_(_MINE, _COLUMNS.mark.in_([bindparam("mark"), bindparam("other")]))
_KEPT = select(_COLUMNS.id).where(_MINE).order_by(_COLUMNS.id.desc()).limit(MOST).subquery()
_MARKS = select(_COLUMNS.mark).where(_EITHER)
# What a sign-in asks, each built once.
_FIND = Statement(_MARKS)
# Those of the two that are known; and an empty one where anything is.
_MEET = Statement(_MARKS.union_all(select(literal_column("''")).where(select(_COLUMNS.id).where(_MINE).exists())))
_FIND_COUNTRY = Statement(select(_COLUMNS.id).where(_MINE, _COLUMNS.mark.startswith(COUNTRY)).limit(1))
_FORGET = Statement(delete(KNOWN_DEVICES).where(_EITHER))
_FORGET_OTHERS = Statement(delete(KNOWN_DEVICES).where(_MINE, not_(_EITHER), not_(_COLUMNS.mark.startswith(COUNTRY))))
_REMEMBER = Statement(
    insert(KNOWN_DEVICES)
    .inline()
    .values(
        kind=bindparam("kind"),
        account_id=bindparam("account_id"),
        mark=bindparam("mark"),
        created_at=bindparam("created_at", type_=BigInteger),
    )
)
_TRIM = Statement(delete(KNOWN_DEVICES).where(_MINE, _COLUMNS.id < select(func.min(_KEPT.c.id)).scalar_subquery()))


def meet(db: Connection, kind: Kind, account_id: int, device_id: str | None, origin: Origin, now: datetime) -> str:
    """Remember where a sign-in comes from; "device" or "country" where it is new to the account, else "".

    A device is known by its own id: a browser's is in a cookie that outlives its sessions, so that somebody
    else's browser is new even where it is of the same make. What has no id is known by its make. The first sign-in
    of an account is no news: there is nothing to compare it with, and nobody else to tell.
    """
    mark = _mark(device_id, origin)
    wanted = [mark, *([COUNTRY + origin.country] if origin.country else [])]
    account = {"kind": kind.name, "account_id": account_id}
    asked = account | {"mark": mark, "other": wanted[-1]}
    known = {row[0] for row in _MEET.run(db, asked)}
    new = [one for one in wanted if one not in known]
    is_news = bool(new and known)
    has_country = bool(is_news and _FIND_COUNTRY.run(db, account))
    # What is met again is written again: the order of the ids is that in which they were met.
    if len(new) < len(wanted):
        _FORGET.run(db, asked)
    at = clock.to_microseconds(now)
    _REMEMBER.run(db, *(account | {"mark": one, "created_at": at} for one in wanted))
    if not is_news:
        return ""
    # Only now there are more than before.
    _TRIM.run(db, account)
    if mark in new:
        return "device"
    return "country" if has_country else ""


def is_known(db: Connection, kind: Kind, account_id: int, device_id: str) -> bool:
    """Whether the account has signed in on the device of this id, or trusts it."""
    mark = _mark_id(device_id)
    return bool(_FIND.run(db, {"kind": kind.name, "account_id": account_id, "mark": mark, "other": TRUSTED + mark}))


def trust(db: Connection, kind: Kind, account_id: int, device_id: str, now: datetime) -> None:
    """Trust a device that the account proved itself on without signing in; its first sign-in is news all the same."""
    if not is_known(db, kind, account_id, device_id):
        mark, at = TRUSTED + _mark_id(device_id), clock.to_microseconds(now)
        _REMEMBER.run(db, {"kind": kind.name, "account_id": account_id, "mark": mark, "created_at": at})


def trust_alone(db: Connection, kind: Kind, account_id: int, device_id: str, now: datetime) -> None:
    """Trust a device, and no longer any other that the account knew: it may be a thief's."""
    mark = _mark_id(device_id)
    _FORGET_OTHERS.run(db, {"kind": kind.name, "account_id": account_id, "mark": mark, "other": TRUSTED + mark})
    trust(db, kind, account_id, device_id, now)


def _mark(device_id: str | None, origin: Origin) -> str:
    if device_id is not None:
        return _mark_id(device_id)
    make = f"{origin.browser}|{origin.os}|{origin.device_kind}"
    return _hash(f"make {make if origin.browser or origin.os else origin.device}")


def _mark_id(device_id: str) -> str:
    return _hash(f"id {device_id}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

"""The devices and countries that an account has signed in from: what is new to it."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from models.origins import Origin
from models.schema import Base, Kind

KNOWN_DEVICES = Base.metadata.tables["known_devices"]
COUNTRY = "country "
# So many are remembered of an account, those met last.
MOST = 200


def meet(db: Session, kind: Kind, account_id: int, device_id: str | None, origin: Origin, now: datetime) -> str:
    """Remember where a sign-in comes from; "device" or "country" where it is new to the account, else "".

    A device is known by its own id: a browser's is in a cookie that outlives its sessions, so that somebody
    else's browser is new even where it is of the same make. What has no id is known by its make. The first sign-in
    of an account is no news: there is nothing to compare it with, and nobody else to tell.
    """
    columns = KNOWN_DEVICES.c
    mark = _mark(device_id, origin)
    wanted = [mark, *([COUNTRY + origin.country] if origin.country else [])]
    mine = (columns.kind == kind.name) & (columns.account_id == account_id)
    known = set(db.scalars(select(columns.mark).where(mine, columns.mark.in_(wanted))))
    is_first = not known and db.scalar(select(columns.id).where(mine).limit(1)) is None
    has_country = db.scalar(select(columns.id).where(mine, columns.mark.startswith(COUNTRY)).limit(1)) is not None
    new = [one for one in wanted if one not in known]
    # What is met again is written again: the order of the ids is that in which they were met.
    db.execute(delete(KNOWN_DEVICES).where(mine, columns.mark.in_(known)))
    db.execute(
        insert(KNOWN_DEVICES).inline(),
        [{"kind": kind.name, "account_id": account_id, "mark": one, "created_at": now} for one in wanted],
    )
    kept = select(columns.id).where(mine).order_by(columns.id.desc()).limit(MOST)
    db.execute(delete(KNOWN_DEVICES).where(mine, columns.id < select(func.min(kept.subquery().c.id)).scalar_subquery()))
    if is_first or not new:
        return ""
    if mark in new:
        return "device"
    return "country" if has_country else ""


def _mark(device_id: str | None, origin: Origin) -> str:
    if device_id is not None:
        text = f"id {device_id}"
    else:
        make = f"{origin.browser}|{origin.os}|{origin.device_kind}"
        text = f"make {make if origin.browser or origin.os else origin.device}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

"""The accounts of a kind, by page, with exact counts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Connection, Select, false, func, or_, select, true, union

from models.database import Database
from models.desk import indexes
from models.filters import AccountFilter, begins_of_account
from models.paging import RANKS, Cursor, Page, Place
from models.principals import Principal, is_live, may_see
from models.schema import Kind, Row


async def list_accounts(
    database: Database,
    principal: Principal,
    kind: Kind,
    sought: AccountFilter,
    now: datetime,
    after: str | None = None,
    before: str | None = None,
    most: int = 50,
) -> Page | None:
    """A page of accounts, each with `kind` and `live`, the number of its live sessions.

    None where the principal may not. Raises InvalidCursor.
    """
    return await database.scan(_read_accounts, principal, kind, sought, now, Place.read(after, before), most)


async def get_account(
    database: Database, principal: Principal, kind: Kind, account_id: int, now: datetime
) -> Row | None:
    """One account as `list_accounts` gives it; None where there is none, or the principal may not."""
    return await database.scan(_read_account, principal, kind, account_id, now)


def matching(kind: Kind, q: str) -> CompoundSelect[Any]:
    """The ids of the accounts that `q` is the beginning of, by the index of each way to know them."""
    return union(*(select(kind.accounts.c.id).where(way) for way in begins_of_account(kind, q)))


def _read_account(db: Connection, principal: Principal, kind: Kind, account_id: int, now: datetime) -> Row | None:
    rows = _show_accounts(db, principal, kind, [kind.accounts.c.id == account_id], now)
    return rows[0] if rows else None


def _read_accounts(
    db: Connection, principal: Principal, kind: Kind, sought: AccountFilter, now: datetime, place: Place, most: int
) -> Page | None:
    columns = kind.accounts.c
    total = _count_accounts(db, principal, kind, sought, now)
    if total is None:
        return None
    order = sought.order(place)
    found = indexes.by(sought.index, kind.accounts, select(columns.id))
    if sought.q and total > indexes.FEW:
        # Any of the list's own order soon is one of so many.
        found = indexes.by("surname_key", kind.accounts, found) if sought.sort == "surname" else _unindexed(kind, found)
        found = found.where(or_(*begins_of_account(kind, sought.q)))
    elif sought.q:
        found = found.where(columns.id.in_(matching(kind, sought.q)))
    found = found.where(*sought.conditions(kind), may_see(principal, now))
    found = order.page(found, kind.accounts, kind.name, most + 1)
    rows = _show_accounts(db, principal, kind, [columns.id.in_(db.scalars(found).all())], now)

    def key(row: Row) -> Cursor:
        return Cursor(row[order.sort], RANKS[kind.name], row["id"])

    return order.cut(rows, most, key, total)


def _count_accounts(
    db: Connection, principal: Principal, kind: Kind, sought: AccountFilter, now: datetime
) -> int | None:
    accounts = kind.accounts

    def count(sought: AccountFilter) -> int | None:
        counted = indexes.by(sought.index, accounts, select(func.count()).select_from(accounts))
        counted = counted.where(*sought.conditions(kind))
        ways = begins_of_account(kind, sought.q) if sought.q else [true()]
        # Each way by its own index, without those that an earlier one finds.
        parts = [
            counted.where(way, *(~func.coalesce(other, false()) for other in ways[:number])).scalar_subquery()
            for number, way in enumerate(ways)
        ]
        found = db.execute(select(*parts).where(may_see(principal, now))).first()
        return None if found is None else sum(int(part) for part in found)

    if sought == AccountFilter(state="active", sort=sought.sort):
        # Most are: those that are not are fewer to count.
        others = [count(AccountFilter(state=state)) for state in (None, "disabled", "unconfirmed")]
        return None if None in others else (others[0] or 0) - (others[1] or 0) - (others[2] or 0)
    return count(sought)


def _show_accounts(
    db: Connection, principal: Principal, kind: Kind, wanted: list[ColumnElement[bool]], now: datetime
) -> list[Row]:
    accounts, sessions = kind.accounts, kind.sessions.c
    shown = [column for column in accounts.c if column.name != "password_hash"]
    live = select(func.count()).where(sessions.account_id == accounts.c.id, is_live(kind, now)).scalar_subquery()
    rows = db.execute(select(*shown, live.label("live")).where(*wanted, may_see(principal, now))).mappings()
    return [{**row, "kind": kind.name} for row in rows]


def _unindexed(kind: Kind, found: Select[Any]) -> Select[Any]:
    """The same, of accounts in the order of their ids."""
    return found.with_hint(kind.accounts, "NOT INDEXED", "sqlite")

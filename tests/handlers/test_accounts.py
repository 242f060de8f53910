"""What staff do to accounts: confirm them by hand, disable them, enable them again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, select

from models.schema import EVENTS, KINDS, Row
from tests.conftest import Account, Device, House
from tests.handlers.test_base import FORBIDDEN, NOT_PROVIDED


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Either kind of account."""
    name: str = request.param
    return name


@pytest.fixture
def staff(house: House) -> Device:
    """A device of one of the staff."""
    return house.enter(house.add("user", staff=True))


def change(house: House, account: Account, device: Device | None, **body: Any) -> Any:
    """The answer to a change of an account."""
    return house.ask("PATCH", f"/accounts/{account.kind}/{account.id}/", device, json=body)


def get_account(db: Connection, account: Account) -> Row:
    """An account's row."""
    table = KINDS[account.kind].accounts
    return dict(db.execute(select(table).where(table.c.id == account.id)).mappings().one())


def get_events(db: Connection, account: Account) -> list[tuple[str, str | None, int | None]]:
    """What happened to an account: what, why, by whom."""
    columns = EVENTS.c
    mine = (columns.kind == account.kind) & (columns.account_id == account.id)
    return [
        tuple(row)
        for row in db.execute(select(columns.type, columns.cause, columns.by_id).where(mine).order_by(columns.id))
    ]


def test_staff_confirm_an_account_and_its_contacts_flags_stay_as_they_are(
    house: House, kind: str, staff: Device
) -> None:
    account = house.add(kind, confirmed=False)
    device = house.enter(account)
    assert house.ask("GET", f"/sessions/session-{kind}-l/", device).status_code == 403
    before = house.read(get_account, account)

    answer = change(house, account, staff, confirmed=True)

    assert answer.status_code == 200
    body = answer.json()
    assert (body["id"], body["confirmed_phone"], body["disabled"]) == (account.id, False, False)
    assert list(body) == [*KINDS[kind].fields, "disabled", *(("staff", "viewer") if kind == "user" else ())]
    assert datetime.fromisoformat(body["updated_at"]) > before["updated_at"]
    assert house.ask("GET", f"/sessions/session-{kind}-l/", device).status_code == 200
    assert house.read(get_events, account)[-1] == ("confirmed", "staff", staff.account.id)


def test_disabling_an_account_ends_its_sessions_and_signs_nobody_in_again(
    house: House, kind: str, staff: Device
) -> None:
    account = house.add(kind)
    devices = [house.enter(account) for _ in range(2)]
    stranger = house.enter(house.add(kind))

    answer = change(house, account, staff, disabled=True)

    assert (answer.status_code, answer.json()["disabled"]) == (200, True)
    for device in devices:
        assert house.ask("GET", f"/sessions/session-{kind}-l/", device).status_code == 403
        assert house.client.post("/auth/token/refresh/", json={"refresh": device.refresh}).status_code == 403
    refused = house.client.post(f"/auth/{kind}/token/", json=account.credentials)
    assert refused.status_code == 401
    assert refused.json() == {"detail": "No active account found with the given credentials"}
    assert house.ask("GET", f"/sessions/session-{kind}-l/", stranger).status_code == 200
    by = staff.account.id
    assert house.read(get_events, account)[-4:] == [
        ("disabled", None, by),
        ("ended", "disabled", by),
        ("ended", "disabled", by),
        ("refused", None, None),
    ]


def test_an_account_that_is_enabled_again_signs_in_anew(house: House, kind: str, staff: Device) -> None:
    account = house.add(kind)
    before = house.enter(account)
    change(house, account, staff, disabled=True)

    answer = change(house, account, staff, disabled=False)

    assert (answer.status_code, answer.json()["disabled"]) == (200, False)
    assert house.ask("GET", f"/sessions/session-{kind}-l/", before).status_code == 403
    assert house.ask("GET", f"/sessions/session-{kind}-l/", house.enter(account)).status_code == 200
    assert ("enabled", None, staff.account.id) in house.read(get_events, account)


def test_staff_confirm_and_disable_in_one_call(house: House, kind: str, staff: Device) -> None:
    account = house.add(kind, confirmed=False)

    answer = change(house, account, staff, confirmed=True, disabled=True)

    assert answer.json()["disabled"] is True
    by = staff.account.id
    assert house.read(get_events, account)[-2:] == [("confirmed", "staff", by), ("disabled", None, by)]
    assert house.read(get_account, account)["confirmed_by_staff_at"] is not None


@pytest.mark.parametrize(
    "same", [{}, {"disabled": True}, {"confirmed": True}, {"staff": True, "viewer": False}, {"reason": "again"}]
)
def test_what_an_account_is_already_is_not_done_again(
    house: House, kind: str, staff: Device, same: dict[str, Any]
) -> None:
    account = house.add(kind, disabled=True, staff=kind == "user")
    same = same if kind == "user" else {name: one for name, one in same.items() if name not in ("staff", "viewer")}
    before = house.read(get_account, account), house.read(get_events, account)
    assert change(house, account, staff, **same).status_code == 200
    assert (house.read(get_account, account), house.read(get_events, account)) == before
    # What is new beside it is done, and told alone.
    assert change(house, account, staff, **same | {"disabled": False}).json()["disabled"] is False
    assert house.read(get_events, account)[len(before[1]) :] == [("enabled", None, staff.account.id)]


@pytest.mark.parametrize("who", ["nobody", "itself", "another", "another kind"])
def test_who_is_not_staff_changes_no_account(house: House, kind: str, who: str) -> None:
    account = house.add(kind)
    other_kind = "client" if kind == "user" else "user"
    callers = {"itself": account, "another": house.add(kind), "another kind": house.add(other_kind)}
    device = house.enter(callers[who]) if who in callers else None
    before = house.read(get_account, account), house.read(get_events, account)

    for body in ({"confirmed": True}, {"disabled": True}, {"disabled": False}, {}):
        answer = change(house, account, device, **body)
        assert (answer.status_code, answer.content) == ((401, NOT_PROVIDED) if who == "nobody" else (403, FORBIDDEN))

    assert (house.read(get_account, account), house.read(get_events, account)) == before


def test_an_account_that_is_none_is_403_even_for_staff(house: House, kind: str, staff: Device) -> None:
    for missing in (0, 2**62, 2**63, 10**19):
        answer = change(house, Account(kind, missing, ""), staff, disabled=True)
        assert (answer.status_code, answer.content) == (403, FORBIDDEN)


def test_a_change_that_makes_no_sense_is_400_and_changes_nothing(house: House, kind: str, staff: Device) -> None:
    account = house.add(kind, confirmed=False)
    before = house.read(get_account, account)
    for body in (
        {"confirmed": False},
        {"confirmed": "yes"},
        {"disabled": "true"},
        {"disabled": 1},
        {"is_staff": True},
        {"confirmed_phone": True},
        {"password_hash": "x"},
    ):
        answer = change(house, account, staff, **body)
        assert (answer.status_code, list(answer.json())) == (400, list(body)), body

    assert house.read(get_account, account) == before


def test_staff_who_disable_themselves_are_out_at_once(house: House, staff: Device) -> None:
    answer = change(house, staff.account, staff, disabled=True)

    assert answer.json()["disabled"] is True
    assert change(house, staff.account, staff, disabled=False).status_code == 403
    assert house.read(get_events, staff.account)[-1] == ("ended", "disabled", staff.account.id)

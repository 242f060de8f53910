"""Staff look for accounts, and act on one."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from models.schema import KINDS, USER
from tests.conftest import Account, House, wait_until
from tests.handlers.browsers import Browser
from tests.handlers.desks import Staff, age_password, staff_at

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def staff(house: House) -> Iterator[Staff]:
    """Somebody of the staff."""
    with staff_at(house) as browser:
        yield browser


def rename(db: Connection, kind: str, account_id: int, values: dict[str, Any]) -> None:
    """Change an account past the models."""
    accounts = KINDS[kind].accounts
    db.execute(update(accounts).where(accounts.c.id == account_id).values(values))


def read(db: Connection, account: Account) -> dict[str, Any]:
    """An account's row."""
    accounts = KINDS[account.kind].accounts
    return dict(db.execute(select(accounts).where(accounts.c.id == account.id)).mappings().one())


def act(staff: Staff, account: Account, name: str, **fields: str) -> str:
    """Do something to an account; the words of the page that tells what came of it."""
    page = f"/admin/accounts/{account.kind}/{account.id}/"
    answer = staff.send(page, f"{page}{name}/", **fields)
    assert answer.status_code == 303, answer.text
    return staff.open(answer.headers["Location"]).words


@pytest.mark.parametrize("kind", ["user", "client"])
def test_a_search_finds_an_account_and_its_page_tells_of_it(house: House, staff: Staff, kind: str) -> None:
    account = house.add(kind)
    house.enter(account, "Found/1.0")

    listed = staff.open(f"/admin/accounts/{kind}/?q={account.contact.replace('+', '%2B')}")
    page = staff.open(f"/admin/accounts/{kind}/{account.id}/").words

    assert "1 account matches." in listed.words
    assert f"/admin/accounts/{kind}/{account.id}/" in listed.links
    for told in (account.contact, "Found", "1 live session", "Confirmed"):
        assert told in page
    assert "Test" in page


def test_accounts_of_one_state_or_role_stand_apart(house: House, staff: Staff) -> None:
    unconfirmed, disabled = house.add("user", confirmed=False), house.add("user", disabled=True)

    for query, account in (("state=unconfirmed", unconfirmed), ("state=disabled", disabled), ("role=staff", None)):
        links = staff.open(f"/admin/accounts/user/?{query}").links
        found = account or staff.account
        assert f"/admin/accounts/user/{found.id}/" in links, query


def test_a_name_that_turns_the_text_around_is_shut_in(house: House, staff: Staff) -> None:
    account = house.add("user")
    house.write(rename, "user", account.id, {"name": "\u202eevil", "surname": "<script>alert(1)</script>"})

    html = staff.get(f"/admin/accounts/user/{account.id}/").text

    assert "<script>alert" not in html
    assert re.search(r"<bdi>\u202eevil", html)


@pytest.mark.parametrize("kind", ["user", "client"])
def test_confirming_by_hand_lets_an_account_in(house: House, staff: Staff, kind: str) -> None:
    account = house.add(kind, confirmed=False)
    device = house.enter(account)

    assert "The account is confirmed." in act(staff, account, "confirm", reason="seen the passport")

    assert house.ask("GET", f"/sessions/session-{kind}-l/", device).status_code == 200
    history = staff.open(f"/admin/accounts/{kind}/{account.id}/").words
    assert "confirmed the account of" in history
    assert "Reason: seen the passport" in history


@pytest.mark.parametrize("kind", ["user", "client"])
def test_disabling_ends_every_session_and_enabling_lets_in_again(house: House, staff: Staff, kind: str) -> None:
    account = house.add(kind)
    device = house.enter(account)

    assert "The account is disabled" in act(staff, account, "disable")
    assert house.ask("GET", f"/sessions/session-{kind}-l/", device).status_code == 403
    assert house.client.post(f"/auth/{kind}/token/", json=account.credentials).status_code == 401

    assert "The account is enabled again." in act(staff, account, "enable")
    assert house.enter(account).access


def test_staff_and_viewers_are_made_and_unmade(house: House, staff: Staff) -> None:
    account = house.add("user")

    assert "is a viewer now" in act(staff, account, "make-viewer")
    assert house.read(read, account)["is_viewer"]
    assert "no longer a viewer" in act(staff, account, "unmake-viewer")
    assert "is staff now" in act(staff, account, "make-staff")
    assert house.read(read, account)["is_staff"]
    assert "no longer staff" in act(staff, account, "unmake-staff")
    row = house.read(read, account)
    assert not row["is_staff"]
    assert not row["is_viewer"]


def test_a_reason_that_does_not_show_is_told_of_on_the_account_s_page(house: House, staff: Staff) -> None:
    account = house.add("user")
    for name in ("make-viewer", "reset"):
        told = act(staff, account, name, reason="\u200f because")
        assert "The reason is too long, or has characters that don't show." in told
    assert not house.read(read, account)["is_viewer"]


def test_a_client_is_never_staff(house: House, staff: Staff) -> None:
    client = house.add("client")
    page = staff.open(f"/admin/accounts/client/{client.id}/")

    assert not any("staff" in form.action for form in page.forms)
    form = page.form(f"/admin/accounts/client/{client.id}/disable/")
    assert staff.post(f"/admin/accounts/client/{client.id}/make-staff/", form).status_code == 400


def test_the_last_of_the_staff_stays_and_is_told_why(house: House, staff: Staff) -> None:
    others = house.read(list_staff, staff.account.id)
    house.write(set_staff, others, False)
    try:
        for name in ("unmake-staff", "disable"):
            assert "This is the last account of the staff" in act(staff, staff.account, name)
        row = house.read(read, staff.account)
        assert row["is_staff"]
        assert row["disabled_at"] is None
    finally:
        house.write(set_staff, others, True)


def list_staff(db: Connection, but: int) -> list[int]:
    """Everybody else who is staff."""
    columns = USER.accounts.c
    return list(db.scalars(select(columns.id).where(columns.is_staff, columns.id != but)))


def set_staff(db: Connection, ids: list[int], is_staff: bool) -> None:
    """Make them staff, or no staff, past the models."""
    db.execute(update(USER.accounts).where(USER.accounts.c.id.in_(ids)).values(is_staff=is_staff))


def test_an_act_that_hurts_asks_for_the_password_and_one_that_helps_does_not(house: House) -> None:
    account = house.add("user", confirmed=False)
    page = f"/admin/accounts/user/{account.id}/"
    with staff_at(house) as other:
        house.write(age_password, other.account.id)
        assert other.send(page, f"{page}confirm/").status_code == 303
        asked = other.send(page, f"{page}disable/", reason="gone")

        assert "Your password, please" in asked.text
        assert house.read(read, account)["disabled_at"] is None
        assert other.get(f"{page}disable/").headers["Location"] == page


@pytest.mark.parametrize("kind", ["user", "client"])
def test_an_account_is_made_with_a_link_to_set_its_password(house: House, staff: Staff, kind: str) -> None:
    phone = f"+7926{next(_numbers):07}" if kind == "user" else f"+7927{next(_numbers):07}"
    address = f"/admin/accounts/{kind}/new/"

    answer = staff.send(address, phone=phone, surname="Made", name="By hand")

    assert answer.status_code == 303, answer.text
    page = staff.open(answer.headers["Location"]).words
    assert "Account created." in page
    assert phone in page
    assert re.search(r"Test\s+created the account of\s+By hand Made", page)
    taken = staff.send(address, phone=phone)
    assert taken.status_code == 400
    assert 'aria-invalid="true"' in taken.text


@pytest.mark.parametrize(
    "fields", [{}, {"phone": "not a phone"}, {"phone": "+7\x00"}, {"phone": "1" * 300}, {"name": "\u202ex"}]
)
def test_an_account_that_cannot_be_made_is_told_at_its_field(staff: Staff, fields: dict[str, str]) -> None:
    answer = staff.send("/admin/accounts/client/new/", **fields)

    assert answer.status_code == 400
    assert 'aria-invalid="true"' in answer.text


def test_a_link_for_a_new_password_goes_to_the_account_and_is_not_shown(house: House, staff: Staff) -> None:
    account = house.add("client")

    told = act(staff, account, "reset", reason="forgot it")

    assert "on its way to the account" in told
    assert "/reset/" not in told


def test_an_account_without_a_contact_gets_no_link_and_that_is_told(house: House, staff: Staff) -> None:
    account = house.add("user")
    house.write(rename, "user", account.id, {"phone": None, "email": None})

    assert "has no contact" in act(staff, account, "reset")


@pytest.mark.parametrize("address", ["/admin/accounts/user/0/", f"/admin/accounts/client/{'9' * 30}/"])
def test_an_account_that_is_none_is_not_found(staff: Staff, address: str) -> None:
    assert staff.get(address).status_code == 404


@pytest.mark.parametrize(
    ("name", "value"),
    [("state", "x"), ("role", "king"), ("q", "\x00"), ("q", "\u202e"), ("sort", "x"), ("q", "%_\\'\"")],
)
def test_what_cannot_be_read_is_told_on_the_page(staff: Staff, name: str, value: str) -> None:
    answer = staff.get("/admin/accounts/user/", params={name: value}, follow_redirects=True)

    assert answer.status_code in (200, 400)
    assert "Accounts" in answer.text


def test_the_first_address_is_the_users(staff: Staff) -> None:
    assert staff.get("/admin/accounts/").headers["Location"] == "/admin/accounts/user/"
    assert staff.get("/admin/accounts").status_code == 308


def test_ending_all_of_an_account_begins_on_its_page(house: House, staff: Staff) -> None:
    account = house.add("client")
    for _ in range(3):
        house.enter(account)

    links = staff.open(f"/admin/accounts/client/{account.id}/").links
    address = next(link for link in links if link.startswith("/admin/sessions/end/?kind="))

    assert f"account={account.id}" in address
    assert "All 3 sessions that match the filters below end" in staff.open(address).words


def find_link(house: House, account: Account) -> str:
    """The link in the last message to an account: the server has no way to send it, and logs it."""

    def find() -> str | None:
        lines = [line for line in house.log.read_text().splitlines() if account.contact in line and "/reset/" in line]
        found = re.search(r"(/reset/(?:user|client)-\d+-[0-9a-f]{48}/)", lines[-1]) if lines else None
        return found[1] if found else None

    return str(wait_until(find))


@pytest.mark.parametrize("kind", ["user", "client"])
def test_the_link_sets_a_new_password_once_and_ends_every_session(house: House, staff: Staff, kind: str) -> None:
    account = house.add(kind)
    device = house.enter(account)
    act(staff, account, "reset")
    address = find_link(house, account)
    with closing(Browser(house)) as browser:
        weak = browser.send(address, new_password="1234")
        assert weak.status_code == 400
        assert 'aria-invalid="true"' in weak.text

        done = browser.send(address, new_password="six gulls over the pier")

        assert done.headers["Location"] == "/sign-in/"
        assert house.ask("GET", f"/sessions/session-{kind}-l/", device).status_code == 403
        assert browser.sign_in(account).status_code == 400
        assert browser.sign_in(account, "six gulls over the pier").status_code == 303
        assert "set by the link that staff sent" in browser.open("/activity/").words
        used = browser.get(address)
        assert used.status_code == 404
        assert "This link is no longer good" in used.text
    log = staff.open(f"/admin/events/?type=password_changed&kind={kind}&account={account.id}").words
    assert "set a new password by the link that staff sent" in log


def test_the_link_goes_to_a_contact_that_is_proved_and_to_nobody_where_the_account_is_disabled(
    house: House, staff: Staff
) -> None:
    account, disabled = house.add("user", confirmed=False), house.add("user", disabled=True)
    email = f"unproved{account.id}@example.com"
    house.write(rename, "user", account.id, {"email": email, "confirmed_phone": True})
    act(staff, account, "reset")
    assert find_link(house, account)
    assert email not in house.log.read_text()
    staff.post(f"/admin/accounts/user/{disabled.id}/reset/", staff.open("/admin/").form("/sign-out/"))
    assert disabled.contact not in house.log.read_text()
    assert "No event matches" in staff.open(f"/admin/events/?type=reset_sent&kind=user&account={disabled.id}").words


@pytest.mark.parametrize("end", ["user-0", f"client-{'9' * 30}"])
def test_a_link_that_nobody_was_sent_is_no_longer_good(staff: Staff, end: str) -> None:
    assert staff.get(f"/reset/{end}-{'0' * 48}/").status_code == 404

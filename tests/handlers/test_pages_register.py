"""Pages: an account is made, confirmed, given a new password where the old one is forgotten; the first one of all."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models import accounts, clock, codes
from models.schema import KINDS, USER, Contact
from models.settings import AccountSettings
from tests.conftest import KEY_SET, PASSWORD, Account, Device, House, password_hash, start_server, wait_until
from tests.handlers.browsers import Browser, Page

each_kind = pytest.mark.parametrize("kind", ["user", "client"])
_numbers = itertools.count(1)


@pytest.fixture
def browser(house: House) -> Iterator[Browser]:
    """Somebody at the pages."""
    opened = Browser(house)
    yield opened
    opened.close()


def new_phone() -> str:
    """A phone that no account has."""
    return f"+7917{next(_numbers):07}"


def letters(house: House, recipient: str) -> list[str]:
    """What was sent to somebody, from the log: no way to send it is configured."""
    lines = [line for line in house.log.read_text().splitlines() if "NOT SENT" in line and recipient in line]
    return [line.replace("\\n", "\n") for line in lines]


def read_code(house: House, recipient: str, count: int = 1) -> str:
    """The code that was sent last, once `count` letters were."""
    wait_until(lambda: len(letters(house, recipient)) >= count)
    found = re.search(r"\b(\d{6})\b", letters(house, recipient)[-1].partition("subject=")[2])
    assert found
    return found[1]


def register(browser: Browser, kind: str, **fields: str) -> Page:
    """The page that follows when an account is made."""
    page = f"/register/?kind={kind}"
    answer = browser.send(page, "/register/", **({"new_password": PASSWORD} | fields))
    assert (answer.status_code, answer.headers.get("Location")) == (303, "/confirm/"), answer.text
    return browser.open("/confirm/")


@each_kind
def test_whoever_registers_confirms_the_phone_and_sees_the_devices(house: House, browser: Browser, kind: str) -> None:
    phone = new_phone()
    page = register(browser, kind, phone=phone, name="Ada")
    assert phone in page.words
    assert browser.get("/devices/").headers["Location"] == "/confirm/"
    form = page.form("/confirm/") | {"code": f" {read_code(house, phone)[:3]} {read_code(house, phone)[3:]} "}
    assert browser.post("/confirm/", form).headers["Location"] == "/devices/"
    assert "is confirmed" in browser.open("/devices/").words
    assert browser.get("/confirm/").headers["Location"] == "/account/"


def test_a_user_registers_with_an_email_address(house: House, browser: Browser) -> None:
    email = f"Ada.{secrets.token_hex(4)}@Example.com"
    form = register(browser, "user", email=email).form("/confirm/")
    assert form["identity"] == email.lower()
    assert browser.post("/confirm/", form | {"code": read_code(house, email.lower())}).status_code == 303


@each_kind
def test_what_is_wrong_stands_at_its_field_and_the_rest_is_kept(house: House, browser: Browser, kind: str) -> None:
    taken = house.add(kind)
    wrong: list[tuple[dict[str, str], str]] = [
        ({}, KINDS[kind].contacts[0]),
        ({"phone": "12"}, "phone"),
        ({"phone": taken.contact, "new_password": "another harbour at dawn"}, "phone"),
        ({"phone": new_phone(), "new_password": "short"}, "new_password"),
        ({"phone": new_phone(), "new_password": "password1"}, "new_password"),
        ({"phone": new_phone(), "new_password": "x" * 300}, "new_password"),
        ({"phone": new_phone(), "new_password": ""}, "new_password"),
        ({"phone": new_phone(), "name": "x" * 10_000}, "name"),
        ({"phone": new_phone(), "name": "\u202eada"}, "name"),
    ]
    for fields, field in wrong:
        sent = {"surname": "<b>Lovelace</b>", "new_password": PASSWORD} | fields
        answer = browser.send(f"/register/?kind={kind}", "/register/", **sent)
        page = Page(answer.text)
        assert (answer.status_code, page.invalid) == (400, [field]), fields
        assert page.form("/register/")["surname"] == "<b>Lovelace</b>"
        assert not page.form("/register/")["new_password"]
        assert "<b>Lovelace" not in answer.text


def test_what_stands_before_the_at_of_one_s_mail_is_no_password(house: House, browser: Browser) -> None:
    mail, password = "qzxvbklmwp@example.com", "qzxvbklmwp"
    answer = browser.send("/register/", email=mail, surname="Ada", name="Lovelace", new_password=password)
    assert Page(answer.text).invalid == ["new_password"]
    assert reset(house, browser, add_user(house, password)["email"], password) == 400
    body = {"email": mail, "password": password}
    assert house.client.post("/auth/user/register/", json=body).status_code == 400


def test_who_is_signed_in_is_told_what_another_account_does_and_how_to_mend_a_mistyped_contact(
    house: House, browser: Browser
) -> None:
    replaces = "Creating an account replaces that session."
    assert replaces not in browser.open("/register/").words
    register(browser, "client", phone=new_phone())
    assert "Mistyped? Sign out, and create an account again." in browser.open("/confirm/").words
    browser.sign_in(house.add("client"))
    assert replaces in browser.open("/register/").words


def test_names_of_only_spaces_are_none(house: House, browser: Browser) -> None:
    phone = new_phone()
    register(browser, "client", phone=phone, name="   ")
    row = house.read(accounts.find, KINDS["client"], "phone", phone)
    assert row["name"] == ""


@each_kind
def test_a_double_click_makes_one_account_and_goes_on(house: House, browser: Browser, kind: str) -> None:
    phone = new_phone()
    form = browser.open(f"/register/?kind={kind}").form("/register/") | {"phone": phone, "new_password": PASSWORD}
    kept = dict(browser.client.cookies)
    for _ in range(2):
        assert browser.post("/register/", form).headers["Location"] == "/confirm/"
        browser.client.cookies.clear()
        browser.client.cookies.update(kept)
    form = register_form(house, browser, kind, phone)
    for _ in range(2):
        assert browser.post("/confirm/", form).headers["Location"] == "/devices/"


def register_form(house: House, browser: Browser, kind: str, phone: str) -> dict[str, str]:
    """The form that confirms a phone, filled in by whoever has signed in."""
    browser.sign_in(Account(kind, 0, phone))
    return browser.open("/confirm/").form("/confirm/") | {"code": read_code(house, phone)}


@each_kind
def test_a_wrong_code_confirms_nothing_and_another_can_be_sent(house: House, browser: Browser, kind: str) -> None:
    account = house.add(kind, confirmed=False)
    browser.sign_in(account)
    answer = browser.send("/confirm/", code="000000")
    assert answer.status_code == 400
    assert Page(answer.text).invalid == ["code"]
    assert browser.send("/confirm/", "/confirm/send/").status_code == 303
    assert browser.send("/confirm/", code=read_code(house, account.contact)).headers["Location"] == "/devices/"


@each_kind
def test_a_contact_is_confirmed_from_another_browser_too(house: House, browser: Browser, kind: str) -> None:
    account = house.add(kind, confirmed=False)
    assert browser.post("/confirm/send/", {"identity": account.contact}).headers["Location"] == "/confirm/"
    code = read_code(house, account.contact)
    answer = browser.send("/confirm/", identity=account.contact, code=code)
    assert answer.headers["Location"] == "/sign-in/"
    assert browser.sign_in(account).headers["Location"] == "/devices/"


def test_nobody_learns_who_has_an_account(browser: Browser) -> None:
    for address, page in (("/confirm/send/", "/confirm/"), ("/reset/", "/reset/code/")):
        answer = browser.post(address, {"identity": "nobody@example.com"})
        assert (answer.status_code, answer.headers["Location"]) == (303, page)


@each_kind
def test_a_forgotten_password_is_set_anew_and_every_device_is_signed_out(
    house: House, browser: Browser, kind: str
) -> None:
    account = house.add(kind)
    device = house.enter(account)
    assert browser.send("/reset/", identity=account.contact).headers["Location"] == "/reset/code/"
    code, new = read_code(house, account.contact), "another harbour at dawn"
    weak = browser.send("/reset/code/", code=code, new_password="password")
    assert Page(weak.text).invalid == ["new_password"]
    wrong = browser.send("/reset/code/", code="12", new_password=new)
    assert Page(wrong.text).invalid == ["code"]
    answer = browser.send("/reset/code/", code=code, new_password=new)
    assert answer.headers["Location"] == "/sign-in/"
    assert house.ask("GET", f"/sessions/session-{kind}-l/", device).status_code == 403
    assert browser.sign_in(account).status_code == 400
    assert browser.sign_in(account, new).status_code == 303
    again = browser.post("/reset/code/", {"code": code, "new_password": new})
    assert again.headers["Location"] == "/reset/"


def add_user(house: House, name: str, **fields: Any) -> dict[str, Any]:
    """A user's row, with a mail and a phone."""
    now = clock.now()
    contacts = {"email": f"{name}@example.com", "phone": new_phone()}
    row = house.write(accounts.create, USER, contacts | fields, password_hash(), None, now)
    return dict(row)


def reset(house: House, browser: Browser, contact: str, new: str) -> int:
    """How a new password by a code that is sent to a contact is answered."""
    told = len(letters(house, contact))
    browser.send("/reset/", identity=contact)
    return browser.send("/reset/code/", code=read_code(house, contact, told + 1), new_password=new).status_code


def test_a_contact_that_is_not_proved_sets_no_password_beside_one_that_is(house: House, browser: Browser) -> None:
    row = add_user(house, "proved", confirmed_email=True)
    browser.send("/reset/", identity=row["phone"])
    # By a code from before the other one was proved, either.
    code = house.write(codes.make, KEY_SET, USER, row["id"], "reset phone", AccountSettings(), clock.now())
    assert browser.send("/reset/code/", code=code, new_password="another harbour at dawn").status_code == 400
    assert reset(house, browser, row["email"], "another harbour at dawn") == 303
    assert not letters(house, row["phone"])
    assert house.read(accounts.get, USER, row["id"])["phone"] == row["phone"]


def confirm(house: House, phone: str, device: Device | None = None) -> dict[str, Any]:
    """Confirm a user's phone by the code that is sent to it, in a session or without one."""
    assert house.client.post("/auth/user/confirm/send/", json={"phone": phone}).status_code == 202
    answer = house.ask("POST", "/auth/user/confirm/", device, json={"phone": phone, "code": read_code(house, phone)})
    assert answer.status_code == 200
    confirmed: dict[str, Any] = answer.json()
    return confirmed


def test_a_second_contact_that_is_confirmed_by_its_code_alone_sets_no_password(house: House, browser: Browser) -> None:
    row = add_user(house, "doubtful", confirmed_email=True)
    assert confirm(house, row["phone"])["confirmed_phone"]
    told = len(letters(house, row["phone"]))

    browser.send("/reset/", identity=row["phone"])
    code = house.write(codes.make, KEY_SET, USER, row["id"], "reset phone", AccountSettings(), clock.now())
    assert browser.send("/reset/code/", code=code, new_password="another harbour at dawn").status_code == 400
    assert reset(house, browser, row["email"], "another harbour at dawn") == 303
    # Nor does it take the other one's place.
    owner = Account("user", row["id"], row["email"], "another harbour at dawn")
    assert browser.sign_in(owner, owner.password).status_code == 303
    browser.post("/account/email/remove/", browser.open("/account/").form("/account/fields/"))
    left = house.read(accounts.get, USER, row["id"])
    assert (left["email"], left["phone"]) == (row["email"], row["phone"])
    assert len(letters(house, row["phone"])) == told


def test_a_second_contact_that_is_confirmed_in_a_session_is_the_account_s_own(house: House, browser: Browser) -> None:
    row = add_user(house, "second", confirmed_email=True)
    device = house.enter(Account("user", row["id"], row["phone"]))
    assert confirm(house, row["phone"], device)["confirmed_phone"]
    assert reset(house, browser, row["phone"], "another harbour at dawn") == 303


def test_an_account_confirms_its_first_contact_in_a_session_of_its_own_too(house: House, browser: Browser) -> None:
    row = add_user(house, "unsure")
    device = house.enter(Account("user", row["id"], row["phone"]))
    assert confirm(house, row["phone"], device)["confirmed_phone"]
    assert reset(house, browser, row["phone"], "another harbour at dawn") == 303


@pytest.mark.parametrize("contact", ["email", "phone"])
def test_the_first_contact_that_is_proved_by_a_new_password_takes_the_others_away(
    house: House, browser: Browser, contact: Contact
) -> None:
    row = add_user(house, f"first-{contact}")
    other = "email" if contact == "phone" else "phone"
    assert reset(house, browser, row[contact], "another harbour at dawn") == 303
    left = house.read(accounts.get, USER, row["id"])
    assert (left[contact], left[f"confirmed_{contact}"]) == (row[contact], True)
    assert (left[other], left[f"confirmed_{other}"]) == (None, False)


def test_staff_who_confirm_an_account_vouch_for_its_contacts(house: House, browser: Browser) -> None:
    row = add_user(house, "vouched", confirmed_by_staff_at=clock.now())
    assert reset(house, browser, row["phone"], "another harbour at dawn") == 303
    assert reset(house, browser, row["email"], "a third harbour at noon") == 303
    left = house.read(accounts.get, USER, row["id"])
    assert (left["email"], left["phone"]) == (row["email"], row["phone"])


def test_the_code_page_without_a_question_goes_back_to_it(browser: Browser) -> None:
    assert browser.get("/reset/code/").headers["Location"] == "/reset/"
    answer = browser.post("/confirm/send/", {"identity": "nobody@example.com"})
    notice = answer.headers["Set-Cookie"].partition("notice=")[2].partition(";")[0]
    browser.client.cookies.set("reset", notice)
    assert browser.get("/reset/code/").headers["Location"] == "/reset/"
    browser.client.cookies.set("reset", "forged")
    assert browser.get("/reset/code/").headers["Location"] == "/reset/"
    assert Page(browser.post("/reset/", {"identity": "nobody"}).text).invalid == ["identity"]


def test_a_disabled_account_gets_no_code(house: House, browser: Browser) -> None:
    account = house.add("user", disabled=True)
    browser.send("/reset/", identity=account.contact)
    browser.post("/confirm/send/", {"identity": account.contact})
    other = house.add("user")
    browser.send("/reset/", identity=other.contact)
    read_code(house, other.contact)
    assert not letters(house, account.contact)


def test_messages_are_in_the_language_of_whoever_asks(house: House) -> None:
    browser = Browser(house, **{"Accept-Language": "ru"})
    account = house.add("client")
    browser.send("/reset/", identity=account.contact)
    read_code(house, account.contact)
    assert "Ваш код" in letters(house, account.contact)[-1]
    browser.close()


@pytest.fixture
def empty(make_url: Callable[[str], str], tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A server on an empty database: where it is, and where it says that its first account is made."""
    server = start_server(tmp_path, make_url("sqlite"), SESSIONS_ACCOUNTS__REGISTRATION="false")
    found = re.search(r"first account: (\S+)", server.log.read_text())
    assert found
    yield server.address, found[1].removeprefix(server.address)
    server.stop()


def test_the_first_account_is_made_once_by_whoever_has_the_code(empty: tuple[str, str], house: House) -> None:
    address, setup = empty
    browser = Browser(house)
    browser.client.base_url = address
    assert browser.get(setup.replace(setup[-4:-1], "xyz")).status_code == 404
    assert browser.get("/setup/" + "0" * 32 + "/").status_code == 404
    assert Page(browser.send(setup, email="x", new_password=PASSWORD).text).invalid == ["email"]
    form = browser.open(setup).form(setup) | {"email": "first@example.com", "new_password": PASSWORD}
    assert browser.post(setup, form).headers["Location"] == "/devices/"
    assert "This device" in browser.open("/devices/").words
    assert browser.post(setup, form).status_code == 404
    assert browser.get(setup).status_code == 404
    browser.post("/sign-out/")
    assert browser.sign_in(Account("user", 1, "first@example.com")).headers["Location"] == "/devices/"
    browser.post("/sign-out/")
    closed = browser.post("/register/", {"kind": "client", "phone": new_phone(), "new_password": PASSWORD})
    assert closed.status_code == 403
    assert "Registration is closed" in closed.text
    browser.close()


def test_of_two_first_accounts_at_once_one_is_made(house: House) -> None:
    house.add("user")
    fields = {"email": "late@example.com", "is_staff": True}
    assert house.write(accounts.create_first, KINDS["user"], fields, "hash", None, clock.now()) is None

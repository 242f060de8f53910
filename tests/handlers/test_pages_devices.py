"""The devices of an account on pages: listed, named, ended, by their owner alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from models import clock
from models.schema import KINDS
from tests.conftest import PASSWORD, Account, House, wait_until
from tests.handlers.browsers import Browser

KIND_NAMES = ["user", "client"]
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Version/18.1 Mobile/15E148 Safari/604.1"


@pytest.fixture
def browser(house: House) -> Iterator[Browser]:
    """A browser that nobody has signed in on."""
    opened = Browser(house)
    yield opened
    opened.close()


def sign_in(house: House, browser: Browser, kind: str, **more: Any) -> Account:
    """A new account that is signed in on `browser`."""
    account = house.add(kind, **more)
    browser.enter(account)
    return account


def forget_password(house: House, account: Account) -> None:
    """Let an hour pass since the account's password was given."""

    def write(db: Connection) -> None:
        table = KINDS[account.kind].sessions
        long_ago = clock.now() - timedelta(hours=1)
        db.execute(update(table).where(table.c.account_id == account.id).values(password_at=long_ago))

    house.write(write)


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_it_shows_this_device_first_and_a_way_to_end_each_other(house: House, browser: Browser, kind: str) -> None:
    account = sign_in(house, browser, kind)
    other = house.enter(account, "curl/8.5.0")

    page = browser.get("/devices/").text

    assert "1 other device" in page
    assert page.index("This device") < page.index(f'action="/devices/{other.session}/end/"')
    assert len(re.findall(r'action="/devices/\d+/end/"', page)) == 1


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_a_device_that_is_ended_is_told_by_name_and_can_do_nothing_more(
    house: House, browser: Browser, kind: str
) -> None:
    account = sign_in(house, browser, kind)
    other = house.enter(account, "Thing/1.0")
    browser.send(f"/devices/{other.session}/", name="Kitchen <b>")

    answer = browser.send("/devices/", f"/devices/{other.session}/end/")

    assert (answer.status_code, answer.headers["Location"]) == (303, "/devices/")
    page = browser.get("/devices/").text
    assert "Ended: Kitchen &lt;b&gt; is signed out." in page
    assert "Nowhere else" in page
    assert "Ended:" not in browser.get("/devices/").text
    assert house.ask("GET", f"/sessions/session-{kind}-l/", other).status_code == 403


def test_ending_another_device_asks_for_the_password_when_it_was_given_long_ago(house: House, browser: Browser) -> None:
    account = sign_in(house, browser, "user")
    other = house.enter(account)
    forget_password(house, account)
    address = f"/devices/{other.session}/end/"

    asked = browser.send("/devices/", address)
    assert "Your password, please" in asked.text
    assert house.ask("GET", "/sessions/session-user-l/", other).status_code == 200

    fields = {"whose": browser.open("/devices/").form(address)["whose"]}
    wrong = browser.post(address, fields | {"prompted_password": "not it at all"})
    assert "This is not your password." in wrong.text
    assert house.ask("GET", "/sessions/session-user-l/", other).status_code == 200

    right = browser.post(address, fields | {"prompted_password": PASSWORD})
    assert right.status_code == 303
    assert house.ask("GET", "/sessions/session-user-l/", other).status_code == 403


def test_a_thief_without_the_password_ends_nothing(house: House, browser: Browser) -> None:
    account = sign_in(house, browser, "client")
    other = house.enter(account)
    forget_password(house, account)

    assert browser.send("/devices/", f"/devices/{other.session}/end/").status_code == 200
    whose = browser.open("/devices/").form(f"/devices/{other.session}/end/")
    assert browser.post("/devices/end-others/", whose).status_code == 200

    assert house.ask("GET", "/sessions/session-client-l/", other).status_code == 200


def test_ending_this_device_is_signing_out_and_asks_nothing(house: House, browser: Browser) -> None:
    account = sign_in(house, browser, "user")
    forget_password(house, account)
    page = browser.open("/devices/")
    current = next(link for link in page.links if re.fullmatch(r"/devices/\d+/", link))

    answer = browser.post(f"{current}end/", page.form("/sign-out/"), follow_redirects=True)

    assert answer.url.path == "/sign-in/"
    assert browser.get("/devices/").status_code == 303


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_ending_all_others_leaves_this_one(house: House, browser: Browser, kind: str) -> None:
    account = sign_in(house, browser, kind)
    others = [house.enter(account, f"Thing/{number}") for number in range(3)]

    assert browser.send("/devices/", "/devices/end-others/").status_code == 303

    page = browser.get("/devices/").text
    assert "Ended: 3 devices are signed out." in page
    assert "Nowhere else" in page
    assert all(house.ask("GET", f"/sessions/session-{kind}-l/", other).status_code == 403 for other in others)


def test_a_device_that_another_tab_ended_a_moment_ago_is_told_so(house: House, browser: Browser) -> None:
    account = sign_in(house, browser, "user")
    other = house.enter(account)
    form = browser.open("/devices/").form(f"/devices/{other.session}/end/")
    house.ask("DELETE", "/sessions/session-user-d/", other)

    answer = browser.post(f"/devices/{other.session}/end/", form, follow_redirects=True)

    assert "That session had ended already." in answer.text
    assert browser.get(f"/devices/{other.session}/").status_code == 404


@pytest.mark.parametrize("is_staff", [False, True])
def test_the_device_of_another_account_is_not_there(house: House, browser: Browser, is_staff: bool) -> None:
    sign_in(house, browser, "user", staff=is_staff)
    whose = browser.open("/devices/").form("/sign-out/")
    for kind in KIND_NAMES:
        other = house.enter(house.add(kind))
        address = f"/devices/{other.session}/"

        # A client's session may have the number of one that is the user's own.
        if f"/devices/{other.session}/" not in browser.open("/devices/").links:
            assert browser.get(address).status_code == 404
            assert browser.post(address, whose | {"name": "Mine"}).status_code == 404
        browser.post(f"{address}end/", whose)

        assert house.ask("GET", f"/sessions/session-{kind}-l/", other).status_code == 200


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("  Work   laptop ", "Work laptop"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("\u202eevil\u202c\u200f", "evil"),
        ("кухня 🍵", "кухня 🍵"),
        ("x" * 64, "x" * 64),
        (" \t ", None),
        ("\u200e\u200f", None),
        # Persian, and a family of emoji.
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
        ("\u200d \u200c", None),
    ],
)
def test_a_name_is_kept_as_it_reads(house: House, browser: Browser, typed: str, kept: str | None) -> None:
    account = sign_in(house, browser, "client")
    other = house.enter(account, "Thing/1.0")

    answer = browser.send(f"/devices/{other.session}/", name=typed)

    assert answer.status_code == 303
    details = house.ask("GET", f"/sessions/session-client-r/{other.session}/", other).json()
    assert details["name"] == kept
    assert "<script>alert" not in browser.get("/devices/").text


def test_a_name_from_a_program_turns_no_text_around(house: House, browser: Browser) -> None:
    account = sign_in(house, browser, "user")
    other = house.enter(account)
    house.client.post(
        "/auth/user/token/", json=account.credentials, headers={b"User-Agent": "\u202eThing/1.0".encode()}
    )
    house.ask("PATCH", f"/sessions/session-user-u/{other.session}/", other, json={"name": "\u202egnp.exe"})

    for address in ("/devices/", f"/devices/{other.session}/", "/activity/"):
        assert not re.search("(?<!<bdi>)\u202e", browser.get(address).text)


def test_a_name_that_is_too_long_is_refused_at_its_field(house: House, browser: Browser) -> None:
    account = sign_in(house, browser, "user")
    other = house.enter(account, "Thing/1.0")

    answer = browser.send(f"/devices/{other.session}/", name="n" * 10_000)

    assert answer.status_code == 400
    assert "This is too long: 10000 characters, at most 64 are kept." in answer.text
    assert 'aria-describedby="name-hint name-error"' in answer.text
    assert house.ask("GET", f"/sessions/session-user-r/{other.session}/", other).json()["name"] is None


def test_one_device_tells_all_that_is_known_of_it_and_its_history(house: House, browser: Browser) -> None:
    staff = house.enter(house.add("user", staff=True))
    account = sign_in(house, browser, "client")
    other = house.enter(account, PHONE)
    browser.send(f"/devices/{other.session}/", name="Odd")
    house.ask("PATCH", f"/sessions/session-client-u/{other.session}/", staff, json={"name": "Pocket"})

    page = browser.get(f"/devices/{other.session}/").text

    for told in ("Pocket", PHONE, "127.0.0.1", "signed in.", "A device was named.", "Staff named a device.", "UTC"):
        assert told in page


def test_many_devices_are_grouped_and_searched_without_a_script(house: House, browser: Browser) -> None:
    account = sign_in(house, browser, "user")
    for number in range(9):
        house.enter(account, f"Thing{number}/1.0")

    def shown(address: str) -> int:
        rows = [tag for tag in browser.open(address).tags if "data-device" in tag[1]]
        return sum("hidden" not in attributes for _, attributes in rows)

    assert shown("/devices/") == 9
    assert shown("/devices/?q=thing4") == 1
    assert shown("/devices/?q=THING%20127.0") == 9
    assert "No device matches." in browser.get("/devices/?q=nothing").text
    assert shown("/devices/?q=nothing") == 0


def test_a_page_is_short_on_the_wire_and_kept_by_no_cache(house: House, browser: Browser) -> None:
    account = sign_in(house, browser, "user")
    for _ in range(50):
        house.enter(account)

    answer = browser.get("/devices/")

    assert answer.headers["Content-Encoding"] == "gzip"
    assert int(answer.headers["Content-Length"]) < 12_000
    assert answer.headers["Cache-Control"] == "no-store"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


def test_it_reads_in_the_language_that_was_asked_for_and_then_in_the_one_that_was_chosen(house: House) -> None:
    browser = Browser(house, **{"Accept-Language": "ru-RU,ru;q=0.9,en;q=0.5"})
    sign_in(house, browser, "client")
    assert "Где выполнен вход" in browser.get("/devices/").text

    answer = browser.post("/preferences/", {"language": "en", "next": "/devices/"})

    assert answer.headers["Location"] == "/devices/"
    page = browser.get("/devices/").text
    assert '<html lang="en"' in page
    assert "Where you are signed in" in page
    browser.close()


def test_the_appearance_stays_as_it_was_chosen(browser: Browser) -> None:
    browser.post("/preferences/", {"theme": "dark", "next": "/sign-in/"})
    assert 'data-theme="dark"' in browser.get("/sign-in/").text

    browser.post("/preferences/", {"theme": "system", "next": "/sign-in/"})
    assert 'data-theme="system"' in browser.get("/sign-in/").text


@pytest.mark.parametrize(
    "next_address", ["//elsewhere.example/", "https://elsewhere.example/", "/\\elsewhere.example", ""]
)
def test_preferences_lead_to_this_site_alone_and_nonsense_changes_nothing(browser: Browser, next_address: str) -> None:
    answer = browser.post("/preferences/", {"language": "xx", "theme": "loud", "next": next_address})

    assert answer.headers["Location"] == "/devices/"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.long
def test_a_page_that_looks_again_by_itself_is_no_use_of_the_session(house: House, browser: Browser) -> None:
    left, used = house.add("client"), house.add("client")
    long_ago = clock.now() - timedelta(hours=1)
    columns = KINDS["client"].sessions.c

    def age(db: Connection) -> None:
        mine = columns.account_id.in_((left.id, used.id))
        db.execute(update(KINDS["client"].sessions).where(mine).values(last_seen_at=long_ago))

    def seen(db: Connection, account: Account) -> Any:
        return db.scalar(select(columns.last_seen_at).where(columns.account_id == account.id))

    other = Browser(house)
    browser.enter(left)
    other.enter(used)
    house.write(age)
    assert browser.get("/devices/", headers={"Sec-Fetch-Dest": "empty"}).status_code == 200
    assert other.get("/devices/", headers={"Sec-Fetch-Dest": "document"}).status_code == 200
    wait_until(lambda: house.read(seen, used) > long_ago)
    assert house.read(seen, left) == long_ago
    other.close()

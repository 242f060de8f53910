"""Signing in and out on pages, for users and clients, and what is done to those who try it otherwise."""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import jwt
import pytest
from sqlalchemy import Connection, text

from handlers import PAGES
from handlers.base import answers_method
from tests.conftest import KEY, NO_TLS, PASSWORD, House, Server, start_server
from tests.handlers.browsers import Browser, Page

KINDS = ["user", "client"]
EXAMPLES = {"id": "1", "kind": "user", "mark": "0" * 64, "code": "0123", "name": "phone"}
# Every address that takes a form, from the table of them all.
POSTED = [
    re.sub(r"\(\?P<(\w+)>.*?\)(?=[/-])", lambda place: EXAMPLES[place[1]], address)
    for address, handler in PAGES
    if answers_method(handler, "post")
]
each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def browser(house: House) -> Iterator[Browser]:
    """Somebody at the pages."""
    opened = Browser(house)
    yield opened
    opened.close()


@pytest.fixture
def other(house: House) -> Iterator[Browser]:
    """Somebody else, at another browser."""
    opened = Browser(house)
    yield opened
    opened.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server of the test's own, with its settings."""
    with contextlib.ExitStack() as stack:

        def run(url: str, **settings: str) -> Server:
            server = start_server(tmp_path, url, **settings)
            stack.callback(server.stop)
            return server

        yield run


def read_setup(server: Server) -> str:
    """Where the server's first account is made."""
    return f"/setup/{re.findall(r'/setup/(.*)/', server.log.read_text())[0]}/"


def live(house: House, kind: str, account: int) -> list[int]:
    """The account's live sessions."""

    def query(db: Connection) -> list[int]:
        found = db.execute(text(f"SELECT id FROM {kind}_sessions WHERE account_id = :id ORDER BY id"), {"id": account})
        return [row[0] for row in found]

    return list(house.read(query))


def causes(house: House, kind: str, account: int) -> list[str | None]:
    """Why the account's sessions ended, in their order."""

    def query(db: Connection) -> list[str | None]:
        found = db.execute(
            text("SELECT cause FROM events WHERE kind = :kind AND account_id = :id AND type = 'ended' ORDER BY id"),
            {"kind": kind, "id": account},
        )
        return [row[0] for row in found]

    return list(house.read(query))


@each_kind
def test_a_phone_and_its_password_sign_in_and_lead_to_the_devices(house: House, browser: Browser, kind: str) -> None:
    answer = browser.sign_in(house.add(kind))
    assert (answer.status_code, answer.headers["Location"]) == (303, "/devices/")
    assert "This device" in browser.open("/devices/").words


@each_kind
def test_a_stranger_signs_in_and_comes_to_the_page_that_was_asked_for(
    house: House, browser: Browser, kind: str
) -> None:
    answer = browser.get("/activity/?before=5")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in/?next=%2Factivity%2F%3Fbefore%3D5")
    account = house.add(kind)
    form = browser.open(answer.headers["Location"]).form("/sign-in/")
    answer = browser.post("/sign-in/", form | {"identity": account.contact, "password": PASSWORD})
    assert answer.headers["Location"] == "/activity/?before=5"


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "/\t/evil.example/",
        "javascript:alert(1)",
        "/a\r\nSet-Cookie: x=y",
        "/\u202egnp.elif/",
        "evil",
        "/" + "a" * 3000,
    ],
)
def test_only_addresses_of_this_site_are_followed(house: House, browser: Browser, address: str) -> None:
    answer = browser.sign_in(house.add("user"), next=address)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/devices/")


@each_kind
def test_a_wrong_password_is_told_and_what_was_typed_is_kept(house: House, browser: Browser, kind: str) -> None:
    account = house.add(kind)
    answer = browser.sign_in(account, "not the password at all", next="/activity/")
    page = Page(answer.text)
    assert answer.status_code == 400
    assert "No account is found" in page.words
    assert page.form("/sign-in/")["identity"] == account.contact
    assert page.form("/sign-in/")["next"] == "/activity/"
    assert not page.form("/sign-in/")["password"]
    assert browser.cookie("session") is None


def test_an_account_that_nobody_has_is_told_in_the_same_words(browser: Browser) -> None:
    for typed in ("+79990000000", "nobody@example.com", "nobody", "x" * 200):
        answer = browser.send("/sign-in/", identity=typed, password=PASSWORD)
        assert answer.status_code == 400
        assert "No account is found" in answer.text


@pytest.mark.parametrize(
    ("typed", "is_told"), [("8 913 777-91-35", True), ("+79137779135", False), ("nobody@example.com", False)]
)
def test_a_number_without_its_country_is_told_how_numbers_are_written(
    browser: Browser, typed: str, is_told: bool
) -> None:
    answer = browser.send("/sign-in/", identity=typed, password="no such password")
    assert ("In international form" in answer.text) is is_told


def test_an_empty_form_has_its_errors_at_their_fields(browser: Browser) -> None:
    answer = browser.send("/sign-in/")
    assert answer.status_code == 400
    assert Page(answer.text).invalid == ["identity", "password"]
    assert answer.text.count("Fill this in.") == 2


def test_a_name_of_ten_thousand_characters_and_markup_are_only_text(browser: Browser) -> None:
    answer = browser.send("/sign-in/", identity="x" * 10_000, password="y")
    assert answer.status_code == 400
    assert "at most 200 characters" in answer.text
    answer = browser.send("/sign-in/", identity="<script>alert(1)</script>", password="y")
    assert "<script>alert" not in answer.text


def test_a_disabled_account_is_nobody(house: House, browser: Browser) -> None:
    assert browser.sign_in(house.add("user", disabled=True)).status_code == 400


def test_one_phone_of_a_user_and_a_client_is_told_apart_by_the_password(house: House, browser: Browser) -> None:
    user, client = house.add("user"), house.add("client")
    house.write(lambda db: db.execute(
        text("UPDATE clients SET phone = :phone WHERE id = :id"), {"phone": user.contact, "id": client.id}
    ) and None)  # fmt: skip
    answer = browser.sign_in(user)
    assert answer.status_code == 400
    assert "choose one" in answer.text
    # Whoever types another account instead need not choose.
    assert not [tag for tag, given in Page(answer.text).tags if given.get("type") == "radio" and "required" in given]
    assert browser.sign_in(user, kind="client").status_code == 303
    assert live(house, "client", client.id)
    assert not live(house, "user", user.id)


@each_kind
def test_signing_in_while_signed_in_replaces_the_browsers_session(house: House, browser: Browser, kind: str) -> None:
    account = house.add(kind)
    assert browser.sign_in(account).status_code == 303
    first = live(house, kind, account.id)
    assert browser.sign_in(account).status_code == 303
    second = live(house, kind, account.id)
    assert len(second) == 1
    assert second != first
    assert causes(house, kind, account.id) == ["replaced"]


@each_kind
def test_signing_in_as_somebody_else_ends_the_first_session(house: House, browser: Browser, kind: str) -> None:
    first, second = house.add(kind), house.add("client")
    assert browser.sign_in(first).status_code == 303
    assert browser.sign_in(second).status_code == 303
    assert not live(house, kind, first.id)
    assert len(live(house, "client", second.id)) == 1


@each_kind
def test_signing_out_ends_the_session_and_the_cookie(house: House, browser: Browser, kind: str) -> None:
    account = house.add(kind)
    assert browser.sign_in(account).status_code == 303
    kept = browser.cookie("session")
    answer = browser.send("/sign-out/")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in/")
    assert browser.cookie("session") is None
    assert "You are signed out." in browser.open("/sign-in/").words
    assert "You are signed out." not in browser.open("/sign-in/").words
    assert causes(house, kind, account.id) == ["signed_out"]
    assert browser.get("/devices/", headers={"Cookie": f"session={kept}"}).status_code == 303


def test_signing_out_twice_is_signed_out(browser: Browser) -> None:
    assert browser.post("/sign-out/").headers["Location"] == "/sign-in/"
    assert browser.get("/sign-out/").headers["Location"] == "/sign-in/"


def test_no_page_is_kept_by_the_browser(house: House, browser: Browser) -> None:
    browser.enter(house.add("user"))
    for address in ("/devices/", "/account/", "/activity/", "/sign-in/", "/nowhere/"):
        headers = browser.get(address).headers
        assert headers["Cache-Control"] == "no-store"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]


def test_the_cookie_is_for_this_browser_alone(house: House, browser: Browser) -> None:
    answer = browser.sign_in(house.add("user"))
    cookie = next(one for one in answer.headers.get_list("Set-Cookie") if one.startswith("session="))
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie


def test_behind_https_the_cookies_are_pinned_to_this_host(
    make_url: Callable[[str], str], start: Callable[..., Server]
) -> None:
    server = start(make_url("sqlite"), SESSIONS_SERVER__ADDRESS="https://sessions.example.com")
    fields = {"email": "first@example.com", "new_password": PASSWORD}
    answer = httpx.post(server.address + read_setup(server), data=fields, verify=NO_TLS)
    kept = {one.partition("=")[0]: one for one in answer.headers.get_list("Set-Cookie")}
    assert set(kept) == {"__Host-session", "__Host-browser", "__Host-notice"}
    for cookie in kept.values():
        parts = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"secure", "httponly", "path=/", "samesite=lax"} <= parts
        assert not any(part.startswith("domain") for part in parts)
    value = kept["__Host-session"].partition("=")[2].partition(";")[0]

    def open_with(cookie: bytes) -> int:
        sent = httpx.get(f"{server.address}/devices/", headers={b"Cookie": cookie}, verify=NO_TLS)
        return sent.status_code

    good = f"__Host-session={value}".encode()
    assert open_with(good) == 200
    assert open_with(good.removeprefix(b"__Host-")) == 303
    # A neighbour may set what only looks so, and a browser sends it: it neither signs in nor out.
    assert open_with(b"\xa0" + good) == 303
    assert open_with(good + b"; \xa0__Host-session=x") == 200

    page = httpx.get(f"{server.address}/devices/", headers={b"Cookie": good}, verify=NO_TLS)
    out = httpx.post(
        f"{server.address}/sign-out/", data=Page(page.text).form("/sign-out/"), headers={b"Cookie": good}, verify=NO_TLS
    )
    gone = next(one for one in out.headers.get_list("Set-Cookie") if one.startswith("__Host-session="))
    # A browser drops such a cookie by one of the same make alone.
    assert {"secure", "path=/"} <= {part.strip().lower() for part in gone.split(";")[1:]}
    assert gone.startswith('__Host-session=""')


def test_a_double_click_signs_in_once_and_is_no_new_device(house: House, browser: Browser) -> None:
    account = house.add("user")
    browser.enter(account)
    other = Browser(house)
    form = other.open("/sign-in/").form("/sign-in/") | {"identity": account.contact, "password": PASSWORD}
    kept = {"browser": other.cookie("browser") or ""}
    for _ in range(2):
        assert httpx.post(f"{house.address}/sign-in/", data=form, cookies=kept, verify=NO_TLS).status_code == 303
    assert len(live(house, "user", account.id)) == 2
    other.close()


def test_a_browser_s_own_id_is_one_of_ours(house: House) -> None:
    def know(cookie: str) -> bool:
        answer = httpx.get(f"{house.address}/sign-in/", headers={"Cookie": cookie}, verify=NO_TLS)
        return not any(one.startswith("browser=") for one in answer.headers.get_list("Set-Cookie"))

    good = "browser=" + "b" * 22
    assert know(good)
    # A text of any length would be kept with each session; of two nobody knows which is this browser's.
    assert not know("browser=" + "b" * 5000)
    assert not know(f"{good}; browser={'c' * 22}")


@each_kind
def test_a_cookie_that_proves_nobody_is_a_stranger_and_is_dropped(house: House, browser: Browser, kind: str) -> None:
    account = house.add(kind)
    browser.enter(account)
    good = browser.cookie("session") or ""
    claims = jwt.decode(good, KEY, ["HS256"])
    device = house.sign_in(account)
    bad = {
        "forged": jwt.encode(claims, "z" * 64, headers={"kid": "test"}),
        "of an old key": jwt.encode(claims, KEY, headers={"kid": "old"}),
        "over": jwt.encode(claims | {"exp": int(time.time()) - 1}, KEY, headers={"kid": "test"}),
        "of no session": jwt.encode(claims | {"sid": secrets.token_urlsafe(16)}, KEY, headers={"kid": "test"}),
        "an access token": device.access,
        "a refresh token": device.refresh,
        "unsigned": jwt.encode(claims, "", "none"),
        "nothing": "",
        "noise": "%00%ff;;==",
        "long": "x" * 10_000,
    }
    for name, value in bad.items():
        answer = httpx.get(f"{house.address}/devices/", headers={"Cookie": f"session={value}"}, verify=NO_TLS)
        assert answer.status_code == 303, name
        assert answer.headers["Location"].startswith("/sign-in/"), name
    twice = httpx.get(f"{house.address}/devices/", headers={"Cookie": f"session={good}; session={good}"}, verify=NO_TLS)
    assert twice.status_code == 303
    assert any(one.startswith('session=""') for one in twice.headers.get_list("Set-Cookie"))
    assert (
        httpx.get(f"{house.address}/devices/", headers={"Cookie": f"session={good}"}, verify=NO_TLS).status_code == 200
    )


def test_a_cookie_is_no_token_for_programs(house: House, browser: Browser) -> None:
    browser.enter(house.add("user"))
    cookie = browser.cookie("session")
    answer = httpx.get(
        f"{house.address}/sessions/session-user-l/", headers={"Authorization": f"Bearer {cookie}"}, verify=NO_TLS
    )
    assert answer.status_code == 401
    assert browser.get("/sessions/session-user-l/").status_code == 401


def test_a_token_is_no_cookie_for_people(house: House) -> None:
    device = house.sign_in(house.add("user"))
    assert house.ask("GET", "/devices/", device).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.example"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
@each_kind
def test_what_another_site_posts_is_refused_in_words(
    house: House, browser: Browser, kind: str, headers: dict[str, str]
) -> None:
    account = house.add(kind)
    browser.enter(account)
    assert len(POSTED) > 18
    for address in POSTED:
        answer = browser.post(address, headers=headers)
        assert answer.status_code == 403, address
        assert "Nothing was changed" in answer.text, address
    assert len(live(house, kind, account.id)) == 1


@each_kind
def test_a_form_made_for_another_account_changes_nothing(house: House, browser: Browser, kind: str) -> None:
    first, second = house.add(kind), house.add("user")
    assert browser.sign_in(first).status_code == 303
    form = browser.open("/account/").form("/account/fields/") | {"name": "Changed"}
    assert browser.sign_in(second).status_code == 303
    answer = browser.post("/account/fields/", form)
    assert answer.status_code == 409
    assert "Nothing was changed" in answer.text
    assert "Changed" not in browser.open("/account/").form("/account/fields/")["name"]


@each_kind
def test_a_form_kept_from_before_signing_in_again_changes_nothing(house: House, browser: Browser, kind: str) -> None:
    account = house.add(kind)
    assert browser.sign_in(account).status_code == 303
    form = browser.open("/account/").form("/account/fields/") | {"name": "Changed"}
    assert browser.sign_in(account).status_code == 303
    assert browser.post("/account/fields/", form).status_code == 409
    assert "Changed" not in browser.open("/account/").form("/account/fields/")["name"]


@each_kind
def test_a_form_sent_after_signing_out_changes_nothing_and_says_so(house: House, browser: Browser, kind: str) -> None:
    browser.enter(house.add(kind))
    form = browser.open("/account/").form("/account/fields/")
    browser.send("/sign-out/")
    answer = browser.post("/account/fields/", form)
    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text


def test_the_page_of_a_session_that_was_ended_says_why(house: House, browser: Browser, other: Browser) -> None:
    account = house.add("user")
    browser.enter(account)
    other.enter(account)
    other.post("/devices/end-others/", {"whose": other.open("/account/").form("/account/fields/")["whose"]})
    answer = browser.get("/devices/")
    assert answer.headers["Location"] == "/sign-in/?next=%2Fdevices%2F"
    assert "from another of your devices" in browser.open(answer.headers["Location"]).words
    assert other.get("/devices/").status_code == 200


@each_kind
def test_an_account_that_is_not_confirmed_comes_to_where_it_confirms_itself(
    house: House, browser: Browser, kind: str
) -> None:
    account = house.add(kind, confirmed=False)
    assert browser.sign_in(account).headers["Location"] == "/confirm/"
    for address in ("/devices/", "/account/", "/activity/", "/account/download/"):
        assert browser.get(address).headers["Location"] == "/confirm/"
    assert account.contact in browser.open("/confirm/").words
    assert browser.send("/confirm/", "/sign-out/").headers["Location"] == "/sign-in/"
    assert not live(house, kind, account.id)


def test_unknown_addresses_and_methods_are_told_in_words(browser: Browser) -> None:
    for method, address, status in (
        ("GET", "/nowhere/", 404),
        ("GET", "/setup/0123/", 404),
        ("GET", "/end/user-1-1-" + "0" * 64 + "/", 404),
        ("PUT", "/sign-in/", 405),
        ("DELETE", "/devices/", 405),
    ):
        answer = browser.client.request(method, address)
        assert answer.status_code == status
        assert "<!doctype html>" in answer.text
    assert browser.client.delete("/devices/").headers["Allow"] == "GET, HEAD"
    assert browser.get("/sign-in").headers["Location"] == "/sign-in/"
    assert browser.get("/auth/nowhere/").json() == {"detail": "Not found."}


def test_a_body_that_is_too_large_is_told_in_words(browser: Browser) -> None:
    answer = browser.post("/sign-in/", {"identity": "x" * 100_000})
    assert answer.status_code == 413
    assert "Nothing was changed" in answer.text


@pytest.mark.postgresql
def test_while_the_database_is_away_a_page_says_so_and_nobody_is_signed_out(
    make_url: Callable[[str], str], start: Callable[..., Server]
) -> None:
    url = make_url("postgresql")
    server = start(url)
    place, _, name = url.rpartition("/")
    with httpx.Client(base_url=server.address, timeout=30, verify=NO_TLS) as client:
        client.post(read_setup(server), data={"email": "first@example.com", "new_password": PASSWORD})
        assert client.get("/devices/").status_code == 200
        close = f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"
        end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        subprocess.run(["psql", "-q", f"{place}/postgres", "-c", close, "-c", end], check=True, capture_output=True)
        for answer in (
            client.get("/devices/"),
            client.post("/sign-in/", data={"identity": "first@example.com", "password": PASSWORD}),
        ):
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            assert "Try again in a moment" in answer.text
            assert not any(one.startswith("session=") for one in answer.headers.get_list("Set-Cookie"))


def test_pages_are_in_the_language_that_is_asked_for(browser: Browser) -> None:
    answer = browser.get("/sign-in/", headers={"Accept-Language": "ru, en;q=0.5"})
    assert answer.headers["Content-Language"] == "ru"
    assert '<html lang="ru"' in answer.text

"""Pages: the account itself, the password that is asked for again, and the message about a new device."""

from __future__ import annotations

import io
import itertools
import json
import re
import struct
import zlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import Connection, func, select, text

from models import accounts, clock, codes
from models.schema import CODES, KINDS
from models.settings import AccountSettings
from tests.conftest import KEY_SET, PASSWORD, Account, House, wait_until
from tests.handlers.browsers import Browser, Page
from tests.handlers.test_pages_register import letters, new_phone, read_code

each_kind = pytest.mark.parametrize("kind", ["user", "client"])
_numbers = itertools.count(1)


@pytest.fixture
def browser(house: House) -> Iterator[Browser]:
    """Somebody at the pages."""
    opened = Browser(house)
    yield opened
    opened.close()


@pytest.fixture
def other(house: House) -> Iterator[Browser]:
    """Somebody else, at another browser."""
    opened = Browser(house, "Mozilla/5.0 other")
    yield opened
    opened.close()


def enter(house: House, browser: Browser, kind: str) -> Account:
    """A new account, signed in."""
    account = house.add(kind)
    browser.enter(account)
    return account


def row(house: House, account: Account) -> Any:
    """The account as it is kept."""
    return house.read(accounts.get, KINDS[account.kind], account.id)


def grow_old(house: House, account: Account) -> None:
    """Let the passwords that were given in the account's sessions be eleven minutes old."""
    at = clock.to_microseconds(clock.now() - timedelta(minutes=11))

    def query(db: Connection) -> None:
        db.execute(
            text(f"UPDATE {account.kind}_sessions SET password_at = :at WHERE account_id = :id"),
            {"at": at, "id": account.id},
        )

    house.write(query)


def live(house: House, account: Account) -> int:
    """How many live sessions the account has."""

    def query(db: Connection) -> Any:
        return db.scalar(
            text(f"SELECT count(*) FROM {account.kind}_sessions WHERE account_id = :id"), {"id": account.id}
        )

    return int(house.read(query))


def png(size: tuple[int, int] = (400, 300), mode: str = "RGB") -> bytes:
    """A picture."""
    made = io.BytesIO()
    Image.new(mode, size, "teal").save(made, "PNG")
    return made.getvalue()


def many_scans() -> bytes:
    """A small JPEG whose scans are read over and over."""
    made = io.BytesIO()
    Image.new("L", (64, 64)).save(made, "JPEG", progressive=True)
    begin = made.getvalue().index(b"\xff\xda")
    end = made.getvalue().index(b"\xff", begin + 2)
    return made.getvalue()[:begin] + made.getvalue()[begin:end] * 100 + made.getvalue()[end:]


def bomb(picture: bytes) -> bytes:
    """The same file, which claims to be 100,000 pixels square."""
    head = b"IHDR" + struct.pack(">II", 100_000, 100_000) + picture[24:29]
    return picture[:12] + head + struct.pack(">I", zlib.crc32(head)) + picture[33:]


@each_kind
def test_fields_are_kept_and_shown(house: House, browser: Browser, kind: str) -> None:
    account = enter(house, browser, kind)
    typed = {"name": " Ada ", "surname": "O’<script>", "patronymic": "Иванова", "address": "1, Main St."}
    assert browser.send("/account/", "/account/fields/", **typed).headers["Location"] == "/account/"
    form = browser.open("/account/").form("/account/fields/")
    assert form["name"] == "Ada"
    assert form["surname"] == "O’<script>"
    assert row(house, account)["patronymic"] == "Иванова"
    assert row(house, account)["address"] == "1, Main St."
    assert "<script>" not in re.sub(r"<script type=\"module\" [^>]*>", "", browser.get("/account/").text)


@each_kind
def test_fields_that_can_not_be_kept_are_told_at_their_place(house: House, browser: Browser, kind: str) -> None:
    enter(house, browser, kind)
    for bad in ("x" * 10_000, "a\u202eb"):
        answer = browser.send("/account/", "/account/fields/", name=bad, surname="Kept")
        page = Page(answer.text)
        assert (answer.status_code, page.invalid) == (400, ["name"])
        assert page.form("/account/fields/")["surname"] == "Kept"


@each_kind
def test_a_new_phone_replaces_the_old_one_once_it_is_proved(house: House, browser: Browser, kind: str) -> None:
    account, phone = enter(house, browser, kind), new_phone()
    assert browser.send("/account/", "/account/phone/", value=phone).headers["Location"] == "/account/"
    assert row(house, account)["phone"] == account.contact
    again = browser.send("/account/", "/account/phone/", value=phone)
    assert "Wait a minute" in browser.open(again.headers["Location"]).words
    wrong = browser.send("/account/", "/account/phone/confirm/", code="1")
    assert Page(wrong.text).invalid == ["code"]
    right = browser.send("/account/", "/account/phone/confirm/", code=read_code(house, phone))
    assert right.headers["Location"] == "/account/"
    assert row(house, account)["phone"] == phone
    assert row(house, account)["confirmed_phone"]
    # The second click of two, or another tab: nothing waits for a code any more.
    form = browser.open("/account/").form("/account/fields/")
    late = browser.post("/account/phone/confirm/", form | {"value": phone, "code": "123456"})
    assert late.status_code == 400
    assert "This code is wrong, used or too old" in Page(late.text).words


def test_a_contact_that_another_account_has_is_told(house: House, browser: Browser) -> None:
    account, other = enter(house, browser, "user"), house.add("user")
    answer = browser.send("/account/", "/account/phone/", value=other.contact)
    assert "Another account has it" in answer.text
    for name, bad in (("phone", "12"), ("email", "a@b"), ("email", "")):
        answer = browser.send("/account/", f"/account/{name}/", value=bad)
        assert Page(answer.text).invalid == ["value"]
    assert row(house, account)["phone"] == account.contact


def test_a_contact_that_was_taken_while_its_code_was_on_the_way_is_told(house: House, browser: Browser) -> None:
    enter(house, browser, "user")
    email = f"late{next(_numbers)}@example.com"
    browser.send("/account/", "/account/email/", value=email)
    code = read_code(house, email)
    house.write(accounts.create, KINDS["user"], {"email": email}, "hash", None, clock.now())
    answer = browser.send("/account/", "/account/email/confirm/", code=code)
    assert "Another account has it" in browser.open(answer.headers["Location"]).words


def test_a_client_has_no_email(house: House, browser: Browser) -> None:
    enter(house, browser, "client")
    form = browser.open("/account/").form("/account/fields/")
    assert browser.post("/account/email/", form | {"value": "a@example.com"}).status_code == 404


def confirm(house: House, account: Account, **values: str | bool) -> None:
    """Give the account contacts that are confirmed, or not."""
    house.write(accounts.change, KINDS[account.kind], account.id, clock.now(), values)


@pytest.mark.parametrize(("taken", "other"), [("email", "phone"), ("phone", "email")])
def test_a_contact_is_taken_away_where_another_is_confirmed(
    house: House, browser: Browser, taken: str, other: str
) -> None:
    account = enter(house, browser, "user")
    email = f"spare{next(_numbers)}@example.com"
    confirm(house, account, email=email, confirmed_email=True, confirmed_phone=True)
    grow_old(house, account)
    prompt = Page(browser.send("/account/", f"/account/{taken}/remove/").text)
    assert row(house, account)[taken]
    asked = prompt.form(f"/account/{taken}/remove/")
    answer = browser.post(f"/account/{taken}/remove/", asked | {"prompted_password": PASSWORD})
    assert "was removed." in browser.open(answer.headers["Location"]).words
    assert (row(house, account)[taken], row(house, account)[f"confirmed_{taken}"]) == (None, False)
    assert row(house, account)[other]
    assert "was removed." in browser.open("/activity/").words
    again = browser.post(f"/account/{taken}/remove/", asked)
    assert "That is what it was." in browser.open(again.headers["Location"]).words


@each_kind
def test_the_last_confirmed_contact_stays(house: House, browser: Browser, kind: str) -> None:
    account = enter(house, browser, kind)
    confirm(house, account, confirmed_phone=True)
    if kind == "user":
        confirm(house, account, email=f"unsure{next(_numbers)}@example.com")
    page = browser.open("/account/")
    assert not any(form.action == "/account/phone/remove/" for form in page.forms)
    answer = browser.post("/account/phone/remove/", page.form("/account/fields/"))
    assert "keeps at least one confirmed contact" in browser.open(answer.headers["Location"]).words
    assert row(house, account)["phone"] == account.contact


def test_what_was_sent_to_a_contact_is_worth_nothing_once_it_is_taken_away(house: House, browser: Browser) -> None:
    account = enter(house, browser, "user")
    confirm(house, account, email=f"lost{next(_numbers)}@example.com", confirmed_email=True, confirmed_phone=True)
    browser.send("/reset/", identity=account.contact)
    code, new = read_code(house, account.contact), "another harbour at dawn"
    assert browser.send("/account/", "/account/phone/remove/").status_code == 303
    confirm(house, account, phone=account.contact)
    answer = browser.send("/reset/code/", code=code, new_password=new)
    assert Page(answer.text).invalid == ["code"]


@each_kind
def test_a_new_password_ends_every_other_session(house: House, browser: Browser, other: Browser, kind: str) -> None:
    account, new = enter(house, browser, kind), "another harbour at dawn"
    other.enter(account)
    wrong = browser.send("/account/", "/account/password/", password="wrong", new_password=new)
    assert Page(wrong.text).invalid == ["password"]
    weak = browser.send("/account/", "/account/password/", password=PASSWORD, new_password="password")
    assert Page(weak.text).invalid == ["new_password"]
    assert live(house, account) == 2
    done = browser.send("/account/", "/account/password/", password=PASSWORD, new_password=new)
    assert done.headers["Location"] == "/account/"
    assert live(house, account) == 1
    assert browser.get("/account/").status_code == 200
    assert "the password was changed" in other.open("/account/").words
    assert other.sign_in(account).status_code == 400
    assert other.sign_in(account, new).status_code == 303


@each_kind
def test_a_picture_is_made_anew_and_is_the_image_of_the_json(house: House, browser: Browser, kind: str) -> None:
    account = enter(house, browser, kind)
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    made = io.BytesIO()
    Image.new("RGB", (900, 600), "teal").save(made, "JPEG", exif=exif)
    assert b"a secret place" in made.getvalue()
    form = browser.open("/account/").form("/account/picture/")
    answer = browser.post("/account/picture/", form, files={"picture": ("x.jpg", made.getvalue(), "image/jpeg")})
    assert answer.headers["Location"] == "/account/"
    device = house.sign_in(account)
    listed = house.ask("GET", f"/sessions/session-{kind}-l/", device).json()
    address = listed[0][kind]["image"]
    assert address.startswith(f"{house.address}/sessions/session-{kind}-l/{account.id}/static/Users/")
    image = browser.get(address)
    assert image.headers["Content-Type"] == "image/jpeg"
    assert b"a secret place" not in image.content
    with Image.open(io.BytesIO(image.content)) as opened:
        assert (opened.format, opened.size, dict(opened.getexif())) == ("JPEG", (256, 256), {})
    assert address.removeprefix(house.address) in browser.get("/account/").text
    gone = browser.post("/account/picture/remove/", form)
    assert gone.headers["Location"] == "/account/"
    assert browser.get(address).status_code == 404
    listed = house.ask("GET", f"/sessions/session-{kind}-l/", device).json()
    assert listed[0][kind]["image"].endswith("/default-user-image.jpeg")


def test_what_is_no_picture_is_told(house: House, browser: Browser) -> None:
    account = enter(house, browser, "user")
    form = browser.open("/account/").form("/account/picture/")
    whole = png()
    gif = io.BytesIO()
    Image.new("P", (4, 4)).save(gif, "GIF")
    for content in (
        b"",
        b"no picture",
        whole[: len(whole) // 2],
        gif.getvalue(),
        b"<svg/>",
        bomb(whole),
        many_scans(),
    ):
        answer = browser.post("/account/picture/", form, files={"picture": ("x.png", content, "image/png")})
        assert answer.status_code == 400
        assert Page(answer.text).invalid == ["picture"]
    large = browser.post("/account/picture/", form, files={"picture": ("x.png", b"x" * 2_200_000, "image/png")})
    assert large.status_code == 413
    assert row(house, account)["image"] is None
    # Of strangers no more is taken than at any other page: it would be held until all of it is there.
    with Browser(house).client as stranger:
        sent = {"picture": ("x.png", b"x" * 100_000, "image/png")}
        assert stranger.post("/account/picture/", files=sent).status_code == 413


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "1", "LA", "I;16"])
def test_pictures_of_every_make_are_taken(house: House, browser: Browser, mode: str) -> None:
    enter(house, browser, "user")
    form = browser.open("/account/").form("/account/picture/")
    made = io.BytesIO()
    Image.new(mode, (30, 500)).save(made, "PNG")
    answer = browser.post("/account/picture/", form, files={"picture": ("x.png", made.getvalue(), "image/png")})
    assert answer.status_code == 303


@each_kind
def test_the_download_holds_everything_but_what_signs_in(house: House, browser: Browser, kind: str) -> None:
    account = enter(house, browser, kind)
    answer = browser.get("/account/download/")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Disposition"] == f'attachment; filename="sessions-{kind}-{account.id}.json"'
    held = json.loads(answer.content)
    assert held["account"]["phone"] == account.contact
    assert held["account"]["created_at"].endswith("Z")
    assert len(held["sessions"]) == 1
    assert [event["type"] for event in held["events"]] == ["registered", "started"]
    assert "password_hash" not in answer.text
    assert "argon2" not in answer.text


@each_kind
def test_ending_asks_for_the_password_again_and_the_act_follows(
    house: House, browser: Browser, other: Browser, kind: str
) -> None:
    account = enter(house, browser, kind)
    other.enter(account)
    form = browser.open("/account/").form("/account/fields/")
    grow_old(house, account)
    prompt = browser.post("/devices/end-others/", form)
    assert prompt.status_code == 200
    assert live(house, account) == 2
    asked = Page(prompt.text).form("/devices/end-others/")
    wrong = browser.post("/devices/end-others/", asked | {"prompted_password": "wrong"})
    assert Page(wrong.text).invalid == ["prompted_password"]
    assert live(house, account) == 2
    done = browser.post("/devices/end-others/", asked | {"prompted_password": PASSWORD})
    assert done.headers["Location"] == "/devices/"
    assert live(house, account) == 1
    other.enter(account)
    assert browser.post("/devices/end-others/", form).headers["Location"] == "/devices/"


def test_the_prompt_keeps_the_fields_of_the_form(house: House, browser: Browser) -> None:
    account, phone = enter(house, browser, "user"), new_phone()
    grow_old(house, account)
    prompt = browser.send("/account/", "/account/phone/", value=phone)
    asked = Page(prompt.text).form("/account/phone/")
    assert asked["value"] == phone
    assert asked["username"] == account.contact
    assert PASSWORD not in prompt.text
    browser.post("/account/phone/", asked | {"prompted_password": PASSWORD})
    assert read_code(house, phone)


def test_a_letter_is_plain_text_and_a_page_escapes_it_once(house: House, browser: Browser) -> None:
    account = enter(house, browser, "user")
    evil = {"User-Agent": "(https://evil.example/x\u202e".encode()}
    body = account.credentials | {"device_id": "evil"}
    assert house.client.post("/auth/user/token/", json=body, headers=evil).status_code == 200  # type: ignore[arg-type]
    letter = read_letters(house, account, 1)[-1]
    assert "evil.example" in letter
    assert "//evil.example" not in letter
    assert "evil.example/" not in letter
    assert "\u202e" not in letter
    house.sign_in(account, "McDonald's/7 (iPhone; iOS 17.2)", device_id="burger")
    assert "McDonald's on iOS" in read_letters(house, account, 2)[-1]
    assert "McDonald&#39;s on iOS" in browser.get("/devices/").text


@each_kind
def test_a_link_ends_no_other_session_that_has_its_id_since_a_restore(
    house: House, browser: Browser, other: Browser, kind: str
) -> None:
    account = enter(house, browser, kind)
    assert other.sign_in(account).status_code == 303
    link = end_link(house, account)
    later = text(f"UPDATE {kind}_sessions SET created_at = created_at + 1 WHERE account_id = {account.id}")
    house.write(lambda db: db.execute(later))
    assert (house.client.get(link).status_code, house.client.post(link).status_code) == (404, 404)
    assert live(house, account) == 2


@each_kind
def test_ending_this_device_asks_nothing(house: House, browser: Browser, kind: str) -> None:
    account = enter(house, browser, kind)
    grow_old(house, account)
    assert browser.post("/sign-out/").headers["Location"] == "/sign-in/"
    assert live(house, account) == 0


def end_link(house: House, account: Account) -> str:
    """The link in the message about a new device."""
    wait_until(lambda: letters(house, account.contact))
    found = re.search(r"(/end/[^/\s]+/)", letters(house, account.contact)[-1])
    assert found
    return found[1]


@each_kind
def test_a_new_device_is_told_with_a_link_that_ends_it_once(
    house: House, browser: Browser, other: Browser, kind: str
) -> None:
    account = enter(house, browser, kind)
    assert browser.sign_in(account).status_code == 303
    assert not letters(house, account.contact)
    assert other.sign_in(account).status_code == 303
    link = end_link(house, account)
    stranger = Browser(house)
    assert "Was this not you?" in stranger.open(link).words
    assert live(house, account) == 2
    assert "That device is signed out" in stranger.post(link).text
    assert live(house, account) == 1
    assert browser.get("/devices/").status_code == 200
    assert "by the link in a message" in other.open("/devices/").words
    assert "signed out already" in stranger.open(link).words
    assert "signed out already" in stranger.post(link).text
    assert stranger.get(link.replace(link[-3:-1], "00" if link[-3:-1] != "00" else "11")).status_code == 404
    assert live(house, account) == 1
    stranger.close()


@each_kind
def test_the_link_of_a_user_ends_no_client(house: House, browser: Browser, other: Browser, kind: str) -> None:
    account = enter(house, browser, kind)
    assert other.sign_in(account).status_code == 303
    link = end_link(house, account)
    swapped = link.replace("user", "x").replace("client", "user").replace("x-", "client-")
    assert browser.get(swapped).status_code == 404


@each_kind
def test_programs_are_told_too_and_a_device_once_known_is_not(house: House, browser: Browser, kind: str) -> None:
    account = enter(house, browser, kind)
    house.sign_in(account, "program/1", device_id="a till")
    wait_until(lambda: len(letters(house, account.contact)) == 1)
    house.sign_in(account, "program/2", device_id="a till")
    assert browser.sign_in(account).status_code == 303
    house.sign_in(account, "program/1", device_id="another till")
    wait_until(lambda: len(letters(house, account.contact)) == 2)


@each_kind
def test_an_account_that_wants_no_messages_gets_none(house: House, browser: Browser, other: Browser, kind: str) -> None:
    account = enter(house, browser, kind)
    form = browser.open("/account/").form("/account/telling/")
    assert form.pop("tells_new_devices") == "on"
    assert browser.post("/account/telling/", form).headers["Location"] == "/account/"
    assert other.sign_in(account).status_code == 303
    last = house.add(kind)
    assert other.sign_in(last).status_code == 303
    house.sign_in(last, "program/1")
    wait_until(lambda: letters(house, last.contact))
    assert not letters(house, account.contact)
    for _ in range(2):
        browser.send("/account/", "/account/telling/", tells_new_devices="on")
    assert row(house, account)["tells_new_devices"]
    page = browser.get("/activity/").text
    assert page.count("Messages about new devices were turned off.") == 1
    assert page.count("Messages about new devices were turned on.") == 1


def test_the_message_is_in_the_owners_language_and_not_in_the_strangers(house: House, other: Browser) -> None:
    browser = Browser(house, **{"Accept-Language": "ru"})
    account = house.add("user")
    assert browser.sign_in(account).status_code == 303
    assert other.sign_in(account).status_code == 303
    wait_until(lambda: letters(house, account.contact))
    assert row(house, account)["language"] == "ru"
    browser.close()


def test_the_message_leads_to_no_place_that_a_stranger_named(house: House, browser: Browser) -> None:
    account = enter(house, browser, "user")
    body = account.credentials | {"device_id": "another"}
    assert house.client.post("/auth/user/token/", json=body, headers={"Host": "evil.example"}).status_code == 200
    (letter,) = wait_until(lambda: letters(house, account.contact))
    assert "evil.example" not in letter
    assert "on the page of your devices" in letter


@each_kind
def test_turning_the_messages_off_asks_for_the_password(house: House, browser: Browser, kind: str) -> None:
    account = enter(house, browser, kind)
    grow_old(house, account)
    form = browser.open("/account/").form("/account/telling/")
    del form["tells_new_devices"]
    answer = browser.post("/account/telling/", form)
    assert "password" in Page(answer.text).words
    assert row(house, account)["tells_new_devices"]
    prompt = Page(answer.text).form("/account/telling/")
    browser.post("/account/telling/", prompt | {"prompted_password": PASSWORD})
    assert not row(house, account)["tells_new_devices"]


def test_what_was_sent_for_a_new_password_is_void_once_the_password_or_the_contact_is_another(
    house: House, browser: Browser
) -> None:
    of = KINDS["user"]

    def sent() -> tuple[Account, str]:
        account = enter(house, browser, "user")
        house.write(codes.make, KEY_SET, of, account.id, "reset phone", AccountSettings(), clock.now())
        return account, house.write(codes.make_link, KEY_SET, of, account.id, clock.now())

    def is_void(account: Account, link: str) -> bool:
        mine = (CODES.c.account_id == account.id) & (CODES.c.kind == of.name)
        left = house.read(lambda db: db.scalar(select(func.count()).select_from(CODES).where(mine)))
        return left == 0 and not house.read(codes.is_link, KEY_SET, of, account.id, link, clock.now())

    account, link = sent()
    assert not is_void(account, link)
    browser.send("/account/", "/account/password/", password=PASSWORD, new_password="another harbour at dawn")
    assert is_void(account, link)
    account, link = sent()
    phone = new_phone()
    browser.send("/account/", "/account/phone/", value=phone)
    browser.send("/account/", "/account/phone/confirm/", code=read_code(house, phone))
    assert is_void(account, link)
    account, link = sent()
    confirm(house, account, email=f"left{next(_numbers)}@example.com", confirmed_email=True, confirmed_phone=True)
    browser.send("/account/", "/account/phone/remove/")
    assert is_void(account, link)


def read_letters(house: House, account: Account, count: int) -> list[str]:
    """What was sent to an account, once it is so much."""
    wait_until(lambda: len(letters(house, account.contact)) >= count)
    return letters(house, account.contact)


def test_the_message_leads_to_no_port_but_the_server_s(house: House, browser: Browser) -> None:
    account = enter(house, browser, "user")
    for number, (host, leads) in enumerate(
        (("127.0.0.1:1", False), ("localhost:1", False), (f"localhost:{house.client.base_url.port}", True))
    ):
        body = account.credentials | {"device_id": f"another {number}"}
        assert house.client.post("/auth/user/token/", json=body, headers={"Host": host}).status_code == 200
        assert (f"http://{host}/end/" in read_letters(house, account, number + 1)[-1]) == leads


def test_a_picture_of_several_is_taken_by_its_first(house: House, browser: Browser) -> None:
    account, made = enter(house, browser, "user"), io.BytesIO()
    first, second = Image.new("RGB", (400, 300), "red"), Image.new("RGB", (40, 30), "blue")
    # As telephones write them: a JPEG with a smaller picture after it.
    first.save(made, "MPO", save_all=True, append_images=[second])
    form = browser.open("/account/").form("/account/picture/")
    answer = browser.post("/account/picture/", form, files={"picture": ("x.jpg", made.getvalue(), "image/jpeg")})
    assert answer.headers["Location"] == "/account/"
    assert row(house, account)["image"]

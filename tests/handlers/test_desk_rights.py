"""Who may open the desk, and who may act on it: one table over every address of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, func, select, update

from handlers import DESK
from handlers.admin.accounts import ACTS
from handlers.admin.staff import StaffHandler
from handlers.pages import WHOSE
from models import clock
from models.events import Cause
from models.schema import JOBS, KINDS
from models.sessions import end_account
from tests.conftest import ROOT, Account, House
from tests.handlers.browsers import Browser, Page

CALLERS = ("nobody", "user", "client", "viewer", "staff", "disabled", "ended")
# Whom a page lets in; whoever is not signed in is sent to sign in.
MAY_LOOK = {"viewer", "staff"}
PAGES = [
    "/admin/",
    "/admin/sessions/",
    "/admin/sessions/end/?session=user-{session}",
    "/admin/sessions/ends/",
    "/admin/sessions/user/{session}/",
    "/admin/accounts/user/",
    "/admin/accounts/client/",
    "/admin/accounts/user/new/",
    "/admin/accounts/user/{account}/",
    "/admin/events/",
    "/admin/events/download/csv/?kind=user&account={account}",
    "/admin/events/download/jsonl/?kind=user&account={account}",
    "/admin/emergency/",
]
FORMS = [
    "/admin/sessions/end/?session=user-{session}",
    "/admin/accounts/user/new/",
    "/admin/accounts/user/{account}/reset/",
    *(f"/admin/accounts/user/{{account}}/{act}/" for act in ACTS),
    "/admin/emergency/",
]


def make_viewer(db: Connection, account_id: int) -> None:
    """Have a user see the desk."""
    accounts = KINDS["user"].accounts
    db.execute(update(accounts).where(accounts.c.id == account_id).values(is_viewer=True))


def disable(db: Connection, account_id: int) -> None:
    """Past the models, which would end its sessions: the account's state alone must do."""
    accounts = KINDS["user"].accounts
    db.execute(update(accounts).where(accounts.c.id == account_id).values(disabled_at=clock.now()))


class Caller:
    """Somebody at the desk's addresses."""

    def __init__(self, house: House, who: str) -> None:
        self.who = who
        self.browser = Browser(house)
        self.whose = ""
        if who == "nobody":
            return
        account = house.add("client" if who == "client" else "user", staff=who in ("staff", "disabled", "ended"))
        if who == "viewer":
            house.write(make_viewer, account.id)
        self.browser.enter(account)
        self.whose = Page(self.browser.get("/devices/").text).form("/sign-out/").get(WHOSE, "")
        if who == "disabled":
            house.write(disable, account.id)
        if who == "ended":
            house.write(end_account, KINDS["user"], account.id, Cause.SIGNED_OUT, clock.now())


@pytest.fixture(scope="module")
def callers(house: House) -> Iterator[dict[str, Caller]]:
    """One of each, for all of the table."""
    made = {who: Caller(house, who) for who in CALLERS}
    yield made
    for caller in made.values():
        caller.browser.close()


@pytest.fixture(scope="module")
def target(house: House) -> tuple[Account, int]:
    """An account, and the id of a session of it, that nothing happens to."""
    account = house.add("user")
    return account, house.enter(account, "Target/1.0").session


@pytest.mark.parametrize("address", PAGES)
@pytest.mark.parametrize("who", CALLERS)
def test_staff_and_viewers_see_every_page_and_nobody_else_sees_any(
    callers: dict[str, Caller], target: tuple[Account, int], who: str, address: str
) -> None:
    account, session = target
    address = address.format(account=account.id, session=session)

    answer = callers[who].browser.get(address)

    if who in MAY_LOOK:
        assert answer.status_code == 200, answer.text
    elif who in ("user", "client"):
        assert answer.status_code == 403
        assert "This is for the staff" in answer.text
        assert "Target/1.0" not in answer.text
    else:
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith("/sign-in/?next=%2Fadmin%2F")


@pytest.mark.parametrize("address", FORMS)
@pytest.mark.parametrize("who", [who for who in CALLERS if who != "staff"])
def test_nobody_but_staff_does_anything(
    house: House, callers: dict[str, Caller], target: tuple[Account, int], who: str, address: str
) -> None:
    account, session = target
    caller = callers[who]
    fields = {WHOSE: caller.whose, "word": "END", "password": account.password, "email": "made@example.com"}

    before = house.read(_count, session)
    assert before[0] == 1

    answer = caller.browser.post(address.format(account=account.id, session=session), fields)

    assert answer.status_code == 403, answer.text
    assert "Nothing was changed" in answer.text or "Your account may not open the desk" in answer.text
    assert house.read(_count, session) == before
    row = house.read(_read, account.id)
    assert (row["is_staff"], row["is_viewer"], row["disabled_at"]) == (False, False, None)


def _count(db: Connection, session_id: int) -> tuple[int, int]:
    """How many sessions of users have this id, and how many are to be ended together."""
    sessions = KINDS["user"].sessions
    here = db.scalar(select(func.count()).select_from(sessions).where(sessions.c.id == session_id))
    return here or 0, db.scalar(select(func.count()).select_from(JOBS)) or 0


def _read(db: Connection, account_id: int) -> dict[str, object]:
    accounts = KINDS["user"].accounts
    row = db.execute(accounts.select().where(accounts.c.id == account_id)).mappings().one()
    return dict(row)


def test_a_form_that_was_made_for_another_session_is_refused(callers: dict[str, Caller], target: object) -> None:
    answer = callers["staff"].browser.post("/admin/emergency/", {WHOSE: callers["viewer"].whose})

    assert answer.status_code == 409


@pytest.mark.parametrize("address", [page for page in PAGES if "/download/" not in page])
def test_a_viewer_is_shown_no_act(callers: dict[str, Caller], target: tuple[Account, int], address: str) -> None:
    account, session = target

    page = callers["viewer"].browser.open(address.format(account=account.id, session=session))

    assert [form.action for form in page.forms if form.action.startswith("/admin/") and WHOSE in form.fields] == []
    assert not [link for link in page.links if link.startswith("/admin/sessions/end/") or link.endswith("/new/")]


def test_the_stream_of_the_house_is_for_the_desk_alone(callers: dict[str, Caller]) -> None:
    for who in CALLERS:
        if who not in MAY_LOOK:
            assert callers[who].browser.get("/admin/live/").status_code == 403
    for who in sorted(MAY_LOOK):
        with callers[who].browser.client.stream("GET", "/admin/live/") as answer:
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "text/event-stream"


def test_every_page_of_the_desk_asks_in_the_one_place() -> None:
    for address, handler in DESK:
        assert address.startswith("/admin/")
        assert issubclass(handler, StaffHandler), address
        assert handler.require_rights is StaffHandler.require_rights, address
        assert not handler.is_open, address
        assert handler.prepare is StaffHandler.prepare, address


def test_every_template_of_the_desk_stands_in_its_frame() -> None:
    templates = [path for path in (ROOT / "templates" / "desk").glob("*.html") if not path.name.startswith("_")]
    assert templates
    for path in templates:
        assert re.match(r'{% extends "desk/_desk.html" %}', path.read_text()), path.name


def test_only_staff_and_viewers_are_shown_the_way_to_the_desk(callers: dict[str, Caller]) -> None:
    for who in ("user", "client", "viewer", "staff"):
        assert ("/admin/" in callers[who].browser.open("/devices/").links) is (who in MAY_LOOK), who

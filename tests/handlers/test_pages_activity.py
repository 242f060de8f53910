"""What happened on an account, in sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from sqlalchemy import update

from handlers.activity import MOST_ON_A_PAGE, SENTENCES
from handlers.pages import render_icon
from models.events import Cause, Type
from models.schema import EVENTS
from tests.conftest import House
from tests.handlers.browsers import Browser


@pytest.fixture
def browser(house: House) -> Iterator[Browser]:
    """A browser that nobody has signed in on."""
    opened = Browser(house)
    yield opened
    opened.close()


@pytest.mark.parametrize("kind", ["user", "client"])
def test_it_tells_sign_ins_ends_and_refusals(house: House, browser: Browser, kind: str) -> None:
    account = house.add(kind)
    browser.sign_in(account, password="not this one")
    browser.enter(account)
    other = house.enter(account, "Thing/1.0")
    browser.send("/devices/", f"/devices/{other.session}/end/")

    page = browser.open("/activity/").words

    for told in ("Account created.", "refused", "Thing", "You ended the session of", "127.0.0.1"):
        assert told in page
    assert page.index("You ended the session of") < page.index("refused") < page.index("Account created.")


def test_of_staff_who_did_something_an_account_learns_neither_who_nor_from_where_nor_why(
    house: House, browser: Browser
) -> None:
    account = house.add("user")
    browser.enter(account)
    mine, others = house.enter(account), house.enter(account)
    staff = house.enter(house.add("user", staff=True))
    assert house.ask("DELETE", f"/sessions/session-user-d/{others.session}/", staff).status_code == 204
    browser.send("/devices/", f"/devices/{mine.session}/end/")

    of_them = (EVENTS.c.type == "ended") & (EVENTS.c.session_id == others.session)
    house.write(lambda db: db.execute(update(EVENTS).where(of_them).values(reason="A neighbour said so.")))

    held = json.loads(browser.get("/account/download/").content)["events"]
    page = browser.open("/activity/")

    ends = [
        [event[name] for name in ("cause", "by_id", "ip", "country", "reason")]
        for event in held
        if event["type"] == "ended"
    ]
    assert ends == [["staff", None, None, None, None], ["owner", account.id, "127.0.0.1", "", None]]
    # Three sign-ins, and the end by the owner.
    assert page.words.count("127.0.0.1") == 4


def test_another_account_s_events_are_not_told(house: House, browser: Browser) -> None:
    house.enter(house.add("user"), "Strange/1.0")
    browser.enter(house.add("user"))

    assert "Strange" not in browser.open("/activity/").words


def test_a_long_history_is_told_page_by_page_each_event_once(house: House, browser: Browser) -> None:
    account = house.add("client")
    for _ in range(MOST_ON_A_PAGE):
        house.enter(account)
    browser.enter(account)

    seen: list[str] = []
    address: str | None = "/activity/"
    while address:
        html = browser.get(address).text
        seen += re.findall(r'id="event-(\d+)"', html)
        older = re.search(r'href="(/activity/\?before=\d+)"', html)
        address = older[1] if older else None

    assert len(seen) == len(set(seen)) == MOST_ON_A_PAGE + 2
    assert seen == sorted(seen, key=int, reverse=True)


@pytest.mark.parametrize("before", ["0", "-1", "x", "9" * 30, "٣", ""])
def test_a_page_of_nonsense_is_a_page(house: House, browser: Browser, before: str) -> None:
    browser.enter(house.add("user"))

    assert browser.get("/activity/", params={"before": before}).status_code == 200


def test_every_event_and_every_cause_has_its_sentence_and_its_icon() -> None:
    told = set(SENTENCES)
    # An emergency is of no account: the sessions that it ends are told one by one.
    assert {event.value for event in Type} - {Type.EMERGENCY.value} <= {type_ for type_, _ in told}
    assert {("ended", cause.value) for cause in Cause} <= told
    for picture, _, _ in SENTENCES.values():
        assert "<svg" in render_icon(picture)

"""The emergency: behind a word and the password, every session ends at once. Each on a house of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import Connection, select, update

from models import clock
from models.schema import CLIENT, CUTOFFS
from tests.conftest import PASSWORD, Device, House, open_house, start_server
from tests.handlers.desks import Staff, staff_at

ADDRESS = "/admin/emergency/"


@pytest.fixture(params=["sqlite", "postgresql"])
def lone_house(request: pytest.FixtureRequest, make_url: Callable[[str], str], tmp_path: Path) -> Iterator[House]:
    """A server that no other test shares."""
    url = make_url(request.param)
    server = start_server(tmp_path, url)
    with open_house(server, url) as opened:
        yield opened
    assert server.stop() == 0, server.log.read_text()


def is_in(house: House, device: Device) -> bool:
    """Whether a device is still signed in."""
    answer = house.ask("GET", f"/sessions/session-{device.account.kind}-l/", device)
    assert answer.status_code in (200, 403)
    return answer.status_code == 200


def send(staff: Staff, address: str, **fields: str) -> httpx.Response:
    """The answer to the form that ends what the page says, filled in."""
    form = next(form for form in staff.open(address).forms if "word" in form.fields)
    return staff.post(form.action, form.fields | {"word": "END", "password": PASSWORD} | fields)


def test_one_kind_then_everybody_is_signed_out_at_once(lone_house: House) -> None:
    house = lone_house
    user, client = (house.enter(house.add(kind)) for kind in ("user", "client"))
    with staff_at(house) as staff:
        shown = staff.open(f"{ADDRESS}?kind=client")
        assert "1 session ends: 1 client session." in shown.words
        assert send(staff, f"{ADDRESS}?kind=client", reason="a stolen laptop").status_code == 303

        assert not is_in(house, client)
        assert is_in(house, user)
        told = staff.open(ADDRESS).words
        assert "Reason: a stolen laptop" in told

        assert "Your own session is among them" in told
        answer = send(staff, ADDRESS)

        assert answer.headers["Location"] == f"/sign-in/?next={ADDRESS}"
        done = staff.open(answer.headers["Location"]).words
        assert re.search(r"\d+ sessions have ended.", done)
        assert not is_in(house, user)
        assert staff.get("/admin/").status_code == 303
        staff.sign_in(staff.account)
        assert staff.open("/admin/").words
        assert is_in(house, house.enter(client.account))


def test_only_what_was_started_before_a_time_ends(lone_house: House) -> None:
    house = lone_house
    client = house.enter(house.add("client"))
    with staff_at(house) as staff:
        address = f"{ADDRESS}?started_to=2020-01-01T00%3A00%3A00Z"
        shown = staff.open(address)
        assert "0 sessions end" in shown.words
        own = "Your own session is among them"
        assert own not in shown.words
        assert own in staff.open(f"{ADDRESS}?kind=user&started_to=2100-01-01T00%3A00%3A00Z").words
        assert own not in staff.open(f"{ADDRESS}?kind=client&started_to=2100-01-01T00%3A00%3A00Z").words
        with staff.client.stream("GET", "/admin/live/") as answer:
            lines = answer.iter_lines()
            assert next(lines)
            assert send(staff, address).status_code == 303
            # Whoever is still signed in comes again; it ends all the same, and at once.
            assert "event: over" not in list(lines)

        assert is_in(house, client)
        assert staff.get("/admin/").status_code == 200


def test_before_a_time_ends_what_is_older_and_no_cut_off_is_taken_back(lone_house: House) -> None:
    house, columns = lone_house, CLIENT.sessions.c
    account, at = house.add("client"), clock.now() - timedelta(hours=2)
    before, then, after = (house.enter(account) for _ in range(3))

    def age(db: Connection) -> None:
        for device, hours in ((before, -1), (then, 0), (after, 1)):
            old = update(CLIENT.sessions).where(columns.id == device.session)
            db.execute(old.values(created_at=at + timedelta(hours=hours)))

    def read(db: Connection) -> datetime | None:
        cut: datetime | None = db.scalar(select(CUTOFFS.c.at).where(CUTOFFS.c.kind == "client"))
        return cut

    house.write(age)
    with staff_at(house) as staff:
        address = f"{ADDRESS}?kind=client&started_to="
        assert send(staff, address + quote(clock.to_iso(at))).status_code == 303
        assert [is_in(house, device) for device in (before, then, after)] == [False, True, True]
        assert house.read(read) == at - clock.MICROSECOND
        # Who was signed out once is not let in by a cut-off of an earlier time.
        assert send(staff, address + quote(clock.to_iso(at - timedelta(days=1)))).status_code == 303
        assert house.read(read) == at - clock.MICROSECOND
        # A time ahead is now: who signs in after it is no session of the future.
        assert send(staff, address + "2100-01-01T00%3A00%3A00Z").status_code == 303
        assert house.read(read) <= clock.now()
        assert not any(is_in(house, device) for device in (then, after))
        assert is_in(house, house.enter(account))


def test_without_the_word_and_the_password_nothing_happens(house: House) -> None:
    client = house.enter(house.add("client"))
    with staff_at(house) as staff:
        for fields, field in (
            ({"word": "end it", "password": PASSWORD}, "word"),
            ({"word": "", "password": PASSWORD}, "word"),
            ({"word": "END", "password": "something else"}, "password"),
            ({"word": "END", "password": ""}, "password"),
            ({"word": "END", "password": PASSWORD, "reason": "\u202e"}, "reason"),
        ):
            answer = send(staff, ADDRESS, **fields)
            assert answer.status_code == 400
            assert f'id="{field}-error"' in answer.text
        bad = send(staff, ADDRESS, whose="somebody else's")
        assert bad.status_code == 409

    assert is_in(house, client)


@pytest.mark.parametrize("query", ["kind=x", "started_to=nonsense", "started_to=%00", "kind=%E2%80%AE"])
def test_what_cannot_be_read_is_told_at_its_field_and_no_button_is_shown(house: House, query: str) -> None:
    with staff_at(house) as staff:
        answer = staff.get(f"{ADDRESS}?{query}")

    assert answer.status_code == 400
    assert 'aria-invalid="true"' in answer.text
    assert 'name="word"' not in answer.text

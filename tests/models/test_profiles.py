"""What an account changes of itself, and what it takes home: only in a session that lives."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from models import clock, exports, profiles, sessions
from models.origins import Origin
from models.principals import Principal
from models.schema import KINDS
from models.settings import AccountSettings
from tests.conftest import KEY_SET, House
from tests.handlers.test_pages_register import new_phone

DAY = timedelta(days=1)


@pytest.fixture(params=KINDS)
def principal(house: House, request: pytest.FixtureRequest) -> Principal:
    """Somebody who signed in just now."""
    device = house.enter(house.add(request.param))
    return Principal(KINDS[request.param], device.account.id, device.session)


def tell(code: str, minutes: int) -> tuple[str, str]:
    """A code as a message."""
    return "a code", f"{code} is good for {minutes} minutes"


def ask(house: House, principal: Principal, phone: str, at: datetime) -> Any:
    """Whether a code is sent to a new phone."""
    settings = AccountSettings()
    return house.write(profiles.ask_contact, principal, "phone", phone, KEY_SET, settings, at, tell)


def test_an_ended_session_sends_no_code_and_takes_nothing_home(house: House, principal: Principal) -> None:
    now = clock.now()
    assert house.read(exports.gather, principal, now)
    assert house.write(sessions.end, principal, principal.kind, principal.session_id, Origin(), now)
    assert house.read(exports.gather, principal, now) is None
    assert not ask(house, principal, new_phone(), now)
    assert house.read(profiles.list_asked, principal, now) == {}


def test_a_clock_that_was_set_back_keeps_no_code_from_a_new_contact(house: House, principal: Principal) -> None:
    now = clock.now()
    assert ask(house, principal, new_phone(), now + DAY)
    assert ask(house, principal, new_phone(), now)
    assert not ask(house, principal, new_phone(), now)

"""Staff at the desk, for the tests of its pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta

from sqlalchemy import Connection, update

from models import clock
from models.schema import USER
from tests.conftest import Account, House
from tests.handlers.browsers import Browser


class Staff(Browser):
    """Somebody of the staff, signed in."""

    account: Account


@contextmanager
def staff_at(house: House) -> Iterator[Staff]:
    """A browser in which somebody of the staff is signed in."""
    with closing(Staff(house)) as browser:
        browser.account = house.add("user", staff=True)
        browser.enter(browser.account)
        yield browser


def age_password(db: Connection, account_id: int) -> None:
    """Let an hour pass since a user's password was given."""
    columns = USER.sessions.c
    at = clock.now() - timedelta(hours=1)
    db.execute(update(USER.sessions).where(columns.account_id == account_id).values(password_at=at))

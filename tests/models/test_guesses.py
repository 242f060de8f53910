"""Guesses: counted before they are tried, alike for accounts that there are and that there are not."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from models import clock, guesses, known_devices
from models.guesses import Guess, Purpose, TooMany, network_of
from models.keys import Key, KeySet
from models.origins import Origin
from models.schema import GUESSES, KINDS, Kind
from models.settings import GuessSettings
from tests.conftest import Account, House

KEYS = KeySet([Key("one", b"1" * 64, "HS256")])
SETTINGS = GuessSettings(
    tries=3, network_tries=5, sends=2, network_sends=3, first_wait_seconds=2, longest_wait_seconds=60
)
SECOND = timedelta(seconds=1)
NOW = clock.now()
DEVICE = "browser of its own"


class Guesser:
    """Somebody who tries, from networks of his own, what opens an account."""

    def __init__(self, house: House, kind: str) -> None:
        self.house = house
        self.kind: Kind = KINDS[kind]
        self.account: Account = house.add(kind)
        # A network that no other test is at.
        self.network = f"10.{self.account.id % 200}.{len(kind)}"

    def admit(
        self,
        at: datetime = NOW,
        *,
        contact: str | None = None,
        ip: str | None = None,
        device: str | None = None,
        purpose: Purpose = Purpose.PASSWORD,
    ) -> Guess:
        origin = Origin(ip or f"{self.network}.1", "Guesser/1")
        value = self.account.contact if contact is None else contact
        made: Guess = self.house.write(
            guesses.admit, KEYS, purpose, [self.kind], "phone", value, device, origin, SETTINGS, at
        )
        return made

    def fail(self, at: datetime = NOW, **more: Any) -> None:
        self.house.write(guesses.refuse, self.admit(at, **more), at)

    def wait(self, at: datetime = NOW, **more: Any) -> int:
        """How many seconds the next try would wait."""
        try:
            guess = self.admit(at, **more)
        except TooMany as error:
            return error.seconds
        self.house.write(guesses.release, guess)
        return 0

    def under_way(self) -> int:
        return int(self.house.read(lambda db: db.scalar(select(func.count()).select_from(GUESSES))))


@pytest.fixture(params=KINDS)
def guesser(house: House, request: pytest.FixtureRequest) -> Guesser:
    return Guesser(house, request.param)


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_a_network_is_an_ipv4_address_or_a_64_of_ipv6(ip: str, network: str) -> None:
    assert network_of(ip) == network


@pytest.mark.parametrize("is_there", [True, False])
def test_past_what_is_free_each_wait_is_twice_the_last_one_up_to_the_longest(guesser: Guesser, is_there: bool) -> None:
    contact = guesser.account.contact if is_there else guesser.account.contact + "0"
    at, waits = NOW, []
    for number in range(10):
        # From everywhere, so that it is the account that counts.
        guesser.fail(at, contact=contact, ip=f"2001:db8:{guesser.account.id:x}:{number:x}::1")
        waits.append(guesser.wait(at, contact=contact))
        at += waits[-1] * SECOND
    assert waits == [0, 0, 2, 4, 8, 16, 32, 60, 60, 60]
    assert guesser.wait(at + timedelta(hours=SETTINGS.forget_hours), contact=contact) == 0


def test_a_clock_that_was_set_back_makes_nobody_wait_longer(guesser: Guesser) -> None:
    for _ in range(3):
        guesser.fail(NOW + timedelta(hours=5))
    assert guesser.wait(NOW) == 0
    # Another server's clock may be a little ahead.
    for _ in range(3):
        guesser.fail(NOW + timedelta(seconds=30))
    assert guesser.wait(NOW) == 32
    assert guesser.wait(NOW + timedelta(seconds=32)) == 0


def test_a_network_waits_whatever_accounts_it_tries(guesser: Guesser) -> None:
    ip = f"{guesser.network}.9"
    for number in range(5):
        guesser.fail(contact=f"{guesser.account.contact}{number}", ip=ip)
    assert guesser.wait(ip=ip) == 2
    assert guesser.wait(ip=f"{guesser.network}.8") == 0


def test_a_device_that_the_account_knows_waits_for_no_stranger(guesser: Guesser) -> None:
    def start(db: Connection) -> None:
        known_devices.meet(db, guesser.kind, guesser.account.id, DEVICE, Origin(), NOW)

    assert guesser.wait(device=DEVICE) == 0
    guesser.house.write(start)
    for _ in range(3):
        guesser.fail()
    assert guesser.wait() > 0
    assert guesser.wait(device="another") > 0
    assert guesser.wait(device=DEVICE) == 0
    # It has a budget of its own, and no endless one.
    for _ in range(3):
        guesser.fail(device=DEVICE)
    assert guesser.wait(device=DEVICE) > 0


def test_a_device_that_was_trusted_waits_for_no_stranger_either(guesser: Guesser) -> None:
    for _ in range(2):
        guesser.house.write(known_devices.trust, guesser.kind, guesser.account.id, DEVICE, NOW)
    for _ in range(3):
        guesser.fail()
    assert guesser.wait(device=DEVICE) == 0


def test_what_is_sent_counts_apart_from_what_is_guessed(guesser: Guesser) -> None:
    for _ in range(3):
        guesser.fail()
    assert guesser.wait(purpose=Purpose.CODE) == 0
    for _ in range(2):
        guesser.fail(purpose=Purpose.SEND)
    assert guesser.wait(purpose=Purpose.SEND) == 2
    assert guesser.wait(purpose=Purpose.CODE) == 0


def test_of_many_guesses_at_once_no_more_than_the_free_ones_are_tried(guesser: Guesser) -> None:
    async def try_many() -> list[Any]:
        tries = (
            guesser.house.database.write(
                guesses.admit, KEYS, Purpose.PASSWORD, [guesser.kind], "phone", guesser.account.contact, None,
                Origin(f"2001:db8:{guesser.account.id:x}:{number:x}::1"), SETTINGS, NOW,
            )
            for number in range(20)
        )  # fmt: skip
        return await asyncio.gather(*tries, return_exceptions=True)

    tried = guesser.house.run(try_many())
    assert [type(one) for one in tried].count(Guess) == SETTINGS.tries
    assert [type(one) for one in tried].count(TooMany) == 20 - SETTINGS.tries


def test_a_guess_that_gives_nothing_was_wrong_and_is_in_the_log(guesser: Guesser) -> None:
    before = guesser.under_way()
    assert guesser.house.write(guesses.settle, guesser.admit(), NOW, lambda db: "right") == "right"
    assert guesser.under_way() == before
    for _ in range(3):
        assert guesser.house.write(guesses.settle, guesser.admit(), NOW, lambda db: None) is None
    assert guesser.under_way() == before
    assert guesser.wait() == 2


def test_a_guess_whose_server_died_counts_as_wrong_until_it_is_forgotten(guesser: Guesser) -> None:
    for _ in range(3):
        guesser.admit()
    assert guesser.wait() == 2
    later = NOW + SETTINGS.forget
    guesser.house.write(guesses.sweep, SETTINGS, later - SECOND)
    assert guesser.wait() == 2
    guesser.house.write(guesses.sweep, SETTINGS, later)
    assert guesser.wait() == 0

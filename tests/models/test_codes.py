"""Six-digit codes: single use, short-lived, few tries, kept as keyed hashes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select

from models import clock, codes
from models.keys import Key, KeySet
from models.schema import CODES, KINDS, Kind
from models.settings import AccountSettings
from tests.conftest import House

KEYS = KeySet([Key("one", b"1" * 64, "HS256")])
SETTINGS = AccountSettings()
SECOND = timedelta(seconds=1)
PURPOSE = "confirm phone"
NOW = clock.now()


class Owner:
    """An account that codes are made for, and its code as the database has it."""

    def __init__(self, house: House, kind: str) -> None:
        self.house = house
        self.kind: Kind = KINDS[kind]
        self.id = house.add(kind, confirmed=False).id

    def make(self, at: datetime = NOW, keys: KeySet = KEYS, purpose: str = PURPOSE) -> Any:
        return self.house.write(codes.make, keys, self.kind, self.id, purpose, SETTINGS, at)

    def use(self, code: str, at: datetime = NOW, keys: KeySet = KEYS, purpose: str = PURPOSE) -> Any:
        return self.house.write(codes.use, keys, self.kind, self.id, purpose, code, at)

    def rows(self) -> Any:
        def read(db: Connection) -> Any:
            mine = (CODES.c.kind == self.kind.name) & (CODES.c.account_id == self.id)
            return db.execute(select(CODES).where(mine)).mappings().all()

        return self.house.read(read)


@pytest.fixture(params=KINDS)
def owner(house: House, request: pytest.FixtureRequest) -> Owner:
    return Owner(house, request.param)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


def test_a_code_is_good_once(owner: Owner) -> None:
    code = owner.make()
    assert re.fullmatch("[0-9]{6}", code)
    assert owner.use(code)
    assert not owner.use(code)
    assert not owner.rows()


def test_a_code_is_kept_as_a_hash_that_trying_all_does_not_undo(owner: Owner) -> None:
    code = owner.make()
    (row,) = owner.rows()
    assert code not in row["hash"]
    stranger = KeySet([Key("two", b"2" * 64, "HS256")])
    assert not stranger.is_fingerprint(row["hash"], PURPOSE, f"{owner.kind.name} {owner.id} {code}")


def test_a_code_is_good_until_its_time_is_over(owner: Owner) -> None:
    good_for = timedelta(minutes=SETTINGS.code_minutes)
    code = owner.make()
    assert not owner.use(code, NOW + good_for)
    assert owner.use(code, NOW + good_for - SECOND)


def test_a_code_is_void_after_so_many_wrong_tries(owner: Owner) -> None:
    code = owner.make()
    for _ in range(SETTINGS.code_attempts):
        assert not owner.use(wrong(code))
    assert not owner.use(code)


def test_the_last_try_counts(owner: Owner) -> None:
    code = owner.make()
    for _ in range(SETTINGS.code_attempts - 1):
        assert not owner.use(wrong(code))
    assert owner.use(code)


def test_a_code_is_for_one_account_and_one_purpose(owner: Owner) -> None:
    code = owner.make()
    other = Owner(owner.house, owner.kind.name)
    other.make()
    (mine,), (others,) = owner.rows(), other.rows()
    assert mine["hash"] != others["hash"]
    assert not owner.use(code, purpose="confirm email")
    assert owner.use(code)


def test_a_new_code_voids_the_last_but_does_not_come_at_once(owner: Owner) -> None:
    again = timedelta(seconds=SETTINGS.code_again_seconds)
    first = owner.make()
    assert owner.make(NOW + again - SECOND) is None
    second = owner.make(NOW + again)
    assert len(owner.rows()) == 1
    assert first == second or not owner.use(first, NOW + again)
    assert owner.use(second, NOW + again)


def test_a_clock_that_was_set_back_keeps_nobody_from_a_new_code(owner: Owner) -> None:
    assert owner.make(NOW + timedelta(days=1))
    assert owner.make()
    assert not owner.make(NOW + SECOND)


def test_a_new_code_after_the_tries_are_used_up_waits_all_the_same(owner: Owner) -> None:
    code = owner.make()
    for _ in range(SETTINGS.code_attempts):
        owner.use(wrong(code))
    assert owner.make(NOW + SECOND) is None


def test_a_code_outlives_the_key_that_made_it_while_that_checks(owner: Owner) -> None:
    code = owner.make()
    rotated = KeySet([Key("two", b"2" * 64, "HS256"), KEYS.signing])
    assert owner.use(code, keys=rotated)


@pytest.mark.parametrize("code", ["", " ", "0", "abcdef", "１２３４５６", "\0", "-00001", "1e5", "9" * 300])
def test_what_is_no_code_is_wrong(owner: Owner, code: str) -> None:
    owner.make()
    assert owner.use(code) is False

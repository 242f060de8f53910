"""Passwords: kept as Argon2id, and none that is easily guessed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from argon2 import extract_parameters

from models.passwords import LONGEST, MOST_JUDGED, MOST_WAITING, NOBODY, Busy, Passwords, WeakPassword

GOOD = "a quiet harbour at dusk"


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


def test_a_password_is_kept_as_argon2id_with_a_salt_of_its_own(passwords: Passwords) -> None:
    kept = passwords.hash_now(GOOD)
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert passwords.hash_now(GOOD) != kept


def test_a_password_is_right_by_each_of_its_characters(passwords: Passwords) -> None:
    async def check() -> None:
        kept = await passwords.hash(GOOD)
        assert await passwords.is_right(GOOD, kept)
        for wrong in (GOOD[:-1], GOOD + " ", GOOD.upper(), "", "\0", GOOD + "\0"):
            assert not await passwords.is_right(wrong, kept)

    asyncio.run(check())


def test_nobody_has_a_right_password(passwords: Passwords) -> None:
    async def check() -> None:
        for kept in (None, "", "not a hash", "$argon2id$v=19$broken"):
            assert not await passwords.is_right("nobody has this password", kept)

    asyncio.run(check())


def test_nobody_s_password_takes_as_long_to_check_as_anybody_s(passwords: Passwords) -> None:
    kept = extract_parameters(passwords.hash_now(GOOD))
    assert extract_parameters(NOBODY) == kept
    assert (kept.salt_len, kept.hash_len) == (16, 32)


def test_the_longest_password_is_right_as_a_whole(passwords: Passwords) -> None:
    longest = (GOOD * 20)[:LONGEST]

    async def check() -> None:
        kept = await passwords.hash(longest)
        assert await passwords.is_right(longest, kept)
        assert not await passwords.is_right(longest + "!", kept)

    asyncio.run(check())


@pytest.mark.parametrize("password", ["", "x", "Zq9!xT2", "пароль"])
def test_a_short_password_is_refused(passwords: Passwords, password: str) -> None:
    with pytest.raises(WeakPassword, match=r"^Use at least 8 characters\.$"):
        passwords.hash_now(password)


def test_how_short_is_a_setting() -> None:
    strict = Passwords(12)
    with pytest.raises(WeakPassword, match=r"^Use at least 12 characters\.$"):
        strict.hash_now("Zq9!xT2#pLm")
    assert strict.hash_now("Zq9!xT2#pLmw")
    strict.close()


def test_an_endless_password_is_refused(passwords: Passwords) -> None:
    with pytest.raises(WeakPassword, match=r"^Use at most 256 characters\.$"):
        passwords.hash_now(GOOD * 20)


@pytest.mark.parametrize(
    "password",
    ["password", "Password1", "P@ssw0rd", "12345678", "123456789", "qwertyuiop", "11111111", "aaaaaaaaaaaa", "iloveyou",
     "letmein1", "sunshine", "abcdefgh", "football1", "trustno1", "1qaz2wsx", "drowssap", "19840101", "baseball"],
)  # fmt: skip
def test_a_common_password_is_refused(passwords: Passwords, password: str) -> None:
    with pytest.raises(WeakPassword, match="too common or too easily guessed"):
        passwords.hash_now(password)


@pytest.mark.parametrize("password", [GOOD, "Zq9!xT2#", "тихая гавань в сумерках", "静かな港の夕暮れに"])
def test_a_rare_password_is_taken(passwords: Passwords, password: str) -> None:
    assert passwords.hash_now(password)


def test_a_weak_beginning_spoils_no_long_password(passwords: Passwords) -> None:
    assert passwords.hash_now("passwordpasswordpassword-X9k!vQ2#z81Lm-tr0ut")
    assert passwords.hash_now("X9k!vQ2#z81Lm-tr0ut-passwordpasswordpassword")


def test_what_everybody_knows_of_an_account_is_no_password_for_it(passwords: Passwords) -> None:
    assert passwords.hash_now("margaretha.oosterhuis")
    for personal in ("margaretha.oosterhuis@example.com", "margaretha.oosterhuis"):
        with pytest.raises(WeakPassword):
            passwords.hash_now(personal, personal, None, "")


@pytest.mark.long
def test_a_flood_of_checks_leaves_the_loop_free(passwords: Passwords) -> None:
    async def check() -> int:
        kept = await passwords.hash(GOOD)
        turns = 0
        checks = asyncio.gather(*(passwords.is_right(GOOD, kept) for _ in range(8)))
        while not checks.done():
            turns += 1
            await asyncio.sleep(0)
        assert all(await checks)
        return turns

    assert asyncio.run(check()) > 100


@pytest.mark.long
def test_so_many_wait_and_no_more_and_half_of_the_places_are_kept_for_who_is_known(passwords: Passwords) -> None:
    kept = passwords.hash_now(GOOD)

    async def check() -> list[object]:
        strangers = [passwords.is_right("wrong", kept) for _ in range(MOST_WAITING + 3)]
        known = [passwords.is_right(GOOD, kept, is_known=True) for _ in range(2)]
        return await asyncio.gather(*strangers, *known, return_exceptions=True)

    answers = asyncio.run(check())
    assert [type(one) for one in answers].count(Busy) == 3
    assert answers[-2:] == [True, True]
    assert asyncio.run(passwords.is_right(GOOD, kept))


def test_new_passwords_are_judged_apart_from_those_that_sign_in(passwords: Passwords) -> None:
    kept = passwords.hash_now(GOOD)

    async def check() -> list[object]:
        made = [passwords.hash(GOOD) for _ in range(MOST_JUDGED + 3)]
        return await asyncio.gather(*made, passwords.is_right(GOOD, kept), return_exceptions=True)

    *made, is_right = asyncio.run(check())
    assert [type(one) for one in made].count(Busy) == 3
    assert is_right is True

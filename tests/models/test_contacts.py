"""One way to write each contact, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.contacts import normalise_email, normalise_phone


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("user3@gmail.com", "user3@gmail.com"),
        ("User3@GMAIL.com", "user3@gmail.com"),
        ("o'neil+tag@example.com", "o'neil+tag@example.com"),
        ("иван@example.com", "иван@example.com"),
        ("ИВАН@example.com", "иван@example.com"),
        ("a@ПРИМЕР.рф", "a@пример.рф"),
        ("a@xn--e1afmkfd.xn--p1ai", "a@пример.рф"),
        ("e\u0301@example.com", "\u00e9@example.com"),
    ],
)
def test_an_address_is_written_one_way(text: str, email: str) -> None:
    assert normalise_email(text) == email
    assert normalise_email(email) == email


@pytest.mark.parametrize(
    "text",
    ["", "user", "@example.com", "user@", "user@@example.com", "a b@example.com", "a@b c.com", "a@exa_mple.com",
     "a@example.com\r\nBcc: b@example.com", "a\0@example.com", "\ud800@example.com", "Me <a@example.com>",
     "a@example.com,b@example.com", "a" * 300 + "@example.com", "a@" + "b" * 300 + ".com", "a@[127.0.0.1]",
     "=?utf-8?q?victim?=@example.com"],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_address_is_told_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as raised:
        normalise_email(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["+79137779135", "+7 (913) 777-91-35", " +7 913 7779135 ", "tel:+7-913-777-91-35", "\uff0b79137779135"]
)
def test_a_phone_is_written_one_way(text: str) -> None:
    assert normalise_phone(text) == "+79137779135"


def test_a_phone_without_a_plus_is_one_of_the_configured_country() -> None:
    assert normalise_phone("8 (913) 777-91-35", "RU") == "+79137779135"
    assert normalise_phone("+442083661177", "RU") == "+442083661177"
    with pytest.raises(ValueError, match=r"international form, such as \+79137779135"):
        normalise_phone("8 (913) 777-91-35")


@pytest.mark.parametrize(
    "text",
    ["", "+", "phone", "+7", "+7913777", "+791377791350000", "+000000000000", "79137779135", "+7913777\x009135",
     "\ud800", "+" + "7" * 300, "112", "+7 913 777 91 35 ext. 7; rm"],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_phone_is_told_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="Enter a phone number"):
        normalise_phone(text)


@settings(derandomize=True, deadline=None)
@given(st.text(st.characters(codec=None), max_size=200))
def test_no_text_does_more_than_be_a_contact_or_none(text: str) -> None:
    for normalise in (normalise_email, normalise_phone):
        try:
            contact = normalise(text)
        except ValueError:
            continue
        assert normalise(contact) == contact

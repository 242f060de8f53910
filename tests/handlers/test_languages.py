"""Both languages: chosen as wished, complete, and right in plurals, countries and times."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.frontend import CommandLineInterface
from babel.messages.pofile import read_po

from handlers import languages

ROOT = Path(__file__).parent.parent.parent
NOON = datetime(2021, 9, 8, 12, 22, 26, tzinfo=UTC)


@pytest.mark.parametrize(
    ("accepted", "wished", "code"),
    [
        ("", None, "en"),
        ("ru", None, "ru"),
        ("ru-RU,ru;q=0.9,en-US;q=0.8", None, "ru"),
        ("en;q=0.1,RU;q=0.2", None, "ru"),
        ("de,fr", None, "en"),
        ("ru;q=0", None, "en"),
        ("ru;q=nonsense,en", None, "en"),
        ("," * 5000, None, "en"),
        ("ru", "en", "en"),
        ("ru", "xx", "ru"),
    ],
)
def test_the_language_is_the_wished_or_the_best_accepted_one(accepted: str, wished: str | None, code: str) -> None:
    assert languages.choose(accepted, wished).code == code


def test_a_zone_is_one_that_there_is() -> None:
    assert languages.choose("", None, "Europe/Moscow").hour(NOON) == "15:22"
    for zone in ("../../etc/passwd", "Nowhere/Else", "", "/", "x" * 10_000):
        assert languages.choose("", None, zone).hour(NOON) == "12:22"


def test_times_and_countries_are_told_in_the_language() -> None:
    english, russian = languages.Language("en"), languages.choose("ru", None, "Asia/Kolkata")

    assert english.moment(NOON) == "8 September 2021, 12:22 UTC"
    assert russian.moment(NOON) == "8 сентября 2021\u202fг., 17:52 UTC+5:30"
    assert (english.country("DE"), russian.country("DE"), english.country("")) == ("Germany", "Германия", "")


@pytest.mark.parametrize(
    ("browser", "os", "sent", "told"),
    [
        ("Chrome", "Windows", "Mozilla/5.0 (Windows NT 10.0)", "Chrome on Windows"),
        ("McDonald's", "iOS", "", "McDonald's on iOS"),
        ("", "", "(https://evil.example/x\u202e now", "(https evil.example x"),
        ("https://evil.example/x 1.0", "", "", "https evil.example x 1.0"),
        ("", "", "/" * 9, "Unknown device"),
        ("", "", "(" + "x" * 500, "(" + "x" * 39),
        ("", "", "", "Unknown device"),
    ],
)
def test_a_device_is_told_as_plain_text_without_an_address(browser: str, os: str, sent: str, told: str) -> None:
    device = languages.Language("en").device(browser, os, sent)
    assert (device, type(device)) == (told, str)


@pytest.mark.parametrize(
    ("passed", "told"),
    [
        (timedelta(hours=12), "today"),
        (timedelta(hours=13), "yesterday"),
        (timedelta(days=3), "5 September"),
        (timedelta(days=300), "12 November 2020"),
    ],
)
def test_a_day_is_told_as_far_as_it_has_to_be(passed: timedelta, told: str) -> None:
    assert languages.Language("en").near_day(NOON - passed, NOON) == told


@pytest.mark.parametrize(
    ("passed", "english", "russian"),
    [
        (timedelta(), "1 minute ago", "1 минуту назад"),
        (timedelta(minutes=3, seconds=50), "3 minutes ago", "3 минуты назад"),
        (timedelta(hours=3), "3 hours ago", "3 часа назад"),
        (timedelta(hours=47), "1 day ago", "1 день назад"),
        (timedelta(days=13), "1 week ago", "1 неделю назад"),
        (timedelta(days=364), "12 months ago", "12 месяцев назад"),
        (timedelta(days=800), "2 years ago", "2 года назад"),
        (-timedelta(hours=1), "1 minute ago", "1 минуту назад"),
    ],
)
def test_a_time_ago_counts_whole_units(passed: timedelta, english: str, russian: str) -> None:
    assert languages.Language("en").ago(NOON - passed, NOON) == english
    assert languages.Language("ru").ago(NOON - passed, NOON) == russian


@pytest.mark.parametrize(
    ("seconds", "english", "russian"),
    [
        (1, "in 1 second", "через 1 секунду"),
        (90, "in 90 seconds", "через 90 секунд"),
        (121, "in 3 minutes", "через 3 минуты"),
        (3601, "in 61 minutes", "через 61 минуту"),
        (7201, "in 3 hours", "через 3 часа"),
    ],
)
def test_a_wait_is_told_no_shorter_than_it_is(seconds: int, english: str, russian: str) -> None:
    assert languages.Language("en").wait(timedelta(seconds=seconds)) == english
    assert languages.Language("ru").wait(timedelta(seconds=seconds)) == russian


@pytest.mark.parametrize(("count", "told"), [(1, "1 другое"), (3, "3 других устройства"), (11, "11 других устройств")])
def test_russian_plurals_are_right(count: int, told: str) -> None:
    assert languages.Language("ru").ngettext("{count} other device", "{count} other devices", count).startswith(told)


def test_what_fills_a_text_is_escaped() -> None:
    assert "&lt;b&gt;" in languages.Language("ru").gettext("Ended: {device} is signed out.", device="<b>")


def read(path: Path) -> Catalog:
    """The texts of a catalogue."""
    return read_po(BytesIO(path.read_bytes()))


@pytest.mark.parametrize("code", sorted(languages.LOCALES))
def test_the_catalogues_hold_every_text_of_the_pages(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails after a text was changed: run `make text`, then translate what is empty in locale/."""
    monkeypatch.chdir(ROOT)
    found = tmp_path / "found.pot"
    command = ["pybabel", "-q", "extract", "-F", "babel.cfg", "-k", "N_", "-k", "NN_:1,2", "-o", str(found), "."]
    CommandLineInterface().run(command)  # type: ignore[no-untyped-call]
    catalogue = read(ROOT / "locale" / code / "LC_MESSAGES" / "messages.po")

    assert {message.id for message in read(found)} == {message.id for message in catalogue}


def test_every_text_is_translated_with_the_same_places_in_it() -> None:
    for message in read(ROOT / "locale" / "ru" / "LC_MESSAGES" / "messages.po"):
        if not message.id:
            continue
        originals = message.id if isinstance(message.id, tuple | list) else [message.id]
        translated = message.string if isinstance(message.string, tuple | list) else [message.string]
        assert all(translated), f"not translated: {message.id}"
        assert not message.fuzzy
        for text in translated:
            assert set(re.findall(r"{\w+}", text or "")) == set(re.findall(r"{\w+}", originals[-1])), message.id


def test_no_text_in_russian_says_what_the_english_does_not() -> None:
    russian = languages.Language("ru")
    assert "не обращайте внимания" in russian.plain("If you know nothing of it, ignore this message.")
    asked = russian.plain(
        "If {contact} waits for a code, one is on its way, unless it was sent a moment ago.", contact="ada@example.com"
    )
    assert asked == "Если контакт ada@example.com ждёт подтверждения, код отправлен сейчас или только что."
    ending = "Each of these devices is signed out, and has to sign in again. This can't be undone."
    assert russian.plain(ending).startswith("На каждом из этих устройств будет выполнен выход")

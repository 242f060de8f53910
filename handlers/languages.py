"""The languages of the pages: which one a person reads, and how it tells texts, times and countries."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from babel import Locale, dates, numbers, units
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations
from markupsafe import Markup, escape

from models.places import Places
from models.schema import Row

FOLDER = Path(__file__).parent.parent / "locale"
# English with days before months and 24 hours, as most of the world reads it.
LOCALES = {"en": Locale("en", "GB"), "ru": Locale("ru")}
NAMES = {"en": "English", "ru": "Русский"}
DEFAULT = "en"

LONGEST_DEVICE = 40
# They show by what they do to their neighbours: Persian is written with the one, families of emoji with the other.
JOINERS = "\u200c\u200d"
_NO_ADDRESS = str.maketrans("/:", "  ")


def N_(text: str) -> str:  # noqa: N802 - gettext's name for it
    """`text`, marked for the catalogues."""
    return text


def NN_(one: str, many: str) -> tuple[str, str]:  # noqa: N802
    """A text that counts, marked for the catalogues."""
    return one, many


UNITS = [
    timedelta(days=365),
    timedelta(days=30),
    timedelta(weeks=1),
    timedelta(days=1),
    timedelta(hours=1),
    timedelta(minutes=1),
]


@dataclass(frozen=True, slots=True)
class Language:
    """One of LOCALES, with the time zone that its reader lives in."""

    code: str
    zone: tzinfo = UTC

    @property
    def locale(self) -> Locale:
        """Babel's rules of the language."""
        return LOCALES[self.code]

    def gettext(self, text: str, **values: object) -> Markup:
        """A text in this language, as `_` in templates; the `values` that it has {places} for are escaped."""
        told = _tell(self.code, text)
        return _fill(told, values) if values else told

    def plain(self, text: str, **values: object) -> str:
        """The same for what is no page, such as a letter: nothing in it is escaped."""
        return str(_tell(self.code, text)).format(**values)

    def ngettext(self, one: str, many: str, count: int, **values: object) -> Markup:
        """A text that counts: {count} in it is the number."""
        return _fill(_load(self.code).ngettext(one, many, count), {"count": count, **values})

    def country(self, code: str) -> str:
        """The name of a country; what is no country's code comes back as it is."""
        return self.locale.territories.get(code) or code

    def place(self, row: Row, places: Places) -> str:
        """Amsterdam, Netherlands: where a session was started, as far as that is known."""
        city = places.name_city(row["ip"], row["city"], self.code)
        return ", ".join(filter(None, (city, self.country(row["country"]))))

    def device(self, browser: str, os: str, sent: str) -> str:
        """Chrome on Windows; what says neither goes by the first word that it sent. Never an address to click."""
        # Whoever signs in writes all three himself, and they stand in a letter to somebody else.
        browser, os, word = (
            clean_name(one.translate(_NO_ADDRESS))[:LONGEST_DEVICE].rstrip()
            for one in (browser, os, "" if browser or os else next(iter(sent.split()), ""))
        )
        if browser and os:
            return self.plain(N_("{browser} on {os}"), browser=browser, os=os)
        return browser or os or word or self.plain(N_("Unknown device"))

    def day(self, at: datetime) -> str:
        """8 September 2021."""
        return _tell_day(self.code, at.astimezone(self.zone).date())

    def near_day(self, at: datetime, now: datetime) -> str:
        """today, yesterday, 8 September, 8 September 2021: as much as has to be said now."""
        then, today = at.astimezone(self.zone).date(), now.astimezone(self.zone).date()
        if then == today:
            return self.gettext(N_("today"))
        if then == today - timedelta(days=1):
            return self.gettext(N_("yesterday"))
        return dates.format_skeleton("MMMMd", then, locale=self.locale) if then.year == today.year else self.day(at)

    def short_day(self, at: datetime) -> str:
        """8 Sept."""
        return dates.format_skeleton("MMMd", at.astimezone(self.zone), locale=self.locale)

    def span(self, span: timedelta) -> str:
        """7 days, 12 hours, 30 minutes: in the largest unit that leaves nothing over."""
        names = (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1)))
        name, unit = next(((name, unit) for name, unit in names if not span % unit), names[-1])
        return units.format_unit(span // unit, f"duration-{name}", locale=self.locale)

    def number(self, count: int) -> str:
        """12,345."""
        return numbers.format_decimal(count, locale=self.locale)

    def percent(self, share: float) -> str:
        """12 %, of a share of one."""
        return numbers.format_percent(share, locale=self.locale)

    def hour(self, at: datetime) -> str:
        """12:22."""
        local = at.astimezone(self.zone)
        return _tell_hour(self.code, local.hour, local.minute)

    def moment(self, at: datetime) -> str:
        """8 September 2021, 12:22 UTC+3: exact, for whoever doubts."""
        local = at.astimezone(self.zone)
        return f"{self.day(local)}, {self.hour(local)} {_tell_offset(local.utcoffset() or timedelta())}"

    def ago(self, at: datetime, now: datetime) -> str:
        """3 hours ago; whole units only, as times.js counts them."""
        passed = max(now - at, UNITS[-1])
        unit = next(unit for unit in UNITS if passed >= unit)
        return _tell_ago(self.code, passed // unit * unit)

    def wait(self, time: timedelta) -> str:
        """in 3 minutes: never less than it is."""
        unit = next((unit for unit in UNITS[-3:] if time > 2 * unit), timedelta(seconds=1))
        return dates.format_timedelta(-(-time // unit) * unit, threshold=2, add_direction=True, locale=self.locale)


def clean_name(typed: str) -> str:
    """A name without what does not show: controls, marks that turn the text's direction, spaces around."""
    shown = "".join(" " if character.isspace() else character for character in typed)
    kept = "".join(one for one in shown if one in JOINERS or unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Co"))
    return " ".join(kept.split()) if kept.strip(JOINERS + " ") else ""


def choose(accepted: str, wished: str | None = None, zone: str | None = None) -> Language:
    """The language that was wished for, or the first of `accepted` (an Accept-Language) that is here."""
    code = wished if wished in LOCALES else _negotiate(accepted)
    return Language(code, _find_zone(zone) if zone else UTC)


def _negotiate(accepted: str) -> str:
    weighed: list[tuple[float, str]] = []
    for part in accepted[:1000].split(","):
        tag, _, weight = part.partition(";")
        try:
            q = float(weight.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        weighed.append((q, tag.strip().lower().partition("-")[0]))
    # Sorting is stable: of equals the first stays first.
    for q, code in sorted(weighed, key=lambda one: -one[0]):
        if code in LOCALES and q > 0:
            return code
    return DEFAULT


def _find_zone(name: str) -> tzinfo:
    return ZoneInfo(name) if name in _zones() else UTC


@cache
def _zones() -> frozenset[str]:
    # Reads the disk: once. Never a ZoneInfo of a name that is not in here, which is a path.
    return frozenset(available_timezones())


def _fill(told: str, values: dict[str, object]) -> Markup:
    """A text of our own catalogue with its {places} filled, each value escaped."""
    # Markup.format reads the text by string.Formatter, which is written in Python: a page of the log would wait for it.
    return Markup(str(told).format(**{name: escape(value) for name, value in values.items()}))  # noqa: S704


# A page of a list tells some hundred times, and most of them again and again.


@lru_cache(maxsize=2048)
def _tell(code: str, text: str) -> Markup:
    return Markup(_load(code).gettext(text))  # noqa: S704 - our own catalogue


@lru_cache(maxsize=2048)
def _tell_day(code: str, day: date) -> str:
    return dates.format_date(day, "long", LOCALES[code])


@lru_cache(maxsize=2 * 24 * 60)
def _tell_hour(code: str, hour: int, minute: int) -> str:
    return dates.format_time(time(hour, minute), "short", locale=LOCALES[code])


@lru_cache(maxsize=1024)
def _tell_offset(offset: timedelta) -> str:
    """UTC+3."""
    hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
    sign = "-" if offset < timedelta() else "+"
    return f"UTC{sign}{hours}" + (f":{minutes:02}" if minutes else "") if offset else "UTC"


@lru_cache(maxsize=1024)
def _tell_ago(code: str, passed: timedelta) -> str:
    return dates.format_timedelta(-passed, threshold=1, add_direction=True, locale=LOCALES[code])


def load() -> None:
    """Have the texts of every language there."""
    for code in NAMES:
        _load(code)


@cache
def _load(code: str) -> NullTranslations:
    """The texts of a language, straight from its catalogue: nothing is compiled beforehand."""
    with (FOLDER / code / "LC_MESSAGES" / "messages.po").open("rb") as file:
        catalogue = read_po(file, code)
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Translations(compiled)

"""The languages of the pages: which one a person reads, and how it tells texts, times and countries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from io import BytesIO
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from babel import Locale, dates
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations

FOLDER = Path(__file__).parent.parent / "locale"
# English with days before months and 24 hours, as most of the world reads it.
LOCALES = {"en": Locale("en", "GB"), "ru": Locale("ru")}
NAMES = {"en": "English", "ru": "Русский"}
DEFAULT = "en"

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

    @property
    def gettext(self) -> Callable[[str], str]:
        """The translation of a text."""
        return _load(self.code).gettext

    @property
    def ngettext(self) -> Callable[[str, str, int], str]:
        """The translation of a text that counts."""
        return _load(self.code).ngettext

    def country(self, code: str) -> str:
        """The name of a country; what is no country's code comes back as it is."""
        return self.locale.territories.get(code) or code

    def day(self, at: datetime) -> str:
        """8 September 2021."""
        return dates.format_date(at.astimezone(self.zone), "long", self.locale)

    def month(self, at: datetime) -> str:
        """September 2021."""
        return dates.format_skeleton("yMMMM", at, self.zone, locale=self.locale)

    def hour(self, at: datetime) -> str:
        """12:22."""
        return dates.format_time(at, "short", self.zone, self.locale)

    def moment(self, at: datetime) -> str:
        """8 September 2021 at 12:22 UTC: exact, for whoever doubts."""
        exact = dates.format_datetime(at, "long", self.zone, self.locale)
        clock = dates.format_time(at, "long", self.zone, self.locale)
        return exact.replace(clock, f"{self.hour(at)} {self.zone_name(at)}")

    def zone_name(self, at: datetime) -> str:
        """The zone as people write it: UTC, GMT+3."""
        return "UTC" if self.zone is UTC else dates.get_timezone_gmt(at.astimezone(self.zone), "short", self.locale)

    def ago(self, at: datetime, now: datetime) -> str:
        """3 hours ago; whole units only, as times.js counts them."""
        passed = max(now - at, UNITS[-1])
        unit = next(unit for unit in UNITS if passed >= unit)
        return dates.format_timedelta(passed // unit * -unit, threshold=1, add_direction=True, locale=self.locale)


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


@cache
def _load(code: str) -> NullTranslations:
    """The texts of a language, straight from its catalogue: nothing is compiled beforehand."""
    with (FOLDER / code / "LC_MESSAGES" / "messages.po").open("rb") as file:
        catalogue = read_po(file, code)
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return Translations(compiled)

"""IP address → country and, where the operator has a city database, city. Both are approximate."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import iptocc
import maxminddb

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Place:
    """An ISO 3166-1 alpha-2 code and a city's English name, each empty where it is not known."""

    country: str = ""
    city: str = ""


NOWHERE = Place()


class Places:
    """Finds the place of an address; nothing leaves the machine.

    The city database is an .mmdb file laid out as GeoLite2 City or DB-IP City. It stays mapped into memory:
    put a newer one in its place by renaming, never by writing into it, and restart.
    """

    def __init__(self, city_database: Path | None = None) -> None:
        """Open the city database; raises ValueError, with a sentence, where it can't be read."""
        self._cities = None if city_database is None else _open(city_database)

    def locate(self, ip: str) -> Place:
        """The place of `ip`, nowhere for a private address or what is none; never raises."""
        address = _parse(ip)
        if address is None:
            return NOWHERE
        record = self._find(address)
        country, city = _read(record, "country", "iso_code"), _read(record, "city", "names", "en")
        # Where an address is used comes before whom it was given to: "Amsterdam, US" helps nobody.
        return Place(country or _find_country(address), city)

    def name_city(self, ip: str, city: str, language: str) -> str:
        """`city`, which was found for `ip`, in a language; as it is where the city database has no such name."""
        record = self._find(_parse(ip)) if city else None
        # Another database may have been put in place since.
        is_same = _read(record, "city", "names", "en") == city
        return (_read(record, "city", "names", language) if is_same else "") or city

    def close(self) -> None:
        """Let the city database go; countries are still found."""
        if self._cities is not None:
            self._cities.close()
            self._cities = None

    def _find(self, address: Address | None) -> object:
        """What the city database holds on an address."""
        if self._cities is None or address is None:
            return None
        try:
            return self._cities.get(address)
        except (ValueError, TypeError, maxminddb.InvalidDatabaseError):
            return None  # IPv6 in a database of IPv4, or damaged inside


@lru_cache(maxsize=4096)
def _parse(ip: str) -> Address | None:
    """An address of the Internet; None for a private one, or what is none."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return None
    address = (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address
    return address if address.is_global else None


def _open(path: Path) -> maxminddb.Reader:
    try:
        return maxminddb.open_database(path)
    except OSError as error:
        raise ValueError(f"The city database {path} can't be read: {error.strerror or error}.") from None
    except (ValueError, TypeError, maxminddb.InvalidDatabaseError):
        raise ValueError(f"The city database {path} is damaged or is no MaxMind DB file.") from None


def _read(record: object, *keys: str) -> str:
    """The text at the end of `keys`, empty where the record is laid out otherwise."""
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record if isinstance(record, str) else ""


def _find_country(address: Address) -> str:
    code = iptocc.country_code(str(address)) or ""
    return "" if code == "EU" else code  # the registries give some addresses to Europe, which is no country

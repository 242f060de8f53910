"""Where a request comes from: its address, its device, its place."""

from __future__ import annotations

from dataclasses import dataclass, replace

from models.devices import describe
from models.places import Places

LONGEST_DEVICE = 512


@dataclass(frozen=True, slots=True)
class Origin:
    """What is kept of a request that starts or ends a session; of one that starts, its device described.

    Named as the columns of a session.
    """

    ip: str = ""
    device: str = ""
    country: str = ""
    city: str = ""
    browser: str = ""
    os: str = ""
    device_kind: str = "unknown"

    def values(self) -> dict[str, str]:
        """By column."""
        return {name: getattr(self, name) for name in self.__slots__}

    def described(self) -> Origin:
        """The same with its device described; may take 0.1 s the first time."""
        device = describe(self.device)
        return replace(self, browser=device.browser, os=device.os, device_kind=device.kind)


def cut_device(user_agent: str) -> str:
    """The User-Agent as sessions keep it: as sent, without NUL, at most 512 characters."""
    return user_agent.replace("\0", "")[:LONGEST_DEVICE]


def make_origin(ip: str, user_agent: str, places: Places) -> Origin:
    """Find the place; never raises."""
    place = places.locate(ip)
    return Origin(ip, cut_device(user_agent), place.country, place.city)

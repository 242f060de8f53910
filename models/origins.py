"""Where a request comes from: its address, its device, its place."""

from __future__ import annotations

from dataclasses import dataclass

from models.devices import describe
from models.places import Places

LONGEST_DEVICE = 512


@dataclass(frozen=True, slots=True)
class Origin:
    """What is kept of a request that starts or ends a session."""

    ip: str = ""
    device: str = ""
    browser: str = ""
    os: str = ""
    device_kind: str = "unknown"
    country: str = ""
    city: str = ""


def cut_device(user_agent: str) -> str:
    """The User-Agent as sessions keep it: as sent, without NUL, at most 512 characters."""
    return user_agent.replace("\0", "")[:LONGEST_DEVICE]


def make_origin(ip: str, user_agent: str, places: Places) -> Origin:
    """Describe the device and find the place; never raises."""
    device, place = describe(user_agent), places.locate(ip)
    return Origin(
        ip=ip,
        device=cut_device(user_agent),
        browser=device.browser,
        os=device.os,
        device_kind=device.kind,
        country=place.country,
        city=place.city,
    )

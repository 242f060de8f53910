"""The pictures that the README shows, taken of a running server: python -m tests.browser.screenshots FOLDER."""

from __future__ import annotations

import sys
import tempfile
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import Connection, update

from models import accounts, clock, demo, events, sessions
from models.events import Type
from models.origins import Origin
from models.passwords import Passwords
from models.places import Places
from models.schema import USER
from models.settings import SessionSettings
from tests.browser.conftest import CHROMIUM, run_site
from tests.conftest import NO_TLS, PASSWORD, House, password_hash

WINDOWS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"  # fmt: skip  # noqa: E501
IPAD = "Mozilla/5.0 (iPad; CPU OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"  # noqa: E501
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15"  # noqa: E501
LINUX = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"

# What each device calls itself, where it is, its name, its novelty, how many days ago it signed in and how many
# hours ago it was seen.
DEVICES = [
    ("PostmanRuntime/7.28.3", "203.0.113.99", "NL", "", "", 24.2, 214.0),
    (MAC, "192.0.2.61", "DE", "Work laptop", "", 61.4, 26.0),
    (IPAD, "198.51.100.7", "DE", "", "", 90.3, 3.0),
    (IPHONE, "198.51.100.7", "DE", "Anna's iPhone", "", 210.1, 0.01),
    (LINUX, "2001:db8:4f2:91::1c", "BR", "", "device", 0.03, 0.5),
]

# Name, address, width, height, color scheme, language.
Picture = tuple[str, str, int, int, str, str]
DESK: list[Picture] = [
    ("desk", "/admin/?span=month", 1440, 900, "light", "en"),
    ("desk-sessions", "/admin/sessions/?device_kind=phone&country=GB", 1440, 900, "light", "en"),
    ("desk-account-dark", "/admin/accounts/user/5/", 1440, 900, "dark", "en"),
    ("desk-phone", "/admin/", 390, 844, "light", "ru"),
]
PICTURES: list[Picture] = [
    ("devices", "/devices/", 1280, 860, "light", "en"),
    ("devices-dark", "/devices/", 1280, 860, "dark", "en"),
    ("devices-phone", "/devices/", 390, 844, "light", "en"),
    ("devices-phone-dark", "/devices/", 390, 844, "dark", "ru"),
    ("device", "/devices/{id}/", 1280, 860, "light", "en"),
    ("activity", "/activity/", 1280, 860, "light", "en"),
    ("sign-in", "/sign-in/", 1280, 860, "light", "en"),
]


def fill(house: House) -> tuple[str, int]:
    """An account with a past and devices; its phone, and the session that a picture is taken of."""
    now, settings = clock.now(), SessionSettings()
    phone = "+4915112345678"
    fields = {"name": "Anna", "surname": "Lindholm", "phone": phone, "confirmed_by_staff_at": now}
    account = house.write(accounts.create, USER, fields, password_hash(), None, now - timedelta(days=300))
    chosen = 0
    for agent, ip, country, name, novelty, days, hours in sorted(DEVICES, key=lambda device: -device[5]):
        origin = Origin(ip, agent, country).described()
        at = now - timedelta(days=days)
        started = house.write(sessions.start, USER, account["id"], password_hash(), None, origin, settings, at)
        values = {
            "name": name or None,
            "novelty": novelty,
            "last_seen_at": now - timedelta(hours=hours),
            "expires_at": now + timedelta(days=30),
        }
        house.write(_change, started.session["id"], values)
        chosen = started.session["id"] if agent == IPHONE else chosen
    stranger = Origin("198.51.100.200", LINUX, "VN").described()
    at = now - timedelta(minutes=50)
    refused = events.make(USER, account["id"], Type.REFUSED, at, device=stranger.device, origin=stranger)
    house.write(events.append, refused)
    return phone, chosen


def _change(db: Connection, session_id: int, values: dict[str, Any]) -> None:
    db.execute(update(USER.sessions).where(USER.sessions.c.id == session_id).values(values))


def take(
    browser: Browser, house: House, pictures: list[Picture], identity: str, password: str, folder: Path, **names: int
) -> None:
    """Take pictures, as whoever is known by `identity`; `names` fill their addresses."""
    with httpx.Client(base_url=house.address, headers={"User-Agent": WINDOWS}, verify=NO_TLS) as client:
        client.post("/sign-in/", data={"identity": identity, "password": password})
        cookies = dict(client.cookies)
    house.write(_change_here, {"ip": "198.51.100.7", "country": "DE", "novelty": ""})
    for name, address, width, height, scheme, language in pictures:
        context = browser.new_context(
            base_url=house.address,
            viewport={"width": width, "height": height},
            color_scheme="dark" if scheme == "dark" else "light",
            locale=language,
            user_agent=WINDOWS,
            device_scale_factor=2 if width < 500 else 1,
            timezone_id="Europe/Berlin",
        )
        context.add_cookies([{"name": "zone", "value": "Europe/Berlin", "url": house.address}])
        if name != "sign-in":
            for cookie, value in cookies.items():
                context.add_cookies([{"name": cookie, "value": value, "url": house.address}])
        page = context.new_page()
        page.goto(address.format(**names))
        page.evaluate("document.fonts.ready")
        Image.open(BytesIO(page.screenshot())).convert("RGB").save(folder / f"{name}.png", optimize=True)
        context.close()


def _change_here(db: Connection, values: dict[str, Any]) -> None:
    db.execute(update(USER.sessions).where(USER.sessions.c.ip == "127.0.0.1").values(values))


def main(folder: Path) -> None:
    """Start servers, fill them, take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with run_site(Path(scratch, "people")) as house:
            phone, session_id = fill(house)
            take(browser, house, PICTURES, phone, PASSWORD, folder, id=session_id)
        with run_site(Path(scratch, "desk")) as house:
            house.run(demo.fill(house.database, Passwords(), Places(), house.address))
            take(browser, house, DESK, "staff@example.com", demo.PASSWORD, folder)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

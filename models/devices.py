"""User-Agent → what a person calls the device: its browser, its system, its kind."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal
from urllib.parse import unquote

from ua_parser import Domain, load_lazy_builtins
from ua_parser.regex import Resolver

DeviceKind = Literal["phone", "tablet", "computer", "program", "unknown"]

LONGEST_PARSED = 512
LONGEST_NAME = 40


@cache
def _resolver() -> Resolver:
    """The parser: 0.1 s and 35 MB, which a worker spends when somebody first signs in to it or opens a page.

    Without the [regex] extra the import fails, and should: the parser in Python takes a millisecond a call.
    """
    return Resolver(load_lazy_builtins())


# Families that name the engine or the library and not what a person opened.
_ENGINE_FAMILIES = frozenset(
    {"", "Android", "Chrome Mobile WebView", "Electron", "Mobile Safari UI/WKWebView", "NetFront NX"}
)
_ENGINE = re.compile(
    "AppleWebKit|Chrome|Electron|Firefox|Gecko|Mobile|Mozilla|NF|Opera|Presto|QtWebEngine|Safari|Version",
    re.IGNORECASE,
)

_BROWSERS = {
    "Amazon Silk": "Silk",
    "BlackBerry WebKit": "BlackBerry Browser",
    "Chrome Mobile": "Chrome",
    "Chrome Mobile iOS": "Chrome",
    "Dalvik": "",
    "DuckDuckGo Mobile": "DuckDuckGo",
    "Ecosia Android": "Ecosia",
    "Ecosia iOS": "Ecosia",
    "Edge Mobile": "Edge",
    "Epiphany": "GNOME Web",
    "Facebook Messenger": "Messenger",
    "Firefox Alpha": "Firefox",
    "Firefox Beta": "Firefox",
    "Firefox Mobile": "Firefox",
    "Firefox iOS": "Firefox",
    "HeadlessChrome": "Headless Chrome",
    "IE": "Internet Explorer",
    "IE Large Screen": "Internet Explorer",
    "IE Mobile": "Internet Explorer",
    "MiuiBrowser": "Mi Browser",
    "Mobile Safari": "Safari",
    "Opera Mobile": "Opera",
    "Opera Touch": "Opera",
    "QQ Browser Mobile": "QQ Browser",
    "Slack Desktop Client": "Slack",
    "WeChat Browser": "WeChat",
    "WindowsPowerShell": "PowerShell",
    "python-requests": "Python Requests",
}
_SYSTEMS = {
    "ATV OS X": "tvOS",
    "Chromecast Android": "Chromecast",
    "Chromecast Fuchsia": "Chromecast",
    "Chromecast Linux": "Chromecast",
    "Mac OS X": "macOS",
    "Other": "",
    "WatchOS": "watchOS",
    "Web0S": "webOS",
}

_PHONES = frozenset({"BlackBerry OS", "Firefox OS", "KaiOS", "Symbian OS", "Windows Phone", "iOS"})
_SCREENS = frozenset({"Chromecast", "Tizen", "Xbox", "tvOS", "watchOS", "webOS"})
_DESKTOPS = frozenset({"Chrome OS", "Windows", "macOS"})
# They name a desktop system, or hide behind a browser's form, and nobody sits before them.
_PROGRAMS = frozenset({"Headless Chrome", "Homebrew", "PhantomJS", "PowerShell", "Wget", "aws-cli", "curl"})

_COMMENT = re.compile(r"\([^()]*\)")
_PRODUCT = re.compile(r"([A-Za-z][\w.-]*)/v?(\d+(?:\.\d+){0,2})")
_FIRST_PRODUCT = re.compile(r"((?:[^\W_]|%)[^/();,]*?)(?:(?:/| v)(\d+(?:\.\d+){0,2})|[/();,]|$)")
# Android's televisions, sticks and headsets send what a tablet sends.
_SCREEN = re.compile(r"TV\b|\bBRAVIA\b|\bAFT[A-Z]|\bCrKey\b|\bChromecast\b|\bVR\b")


@dataclass(frozen=True, slots=True)
class Device:
    """What a User-Agent says of itself; `browser` and `os` are empty where it says nothing.

    `browser` is an app's name as well, and a program's name and version. Televisions, consoles, watches
    and headsets are of kind unknown.
    """

    browser: str = ""
    os: str = ""
    kind: DeviceKind = "unknown"

    @property
    def label(self) -> str:
        """In English; whoever translates joins `browser` and `os`."""
        return " on ".join(filter(None, (self.browser, self.os))) or "Unknown device"


async def load() -> None:
    """Have the parser there, by a thread: others are answered meanwhile."""
    if not _resolver.cache_info().currsize:
        await asyncio.to_thread(_resolver)


def describe(user_agent: str) -> Device:
    """The device that sends `user_agent`, by its first 512 characters; never raises."""
    return _describe(user_agent[:LONGEST_PARSED])


@lru_cache(maxsize=4096)
def _describe(sent: str) -> Device:
    text = _make_printable(sent)
    found = _resolver()(text, Domain.ALL)
    model = found.device.family if found.device else ""
    os = _find_system(text, found.os.family if found.os else "", model)
    is_browser = text.startswith(("Mozilla/", "Opera/"))

    family = found.user_agent.family if found.user_agent else ""
    if not is_browser:
        name, version = _first_product(text)
    elif found.user_agent and family not in _ENGINE_FAMILIES:
        numbers = (found.user_agent.major, found.user_agent.minor, found.user_agent.patch)
        name, version = family, ".".join(filter(None, numbers))
    else:
        name, version = _embedding_app(text)
    name = _tidy(_BROWSERS.get(name, name))
    if name == "Safari" and os not in {"iOS", "iPadOS", "macOS", "Windows"}:
        name = ""  # any WebKit: a television, a console, GNOME

    if model == "Spider":
        os = ""  # Googlebot's phone is a pretence
        kind: DeviceKind = "program"
    elif name in _PROGRAMS:
        kind = "program"
    else:
        kind = _find_kind(text, os, is_browser, bool(name))
    if name and kind == "program":
        name = _tidy(f"{name} {_shorten(version)}")
    return Device(name, os, kind)


def _make_printable(text: str) -> str:
    """Without what can't be stored or shown: NUL, lone surrogates, turned writing directions."""
    if text.isprintable():
        return text.strip()
    return "".join(character if character.isprintable() else " " for character in text).strip()


def _tidy(name: str) -> str:
    return " ".join(name.split())[:LONGEST_NAME].rstrip()


def _find_system(text: str, family: str, model: str) -> str:
    # An iPad asks for the pages of a Mac. Only what is not Safari itself still says Mobile.
    if model == "iPad" or (text.startswith("Mozilla/5.0 (Macintosh") and " Mobile/" in text):
        return "iPadOS"
    if model == "Mac":
        return "macOS"  # CFNetwork's family is always iOS
    if family == "Windows" and "Xbox" in text:
        return "Xbox"
    if "HarmonyOS" in text or "OpenHarmony" in text:
        return "HarmonyOS"
    if not family and model.startswith(("PlayStation", "Nintendo")):
        return _tidy(model)
    return _tidy(_SYSTEMS.get(family, family))


def _first_product(text: str) -> tuple[str, str]:
    """The name and version that a program or an app gives first."""
    if not (match := _FIRST_PRODUCT.match(text)):
        return "", ""
    # CFNetwork sends an app's name as in an address: Acme%20Shop.
    return _make_printable(unquote(match[1])), match[2] or ""


def _embedding_app(text: str) -> tuple[str, str]:
    """The app around a browser's engine, where it added its name."""
    for name, version in _PRODUCT.findall(_COMMENT.sub(" ", text)):
        if not _ENGINE.fullmatch(name):
            return name, version
    return "", ""


def _find_kind(text: str, os: str, is_browser: bool, is_named: bool) -> DeviceKind:
    if os == "iPadOS":
        return "tablet"
    if os in _PHONES:
        return "phone"  # CFNetwork on an iPad or a Mac looks like this too
    if os in _SCREENS or os.startswith(("PlayStation", "Nintendo")) or (is_browser and _SCREEN.search(text)):
        return "unknown"
    if os in {"Android", "HarmonyOS"}:
        # A browser leaves Mobile out on a tablet; apps and Opera Mini leave it out everywhere.
        is_phone = "Mobi" in text or "Phone" in text or not text.startswith("Mozilla/")
        return "tablet" if "Tablet" in text or not is_phone else "phone"
    if os in _DESKTOPS or (os and is_browser):
        return "computer"
    return "program" if is_named and not is_browser else "unknown"


def _shorten(version: str) -> str:
    """8.1.0 is 8.1; 2.0 stays."""
    return re.sub(r"^(\d+\.\d+)\.0$", r"\1", version)

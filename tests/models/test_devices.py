"""What people read for the User-Agents that are about."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.devices import LONGEST_NAME, LONGEST_PARSED, Device, describe


def blink(system: str, rest: str) -> str:
    """What Chrome and all that is made from it send."""
    return f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) {rest}"


def apple(system: str, rest: str) -> str:
    """What Apple's WebKit sends."""
    return f"Mozilla/5.0 ({system}) AppleWebKit/605.1.15 (KHTML, like Gecko) {rest}"


def gecko(system: str, version: str = "127.0") -> str:
    """What Firefox sends."""
    trail = version if "Mobile" in system or "Tablet" in system else "20100101"
    return f"Mozilla/5.0 ({system}; rv:{version}) Gecko/{trail} Firefox/{version}"


WINDOWS = "Windows NT 10.0; Win64; x64"
MAC = "Macintosh; Intel Mac OS X 10_15_7"
IPHONE = "iPhone; CPU iPhone OS 17_5 like Mac OS X"
IPAD = "iPad; CPU OS 16_7 like Mac OS X"
ANDROID = "Linux; Android 10; K"
LUMIA = "Windows Phone 10.0; Android 6.0.1; Microsoft; Lumia 950"
GOOGLEBOT = "(compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
POWERSHELL = "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.22631; en-US) PowerShell/7.4.2"
IE8 = "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0; Tablet PC 2.0)"

COMPUTERS = [
    (blink(WINDOWS, "Chrome/126.0.0.0 Safari/537.36"), "Chrome on Windows"),
    (blink(WINDOWS, "Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0"), "Edge on Windows"),
    (blink(WINDOWS, "Chrome/124.0.0.0 Safari/537.36 OPR/110.0.0.0"), "Opera on Windows"),
    (blink(WINDOWS, "Chrome/124.0.0.0 YaBrowser/24.6.0.0 Safari/537.36"), "Yandex Browser on Windows"),
    (blink(WINDOWS, "Chrome/124.0.0.0 Safari/537.36 Vivaldi/6.7.3329.35"), "Vivaldi on Windows"),
    (gecko(WINDOWS), "Firefox on Windows"),
    (gecko("Windows NT 5.1", "52.0"), "Firefox on Windows"),
    ("Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko", "Internet Explorer on Windows"),
    (IE8, "Internet Explorer on Windows"),
    ("Opera/9.80 (Windows NT 6.1; WOW64) Presto/2.12.388 Version/12.18", "Opera on Windows"),
    (apple(MAC, "Version/17.5 Safari/605.1.15"), "Safari on macOS"),
    (blink(MAC, "Chrome/126.0.0.0 Safari/537.36"), "Chrome on macOS"),
    (gecko("Macintosh; Intel Mac OS X 10.15"), "Firefox on macOS"),
    (blink("X11; Linux x86_64", "Chrome/126.0.0.0 Safari/537.36"), "Chrome on Linux"),
    (gecko("X11; Ubuntu; Linux x86_64"), "Firefox on Ubuntu"),
    (gecko("X11; FreeBSD amd64"), "Firefox on FreeBSD"),
    (apple("X11; Linux x86_64", "Version/17.0 Safari/605.1.15 Epiphany/605.1.15"), "GNOME Web on Linux"),
    (apple("X11; Linux x86_64", "Version/17.0 Safari/605.1.15"), "Linux"),
    (blink("X11; CrOS x86_64 14541.0.0", "Chrome/126.0.0.0 Safari/537.36"), "Chrome on Chrome OS"),
    (blink(WINDOWS, "Slack/4.38.125 Chrome/124.0.6367.207 Electron/30.0.2 Safari/537.36"), "Slack on Windows"),
    (blink(WINDOWS, "Chrome/124.0.6367.207 Electron/30.0.2 Safari/537.36"), "Windows"),
    ("AcmeDesktop/2.0 (Macintosh; Mac OS X 14.5)", "AcmeDesktop on macOS"),
    ("Acme/1 CFNetwork/1408.0.4 Darwin/22.5.0 (x86_64)", "Acme on macOS"),
]
PHONES = [
    (apple(IPHONE, "Version/17.5 Mobile/15E148 Safari/604.1"), "Safari on iOS"),
    (apple(IPHONE, "CriOS/126.0.6478.54 Mobile/15E148 Safari/604.1"), "Chrome on iOS"),
    (apple(IPHONE, "FxiOS/127.0 Mobile/15E148 Safari/605.1.15"), "Firefox on iOS"),
    (apple(IPHONE, "Version/17.0 EdgiOS/125.0.2535.60 Mobile/15E148 Safari/605.1.15"), "Edge on iOS"),
    (apple(IPHONE, "Version/17.5 Mobile/15E148 Safari/604.1 OPT/4.7.0"), "Opera on iOS"),
    (apple(IPHONE, "Version/17.5 YaBrowser/24.6.3 SA/3 Mobile/15E148 Safari/604.1"), "Yandex Browser on iOS"),
    (
        apple("iPod touch; CPU iPhone OS 15_8 like Mac OS X", "Version/15.6 Mobile/15E148 Safari/604.1"),
        "Safari on iOS",
    ),
    (blink(ANDROID, "Chrome/126.0.0.0 Mobile Safari/537.36"), "Chrome on Android"),
    (blink("Linux; Android 14; Pixel 8 Pro", "Chrome/126.0.6478.50 Mobile Safari/537.36"), "Chrome on Android"),
    (blink("Linux; Android 9; CUBOT_X18_Plus", "Chrome/120.0.0.0 Mobile Safari/537.36"), "Chrome on Android"),
    (
        blink("Linux; Android 14; SAMSUNG SM-S918B", "SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36"),
        "Samsung Internet on Android",
    ),
    (gecko("Android 14; Mobile"), "Firefox on Android"),
    (blink(ANDROID, "Chrome/124.0.0.0 Mobile Safari/537.36 EdgA/124.0.2478.64"), "Edge on Android"),
    (blink(ANDROID, "Chrome/124.0.0.0 Mobile Safari/537.36 OPR/82.0.0.0"), "Opera on Android"),
    ("Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423", "Opera Mini on Android"),
    (
        blink("Linux; arm_64; Android 13; SM-A536E", "Chrome/124.0.0.0 YaBrowser/24.6.3 SA/3 Mobile Safari/537.36"),
        "Yandex Browser on Android",
    ),
    (
        blink(
            "Linux; U; Android 12; en-us; Redmi Note 9 Pro Build/SKQ1.211019.001",
            "Version/4.0 Chrome/112.0.5615.136 Mobile Safari/537.36 XiaoMi/MiuiBrowser/14.8.0-gn",
        ),
        "Mi Browser on Android",
    ),
    (
        "Mozilla/5.0 (Linux; U; Android 4.0.3; LG-L160L) AppleWebkit/534.30 Version/4.0 Mobile Safari/534.30",
        "Android",
    ),
    (
        blink(
            "Linux; Android 12; HarmonyOS; NOH-AN00; HMSCore 6.13.0.302",
            "Chrome/99.0.4844.88 HuaweiBrowser/14.0.5.302 Mobile Safari/537.36",
        ),
        "Huawei Browser on HarmonyOS",
    ),
    ("Mozilla/5.0 (Mobile; Nokia 8110 4G; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5", "Firefox on KaiOS"),
    (blink(LUMIA, "Chrome/52.0.2743.116 Mobile Safari/537.36 Edge/15.15063"), "Edge on Windows Phone"),
]
WEBVIEWS_AND_APPS = [
    (apple(IPHONE, "Mobile/15E148"), "iOS"),
    (apple(IPHONE, "Mobile/15E148 Acme/3.2"), "Acme on iOS"),
    (apple(IPHONE, "Mobile/21F90 [FBAN/FBIOS;FBAV/468.0.0.38.109;FBSN/iOS]"), "Facebook on iOS"),
    (apple(IPHONE, "Mobile/21F90 Instagram 336.0.9.30.98 (iPhone14,5; iOS 17_5_1)"), "Instagram on iOS"),
    (apple(IPHONE, "Mobile/15E148 MicroMessenger/8.0.49(0x18003137) NetType/WIFI"), "WeChat on iOS"),
    (
        blink(
            "Linux; Android 13; SM-G991B Build/TP1A.220624.014; wv",
            "Version/4.0 Chrome/126.0.6478.50 Mobile Safari/537.36",
        ),
        "Android",
    ),
    (
        blink(
            "Linux; Android 14; 23049PCD8G Build/UKQ1; wv",
            "Version/4.0 Chrome/126.0.6478.50 Mobile Safari/537.36 Telegram-Android/10.14.5 (Xiaomi 23049PCD8G)",
        ),
        "Telegram on Android",
    ),
    ("Acme/3.2 (iPhone; iOS 17.2)", "Acme on iOS"),
    ("Acme/3.2.1 (com.acme.app; build:412; iOS 17.2.0) Alamofire/5.9.1", "Acme on iOS"),
    ("Xbox/2403 (iPhone; iOS 17.4)", "Xbox on iOS"),
    ("Acme%20Shop/412 CFNetwork/1494.0.7 Darwin/23.4.0", "Acme Shop on iOS"),
    ("%D0%9F%D0%BE%D1%87%D1%82%D0%B0/7 CFNetwork/1494.0.7 Darwin/23.4.0", "Почта on iOS"),
    ("Acme/3.2 (Android 14; Pixel 8)", "Acme on Android"),
    ("AcmeTV/3.2 (Android 14; Pixel 8)", "AcmeTV on Android"),
    ("VKAndroidApp/8.52-20145 (Android 13; SDK 33; arm64-v8a; samsung SM-A525F)", "VKAndroidApp on Android"),
    ("Dalvik/2.1.0 (Linux; U; Android 13; SM-G991B Build/TP1A.220624.014)", "Android"),
]
TABLETS = [
    (apple(IPAD, "Version/16.6 Mobile/15E148 Safari/604.1"), "Safari on iPadOS"),
    (apple(IPAD, "CriOS/126.0.6478.54 Mobile/15E148 Safari/604.1"), "Chrome on iPadOS"),
    (apple(MAC, "CriOS/126 Version/11.1.1 Mobile/15E148 Safari/605.1.15"), "Chrome on iPadOS"),
    ("Acme/3.2 (iPad; iOS 17.2; Scale/2.00)", "Acme on iPadOS"),
    (blink(ANDROID, "Chrome/126.0.0.0 Safari/537.36"), "Chrome on Android"),
    (gecko("Android 13; Tablet"), "Firefox on Android"),
    (
        blink("Linux; Android 13; SM-X710", "SamsungBrowser/25.0 Chrome/121.0.0.0 Safari/537.36"),
        "Samsung Internet on Android",
    ),
    (
        blink("Linux; Android 9; KFMAWI", "Silk/120.3.1 like Chrome/120.0.6099.230 Safari/537.36"),
        "Silk on Android",
    ),
]
PROGRAMS = [
    ("PostmanRuntime/7.28.3", "PostmanRuntime 7.28.3"),
    ("curl/8.1", "curl 8.1"),
    ("curl/8.1.0", "curl 8.1"),
    ("Wget/1.21.4 (linux-gnu)", "Wget 1.21.4 on Linux"),
    ("python-requests/2.31.0", "Python Requests 2.31"),
    ("python-httpx/0.27.2", "python-httpx 0.27.2"),
    ("Go-http-client/2.0", "Go-http-client 2.0"),
    ("Apache-HttpClient/4.5.14 (Java/17.0.9)", "Apache-HttpClient 4.5.14"),
    ("Faraday v2.9.1", "Faraday 2.9.1"),
    ("Symfony HttpClient/Curl", "Symfony HttpClient"),
    ("node", "node"),
    ("okhttp/4.12.0", "okhttp 4.12"),
    ("Acme/3.2 okhttp/4.12.0", "Acme 3.2"),
    ("Dart/3.4 (dart:io)", "Dart 3.4"),
    (POWERSHELL, "PowerShell 7.4.2 on Windows"),
    ("aws-cli/2.15.1 Python/3.11.6 Windows/10 exe/AMD64", "aws-cli 2.15.1 on Windows"),
    (
        blink("X11; Linux x86_64", "HeadlessChrome/126.0.0.0 Safari/537.36"),
        "Headless Chrome 126.0 on Linux",
    ),
    (f"Mozilla/5.0 {GOOGLEBOT}", "Googlebot 2.1"),
    (blink("Linux; Android 6.0.1; Nexus 5X", f"Chrome/126.0 Mobile Safari/537.36 {GOOGLEBOT}"), "Googlebot 2.1"),
    ("Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)", "YandexBot 3.0"),
    ("TelegramBot (like TwitterBot)", "TelegramBot"),
]
UNKNOWN = [
    ("", "Unknown device"),
    (" ", "Unknown device"),
    ("-", "Unknown device"),
    ("Mozilla/5.0", "Unknown device"),
    ("%00/1", "Unknown device"),
    (blink("SMART-TV; Linux; Tizen 6.0", "76.0.3809.146/6.0 TV Safari/537.36"), "Tizen"),
    (blink("Web0S; Linux/SmartTV", "Chrome/94.0.4606.128 Safari/537.36"), "Chrome on webOS"),
    (blink("Linux; Android 9; AFTMM", "Silk/120.3.1 like Chrome/120.0.6099.230 Safari/537.36"), "Silk on Android"),
    (apple("PlayStation; PlayStation 5/8.20", "Version/16.4 Safari/605.1.15"), "PlayStation 5"),
    (blink(f"{WINDOWS}; Xbox; Xbox One", "Chrome/126.0.0.0 Safari/537.36 Edge/44.18363.8131"), "Edge on Xbox"),
]
TABLE = [
    pytest.param(user_agent, kind, label, id=f"{kind}-{label}-{number}")
    for kind, rows in (
        ("computer", COMPUTERS),
        ("phone", PHONES),
        ("phone", WEBVIEWS_AND_APPS),
        ("tablet", TABLETS),
        ("program", PROGRAMS),
        ("unknown", UNKNOWN),
    )
    for number, (user_agent, label) in enumerate(rows)
]


@pytest.mark.parametrize(("user_agent", "kind", "label"), TABLE)
def test_a_user_agent_has_the_label_and_kind_that_people_expect(user_agent: str, kind: str, label: str) -> None:
    device = describe(user_agent)
    assert (device.label, device.kind) == (label, kind)


def test_a_label_can_be_put_together_from_what_a_session_keeps() -> None:
    assert describe(apple(IPHONE, "Version/17.5 Mobile/15E148 Safari/604.1")) == Device("Safari", "iOS", "phone")
    assert describe("PostmanRuntime/7.28.3") == Device("PostmanRuntime 7.28.3", "", "program")
    assert describe("") == Device("", "", "unknown")


FRAGMENTS = [
    *("Mozilla/5.0 ", "Opera/9 ", "Macintosh", "Android ", "Linux; ", "iPhone OS 17_", "Windows NT ", " Mobile/"),
    *("CFNetwork/1 Darwin/22", "Electron/", "  bot/", "(", ")", "/", ";", "%", "%00", "%ED%A0%80", "9" * 40, "é"),
    *("\0", "\x1b", "\ud800", "\u202e"),
]


@given(st.text(st.characters(exclude_categories=())) | st.lists(st.sampled_from(FRAGMENTS), max_size=60).map("".join))
@example("\ud800")
@example("\0" * 10_000)
@example("é" * 10_000)
@example("Acme\u202e/1 (iPhone; iOS 17.2)")
@example("%ED%A0%80%00%1B/1 CFNetwork/1 Darwin/23.4.0")
@example("Mozilla/5.0 (compatible; \x1b  Applebot/0.1)")
@example("curl/" + "9" * 500)
@example("A" * 500 + "/1 CFNetwork/1494.0.7 Darwin/23.4.0")
def test_any_text_gives_names_that_can_be_stored_and_shown(user_agent: str) -> None:
    device = describe(user_agent)
    assert device.kind in {"phone", "tablet", "computer", "program", "unknown"}
    for text in (device.browser, device.os):
        assert text.isprintable()
        assert text == text.strip()
        assert len(text) <= LONGEST_NAME
        text.encode()


def test_a_long_name_is_cut() -> None:
    assert describe("A" * 500 + "/1 (iPhone; iOS 17.2)").browser == "A" * LONGEST_NAME


def test_what_follows_the_first_512_characters_changes_nothing() -> None:
    user_agent = "x" * LONGEST_PARSED
    assert describe(user_agent + " (iPhone; iOS 17.2)") is describe(user_agent)


@pytest.mark.parametrize("piece", ["(", "Mozilla/5.0 (", "Android 9; ", "a/1 ", "Build/", " " * 99, "%25", "1."])
def test_no_user_agent_holds_the_loop(piece: str) -> None:
    def measure(number: int) -> float:
        started = time.process_time()  # not the clock: a busy machine is slow too
        describe(f"Mozilla/{number} " + piece * 5_000)
        return time.process_time() - started

    # A round of the collector may fall into one of them.
    assert min(map(measure, range(3))) < 0.1

"""What holds for every page in every state: nobody is shut out, nothing sticks out, nothing jumps, little is sent.

Each state is looked at once, on one of the screens, as one of the readers, and all of these come up; BROWSE=all
(`make browse`) looks at each state on each screen as each reader.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, Response

from tests.browser import walks
from tests.browser.conftest import Open, run_site
from tests.conftest import Account, House

WIDTHS = [360, 768, 1440]
SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]
SCREENS = [(width, scheme) for width in WIDTHS for scheme in SCHEMES]
# Seconds that one walk may take on a machine that is busy.
PATIENCE = 600
IS_WHOLE = os.environ.get("BROWSE") == "all"
LANGUAGES = ["en", "ru"]
# As whom each walk is made: kind and language.
READERS = [("user", "en"), ("client", "ru"), *([("user", "ru"), ("client", "en")] if IS_WHOLE else [])]
WALKS = [
    (walk, *reader)
    for index, walk in enumerate(walks.WALKS)
    for reader in (READERS if IS_WHOLE else [READERS[index % len(READERS)]])
]
# What Chromium tells of a page that was meant to be an error, and of a wire that was cut on purpose.
TOLD = re.compile("Failed to load resource: (the server responded with a status of|net::ERR_INTERNET_DISCONNECTED)")
REACHED = "a[href], button, input:not([type=hidden]), select, textarea, summary"


class Inspector:
    """Looks at pages, and keeps what is wrong with them."""

    def __init__(self, language: str) -> None:
        self.faults: list[str] = []
        self._language = language
        self._axe = Axe()
        # Of the page that was opened last.
        self._status = 200
        self._screens = itertools.cycle(SCREENS)

    def follow(self, page: Page) -> Page:
        """Hear what the page says of itself."""
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.faults.append(f"{page.url}: {error}"))
        page.on("response", self._receive)
        return page

    def visit(self, page: Page, name: str) -> None:
        """Look at one page in one state."""
        if self._status >= 500 and str(self._status) not in name:
            self.faults.append(f"{name}: {self._status}")
        if page.evaluate("document.documentElement.lang") != self._language:
            self.faults.append(f"{name}: not in {self._language}")
        # Nothing sticks out of the narrowest screen anywhere; axe comes on top where it is asked.
        self._measure(page, name, WIDTHS[0])
        for width, scheme in SCREENS if IS_WHOLE else [next(self._screens)]:
            self._measure(page, name, width)
            page.emulate_media(color_scheme=scheme)
            result = self._axe.run(page)
            if result.violations_count:
                self.faults.append(f"{name}, {width} pixels, {scheme}: {result.generate_report()}")

    def _measure(self, page: Page, name: str, width: int) -> None:
        page.set_viewport_size({"width": width, "height": 800})
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            self.faults.append(f"{name}: wider than {width} pixels")

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not TOLD.match(message.text):
            self.faults.append(f"{message.location['url']}: {message.text}")

    def _receive(self, response: Response) -> None:
        if response.request.resource_type == "document":
            self._status = response.status
        elif response.status >= 400:
            self.faults.append(f"{response.url} of {response.frame.url}: {response.status}")


@contextlib.contextmanager
def inspect(open_page: Open, language: str, **more: str) -> Iterator[tuple[Page, walks.Visit]]:
    """A new browser at the page for signing in, and what to call in each state: at the end, nothing was wrong."""
    inspector = Inspector(language)
    # Colours that change slowly are not measured while they do.
    page = open_page(None, "/sign-in/", locale=language, reduced_motion="reduce", **more)
    yield inspector.follow(page), inspector.visit
    assert not inspector.faults, "\n".join(inspector.faults)


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize(("walk", "kind", "language"), WALKS)
def test_no_page_shuts_anybody_out_sticks_out_of_its_screen_or_complains(
    site: House, open_page: Open, walk: walks.Walk, kind: str, language: str
) -> None:
    with inspect(open_page, language) as (page, visit):
        walk(site, page, visit, kind)


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("language", LANGUAGES if IS_WHOLE else LANGUAGES[-1:])
def test_no_page_of_a_new_server_or_a_broken_one_does(open_page: Open, tmp_path: Path, language: str) -> None:
    with run_site(tmp_path, SESSIONS_ACCOUNTS__REGISTRATION="false") as first:
        with inspect(open_page, language, base_url=first.address) as (page, visit):
            walks.walk_first(first, page, visit)
        page.close()


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("kind", ["user", "client"])
def test_the_tab_key_reaches_all_that_can_be_pressed_or_filled_in_and_shows_where_it_is(
    site: House, open_page: Open, kind: str, width: int
) -> None:
    account = site.add(kind)
    other = site.sign_in(account, "Thing/1.0").session
    site.sign_in(account, "Thing/2.0")
    # Without scripts, so that no page is renewed while it is looked at.
    still = {"java_script_enabled": False}
    stranger, own = open_page(None, "/sign-in/", width, **still), open_page(account, "/devices/", width, **still)
    pages = [(stranger, address) for address in ("/sign-in/", f"/register/?kind={kind}", "/confirm/", "/reset/")]
    pages += [(own, address) for address in ("/devices/", f"/devices/{other}/", "/activity/", "/account/")]
    for page, address in pages:
        page.goto(address)
        # From its beginning, wherever the page put the focus.
        page.evaluate("document.body.tabIndex = -1; document.body.focus()")
        marked = page.evaluate(MARK, REACHED)
        reached: list[str] = []
        for _ in range(marked + 2):
            page.keyboard.press("Tab")
            mark, is_seen = page.evaluate(LOOK)
            if mark is None:
                break
            assert is_seen, f"{address}: the focus is not seen on {mark}"
            reached.append(mark)
        assert len(set(reached)) == marked, f"{address}: {marked} and reached {reached}"


# Numbers what is shown, and tells how much that is.
MARK = """selector => {
    const shown = [...document.querySelectorAll(selector)].filter(one => one.checkVisibility());
    shown.forEach((one, number) => one.dataset.mark = `${number} ${one.outerHTML.slice(0, 80)}`);
    return shown.length;
}"""
LOOK = """() => {
    const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
    const isInside = box.bottom > 0 && box.top < innerHeight && box.width > 1 && box.height > 1;
    return [one.dataset.mark ?? null, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 && isInside];
}"""


def test_the_devices_are_sent_in_less_than_60_kb_from_this_host_alone_and_nothing_jumps(
    site: House, open_page: Open
) -> None:
    account = site.add("user")
    for number in range(49):
        site.sign_in(account, f"Thing{number}/1.0")
    assert weigh(site, open_page, account, "/devices/") < 60_000


@pytest.mark.parametrize("address", ["/sign-in/", "/register/", "/activity/", "/account/", "/nowhere/"])
def test_no_page_is_heavy_asks_another_host_or_jumps(site: House, open_page: Open, address: str) -> None:
    weigh(site, open_page, None if address in ("/sign-in/", "/register/") else site.add("client"), address)


def weigh(site: House, open_page: Open, account: Account | None, address: str) -> float:
    """The bytes on the wire of a page's first load in Russian, which needs most, once it is seen to be still."""
    page = open_page(account, address, 1440, locale="ru")
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    network.send("Network.setCacheDisabled", {"cacheDisabled": True})
    sizes: list[float] = []
    network.on("Network.loadingFinished", lambda finished: sizes.append(finished["encodedDataLength"]))
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.add_init_script(
        "window.shift = 0; new PerformanceObserver(list => {for (const entry of list.getEntries())"
        " window.shift += entry.value}).observe({type: 'layout-shift', buffered: true})"
    )

    # What the page that was open asks for by itself is not of this load.
    page.goto("about:blank")
    sizes.clear()
    hosts.clear()
    page.goto(address)
    page.evaluate("document.fonts.ready")

    assert page.evaluate("window.shift") == 0
    assert hosts == {site.address.split("/")[2]}
    assert 10_000 < sum(sizes) < 60_000
    return sum(sizes)

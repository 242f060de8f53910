"""What holds for every page: nobody is shut out, nothing sticks out, nothing jumps, little is sent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page
from sqlalchemy import update
from sqlalchemy.orm import Session

from models import clock
from models.schema import KINDS
from tests.browser.conftest import Open
from tests.conftest import House

OPEN = ["/sign-in/", "/sign-in/?why=owner", "/register/", "/register/?kind=client", "/confirm/", "/reset/", "/nowhere/"]
OWN = ["/devices/", "/devices/{id}/", "/activity/", "/account/", "/sign-out/", "/nowhere/"]
WIDTHS = [360, 768, 1440]


def forget_passwords(db: Session, kind: str, account_id: int) -> None:
    """Let an hour pass since the account's password was given."""
    table = KINDS[kind].sessions
    values = {"password_at": clock.now() - timedelta(hours=1)}
    db.execute(update(table).where(table.c.account_id == account_id).values(values))


def walk(site: House, open_page: Open, kind: str, visit: Callable[[Page, str], None], **more: str) -> None:
    """Visit every page as a stranger and as an account of `kind`, and some in their other states."""
    account = site.add(kind)
    for number in range(9):
        site.sign_in(account, f"Thing{number}/1.0 ({'wide' * 40})")
    page = open_page(account, **more)
    current = (page.locator(".this .row").get_attribute("id") or "").removeprefix("device-")
    for address in OWN:
        page.goto(address.format(id=current))
        visit(page, address)
    page.goto("/devices/")
    page.locator("#end-others").click()
    visit(page, "/devices/ asking")
    site.write(forget_passwords, kind, account.id)
    page.locator("#end-others-popover .primary").click()
    page.fill("[name=prompted_password]", "something else")
    page.press("[name=prompted_password]", "Enter")
    page.wait_for_selector("#password-error")
    visit(page, "the password refused")
    page.goto(f"/devices/{current}/")
    page.fill("[name=name]", "n" * 65)
    page.press("[name=name]", "Enter")
    page.wait_for_selector("#name-error")
    visit(page, "a name refused")
    page.fill("[name=name]", "W" * 64)
    page.press("[name=name]", "Enter")
    page.wait_for_selector("#flash")
    visit(page, "a name taken")
    stranger = open_page(None, "/sign-in/", **more)
    for address in OPEN:
        stranger.goto(address)
        visit(stranger, address)
    stranger.goto("/sign-in/")
    stranger.fill("[name=identity]", "nobody@example.com")
    stranger.fill("[name=password]", "something else")
    stranger.press("[name=password]", "Enter")
    stranger.wait_for_selector("[role=alert]")
    visit(stranger, "/sign-in/ refused")


@pytest.mark.parametrize(
    ("kind", "color_scheme", "locale", "axe_width"), [("user", "light", "en", 1440), ("client", "dark", "ru", 360)]
)
def test_no_page_shuts_anybody_out_sticks_out_of_its_screen_or_breaks_its_own_policy(
    site: House, open_page: Open, kind: str, color_scheme: str, locale: str, axe_width: int
) -> None:
    axe = Axe()
    faults: list[str] = []

    def visit(page: Page, address: str) -> None:
        if page not in heard:
            heard.append(page)
            page.on("console", hear)
            page.on("pageerror", lambda error: faults.append(str(error)))
        if page.evaluate("document.documentElement.lang") != locale:
            faults.append(f"{address}: not in {locale}")
        for width in (*WIDTHS, axe_width):
            page.set_viewport_size({"width": width, "height": 800})
            if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
                faults.append(f"{address}: wider than {width} pixels")
        result = axe.run(page)
        if result.violations_count:
            faults.append(f"{address}: {result.generate_report()}")

    def hear(message: ConsoleMessage) -> None:
        # Chromium tells that a page was a 404 or a 400, which it was meant to be.
        if message.type == "error" and "the server responded with a status of 40" not in message.text:
            faults.append(message.text)

    heard: list[Page] = []
    walk(site, open_page, kind, visit, color_scheme=color_scheme, locale=locale)

    assert not faults, "\n".join(faults)


def test_the_devices_are_sent_in_less_than_60_kb_from_this_host_alone_and_nothing_jumps(
    site: House, open_page: Open
) -> None:
    account = site.add("user")
    for number in range(49):
        site.sign_in(account, f"Thing{number}/1.0")
    page = open_page(account)
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

    page.reload()
    page.wait_for_load_state("load")
    page.evaluate("document.fonts.ready")

    assert page.evaluate("window.shift") == 0
    assert hosts == {site.address.split("/")[2]}
    assert 10_000 < sum(sizes) < 60_000

"""The API page: its files, its policy, and a person who tries a call in a real browser."""

from __future__ import annotations

import contextlib
import gzip
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Playwright, async_playwright, expect

from handlers.docs import POLICY
from tests.conftest import House

# The page asks the database nothing of its own.
pytestmark = [pytest.mark.long, pytest.mark.parametrize("house", ["sqlite"], indirect=True, scope="session")]


@pytest.fixture(scope="module")
def browser(house: House) -> Iterator[Browser]:
    """Debian's Chromium, on the loop that `house.run` has."""

    async def start() -> tuple[Playwright, Browser]:
        playwright = await async_playwright().start()
        return playwright, await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])

    playwright, browser = house.run(start())
    yield browser
    house.run(browser.close())
    house.run(playwright.stop())


@contextlib.asynccontextmanager
async def open_page(browser: Browser, house: House, **options: Any) -> AsyncIterator[Page]:
    """The page, with its calls drawn; its console must stay silent."""
    page = await browser.new_page(**options)
    page.set_default_timeout(10_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    await page.goto(f"{house.address}/docs/")
    await expect(page.locator(".opblock").first).to_be_visible()
    yield page
    await page.close()
    # A refused call is told there too, and is none of the page's faults.
    assert [text for text in said if "status of 400" not in text] == []


async def sign_in(page: Page, contact: str, password: str, kind: str = "user") -> None:
    """Fill the form in and send it."""
    await page.get_by_label("Kind", exact=True).select_option(kind)
    await page.get_by_label("E-mail or phone").fill(contact)
    await page.get_by_label("Password", exact=True).fill(password)
    await page.get_by_role("button", name="Sign in", exact=True).click()


def files(house: House) -> list[str]:
    """The addresses of the files that the page loads."""
    return re.findall(r'(?:src|href)="(/docs/[^"]+)"', house.ask("GET", "/docs/").text)


def test_the_page_is_html_under_a_strict_policy_and_has_no_inline_script_or_style(house: House) -> None:
    answer = house.ask("GET", "/docs/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY
    assert not re.search(r"<style|<script(?![^>]* src=)|\s(style|on\w+)=", answer.text)


def test_the_page_without_its_final_slash_is_redirected(house: House) -> None:
    answer = house.ask("GET", "/docs")
    assert (answer.status_code, answer.headers["Location"]) == (308, "/docs/")


def test_the_pages_files_are_kept_by_browsers_for_good(house: House) -> None:
    assert len(files(house)) == 4
    for address in files(house):
        answer = house.ask("GET", address)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Content-Type"].startswith("text/css" if address.endswith(".css") else "text/javascript")


def test_the_pages_files_are_sent_packed_to_whoever_can_unpack_them(house: House) -> None:
    address = next(address for address in files(house) if address.endswith(".css"))
    with house.client.stream("GET", address, headers={"Accept-Encoding": "gzip"}) as packed:
        assert packed.headers["Content-Encoding"] == "gzip"
        content = gzip.decompress(b"".join(packed.iter_raw()))
    plain = house.ask("GET", address, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert plain.content == content
    assert plain.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("name", ["swagger-ui.js", "..%2Fdocs.js", "swagger-uixcss", ""])
def test_no_other_file_is_served(house: House, name: str) -> None:
    folder = files(house)[0].rpartition("/")[0]
    assert house.ask("GET", f"{folder}/{name}").status_code == 404


@pytest.mark.parametrize("kind", ["user", "client"])
def test_a_person_signs_in_and_tries_a_call(browser: Browser, house: House, kind: str) -> None:
    account = house.add(kind)

    async def walk() -> None:
        async with open_page(browser, house) as page:
            await sign_in(page, account.contact, account.password, kind)
            await expect(page.get_by_role("status")).to_contain_text("Signed in")
            call = page.locator(f"#operations-{kind.title()}_sessions-listOwn{kind.title()}Sessions")
            await call.locator(".opblock-summary-control").click()
            await call.get_by_role("button", name="Execute").click()
            answer = call.locator(".live-responses-table")
            await expect(answer.locator(".response-col_status").last).to_contain_text("200")
            await expect(answer).to_contain_text(account.contact)

    house.run(walk())


def test_a_person_who_signs_in_wrongly_is_told(browser: Browser, house: House) -> None:
    async def walk() -> None:
        async with open_page(browser, house) as page:
            await sign_in(page, "no\tphone", "not the password")
            await expect(page.get_by_role("status")).to_have_text("phone: Leave out control characters.")
            await sign_in(page, "ada@example.com", "not the password", "client")
            await expect(page.get_by_role("status")).to_have_text("Clients sign in with their phone.")

    house.run(walk())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone(browser: Browser, house: House, scheme: str) -> None:
    async def walk() -> None:
        async with open_page(browser, house, viewport={"width": 360, "height": 740}, color_scheme=scheme) as page:
            await page.locator("#operations-User_sessions-listOwnUserSessions .opblock-summary-control").click()
            await expect(page.locator(".responses-table").first).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth") == 360

    house.run(walk())

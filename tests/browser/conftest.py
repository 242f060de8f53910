"""A real Chromium at a running server with two workers, which all tests here share."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.conftest import NO_TLS, PASSWORD, Account, House, start_server

CHROMIUM = "/usr/bin/chromium"
# What each page may wait for; the slowest is the first on two busy cores.
PATIENCE_MS = 10_000

Open = Callable[..., Page]
FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever a browser is needed for is long."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; skips where it is not installed."""
    if not Path(CHROMIUM).exists():
        message = "Chromium is not here: apt install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        # With the memory of pages that people's browsers have, and playwright's has not.
        without = ["--disable-back-forward-cache"]
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], ignore_default_args=without
        )
        yield browser
        browser.close()


@contextlib.contextmanager
def run_site(folder: Path, **settings: str) -> Iterator[House]:
    """A server with two workers, on an empty database."""
    url = f"sqlite:///{folder}/sessions.sqlite3"
    server = start_server(folder, url, "--workers", "2", **settings)
    # Playwright keeps a loop in this thread: the database is asked from another.
    with ThreadPoolExecutor(1) as thread:
        runner = asyncio.Runner()
        # A worker that is rolled over closes the connections that are kept, one of them perhaps as it is asked on.
        opened = House(
            server.address,
            url,
            lambda work: thread.submit(runner.run, work).result(),
            server.log,
            keeps_connections=False,
        )
        opened.pid = server.process.pid
        yield opened
        opened.close()
        thread.submit(runner.close).result()
    assert server.stop() == 0, server.log.read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The server that the tests of a file share."""
    with run_site(tmp_path_factory.mktemp("site")) as opened:
        yield opened


def sign_in(site: House, context: BrowserContext, account: Account, agent: str) -> None:
    """Sign a browser in without the page for it, which has tests of its own."""
    with httpx.Client(base_url=site.address, headers={"User-Agent": agent}, verify=NO_TLS) as client:
        answer = client.post("/sign-in/", data={"identity": account.contact, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        for name, value in client.cookies.items():
            context.add_cookies([{"name": name, "value": value, "url": site.address}])


@pytest.fixture
def open_page(chromium: Browser, site: House) -> Iterator[Open]:
    """Opens a page in a new browser of its own, signed in where an account is given."""
    contexts: list[BrowserContext] = []

    def open_(account: Account | None = None, address: str = "/devices/", width: int = 1024, **more: Any) -> Page:
        options = {"base_url": site.address, "viewport": {"width": width, "height": 800}, "locale": "en"}
        context = chromium.new_context(**options | more)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        if account:
            sign_in(site, context, account, page.evaluate("navigator.userAgent"))
        page.goto(address)
        return page

    yield open_
    for context in contexts:
        context.close()

"""A browser without JavaScript: cookies, forms as the pages have them, no redirect followed unasked."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx

from tests.conftest import NO_TLS, PASSWORD, TOKENS, Account, House


@dataclass
class Control:
    """A form on a page: where it goes and what it carries."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """What a page holds for a person: its forms, its links, its words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[Control] = []
        self.links: list[str] = []
        self.invalid: list[str] = []
        self.words = ""
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        if tag == "form":
            self.forms.append(Control(given.get("action", "")))
        elif tag == "a":
            self.links.append(given.get("href", ""))
        elif tag == "input" and "name" in given and self.forms:
            is_off = given.get("type") in ("checkbox", "radio") and "checked" not in given
            if not is_off:
                self.forms[-1].fields[given["name"]] = given.get(
                    "value", "on" if given.get("type") == "checkbox" else ""
                )
            if given.get("aria-invalid") == "true":
                self.invalid.append(given["name"])

    def handle_data(self, data: str) -> None:
        self.words += data

    def form(self, action: str) -> dict[str, str]:
        """What the form with this action carries, whatever is asked for in it."""
        return next(form.fields for form in self.forms if action in (form.action, form.action.partition("?")[0]))


class Browser:
    """Somebody at the pages of the house."""

    def __init__(self, house: House, agent: str = "Mozilla/5.0 tests", **headers: str) -> None:
        self.house = house
        named = {"User-Agent": agent, **headers}
        self.client = httpx.Client(base_url=house.address, headers=named, timeout=20, verify=NO_TLS)

    def get(self, address: str, **more: Any) -> httpx.Response:
        """The answer to opening an address."""
        return self.client.get(address, **more)

    def open(self, address: str) -> Page:
        """The page at an address, wherever it sends to."""
        answer = self.client.get(address, follow_redirects=True)
        assert answer.status_code == 200, answer.text
        return Page(answer.text)

    def post(self, address: str, fields: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        """The answer to a form."""
        return self.client.post(address, data=fields or {}, **more)

    def send(self, page: str, action: str = "", **fields: str) -> httpx.Response:
        """The answer to the form with this action on a page, filled in."""
        return self.post(action or page, self.open(page).form(action or page) | fields)

    def sign_in(self, account: Account, password: str = PASSWORD, **fields: str) -> httpx.Response:
        """The answer to signing in."""
        return self.send("/sign-in/", identity=account.contact, password=password, **fields)

    def enter(self, account: Account) -> None:
        """Be signed in, where that is not what is tested: no password is checked, no form filled in."""
        browser = self.cookie("browser") or secrets.token_urlsafe(16)
        started = self.house.start(account, self.client.headers["User-Agent"], f"browser {browser}")
        cookie = TOKENS.make_cookie(started.kind, account.id, started.session, started.ends_at)
        for name, value in {"browser": browser, "session": cookie}.items():
            self.client.cookies.set(name, value, self.client.base_url.host, "/")

    def cookie(self, name: str) -> str | None:
        """The value of a cookie that it keeps."""
        return self.client.cookies.get(name)

    def close(self) -> None:
        """Let go of its connections."""
        self.client.close()

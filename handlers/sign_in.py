"""Pages: signing in, signing out, ending a device by the link in a message."""

from __future__ import annotations

import asyncio
import re
import secrets
from typing import Any

from tornado import web

from handlers.base import read_id
from handlers.forms import Form, FormHandler, SignIn
from handlers.languages import N_
from handlers.letters import is_link, is_link_of, make_announcement
from handlers.pages import LONGEST_COOKIE_SECONDS, REASONS, PageHandler, local_address
from models import clock, sessions
from models.accounts import is_confirmed
from models.guesses import Guess, Purpose
from models.schema import KINDS, USER, Contact, Kind, Row
from models.sessions import Started

BROWSER = re.compile(r"[A-Za-z0-9_-]{22}")

WRONG = N_("No account is found with this e-mail or phone and this password. Check both.")


class EntryHandler(FormHandler):
    """A page that may end in a new session of this browser."""

    is_open = True
    _browser = ""

    async def enter(
        self, kind: Kind, account_id: int, password_hash: str, guess: Guess | None = None
    ) -> Started | None:
        """Start a session in this browser, in place of the one that it is in; None where that may not be.

        `guess` is the password that was tried for it.
        """
        started = await self.settle(
            guess,
            sessions.start,
            kind,
            account_id,
            password_hash,
            self.device_id,
            await asyncio.to_thread(self.origin.described),
            self.parts.settings.sessions,
            clock.now(),
            previous=self.claims,
            announcement=make_announcement(self),
            language=self.language.code,
        )
        if started:
            self.parts.delivery.wake()
            cookie = self.parts.tokens.make_cookie(kind, account_id, started.session, started.ends_at)
            seconds = int((started.ends_at - clock.now()).total_seconds())
            self.keep_cookie("session", cookie, seconds)
            self.is_strange_cookie = False
        return started

    def go_on(self, kind: Kind, account: Row, address: str) -> None:
        """After signing in: on to `address`, or first to where an account confirms itself."""
        self.redirect_to(address if is_confirmed(kind, account) else "/confirm/")

    @property
    def device_id(self) -> str:
        """This browser, as devices are known by."""
        return f"browser {self.know_browser()}"

    def know_browser(self) -> str:
        """This browser's own id, which outlives its sessions; a new one where it has none.

        Pages with a form give it, so that of a double click both requests come from one browser.
        """
        if not self._browser:
            sent = self.read_cookie("browser")
            if not BROWSER.fullmatch(sent):
                sent = secrets.token_urlsafe(16)
                self.keep_cookie("browser", sent, LONGEST_COOKIE_SECONDS)
            self._browser = sent
        return self._browser


class SignInHandler(EntryHandler):
    """One form for users and clients: the account is found by what is typed."""

    def get(self) -> None:
        reason = REASONS.get(self.get_query_argument("why", ""))
        self._show(Form({"next": self.get_query_argument("next", "")}), reason=self._(reason) if reason else None)

    async def post(self) -> None:
        typed, form = self.read_form(SignIn, "next", "kind")
        if typed is None:
            self._show(form, 400)
            return
        contact: Contact = "email" if "@" in typed.identity else "phone"
        # What is no contact at all is refused in the same words, and in the same time, as one that nobody has.
        value = self.read_contact(contact, typed.identity, Form(), "identity") or f" {typed.identity}"
        chosen = KINDS.get(form.value("kind"))
        kinds = [kind for kind in KINDS.values() if contact in kind.contacts and chosen in (None, kind)] or [USER]
        guess = await self.admit(Purpose.PASSWORD, kinds, contact, value, self.device_id)
        found = guess.accounts
        right = await asyncio.gather(*(self.check_password(typed.password, row, guess) for _, row in found))
        matching = [(kind, row) for (kind, row), is_right in zip(found, right, strict=True) if is_right and row]
        if len(matching) > 1:
            await self.release(guess)
            form.errors["kind"] = self._(N_("Two accounts have this phone and password: choose one."))
            self._show(form, 400)
            return
        for kind, row in matching:
            # Whoever has one of two accounts may not guess the other's password by giving it to his own.
            if (wrong := guess.elsewhere(kind)).tries:
                await self.refuse(wrong)
            if await self.enter(kind, row["id"], row["password_hash"], guess):
                self.go_on(kind, row, local_address(form.value("next")))
                return
        if not matching:
            await self.refuse(guess)
        self._show(form, 400, wrong=self._(WRONG))

    def _show(self, form: Form, status: int = 200, **values: Any) -> None:
        shared = {
            "form": form,
            "wrong": None,
            "reason": None,
            "registration": self.parts.settings.accounts.registration,
        }
        self.know_browser()
        self.render_page("sign_in.html", status, **shared | values)


class SignOutHandler(PageHandler):
    """Ends this browser's session; whoever is signed out already is told the same."""

    is_open = True

    def get(self) -> None:
        if self.visitor or self.unconfirmed:
            self.render_page("sign_out.html")
        else:
            self.redirect_to("/sign-in/")

    async def post(self) -> None:
        await self.sign_out()


class EndLinkHandler(PageHandler):
    """Ends the device that a message told of: one click, without signing in."""

    is_open = True

    async def get(self, kind: str, id: str, mark: str) -> None:
        self._show(await self._find(KINDS[kind], read_id(id), mark))

    async def post(self, kind: str, id: str, mark: str) -> None:
        of, row = KINDS[kind], await self._find(KINDS[kind], read_id(id), mark)
        is_done = row is not None and await self.parts.database.write(
            sessions.end_by_link, of, row["id"], self.origin, clock.now()
        )
        self._show(None, is_done=is_done)

    async def _find(self, kind: Kind, session_id: int, mark: str) -> Row | None:
        """The session, unless it has ended; 404 where the link is not its own."""
        if not is_link(self.parts.keys, kind, session_id, mark):
            raise web.HTTPError(404)
        row = await self.parts.database.read(sessions.get_named, kind, session_id, clock.now())
        if row and not is_link_of(row, mark):
            raise web.HTTPError(404)
        return row

    def _show(self, row: Row | None, is_done: bool = False) -> None:
        language = self.language
        device = language.device(row["browser"], row["os"], row["device"]) if row else ""
        place = language.place(row, self.parts.places) if row else ""
        self.render_page("end.html", row=row, device=device, place=place, is_done=is_done)

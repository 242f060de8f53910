"""Pages: making an account, and confirming its contacts."""

from __future__ import annotations

from typing import Any

from handlers.forms import (
    TAKEN,
    WRONG_CODE,
    Confirmation,
    Form,
    Identity,
    Registration,
    clean_code,
)
from handlers.languages import N_
from handlers.letters import make_code
from handlers.pages import HOME
from handlers.sign_in import EntryHandler
from models import accounts, clock
from models.accounts import ContactTaken
from models.guesses import Purpose
from models.schema import KINDS, USER, Contact, Kind, Row


class RegisterHandler(EntryHandler):
    """Makes an account of either kind, and signs this browser in so that it can confirm itself."""

    def get(self) -> None:
        self._show(self._read_kind(self.get_query_argument("kind", "")), Form())

    async def post(self) -> None:
        kind = self._read_kind(self.field("kind"))
        settings = self.parts.settings.accounts
        if not settings.registration:
            self._show(kind, Form(), 403)
            return
        typed, form = self.read_form(Registration)
        if typed is None:
            self._show(kind, form, 400)
            return
        fields: dict[str, Any] = {"surname": typed.surname, "name": typed.name, "language": self.language.code}
        fields |= self.read_contacts(kind, typed, form)
        guess = await self.admit_registering()
        personal = accounts.personal_words(kind, fields)
        password_hash = await self.hash_new_password(typed.new_password, form, personal, guess)
        if password_hash is None:
            self._show(kind, form, 400)
            return
        if form.errors:
            await self.release(guess)
            self._show(kind, form, 400)
            return
        try:
            row = await self.parts.database.write(
                accounts.register, kind, fields, password_hash, self.origin, self.parts.keys, settings, clock.now(),
                make_code(self.language),
            )  # fmt: skip
        except ContactTaken as taken:
            # A double click, or somebody who has forgotten the account but not its password.
            if not await self._enter_again(kind, taken.contact, fields[taken.contact], typed.new_password):
                form.errors[taken.contact] = self._(TAKEN)
                self._show(kind, form, 400)
            return
        self.parts.delivery.wake()
        await self.enter(kind, row["id"], password_hash)
        self.redirect_to("/confirm/")

    async def _enter_again(self, kind: Kind, contact: Contact, value: str, password: str) -> bool:
        """Sign in to the account that has the contact, where the password is its own."""
        guess = await self.admit(Purpose.PASSWORD, [kind], contact, value, self.device_id)
        _, row = guess.accounts[0]
        if not (await self.check_password(password, row, guess) and row):
            await self.refuse(guess)
            return False
        if not await self.enter(kind, row["id"], row["password_hash"], guess):
            return False
        self.go_on(kind, row, HOME)
        return True

    def _read_kind(self, name: str) -> Kind:
        return KINDS.get(name, USER)

    def _show(self, kind: Kind, form: Form, status: int = 200) -> None:
        is_closed = not self.parts.settings.accounts.registration
        fewest = self.parts.settings.accounts.password_length
        self.know_browser()
        self.render_page("register.html", status, kind=kind, form=form, is_closed=is_closed, fewest=fewest)


class _ConfirmingHandler(EntryHandler):
    """A page about contacts that wait for their codes: of whoever is signed in, or of whoever types them."""

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of account that the contact may be of."""
        is_known = self.claims and (self.visitor or self.unconfirmed)
        return [self.claims.kind] if self.claims and is_known else list(KINDS.values())


class ConfirmHandler(_ConfirmingHandler):
    """Confirms a contact by its code."""

    async def get(self) -> None:
        await self._show(Form(), None)

    async def post(self) -> None:
        self.require_own_form()
        typed, form = self.read_form(Confirmation)
        found = self.read_identity(typed.identity, form) if typed else None
        if typed is None or found is None:
            await self._show(form, form.value("identity"), 400)
            return
        contact, value = found
        guess = await self.admit(Purpose.CODE, self.kinds, contact, value, self.device_id)
        row = await self.settle(
            guess, accounts.confirm, guess.kinds, contact, value, clean_code(typed.code), self.visitor, self.origin,
            self.parts.keys, clock.now(),
        )  # fmt: skip
        _, own = await self._read_own()
        if row is None and not (own and own.get(contact) == value and own[f"confirmed_{contact}"]):
            form.errors["code"] = self._(WRONG_CODE)
            await self._show(form, form.value("identity"), 400)
            return
        address = HOME if self.visitor or self.unconfirmed else "/sign-in/"
        self.redirect_to(address, N_("Thank you: {contact} is confirmed."), contact=value)

    async def _show(self, form: Form, failed: str | None, status: int = 200) -> None:
        kind, row = await self._read_own()
        open_ = (
            [contact for contact in kind.contacts if row[contact] and not row[f"confirmed_{contact}"]]
            if row and kind
            else []
        )
        if row and not open_:
            self.redirect_to("/account/" if self.visitor else HOME)
            return
        self.render_page("confirm.html", status, form=form, row=row, contacts=open_, failed=failed)

    async def _read_own(self) -> tuple[Kind | None, Row | None]:
        if self.visitor:
            kind = self.visitor.kind
            return kind, await self.parts.database.read(accounts.get, kind, self.visitor.account_id)
        return (self.claims.kind, self.unconfirmed) if self.claims and self.unconfirmed else (None, None)


class SendCodeHandler(_ConfirmingHandler):
    """Sends another code; the answer is the same whether or not there is such an account."""

    def get(self) -> None:
        self.redirect_to("/confirm/")

    async def post(self) -> None:
        self.require_own_form()
        typed, form = self.read_form(Identity)
        found = self.read_identity(typed.identity, form) if typed else None
        if found is None:
            self.render_page("confirm.html", 400, form=form, row=None, contacts=[], failed=form.value("identity"))
            return
        contact, value = found
        guess = await self.admit_sending(self.kinds, contact, value, self.device_id)
        # Answered first: it takes longer where there is something to send.
        self.redirect_to(
            "/confirm/",
            N_("If {contact} waits for a code, one is on its way, unless it was sent a moment ago."),
            contact=value,
        )
        if guess:
            await self.settle(
                guess, accounts.send_code, guess.kinds, contact, value, self.parts.keys, self.parts.settings.accounts,
                clock.now(), make_code(self.language),
            )  # fmt: skip
            self.parts.delivery.wake()

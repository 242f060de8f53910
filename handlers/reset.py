"""Pages: setting a new password where the old one is forgotten, by a code or by a link that staff send."""

from __future__ import annotations

from typing import NoReturn

from tornado import web

from handlers.base import read_id
from handlers.forms import WRONG_CODE, Form, Identity, NewPassword, Reset, clean_code
from handlers.languages import N_
from handlers.letters import make_code
from handlers.sign_in import EntryHandler
from models import accounts, clock, codes
from models.guesses import Purpose
from models.schema import KINDS, USER, Contact, Row

# How long a browser remembers for which contact it asked for a new password.
RESET_SECONDS = 3600


class ForgottenHandler(EntryHandler):
    """Asks for whom a new password is to be set, and sends a code there."""

    def get(self) -> None:
        self.render_page("forgotten.html", form=Form())

    async def post(self) -> None:
        typed, form = self.read_form(Identity)
        found = self.read_identity(typed.identity, form) if typed else None
        if found is None:
            self.render_page("forgotten.html", 400, form=form)
            return
        contact, value = found
        guess = await self.admit_sending([*KINDS.values()], contact, value, self.device_id)
        self.keep_sealed("reset", [contact, value], RESET_SECONDS)
        # Answered first: it takes longer where there is something to send.
        self.redirect_to("/reset/code/")
        if guess:
            await self.settle(
                guess, accounts.send_reset, guess.kinds, contact, value, self.parts.keys, self.parts.settings.accounts,
                clock.now(), make_code(self.language),
            )  # fmt: skip
            self.parts.delivery.wake()


class ResetHandler(EntryHandler):
    """Sets a new password by the code that was sent; every session of the account ends."""

    def get(self) -> None:
        if asked := self._read_asked():
            self._show(Form(), asked[1])
        else:
            self.redirect_to("/reset/")

    async def post(self) -> None:
        asked = self._read_asked()
        if asked is None:
            self.redirect_to("/reset/", N_("That took too long. Start again."), tone="wrong")
            return
        contact, value = asked
        typed, form = self.read_form(Reset)
        if typed is None:
            self._show(form, value, 400)
            return
        guess = await self.admit(Purpose.CODE, [*KINDS.values()], contact, value, self.device_id)
        # The password first: one that is too weak costs no try of the code.
        personal = accounts.personal_words(USER, {contact: value})
        password_hash = await self.hash_new_password(typed.new_password, form, personal, guess)
        if password_hash is None:
            self._show(form, value, 400)
            return
        if not await self.settle(
            guess, accounts.reset_password, guess.kinds, contact, value, clean_code(typed.code), password_hash,
            self.device_id, self.origin, self.parts.keys, clock.now(),
        ):  # fmt: skip
            form.errors["code"] = self._(WRONG_CODE)
            self._show(form, value, 400)
            return
        self.drop_cookie("reset")
        self.drop_cookie("session")
        self.is_strange_cookie = False
        self.redirect_to("/sign-in/", N_("The new password is set, and every device is signed out. Sign in with it."))

    def _read_asked(self) -> tuple[Contact, str] | None:
        asked = self.read_sealed("reset")
        return (asked[0], asked[1]) if asked else None

    def _show(self, form: Form, value: str, status: int = 200) -> None:
        fewest = self.parts.settings.accounts.password_length
        self.render_page("reset.html", status, form=form, contact=value, fewest=fewest)


class ResetLinkHandler(EntryHandler):
    """Sets the password of the account that staff sent a link to; every session of it ends."""

    async def get(self, kind: str, id: str, code: str) -> None:
        await self._check(kind, id, code)
        self.know_browser()
        self._show(Form())

    async def post(self, kind: str, id: str, code: str) -> None:
        row = await self._check(kind, id, code)
        typed, form = self.read_form(NewPassword)
        of = KINDS[kind]
        personal = accounts.personal_words(of, row)
        password_hash = await self.hash_new_password(typed.new_password, form, personal) if typed else None
        if password_hash is None:
            self._show(form, 400)
            return
        if not await self.parts.database.write(
            accounts.reset_by_link, of, row["id"], code, password_hash, self.device_id, self.origin, self.parts.keys,
            clock.now(),
        ):  # fmt: skip
            self._refuse()
        self.drop_cookie("session")
        self.is_strange_cookie = False
        self.redirect_to("/sign-in/", N_("The new password is set, and every device is signed out. Sign in with it."))

    async def _check(self, kind: str, id: str, code: str) -> Row:
        of, database = KINDS[kind], self.parts.database
        is_good = await database.read(codes.is_link, self.parts.keys, of, read_id(id), code, clock.now())
        row = await database.read(accounts.get, of, read_id(id)) if is_good else None
        if row is None or row["disabled_at"] is not None:
            self._refuse()
        return row

    def _refuse(self) -> NoReturn:
        self.render_error(
            404,
            self._(N_("This link is no longer good")),
            self._(N_("It was used, replaced by a newer one, or is older than a day. Ask for a code instead.")),
            ("/reset/", self._(N_("Set a new password"))),
        )
        raise web.Finish

    def _show(self, form: Form, status: int = 200) -> None:
        self.render_page("reset_link.html", status, form=form, fewest=self.parts.settings.accounts.password_length)

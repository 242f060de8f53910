"""Page: making the first staff account, once, on an empty database."""

from __future__ import annotations

from hmac import compare_digest
from typing import Any

from tornado import web

from handlers.forms import Form, Registration
from handlers.languages import N_
from handlers.pages import HOME
from handlers.sign_in import EntryHandler
from models import accounts, clock
from models.schema import USER


class SetupHandler(EntryHandler):
    """Good for whoever started the server, who was told the code, and only while there is no account."""

    async def get(self, code: str) -> None:
        await self._check(code)
        self._show(Form())

    async def post(self, code: str) -> None:
        await self._check(code)
        typed, form = self.read_form(Registration)
        if typed is None:
            self._show(form, 400)
            return
        now = clock.now()
        fields: dict[str, Any] = {
            "surname": typed.surname,
            "name": typed.name,
            "email": self.read_contact("email", typed.email, form, "email"),
            "language": self.language.code,
            "is_staff": True,
            "confirmed_by_staff_at": now,
        }
        personal = accounts.personal_words(USER, fields)
        password_hash = await self.hash_new_password(typed.new_password, form, personal)
        if form.errors or password_hash is None:
            self._show(form, 400)
            return
        row = await self.parts.database.write(accounts.create_first, USER, fields, password_hash, self.origin, now)
        if row is None:
            raise web.HTTPError(404)
        await self.enter(USER, row["id"], password_hash)
        self.redirect_to(HOME, N_("The first account is created. Here you see its devices and can end their sessions."))

    async def _check(self, code: str) -> None:
        is_right = compare_digest(code.encode(), self.parts.keys.fingerprint("setup", "")[:32].encode())
        if not is_right or not await self.parts.database.read(accounts.is_empty):
            raise web.HTTPError(404)

    def _show(self, form: Form, status: int = 200) -> None:
        self.know_browser()
        self.render_page("setup.html", status, form=form, fewest=self.parts.settings.accounts.password_length)

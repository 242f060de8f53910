"""Pages: the account itself: its fields, contacts, picture, password, what it is told, and all that is held on it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, ClassVar

import orjson
from tornado import web

from handlers.forms import (
    TAKEN,
    WRONG_CODE,
    ContactChange,
    ContactCode,
    Fields,
    Form,
    FormHandler,
    PasswordChange,
    clean_code,
)
from handlers.languages import N_
from handlers.letters import make_code
from models import accounts, clock, exports, pictures, profiles
from models.accounts import ContactTaken
from models.guesses import Purpose
from models.pictures import NotAPicture
from models.schema import Contact, Row

ADDRESS = "/account/"
# The picture, and what a form puts around it.
LARGEST_UPLOAD = pictures.LARGEST + 16 * 1024
# Each may take some hundred megabytes for a moment.
_ONE_PICTURE = asyncio.Semaphore(1)
# The desk's pages are read by the same few connections: who downloads leaves room for them.
_ONE_DOWNLOAD = asyncio.Semaphore(1)


class AccountHandler(FormHandler):
    """The whole page; each of its forms has a handler of its own, which shows the page again where it fails."""

    async def get(self) -> None:
        await self.show()

    async def show(self, status: int = 200, **forms: Form) -> None:
        """The page, with the forms that failed as they were typed."""
        row = await self.read_account()
        asked = await self.parts.database.read(profiles.list_asked, self.principal, clock.now())
        fields = Form({name: row[name] for name in profiles.FIELDS})
        shown = {"fields": fields, "email": Form(), "phone": Form(), "password": Form(), "picture": Form()}
        fewest = self.parts.settings.accounts.password_length
        kind = self.principal.kind
        # Each that another, confirmed one is left beside.
        sure = set(kind.list_sure(row))
        spare = [name for name in kind.contacts if sure - {name}]
        self.render_page(
            "account.html", status, row=row, asked=asked, spare=spare, forms_=shown | forms, fewest=fewest,
            largest=pictures.LARGEST,
        )  # fmt: skip

    async def read_account(self) -> Row:
        """The account's row."""
        row = await self.parts.database.read(accounts.get, self.principal.kind, self.principal.account_id)
        if row is None:
            raise web.HTTPError(403)
        return row


class _ActHandler(AccountHandler):
    """One form of the page."""

    async def get(self, *_args: str, **_kwargs: str) -> None:
        """Where a browser comes back to that left the form half done."""
        self.redirect_to(ADDRESS)

    async def turn_away_if(self, is_over: bool) -> None:
        """Send to the sign-in page whoever's session has ended since it was proved."""
        if is_over:
            await self.turn_away()


class FieldsHandler(_ActHandler):
    """The names and the address."""

    async def post(self) -> None:
        typed, form = self.read_form(Fields)
        if typed is None:
            await self.show(400, fields=form)
            return
        row = await self.parts.database.write(profiles.change_fields, self.principal, typed.model_dump(), clock.now())
        await self.turn_away_if(row is None)
        self.redirect_to(ADDRESS, N_("Saved."))


class _ContactHandler(_ActHandler):
    """A form about one of the account's contacts."""

    def contact(self, name: str) -> Contact:
        """The contact in the address; 404 where this kind of account has no such."""
        if name not in self.principal.kind.contacts:
            raise web.HTTPError(404)
        return name


class ContactHandler(_ContactHandler):
    """Sends a code to a new contact."""

    async def post(self, name: str) -> None:
        contact = self.contact(name)
        typed, form = self.read_form(ContactChange)
        value = self.read_contact(contact, typed.value, form, "value") if typed else None
        if value is None:
            await self.show(400, **{contact: form})
            return
        if value == (await self.read_account())[contact]:
            self.redirect_to(ADDRESS, N_("That is what it was."))
            return
        await self.require_recent(self._(N_("Send a code to {contact}"), contact=value))
        guess = await self.admit_principal(Purpose.SEND, self.principal, await self.read_account())
        try:
            is_sent = await self.settle(
                guess, profiles.ask_contact, self.principal, contact, value, self.parts.keys,
                self.parts.settings.accounts, clock.now(), make_code(self.language),
            )  # fmt: skip
        except ContactTaken:
            form.errors["value"] = self._(TAKEN)
            await self.show(400, **{contact: form})
            return
        self.parts.delivery.wake()
        if is_sent:
            self.redirect_to(ADDRESS, N_("A code is on its way to {contact}. Type it in below."), contact=value)
        else:
            self.redirect_to(ADDRESS, N_("A code was sent a moment ago. Wait a minute for another."), tone="wrong")


class ContactCodeHandler(_ContactHandler):
    """Replaces a contact by the new one, once that is proved."""

    async def post(self, name: str) -> None:
        contact = self.contact(name)
        typed, form = self.read_form(ContactCode)
        if typed is None:
            await self.show(400, **{contact: form})
            return
        guess = await self.admit_principal(Purpose.CODE, self.principal, await self.read_account())
        try:
            is_done = await self.settle(
                guess, profiles.replace_contact, self.principal, contact, typed.value, clean_code(typed.code),
                self.origin, self.parts.keys, clock.now(),
            )  # fmt: skip
        except ContactTaken:
            self.redirect_to(ADDRESS, TAKEN, tone="wrong")
            return
        if is_done:
            self.redirect_to(ADDRESS, N_("Thank you: {contact} is confirmed."), contact=typed.value)
        else:
            form.errors["code"] = self._(WRONG_CODE)
            await self.show(400, **{contact: form})


class NoContactHandler(_ContactHandler):
    """Takes a contact away from an account that has another."""

    async def post(self, name: str) -> None:
        contact = self.contact(name)
        value = (await self.read_account())[contact]
        if not value:
            self.redirect_to(ADDRESS, N_("That is what it was."))
            return
        await self.require_recent(self._(N_("Remove {contact}"), contact=value))
        if await self.parts.database.write(profiles.remove_contact, self.principal, contact, self.origin, clock.now()):
            self.redirect_to(ADDRESS, N_("{contact} was removed."), contact=value)
        else:
            self.redirect_to(ADDRESS, N_("An account keeps at least one confirmed contact."), tone="wrong")


class PictureHandler(_ActHandler):
    """A picture of one's own."""

    largest_body: ClassVar[int] = LARGEST_UPLOAD

    async def post(self) -> None:
        sent = self.request.files.get("picture", [])
        content = sent[0]["body"] if sent else b""
        try:
            if not content:
                raise NotAPicture
            async with _ONE_PICTURE:
                jpeg = await asyncio.to_thread(pictures.make, content)
        except NotAPicture:
            errors = {"picture": self._(N_("Choose a JPEG or PNG picture of up to 2 MB."))}
            await self.show(400, picture=Form(errors=errors))
            return
        await self.turn_away_if(not await self.parts.database.write(pictures.put, self.principal, jpeg, clock.now()))
        self.redirect_to(ADDRESS, N_("This is your picture now."))


class NoPictureHandler(_ActHandler):
    """Back to the picture that everybody has."""

    async def post(self) -> None:
        await self.turn_away_if(not await self.parts.database.write(pictures.put, self.principal, None, clock.now()))
        self.redirect_to(ADDRESS, N_("Your picture was removed."))


class PasswordHandler(_ActHandler):
    """A new password, which ends every other session."""

    async def post(self) -> None:
        typed, form = self.read_form(PasswordChange)
        if typed is None:
            await self.show(400, password=form)
            return
        principal, row = self.principal, await self.read_account()
        if not await self.confirm_password(typed.password):
            form.errors["password"] = self._(N_("This is not your password."))
            await self.show(400, password=form)
            return
        personal = accounts.personal_words(principal.kind, row)
        new_hash = await self.hash_new_password(typed.new_password, form, personal)
        if new_hash is None:
            await self.show(400, password=form)
            return
        is_changed = await self.parts.database.write(
            accounts.change_password, principal, row["password_hash"], new_hash, self.origin, clock.now()
        )
        await self.turn_away_if(not is_changed)
        self.redirect_to(ADDRESS, N_("The password is changed, and every other device is signed out."))


class TellingHandler(_ActHandler):
    """Whether a sign-in on a new device is told."""

    async def post(self) -> None:
        tells = self.field("tells_new_devices") == "on"
        if not tells:
            # A thief's first wish.
            await self.require_recent(self._(N_("Get no messages about new devices")))
        is_there = await self.parts.database.write(
            profiles.tell_new_devices, self.principal, tells, self.origin, clock.now()
        )
        await self.turn_away_if(not is_there)
        if tells:
            self.redirect_to(ADDRESS, N_("You will get a message when a new device signs in."))
        else:
            self.redirect_to(ADDRESS, N_("You will get no message when a new device signs in."))


class DownloadHandler(FormHandler):
    """Everything that is held on the account, as JSON."""

    async def get(self) -> None:
        principal, now = self.principal, clock.now()
        async with _ONE_DOWNLOAD:
            held = await self.parts.database.scan(lambda db: _dump(exports.gather(db, principal, now)))
        if held is None:
            await self.turn_away()
        self.set_header("Content-Type", "application/json")
        name = f"sessions-{principal.kind.name}-{principal.account_id}.json"
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        self.finish(held)


def _dump(held: dict[str, Any] | None) -> bytes | None:
    if held is None:
        return None
    return orjson.dumps(held, _write, orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATETIME)


def _write(value: Any) -> str:
    if isinstance(value, datetime):
        return clock.to_iso(value)
    raise TypeError(type(value))

"""JSON under /auth/: signing in, refreshing, registering, confirming, the password."""

from __future__ import annotations

import asyncio
import contextlib

from handlers.answers import shape_account, shape_tokens
from handlers.base import ApiHandler, Refusal, forbidden, not_valid
from handlers.bodies import CONFIRMATION, CONTACT, REGISTRATION, SIGN_IN, PasswordChange, Refresh
from handlers.letters import asked_in, make_announcement, make_code
from models import accounts, clock, sessions
from models.accounts import ContactTaken
from models.contacts import normalise
from models.guesses import Purpose
from models.principals import Principal
from models.schema import KINDS, Contact
from models.tokens import InvalidToken

WRONG = {"detail": "No active account found with the given credentials"}
TAKEN = "Another account has it. If it is yours, sign in or ask for a new password."


class StrangerHandler(ApiHandler):
    """What can be asked without a token."""

    is_open = True

    def normalise(self, contact: Contact, value: str) -> str:
        """The contact as accounts keep it; raises ValueError with a sentence."""
        return normalise(contact, value, self.parts.settings.accounts.country)

    def require(self, contact: Contact, value: str) -> str:
        """The same; raises 400."""
        try:
            return self.normalise(contact, value)
        except ValueError as error:
            raise Refusal(400, {contact: [str(error)]}) from None


class TokenHandler(StrangerHandler):
    """Signing in: starts a session on the device that asks."""

    async def post(self, kind: str) -> None:
        of, body = KINDS[kind], self.read_body(SIGN_IN[kind])
        contact, value = body.contact
        try:
            value = self.normalise(contact, value)
        except ValueError:
            # No account's: they have no spaces.
            value = f" {value}"
        guess = await self.admit(Purpose.PASSWORD, [of], contact, value, body.device_id)
        _, row = guess.accounts[0]
        if not (await self.check_password(body.password, row, guess) and row):
            await self.refuse(guess)
            raise Refusal(401, WRONG, WWW_Authenticate="Bearer")
        started = await self.settle(
            guess,
            sessions.start,
            of,
            row["id"],
            row["password_hash"],
            body.device_id,
            await asyncio.to_thread(self.origin.described),
            self.parts.settings.sessions,
            clock.now(),
            announcement=make_announcement(self),
        )
        self.parts.delivery.wake()
        if started is None:
            raise Refusal(401, WRONG, WWW_Authenticate="Bearer")
        self.answer(shape_tokens(self.parts.tokens, started))


class RefreshHandler(StrangerHandler):
    """A new access token, and the refresh token's successor."""

    async def post(self) -> None:
        try:
            claims = self.parts.tokens.check_refresh(self.read_body(Refresh).refresh)
        except InvalidToken:
            raise not_valid() from None
        started = await self.parts.database.write(
            sessions.refresh, claims, self.origin, self.parts.settings.sessions, clock.now()
        )
        if started is None:
            raise forbidden()
        self.answer(shape_tokens(self.parts.tokens, started))


class RegisterHandler(StrangerHandler):
    """Making an account; the codes that confirm its contacts are sent."""

    async def post(self, kind: str) -> None:
        settings = self.parts.settings.accounts
        if not settings.registration:
            raise Refusal(403, {"detail": "Registration is closed."})
        of, body = KINDS[kind], self.read_body(REGISTRATION[kind])
        fields = body.model_dump(exclude={"password"})
        for contact in of.contacts:
            if fields[contact] is not None:
                fields[contact] = self.require(contact, fields[contact])
        guess = await self.admit_registering()
        password_hash = await self.hash_password(of, "password", body.password, fields, guess)
        try:
            row = await self.parts.database.write(
                accounts.register, of, fields, password_hash, self.origin, self.parts.keys, settings, clock.now(),
                make_code(asked_in(self)),
            )  # fmt: skip
        except ContactTaken as taken:
            raise Refusal(400, {taken.contact: [TAKEN]}) from None
        self.parts.delivery.wake()
        self.answer(shape_account(of, row, self.site), 201)


class ConfirmHandler(StrangerHandler):
    """Confirming an e-mail address or a phone by the code that was sent to it.

    Who sends a token as well has the account's second contact count as its own.
    """

    async def post(self, kind: str) -> None:
        by = await self._find_caller()
        of, body = KINDS[kind], self.read_body(CONFIRMATION[kind])
        contact, typed = body.contact
        value = self.require(contact, typed)
        guess = await self.admit(Purpose.CODE, [of], contact, value)
        row = await self.settle(
            guess, accounts.confirm, [of], contact, value, body.code, by, self.origin, self.parts.keys, clock.now()
        )
        if row is None:
            raise Refusal(400, {"code": ["This code is wrong, used or too old. Ask for a new one."]})
        self.answer(shape_account(of, row, self.site))

    async def _find_caller(self) -> Principal | None:
        """Who asks, where a good token tells; one that is not confirmed yet is nobody here."""
        with contextlib.suppress(Refusal):
            return await self.prove()
        return None


class SendCodeHandler(StrangerHandler):
    """Another code; the answer is the same whether or not there is such an account."""

    async def post(self, kind: str) -> None:
        of, body = KINDS[kind], self.read_body(CONTACT[kind])
        contact, typed = body.contact
        value = self.require(contact, typed)
        guess = await self.admit_sending([of], contact, value)
        # Answered first: it takes longer where there is something to send.
        self.answer({"detail": "If this contact waits for a code, one is on its way."}, 202)
        if guess:
            settings = self.parts.settings.accounts
            await self.settle(
                guess, accounts.send_code, [of], contact, value, self.parts.keys, settings, clock.now(),
                make_code(asked_in(self)),
            )  # fmt: skip
            self.parts.delivery.wake()


class PasswordHandler(ApiHandler):
    """Changing one's own password, which ends every other session of the account."""

    async def post(self, kind: str) -> None:
        of = KINDS[kind]
        principal, body = self.own(of), self.read_body(PasswordChange)
        row = await self.parts.database.read(accounts.get, of, principal.account_id)
        if row is None:
            raise forbidden()
        guess = await self.admit_principal(Purpose.PASSWORD, principal, row)
        if not await self.check_password(body.password, row, guess):
            await self.refuse(guess)
            raise Refusal(400, {"password": ["This is not your password."]})
        await self.release(guess)
        new_hash = await self.hash_password(of, "new_password", body.new_password, row)
        if not await self.parts.database.write(
            accounts.change_password, principal, row["password_hash"], new_hash, self.origin, clock.now()
        ):
            raise forbidden()
        self.set_status(204)
        self.finish()

"""Forms as people fill them in: what was typed is kept, and each error stands at its field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from handlers.bodies import Filled, Secret, Text
from handlers.languages import N_
from handlers.pages import PageHandler
from models.contacts import normalise
from models.guesses import Guess
from models.passwords import LONGEST, WeakPassword
from models.schema import Contact, Kind

# More than any field takes, so that what is cut is never taken for what was typed.
LONGEST_KEPT = 3000

FILL_IN = N_("Fill this in.")
TOO_LONG = N_("This is too long: at most {most} characters.")
NOT_PLAIN = N_("Leave out control characters and marks that turn the text around.")
NO_EMAIL = N_("Enter an e-mail address, such as name@example.com.")
NO_CONTACT = N_("Give an e-mail address or a phone number.")
NO_PHONE = N_("Enter a phone number in international form, such as +79137779135.")
TAKEN = N_("Another account has it. If it is yours, sign in or ask for a new password.")
SHORT_PASSWORD = N_("Use at least {fewest} characters.")
LONG_PASSWORD = N_("Use at most {most} characters.")
WEAK_PASSWORD = N_("This password is too common or too easily guessed. Use a longer or a rarer one.")
WRONG_CODE = N_("This code is wrong, used or too old. Check it, or ask for a new one.")

# People copy codes with spaces around and within.
Code = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]


class Typed(BaseModel):
    """Fields of a form; what else is sent is not looked at."""

    # Built when first sent: a server starts sooner.
    model_config = ConfigDict(extra="ignore", defer_build=True)


class Identity(Typed):
    """Whoever signs in, by e-mail or phone."""

    identity: Filled


class SignIn(Identity):
    """Signing in."""

    password: Secret


class Registration(Typed):
    """Making an account; which contacts it needs is the kind's matter."""

    email: Text = ""
    phone: Text = ""
    surname: Text = ""
    name: Text = ""
    new_password: Secret


class Confirmation(Identity):
    """Confirming a contact by its code."""

    code: Code


class NewPassword(Typed):
    """Setting a new password by a link."""

    new_password: Secret


class Reset(NewPassword):
    """Setting a new password by a code."""

    code: Code


class Fields(Typed):
    """What an account says of itself."""

    surname: Text = ""
    name: Text = ""
    patronymic: Text = ""
    address: Text = ""


class ContactChange(Typed):
    """A new contact."""

    value: Filled


class ContactCode(ContactChange):
    """A new contact, proved by its code."""

    code: Code


class PasswordChange(Typed):
    """One's own password."""

    password: Secret
    new_password: Secret


@dataclass
class Form:
    """What was typed, and what is wrong with it; passwords and codes are never shown again."""

    values: dict[str, str] = field(default_factory=dict)
    errors: dict[str, Markup] = field(default_factory=dict)

    def value(self, name: str) -> str:
        """What a field shows."""
        return self.values.get(name, "")

    def error(self, name: str) -> Markup | None:
        """What is wrong with a field."""
        return self.errors.get(name)

    @property
    def blank(self) -> Form:
        """A form beside this one that nothing was typed into."""
        return Form()

    @property
    def first_error(self) -> str | None:
        """The field that the eye goes to first."""
        return next(iter(self.errors), None)


Model = TypeVar("Model", bound=Typed)


class FormHandler(PageHandler):
    """A page with a form."""

    def read_form(self, model: type[Model], *also: str) -> tuple[Model | None, Form]:
        """The form's fields, where they can be read, and what to show of it again; `also` are kept besides."""
        sent = {name: self.field(name) for name in model.model_fields}
        kept = {name: value[:LONGEST_KEPT] for name, value in sent.items() if not _is_secret(name)}
        form = Form(kept | {name: self.field(name)[:LONGEST_KEPT] for name in also})
        try:
            return model.model_validate(sent), form
        except ValidationError as error:
            for one in error.errors(include_url=False, include_input=False):
                form.errors.setdefault(str(one["loc"][0]), self._tell(one["type"], one.get("ctx", {})))
            return None, form

    def _tell(self, type_: str, context: dict[str, Any]) -> Markup:
        if type_ in ("string_too_short", "too_short"):
            return self._(FILL_IN)
        if type_ == "string_too_long":
            return self._(TOO_LONG, most=context["max_length"])
        return self._(NOT_PLAIN)

    def read_contact(self, contact: Contact, typed: str, form: Form, name: str) -> str | None:
        """The contact as accounts keep it; None, with the error at field `name`, where it is none."""
        try:
            return normalise(contact, typed, self.parts.settings.accounts.country)
        except ValueError:
            form.errors[name] = self._(NO_EMAIL if contact == "email" else NO_PHONE)
            return None

    def read_contacts(self, kind: Kind, typed: Typed, form: Form) -> dict[str, str | None]:
        """A new account's contacts, of which it needs one; None, with the error at its field, where one is none."""
        given: dict[Contact, str] = {contact: getattr(typed, contact) for contact in kind.contacts}
        if not any(given.values()):
            form.errors[kind.contacts[0]] = self._(NO_CONTACT if len(given) > 1 else FILL_IN)
        return {
            contact: self.read_contact(contact, text, form, contact) if text else None
            for contact, text in given.items()
        }

    def read_identity(self, typed: str, form: Form) -> tuple[Contact, str] | None:
        """Which contact was typed where either is welcome."""
        contact: Contact = "email" if "@" in typed else "phone"
        value = self.read_contact(contact, typed, form, "identity")
        return (contact, value) if value else None

    async def hash_new_password(
        self, password: str, form: Form, personal: Iterable[str], guess: Guess | None = None
    ) -> str | None:
        """The hash to keep; None, with the error at its field, where the password is too weak."""
        fewest = self.parts.settings.accounts.password_length
        try:
            return await self.hash_new(password, personal, guess)
        except WeakPassword:
            if len(password) < fewest:
                form.errors["new_password"] = self._(SHORT_PASSWORD, fewest=fewest)
            elif len(password) > LONGEST:
                form.errors["new_password"] = self._(LONG_PASSWORD, most=LONGEST)
            else:
                form.errors["new_password"] = self._(WEAK_PASSWORD)
            return None


def _is_secret(name: str) -> bool:
    return name == "code" or "password" in name


def clean_code(typed: str) -> str:
    """A code without the spaces and dashes that it was copied with."""
    return "".join(character for character in typed if character.isdigit())

"""The bodies that programs send; what is not listed is an error."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from models.schema import Contact


def is_plain(text: str) -> bool:
    """Whether a text is free of controls (NUL, line ends) and of the marks that turn text around: they make one thing
    look like another."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") or character in TURNING for character in text)


def _check_plain(text: str) -> str:
    if not is_plain(text):
        raise ValueError("Leave out control characters.")
    return text


TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), AfterValidator(_check_plain)]
Filled = Annotated[Text, Field(min_length=1)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Body(BaseModel):
    """A JSON object with these fields and no others, of these types and no others."""

    # Built when first sent: a server starts sooner.
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class EmailOrPhone(Body):
    """A contact of a user: one of the two."""

    email: Filled | None = None
    phone: Filled | None = None

    @model_validator(mode="after")
    def check_contact(self) -> Self:
        if (self.email is None) == (self.phone is None):
            raise ValueError("Give either email or phone.")
        return self

    @property
    def contact(self) -> tuple[Contact, str]:
        """Which contact, and what it is."""
        return ("email", self.email) if self.email is not None else ("phone", self.phone or "")


class Phone(Body):
    """A contact of a client."""

    phone: Filled

    @property
    def contact(self) -> tuple[Contact, str]:
        """Which contact, and what it is."""
        return "phone", self.phone


class _Credentials(Body):
    password: Secret
    # As it is: two that differ by a space are two devices.
    device_id: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_check_plain)] | None = None


class UserSignIn(EmailOrPhone, _Credentials):
    """Signing a user in."""


class ClientSignIn(Phone, _Credentials):
    """Signing a client in."""


class Refresh(Body):
    """Rotating a refresh token."""

    refresh: Annotated[str, StringConstraints(min_length=1, max_length=8192)]


class _Registration(Body):
    surname: Text = ""
    name: Text = ""
    patronymic: Text = ""
    address: Text = ""
    password: Secret


class UserRegistration(_Registration):
    """Making a user."""

    email: Filled | None = None
    phone: Filled | None = None

    @model_validator(mode="after")
    def check_contact(self) -> Self:
        if self.email is None and self.phone is None:
            raise ValueError("Give an email or a phone.")
        return self


class ClientRegistration(_Registration):
    """Making a client."""

    phone: Filled


class _Code(Body):
    code: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16)]


class UserConfirmation(EmailOrPhone, _Code):
    """Confirming a user's contact."""


class ClientConfirmation(Phone, _Code):
    """Confirming a client's contact."""


class PasswordChange(Body):
    """Changing one's own password."""

    password: Secret
    new_password: Secret


class Naming(Body):
    """Naming a session; null takes the name away."""

    name: Annotated[Filled, Field(max_length=64)] | None


class AccountChange(Body):
    """What staff change of an account; roles are for users."""

    confirmed: Literal[True] | None = None
    disabled: bool | None = None
    staff: bool | None = None
    viewer: bool | None = None
    reason: Filled | None = None


# Which body an address takes, by the kind in it.
SIGN_IN: dict[str, type[UserSignIn | ClientSignIn]] = {"user": UserSignIn, "client": ClientSignIn}
REGISTRATION: dict[str, type[UserRegistration | ClientRegistration]] = {
    "user": UserRegistration,
    "client": ClientRegistration,
}
CONTACT: dict[str, type[EmailOrPhone | Phone]] = {"user": EmailOrPhone, "client": Phone}
CONFIRMATION: dict[str, type[UserConfirmation | ClientConfirmation]] = {
    "user": UserConfirmation,
    "client": ClientConfirmation,
}

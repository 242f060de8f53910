"""E-mail addresses and phones: one way to write each."""

from __future__ import annotations

from models.schema import Contact


def normalise(contact: Contact, text: str, country: str) -> str:
    """The contact as accounts keep it; raises ValueError, with a sentence, where it is none."""
    return normalise_email(text) if contact == "email" else normalise_phone(text, country)


def normalise_email(text: str) -> str:
    """The address in lower case and NFC; raises ValueError, with a sentence, where it is none.

    RFC 5321 lets the part before the @ differ by case; nobody's does, and two accounts that differ by case
    alone would be a trap.
    """
    # Imported where it is used, like phonenumbers below: together they are a twentieth of the start.
    from email_validator import EmailNotValidError, validate_email

    if "=?" in text:
        # Mail programs read it as an encoded word (RFC 2047), and so as another address.
        raise ValueError("An e-mail address has no =? in it.")
    try:
        return validate_email(text, check_deliverability=False).normalized.lower()
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None


def normalise_phone(text: str, country: str = "") -> str:
    """The number in E.164 (`+79137779135`); without a + it is one of `country`. Raises ValueError."""
    import phonenumbers

    try:
        number = phonenumbers.parse(text, country or None)
    except phonenumbers.NumberParseException:
        number = None
    if number is None or not phonenumbers.is_valid_number(number):
        raise ValueError("Enter a phone number in international form, such as +79137779135.")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)

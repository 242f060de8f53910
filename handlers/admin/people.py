"""Whose a session or an event is, as the desk names people."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.languages import N_, Language
from models.schema import KINDS, Kind, Row

DESK = "/admin/"


@dataclass(frozen=True, slots=True)
class Person:
    """An account, as far as a line of a list tells of it."""

    kind: Kind
    id: int
    name: str
    # User 5: what is known of every account.
    numbered: str
    contact: str

    @property
    def address(self) -> str:
        """Its page."""
        return f"{DESK}accounts/{self.kind.name}/{self.id}/"


def make_person(kind: Kind, account_id: int, row: Row, language: Language, prefix: str = "account_") -> Person:
    """The person whose columns `row` has, each under `prefix`; one without a name goes by its contact or its number."""
    given = [row.get(f"{prefix}{name}") for name in ("name", "surname")]
    contact = next((row[f"{prefix}{one}"] for one in kind.contacts if row.get(f"{prefix}{one}")), "")
    numbered = name_account(kind.name, account_id, language)
    return Person(kind, account_id, " ".join(filter(None, given)) or contact or numbered, numbered, contact)


def name_account(kind: str, account_id: int, language: Language) -> str:
    """User 5: for whom nothing else is known."""
    text = N_("User {number}") if KINDS.get(kind) is KINDS["user"] else N_("Client {number}")
    return language.gettext(text, number=account_id)

"""What a list of the desk is narrowed by: read from the address, each error told at its field, each filter a chip.

An address is written in one way only, with times in UTC: whoever it is sent to sees the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

from markupsafe import Markup
from pydantic import ValidationError

from handlers.bodies import is_plain
from handlers.forms import LONGEST_KEPT, NOT_PLAIN, TOO_LONG, Form
from handlers.languages import N_, Language
from handlers.queries import AccountQuery, EventQuery, SessionQuery, encode, read_query
from models import clock

Query = TypeVar("Query", SessionQuery, AccountQuery, EventQuery)

NO_CHOICE = N_("Choose one of the list.")
NO_NUMBER = N_("Enter a number, such as 5.")
NO_KIND = N_("Choose the kind of account as well: each kind has numbers of its own.")
NO_ACCOUNT = N_("Give the number of the account as well.")
NO_NETWORK = N_("Enter an IP address or a network, such as 203.0.113.7 or 10.0.0.0/8.")
NO_TIME = N_("Enter a day and an hour, such as 2026-11-24 10:00.")
NO_SPAN = N_("Enter a time such as 30m, 12h or 7d.")

# What can't be asked for without another: each kind numbers its accounts by itself.
NEEDING = (("account", "kind", NO_KIND), ("session", "account", NO_ACCOUNT), ("by", "by_kind", NO_KIND))

# How addresses place a page of a list; they are no filters.
PAGING = ("after", "before", "limit")


@dataclass(frozen=True, slots=True)
class Field:
    """A filter as people read it: its name, its value in words, and what to say where it can't be read."""

    label: str
    tell: Callable[[Any, Language], str] = lambda value, _: str(value)
    error: str = NO_CHOICE
    is_time: bool = False


def time_field(label: str) -> Field:
    """A time, typed in the zone of whoever types it."""
    return Field(label, lambda at, language: language.moment(at), NO_TIME, is_time=True)


@dataclass(frozen=True, slots=True)
class Chip:
    """A filter that is on, and the address without it."""

    label: str
    value: str
    without: str


@dataclass
class Filters(Form, Generic[Query]):
    """The filters of one list as they were asked for."""

    address: str = ""
    query: Query | None = None
    # How the address says what could be read, and where in the list it is.
    written: dict[str, str] = field(default_factory=dict)
    paging: dict[str, str] = field(default_factory=dict)
    # What each value is called.
    words: dict[str, str] = field(default_factory=dict)
    chips: list[Chip] = field(default_factory=list)

    def to(self, **changes: str | None) -> str:
        """The address of the first page with these filters and `changes`; None and "" take one away."""
        return write_address(self.address, self.written | changes)

    @property
    def is_open(self) -> bool:
        """Whether the fields beside the search have to be seen: there is an error at one of them."""
        return bool(self.errors.keys() - {"q"})

    @property
    def here(self) -> str:
        """The address of this very page."""
        return write_address(self.address, self.written | self.paging)

    def page(self, **where: str | None) -> str | None:
        """The address of another page of the same list; None where there is none."""
        paging = {name: value for name, value in self.paging.items() if name == "limit"} | where
        return write_address(self.address, self.written | paging) if any(where.values()) else None


def write_address(address: str, named: Mapping[str, str | None]) -> str:
    """An address with what it asks for; None and "" are left out."""
    kept = {name: value for name, value in named.items() if value}
    return address + (f"?{urlencode(kept)}" if kept else "")


def read_filters(
    address: str, model: type[Query], fields: Mapping[str, Field], sent: Mapping[str, str], language: Language
) -> Filters[Query]:
    """The filters that `sent` asks for; what can't be read is told in their `errors`."""
    asked = {name: typed for name in (*fields, "sort", *PAGING) if (typed := sent.get(name, "").strip())}
    read: Filters[Query] = Filters(
        values={name: typed[:LONGEST_KEPT] for name, typed in asked.items()}, address=address
    )
    for name, typed in asked.items():
        if not is_plain(typed):
            read.errors[name] = language.gettext(NOT_PLAIN)
    for name, needed, error in NEEDING:
        if name in asked and needed in fields and needed not in asked:
            read.errors[name] = language.gettext(error)
    for name, one in fields.items():
        if one.is_time and name in asked:
            asked[name] = _to_utc(asked[name], language)
    query: Query | None = None
    try:
        query = read_query(model, {name: [typed.encode()] for name, typed in asked.items()})
    except ValidationError as error:
        for wrong in error.errors(include_url=False, include_input=False):
            if wrong["loc"]:
                name = str(wrong["loc"][0])
                read.errors.setdefault(name, _say(wrong["type"], wrong.get("ctx", {}), fields.get(name), language))
        # What is wrong with several at once is told above, or is about the place in the list.
    if read.errors or query is None:
        return read
    read.query = query
    read.written = dict(encode(query.filter))
    read.paging = {name: asked[name] for name in PAGING if name in asked}
    for name, one in fields.items():
        if name in read.written:
            value = getattr(query, name)
            if one.is_time:
                read.values[name] = f"{value.astimezone(language.zone):%Y-%m-%dT%H:%M}"
            read.words[name] = one.tell(value, language)
            read.chips.append(Chip(language.gettext(one.label), read.words[name], read.to(**{name: None})))
    return read


def _say(type_: str, context: Mapping[str, Any], one: Field | None, language: Language) -> Markup:
    if type_ == "string_too_long":
        return language.gettext(TOO_LONG, most=context["max_length"])
    return language.gettext(one.error if one else NO_CHOICE)


def _to_utc(typed: str, language: Language) -> str:
    """A time as addresses say it; what is none is left as it is."""
    try:
        at = datetime.fromisoformat(typed)
        return write_time(at if at.tzinfo else at.replace(tzinfo=language.zone))
    except (ValueError, OverflowError):
        return typed


def write_time(at: datetime) -> str:
    """A time as addresses say it, in UTC."""
    return clock.to_iso(at.astimezone(UTC))

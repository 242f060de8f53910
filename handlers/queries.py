"""What lists are asked for in an address: each filter's names, their text read, and written again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from handlers.bodies import Text
from models import clock
from models.filters import AccountFilter, AccountSort, AccountState, EventFilter, SessionFilter, SessionSort
from models.networks import Network
from models.schema import LONGEST_DEVICE_KEY, KindName
from models.tokens import LARGEST_ID

Model = TypeVar("Model", bound="ListQuery")

MOST_ON_A_PAGE = 200
# Asks for what has no value: a program has no system.
NONE = "-"
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def _read_time(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        at = datetime.fromisoformat(text.strip())
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("Give a time such as 2026-11-24T09:30:00Z, or a day such as 2026-11-24.") from None
    if not EARLIEST <= at < LATEST:
        raise ValueError("Give a time between 1970 and 9999.")
    return at


def _read_span(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    found = re.fullmatch(r"([0-9]{1,5})([mhd])", text.strip())
    if not found or int(found[1]) == 0:
        raise ValueError("Give a time such as 90m, 12h or 7d.")
    return int(found[1]) * UNITS[found[2]]


def _read_network(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return Network.parse(text)
    except ValueError:
        raise ValueError("Give an address such as 203.0.113.7, or a network such as 203.0.113.0/24.") from None


Time = Annotated[datetime, BeforeValidator(_read_time)]
Duration = Annotated[timedelta, BeforeValidator(_read_span)]
Address = Annotated[Network, BeforeValidator(_read_network)]
Id = Annotated[int, Field(ge=1, le=LARGEST_ID)]
Value = Annotated[Text, Field(max_length=100)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")]
Place = Annotated[str, StringConstraints(max_length=400)]


class ListQuery(BaseModel):
    """Where a page of a list begins, and how long it is; what is not named is an error."""

    # Built when first asked: a server starts sooner.
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, defer_build=True)

    after: Place | None = None
    before: Place | None = None
    limit: Annotated[int, Field(ge=1, le=MOST_ON_A_PAGE)] = 50

    @model_validator(mode="after")
    def check_place(self) -> Self:
        if self.after and self.before:
            raise ValueError("Give either after or before.")
        return self

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields if name not in ListQuery.model_fields}


class SessionQuery(ListQuery):
    """Which live sessions."""

    kind: KindName | None = None
    account: Id | None = None
    browser: Value | None = None
    os: Value | None = None
    device_kind: Value | None = None
    country: Value | None = None
    ip: Address | None = None
    started_from: Time | None = None
    started_to: Time | None = None
    seen_from: Time | None = None
    seen_to: Time | None = None
    idle: Duration | None = None
    q: Value | None = None
    device: Annotated[Text, Field(max_length=LONGEST_DEVICE_KEY)] | None = None
    sort: SessionSort = "-started"

    @model_validator(mode="after")
    def check_account(self) -> Self:
        if self.account is not None and self.kind is None:
            raise ValueError("Give the kind of the account too.")
        return self

    @property
    def filter(self) -> SessionFilter:
        """What it asks for."""
        values = self._values()
        for name in ("browser", "os", "device_kind", "country"):
            values[name] = "" if values[name] == NONE else values[name]
        return SessionFilter(network=values.pop("ip"), **values)


class AccountQuery(ListQuery):
    """Which accounts of a kind."""

    q: Value | None = None
    state: AccountState | None = None
    role: Literal["staff", "viewer"] | None = None
    sort: AccountSort = "-created"

    @property
    def filter(self) -> AccountFilter:
        """What it asks for."""
        return AccountFilter(**self._values())


class EventQuery(ListQuery):
    """Which events of the log."""

    type: Name | None = None
    cause: Name | None = None
    kind: KindName | None = None
    account: Id | None = None
    session: Id | None = None
    by_kind: KindName | None = None
    by: Id | None = None
    ip: Address | None = None
    since: Time | None = None
    until: Time | None = None

    @model_validator(mode="after")
    def check_account(self) -> Self:
        if self.account is not None and self.kind is None:
            raise ValueError("Give the kind of the account too.")
        if self.session is not None and self.account is None:
            raise ValueError("Give the account of the session too.")
        if self.by is not None and self.by_kind is None:
            raise ValueError("Give the kind of the account that did it too.")
        return self

    @property
    def filter(self) -> EventFilter:
        """What it asks for."""
        values = self._values()
        return EventFilter(network=values.pop("ip"), **values)


def find_empty(arguments: Mapping[str, Sequence[bytes]]) -> list[str]:
    """The names that are there with nothing to read."""
    return [name for name, text in _decode(arguments).items() if not text]


def _decode(arguments: Mapping[str, Sequence[bytes]]) -> dict[str, str]:
    return {name: values[-1].decode("utf-8", "replace").strip() for name, values in arguments.items() if values}


def read_query(model: type[Model], arguments: Mapping[str, Sequence[bytes]]) -> Model:
    """The query of an address; what is there but empty was not given. Raises pydantic's ValidationError."""
    return model.model_validate({name: text for name, text in _decode(arguments).items() if text})


def encode(sought: SessionFilter | AccountFilter | EventFilter) -> list[tuple[str, str]]:
    """The names and texts that `read_query` reads as this filter."""
    return [
        ("ip" if field.name == "network" else field.name, _write(value))
        for field in fields(sought)
        if (value := getattr(sought, field.name)) != field.default and field.name != "ids"
    ]


def _write(value: Any) -> str:
    if isinstance(value, datetime):
        return clock.to_iso(value)
    if isinstance(value, timedelta):
        name = next(name for name in ("d", "h", "m") if value % UNITS[name] == timedelta())
        return f"{value // UNITS[name]}{name}"
    return str(value) if value != "" else NONE

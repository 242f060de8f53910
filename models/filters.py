"""What staff ask lists for: plain values, and the conditions that they are to a query."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Column, ColumnElement, and_, false, literal_column, or_

from models import clock
from models.networks import Network
from models.paging import Order, Place
from models.schema import EVENTS, FACETS, KINDS, LONGEST_DEVICE_KEY, UNCONFIRMED, USER, Kind, KindName, fold_text
from models.spans import DAY, Span

SessionSort = Literal["-started", "started", "-seen", "seen"]
AccountSort = Literal["-created", "created", "surname"]
AccountState = Literal["active", "unconfirmed", "disabled"]
# Of a name and a surname together.
MOST_WORDS = 6
# Nothing that is stored is greater.
_LAST = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Term:
    """A condition, and the index that finds what meets it."""

    index: str | None
    condition: ColumnElement[bool]
    # Of a range of a column that is never empty: that column, and the conditions for what lies before and after it.
    column: ColumnElement[Any] | None = None
    outside: tuple[ColumnElement[bool], ...] = ()
    # Of a range of times.
    span: Span | None = None
    # The same condition, said for other indexes: by what they hold, as far as that tells.
    elsewhere: ColumnElement[bool] | None = None

    def by(self, index: str | None) -> ColumnElement[bool]:
        """The condition for rows that are found by an index."""
        return self.condition if self.elsewhere is None or index == self.index else self.elsewhere


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which live sessions; what is None is not asked for."""

    kind: KindName | None = None
    # Of `kind`.
    account: int | None = None
    # Empty: none is known.
    browser: str | None = None
    os: str | None = None
    device_kind: str | None = None
    country: str | None = None
    network: Network | None = None
    started_from: datetime | None = None
    started_to: datetime | None = None
    seen_from: datetime | None = None
    seen_to: datetime | None = None
    # Not seen for longer.
    idle: timedelta | None = None
    # How the e-mail address, the phone number or the surname of the account begins, or its name and surname.
    q: str | None = None
    # How the User-Agent begins; its first characters alone are compared.
    device: str | None = None
    ids: frozenset[tuple[KindName, int]] | None = None
    sort: SessionSort = "-started"

    @property
    def kinds(self) -> list[Kind]:
        """Of which kinds of account."""
        return [KINDS[self.kind]] if self.kind else list(KINDS.values())

    @property
    def facets(self) -> dict[str, str]:
        """What is asked of that sessions are counted by."""
        return {name: value for name in FACETS if (value := getattr(self, name)) is not None}

    def order(self, place: Place) -> Order:
        """How the list is sorted, for a page that begins at `place`."""
        return Order(place, "created_at" if "started" in self.sort else "last_seen_at", self.sort.startswith("-"))

    def seen_before(self, now: datetime) -> datetime | None:
        """The time from which on a session was not seen."""
        limits = [one for one in (self.seen_to, now - self.idle if self.idle else None) if one]
        return min(limits) if limits else None

    def terms(
        self, kind: Kind, of_accounts: ColumnElement[bool] | None, now: datetime, *, holds_seen: bool
    ) -> list[Term]:
        """All that is asked but the facets, of sessions of `kind`; `of_accounts`: which are of those that `q` finds.

        `holds_seen`: whether indexes hold when sessions were seen, as PostgreSQL's do, and not the day alone.
        """
        columns, seen_before, made = kind.sessions.c, self.seen_before(now), []
        if self.account is not None:
            made.append(Term("account_id", columns.account_id == self.account))
        if of_accounts is not None:
            made.append(Term("account_id", of_accounts))
        if self.ids is not None:
            made.append(Term(None, columns.id.in_([number for name, number in self.ids if name == kind.name])))
        if self.network:
            made.append(Term("ip_key", columns.ip_key.between(self.network.first, self.network.last)))
        if self.device:
            begin = fold_text(self.device)[:LONGEST_DEVICE_KEY]
            made.append(_begins(columns.device_key, begin))
        if self.started_from or self.started_to:
            made.append(_spanned("started", columns.created_at, self.started_from, self.started_to))
        if self.seen_from or seen_before:
            seen = _spanned("seen", columns.last_seen_at, self.seen_from, seen_before)
            made.append(replace(seen, elsewhere=_seen_elsewhere(kind, self.seen_from, seen_before, holds_seen)))
        return made

    def implied(self, kind: Kind) -> list[ColumnElement[bool]]:
        """What follows of it for a list by last seen, and ends it: nobody is seen before he signed in."""
        is_by_seen = "seen" in self.sort
        return [kind.sessions.c.last_seen_at >= self.started_from] if is_by_seen and self.started_from else []

    def dump(self) -> str:
        """As JSON, for `load`."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, datetime):
                value = clock.to_microseconds(value)
            elif isinstance(value, timedelta):
                value = value // clock.MICROSECOND
            elif isinstance(value, Network):
                value = str(value)
            elif isinstance(value, frozenset):
                value = sorted(value)
            if value is not None:
                values[field.name] = value
        return json.dumps(values)

    @classmethod
    def load(cls, dumped: str) -> SessionFilter:
        """What `dump` gave."""
        values = json.loads(dumped)
        for name in ("started_from", "started_to", "seen_from", "seen_to"):
            if name in values:
                values[name] = clock.from_microseconds(values[name])
        if "idle" in values:
            values["idle"] = values["idle"] * clock.MICROSECOND
        if "network" in values:
            values["network"] = Network.parse(values["network"])
        if "ids" in values:
            values["ids"] = frozenset((kind, number) for kind, number in values["ids"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class AccountFilter:
    """Which accounts of a kind."""

    # How the e-mail address, the phone number or the surname begins, or name and surname.
    q: str | None = None
    state: AccountState | None = None
    role: Literal["staff", "viewer"] | None = None
    sort: AccountSort = "-created"

    def order(self, place: Place) -> Order:
        """How the list is sorted, for a page that begins at `place`."""
        return Order(place, "surname_key" if self.sort == "surname" else "id", self.sort.startswith("-"))

    @property
    def index(self) -> str | None:
        """The index of the few that are not as most are."""
        if self.q:
            return None
        return "staff" if self.role else self.state if self.state != "active" else None

    def conditions(self, kind: Kind) -> list[ColumnElement[bool]]:
        """All that is asked but `q`."""
        columns = kind.accounts.c
        made: list[ColumnElement[bool]] = []
        if self.state == "disabled":
            made.append(columns.disabled_at.is_not(None))
        elif self.state == "unconfirmed":
            # Word for word as the index has it.
            made.append(_is(f"disabled_at IS NULL AND {UNCONFIRMED[kind.name]}"))
        elif self.state == "active":
            made += [columns.disabled_at.is_(None), kind.is_confirmed]
        if self.role and kind is not USER:
            made.append(false())
        elif self.role:
            made.append(_is("is_staff OR is_viewer"))
            made.append(columns.is_staff if self.role == "staff" else and_(columns.is_viewer, ~columns.is_staff))
        return made


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events of the log."""

    type: str | None = None
    cause: str | None = None
    kind: KindName | None = None
    # Of `kind`.
    account: int | None = None
    # Of `account`.
    session: int | None = None
    by_kind: KindName | None = None
    # Of `by_kind`.
    by: int | None = None
    network: Network | None = None
    since: datetime | None = None
    until: datetime | None = None

    @staticmethod
    def order(place: Place) -> Order:
        """How the list is sorted, for a page that begins at `place`: the newest first."""
        return Order(place, "at")

    @property
    def is_counted(self) -> bool:
        """Whether the counts that are kept answer it."""
        return all(one is None for one in (self.account, self.session, self.by_kind, self.by, self.network))

    def terms(self) -> list[Term]:
        """All that is asked; those that an index finds in the list's own order come first."""
        columns, made = EVENTS.c, []
        if self.cause is not None:
            made.append(Term("cause", columns.cause == self.cause))
        if self.type is not None:
            made.append(Term("type", columns.type == self.type))
        if self.by is not None:
            made.append(Term("by", and_(columns.by_kind == self.by_kind, columns.by_id == self.by)))
        elif self.by_kind is not None:
            made.append(Term(None, columns.by_kind == self.by_kind))
        if self.network:
            made.append(Term("ip_key", columns.ip_key.between(self.network.first, self.network.last)))
        if self.account is not None:
            made.append(Term("kind_account_id_id", and_(columns.kind == self.kind, columns.account_id == self.account)))
        elif self.kind is not None:
            made.append(Term(None, columns.kind == self.kind))
        if self.session is not None:
            made.append(Term(None, columns.session_id == self.session))
        if self.since or self.until:
            made.append(_spanned("at", columns.at, self.since, self.until))
        return made


def _is(condition: str) -> ColumnElement[bool]:
    """A condition word for word, as an index of some rows has it."""
    # As a Boolean SQLite would be asked for "… = 1", which is not what the index says.
    return literal_column(f"({condition})")


def _begins(column: Column[str], text: str) -> Term:
    """Whether `column`, which is compared by code points, begins with `text`: a range of its index."""
    last = text + _LAST
    return Term(column.name, and_(column >= text, column < last), column, (column < text, column >= last))


def begins_of_account(kind: Kind, q: str) -> list[ColumnElement[bool]]:
    """The ways in which `q` may be the beginning of what an account is known by."""
    columns = kind.accounts.c
    made = []
    phone = re.sub(r"[\s().-]", "", q)
    if re.fullmatch(r"\+?[0-9]+", phone):
        made.append(_begins(columns.phone, phone if phone.startswith("+") else f"+{phone}"))
    made.append(_begins(columns.surname_key, fold_text(q)))
    if "email" in kind.contacts:
        made.append(_begins(columns.email, q.strip().lower()))
    return [*(term.condition for term in made), *_names(kind, q)]


def _names(kind: Kind, q: str) -> list[ColumnElement[bool]]:
    """Name and surname in full, in either order: as pages call people."""
    columns, words, made = kind.accounts.c, q.split(), []
    for number in range(1, len(words) if len(words) <= MOST_WORDS else 0):
        parts = " ".join(words[:number]), " ".join(words[number:])
        for name, surname in (parts, parts[::-1]):
            # What is kept of a name has its capitals, and no database folds those of every language.
            forms = sorted({name, name.lower(), name.upper(), name.title(), name.capitalize()})
            made.append(and_(columns.surname_key == fold_text(surname), columns.name.in_(forms)))
    return made


def _seen_elsewhere(
    kind: Kind, since: datetime | None, until: datetime | None, holds_seen: bool
) -> ColumnElement[bool]:
    """Which sessions were last seen in that time, by what the indexes of other things hold, as far as that tells.

    Nobody is seen before he signed in; and most were seen on whole days of it, or on others. Few rows need be read.
    """
    columns = kind.sessions.c

    def is_seen(span: Span) -> ColumnElement[bool]:
        is_in = and_(*span.within(columns.last_seen_at))
        if holds_seen:
            return is_in
        is_surely = and_(*span.whole.within(columns.seen_on, DAY))
        return and_(*span.widened.within(columns.seen_on, DAY), or_(is_surely, is_in))

    made = []
    if until is not None:
        span = Span.between(None, until)
        made += [*span.within(columns.created_at), is_seen(span)]
    if since is not None:
        span = Span.between(since, None)
        made.append(or_(*span.within(columns.created_at), is_seen(span)))
    return and_(*made)


def _spanned(index: str, column: ColumnElement[Any], since: datetime | None, until: datetime | None) -> Term:
    """From `since`, up to `until` and not with it, either of which may be None; of a time that is never empty."""
    span = Span.between(since, until)
    return Term(index, and_(*span.within(column)), column, span.outside(column), span)

"""The tables, and the two kinds of account that they serve."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    TypeDecorator,
    false,
    or_,
    text,
    true,
)

from models import clock
from models.networks import make_key

KindName = Literal["user", "client"]
Contact = Literal["email", "phone"]
# A row that was read: its values by the names of its columns.
Row = Mapping[Any, Any]

# What staff's powers are; most accounts have none.
Role = Literal["", "viewer", "staff"]

Id = BigInteger().with_variant(Integer, "sqlite")
# Text that is compared by its code points, so that what begins alike stands together, whatever the database's locale.
Plain = String().with_variant(String(collation="C"), "postgresql")
LONGEST_DEVICE_KEY = 64


def fold_text(text: str) -> str:
    """`text` as searches compare it: without regard to case, NFC or spaces around."""
    return unicodedata.normalize("NFC", text.strip()).casefold()


def _given(name: str, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A column's value in a new row, made of another's."""
    return lambda context: make(context.get_current_parameters().get(name) or "")


class UTC(TypeDecorator[datetime]):
    """Aware UTC times as microseconds since 1970.

    One integer compares, sorts, groups and indexes alike on every database, loses nothing, and needs no
    parsing where a request reads it.
    """

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else clock.to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else clock.from_microseconds(value)


class Times(TypeDecorator[list[datetime]]):
    """Some aware UTC times, as a JSON list of microseconds since 1970; none is NULL."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: list[datetime] | None, dialect: Dialect) -> list[int] | None:
        return [clock.to_microseconds(at) for at in value] if value else None

    def process_result_value(self, value: list[int] | None, dialect: Dialect) -> list[datetime]:
        return [clock.from_microseconds(at) for at in value or ()]


# Constraints have names that a migration can speak of.
METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _has(name: str, type_: Any = String, *more: Any, **options: Any) -> Column[Any]:
    """A column that has a value in each row."""
    return Column(name, type_, *more, nullable=False, **options)


def _may(name: str, type_: Any = String, **options: Any) -> Column[Any]:
    """A column that may have none."""
    return Column(name, type_, **options)


def _key(name: str, type_: Any = String) -> Column[Any]:
    """A part of what names a row."""
    return Column(name, type_, primary_key=True, autoincrement=False)


def _numbered(name: str, *columns: Column[Any] | Index) -> Table:
    """A table whose rows have an id that is never used again."""
    return Table(
        name, METADATA, Column("id", Id, primary_key=True, autoincrement=True), *columns, sqlite_autoincrement=True
    )


def _partial(name: str | None, where: str, *columns: str, **options: Any) -> Index:
    """An index of the rows that `where` says alone.

    On PostgreSQL too, by its migration: said here, it would have each server on SQLite load PostgreSQL's dialect.
    """
    return Index(name, *columns, sqlite_where=text(where), **options)


# What the indexes of accounts that still have to confirm themselves say, word for word as queries ask it.
UNCONFIRMED: dict[KindName, str] = {
    "user": "NOT confirmed_email AND NOT confirmed_phone AND confirmed_by_staff_at IS NULL",
    "client": "NOT confirmed_phone AND confirmed_by_staff_at IS NULL",
}


def _accounts(name: str, kind: KindName, *own: Column[Any] | Index) -> Table:
    """What users and clients share, and what is a kind's own."""
    return _numbered(
        name,
        _has("surname", default=""),
        # What searches compare.
        _has("surname_key", Plain, default=_given("surname", fold_text), server_default=""),
        _has("name", default=""),
        _has("patronymic", default=""),
        _has("address", default=""),
        _may("phone", Plain, unique=True),
        _may("image"),
        # Whether a sign-in on a device never seen before is told to the account by mail or SMS.
        _has("tells_new_devices", Boolean, default=True, server_default=true()),
        # The language that its messages are written in; empty: none was told.
        _has("language", default="", server_default=""),
        _has("password_hash"),
        _has("confirmed_phone", Boolean, default=False),
        # The one that somebody confirmed by its code alone when another was confirmed already: he may have nothing but
        # the phone or the mailbox that the owner mistyped.
        _may("doubtful_contact"),
        _may("confirmed_by_staff_at", UTC),
        _may("disabled_at", UTC),
        _has("created_at", UTC),
        _has("updated_at", UTC),
        # Moved by whatever changes the account or its sessions: names the state an answer was built from.
        _has("revision", BigInteger, default=1),
        *own,
        Index(f"ix_{name}_surname_key", "surname_key", "id"),
        _partial(f"ix_{name}_disabled", "disabled_at IS NOT NULL", "id"),
        _partial(f"ix_{name}_unconfirmed", f"disabled_at IS NULL AND {UNCONFIRMED[kind]}", "id"),
    )


# Staff of the business, and whoever else signs in with e-mail.
USERS = _accounts(
    "users",
    "user",
    _may("email", Plain, unique=True),
    _has("confirmed_email", Boolean, default=False),
    _has("is_staff", Boolean, default=False),
    # Sees all that staff see, and changes nothing of it.
    _has("is_viewer", Boolean, default=False, server_default=false()),
    _partial("ix_users_staff", "is_staff OR is_viewer", "id"),
)

# Customers of the business.
CLIENTS = _accounts("clients", "client")

# What sessions are counted by, beside the days of their times.
FACETS = ("country", "browser", "os", "device_kind")


def _sessions(name: str, accounts: Table) -> Table:
    """Live sessions; ending one deletes its row.

    No credential is stored: `sid` names the session inside signed tokens.
    """
    return _numbered(
        name,
        _has("account_id", Id, ForeignKey(accounts.c.id, ondelete="CASCADE")),
        _has("sid", unique=True),
        _has("device"),
        _has(
            "device_key",
            Plain,
            default=_given("device", lambda text: fold_text(text)[:LONGEST_DEVICE_KEY]),
            server_default="",
        ),
        _may("device_id"),
        _may("name"),
        _has("ip"),
        # The address as a number of 16 bytes, IPv4 mapped into IPv6: a network is a range of them.
        _may("ip_key", LargeBinary, default=_given("ip", make_key)),
        _has("browser"),
        _has("os"),
        _has("device_kind"),
        _has("country"),
        _has("city"),
        _has("created_at", UTC),
        _has("last_seen_at", UTC),
        _has("expires_at", UTC),
        # Counts the refresh tokens given: the newest is good, and for a moment those before it.
        _has("generation", Integer, default=1),
        _has("refreshed_at", UTC),
        # When those that may still be good were used, but for the last one.
        _may("refreshed_before", Times),
        # When the account's password was last given in this session; none: it was started without.
        _may("password_at", UTC),
        # "device": the account had never signed in on it; "country": nor ever from there; "": neither.
        _has("novelty", default="", server_default=""),
        # The day of `last_seen_at`, counted from 1970: the database writes it (a trigger), once a day, so that indexes
        # may hold it.
        _has("seen_on", Integer, server_default="0"),
        # Each index is a page more to write when a session ends.
        _partial(None, "device_id IS NOT NULL", "account_id", "device_id", unique=True),
        Index(None, "expires_at"),
        # What staff's lists go by. Most of a filter is answered by an index alone. On PostgreSQL the last three hold
        # last_seen_at as well, by their migration: whatever is written of a row, it writes to each of its indexes.
        Index(f"ix_{name}_started", "created_at", "id", *FACETS),
        Index(f"ix_{name}_seen", "last_seen_at", "id", *FACETS, "created_at"),
        Index(f"ix_{name}_make", *FACETS, "created_at", "id"),
        *(
            Index(f"ix_{name}_{key}", key, "created_at", "id", *FACETS, "seen_on")
            for key in ("account_id", "ip_key", "device_key")
        ),
    )


USER_SESSIONS = _sessions("user_sessions", USERS)
CLIENT_SESSIONS = _sessions("client_sessions", CLIENTS)

# What happened: who, to whom, when, from where, why.
EVENTS = _numbered(
    "events",
    _has("at", UTC),
    _has("type"),
    _may("cause"),
    _may("kind"),
    _may("account_id", Id),
    _may("session_id", Id),
    # Who did it; none: the server itself, or somebody who is not signed in.
    _may("by_kind"),
    _may("by_id", Id),
    _may("device"),
    _may("ip"),
    _may("ip_key", LargeBinary, default=_given("ip", make_key)),
    _may("country"),
    # In the words of whoever did it.
    _may("reason"),
    # What a refused guess, or a code that was sent, is counted by (models/guesses.py); keyed hashes.
    _may("target"),
    _may("network"),
    # PostgreSQL: the transaction that wrote it, for a tail that must not skip; filled in by the database.
    _may("tx", BigInteger),
    Index(None, "kind", "account_id", "id"),
    Index(None, "at"),
    Index(None, "tx", sqlite_where=text("tx IS NOT NULL")),
    Index("ix_events_type", "type", "at", "id"),
    _partial("ix_events_cause", "cause IS NOT NULL", "cause", "at", "id"),
    _partial("ix_events_by", "by_id IS NOT NULL", "by_kind", "by_id", "at", "id"),
    _partial("ix_events_ip_key", "ip_key IS NOT NULL", "ip_key", "at", "id"),
    *(_partial(None, f"{name} IS NOT NULL", name, "at") for name in ("target", "network")),
)

# Passwords and codes that are being tried; a row goes when it is known to be right, or is in the event log.
GUESSES = _numbered(
    "guesses",
    _has("target"),
    _may("network"),
    _has("at", UTC),
    Index(None, "target", "at"),
    Index(None, "network", "at"),
)

# Six-digit codes that were sent to a contact, kept only as their keyed hashes.
CODES = _numbered(
    "codes",
    _has("kind"),
    _has("account_id", Id),
    _has("purpose"),
    _has("hash"),
    _has("attempts_left", Integer),
    _has("created_at", UTC),
    _has("expires_at", UTC),
    Index(None, "kind", "account_id", "purpose", unique=True),
)

# Mails and SMS that wait to be sent; a row goes when it is sent or given up.
MESSAGES = _numbered(
    "messages",
    _has("channel"),
    _has("recipient"),
    # Sealed with the key set: a code that waits to be sent can't be read out of a stolen database.
    _has("sealed"),
    _has("attempts", Integer, default=0),
    _has("created_at", UTC),
    _has("due_at", UTC),
    Index(None, "due_at"),
)

# Devices and countries that an account has signed in from: what is not in here is new to it.
KNOWN_DEVICES = _numbered(
    "known_devices",
    _has("kind"),
    _has("account_id", Id),
    _has("mark"),
    _has("created_at", UTC),
    Index(None, "kind", "account_id", "mark", unique=True),
)

# Accounts' own pictures; in the database, so that every server has them.
PICTURES = _numbered(
    "pictures",
    _has("kind"),
    _has("account_id", Id),
    # Named by its content: a picture that changes has another address.
    _has("file"),
    _has("jpeg", LargeBinary),
    Index(None, "kind", "account_id", unique=True),
)

# The time up to which every session of a kind was ended at once; a row for each kind, always.
CUTOFFS = Table("cutoffs", METADATA, _key("kind"), _has("at", UTC))

# How many sessions there are of each make and country, up to what was added up last.
SESSION_COUNTS = Table(
    "session_counts", METADATA, _key("kind"), *(_key(facet) for facet in FACETS), _has("count", BigInteger)
)

# The same by the days on which they were started and last seen: how many since 1970, UTC.
DAYS = ("started_on", "seen_on")
SESSION_DAYS = Table(
    "session_days", METADATA, _key("kind"), *(_key(day, Integer) for day in DAYS), _has("count", BigInteger)
)

# Sessions that came or went since, or were seen on another day, written by PostgreSQL itself beside the session's own
# row: none waits for another's count there. SQLite, where one writes at a time, moves the counts themselves.
SESSION_MOVES = _numbered(
    "session_moves",
    _has("kind"),
    *(_has(facet) for facet in FACETS),
    *(_has(day, Integer) for day in DAYS),
    _has("count", BigInteger),
)

# How many events of each sort an hour had, of those that were added up.
EVENT_COUNTS = Table(
    "event_counts",
    METADATA,
    # The hour's beginning.
    _key("at", UTC),
    _key("type"),
    # Empty: none.
    _key("cause"),
    _key("kind"),
    _has("count", BigInteger),
)

# How far the log was added up: the events before this id (PostgreSQL: of transactions before this one).
EVENT_MARKS = Table("event_marks", METADATA, _key("mark", BigInteger))

# Ending many sessions, some at a time: what was asked, by whom, and how far it is.
JOBS = _numbered(
    "jobs",
    # What is to end, as JSON.
    _has("filter"),
    _may("reason"),
    _has("by_id", Id),
    _has("ip"),
    _has("country"),
    _has("created_at", UTC),
    # How many matched when it was asked, and how many it has ended.
    _has("total", BigInteger),
    _has("ended", BigInteger, default=0, server_default=text("0")),
    # Where it goes on.
    _may("place"),
    # Nobody else works on it before then.
    _may("taken_until", UTC),
    _may("finished_at", UTC),
    # Whoever asked may no longer end sessions.
    _has("is_stopped", Boolean, default=False, server_default=false()),
    _partial("ix_jobs_open", "finished_at IS NULL", "id"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One of the two kinds of account, and all that differs between them."""

    name: KindName
    # The tables of its accounts and of their live sessions.
    accounts: Table
    sessions: Table
    claim: str
    contacts: tuple[Contact, ...]
    fields: tuple[str, ...]

    @property
    def is_confirmed(self) -> ColumnElement[bool]:
        """Whether an account of this kind is confirmed: by one of its contacts, or by staff."""
        columns = self.accounts.c
        return or_(
            *(columns[f"confirmed_{contact}"] for contact in self.contacts),
            columns.confirmed_by_staff_at.is_not(None),
        )

    def list_proven(self, account: Row) -> list[Contact]:
        """The contacts that a code proved to be the account's own; of one that staff confirmed by hand, all: they vouch
        for what they saw there."""
        if account["confirmed_by_staff_at"] is not None:
            return [contact for contact in self.contacts if account[contact]]
        return self.list_sure(account)

    def list_sure(self, account: Row) -> list[Contact]:
        """The contacts that are confirmed, but the doubtful one."""
        confirmed = [contact for contact in self.contacts if account[contact] and account[f"confirmed_{contact}"]]
        return [contact for contact in confirmed if contact != account["doubtful_contact"]]


USER = Kind(
    name="user",
    accounts=USERS,
    sessions=USER_SESSIONS,
    claim="user_id",
    contacts=("email", "phone"),
    fields=(
        "id",
        "surname",
        "name",
        "patronymic",
        "address",
        "email",
        "phone",
        "image",
        "confirmed_email",
        "confirmed_phone",
        "created_at",
        "updated_at",
    ),
)
CLIENT = Kind(
    name="client",
    accounts=CLIENTS,
    sessions=CLIENT_SESSIONS,
    claim="client_id",
    contacts=("phone",),
    fields=(
        "id",
        "surname",
        "name",
        "patronymic",
        "address",
        "phone",
        "image",
        "confirmed_phone",
        "created_at",
        "updated_at",
    ),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in (USER, CLIENT)}

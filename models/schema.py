"""The tables, and the two kinds of account that they serve."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

from sqlalchemy import (
    BigInteger,
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
    column,
    false,
    or_,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from models import clock
from models.networks import make_key

KindName = Literal["user", "client"]
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


class Base(DeclarativeBase):
    """Every table; constraints have names that a migration can speak of."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {datetime: UTC(), str: String()}


# What the indexes of accounts that still have to confirm themselves say, word for word as queries ask it.
UNCONFIRMED: dict[KindName, str] = {
    "user": "NOT confirmed_email AND NOT confirmed_phone AND confirmed_by_staff_at IS NULL",
    "client": "NOT confirmed_phone AND confirmed_by_staff_at IS NULL",
}


def _partial(name: str, where: str, *columns: str) -> Index:
    """An index of the rows that `where` says alone."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


class Numbered:
    """A row with an id that is never used again."""

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True, sort_order=-1)


class Account(Numbered):
    """What users and clients share."""

    surname: Mapped[str] = mapped_column(default="")
    # What searches compare.
    surname_key: Mapped[str] = mapped_column(Plain, default=_given("surname", fold_text), server_default="")
    name: Mapped[str] = mapped_column(default="")
    patronymic: Mapped[str] = mapped_column(default="")
    address: Mapped[str] = mapped_column(default="")
    phone: Mapped[str | None] = mapped_column(Plain, unique=True)
    image: Mapped[str | None]
    # Whether a sign-in on a device never seen before is told to the account by mail or SMS.
    tells_new_devices: Mapped[bool] = mapped_column(default=True, server_default=true())
    # The language that its messages are written in; empty: none was told.
    language: Mapped[str] = mapped_column(default="", server_default="")
    password_hash: Mapped[str]
    confirmed_phone: Mapped[bool] = mapped_column(default=False)
    confirmed_by_staff_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    # Moved by whatever changes the account or its sessions: names the state an answer was built from.
    revision: Mapped[int] = mapped_column(BigInteger, default=1)


class User(Account, Base):
    """Staff of the business, and whoever else signs in with e-mail."""

    __tablename__ = "users"
    __table_args__ = (
        Index("ix_users_surname_key", "surname_key", "id"),
        _partial("ix_users_disabled", "disabled_at IS NOT NULL", "id"),
        _partial("ix_users_unconfirmed", f"disabled_at IS NULL AND {UNCONFIRMED['user']}", "id"),
        _partial("ix_users_staff", "is_staff OR is_viewer", "id"),
        {"sqlite_autoincrement": True},
    )

    email: Mapped[str | None] = mapped_column(Plain, unique=True)
    confirmed_email: Mapped[bool] = mapped_column(default=False)
    is_staff: Mapped[bool] = mapped_column(default=False)
    # Sees all that staff see, and changes nothing of it.
    is_viewer: Mapped[bool] = mapped_column(default=False, server_default=false())


class Client(Account, Base):
    """Customers of the business."""

    __tablename__ = "clients"
    __table_args__ = (
        Index("ix_clients_surname_key", "surname_key", "id"),
        _partial("ix_clients_disabled", "disabled_at IS NOT NULL", "id"),
        _partial("ix_clients_unconfirmed", f"disabled_at IS NULL AND {UNCONFIRMED['client']}", "id"),
        {"sqlite_autoincrement": True},
    )


# What sessions are counted by.
FACETS = ("country", "browser", "os", "device_kind")


class DeviceSession(Numbered):
    """A live session; ending it deletes the row.

    No credential is stored: `sid` names the session inside signed tokens.
    """

    __tablename__: str
    _accounts: ClassVar[str]

    sid: Mapped[str] = mapped_column(unique=True)
    device: Mapped[str]
    device_key: Mapped[str] = mapped_column(
        Plain, default=_given("device", lambda text: fold_text(text)[:LONGEST_DEVICE_KEY]), server_default=""
    )
    device_id: Mapped[str | None]
    name: Mapped[str | None]
    ip: Mapped[str]
    # The address as a number of 16 bytes, IPv4 mapped into IPv6: a network is a range of them.
    ip_key: Mapped[bytes | None] = mapped_column(LargeBinary, default=_given("ip", make_key))
    browser: Mapped[str]
    os: Mapped[str]
    device_kind: Mapped[str]
    country: Mapped[str]
    city: Mapped[str]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    # Counts the refresh tokens given: only the newest is good, and for a moment the one before it.
    generation: Mapped[int] = mapped_column(default=1)
    refreshed_at: Mapped[datetime]
    # When the account's password was last given in this session; none: it was started without.
    password_at: Mapped[datetime | None]
    # "device": the account had never signed in on it; "country": nor ever from there; "": neither.
    novelty: Mapped[str] = mapped_column(default="", server_default="")

    @declared_attr
    def account_id(cls) -> Mapped[int]:
        return mapped_column(Id, ForeignKey(f"{cls._accounts}.id", ondelete="CASCADE"))

    @declared_attr.directive
    def __table_args__(cls) -> tuple[Any, ...]:  # noqa: N805
        return (
            # Each index is a page more to write when a session ends.
            Index(None, "account_id", "device_id", unique=True),
            Index(None, "expires_at"),
            # What staff's lists go by. The first two answer most of a filter by themselves.
            Index(f"ix_{cls.__tablename__}_started", "created_at", "id", *FACETS),
            Index(f"ix_{cls.__tablename__}_seen", "last_seen_at", "id", *FACETS, "created_at"),
            Index(f"ix_{cls.__tablename__}_make", *FACETS, "created_at", "id"),
            *(Index(f"ix_{cls.__tablename__}_{name}", name, "created_at", "id") for name in ("ip_key", "device_key")),
            {"sqlite_autoincrement": True},
        )


class UserSession(DeviceSession, Base):
    """A session of a user."""

    __tablename__ = "user_sessions"
    _accounts = "users"


class ClientSession(DeviceSession, Base):
    """A session of a client."""

    __tablename__ = "client_sessions"
    _accounts = "clients"


class Event(Numbered, Base):
    """One thing that happened: who, to whom, when, from where, why."""

    __tablename__ = "events"
    __table_args__ = (
        Index(None, "kind", "account_id", "id"),
        Index(None, "at"),
        Index(None, "tx", sqlite_where=column("tx").is_not(None)),
        Index("ix_events_type", "type", "at", "id"),
        _partial("ix_events_cause", "cause IS NOT NULL", "cause", "at", "id"),
        _partial("ix_events_by", "by_id IS NOT NULL", "by_kind", "by_id", "at", "id"),
        _partial("ix_events_ip_key", "ip_key IS NOT NULL", "ip_key", "at", "id"),
        *(
            Index(None, name, "at", sqlite_where=column(name).is_not(None), postgresql_where=column(name).is_not(None))
            for name in ("target", "network")
        ),
        {"sqlite_autoincrement": True},
    )

    at: Mapped[datetime]
    type: Mapped[str]
    cause: Mapped[str | None]
    kind: Mapped[str | None]
    account_id: Mapped[int | None] = mapped_column(Id)
    session_id: Mapped[int | None] = mapped_column(Id)
    # Who did it; none: the server itself, or somebody who is not signed in.
    by_kind: Mapped[str | None]
    by_id: Mapped[int | None] = mapped_column(Id)
    device: Mapped[str | None]
    ip: Mapped[str | None]
    ip_key: Mapped[bytes | None] = mapped_column(LargeBinary, default=_given("ip", make_key))
    country: Mapped[str | None]
    # In the words of whoever did it.
    reason: Mapped[str | None]
    # What a refused guess, or a code that was sent, is counted by (models/guesses.py); keyed hashes.
    target: Mapped[str | None]
    network: Mapped[str | None]
    # PostgreSQL: the transaction that wrote it, for a tail that must not skip; filled in by the database.
    tx: Mapped[int | None] = mapped_column(BigInteger)


class Guess(Numbered, Base):
    """A password or a code that is being tried; its row goes when it is known to be right, or is in the event log."""

    __tablename__ = "guesses"
    __table_args__ = (Index(None, "target", "at"), Index(None, "network", "at"), {"sqlite_autoincrement": True})

    target: Mapped[str]
    network: Mapped[str | None]
    at: Mapped[datetime]


class Code(Numbered, Base):
    """A six-digit code that was sent to a contact, kept only as its keyed hash."""

    __tablename__ = "codes"
    __table_args__ = (Index(None, "kind", "account_id", "purpose", unique=True), {"sqlite_autoincrement": True})

    kind: Mapped[str]
    account_id: Mapped[int] = mapped_column(Id)
    purpose: Mapped[str]
    hash: Mapped[str]
    attempts_left: Mapped[int]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Message(Numbered, Base):
    """A mail or SMS that waits to be sent; its row goes when it is sent or given up."""

    __tablename__ = "messages"
    __table_args__ = (Index(None, "due_at"), {"sqlite_autoincrement": True})

    channel: Mapped[str]
    recipient: Mapped[str]
    # Sealed with the key set: a code that waits to be sent can't be read out of a stolen database.
    sealed: Mapped[str]
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]


class KnownDevice(Numbered, Base):
    """A device or a country that an account has signed in from: what is not in here is new to it."""

    __tablename__ = "known_devices"
    __table_args__ = (Index(None, "kind", "account_id", "mark", unique=True), {"sqlite_autoincrement": True})

    kind: Mapped[str]
    account_id: Mapped[int] = mapped_column(Id)
    mark: Mapped[str]
    created_at: Mapped[datetime]


class Picture(Numbered, Base):
    """An account's own picture; in the database, so that every server has it."""

    __tablename__ = "pictures"
    __table_args__ = (Index(None, "kind", "account_id", unique=True), {"sqlite_autoincrement": True})

    kind: Mapped[str]
    account_id: Mapped[int] = mapped_column(Id)
    # Named by its content: a picture that changes has another address.
    file: Mapped[str]
    jpeg: Mapped[bytes] = mapped_column(LargeBinary)


class Cutoff(Base):
    """The time up to which every session of a kind was ended at once; a row for each kind, always."""

    __tablename__ = "cutoffs"

    kind: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class SessionCount(Base):
    """How many sessions there are of each make and country, up to what was added up last."""

    __tablename__ = "session_counts"

    kind: Mapped[str] = mapped_column(primary_key=True)
    country: Mapped[str] = mapped_column(primary_key=True)
    browser: Mapped[str] = mapped_column(primary_key=True)
    os: Mapped[str] = mapped_column(primary_key=True)
    device_kind: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class SessionChange(Numbered, Base):
    """Sessions that came or went since, written by PostgreSQL itself beside the session's own row.

    None waits for another's count there; SQLite, where one writes at a time, moves the count itself.
    """

    __tablename__ = "session_changes"
    __table_args__ = ({"sqlite_autoincrement": True},)

    kind: Mapped[str]
    country: Mapped[str]
    browser: Mapped[str]
    os: Mapped[str]
    device_kind: Mapped[str]
    count: Mapped[int] = mapped_column(BigInteger)


class EventCount(Base):
    """How many events of each sort an hour had, of those that were added up."""

    __tablename__ = "event_counts"

    # The hour's beginning.
    at: Mapped[datetime] = mapped_column(primary_key=True)
    type: Mapped[str] = mapped_column(primary_key=True)
    # Empty: none.
    cause: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(BigInteger)


class EventMark(Base):
    """How far the log was added up: the events before this id (PostgreSQL: of transactions before this one)."""

    __tablename__ = "event_marks"

    mark: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)


class Job(Numbered, Base):
    """Ending many sessions, some at a time: what was asked, by whom, and how far it is."""

    __tablename__ = "jobs"
    __table_args__ = (
        _partial("ix_jobs_open", "finished_at IS NULL", "id"),
        {"sqlite_autoincrement": True},
    )

    # What is to end, as JSON.
    filter: Mapped[str]
    reason: Mapped[str | None]
    by_id: Mapped[int] = mapped_column(Id)
    ip: Mapped[str]
    country: Mapped[str]
    created_at: Mapped[datetime]
    # How many matched when it was asked, and how many it has ended.
    total: Mapped[int] = mapped_column(BigInteger)
    ended: Mapped[int] = mapped_column(BigInteger, default=0, server_default=text("0"))
    # Where it goes on.
    place: Mapped[str | None]
    # Nobody else works on it before then.
    taken_until: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # Whoever asked may no longer end sessions.
    is_stopped: Mapped[bool] = mapped_column(default=False, server_default=false())


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One of the two kinds of account, and all that differs between them."""

    name: KindName
    account: type[User] | type[Client]
    session: type[UserSession] | type[ClientSession]
    claim: str
    contacts: tuple[Literal["email", "phone"], ...]
    fields: tuple[str, ...]

    @property
    def accounts(self) -> Table:
        """The table of this kind's accounts."""
        return Base.metadata.tables[self.account.__tablename__]

    @property
    def sessions(self) -> Table:
        """The table of this kind's live sessions."""
        return Base.metadata.tables[self.session.__tablename__]

    @property
    def is_confirmed(self) -> ColumnElement[bool]:
        """Whether an account of this kind is confirmed: by one of its contacts, or by staff."""
        columns = self.accounts.c
        return or_(
            *(columns[f"confirmed_{contact}"] for contact in self.contacts),
            columns.confirmed_by_staff_at.is_not(None),
        )


USER = Kind(
    name="user",
    account=User,
    session=UserSession,
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
    account=Client,
    session=ClientSession,
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

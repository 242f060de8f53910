"""The tables, and the two kinds of account that they serve."""

from __future__ import annotations

from collections.abc import Mapping
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
    or_,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from models import clock

KindName = Literal["user", "client"]
# A row that was read: its values by the names of its columns.
Row = Mapping[Any, Any]

Id = BigInteger().with_variant(Integer, "sqlite")


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


class Numbered:
    """A row with an id that is never used again."""

    id: Mapped[int] = mapped_column(Id, primary_key=True, autoincrement=True, sort_order=-1)


class Account(Numbered):
    """What users and clients share."""

    surname: Mapped[str] = mapped_column(default="")
    name: Mapped[str] = mapped_column(default="")
    patronymic: Mapped[str] = mapped_column(default="")
    address: Mapped[str] = mapped_column(default="")
    phone: Mapped[str | None] = mapped_column(unique=True)
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
    __table_args__ = ({"sqlite_autoincrement": True},)

    email: Mapped[str | None] = mapped_column(unique=True)
    confirmed_email: Mapped[bool] = mapped_column(default=False)
    is_staff: Mapped[bool] = mapped_column(default=False)


class Client(Account, Base):
    """Customers of the business."""

    __tablename__ = "clients"
    __table_args__ = ({"sqlite_autoincrement": True},)


class DeviceSession(Numbered):
    """A live session; ending it deletes the row.

    No credential is stored: `sid` names the session inside signed tokens.
    """

    _accounts: ClassVar[str]

    sid: Mapped[str] = mapped_column(unique=True)
    device: Mapped[str]
    device_id: Mapped[str | None]
    name: Mapped[str | None]
    ip: Mapped[str]
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
            Index(None, "account_id", "id"),
            Index(None, "account_id", "device_id", unique=True),
            Index(None, "expires_at"),
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
        Index(None, "tx"),
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
    country: Mapped[str | None]
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

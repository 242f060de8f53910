"""Guesses: passwords and codes that are tried, and codes that are asked for, counted by account and by network.

What was refused or sent is in the event log, what is still under way in `guesses`: so every worker and every server
counts the same, after a restart too. Past what is free each next try waits, twice as long as the one before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection, delete, func, insert, select, text, union_all

from models import accounts, clock, events, known_devices
from models.database import Query, is_postgres
from models.events import Type
from models.keys import KeySet
from models.origins import Origin
from models.principals import Principal
from models.schema import EVENTS, GUESSES, Contact, Kind, Row
from models.settings import GuessSettings

P = ParamSpec("P")
T = TypeVar("T")

# An IPv6 customer has at least this network to himself, and 2^64 addresses in it.
IPV6_PREFIX = 64


class Purpose(StrEnum):
    """What is tried; each is counted by itself."""

    PASSWORD = "password"  # noqa: S105
    CODE = "code"
    # Having a code sent.
    SEND = "send"
    # Making an account, which sends codes and tells whose contacts are taken.
    REGISTER = "register"


class TooMany(Exception):
    """It was tried too often, for this account or from this network; it may be tried again in so many seconds."""

    def __init__(self, purpose: Purpose, counted_by: str, seconds: int) -> None:
        super().__init__(f"too many tries: {purpose} by {counted_by}")
        self.purpose = purpose
        self.counted_by = counted_by
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Try:
    """What of a guess is counted as one: at an account that knows its device, or at all those that don't."""

    id: int
    target: str
    network: str | None
    # None where there is no account of this kind.
    accounts: Sequence[tuple[Kind, Row | None]]
    # Whether it comes from a device that the account has signed in on.
    is_known: bool


@dataclass(frozen=True, slots=True)
class Guess:
    """What somebody tries just now, and what it is counted by."""

    purpose: Purpose
    origin: Origin
    tries: Sequence[Try]

    @property
    def accounts(self) -> Sequence[tuple[Kind, Row | None]]:
        """The accounts that it may be tried at; None where there is none of this kind."""
        return [account for one in self.tries for account in one.accounts]

    @property
    def kinds(self) -> Sequence[Kind]:
        """The kinds of account that it may be tried at."""
        return [kind for kind, _ in self.accounts]

    @property
    def is_known(self) -> bool:
        """Whether it comes from a device that one of the accounts has signed in on."""
        return any(one.is_known for one in self.tries)

    def elsewhere(self, right: Kind) -> Guess:
        """What of it was tried at the other accounts that there are, where it was right at this kind's."""
        tries = [
            replace(one, accounts=[(kind, row) for kind, row in one.accounts if row and kind is not right])
            for one in self.tries
        ]
        return replace(self, tries=[one for one in tries if one.accounts])


def network_of(ip: str) -> str:
    """What is counted as one place: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        address = ip_address(ip)
    except ValueError:
        return ip
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(IPv6Network((address.packed, IPV6_PREFIX), strict=False))


def admit(
    db: Connection,
    keys: KeySet,
    purpose: Purpose,
    kinds: Sequence[Kind],
    contact: Contact,
    value: str,
    device_id: str | None,
    origin: Origin,
    settings: GuessSettings,
    now: datetime,
) -> Guess:
    """Let somebody who is not signed in try, for the account that has a contact; raises TooMany.

    It is counted before it is tried, so that of many at once none is free; and counted alike whether or not there is
    such an account. A device that the account knows has a budget of its own, which no stranger can use up; at the
    account of the other kind that has the same contact it is as strange as any. Where strangers have used up what
    is theirs, a known device tries the account that knows it alone.
    """
    known: list[tuple[Kind, Row | None]] = []
    strange: list[tuple[Kind, Row | None]] = []
    for kind in kinds:
        row = accounts.find(db, kind, contact, value) if contact in kind.contacts else None
        whose = row["id"] if row else accounts.NOBODY
        is_known = device_id is not None and known_devices.is_known(db, kind, whose, device_id)
        (known if is_known else strange).append((kind, row))
    tries = []
    for kind, row in known:
        target = _fingerprint(keys, purpose, f"{kind.name} {value} {device_id}")
        tries.append(_admit(db, purpose, target, None, [(kind, row)], True, settings, now))
    if strange:
        target = _fingerprint(keys, purpose, value)
        network = _fingerprint(keys, _group(purpose), network_of(origin.ip))
        try:
            tries.append(_admit(db, purpose, target, network, strange, False, settings, now))
        except TooMany:
            if not known:
                raise
    return Guess(purpose, origin, tries)


def admit_registering(db: Connection, keys: KeySet, origin: Origin, settings: GuessSettings, now: datetime) -> Guess:
    """Let somebody register; raises TooMany. Counted by network alone, whatever comes of it, unless it is released."""
    target = _fingerprint(keys, Purpose.REGISTER, network_of(origin.ip))
    return Guess(Purpose.REGISTER, origin, [_admit(db, Purpose.REGISTER, target, None, [], False, settings, now)])


def admit_principal(
    db: Connection,
    keys: KeySet,
    purpose: Purpose,
    principal: Principal,
    account: Row,
    origin: Origin,
    settings: GuessSettings,
    now: datetime,
) -> Guess:
    """Let somebody who is signed in try, for the own account; raises TooMany.

    Counted apart from what strangers try. What is sent counts for the account and for the network; the rest for the
    session, so that a thief in one keeps the owner from nothing in another, and for all the account's sessions
    together, which have as many tries as a network.
    """
    kind = principal.kind
    whose = f"{kind.name} {account['id']}"
    if purpose is Purpose.SEND:
        target = _fingerprint(keys, purpose, whose)
        network = _fingerprint(keys, purpose, network_of(origin.ip))
    else:
        target = _fingerprint(keys, purpose, f"{whose} {principal.session_id}")
        network = _fingerprint(keys, purpose, whose)
    return Guess(purpose, origin, [_admit(db, purpose, target, network, [(kind, account)], True, settings, now)])


def settle(
    db: Connection,
    guess: Guess,
    now: datetime,
    query: Query[P, T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """What `query` gives. Where that is nothing, the guess was wrong, and the log says so."""
    result = query(db, *args, **kwargs)
    if guess.purpose is Purpose.SEND or not result:
        refuse(db, guess, now)
    else:
        release(db, guess)
    return result


def refuse(db: Connection, guess: Guess, now: datetime) -> None:
    """Write to the log that the guess was wrong, or that what it asked for was sent."""
    release(db, guess)
    for one in guess.tries:
        kind, row = next(((kind, row) for kind, row in one.accounts if row), one.accounts[0])
        made = events.make(
            kind,
            row["id"] if row else None,
            Type.SENT if guess.purpose is Purpose.SEND else Type.REFUSED,
            now,
            cause=Purpose.CODE if guess.purpose is Purpose.CODE else None,
            device=guess.origin.device,
            origin=guess.origin,
        )
        events.append(db, made | {"target": one.target, "network": one.network})


def release(db: Connection, guess: Guess) -> None:
    """Count the guess no longer: it was right, or was none."""
    db.execute(delete(GUESSES).where(GUESSES.c.id.in_([one.id for one in guess.tries])))


def sweep(db: Connection, settings: GuessSettings, now: datetime) -> int:
    """Forget the guesses that count no longer: registrations, and those whose server died in the middle; how many."""
    forgotten = delete(GUESSES).where(GUESSES.c.at <= now - settings.forget).returning(GUESSES.c.id)
    return len(db.scalars(forgotten).all())


def _admit(
    db: Connection,
    purpose: Purpose,
    target: str,
    network: str | None,
    found: Sequence[tuple[Kind, Row | None]],
    is_known: bool,
    settings: GuessSettings,
    now: datetime,
) -> Try:
    if is_postgres(db):
        # Two at once: the second waits, and counts the first. SQLite has one writer anyway.
        for name in sorted(filter(None, (target, network))):
            db.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
    is_send = purpose is Purpose.SEND
    free = {Purpose.SEND: settings.sends, Purpose.REGISTER: settings.network_sends}.get(purpose, settings.tries)
    counts = [("target", target, free)]
    if network:
        counts.append(("network", network, settings.network_sends if is_send else settings.network_tries))
    wait, counted_by = max((_wait(db, column, value, free, settings, now), column) for column, value, free in counts)
    if wait > timedelta():
        raise TooMany(purpose, counted_by, math.ceil(wait.total_seconds()))
    made = insert(GUESSES).values(target=target, network=network, at=now).returning(GUESSES.c.id)
    return Try(db.scalars(made).one(), target, network, found, is_known)


def _wait(db: Connection, column: str, value: str, free: int, settings: GuessSettings, now: datetime) -> timedelta:
    """How long the next try waits by one of its two counts."""
    tries = union_all(
        *(
            select(table.c.at).where(
                table.c[column] == value, table.c.at.between(now - settings.forget, now + clock.SKEW)
            )
            for table in (EVENTS, GUESSES)
        )
    ).subquery()
    count: int
    last: datetime
    count, last = db.execute(select(func.count(), func.max(tries.c.at)).select_from(tries)).one()
    if count < free:
        return timedelta()
    longest = timedelta(seconds=settings.longest_wait_seconds)
    wait = timedelta(seconds=settings.first_wait_seconds) * 2 ** min(count - free, 30)
    left: timedelta = last + min(wait, longest) - now
    return min(left, longest)


def _group(purpose: Purpose) -> Purpose:
    """Networks guess passwords and codes from one budget."""
    return purpose if purpose is Purpose.SEND else Purpose.PASSWORD


def _fingerprint(keys: KeySet, purpose: Purpose, text: str) -> str:
    return keys.fingerprint(f"guess {purpose}", text)[:32]

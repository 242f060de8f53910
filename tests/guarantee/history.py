"""What was asked of the servers and what they answered, each with the moment; and what they left on disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Key = tuple[str, int]


@dataclass(eq=False, slots=True)
class Account:
    """An account, and what may be its password: one, or several while a change's outcome is unknown."""

    kind: str
    id: int
    phone: str
    passwords: list[str]
    is_staff: bool = False
    sessions: list[Session] = field(default_factory=list)
    is_busy: bool = False

    @property
    def key(self) -> Key:
        """Names it among both kinds."""
        return self.kind, self.id


@dataclass(eq=False, slots=True)
class Session:
    """A session that was started, with its newest tokens."""

    account: Account
    id: int
    device_id: str | None
    access: str
    refresh: str
    generation: int
    started: Call
    # As far as the actors know; the judge asks the history.
    is_over: bool = False
    is_refreshing: bool = False
    # The refresh tokens that were used, and when each was first: when that was sent.
    used: list[tuple[float, str]] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """Names it among both kinds."""
        return self.account.kind, self.id


@dataclass(eq=False, slots=True)
class Call:
    """One request. Without `status` its connection broke, and what came of it is unknown."""

    act: str
    server: int
    sent: float
    by: Session | None = None
    # The account that it is about; none: the caller's own.
    account: Account | None = None
    # The session that it is about.
    target: Session | None = None
    # What was sent that matters: a name, a password, a refresh token's generation, whether to disable.
    value: Any = None
    # When the refresh token that is used again was used first.
    since: float | None = None
    status: int | None = None
    answered: float = float("inf")
    # When its connection was found to be broken.
    broken: float | None = None
    body: Any = None

    @property
    def is_done(self) -> bool:
        """Whether it was answered as carried out."""
        return self.status is not None and self.status < 400

    @property
    def is_unknown(self) -> bool:
        """Whether it may have been carried out although nobody said so; a 503 can be a commit's lost answer."""
        return self.status is None or self.status >= 500

    def __str__(self) -> str:
        who = f" by {self.by.account.kind} session {self.by.id}" if self.by else ""
        whom = f" of session {self.target.id}" if self.target else ""
        whom += f" of {self.account.kind} {self.account.id}" if self.account else ""
        body = f" {self.body}" if self.act in ("others", "list") else ""
        return (
            f"{self.act}{who}{whom} on server {self.server}, sent {self.sent:.4f}, "
            f"answered {self.answered:.4f} with {self.status}{body}"
        )


@dataclass(eq=False, slots=True)
class Stream:
    """A live stream that was opened."""

    session: Session
    opened: Call
    over_at: float | None = None
    closed_at: float | None = None


@dataclass
class History:
    """All that happened."""

    calls: list[Call] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    # When what fault was made.
    faults: list[tuple[float, str]] = field(default_factory=list)
    # What the checker itself saw go wrong: a server that hangs, or does not stop.
    failures: list[tuple[str, str]] = field(default_factory=list)
    # When the checker's own loop was late, and by how much: what it saw then it saw so much later.
    delays: list[tuple[float, float]] = field(default_factory=list)

    def count_acts(self) -> Counter[str]:
        """How often each act was answered how."""
        return Counter(f"{call.act} {call.status or 'unknown'}" for call in self.calls)

    def count_faults(self) -> Counter[str]:
        """How many faults of each kind there were."""
        return Counter(name for _, name in self.faults)


class Event(NamedTuple):
    """A row of the log."""

    id: int
    type: str
    cause: str | None
    kind: str
    account_id: int | None
    session_id: int | None


class Live(NamedTuple):
    """A row of the sessions."""

    account_id: int
    name: str | None
    generation: int


@dataclass(frozen=True)
class Ledger:
    """What the database holds when all is quiet."""

    live: dict[Key, Live]
    events: list[Event]

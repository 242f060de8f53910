"""Times: aware UTC everywhere, whole microseconds in the database, ISO 8601 with `Z` outside."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# So far servers' clocks may be apart. What is further ahead was written before a clock was set back.
SKEW = timedelta(minutes=1)


def now() -> datetime:
    """The time, aware, UTC."""
    return datetime.now(UTC)


def microseconds() -> int:
    """The time in microseconds since 1970."""
    return time.time_ns() // 1000


def to_microseconds(at: datetime) -> int:
    """Microseconds since 1970; exact, where a float of seconds is not."""
    return (at - EPOCH) // MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The aware UTC time of `value` microseconds since 1970."""
    return EPOCH + timedelta(microseconds=value)


def to_iso(at: datetime) -> str:
    """ISO 8601, UTC, six decimals, `Z`: `2021-09-08T12:22:26.072030Z`."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if at.year >= 1000 else at.isoformat()

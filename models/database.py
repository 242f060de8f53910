"""Where queries run. A query is a plain function whose first argument is the SQLAlchemy session, `db`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import exc
from sqlalchemy.orm import Session

P = ParamSpec("P")
T = TypeVar("T")
Query = Callable[Concatenate[Session, P], T]


class DatabaseUnavailable(Exception):
    """The database can't be asked now; trying again later may help."""


class Database(ABC):
    """Runs queries. Every method raises DatabaseUnavailable while the database is away."""

    @abstractmethod
    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query` reads; for queries of less than a millisecond."""

    @abstractmethod
    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query` reads; for queries that may take longer, which nobody else waits for."""

    @abstractmethod
    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query` gives, once all that it wrote is on disk; where it raises, nothing was written."""

    @abstractmethod
    async def migrate(self) -> None:
        """Bring the tables to what this version expects."""

    @abstractmethod
    async def is_current(self) -> bool:
        """Whether the tables are what this version expects."""

    @abstractmethod
    async def close(self) -> None:
        """Finish the writes that were asked for, then let go of every connection."""


def is_unavailable(error: Exception) -> bool:
    """Whether `error` is the database's state and not what it was asked."""
    if isinstance(error, exc.DBAPIError):
        return not isinstance(error, exc.IntegrityError | exc.DataError | exc.ProgrammingError)
    return isinstance(error, OSError | exc.TimeoutError)

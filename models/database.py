"""Where queries run. A query is a plain function whose first argument is the SQLAlchemy connection, `db`."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from sqlalchemy import (
    ARRAY,
    ClauseElement,
    ColumnElement,
    Connection,
    Dialect,
    Table,
    any_,
    exc,
    func,
    literal,
    select,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from models import migrating

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
Query = Callable[Concatenate[Connection, P], T]
# What many ask is answered at once, in their order.
QueryOfMany = Callable[[Connection, Sequence[A]], Sequence[T]]


def is_postgres(db: Connection) -> bool:
    """Which of the two databases it is."""
    return db.dialect.name == "postgresql"


def is_among(db: Connection, column: ColumnElement[int], numbers: Sequence[int]) -> ColumnElement[bool]:
    """Whether `column` is one of `numbers`, which are sent as one value: a thousand take longer than what they find."""
    if is_postgres(db):
        return column == any_(literal(numbers, ARRAY(column.type)))
    return column.in_(select(func.json_each(json.dumps(numbers)).table_valued("value").c.value))


def insert_into(db: Connection, table: Table) -> Any:
    """An INSERT that may say what happens on a conflict: each of the two databases has one of its own."""
    if not is_postgres(db):
        return sqlite.insert(table)
    # A twentieth of the start, for those who use it.
    from sqlalchemy.dialects import postgresql

    return postgresql.insert(table)


class DatabaseUnavailable(Exception):
    """The database can't be asked now; trying again later may help."""


class Statement:
    """A statement that is built once, and runs as its compiled text.

    For the few that matter: there SQLAlchemy's own execution costs more than the statement. Its values are
    the driver's: times are microseconds, and truth may be 0 or 1.
    """

    def __init__(self, clause: ClauseElement) -> None:
        self._clause = clause
        self._compiled: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {}

    def prepare(self, dialect: Dialect, values: dict[str, Any]) -> tuple[str, list[Any]]:
        """The text for `dialect`, and its parameters in their order."""
        if not (compiled := self._compiled.get(dialect.name)):
            made = cast(SQLCompiler, self._clause.compile(dialect=dialect, compile_kwargs={"render_postcompile": True}))
            # The parameters that are the statement's own, and not its caller's.
            own = {name: value for name, value in made.params.items() if value is not None}
            compiled = self._compiled[dialect.name] = (str(made), tuple(made.positiontup or ()), own)
        text, names, own = compiled
        return text, [own[name] if name in own else values[name] for name in names]

    def run(self, db: Connection, *values: dict[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows that it gives in `db`'s transaction; with several `values` it runs once for each."""
        prepared = [self.prepare(db.dialect, one) for one in values]
        text, errors = prepared[0][0], db.dialect.loaded_dbapi.Error
        cursor = db.connection.cursor()
        try:
            if len(prepared) > 1:
                cursor.executemany(text, [tuple(parameters) for _, parameters in prepared])
                return []
            cursor.execute(text, tuple(prepared[0][1]))
            return cursor.fetchall() if cursor.description else []
        except errors as error:
            raise exc.DBAPIError.instance(text, None, error, errors, dialect=db.dialect) from error
        finally:
            cursor.close()


@dataclass(frozen=True, slots=True)
class Happened:
    """An event as the tail tells it; one without an account concerns every account of its kind."""

    id: int
    kind: str
    account_id: int | None
    type: str
    session_id: int | None
    cause: str | None


class Database(ABC):
    """Runs queries. Every method raises DatabaseUnavailable while the database is away."""

    @abstractmethod
    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query` reads; for queries of less than a millisecond."""

    @abstractmethod
    async def fetch(self, statement: Statement, values: dict[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows of a statement that every request asks."""

    def fetch_now(self, statement: Statement, values: dict[str, Any]) -> Sequence[Sequence[Any]] | None:
        """The same at once; None from a database that has to be waited for."""
        return None

    @abstractmethod
    async def scan(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query` reads; for queries that may take longer, which nobody else waits for."""

    @abstractmethod
    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query` gives, once all that it wrote is on disk; where it raises, nothing was written."""

    def write_gathered(self, query: QueryOfMany[A, T], asked: A) -> asyncio.Future[T] | None:
        """As `write`, for a query of one statement that is given all that is asked of it while the disk is written to.

        None from a database that writes for many at once, where nobody waits for another.
        """
        return None

    @abstractmethod
    async def follow(self, tell: Callable[[Happened], None], heard: Callable[[], object]) -> None:
        """Tell of each event from now on, at least once, soon after its commit; `heard` whenever all were told so far.

        A call after one that raised begins where that one was interrupted.
        """

    @abstractmethod
    async def migrate(self) -> None:
        """Bring the tables to what this version expects."""

    async def is_current(self) -> bool:
        """Whether the tables are what this version expects."""
        return await self.read(migrating.is_current)

    @abstractmethod
    async def close(self) -> None:
        """Finish the writes that were asked for, then let go of every connection."""


def is_unavailable(error: Exception) -> bool:
    """Whether `error` is the database's state and not what it was asked."""
    if isinstance(error, exc.DBAPIError):
        return not isinstance(error, exc.IntegrityError | exc.DataError | exc.ProgrammingError)
    # The last two are what a damaged SQLite file can lead its driver to.
    return isinstance(error, OSError | exc.TimeoutError | MemoryError | UnicodeDecodeError)

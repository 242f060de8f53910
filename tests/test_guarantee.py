"""The guarantee, kept by several workers and servers through faults; and the checker, which sees where it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.guarantee import kills
from tests.guarantee.checker import FAULTS, Plan, check
from tests.guarantee.history import Call, History, Ledger
from tests.guarantee.judge import judge
from tests.postgres import Postgres, make_database

pytestmark = pytest.mark.long

PROGRAM = ["config.yaml", "handlers", "locale", "migrations", "models", "pyproject.toml", "server.py", "static"]
PROGRAM += ["templates", "workers.py"]

# Whoever was proved stays so for a second.
CACHE = """
import time

_prove, _kept = prove, {}


async def prove(database, claims, device, now):
    at, proved = _kept.get((claims, device), (0.0, None))
    if time.monotonic() - at > 1:
        proved = await _prove(database, claims, device, now)
        _kept[claims, device] = time.monotonic(), proved
    return proved
"""
# An end is answered, and then done.
EARLY = """
import asyncio


async def _answer_and_end(self, kind, id=None):
    asked = self.principal, KINDS[kind], self.own(KINDS[kind]).session_id if id is None else read_id(id)
    if not await self.parts.database.read(sessions.get_visible, *asked, clock.now()):
        raise forbidden()
    self.set_status(204)
    self.finish()
    await asyncio.sleep(0.01)
    await self.parts.database.write(sessions.end, *asked, self.origin, clock.now())


SessionEndHandler.delete = _answer_and_end
"""
# The same where SQLite ends many at once.
EARLY_COMMIT = """
import time

from models.principals import Principal

_run_all = SQLiteDatabase._run_statement


def _answer_and_run(self, writes):
    for write in writes:
        claims = write.asked.claims
        write.result = Principal(claims.kind, claims.account_id, 0)
        write.future.get_loop().call_soon_threadsafe(write.answer)
    time.sleep(0.1)
    _run_all(self, writes)


_run_one = SQLiteDatabase._run


def _run_and_answer(self, query, writes, *, is_alone):
    _run_one(self, query, writes, is_alone=is_alone)
    for write in writes:
        write.future.get_loop().call_soon_threadsafe(write.answer)
    time.sleep(0.01)


SQLiteDatabase._run_statement = _answer_and_run
SQLiteDatabase._run = _run_and_answer
"""


def test_an_end_is_kept_by_four_workers_on_sqlite_through_faults_and_a_crash(tmp_path: Path) -> None:
    plan = Plan(sqlite_in(tmp_path), (4,), seconds=3, ends=30, faults=frozenset(FAULTS), every=0.4, crash=True)
    report = check(plan, tmp_path)
    assert not report.violations, report.tell()


def test_an_end_is_kept_by_two_servers_on_postgresql_through_faults(tmp_path: Path, postgres_alone: Postgres) -> None:
    url = make_database(postgres_alone.address)
    faults = frozenset(FAULTS) - {"server"}
    plan = Plan(url, (2, 2), postgres_alone, seconds=4, ends=30, faults=faults, every=0.4)
    report = check(plan, tmp_path)
    assert not report.violations, report.tell()


def test_a_cache_of_sessions_is_seen(tmp_path: Path) -> None:
    root = sabotage(tmp_path / "program", "models/principals.py", CACHE)
    report = check(Plan(sqlite_in(tmp_path), (1,), ends=30, crash=True, root=root), tmp_path)
    assert any(kind.endswith(" after the end") for kind in report.kinds), report.tell()


def test_an_end_that_is_answered_before_its_commit_is_seen(tmp_path: Path, postgres_alone: Postgres) -> None:
    root = sabotage(tmp_path / "program", "handlers/sessions.py", EARLY)
    url = make_database(postgres_alone.address)
    report = check(Plan(url, (1,), postgres_alone, ends=30, crash=True, root=root), tmp_path)
    assert any(kind.endswith(" after the end") for kind in report.kinds), report.tell()


def test_an_end_that_is_answered_before_the_commit_of_many_is_seen(tmp_path: Path) -> None:
    root = sabotage(tmp_path / "program", "models/sqlite.py", EARLY_COMMIT)
    report = check(Plan(sqlite_in(tmp_path), (1,), ends=30, crash=True, root=root), tmp_path)
    assert any(kind.endswith(" after the end") for kind in report.kinds), report.tell()


def test_answers_that_tell_nothing_are_seen() -> None:
    statuses = (400, 413, 429, None)
    history = History([Call("list", 0, 1.0, status=status, broken=None if status else 2.0) for status in statuses])
    told = [violation.kind for violation in judge(history, Ledger({}, []), 5)]
    assert told == [*(f"an answer of {status}" for status in statuses[:3]), "a connection broke without reason"]


def test_what_was_answered_outlives_kills_on_sqlite(tmp_path: Path) -> None:
    report = kills.kill(kills.Plan(sqlite_in(tmp_path), times=3, longest=0.6), tmp_path)
    assert report.acknowledged.total() > 0
    assert not report.violations, report.tell()


def test_what_was_answered_outlives_kills_of_the_server_and_of_postgresql(
    tmp_path: Path, postgres_alone: Postgres
) -> None:
    url = make_database(postgres_alone.address)
    report = kills.kill(kills.Plan(url, postgres_alone, share=0.4, times=3, longest=0.6), tmp_path)
    assert report.acknowledged.total() > 0
    assert not report.violations, report.tell()


def sqlite_in(folder: Path) -> str:
    return f"sqlite:///{folder}/sessions.sqlite3"


def sabotage(folder: Path, module: str, more: str) -> Path:
    """A copy of the program where `module` ends with `more`."""
    folder.mkdir()
    for name in PROGRAM:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, folder / name)
    with (folder / module).open("a") as file:
        file.write(more)
    return folder

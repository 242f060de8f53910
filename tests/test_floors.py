"""The floors of the house: server → handlers → models, never up, and no circles."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

OURS = ("server", "workers", "handlers", "models", "migrations", "tests", "benchmarks")
FILES = sorted([ROOT / "server.py", ROOT / "workers.py", *ROOT.glob("handlers/**/*.py"), *ROOT.glob("models/**/*.py")])


def name_of(file: Path) -> str:
    """The module that a file is."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in FILES}


@cache
def imports_of(module: str) -> frozenset[str]:
    """Every module that this one imports, wherever in its text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively: {ast.unparse(node)}"
            source = node.module or ""
            # `from models import clock` is the module models.clock; `from models.clock import now` is not.
            found.update(
                f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source for alias in node.names
            )
    return frozenset(found)


def packages_of(module: str) -> set[str]:
    """The first part of each module that this one imports."""
    return {imported.partition(".")[0] for imported in imports_of(module)}


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("models")])
def test_models_know_nothing_of_the_web_or_of_the_floors_above(module: str) -> None:
    above = {"tornado", "jinja2", "handlers", "server", "workers"}
    assert not packages_of(module) & above


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("handlers")])
def test_handlers_know_nothing_of_the_database_s_language_nor_of_how_tokens_are_made(module: str) -> None:
    below = {"sqlalchemy", "alembic", "asyncpg", "sqlite3", "aiosqlite", "jwt", "argon2"}
    above = {"server", "workers"}
    assert not packages_of(module) & (below | above)


def test_workers_know_nothing_of_what_they_run() -> None:
    assert not packages_of("workers") & set(OURS)


def test_nobody_imports_the_server() -> None:
    assert [module for module in MODULES if "server" in packages_of(module)] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {module: imports_of(module) & MODULES.keys() for module in MODULES}
    # Raises CycleError, which names the circle.
    assert set(TopologicalSorter(graph).static_order()) == MODULES.keys()


def test_no_module_is_called_by_what_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "common", "services", "misc"}
    assert not [module for module in MODULES if set(module.split(".")) & empty]

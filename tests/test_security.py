"""SECURITY.md: every requirement has its row, and every test and file that a row names is there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.conftest import ROOT

# The requirements of ASVS 5.0.0 by chapter and section: levels 1 and 2, and level 3 of V7.
REQUIREMENTS = {
    "3.2": "1 2", "3.3": "1 2 3 4", "3.4": "1 2 3 4 5 6", "3.5": "1 2 3 4 5", "3.7": "1 2",
    "6.1": "1 2 3", "6.2": "1 2 3 4 5 6 7 8 9 10 11 12", "6.3": "1 2 3 4", "6.4": "1 2 3 4", "6.5": "1 2 3 4 5",
    "6.6": "1 2 3", "6.8": "1 2 3 4",
    "7.1": "1 2 3", "7.2": "1 2 3 4", "7.3": "1 2", "7.4": "1 2 3 4 5", "7.5": "1 2 3", "7.6": "1 2",
    "8.1": "1 2", "8.2": "1 2 3", "8.3": "1", "8.4": "1",
    "9.1": "1 2 3", "9.2": "1 2 3 4",
    "11.1": "1 2", "11.2": "1 2 3", "11.3": "1 2 3", "11.4": "1 2 3 4", "11.5": "1", "11.6": "1",
    "13.1": "1", "13.2": "1 2 3 4 5", "13.3": "1 2", "13.4": "1 2 3 4 5",
    "14.1": "1 2", "14.2": "1 2 3 4", "14.3": "1 2 3",
    "16.1": "1", "16.2": "1 2 3 4 5", "16.3": "1 2 3 4", "16.4": "1 2 3", "16.5": "1 2 3",
}  # fmt: skip
ANSWERS = {"met", "no", "none", "operator"}
TEXT = (ROOT / "SECURITY.md").read_text()
ROWS = re.findall(r"^\| ([0-9.]+) \| ([^|]+) \| ([^|]*) \| (.+) \|$", TEXT, re.MULTILINE)


@cache
def functions_of(file: str) -> set[str]:
    """The functions in a file."""
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_requirement_has_one_row() -> None:
    wanted = [f"{section}.{number}" for section, numbers in REQUIREMENTS.items() for number in numbers.split()]
    assert [row[0] for row in ROWS] == wanted


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_a_row_names_is_there(row: tuple[str, str, str, str]) -> None:
    number, _, answer, how = row
    assert answer in ANSWERS, number
    named = re.findall(r"`((?:tests|models|handlers|templates|static|benchmarks|deploy)/[^`]*)`", how)
    for one in named:
        file, _, test = one.partition("::")
        assert (ROOT / file).exists(), one
        assert not test or test in functions_of(file), one
    # What is said to be met can be looked up: in a test, in a file, or above the tables.
    assert answer != "met" or named or re.search("above|the same", how), number


def test_what_is_not_met_is_told_in_words() -> None:
    assert all(len(how) > 20 for _, _, answer, how in ROWS if answer == "no")

"""Turns: who has one, who waits for it, and who is gone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest

from models.turns import Place, Turn
from tests.conftest import ROOT, wait_until

Open = Callable[[], tuple[Place, Place]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """What opens the file as another process would: its two places."""
    file = tmp_path / "shared"
    file.touch()
    files: list[FileIO] = []

    def open_places() -> tuple[Place, Place]:
        files.append(FileIO(file, "r+"))
        return Place(files[-1], 1), Place(files[-1], 2)

    yield open_places
    for one in files:
        one.close()


def test_whoever_waits_has_his_turn_before_who_had_it_has_it_again(opened: Open) -> None:
    first, second = Turn(*opened()), Turn(*opened())
    had: list[str] = []
    assert first.take(0)

    def wait() -> None:
        assert second.take(20)
        had.append("second")
        second.give()

    waiting = threading.Thread(target=wait)
    waiting.start()
    queue, _ = opened()
    wait_until(queue.is_taken)
    assert first.take(20)
    had.append("first")
    first.give()
    waiting.join()
    assert had == ["second", "first"]


def test_while_nobody_waits_a_turn_goes_on(opened: Open) -> None:
    turn = Turn(*opened())
    _, held = opened()
    assert turn.take(0)
    assert held.is_taken()
    assert turn.take(0)
    assert not held.take()
    turn.give()
    turn.give()
    assert held.take()


def test_whoever_waits_in_vain_keeps_nobody_waiting(opened: Open) -> None:
    first, second, third = (Turn(*opened()) for _ in range(3))
    assert first.take(0)
    assert not second.take(0.01)
    first.give()
    assert third.take(0)
    assert not second.take(0)
    third.give()
    assert second.take(0)


HOLDING = """
import sys, time
from io import FileIO
from models.turns import Place, Turn
file = FileIO(sys.argv[1], "r+")
print(Turn(Place(file, 1), Place(file, 2)).take(0), flush=True)
time.sleep(60)
"""


def test_the_turn_of_a_process_that_is_killed_is_over(opened: Open, tmp_path: Path) -> None:
    turn = Turn(*opened())
    command = [sys.executable, "-c", HOLDING, str(tmp_path / "shared")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as holding:
        assert holding.stdout
        assert holding.stdout.readline() == b"True\n"
        assert not turn.take(0)
        holding.kill()
        holding.wait()
    assert turn.take(0)

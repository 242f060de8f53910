"""What is deployed: a unit that systemd takes and that may do little, and an image with all that the server needs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import KEY, NO_TLS, ROOT, House, wait_until
from tests.postgres import free_port

pytestmark = pytest.mark.long

UNIT = ROOT / "deploy" / "sessions.service"
# systemd's own measure, from 0 (may do nothing) to 100; most units of a Debian system are above 90.
MOST_EXPOSED = 20


def read_dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each on one line."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "deploy" / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def last(instruction: str) -> str:
    return [rest for name, rest in read_dockerfile() if name == instruction][-1]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="apt install systemd")
def test_systemd_takes_the_unit_and_lets_it_do_little(tmp_path: Path) -> None:
    # The programs that it starts are not installed here: only the names are another.
    unit = tmp_path / "sessions.service"
    unit.write_text(UNIT.read_text().replace("/opt/sessions/.venv/bin/python", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    secure = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}"]
    measured = subprocess.run([*secure, str(unit)], capture_output=True, text=True, check=False)
    assert measured.returncode == 0, measured.stdout


def test_the_image_runs_as_nobody_in_particular_and_is_asked_how_it_is() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", last("USER"))
    assert json.loads(last("ENTRYPOINT"))[-1] == "/opt/sessions/server.py"
    assert "--require-hashes" in " ".join(rest for name, rest in read_dockerfile() if name == "RUN")


def test_the_health_check_of_the_image_tells_a_server_that_answers_from_one_that_does_not(house: House) -> None:
    command = json.loads(last("HEALTHCHECK").partition("CMD ")[2])
    assert command[0].endswith("/.venv/bin/python")

    def check(port: int) -> int:
        environment = {**os.environ, "SESSIONS_SERVER__PORT": str(port)}
        return subprocess.run([sys.executable, *command[1:]], env=environment, stderr=subprocess.DEVNULL).returncode

    assert check(urlsplit(house.address).port or 0) == 0
    assert check(free_port()) != 0


def test_what_the_image_holds_is_all_that_the_server_needs_and_it_writes_nothing_there(tmp_path: Path) -> None:
    program, state = tmp_path / "program", tmp_path / "state"
    program.mkdir()
    state.mkdir()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name, rest in read_dockerfile():
        if name != "COPY" or rest.startswith("--from"):
            continue
        *sources, target = shlex.split(rest)
        for source in sources:
            assert f"!{source}" in ignored
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, program / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, program / target)
    before = sorted(program.rglob("*"))
    port = free_port()
    environment = {
        **os.environ, "SESSIONS_SERVER__PORT": str(port), "PYTHONDONTWRITEBYTECODE": "1",
        "SESSIONS_TOKENS__KEYS": f'[{{"kid": "test", "secret": "{KEY}"}}]',
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, program / "server.py", *json.loads(last("CMD")), "--workers", "1"],
        env=environment, cwd=state, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/sign-in/", verify=NO_TLS).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_until(answers)
    finally:
        process.terminate()
        process.wait(30)
    assert sorted(program.rglob("*")) == before
    assert (state / "data" / "sessions.sqlite3").exists()

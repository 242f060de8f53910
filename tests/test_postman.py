"""The Postman collection, replayed by newman against a real server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from models.schema import KINDS
from tests.conftest import PASSWORD, House

pytestmark = pytest.mark.long

FOLDER = Path(__file__).parent / "postman"


def do_without(message: str) -> NoReturn:
    """Skip on a person's machine; fail where everything was installed to run this."""
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def newman() -> Path:
    """The program that replays collections, installed from the lock where it is missing."""
    program = FOLDER / "node_modules" / ".bin" / "newman"
    if not shutil.which("node") or not (program.exists() or shutil.which("npm")):
        do_without("newman needs Node.js and npm: apt install nodejs npm")
    if not program.exists():
        installed = subprocess.run(["npm", "ci", "--prefix", FOLDER], capture_output=True, text=True)
        if installed.returncode != 0:
            do_without(f"newman could not be installed, npm says: {installed.stderr}")
    return program


def test_both_kinds_walk_from_sign_in_to_sign_out_as_postman_does(house: House, newman: Path, tmp_path: Path) -> None:
    walking = [house.add(kind) for kind in KINDS]
    others = [house.sign_in(house.add(kind)) for kind in KINDS]

    run = replay(
        newman,
        tmp_path,
        [
            {"kind": account.kind, "contact": account.contact, "othersSession": other.session}
            for account, other in zip(walking, others, strict=True)
        ],
        baseUrl=house.address,
        password=PASSWORD,
    )

    asserted = run["stats"]["assertions"]
    assert asserted["total"] >= len(run["executions"]) > 0
    assert asserted["failed"] == asserted["pending"] == 0
    # What was asked of another's session left it alone.
    for other in others:
        assert house.ask("GET", f"/sessions/session-{other.account.kind}-l/", other).status_code == 200


def replay(newman: Path, folder: Path, rows: list[dict[str, Any]], **variables: str) -> dict[str, Any]:
    """What newman reports of the collection, walked once for each row; fails where one of its assertions does.

    One process for all rows: starting it takes longer than a walk.
    """
    data, report = folder / "rows.json", folder / "report.json"
    data.write_text(json.dumps(rows))
    ran = subprocess.run(
        [
            newman, "run", FOLDER / "sessions.postman_collection.json", "--iteration-data", data,
            *(argument for name, value in variables.items() for argument in ("--env-var", f"{name}={value}")),
            "--color", "off", "--reporters", "cli,json", "--reporter-json-export", report,
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    reported: dict[str, Any] = json.loads(report.read_text())["run"]
    assert reported["stats"]["iterations"]["total"] == len(rows)
    return reported

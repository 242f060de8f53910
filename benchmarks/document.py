"""What the document says, held by schemathesis in all its phases, signed in as each kind of account in turn."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Insert, insert

from benchmarks.yard import Yard, scratch
from models import clock
from models.passwords import Passwords
from models.schema import KINDS

PASSWORD = "a quiet harbour at dusk"
# Staff last: what they try may disable the others.
PHONES = {"user": "+79130000001", "client": "+79130000003", "staff": "+79130000002"}
FREE = ("TRIES", "NETWORK_TRIES", "SENDS", "NETWORK_SENDS")
# Apart, so that each has its time.
PHASES = ("examples,coverage,fuzzing", "stateful")
# Whoever's session was ended signs in again a second later.
HOOKS = """
import os
import requests
import schemathesis

@schemathesis.auth(refresh_interval=1)
class SignedIn:
    def get(self, case, context):
        answer = requests.post(os.environ["SIGN_IN"], json={"phone": os.environ["PHONE"], "password": %r})
        return answer.json()["access"]

    def set(self, case, data, context):
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {data}"
"""
# Contacts, codes and ids that are well formed can still be wrong, and ended sessions be asked for.
CONFIG = """
[generation]
with-security-parameters = false

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "400", "401", "403", "404", "429"]

[checks.negative_data_rejection]
# The tool's own, and what is too large: a body of more than 64 KiB is refused before it is read.
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "5xx"]

[checks]
# An id may be whose session the last call ended.
use_after_free.enabled = false
ensure_resource_availability.enabled = false
"""


def _add(db: Connection, statement: Insert, row: dict[str, Any]) -> None:
    db.execute(statement, row)


async def prepare(yard: Yard) -> None:
    """Make an account of each kind."""
    passwords, database, now = Passwords(), yard.open(), clock.now()
    made = {
        "password_hash": passwords.hash_now(PASSWORD), "confirmed_phone": True, "created_at": now, "updated_at": now,
    }  # fmt: skip
    await database.migrate()
    for who, phone in PHONES.items():
        staff = {"is_staff": True} if who == "staff" else {}
        statement = insert(KINDS["client" if who == "client" else "user"].accounts)
        row = made | staff | {"phone": phone}
        await database.write(_add, statement, row)
    await database.close()
    passwords.close()


def run(address: str, who: str, phases: str, seconds: int, folder: Path) -> int:
    """Its exit code; what it says goes on."""
    (folder / "hooks.py").write_text(HOOKS % PASSWORD)
    (folder / "schemathesis.toml").write_text(CONFIG)
    kind = "client" if who == "client" else "user"
    environment = {
        **os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(folder), "PHONE": PHONES[who],
        "SIGN_IN": f"{address}/auth/{kind}/token/",
    }  # fmt: skip
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(folder / "schemathesis.toml"),
        "run", f"{address}/openapi.json", "--phases", phases, "--max-time", str(seconds),
        # A stream has no end.
        "--exclude-path", "/sessions/live/", "--continue-on-failure", "--no-color", "--warnings", "off",
    ]  # fmt: skip
    print(f"== signed in as {who}: {phases}", flush=True)
    return subprocess.run(command, env=environment, cwd=folder, check=False).returncode


def main() -> None:
    """Try and print; exit code 1 where anything was answered as the document does not say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="in all")
    parser.add_argument("--who", nargs="*", default=list(PHONES), choices=list(PHONES))
    options = parser.parse_args()
    with scratch() as yard, tempfile.TemporaryDirectory() as folder:
        asyncio.run(prepare(yard))
        settings = {f"SESSIONS_GUESSES__{name}": "10000000" for name in FREE}
        address = yard.serve(workers=1, **settings, SESSIONS_LOG__LEVEL="error")
        share = options.seconds // len(options.who) // len(PHASES)
        codes = [run(address, who, phases, share, Path(folder)) for who in options.who for phases in PHASES]
        log = (yard.folder / "server-0.log").read_text()
    print(f"unexpected errors in the server's log: {log.count('unexpected error')}")
    raise SystemExit(any(codes) or "unexpected error" in log)


if __name__ == "__main__":
    main()

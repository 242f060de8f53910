"""What a server that is killed at random moments under load had answered, and is still so when it starts again."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import ROOT
from tests.guarantee.kills import Plan, kill
from tests.postgres import make_database, running_postgres

DESCRIPTION = f"""{__doc__}

Each round makes ten accounts of both kinds, has a dozen actors sign in, end, name and change passwords, and sends
SIGKILL to the server a random moment later. Then: is the database whole (SQLite: integrity_check on a copy of the file
as the kill left it; PostgreSQL: amcheck, where it is installed); how many seconds until a new server answers; is every
act that was answered kept, in the database and over HTTP, and nothing that earlier rounds left changed?
Exit code 1 where anything was lost or broken."""


def main() -> int:
    """Kill and print; 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200, help="how many kills (200)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many, however many kills")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument(
        "--kill-database", type=float, default=0, metavar="SHARE",
        help="of the kills, from 0 to 1, that take every process of PostgreSQL along (0)",
    )  # fmt: skip
    parser.add_argument("--actors", type=int, default=12, help="who act at once (12)")
    parser.add_argument("--seed", type=int, help="of what is done and of the moments; the scheduling stays chance")
    parser.add_argument(
        "--python", default=sys.executable,
        help="the interpreter of the server; one with requirements.txt alone, as `make run` installs, starts sooner",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="an empty one, to keep the server's log; else a scratch one")
    options = parser.parse_args()
    if options.times < 1 or (options.kill_database and options.database == "sqlite"):
        parser.error("at least one kill; and only PostgreSQL can be killed beside the server")
    random.seed(options.seed)
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sessions-kills-")))
        postgres = stack.enter_context(running_postgres()) if options.database == "postgresql" else None
        plan = Plan(
            url=make_database(postgres.address) if postgres else f"sqlite:///{folder}/sessions.sqlite3",
            postgres=postgres,
            share=options.kill_database,
            times=options.times,
            minutes=options.minutes,
            actors=options.actors,
            python=options.python,
        )
        report = kill(plan, folder)
    print(f"{options.database}: {report.tell()}")
    print(f"of the start-up, the interpreter and the imports: {measure_imports(options.python):.2f} s")
    return 1 if report.violations else 0


def measure_imports(python: str) -> float:
    """Seconds that the program takes to say its own --help, by the middle of five times."""
    seconds, environment = [], {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([python, ROOT / "server.py", "--help"], check=True, stdout=subprocess.DEVNULL, env=environment)
        seconds.append(time.monotonic() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    sys.exit(main())

"""The guarantee under load and faults, for as long as wanted: `python -m benchmarks.guarantee --minutes 10`."""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
from pathlib import Path

from tests.guarantee.checker import FAULTS, Plan, check
from tests.postgres import make_database, running_postgres


def main() -> int:
    """Check and print; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=list(FAULTS), help="none: give nothing after it")
    parser.add_argument("--every", type=float, default=3, help="seconds between two faults, on average")
    parser.add_argument("--workers", type=int, nargs="+", help="of each server; 4 on SQLite, 2 2 on PostgreSQL")
    parser.add_argument("--actors", type=int, default=24)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--folder", type=Path, help="an empty one, to keep the servers' logs; else a scratch one")
    options = parser.parse_args()
    random.seed(options.seed)
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sessions-guarantee-")))
        postgres = stack.enter_context(running_postgres()) if options.database == "postgresql" else None
        plan = Plan(
            url=make_database(postgres.address) if postgres else f"sqlite:///{folder}/sessions.sqlite3",
            workers=tuple(options.workers or ((2, 2) if postgres else (4,))),
            postgres=postgres,
            seconds=options.minutes * 60,
            faults=frozenset(options.faults),
            every=options.every,
            actors=options.actors,
            users=40,
            clients=20,
        )
        report = check(plan, folder)
    print(f"{options.database}, servers with {plan.workers} workers")
    print(report.tell())
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())

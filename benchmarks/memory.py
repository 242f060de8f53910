"""What one worker holds in memory while it answers a million lists, with 20 writes a second beside them."""

from __future__ import annotations

import argparse
import contextlib

from benchmarks.listing import writes
from benchmarks.yard import fill, postgres, read_memory, scratch, wrk


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=20, help="between two looks at the memory")
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        yard = stack.enter_context(scratch(stack.enter_context(postgres()) if options.postgres else None))
        filled = fill(yard, options.accounts, 5)
        ours = yard.serve()
        worker = yard.find_worker()
        script = yard.write_script("list", [("GET", path, token) for path, _, token in filled.tokens])
        sent = 0.0
        print(f"{'started':>9}: {read_memory(worker) / 1e6:.1f} MB", flush=True)
        while sent < options.requests:
            with writes(ours, filled, 20):
                seen = wrk(ours, script, 16, options.seconds)
            sent += seen.rate * options.seconds
            print(f"{sent:9,.0f}: {read_memory(worker) / 1e6:.1f} MB, bad {seen.bad}", flush=True)


if __name__ == "__main__":
    main()

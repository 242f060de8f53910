"""Ending sessions beside bare Tornado's DELETE, each answered when it is on disk (`synchronous=FULL`)."""

from __future__ import annotations

import argparse
import contextlib
import random

from benchmarks.yard import Round, fill, median, postgres, scratch, wrk

SESSIONS = 21


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rate", type=int, default=6000, help="more than can be ended in a second")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    share = options.rate * options.seconds
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgres()) if options.postgres else None
        yard = stack.enter_context(scratch(url))
        filled = fill(yard, share * (options.rounds + 1) // (SESSIONS - 1) + 1, SESSIONS)
        # The first device of each account ends the others, one by one.
        requests = []
        for index in range(0, len(filled.tokens), SESSIONS):
            path, _, token = filled.tokens[index]
            address = path.replace("-l/", "-d/").rsplit("/", 2)[0]
            requests += [
                ("DELETE", f"{address}/{session}/", token)
                for _, session, _ in filled.tokens[index + 1 : index + SESSIONS]
            ]
        random.Random(3).shuffle(requests)
        ours, bare = yard.serve(workers=options.workers), yard.serve_bare(b"", options.workers)
        rates: dict[str, list[Round]] = {"bare": [], "ours": []}
        for number in range(options.rounds + 1):
            script = yard.write_script(f"end{number}", requests[number * share : (number + 1) * share])
            rates["bare"].append(wrk(bare, script, options.connections, options.seconds))
            rates["ours"].append(wrk(ours, script, options.connections, options.seconds))
        for kept in rates.values():
            # The first round warms up.
            del kept[0]
        ratios = [our.rate / its.rate for our, its in zip(rates["ours"], rates["bare"], strict=True)]
        print(
            f"{options.connections} connections: {median([one.rate for one in rates['ours']]):.0f}/s ours, "
            f"{median([one.rate for one in rates['bare']]):.0f}/s bare, ratio {median(ratios):.3f} "
            f"({min(ratios):.3f}–{max(ratios):.3f}), p99 {median([one.p99 for one in rates['ours']]):.1f} ms, "
            f"bad {sum(one.bad for one in rates['ours'])}"
        )


if __name__ == "__main__":
    main()

"""The authenticated list beside bare Tornado: one worker or more, SQLite or PostgreSQL, 20 writes a second."""

from __future__ import annotations

import argparse
import contextlib
import random
import threading
import time
from collections.abc import Iterator

import httpx

from benchmarks.yard import AGENT, Filled, Round, fill, median, postgres, read_memory, scratch, wrk


@contextlib.contextmanager
def writes(address: str, filled: Filled, rate: float) -> Iterator[None]:
    """Name sessions, `rate` a second, through the server that is measured."""
    over = threading.Event()

    def write() -> None:
        chosen = random.Random(1)
        with httpx.Client(base_url=address, headers={"User-Agent": AGENT}) as client:
            number = 0
            while not over.wait(1 / rate):
                path, session, token = chosen.choice(filled.tokens)
                number += 1
                answer = client.patch(
                    path.replace("-l/", "-u/").rsplit("/", 2)[0] + f"/{session}/",
                    json={"name": f"Name {number}"},
                    headers={"Authorization": f"Bearer {token}"},
                )
                answer.raise_for_status()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=5000, help="how many different tokens take turns")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--writes", type=float, default=20)
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 16, 64])
    parser.add_argument("--once", action="store_true", help="no token is sent twice: no signature is known already")
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgres()) if options.postgres else None
        yard = stack.enter_context(scratch(url))
        runs = len(options.connections) * options.rounds if options.once else 1
        filled = fill(yard, options.accounts, 5, tokens=options.tokens * runs)
        started = time.monotonic()
        ours = yard.serve(workers=options.workers)
        print(f"start-up: {time.monotonic() - started:.2f} s")
        path, _, token = filled.tokens[0]
        body = httpx.get(ours + path, headers={"Authorization": f"Bearer {token}", "User-Agent": AGENT}).content
        bare = yard.serve_bare(body, options.workers)
        turns = list(filled.tokens)
        random.Random(2).shuffle(turns)
        requests = [("GET", path, token) for path, _, token in turns]
        share = len(requests) // runs
        scripts = [yard.write_script(f"list{run}", requests[run * share : (run + 1) * share]) for run in range(runs)]
        if not options.once:
            wrk(ours, scripts[0], 16, 2)
        worker = yard.find_worker()
        print(f"memory of one worker: {read_memory(worker) / 1e6:.0f} MB")
        sent = 0.0
        for connections in options.connections:
            rates: dict[str, list[Round]] = {"bare": [], "ours": []}
            for _ in range(options.rounds):
                script = scripts.pop() if options.once else scripts[0]
                rates["bare"].append(wrk(bare, script, connections, options.seconds))
                with writes(ours, filled, options.writes):
                    rates["ours"].append(wrk(ours, script, connections, options.seconds))
                sent += rates["ours"][-1].rate * options.seconds
            ratios = [our.rate / its.rate for our, its in zip(rates["ours"], rates["bare"], strict=True)]
            print(
                f"{connections:3} connections: {median([one.rate for one in rates['ours']]):7.0f}/s ours, "
                f"{median([one.rate for one in rates['bare']]):7.0f}/s bare, ratio {median(ratios):.3f} "
                f"({min(ratios):.3f}–{max(ratios):.3f}), p99 {median([one.p99 for one in rates['ours']]):.1f} ms, "
                f"bad {sum(one.bad for one in rates['ours'] + rates['bare'])}",
                flush=True,
            )
        print(f"memory of one worker after {sent:,.0f} lists: {read_memory(worker) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

"""The authenticated list beside bare Tornado: one worker or more, SQLite or PostgreSQL, 20 writes a second."""

from __future__ import annotations

import argparse
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.yard import AGENT, Filled, Round, Yard, fill, median, postgres, read_memory, scratch, wrk


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


@dataclass(frozen=True)
class House:
    """A server of ours on a database with so many accounts, and the scripts that ask it for lists."""

    accounts: int
    yard: Yard
    address: str
    filled: Filled
    scripts: list[Path]

    def measure(self, connections: int, options: argparse.Namespace) -> Round:
        """What wrk sees for a round, with writes beside it."""
        script = self.scripts.pop() if options.once else self.scripts[0]
        with writes(self.address, self.filled, options.writes):
            return wrk(self.address, script, connections, options.seconds)


def open_house(yard: Yard, accounts: int, options: argparse.Namespace) -> House:
    """Fill the yard's database and start a server on it."""
    runs = len(options.connections) * options.rounds if options.once else 1
    filled = fill(yard, accounts, 5, tokens=options.tokens * runs)
    started = time.monotonic()
    address = yard.serve(workers=options.workers)
    print(f"{accounts * 5:,} sessions: start-up {time.monotonic() - started:.2f} s", flush=True)
    turns = list(filled.tokens)
    random.Random(2).shuffle(turns)
    requests = [("GET", path, token) for path, _, token in turns]
    share = len(requests) // runs
    scripts = [yard.write_script(f"list{run}", requests[run * share : (run + 1) * share]) for run in range(runs)]
    if not options.once:
        wrk(address, scripts[0], 16, 2)
    return House(accounts, yard, address, filled, scripts)


def tell_ratios(what: str, ours: list[Round], others: list[Round]) -> None:
    """Print how many requests ours did for each of the others', round by round."""
    ratios = [one.rate / other.rate for one, other in zip(ours, others, strict=True)]
    print(f"    {what}: {median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--accounts", type=int, nargs="+", default=[1000], help="of five sessions each; several houses take turns"
    )
    parser.add_argument("--tokens", type=int, default=5000, help="how many different tokens take turns")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--writes", type=float, default=20)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--once", action="store_true", help="no token is sent twice: no signature is known already")
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        houses: list[House] = []
        for accounts in options.accounts:
            yard = stack.enter_context(scratch(stack.enter_context(postgres()) if options.postgres else None))
            houses.append(open_house(yard, accounts, options))
        path, _, token = houses[0].filled.tokens[0]
        headers = {"Authorization": f"Bearer {token}", "User-Agent": AGENT}
        bare = houses[0].yard.serve_bare(httpx.get(houses[0].address + path, headers=headers).content, options.workers)
        for house in houses:
            memory = read_memory(house.yard.find_worker()) / 1e6
            print(f"{house.accounts * 5:,} sessions: {memory:.0f} MB of memory in one worker")
        for connections in options.connections:
            print(f"{connections} connections")
            beside: list[Round] = []
            seen: dict[int, list[Round]] = {house.accounts: [] for house in houses}
            for number in range(options.rounds):
                beside.append(wrk(bare, houses[0].scripts[0], connections, options.seconds))
                for house in houses if number % 2 else reversed(houses):
                    seen[house.accounts].append(house.measure(connections, options))
            for accounts, rounds in seen.items():
                print(
                    f"  {accounts * 5:,} sessions: {median([one.rate for one in rounds]):.0f}/s, "
                    f"p99 {median([one.p99 for one in rounds]):.1f} ms, bad {sum(one.bad for one in rounds + beside)}"
                )
                tell_ratios(f"of bare Tornado's {median([one.rate for one in beside]):.0f}/s", rounds, beside)
                if accounts != options.accounts[0]:
                    tell_ratios(f"of the figure with {options.accounts[0] * 5:,}", rounds, seen[options.accounts[0]])


if __name__ == "__main__":
    main()

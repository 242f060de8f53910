"""A million cases for the readers of what strangers send: none may fail. Each worker takes readers in turn."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time

from hypothesis import HealthCheck, given, settings

from tests.fuzzing import READERS


def run(name: str, cases: int, number: int) -> tuple[str, int, float, str]:
    """Try one reader; its name, how many cases were tried, the seconds, and what failed."""
    strategy, read = READERS[name]
    tried = 0

    def count(sent: object) -> None:
        nonlocal tried
        tried += 1
        read(sent)

    started, failure = time.monotonic(), ""
    batch = 0
    while tried < cases and not failure:
        # Another seed for each batch: one long run of hypothesis slows down as it remembers.
        batch += 1
        some = settings(
            max_examples=min(5000, cases - tried), deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        try:
            some(given(strategy)(count))()
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
    return name, tried, time.monotonic() - started, failure


def main() -> None:
    """Try and print; exit code 1 where a reader failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    options = parser.parse_args()
    share = options.cases // len(options.readers)
    with multiprocessing.Pool(os.cpu_count()) as pool:
        work = [pool.apply_async(run, (name, share, number)) for number, name in enumerate(options.readers)]
        results = [one.get() for one in work]
    for name, tried, seconds, failure in results:
        print(f"{name}: {tried} cases in {seconds:.0f} s{': ' + failure if failure else ', none failed'}")
    print(f"{sum(tried for _, tried, _, _ in results)} cases")
    raise SystemExit(any(failure for *_, failure in results))


if __name__ == "__main__":
    main()

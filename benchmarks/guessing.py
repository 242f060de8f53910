"""A thousand addresses guess one account's password ten thousand times; then: do answers tell who exists?"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import time
from collections import Counter

import httpx
from sqlalchemy import insert

from benchmarks.yard import Yard, postgres, scratch
from models import clock
from models.passwords import Passwords
from models.schema import USER

PASSWORD = "a quiet harbour at dusk"
OWNER, OTHER = "owner@example.com", "other@example.com"


async def prepare(yard: Yard) -> None:
    """Make two accounts."""
    passwords, database, now = Passwords(), yard.open(), clock.now()
    made = {"password_hash": passwords.hash_now(PASSWORD), "created_at": now, "updated_at": now}
    await database.migrate()
    both = [made | {"email": email, "confirmed_email": True} for email in (OWNER, OTHER)]
    await database.write(lambda db: db.execute(insert(USER.accounts), both))
    await database.close()
    passwords.close()


async def sign_in(client: httpx.AsyncClient, email: str, password: str, ip: str, device: str = "") -> httpx.Response:
    """The answer to a sign-in from an address, through the proxy that is trusted."""
    sent = {"email": email, "password": password} | ({"device_id": device} if device else {})
    return await client.post("/auth/user/token/", json=sent, headers={"X-Forwarded-For": ip})


async def attack(address: str, guesses: int, networks: int, at_once: int) -> None:
    """Guess, every tenth time rightly, and say how often that was taken."""
    addresses = [f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}" for number in range(networks)]
    statuses: Counter[tuple[bool, int]] = Counter()
    owner: Counter[int] = Counter()
    limits = httpx.Limits(max_connections=at_once + 4)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        first = await sign_in(client, OWNER, PASSWORD, "192.0.2.1", "the owner's phone")
        if first.status_code != 200:
            raise SystemExit(first.text)
        tickets = iter(range(guesses))
        started = time.monotonic()

        async def guess() -> None:
            for number in tickets:
                # The first hundred are wrong: the free tries are spent by then.
                is_right = number >= 100 and number % 10 == 0
                password = PASSWORD if is_right else f"wrong {number}"
                answer = await sign_in(client, OWNER, password, addresses[number % networks])
                statuses[is_right, answer.status_code] += 1
                if number % (guesses // 20) == 0:
                    owner[(await sign_in(client, OWNER, PASSWORD, "192.0.2.1", "the owner's phone")).status_code] += 1

        await asyncio.gather(*(guess() for _ in range(at_once)))
        seconds = time.monotonic() - started
    print(f"{guesses} guesses from {networks} addresses in {seconds:.1f} s")
    for (is_right, status), count in sorted(statuses.items()):
        print(f"  {'right' if is_right else 'wrong'} password, answered {status}: {count}")
    print(f"  the owner's device meanwhile: {dict(owner)}")


async def compare(address: str, rounds: int) -> None:
    """Ask for one who exists and one who doesn't, in turn, and compare the times of what is answered alike."""
    asked = {
        "sign-in": ("/auth/user/token/", {"password": "nobody has this password"}),
        "confirm": ("/auth/user/confirm/", {"code": "000000"}),
        "confirm/send": ("/auth/user/confirm/send/", {}),
    }
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        for name, (path, body) in asked.items():
            times: dict[str, list[float]] = {"exists": [], "does not": []}
            for number in range(rounds):
                pair = [("exists", OTHER), ("does not", "nobody@example.com")]
                random.Random(number).shuffle(pair)
                for which, email in pair:
                    before = time.perf_counter()
                    await client.post(path, json=body | {"email": email})
                    times[which].append((time.perf_counter() - before) * 1000)
            middle = {which: statistics.median(taken) for which, taken in times.items()}
            spread = statistics.stdev(times["exists"])
            gap = middle["exists"] - middle["does not"]
            print(f"{name}: exists {middle['exists']:.2f} ms, does not {middle['does not']:.2f} ms, "
                  f"difference {gap:+.3f} ms (spread of one answer {spread:.2f} ms)")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guesses", type=int, default=10_000)
    parser.add_argument("--networks", type=int, default=1_000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=300, help="pairs of answers whose times are compared")
    parser.add_argument("--postgres", action="store_true")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        yard = stack.enter_context(scratch(stack.enter_context(postgres()) if options.postgres else None))
        asyncio.run(prepare(yard))
        proxies = json.dumps(["127.0.0.1/32"])
        address = yard.serve(workers=2, SESSIONS_SERVER__TRUSTED_PROXIES=proxies, SESSIONS_LOG__LEVEL="error")
        asyncio.run(attack(address, options.guesses, options.networks, options.at_once))
        # Without a throttle, so that each answer is the one that a guess is worth.
        address = yard.serve(
            SESSIONS_LOG__LEVEL="error",
            SESSIONS_GUESSES__TRIES="1000000",
            SESSIONS_GUESSES__NETWORK_TRIES="1000000",
            SESSIONS_GUESSES__SENDS="1000000",
            SESSIONS_GUESSES__NETWORK_SENDS="1000000",
        )
        asyncio.run(compare(address, options.rounds))


if __name__ == "__main__":
    main()

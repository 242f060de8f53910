"""Live streams: memory for each of thousands, idle cost, and how soon an end is told, on one server and across two."""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.yard import AGENT, Filled, Yard, fill, postgres, read_memory, scratch


def read_cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def open_stream(address: str, token: str) -> Stream:
    """A live stream, read up to its first event."""
    to = urlsplit(address)
    reader, writer = await asyncio.open_connection(to.hostname, to.port, limit=4096)
    writer.write(
        f"GET /sessions/live/ HTTP/1.1\r\nHost: {to.netloc}\r\nUser-Agent: {AGENT}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    await reader.readuntil(b"data: {}\n\n")
    return reader, writer


async def measure_many(yard: Yard, address: str, filled: Filled, count: int) -> None:
    """Memory and idle cost of `count` streams."""
    pid = yard.processes[0].pid
    (await open_stream(address, filled.tokens[0][2]))[1].close()
    before = read_memory(pid)
    streams: list[Stream] = []
    for first in range(0, count, 200):
        part = filled.tokens[first : first + 200]
        streams += await asyncio.gather(*(open_stream(address, token) for _, _, token in part))
    each = (read_memory(pid) - before) / len(streams)
    cpu, started = read_cpu(pid), time.monotonic()
    await asyncio.sleep(20)
    idle = (read_cpu(pid) - cpu) / (time.monotonic() - started)
    print(f"{len(streams)} streams: {each / 1000:.1f} kB each, {100 * idle:.1f} % of a core while nothing happens")


async def measure_told(ending: str, following: str, filled: Filled, rounds: int, what: str) -> None:
    """From the answer to DELETE until the other device's stream is told and closed."""
    waits = []
    async with httpx.AsyncClient(base_url=ending, headers={"User-Agent": AGENT}) as client:
        for number in range(rounds):
            path, _, owner = filled.tokens[number * 2]
            _, other, token = filled.tokens[number * 2 + 1]
            stream = await open_stream(following, token)
            told = asyncio.create_task(watch(stream))
            answer = await client.delete(
                path.replace("-l/", "-d/").rsplit("/", 2)[0] + f"/{other}/",
                headers={"Authorization": f"Bearer {owner}"},
            )
            answered = time.monotonic()
            assert answer.status_code == 204, answer.text
            waits.append(max(0.0, await told - answered))
    waits.sort()
    p99 = waits[int(len(waits) * 0.99)]
    print(f"told, {what}: median {1000 * waits[len(waits) // 2]:.0f} ms, p99 {1000 * p99:.0f} ms, of {rounds}")


async def watch(stream: Stream) -> float:
    """When the stream was told that its session is over; it is closed then."""
    reader, writer = stream
    await reader.readuntil(b"event: over")
    at = time.monotonic()
    await reader.read()
    writer.close()
    return at


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    needed = options.streams + 500
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with scratch() as yard:
        filled = fill(yard, max(options.streams // 2, options.rounds) + 1, 2)
        asyncio.run(measure_many(yard, yard.serve(), filled, options.streams))
    with scratch() as yard:
        filled = fill(yard, options.rounds * 2 + 1, 2)
        one, two = yard.serve(), yard.serve()
        half = Filled(filled.tokens[options.rounds * 2 :])
        asyncio.run(measure_told(one, one, filled, options.rounds, "one server, SQLite"))
        asyncio.run(measure_told(one, two, half, options.rounds, "two servers, SQLite"))
    with postgres() as url, scratch(url) as yard:
        filled = fill(yard, options.rounds + 1, 2)
        one, two = yard.serve(), yard.serve()
        asyncio.run(measure_told(one, two, filled, options.rounds, "two servers, PostgreSQL"))


if __name__ == "__main__":
    main()

"""Two thousand connections that send a byte a second, beside normal load: what do the others notice?"""

from __future__ import annotations

import argparse
import contextlib
import resource
import selectors
import socket
import threading
import time
from urllib.parse import urlsplit

from benchmarks.yard import Round, fill, median, scratch, wrk

HEADERS = b"GET /sessions/session-user-l/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"a" * 100_000
BODY = (
    b"POST /auth/user/token/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    b"Content-Length: 60000\r\n\r\n" + b"a" * 60_000
)


def _close(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()


class Crowd:
    """Connections that each send a byte a second, half of them headers and half a body; who is closed comes again."""

    def __init__(self, address: str, size: int) -> None:
        parts = urlsplit(address)
        self._peer = (parts.hostname or "", parts.port or 0)
        self._size = size
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.come_again = 0
        self._here = threading.Event()

    def __enter__(self) -> Crowd:
        self._thread.start()
        self._here.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._peer, timeout=20)
        connection.setblocking(False)
        return connection

    def _run(self) -> None:
        """Send to a share of them each tenth of a second."""
        texts = [HEADERS if number % 2 else BODY for number in range(self._size)]
        # The body's head is sent at once: it is the body that is slow.
        sent = [0 if number % 2 else BODY.index(b"\r\n\r\n") + 4 for number in range(self._size)]
        connections: list[socket.socket] = []
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            for number in range(self._size):
                connections.append(self._connect())
                connections[-1].send(texts[number][: sent[number]])
                selector.register(connections[-1], selectors.EVENT_READ, number)
            stack.callback(_close, connections)
            self._here.set()
            turn = 0
            while not self._stopping.is_set():
                started = time.monotonic()
                for key, _ in selector.select(0):
                    number = key.data
                    with contextlib.suppress(OSError):
                        if connections[number].recv(4096):
                            continue
                    selector.unregister(connections[number])
                    connections[number].close()
                    connections[number] = self._connect()
                    selector.register(connections[number], selectors.EVENT_READ, number)
                    self.come_again += 1
                    sent[number] = 0 if number % 2 else BODY.index(b"\r\n\r\n") + 4
                    connections[number].send(texts[number][: sent[number]])
                for number in range(turn % 10, self._size, 10):
                    with contextlib.suppress(OSError):
                        connections[number].send(texts[number][sent[number] : sent[number] + 1])
                        sent[number] += 1
                turn += 1
                self._stopping.wait(max(0.0, 0.1 - (time.monotonic() - started)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slow", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16, help="of those who ask normally")
    parser.add_argument("--room", type=int, default=0, help="server.connections")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with scratch() as yard:
        filled = fill(yard, 1000, 5)
        script = yard.write_script("list", [("GET", path, token) for path, _, token in filled.tokens])
        address = yard.serve(SESSIONS_SERVER__CONNECTIONS=str(options.room), SESSIONS_LOG__LEVEL="error")
        wrk(address, script, options.connections, 2)
        alone: list[Round] = []
        beside: list[Round] = []
        come_again = 0
        for _ in range(options.rounds):
            alone.append(wrk(address, script, options.connections, options.seconds))
            with Crowd(address, options.slow) as crowd:
                beside.append(wrk(address, script, options.connections, options.seconds))
            come_again += crowd.come_again
        for name, kept in (("alone", alone), (f"beside {options.slow} slow", beside)):
            print(
                f"{name}: {median([one.rate for one in kept]):.0f}/s, p50 {median([one.p50 for one in kept]):.1f} ms, "
                f"p99 {median([one.p99 for one in kept]):.1f} ms, bad {sum(one.bad for one in kept)}"
            )
        ratios = [two.p99 / one.p99 for one, two in zip(alone, beside, strict=True)]
        print(f"p99 ratio {median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}), come again {come_again}")


if __name__ == "__main__":
    main()

"""HTTP as the checker needs it: it knows when a request was sent and answered, and can cut its connection."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from time import monotonic

import orjson

# A connection is left after so many requests: the next may reach another worker.
MOST_REQUESTS = 20
MOST_KEPT = 12
# Who answers later hangs: longer than the server waits for its database, and than workers take to start where others
# hold the cores, as connections wait for them.
PATIENCE = 60


class Broken(Exception):
    """The connection broke: whether the request was carried out is unknown."""


class NoAnswer(Broken):
    """The connection stayed and no answer came."""


@dataclass(slots=True)
class Answer:
    """What came back, and when it was asked for and had."""

    status: int
    body: bytes
    sent: float
    answered: float


class Connection:
    """One connection to a server, and with it to one of its workers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self.requests = 0
        self.is_good = True

    def send(
        self, method: str, path: str, host: str, token: str | None, body: object, cookie: str | None = None
    ) -> None:
        """Send a request."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: checker\r\n"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if cookie:
            head += f"Cookie: session={cookie}\r\n"
        content = b""
        if body is not None:
            content = orjson.dumps(body)
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        self.requests += 1
        self._writer.write(head.encode() + b"\r\n" + content)

    async def read_head(self) -> tuple[int, dict[str, str]]:
        """The status and the headers of the answer."""
        first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        return int(first.split(" ", 2)[1]), headers

    async def read_answer(self) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        status, headers = await self.read_head()
        if headers.get("connection") == "close":
            self.is_good = False
        if status in (204, 304):
            return status, b""
        return status, await self.reader.readexactly(int(headers["content-length"]))

    def cut(self) -> None:
        """Break the connection without a word."""
        self.is_good = False
        self._writer.transport.abort()


class Wire:
    """The connections to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._host = f"127.0.0.1:{port}"
        self._kept: list[Connection] = []
        self._busy: set[Connection] = set()

    async def ask(
        self, method: str, path: str, token: str | None = None, body: object = None, cookie: str | None = None
    ) -> Answer:
        """The answer to a request; raises Broken."""
        connection = await self._take()
        self._busy.add(connection)
        try:
            async with asyncio.timeout(PATIENCE):
                sent = monotonic()
                connection.send(method, path, self._host, token, body, cookie)
                status, content = await connection.read_answer()
                answer = Answer(status, content, sent, monotonic())
        except TimeoutError:
            connection.cut()
            raise NoAnswer(f"{method} {path}: nothing in {PATIENCE} s") from None
        except (OSError, EOFError) as error:
            connection.cut()
            raise Broken(f"{method} {path}: {error!r}") from None
        finally:
            self._busy.discard(connection)
        self._keep(connection)
        return answer

    async def open(self, path: str, token: str) -> tuple[Answer, Connection | None]:
        """The answer's head, and where it is a stream the connection that it comes on; raises Broken."""
        connection = await self._open()
        try:
            async with asyncio.timeout(PATIENCE):
                sent = monotonic()
                connection.send("GET", path, self._host, token, None)
                status, headers = await connection.read_head()
                if status == 200:
                    return Answer(status, b"", sent, monotonic()), connection
                body = await connection.reader.readexactly(int(headers["content-length"]))
                answer = Answer(status, body, sent, monotonic())
        except TimeoutError:
            connection.cut()
            raise NoAnswer(f"GET {path}: nothing in {PATIENCE} s") from None
        except (OSError, EOFError) as error:
            connection.cut()
            raise Broken(f"GET {path}: {error!r}") from None
        self._keep(connection)
        return answer, None

    def cut(self, share: float) -> int:
        """Break this share of the connections, in the middle of what they do; how many that were."""
        unlucky = [one for one in (*self._busy, *self._kept) if random.random() < share]
        for connection in unlucky:
            connection.cut()
        return len(unlucky)

    def close(self) -> None:
        """Let go of the connections that wait."""
        for connection in self._kept:
            connection.cut()
        self._kept.clear()

    async def _take(self) -> Connection:
        while self._kept:
            connection = self._kept.pop(random.randrange(len(self._kept)))
            if connection.is_good and not connection.reader.at_eof():
                return connection
            connection.cut()
        return await self._open()

    async def _open(self) -> Connection:
        try:
            async with asyncio.timeout(PATIENCE):
                return Connection(*await asyncio.open_connection("127.0.0.1", self._port))
        except (OSError, TimeoutError) as error:
            raise Broken(f"no connection: {error!r}") from None

    def _keep(self, connection: Connection) -> None:
        if connection.is_good and connection.requests < MOST_REQUESTS and len(self._kept) < MOST_KEPT:
            self._kept.append(connection)
        else:
            connection.cut()

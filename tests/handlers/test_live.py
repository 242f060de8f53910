"""A live stream whose reader takes nothing: what it is told, and how long it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream

from handlers.live import HouseStream, LiveStream
from models.database import DatabaseUnavailable, Happened
from models.principals import Principal
from models.schema import USER
from models.tail import Tail
from tests.conftest import wait_until

MINE = Principal(USER, 1, 7)


@dataclass
class House:
    """What a stream needs of the application."""

    tail: Tail = field(default_factory=lambda: Tail(cast(Any, None)))
    streams: set[Any] = field(default_factory=set)

    @property
    def parts(self) -> House:
        """Itself: it has the tail."""
        return self

    def tell(self, what: str, session_id: int = 9) -> None:
        """Something happened to a session of the account."""
        self.tail._dispatch(Happened(1, "user", 1, what, session_id, "owner"))


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection; the first is the server's, and holds little."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for end in (ours, theirs):
        end.setblocking(False)
    yield ours, theirs
    for end in (ours, theirs):
        end.close()


def read(end: socket.socket) -> tuple[bytes, bool]:
    """What waits to be read, and whether the other end is closed."""
    got = b""
    with contextlib.suppress(BlockingIOError):
        while part := end.recv(65536):
            got += part
        return got, True
    return got, False


@pytest.mark.long
@pytest.mark.parametrize("kind", [LiveStream, HouseStream])
@pytest.mark.parametrize("ends", ["end", "lose"])
def test_a_stream_whose_reader_takes_nothing_outlives_its_session_by_half_a_second(
    sockets: tuple[socket.socket, socket.socket], kind: type[LiveStream], ends: str
) -> None:
    async def follow() -> None:
        ours, theirs = sockets
        house = House()
        connection = IOStream(ours)
        stream = kind(cast(Any, house), MINE, connection)
        stream.open(HTTPHeaders())
        while not connection.writing():
            stream.send(b": much\n\n" * 20)
        house.tell("named")

        if ends == "end":
            house.tell("ended", MINE.session_id)
        else:
            stream.lose()
        assert stream not in house.tail.of(*kind.follows(MINE))
        house.tell("started")
        stream.beat()
        await asyncio.sleep(0.7)

        assert connection.closed()
        assert not house.streams
        told, is_closed = read(theirs)
        assert is_closed
        assert b"started" not in told

    asyncio.run(follow())


def test_a_reader_who_is_behind_is_told_the_end_and_nothing_after_it(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    async def follow() -> None:
        ours, theirs = sockets
        house, connection = House(), IOStream(ours)
        stream = LiveStream(cast(Any, house), MINE, connection)
        stream.open(HTTPHeaders())
        while not connection.writing():
            house.tell("named")
        house.tell("ended", MINE.session_id)
        house.tell("started")
        stream.beat()

        told, is_closed = b"", False
        while not is_closed:
            await asyncio.sleep(0.01)
            more, is_closed = read(theirs)
            told += more

        assert told.endswith(b'event: over\ndata: {"reason":"owner"}\n\n')

    asyncio.run(follow())


@pytest.mark.parametrize("is_away", [True, False], ids=["away", "slow"])
def test_a_stream_that_was_opened_before_anything_could_be_heard_is_closed_once_something_can(
    sockets: tuple[socket.socket, socket.socket], is_away: bool
) -> None:
    class Away:
        """A database that is away at first, or whose log is followed only after the stream was opened."""

        tries = 0 if is_away else 1

        async def follow(self, tell: Callable[[Happened], None], heard: Callable[[], object]) -> None:
            self.tries += 1
            while self.tries > 1:
                heard()
                await asyncio.sleep(0.05)
            raise DatabaseUnavailable("too many clients")

    async def follow() -> None:
        house, connection = House(Tail(cast(Any, Away()))), IOStream(sockets[0])
        following = asyncio.create_task(house.tail.run())
        LiveStream(cast(Any, house), MINE, connection).open(HTTPHeaders())
        await asyncio.to_thread(wait_until, lambda: not house.tail.all())
        following.cancel()

    asyncio.run(asyncio.wait_for(follow(), 5))


@pytest.mark.parametrize("kind", [LiveStream, HouseStream])
def test_a_stream_whose_reader_has_gone_before_it_opens_is_not_kept(
    sockets: tuple[socket.socket, socket.socket], kind: type[LiveStream]
) -> None:
    async def follow() -> None:
        house, connection = House(), IOStream(sockets[0])
        connection.close()
        stream = kind(cast(Any, house), MINE, connection)
        stream.open(HTTPHeaders())

        assert not house.streams
        assert stream not in house.tail.of(*kind.follows(MINE))

    asyncio.run(follow())


def test_the_end_of_a_client_s_session_is_not_that_of_the_user_s_with_its_id(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    async def follow() -> None:
        house, connection = House(), IOStream(sockets[0])
        stream = HouseStream(cast(Any, house), MINE, connection)
        stream.open(HTTPHeaders())
        house.tail._dispatch(Happened(1, "client", 1, "ended", MINE.session_id, "owner"))
        assert house.streams == {stream}
        house.tail._dispatch(Happened(2, "user", 1, "ended", MINE.session_id, "owner"))
        assert stream not in house.tail.of(*HouseStream.follows(MINE))
        connection.close()

    asyncio.run(follow())

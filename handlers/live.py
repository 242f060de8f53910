"""Live streams: Server-Sent Events that tell an account's open pages and programs what happens to it."""

from __future__ import annotations

import contextlib
from asyncio import CancelledError, Future, TimerHandle, get_running_loop
from collections.abc import Iterable
from typing import NoReturn, cast

import orjson
from tornado import httputil, web
from tornado.iostream import IOStream, StreamBufferFullError, StreamClosedError

from handlers.application import Application
from handlers.base import ApiHandler, BaseHandler, Refusal
from handlers.pages import PageHandler
from models import clock, principals
from models.database import Happened
from models.events import Type
from models.principals import Principal
from models.tail import HOUSE
from models.tokens import Claims

# A reader who lets more than this wait is dropped; it reconnects and looks again.
MOST_WAITING = 16 * 1024
# On one worker: nobody looks at more pages at once, and each takes a connection.
MOST_OF_SESSION = 20
MOST_OF_ACCOUNT = 100
# Where the worker has no room for another; pages of ours ask again by themselves, later each time.
AGAIN_SECONDS = 30
# A reader who takes nothing has so long to hear that the stream is over; all of them close within a second of an end,
# of which the tail may take 0.8.
CLOSE_SECONDS = 0.15
# What shows a dead connection, and keeps proxies from closing a quiet one.
BEAT = b":\n\n"
BEAT_SECONDS = 30
# Staff are told of the house no more often.
HOUSE_SECONDS = 2

# Whatever happened while nobody listened: look again. A new stream asks to be reconnected to quickly.
LOOK = b"retry: 1000\nevent: device\ndata: {}\n\n"


class LiveStream:
    """One open stream: all that is kept of the request that opened it."""

    __slots__ = ("_application", "_closing", "_principal", "_stream")

    def __init__(self, application: Application, principal: Principal, stream: IOStream) -> None:
        self._application = application
        self._principal = principal
        self._stream = stream
        self._closing: TimerHandle | None = None

    @classmethod
    def follows(cls, principal: Principal) -> tuple[str, int]:
        """Whose events are told."""
        return principal.kind.name, principal.account_id

    def is_of(self, principal: Principal) -> bool:
        """Whether it was opened by the same session."""
        own = self._principal
        return (own.kind, own.session_id) == (principal.kind, principal.session_id)

    def is_of_account(self, principal: Principal) -> bool:
        """Whether it was opened by the same account."""
        own = self._principal
        return (own.kind, own.account_id) == (principal.kind, principal.account_id)

    def open(self, headers: httputil.HTTPHeaders) -> None:
        """Begin to tell, after these headers."""
        self._application.parts.tail.subscribe(*self.follows(self._principal), self)
        self._application.streams.add(self)
        self._stream.max_write_buffer_size = MOST_WAITING
        self._stream.set_close_callback(self._forget)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.get_all())
        self.send(f"HTTP/1.1 200 OK\r\n{head}\r\n".encode("latin-1") + LOOK)
        if self._stream.closed():
            # Who went away before the callback was set is told of by nobody.
            self._forget()

    def wake(self, happened: Happened) -> None:
        """Tell what happened; close where it is this stream's own session that ended, or may have."""
        if self.is_own_end(happened):
            self.end(happened.cause, happened.id)
        elif happened.type == "emergency":
            # Whoever is still signed in comes again at once; nobody else is let in.
            self.lose()
        else:
            self.tell(happened)

    def tell(self, happened: Happened) -> None:
        """Say what happened."""
        told = orjson.dumps({"action": happened.type, "session": happened.session_id})
        self.send(b"id: %d\nevent: device\ndata: %b\n\n" % (happened.id, told))

    def is_own_end(self, happened: Happened) -> bool:
        """Whether this stream's own session ended."""
        own = self._principal
        is_own = happened.session_id == own.session_id and happened.kind == own.kind.name
        return is_own and happened.type == "ended"

    def end(self, cause: str | None, event_id: int = 0) -> None:
        """Say that this stream's session has ended, and close."""
        self.send(b"id: %d\nevent: over\ndata: %b\n\n" % (event_id, orjson.dumps({"reason": cause})))
        self.close()

    def lose(self) -> None:
        """What happens can't be heard now: let the reader come again."""
        self.close()

    def beat(self) -> None:
        """Show that the connection is alive."""
        self.send(BEAT)

    def send(self, text: bytes) -> None:
        """Write, or drop a reader who is too slow; nothing follows once it closes."""
        if self._closing or self._stream.closed():
            return
        try:
            self._stream.write(text).add_done_callback(_retrieve)
        except StreamBufferFullError:
            self._stream.close()

    def close(self) -> None:
        """Tell nothing more, and close once what was written is sent, or soon."""
        if self._closing or self._stream.closed():
            return
        self._unsubscribe()
        self._closing = get_running_loop().call_later(CLOSE_SECONDS, self._stream.close)
        self._stream.write(b"").add_done_callback(self._hang_up)

    def _hang_up(self, written: Future[None]) -> None:
        _retrieve(written)
        self._stream.close()

    def _unsubscribe(self) -> None:
        self._application.parts.tail.unsubscribe(*self.follows(self._principal), self)

    def _forget(self) -> None:
        """What is left to do once the connection is gone."""
        self._unsubscribe()
        self._application.streams.discard(self)
        if self._closing:
            self._closing.cancel()


class HouseStream(LiveStream):
    """Tells staff that something happened in the house, however much it was, once in HOUSE_SECONDS: then they look."""

    __slots__ = ("_telling",)

    def __init__(self, application: Application, principal: Principal, stream: IOStream) -> None:
        super().__init__(application, principal, stream)
        self._telling: TimerHandle | None = None

    @classmethod
    def follows(cls, principal: Principal) -> tuple[str, int]:
        return HOUSE

    def wake(self, happened: Happened) -> None:
        """Close too where a role was taken from whoever listens."""
        own = self._principal
        is_own = (happened.kind, happened.account_id) == (own.kind.name, own.account_id)
        if is_own and happened.type in (Type.UNMADE_STAFF, Type.UNMADE_VIEWER):
            # Whoever has another role comes again at once; nobody else is let in.
            self.lose()
        else:
            super().wake(happened)

    def tell(self, happened: Happened) -> None:
        """Say soon that something did."""
        if self._telling is None:
            self._telling = get_running_loop().call_later(HOUSE_SECONDS, self._tell)

    def _tell(self) -> None:
        self._telling = None
        self.send(LOOK)

    def _unsubscribe(self) -> None:
        super()._unsubscribe()
        if self._telling:
            self._telling.cancel()


class LiveHandler(ApiHandler):
    """The events of the caller's account, for programs."""

    async def get(self) -> None:
        await open_stream(self, self.principal, self.read_claims())


class LivePageHandler(PageHandler):
    """The same for the account's open pages."""

    async def get(self) -> None:
        if self.claims is None:
            raise web.HTTPError(403)
        await open_stream(self, self.principal, self.claims)

    async def turn_away(self) -> NoReturn:
        """A script asks: it is told, and not sent to another page."""
        raise web.HTTPError(403)


async def open_stream(
    handler: BaseHandler, principal: Principal, claims: Claims, kind: type[LiveStream] = LiveStream
) -> None:
    """Answer with a stream. The connection leaves Tornado's hands: of a request nothing else is kept."""
    application = handler.application
    if handler.request.method == "HEAD":
        handler.set_header("Content-Type", "text/event-stream")
        handler.finish()
        return
    streams = cast(Iterable[LiveStream], application.parts.tail.of(*kind.follows(principal)))
    own = [stream for stream in streams if stream.is_of_account(principal)]
    if sum(stream.is_of(principal) for stream in own) >= MOST_OF_SESSION:
        raise Refusal(429, {"detail": f"This session has {MOST_OF_SESSION} streams open already."}, Retry_After="60")
    if len(own) >= MOST_OF_ACCOUNT:
        raise Refusal(429, {"detail": f"This account has {MOST_OF_ACCOUNT} streams open already."}, Retry_After="60")
    if len(application.streams) >= application.most_streams:
        # The newest, and not the oldest in its place: that one would come again within a second and close the next,
        # without end. Whoever is refused has the page as it is, and only does not see it change.
        message = "As many streams are open as there is room for. Try again later."
        raise Refusal(503, {"detail": message}, Retry_After=str(AGAIN_SECONDS))
    application.log_request(handler)
    stream = kind(application, principal, handler.detach())
    handler.on_finish()
    for name, value in (("Content-Type", "text/event-stream"), ("X-Accel-Buffering", "no"), ("Connection", "close")):
        handler.set_header(name, value)
    stream.open(handler._headers)
    # An end that was told between the first proof and the opening was told to nobody; nor was the loss of a role.
    try:
        proved = await principals.prove(application.parts.database, claims, handler.device, clock.microseconds())
    except Exception:
        # It can't be known: whoever may go on comes again.
        stream.lose()
        raise
    if proved is None:
        stream.end(None)
    elif proved[0].role != principal.role:
        stream.lose()


def _retrieve(future: Future[None]) -> None:
    """A write that fails closes the stream, which is told elsewhere."""
    with contextlib.suppress(StreamClosedError, CancelledError):
        future.exception()

"""The application: what every handler works with."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from tornado import httputil, web

from handlers.answers import Answers
from models.activity import Activity
from models.database import Database
from models.delivery import Delivery
from models.jobs import Jobs
from models.keys import KeySet
from models.passwords import Passwords
from models.places import Places
from models.settings import Settings
from models.tail import Tail
from models.tokens import InvalidToken, Tokens

# A name of DNS, and a port.
LONGEST_HOST = 255 + 6


class Stream(Protocol):
    """A live stream, which lasts longer than a request."""

    def beat(self) -> None:
        """Show that the connection is alive."""

    def lose(self) -> None:
        """Close: the reader comes again."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the server opened at its start and closes at its end."""

    settings: Settings
    database: Database
    keys: KeySet
    tokens: Tokens
    passwords: Passwords
    places: Places
    activity: Activity
    delivery: Delivery
    tail: Tail
    jobs: Jobs


class Running(Protocol):
    """A request that is being answered."""

    def cut(self) -> None:
        """Answer that it takes too long, unless the answer is being sent."""


class First(Protocol):
    """Makes what a request is handed to first; that hands on to `otherwise`."""

    def __call__(
        self, application: Application, connection: httputil.HTTPConnection, otherwise: httputil.HTTPMessageDelegate
    ) -> httputil.HTTPMessageDelegate: ...


@dataclass(frozen=True, slots=True)
class Refusers:
    """Who answers, in words, what is refused before its own handler is asked."""

    too_large: type[web.RequestHandler]
    # Its argument `status` says what is wrong.
    unfit: type[web.RequestHandler]


class Application(web.Application):
    """Tornado's, with our parts, our `headers` in every answer, and limits that answer in words.

    `first` is asked before the table of `routes` is, and hands on what it does not answer.
    """

    def __init__(
        self,
        parts: Parts,
        routes: list[Any],
        refusers: Refusers,
        first: First,
        headers: tuple[tuple[str, str], ...],
        **settings: Any,
    ) -> None:
        super().__init__(routes, **settings)
        self.parts = parts
        self.headers = headers
        server = parts.settings.server
        # Without a proxy that says otherwise, whether browsers ask by https is known from the start.
        self.hsts_by_request = server.hsts if server.trusted_proxies and not server.address else ""
        # Without names any is taken: what is sent back is then `address`, or what each request calls the server.
        named = [*server.hosts, urlsplit(server.address).netloc] if server.hosts else []
        self._hosts = frozenset(map(_name_of, filter(None, named)))
        self._first = first
        self.answers = Answers()
        self.note = settings["log_function"].note
        self.streams: set[Stream] = set()
        # How many of them there may be: whoever takes the connections may say less.
        self.most_streams = sys.maxsize
        # What will be answered without a handler: whoever stops the server waits for it.
        self.tasks: set[asyncio.Future[Any]] = set()
        # Since when each request is answered that is not answered yet; the oldest first.
        self.running: dict[Running, float] = {}
        self._refusers = refusers

    def is_host(self, host: str) -> bool:
        """Whether this server answers for what a request calls it."""
        return len(host) <= LONGEST_HOST and (not self._hosts or _name_of(host) in self._hosts)

    def cut(self) -> None:
        """Answer, in place of their handlers, the requests that take too long."""
        until = time.monotonic() - self.parts.settings.server.request_seconds
        for handler, since in list(self.running.items()):
            if since > until:
                break
            # What is being sent already goes on, and a stop of the server waits for it.
            handler.cut()

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        return self._first(self, request_conn, super().start_request(server_conn, request_conn))

    def find_handler(self, request: httputil.HTTPServerRequest, **kwargs: Any) -> Any:
        delegate: httputil.HTTPMessageDelegate = super().find_handler(request, **kwargs)
        handler = getattr(delegate, "handler_class", None)
        refusers: Refusers = getattr(handler, "refusers", self._refusers)
        is_long = len(request.uri or "") > self.parts.settings.server.url_bytes
        if is_long or not (self.is_host(request.host) or getattr(handler, "is_for_any_host", False)):
            return self.get_handler_delegate(request, refusers.unfit, {"status": 414 if is_long else 421})
        # Asked as lists: a header that is not there then costs no exception.
        lengths = request.headers.get_list("Content-Length")
        if not lengths and not request.headers.get_list("Transfer-Encoding"):
            return delegate
        most = self.parts.settings.server.body_bytes
        larger: int = getattr(handler, "largest_body", most)
        if larger > most and self._has_good_cookie(request):
            # What is sent is held until all of it is there: strangers send no more than to any page.
            most = larger
        refuse = self.get_handler_delegate(request, refusers.too_large)
        if any(length.isascii() and length.isdigit() and int(length[:19]) > most for length in lengths):
            return refuse
        return _LimitedBody(delegate, refuse, most)

    def _has_good_cookie(self, request: httputil.HTTPServerRequest) -> bool:
        """Whether it has a session's cookie of ours; whether that session lives is asked later."""
        for name, value in list_cookies(request.headers):
            if name.removeprefix("__Host-") == "session":
                with contextlib.suppress(InvalidToken):
                    return bool(self.parts.tokens.check_cookie(value))
        return False


def list_cookies(headers: httputil.HTTPHeaders) -> Iterator[tuple[str, str]]:
    """The name and the value of each cookie that was sent, in their order; several may have one name."""
    for pair in ";".join(headers.get_list("Cookie")).split(";"):
        # Spaces and tabs alone (RFC 6265, 5.2): with others before it, a cookie that a browser lets any neighbour
        # set would pass for one that only this host can.
        name, _, value = pair.partition("=")
        yield name.strip(" \t"), value.strip(" \t")


def _name_of(host: str) -> str:
    """A host without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


class _LimitedBody(httputil.HTTPMessageDelegate):
    """Hands a body on as it comes, up to `most` bytes; a larger one is dropped and answered by `refuse`."""

    def __init__(self, delegate: httputil.HTTPMessageDelegate, refuse: httputil.HTTPMessageDelegate, most: int) -> None:
        self._delegate = delegate
        self._refuse = refuse
        self._left = most

    def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> Any:
        self._head = (start_line, headers)
        return self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Any:
        self._left -= len(chunk)
        return self._delegate.data_received(chunk) if self._left >= 0 else None

    def finish(self) -> None:
        if self._left >= 0:
            self._delegate.finish()
        else:
            self._refuse.headers_received(*self._head)
            self._refuse.finish()

    def on_connection_close(self) -> None:
        self._delegate.on_connection_close()

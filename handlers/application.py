"""The application: what every handler works with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from tornado import httputil, web

from handlers.answers import Answers
from models.activity import Activity
from models.database import Database
from models.delivery import Delivery
from models.keys import KeySet
from models.passwords import Passwords
from models.places import Places
from models.settings import Settings
from models.tail import Tail
from models.tokens import Tokens


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


class First(Protocol):
    """Makes what a request is handed to first; that hands on to `otherwise`."""

    def __call__(
        self, application: Application, connection: httputil.HTTPConnection, otherwise: httputil.HTTPMessageDelegate
    ) -> httputil.HTTPMessageDelegate: ...


class Application(web.Application):
    """Tornado's, with our parts, and a limit on bodies that answers in words.

    `first` is asked before the table of `routes` is, and hands on what it does not answer.
    """

    def __init__(
        self, parts: Parts, routes: list[Any], too_large: type[web.RequestHandler], first: First, **settings: Any
    ) -> None:
        super().__init__(routes, **settings)
        self.parts = parts
        self._first = first
        self.answers = Answers()
        self.note = settings["log_function"].note
        self.streams: set[Stream] = set()
        self.in_flight = 0
        # What answers without a handler; held here, or it could vanish before it ends.
        self.tasks: set[asyncio.Task[None]] = set()
        self._too_large = too_large

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        return self._first(self, request_conn, super().start_request(server_conn, request_conn))

    def find_handler(self, request: httputil.HTTPServerRequest, **kwargs: Any) -> Any:
        delegate: httputil.HTTPMessageDelegate = super().find_handler(request, **kwargs)
        # Asked as lists: a header that is not there then costs no exception.
        lengths = request.headers.get_list("Content-Length")
        if not lengths and not request.headers.get_list("Transfer-Encoding"):
            return delegate
        most = getattr(getattr(delegate, "handler_class", None), "largest_body", LARGEST_BODY)
        too_large = getattr(getattr(delegate, "handler_class", None), "too_large", self._too_large)
        refuse = self.get_handler_delegate(request, too_large)
        if any(length.isascii() and length.isdigit() and int(length[:19]) > most for length in lengths):
            return refuse
        return _LimitedBody(delegate, refuse, most)


# Every body but an upload: 64 KiB.
LARGEST_BODY = 64 * 1024


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

"""What is asked most, answered without a handler being made for it: one's own list, and ending a session."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable
from functools import partial
from typing import Any, NamedTuple, cast

import structlog
from tornado import httputil, web

from handlers.application import Application
from handlers.base import Refusal, read_bearer, write_date
from handlers.requests import make_id
from handlers.sessions import SessionEndHandler, SessionListHandler
from models import clock, ends, principals
from models.database import DatabaseUnavailable
from models.origins import make_origin
from models.principals import Principal
from models.tokens import InvalidToken

log = structlog.get_logger("handlers")

SESSIONS = "/sessions/session-"
END = re.compile(r"/sessions/session-(user|client)-d/([0-9]{1,18})/")
# Whatever else a header `Host` may be, or none, is for Tornado to judge.
HOST = re.compile(r"[A-Za-z0-9._:\[\]-]+")
# A request with one of these asks for more than the answer as it is.
MORE = frozenset(("Content-Length", "Expect", "If-None-Match", "Origin", "Transfer-Encoding", "Upgrade"))
OK = httputil.ResponseStartLine("HTTP/1.1", 200, "OK")
NO_CONTENT = httputil.ResponseStartLine("HTTP/1.1", 204, "No Content")


class Asked(NamedTuple):
    """A request without a body, and when it came (seconds since 1970)."""

    line: httputil.RequestStartLine
    headers: httputil.HTTPHeaders
    at: float

    @property
    def now(self) -> int:
        """When it came, in microseconds."""
        return int(self.at * 1_000_000)


class DirectDelegate(httputil.HTTPMessageDelegate):
    """Answers as `SessionListHandler` and `SessionEndHandler` do, where all is plain.

    A request, a handler and what Tornado does around them would be half of what such an answer costs. What is not
    plain is handed on to them: a list that was not sent before or is another by now, a query, whatever is refused,
    a database that has to be waited for.
    """

    __slots__ = ("_application", "_asked", "_connection", "_otherwise")

    def __init__(
        self, application: Application, connection: httputil.HTTPConnection, otherwise: httputil.HTTPMessageDelegate
    ) -> None:
        self._application = application
        self._connection = connection
        self._otherwise = otherwise
        self._asked: Asked | None = None

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        line = cast(httputil.RequestStartLine, start_line)
        if not line.path.startswith("/"):
            line = _to_origin_form(line, headers)
        is_plain = line.path.startswith(SESSIONS) and line.version == "HTTP/1.1" and MORE.isdisjoint(headers)
        if is_plain and ("Connection" not in headers or headers["Connection"].lower() == "keep-alive"):
            # Without a body the request is over at once; before that nothing may be sent.
            self._asked = Asked(line, headers, time.time())
            return None
        return self._otherwise.headers_received(line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._otherwise.data_received(chunk)

    def finish(self) -> None:
        if self._asked is None:
            self._otherwise.finish()
            return
        host = self._asked.headers.get("Host", "")
        try:
            is_answered = (
                HOST.fullmatch(host)
                and self._application.is_host(host)
                and (self._send_list(self._asked) or self._end(self._asked))
            )
        except (Refusal, InvalidToken, DatabaseUnavailable):
            is_answered = False
        if not is_answered:
            self._hand_on(self._asked)

    def on_connection_close(self) -> None:
        self._otherwise.on_connection_close()

    def _hand_on(self, asked: Asked) -> None:
        self._otherwise.headers_received(asked.line, asked.headers)
        self._otherwise.finish()

    def _send_list(self, asked: Asked) -> bool:
        """Send the list again that was sent before, where the database says that it still is so."""
        if asked.line.method != "GET":
            return False
        parts = self._application.parts
        site = parts.settings.server.address
        if not site:
            if parts.settings.server.trusted_proxies:
                return False
            site = f"http://{asked.headers['Host']}"
        claims = parts.tokens.check_access(read_bearer(asked.headers))
        kept = self._application.answers.get(claims.kind.name, claims.account_id, site)
        own = f"{SESSIONS}{claims.kind.name}-l/"
        if kept is None or asked.line.path not in (own, f"{own}{claims.account_id}/"):
            return False
        proved = principals.prove_now(parts.database, claims, asked.now) if claims.sid else None
        if proved is None or proved[1] != kept.revision or asked.now >= kept.until:
            return False
        parts.activity.note(proved[0], asked.now)
        headers = self._make_headers(asked.at)
        headers["Etag"] = kept.etag
        headers["Content-Length"] = str(len(kept.body))
        self._answer(asked, SessionListHandler, OK, headers, kept.body)
        return True

    def _end(self, asked: Asked) -> bool:
        """Begin to end a session; it is answered once that is on disk."""
        ended = END.fullmatch(asked.line.path) if asked.line.method == "DELETE" else None
        parts = self._application.parts
        if ended is None or parts.settings.server.trusted_proxies:
            return False
        claims = parts.tokens.check_access(read_bearer(asked.headers))
        if claims.sid is None or claims.kind.name != ended[1]:
            return False
        # Of who ends a session its address is kept, and not its device.
        origin = make_origin(cast(Any, self._connection).context.remote_ip, "", parts.places)
        end = ends.End(claims, int(ended[2]), origin, clock.now())
        # Who asks is proved where it is done, and not twice: so whoever was ended waits for his refusal.
        written = parts.database.write_gathered(ends.END_OWN[claims.kind.name], end)
        if written is None:
            return False
        self._application.tasks.add(written)
        written.add_done_callback(self._application.tasks.discard)
        written.add_done_callback(partial(self._finish_end, asked))
        return True

    def _finish_end(self, asked: Asked, written: asyncio.Future[Principal | None]) -> None:
        error = written.exception()
        if error and not isinstance(error, DatabaseUnavailable):
            log.error("sessions were not ended together", exc_info=error)
        if error or not (by := written.result()):
            # The handler may be luckier, and tells what is wrong where it is not.
            self._hand_on(asked)
            return
        self._application.parts.activity.note(by, asked.now)
        headers = self._make_headers(asked.at)
        del headers["Content-Type"]
        self._answer(asked, SessionEndHandler, NO_CONTENT, headers)

    def _answer(
        self,
        asked: Asked,
        handler: type[web.RequestHandler],
        line: httputil.ResponseStartLine,
        headers: httputil.HTTPHeaders,
        body: bytes = b"",
    ) -> None:
        self._connection.write_headers(line, headers, body)
        self._connection.finish()
        now = time.time()
        request_id = headers["X-Request-Id"]
        self._application.note(handler, asked.line.method, asked.line.path, line.code, now - asked.at, now, request_id)

    def _make_headers(self, at: float) -> httputil.HTTPHeaders:
        headers = httputil.HTTPHeaders()
        for name, value in self._application.headers:
            headers[name] = value
        headers["X-Request-Id"] = make_id()
        headers["Date"] = write_date(int(at))
        return headers


def _to_origin_form(line: httputil.RequestStartLine, headers: httputil.HTTPHeaders) -> httputil.RequestStartLine:
    """A request for an address with its scheme and host, which is before the header's (RFC 9112, section 3.2.2)."""
    scheme, separator, rest = line.path.partition("://")
    host, _, path = rest.partition("/")
    if not separator or scheme.lower() not in ("http", "https"):
        return line
    headers["Host"] = host
    return line._replace(path=f"/{path}")

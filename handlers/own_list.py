"""The caller's own list, which is asked more than all else: sent again without a handler being made for it."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import cast

from tornado import httputil

from handlers.application import Application
from handlers.base import HEADERS, Refusal, read_bearer, write_date
from handlers.sessions import SessionListHandler
from models import principals
from models.database import DatabaseUnavailable
from models.tokens import InvalidToken

LISTS = "/sessions/session-"
# A request with one of these asks for more than the list as it is.
MORE = frozenset(("Content-Length", "Expect", "If-None-Match", "Origin", "Transfer-Encoding", "Upgrade"))
OK = httputil.ResponseStartLine("HTTP/1.1", 200, "OK")


class OwnListDelegate(httputil.HTTPMessageDelegate):
    """Sends what `SessionListHandler` sent before, where the database says that it still is so.

    Its request, handler and task would be half of what such an answer costs. Whatever is not as plain is left to
    them: the first time, a query, a refusal, a database that has to be waited for.
    """

    __slots__ = ("_application", "_asked", "_connection", "_otherwise")

    def __init__(
        self, application: Application, connection: httputil.HTTPConnection, otherwise: httputil.HTTPMessageDelegate
    ) -> None:
        self._application = application
        self._connection = connection
        self._otherwise = otherwise
        self._asked: tuple[httputil.RequestStartLine, httputil.HTTPHeaders] | None = None

    def headers_received(
        self, start_line: httputil.RequestStartLine | httputil.ResponseStartLine, headers: httputil.HTTPHeaders
    ) -> Awaitable[None] | None:
        method, path, version = cast(httputil.RequestStartLine, start_line)
        is_plain = method == "GET" and path.startswith(LISTS) and version == "HTTP/1.1" and MORE.isdisjoint(headers)
        if is_plain and ("Connection" not in headers or headers["Connection"].lower() == "keep-alive"):
            # Without a body the request is over at once; before that nothing may be sent.
            self._asked = cast(httputil.RequestStartLine, start_line), headers
            return None
        return self._otherwise.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._otherwise.data_received(chunk)

    def finish(self) -> None:
        if self._asked:
            if self._send_again(self._asked[0].path, self._asked[1]):
                return
            self._otherwise.headers_received(*self._asked)
        self._otherwise.finish()

    def on_connection_close(self) -> None:
        self._otherwise.on_connection_close()

    def _send_again(self, path: str, headers: httputil.HTTPHeaders) -> bool:
        """Answer, where that can be done here."""
        application, started = self._application, time.time()
        site = application.parts.settings.server.address
        if not site:
            if application.parts.settings.server.trusted_proxies:
                return False
            site = f"http://{headers.get('Host', '')}"
        try:
            claims = application.parts.tokens.check_access(read_bearer(headers))
            kept = application.answers.get((claims.kind.name, claims.account_id, site))
            own = f"{LISTS}{claims.kind.name}-l/"
            if not kept or claims.sid is None or (path != own and path != f"{own}{claims.account_id}/"):
                return False
            now = int(started * 1_000_000)
            proved = principals.prove_now(application.parts.database, claims, now)
        except (Refusal, InvalidToken, DatabaseUnavailable):
            return False
        if not proved or proved[1] != kept.revision or now >= kept.until:
            return False
        application.parts.activity.note(proved[0], now)
        answer = httputil.HTTPHeaders()
        for name, value in HEADERS:
            answer[name] = value
        answer["Date"] = write_date(int(started))
        answer["Etag"] = kept.etag
        answer["Content-Length"] = str(len(kept.body))
        self._connection.write_headers(OK, answer, kept.body)
        self._connection.finish()
        ended = time.time()
        application.note(SessionListHandler, "GET", path, 200, ended - started, ended)
        return True

"""Connections: how many there may be, how long they may take, and which go where there are too many."""

from __future__ import annotations

import resource
from collections import OrderedDict
from time import monotonic
from typing import Any

import structlog
from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from handlers.application import Application
from models.settings import Server

# What a client may send after its request was refused, so that it hears the refusal.
LARGEST_DRAINED = 64 * 1024 * 1024
# Descriptors that are not a client's: the database's, the log's, the loop's own.
KEPT_BACK = 128
FEWEST, MOST = 16, 20_000
TELL_SECONDS = 10
# After a stop, whoever does not know of it is waited for: on a new connection so long, and on one that was kept so long
# after the latest answer to anybody.
FRESH_SECONDS = 1
KEPT_SECONDS = 0.25

log = structlog.get_logger("handlers")


def count_room(settings: Server) -> int:
    """How many connections this process takes: as set, or as many as its open files allow, which are raised first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = (settings.connections or MOST) + KEPT_BACK
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    return max(FEWEST, room - KEPT_BACK)


class Connections(HTTPServer):
    """Tornado's server, which makes room for a new connection by closing the one that has been waited for longest.

    So those who send nothing, or a byte now and then, keep out nobody who asks.
    """

    def initialize(self, application: Application, settings: Server) -> None:  # type: ignore[override]
        super().initialize(
            application,
            max_header_size=settings.header_bytes,
            max_body_size=LARGEST_DRAINED,
            idle_connection_timeout=settings.idle_seconds,
            body_timeout=settings.body_seconds,
        )
        self._application = application
        self._longest = settings.request_seconds
        self._most = count_room(settings)
        # Streams last, and none is closed to make room: the other half is for those who ask.
        application.most_streams = self._most // 2
        # Since when each has been waited for, or is answered; the longest first.
        self._since: OrderedDict[Any, float] = OrderedDict()
        # Those that were taken and not answered once.
        self._fresh: set[Any] = set()
        self._stopped_at = self._answered_at = 0.0
        self._told_at = 0.0

    def handle_stream(self, stream: IOStream, address: Any) -> None:
        if len(self._since) + len(self._application.streams) >= self._most:
            now = monotonic()
            if now - self._told_at > TELL_SECONDS:
                self._told_at = now
                log.warning("as many connections as there is room for", most=self._most)
            if not self._make_room(now):
                stream.close()
                return
        super().handle_stream(stream, address)

    def start_request(self, server_conn: Any, request_conn: Any) -> httputil.HTTPMessageDelegate:
        # Once when the connection comes, and once each time that an answer was sent.
        now = monotonic()
        if server_conn in self._since:
            self._fresh.discard(server_conn)
            self._answered_at = now
        else:
            self._fresh.add(server_conn)
        self._since[server_conn] = now
        self._since.move_to_end(server_conn)
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: Any) -> None:
        self._since.pop(server_conn, None)
        self._fresh.discard(server_conn)
        super().on_close(server_conn)

    def drain(self) -> None:
        """Take no new connections; those that there are close with their next answer, which says so."""
        self.stop()
        self.conn_params.no_keep_alive = True
        self._stopped_at = monotonic()

    def is_awaiting(self) -> bool:
        """Whether somebody is waited for who does not know that we stop, and may be about to ask."""
        now = monotonic()
        is_fresh = bool(self._fresh) and now < self._stopped_at + FRESH_SECONDS
        return is_fresh or (bool(self._since) and now < max(self._stopped_at, self._answered_at) + KEPT_SECONDS)

    def _make_room(self, now: float) -> bool:
        """Close a connection from which something is waited for, or whose client does not take its answer."""
        for connection, since in self._since.items():
            if connection.stream.reading() or now - since > 2 * self._longest:
                del self._since[connection]
                connection.stream.close()
                return True
        return False

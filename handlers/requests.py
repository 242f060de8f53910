"""What is kept of each request: its share of the metrics, and its line in the log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import BinaryIO

import orjson
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
from tornado import ioloop, web

FLUSH_SECONDS = 0.1

_registry = CollectorRegistry()
_requests = Counter("sessions_requests", "Requests answered.", ["handler", "method", "status"], registry=_registry)
_seconds = Histogram("sessions_request_seconds", "Seconds from request to answer.", ["handler"], registry=_registry)


def render_metrics() -> bytes:
    """The metrics of all workers, in Prometheus' text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(_registry)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class RequestLog:
    """Called by Tornado at the end of each request; what it is told is counted and written some at a time."""

    def __init__(self, is_json: bool, is_written: bool, out: BinaryIO | None = None) -> None:
        self._is_json = is_json
        self._is_written = is_written
        self._out = out or sys.stderr.buffer
        self._requests: list[tuple[type[web.RequestHandler], str, str, int, float, float]] = []
        self._counts: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def __call__(self, handler: web.RequestHandler) -> None:
        """Remember a request that a handler answered."""
        request, now = handler.request, time.time()
        self.note(type(handler), request.method or "", request.path, handler.get_status(), request.request_time(), now)

    def note(
        self, handler: type[web.RequestHandler], method: str, path: str, status: int, seconds: float, now: float
    ) -> None:
        """Remember a request that was answered at `now` (seconds since 1970), `seconds` after it came."""
        if not self._requests:
            ioloop.IOLoop.current().call_later(FLUSH_SECONDS, self.flush)
        self._requests.append((handler, method, path, status, seconds, now))

    def flush(self) -> None:
        """Count the requests that wait, and write their lines."""
        requests, self._requests = self._requests, []
        lines = []
        for handler, method, path, status, seconds, now in requests:
            key = (handler.__name__, method, status)
            if not (counts := self._counts.get(key)):
                counts = self._counts[key] = (_requests.labels(*key), _seconds.labels(key[0]))
            counts[0].inc()
            counts[1].observe(seconds)
            # A path that is a secret is not written.
            shown = "…" if getattr(handler, "is_secret", False) else path
            lines.append(self._format(method, shown, status, round(seconds * 1000, 1), now))
        if self._is_written:
            # Where nobody reads the log any more, requests are answered all the same.
            with contextlib.suppress(OSError, ValueError):
                self._out.write(b"".join(lines))
                self._out.flush()

    def _format(self, method: str, path: str, status: int, ms: float, now: float) -> bytes:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06}Z"
        if not self._is_json:
            line = f"{at} [info     ] request method={method} path={path} status={status} ms={ms}\n"
            return line.encode("utf-8", "replace")
        told = {"timestamp": at, "level": "info", "event": "request"}
        return orjson.dumps(told | {"method": method, "path": path, "status": status, "ms": ms}) + b"\n"

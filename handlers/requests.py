"""What is kept of each request: its share of the metrics, and its line in the log."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import string
import sys
import time
from typing import BinaryIO, cast
from urllib.parse import quote

import orjson
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
from tornado import ioloop, web

# So often that nobody waits for many lines.
FLUSH_SECONDS = 0.025
# Addresses that open something by themselves: their rest is a secret.
SECRETS = ("/end/", "/setup/", "/reset/user-", "/reset/client-")
# Whoever makes up others would make the metrics endless.
METHODS = frozenset(web.RequestHandler.SUPPORTED_METHODS)
# What may stand in a line of the log as it is.
PLAIN = string.printable.strip()
# What somebody was refused for; with an answer of these the log says who was.
REFUSED = (401, 403, 421, 429)

_registry = CollectorRegistry()
_requests = Counter("sessions_requests", "Requests answered.", ["handler", "method", "status"], registry=_registry)
_seconds = Histogram("sessions_request_seconds", "Seconds from request to answer.", ["handler"], registry=_registry)


_process = secrets.token_hex(4)
_numbers = itertools.count(secrets.randbits(32))


def make_id() -> str:
    """A name for a request that no other has, of this process or another; how many there were it does not say."""
    # Multiplied by an odd number each number of 32 bits comes once.
    return f"{_process}{next(_numbers) * 0x9E3779B1 & 0xFFFFFFFF:08x}"


def shown(path: str) -> str:
    """An address as the log may hold it."""
    return next((f"{start}…" for start in SECRETS if path.startswith(start)), quote(path, PLAIN, "latin-1", "replace"))


def label(handler: type[web.RequestHandler]) -> str:
    """What the metrics call a handler: with its module, as a page's and a program's may have one name."""
    return f"{handler.__module__.removeprefix('handlers.')}.{handler.__name__}"


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
        self._requests: list[tuple[type[web.RequestHandler], str, str, int, float, float, str, str]] = []
        self._counts: dict[tuple[type[web.RequestHandler], str, int], tuple[Counter, Histogram]] = {}

    def __call__(self, handler: web.RequestHandler) -> None:
        """Remember a request that a handler answered."""
        request, status, now = handler.request, handler.get_status(), time.time()
        ip = getattr(handler, "remote_ip", "") if status in REFUSED else ""
        request_id = getattr(handler, "request_id", "")
        self.note(
            type(handler), request.method or "", request.path, status, request.request_time(), now, request_id, ip
        )

    def note(
        self,
        handler: type[web.RequestHandler],
        method: str,
        path: str,
        status: int,
        seconds: float,
        now: float,
        request_id: str,
        ip: str = "",
    ) -> None:
        """Remember a request that was answered at `now` (seconds since 1970), `seconds` after it came."""
        if not self._requests:
            ioloop.IOLoop.current().call_later(FLUSH_SECONDS, self.flush)
        self._requests.append((handler, method, path, status, seconds, now, request_id, ip))

    def flush(self) -> None:
        """Count the requests that wait, and write their lines."""
        requests, self._requests = self._requests, []
        lines = []
        for handler, sent, path, status, seconds, now, request_id, ip in requests:
            method = sent if sent in METHODS else "other"
            key = (handler, method, status)
            if not (counts := self._counts.get(key)):
                name = label(handler)
                counts = self._counts[key] = (_requests.labels(name, method, status), _seconds.labels(name))
            counts[0].inc()
            counts[1].observe(seconds)
            told = {"method": method, "path": shown(path), "status": status, "ms": round(seconds * 1000, 1)}
            told["id"] = request_id
            if ip:
                told["ip"] = ip
            lines.append(self._format(told, now))
        if self._is_written:
            # Where nobody reads the log any more, requests are answered all the same.
            with contextlib.suppress(OSError, ValueError):
                self._out.write(b"".join(lines))
                self._out.flush()

    def _format(self, told: dict[str, object], now: float) -> bytes:
        status = cast(int, told["status"])
        level = "error" if status >= 500 else "warning" if status in REFUSED else "info"
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06}Z"
        if not self._is_json:
            line = " ".join(f"{name}={value}" for name, value in told.items())
            return f"{at} [{level:9}] request {line}\n".encode("utf-8", "replace")
        return orjson.dumps({"timestamp": at, "level": level, "event": "request"} | told) + b"\n"

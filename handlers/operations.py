"""For whoever operates the server: health, readiness, metrics."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from tornado import web

from handlers.base import ApiHandler
from handlers.requests import render_metrics
from models.database import DatabaseUnavailable


class HealthHandler(ApiHandler):
    """Whether the process answers."""

    is_open = True

    def get(self) -> None:
        self.answer({"status": "ok"})


class ReadyHandler(ApiHandler):
    """Whether the database answers too."""

    is_open = True

    async def get(self) -> None:
        if not await self.parts.database.is_current():
            raise DatabaseUnavailable("its tables are of another version")
        self.answer({"status": "ok"})


class MetricsHandler(ApiHandler):
    """Prometheus' metrics."""

    is_open = True

    def get(self) -> None:
        self.settings["log_function"].flush()
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(render_metrics())


class UnknownHandler(ApiHandler):
    """An address that is none."""

    is_open = True

    def prepare(self) -> None:
        raise web.HTTPError(404)


@web.stream_request_body
class TooLargeHandler(ApiHandler):
    """A body that is larger than any that the address takes."""

    is_open = True

    async def prepare(self) -> None:
        # Told at once; but what still comes is read to its end: closing on it would cut the answer off.
        self.set_status(413)
        self.set_header("Content-Length", str(len(TOO_LARGE)))
        self.write(TOO_LARGE)
        await self.flush()

    def data_received(self, chunk: bytes) -> None:
        """Dropped."""

    def on_connection_close(self) -> None:
        # Tornado waits no longer for the body, and finishes nothing.
        super().on_connection_close()
        self.on_finish()

    def get(self, *_args: str, **_kwargs: str) -> None:
        self.finish()

    head = post = put = patch = delete = options = get


TOO_LARGE = b'{"detail":"The body is too large."}'


class SlashHandler(ApiHandler):
    """An address without its final slash: redirected, method and body kept."""

    is_open = True

    def prepare(self) -> None:
        query = f"?{self.request.query}" if self.request.query else ""
        self.redirect(f"{self.request.path}/{query}", status=308)

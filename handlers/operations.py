"""For whoever operates the server: health, readiness, metrics."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from tornado import web

from handlers.base import ApiHandler, TooLarge
from handlers.requests import render_metrics
from models.database import DatabaseUnavailable


class HealthHandler(ApiHandler):
    """Whether the process answers."""

    is_open = True
    is_for_any_host = True

    def get(self) -> None:
        self.answer({"status": "ok"})


class ReadyHandler(ApiHandler):
    """Whether the database answers too."""

    is_open = True
    is_for_any_host = True

    async def get(self) -> None:
        if not await self.parts.database.is_current():
            raise DatabaseUnavailable("its tables are of another version")
        self.answer({"status": "ok"})


class MetricsHandler(ApiHandler):
    """Prometheus' metrics."""

    is_open = True
    is_for_any_host = True

    def get(self) -> None:
        self.settings["log_function"].flush()
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(render_metrics())


class UnfitHandler(ApiHandler):
    """A request that no handler is asked: its address is too long, or is another server's."""

    is_open = True

    def initialize(self, status: int) -> None:  # type: ignore[override]
        super().initialize()
        self._status = status

    def prepare(self) -> None:
        raise web.HTTPError(self._status)


class UnknownHandler(ApiHandler):
    """An address that is none."""

    is_open = True

    def prepare(self) -> None:
        raise web.HTTPError(404)


@web.stream_request_body
class TooLargeHandler(TooLarge, ApiHandler):
    """A body that is larger than any that the address takes."""


class SlashHandler(ApiHandler):
    """An address without its final slash: redirected, method and body kept."""

    is_open = True

    def prepare(self) -> None:
        query = f"?{self.request.query}" if self.request.query else ""
        self.redirect(f"{self.request.path}/{query}", status=308)

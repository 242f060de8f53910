"""The stream that has staff's open pages look again when something happened in the house."""

from __future__ import annotations

from typing import NoReturn

from tornado import web

from handlers.admin.staff import StaffHandler
from handlers.live import HouseStream, open_stream


class HouseLiveHandler(StaffHandler):
    """Tells that something happened, and never what: the page that is fetched again asks who may see it."""

    async def get(self) -> None:
        if self.claims is None:
            raise web.HTTPError(403)
        await open_stream(self, self.principal, self.claims, HouseStream)

    async def turn_away(self) -> NoReturn:
        """A script asks: it is told, and not sent to another page."""
        raise web.HTTPError(403)

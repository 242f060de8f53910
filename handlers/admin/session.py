"""Page: one live session of the house: everything known of it, and its history."""

from __future__ import annotations

from tornado import web

from handlers.admin.filters import write_address
from handlers.admin.log import log
from handlers.admin.sessions import ADDRESS, make_listed
from handlers.admin.staff import StaffHandler
from handlers.base import read_id
from models import clock, desk, sessions
from models.filters import EventFilter
from models.schema import KINDS, LONGEST_DEVICE_KEY

MOST_EVENTS = 30


class SessionPageHandler(StaffHandler):
    """One session of either kind."""

    async def get(self, kind: str, id: str) -> None:
        of, now, principal, database = KINDS[kind], clock.now(), self.principal, self.parts.database
        row = await database.read(sessions.get_visible, principal, of, read_id(id), now)
        if row is None:
            raise web.HTTPError(404)
        asked = EventFilter(kind=of.name, account=row["account_id"], session=row["id"])
        history = self.must(await desk.list_events(database, principal, asked, now, most=MOST_EVENTS))
        self.render_page(
            "desk/session.html",
            row=make_listed({**row, "kind": kind}, principal, self.language, now, self.parts.places),
            events=[log(event, self.language) for event in history.rows],
            same_address=write_address(ADDRESS, {"ip": row["ip"]}),
            like_device=write_address(ADDRESS, {"device": row["device"][:LONGEST_DEVICE_KEY]}),
        )

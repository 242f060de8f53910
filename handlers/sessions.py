"""JSON under /sessions/: an account's sessions, listed, named and ended."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from pydantic import BaseModel, Field, ValidationError
from tornado import web

from handlers import static
from handlers.answers import DEFAULT_IMAGE, Answer, shape_details, shape_session
from handlers.base import ApiHandler, Refusal, forbidden, read_id, tell_errors
from handlers.bodies import Naming
from models import clock, pictures, principals, sessions
from models.schema import KINDS
from models.tokens import Claims


class Page(BaseModel):
    """How much of a list, and how much of each session."""

    details: bool = False
    limit: Annotated[int, Field(ge=1, le=1000)] | None = None
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class SessionListHandler(ApiHandler):
    """The live sessions of one account, newest first."""

    # `get` proves the caller by the statement that lists, where it can.
    is_open = True

    async def get(self, kind: str, id: str | None = None) -> None:
        of, claims = KINDS[kind], self.read_claims()
        is_own = claims.kind is of and (id is None or read_id(id) == claims.account_id)
        if is_own and not self.request.query:
            await self._send_own(claims)
            return
        self.principal = await self.prove()
        account_id = self.own(of).account_id if id is None else read_id(id)
        page = self._read_page()
        found = await self.parts.database.read(
            sessions.list_visible, self.principal, of, account_id, clock.now(), page.limit, page.offset
        )
        if found is None:
            raise forbidden()
        total, rows = found
        if page.model_fields_set & {"limit", "offset"}:
            self._link(page, total)
        site = self.site
        if page.details:
            self.answer([shape_details(of, row, site, self.principal) for row in rows])
        else:
            self.answer([shape_session(of, row, site) for row in rows])

    async def _send_own(self, claims: Claims) -> None:
        """The caller's own list. What was built for the account's revision is sent again for that revision."""
        database, answers, site, now = self.parts.database, self.application.answers, self.site, clock.microseconds()
        device = self.device if claims.sid is None else ""
        kept = answers.get(claims.kind.name, claims.account_id, site)
        proved = await principals.prove(database, claims, device, now) if kept else None
        if not proved or not kept or proved[1] != kept.revision or now >= kept.until:
            found = await sessions.list_own(database, claims, device, now)
            if found is None:
                raise forbidden()
            proved, kept = (found.principal, found.revision), Answer.make(claims.kind, found, site)
            answers.keep(claims.kind.name, claims.account_id, kept)
        self.parts.activity.note(proved[0], now)
        self.etag = kept.etag
        self.finish(kept.body)

    def _read_page(self) -> Page:
        if not self.request.query:
            return Page()
        sent = {
            name: self.get_query_argument(name) for name in Page.model_fields if name in self.request.query_arguments
        }
        try:
            return Page.model_validate(sent)
        except ValidationError as error:
            raise Refusal(400, tell_errors(error)) from None

    def _link(self, page: Page, total: int) -> None:
        """The pages around this one (RFC 8288)."""
        limit = page.limit or total or 1
        last = max(0, (total - 1) // limit * limit)
        # From past the end one comes back to what there is.
        before = max(0, min(page.offset - limit, last))
        pages = {"first": 0, "prev": before, "next": page.offset + limit, "last": last}
        if page.offset == 0:
            del pages["prev"]
        if page.offset + limit >= total:
            del pages["next"]
        details = {"details": "true"} if page.details else {}
        links = []
        for relation, offset in pages.items():
            # None is on two pages.
            most = min(limit, page.offset) if relation == "prev" else limit
            query = urlencode({**details, "limit": most, "offset": offset})
            links.append(f'<{self.request.path}?{query}>; rel="{relation}"')
        self.set_header("Link", ", ".join(links))
        self.set_header("X-Total-Count", str(total))


class SessionHandler(ApiHandler):
    """One session with its details."""

    async def get(self, kind: str, id: str) -> None:
        of = KINDS[kind]
        row = await self.parts.database.read(sessions.get_visible, self.principal, of, read_id(id), clock.now())
        if row is None:
            raise forbidden()
        self.answer(shape_details(of, row, self.site, self.principal))


class SessionNameHandler(ApiHandler):
    """The name that its owner gives a session."""

    async def patch(self, kind: str, id: str) -> None:
        of = KINDS[kind]
        name = self.read_body(Naming).name
        row = await self.parts.database.write(
            sessions.name, self.principal, of, read_id(id), name, self.origin, clock.now()
        )
        if row is None:
            raise forbidden()
        self.answer(shape_details(of, row, self.site, self.principal))


class SessionEndHandler(ApiHandler):
    """Ending one session; without an id the caller's own, which is signing out."""

    async def delete(self, kind: str, id: str | None = None) -> None:
        of = KINDS[kind]
        session_id = self.own(of).session_id if id is None else read_id(id)
        if not await self.parts.database.write(sessions.end, self.principal, of, session_id, self.origin, clock.now()):
            raise forbidden()
        self.set_status(204)
        self.finish()


class OtherSessionsHandler(ApiHandler):
    """Ending every session of the caller's account but the one it asks from."""

    async def delete(self, kind: str) -> None:
        self.own(KINDS[kind])
        ended = await self.parts.database.write(sessions.end_others, self.principal, self.origin, clock.now())
        if ended is None:
            raise forbidden()
        self.answer({"ended": ended})


class ImageHandler(ApiHandler):
    """An account's picture; open, as an address in an <img> carries no token."""

    is_open = True

    async def get(self, kind: str, id: str, file: str) -> None:
        jpeg: bytes | None = None
        if file == DEFAULT_IMAGE:
            jpeg = static.load()[1][f"Users/{DEFAULT_IMAGE}"].content
        elif file.isprintable():
            jpeg = await self.parts.database.read(pictures.get, KINDS[kind], read_id(id), file)
        if jpeg is None:
            raise web.HTTPError(404)
        self.set_header("Content-Type", "image/jpeg")
        self.set_header("Cache-Control", "public, max-age=86400")
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        self.finish(jpeg)

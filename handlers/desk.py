"""JSON for staff: every session and account by page, and ending all that match a filter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import ValidationError

from handlers.answers import shape_account, shape_details
from handlers.base import ApiHandler, Refusal, forbidden, read_id, tell_errors
from handlers.bodies import Body, Filled
from handlers.queries import AccountQuery, EventQuery, ListQuery, SessionQuery, encode, find_empty, read_query
from models import clock, desk, jobs
from models.accounts import is_confirmed
from models.desk import MOST_ACCOUNTS, TooWide
from models.paging import InvalidCursor, Page
from models.schema import KINDS, Row

Filtered = SessionQuery | AccountQuery | EventQuery
Query = TypeVar("Query", bound=ListQuery)

TOO_WIDE = {"q": [f"More than {MOST_ACCOUNTS:,} accounts begin so: give more of it."]}


class DeskHandler(ApiHandler):
    """What staff and viewers may ask."""

    async def prepare(self) -> None:
        if proving := super().prepare():
            await proving
            if not self.principal.sees_all:
                raise forbidden()

    def read_query(self, model: type[Query], given: Mapping[str, Sequence[bytes]]) -> Query:
        """What is asked for; raises 400 with what is wrong with each field."""
        # A form sends what was left empty; a program that does has lost something, and might end all there is.
        if empty := find_empty(given):
            raise Refusal(400, {name: ["Give a value, or leave it out."] for name in empty})
        try:
            return read_query(model, given)
        except ValidationError as error:
            raise Refusal(400, tell_errors(error)) from None

    async def find(self, list_: Callable[..., Awaitable[Page | None]], asked: Filtered, *which: Any) -> Page:
        """The page of the list that was asked for; raises 400 where there is no such, 403 where he may not."""
        try:
            page = await list_(
                self.parts.database, self.principal, *which, asked.filter, clock.now(), asked.after, asked.before,
                asked.limit,
            )  # fmt: skip
        except InvalidCursor:
            raise no_place() from None
        except TooWide:
            raise Refusal(400, TOO_WIDE) from None
        if page is None:
            raise forbidden()
        return page

    def answer_page(self, page: Page, asked: Filtered, rows: list[Any]) -> None:
        """Send a page's rows, with how many there are in all and the pages around it (RFC 8288)."""
        links = []
        for relation, name, cursor in (("next", "after", page.next), ("prev", "before", page.previous)):
            if cursor:
                query = urlencode([*encode(asked.filter), ("limit", asked.limit), (name, cursor)])
                links.append(f'<{self.request.path}?{query}>; rel="{relation}"')
        if links:
            self.set_header("Link", ", ".join(links))
        self.set_header("X-Total-Count", str(page.total))
        self.answer(rows)


class SessionsHandler(DeskHandler):
    """Every live session of the house, of both kinds unless one is asked for."""

    async def get(self) -> None:
        asked, site = self.read_query(SessionQuery, self.request.query_arguments), self.site
        page = await self.find(desk.list_sessions, asked)
        self.answer_page(page, asked, [self._shape(row, site) for row in page.rows])

    def _shape(self, row: Row, site: str) -> dict[str, Any]:
        return {"kind": row["kind"]} | shape_details(KINDS[row["kind"]], row, site, self.principal)


class AccountsHandler(DeskHandler):
    """Every account of a kind."""

    async def get(self, kind: str) -> None:
        asked, site = self.read_query(AccountQuery, self.request.query_arguments), self.site
        page = await self.find(desk.list_accounts, asked, KINDS[kind])
        self.answer_page(page, asked, [shape_known(row, site) for row in page.rows])


class EventsHandler(DeskHandler):
    """The event log, newest first."""

    async def get(self) -> None:
        asked = self.read_query(EventQuery, self.request.query_arguments)
        page = await self.find(desk.list_events, asked)
        self.answer_page(page, asked, [shape_event(row) for row in page.rows])


class Ending(Body):
    """Ending all sessions that match a filter: `{}` matches every one."""

    filter: dict[str, str]
    reason: Filled | None = None


class EndingHandler(DeskHandler):
    """Ends all sessions that match a filter, of those that were started by now; some at a time."""

    async def post(self) -> None:
        if not self.principal.is_staff:
            raise forbidden()
        body, now = self.read_body(Ending), clock.now()
        if paging := sorted(ListQuery.model_fields.keys() & body.filter.keys()):
            raise Refusal(400, {name: ["All that match are ended, and no page of them."] for name in paging})
        sought = self.read_query(SessionQuery, {name: [text.encode()] for name, text in body.filter.items()}).filter
        try:
            total = await desk.count_sessions(self.parts.database, self.principal, sought, now)
        except TooWide:
            raise Refusal(400, TOO_WIDE) from None
        row = await self.parts.database.write(
            jobs.start, self.principal, sought, total or 0, body.reason, self.origin, now
        )
        if row is None or total is None:
            raise forbidden()
        self.parts.jobs.wake()
        self.set_header("Location", f"{self.request.path}{row['id']}/")
        self.answer(shape_job(row), 202)


class JobHandler(DeskHandler):
    """How far the ending of many sessions is."""

    async def get(self, id: str) -> None:
        row = await self.parts.database.read(jobs.get, self.principal, read_id(id), clock.now())
        if row is None:
            raise forbidden()
        self.answer(shape_job(row))


def no_place() -> Refusal:
    """400: a cursor of another list, or none."""
    return Refusal(400, {"detail": "There is no such page. Begin again without after or before."})


def shape_known(row: Row, site: str) -> dict[str, Any]:
    """An account, and what staff know of it."""
    kind = KINDS[row["kind"]]
    roles = {"staff": row["is_staff"], "viewer": row["is_viewer"]} if "is_staff" in row else {}
    return {
        **shape_account(kind, row, site),
        "confirmed": is_confirmed(kind, row),
        "disabled": row["disabled_at"] is not None,
        **roles,
        "sessions": row["live"],
    }


def shape_event(row: Row) -> dict[str, Any]:
    """An event of the log."""
    return {
        "id": row["id"],
        "at": clock.to_iso(row["at"]),
        **{
            name: row[name]
            for name in (
                "type", "cause", "kind", "account_id", "session_id", "by_kind", "by_id", "device", "ip", "country",
                "reason",
            )
        },
    }  # fmt: skip


def shape_job(row: Row) -> dict[str, Any]:
    """How far a job is."""
    finished_at = row["finished_at"]
    return {
        "id": row["id"],
        "state": row["state"],
        "total": row["total"],
        "ended": row["ended"],
        "reason": row["reason"],
        "by": row["by_id"],
        "created_at": clock.to_iso(row["created_at"]),
        "finished_at": clock.to_iso(finished_at) if finished_at else None,
    }

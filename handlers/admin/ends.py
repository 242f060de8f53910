"""Pages: ending many sessions: what will happen, then how far it is."""

from __future__ import annotations

from dataclasses import replace

from tornado import web

from handlers.admin.filters import Filters, write_address
from handlers.admin.people import DESK, Person, make_person
from handlers.admin.sessions import ADDRESS, FIELDS, make_listed
from handlers.admin.staff import ListHandler, StaffHandler
from handlers.base import read_id
from handlers.bodies import Text
from handlers.forms import Form, Typed
from handlers.languages import N_
from handlers.queries import SessionQuery, encode
from models import clock, desk, jobs
from models.desk import TooWide
from models.events import Cause, Type
from models.filters import EventFilter, SessionFilter
from models.schema import KINDS, USER, KindName, Row

# As many of those that will end are shown.
MOST_SHOWN = 10
MOST_PICKED = 200
MOST_LISTED = 20
LONGEST_REASON = 200
UNREADABLE = N_("That can't be read. Choose again.")


class Reason(Typed):
    """Why staff do something."""

    reason: Text = ""


class EndHandler(ListHandler[SessionQuery]):
    """Says which sessions will end, the picked ones or all that match, and begins to end them."""

    query = SessionQuery
    fields = FIELDS

    async def get(self) -> None:
        await self._show(Form())

    async def post(self) -> None:
        typed, form = self.read_form(Reason)
        if typed is None:
            await self._show(form, 400)
            return
        wanted, filters = self._read_wanted()
        if wanted is None:
            await self._show(form)
            return
        total = await self._count(wanted, filters)
        if not total:
            self.redirect_to(_back(filters), N_("They have ended already: there was nothing left to end."))
            return
        act = self.language.ngettext(
            "End {number} session", "End {number} sessions", total, number=self.language.number(total)
        )
        await self.require_recent(act)
        job = self.must(
            await self.parts.database.write(
                jobs.start, self.principal, wanted, total, typed.reason or None, self.origin, clock.now()
            )
        )
        self.parts.jobs.wake()
        self.redirect_to(f"{ADDRESS}ends/{job['id']}/")

    def _read_wanted(self) -> tuple[SessionFilter | None, Filters[SessionQuery]]:
        """Which sessions are meant: those that were picked, or all that the filters say."""
        filters = self.read_filters("session", "picked")
        picked = self.get_query_arguments("session")
        # The list's form says that something was to be picked: where nothing was, nobody meant all.
        if picked or self.get_query_argument("picked", ""):
            if not 0 < len(picked) <= MOST_PICKED:
                return None, filters
            return SessionFilter(ids=frozenset(_read_key(key) for key in picked)), filters
        return filters.query.filter if filters.query else None, filters

    async def _count(self, wanted: SessionFilter, filters: Filters[SessionQuery]) -> int:
        """How many are meant; a search that finds too many accounts is told by the list."""
        try:
            return self.must(await desk.count_sessions(self.parts.database, self.principal, wanted, clock.now()))
        except TooWide:
            self.redirect_to(_back(filters))
            raise web.Finish from None

    async def _show(self, form: Form, status: int = 200) -> None:
        wanted, filters = self._read_wanted()
        database, principal, now, language = self.parts.database, self.principal, clock.now(), self.language
        if wanted is None:
            wrong = N_("Pick at least one session, and at most {most}.") if filters.query else UNREADABLE
            self.redirect_to(_back(filters), wrong, tone="wrong", most=MOST_PICKED)
            return
        total = await self._count(wanted, filters)
        found = self.must(await desk.list_sessions(database, principal, wanted, now, most=MOST_SHOWN))
        counts = {
            kind.name: await self._count(replace(wanted, kind=kind.name), filters)
            for kind in KINDS.values()
            if wanted.kind in (None, kind.name)
        }
        own = replace(wanted, kind=principal.kind.name, account=principal.account_id)
        is_near = wanted.kind in (None, own.kind) and wanted.account in (None, own.account)
        has_own = is_near and await self._count(own, filters) > 0
        self.render_page(
            "desk/end.html",
            status,
            form=form,
            filters=filters,
            back=_back(filters),
            total=total,
            counts=counts,
            has_own=has_own,
            rows=[make_listed(row, principal, language, now, self.parts.places) for row in found.rows],
            is_picked=wanted.ids is not None,
            LONGEST_REASON=LONGEST_REASON,
        )


def _back(filters: Filters[SessionQuery]) -> str:
    """The list, with the filters that were on when somebody came from it."""
    return write_address(ADDRESS, filters.written)


def _read_key(key: str) -> tuple[KindName, int]:
    """`user-12` as the kind and the id of a session."""
    kind, _, number = key.partition("-")
    if kind not in KINDS or not (number.isascii() and number.isdigit()):
        raise web.HTTPError(400)
    return KINDS[kind].name, read_id(number)


class JobHandler(StaffHandler):
    """A page of what staff had ended."""

    async def load_people(self, rows: list[Row]) -> dict[int, Person]:
        """Who had it ended, by the id of the account."""
        people = {}
        for by_id in {row["by_id"] for row in rows}:
            account = await desk.get_account(self.parts.database, self.principal, USER, by_id, clock.now())
            people[by_id] = make_person(USER, by_id, account or {}, self.language, "")
        return people


class EndPageHandler(JobHandler):
    """How far the ending of many sessions is."""

    async def get(self, id: str) -> None:
        job = await self.parts.database.read(jobs.get, self.principal, read_id(id), clock.now())
        if job is None:
            raise web.HTTPError(404)
        ends = EventFilter(
            type=Type.ENDED,
            cause=Cause.STAFF,
            by_kind=USER.name,
            by=job["by_id"],
            since=job["created_at"],
            until=job["finished_at"] and job["finished_at"] + clock.MICROSECOND,
        )
        self.render_page(
            "desk/ending.html",
            job=job,
            log_address=write_address(f"{DESK}events/", dict(encode(ends))),
            people=await self.load_people([job]),
            is_running=job["state"] in ("waiting", "running"),
        )


class EndListHandler(JobHandler):
    """What staff ended lately."""

    async def get(self) -> None:
        rows = self.must(await self.parts.database.read(jobs.list_latest, self.principal, MOST_LISTED, clock.now()))
        self.render_page("desk/ends.html", rows=rows, people=await self.load_people(rows))

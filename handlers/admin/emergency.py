"""Page: ending every session of the house at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from handlers.admin.filters import Filters
from handlers.admin.log import log
from handlers.admin.people import DESK
from handlers.admin.sessions import FIELDS
from handlers.admin.staff import ListHandler
from handlers.bodies import Secret, Text
from handlers.forms import Form, Typed
from handlers.languages import N_, NN_
from handlers.queries import SessionQuery
from models import clock, cutoffs, desk, sessions
from models.filters import EventFilter, SessionFilter
from models.schema import KINDS, Kind, KindName

ADDRESS = f"{DESK}emergency/"
# What has to be typed; each language has its own.
WORD = N_("END")
MOST_EVENTS = 10
DONE = NN_(
    "{number} session has ended.",
    "{number} sessions have ended.",
)
ASKED = {name: FIELDS[name] for name in ("kind", "started_to")}


class Emergency(Typed):
    """What stands before the act: a word, the password, and why."""

    word: Text = ""
    password: Secret
    reason: Text = ""


class Plan(NamedTuple):
    """What will end: the kinds, and how many sessions of each now."""

    kinds: list[Kind]
    before: datetime | None
    counts: dict[KindName, int]
    # Whether the session of whoever asks is among them.
    has_own: bool


class EmergencyHandler(ListHandler[SessionQuery]):
    """Says what will end, and ends it: all kinds or one, all sessions or those started before a time."""

    query = SessionQuery
    fields = ASKED

    async def get(self) -> None:
        await self._show(self.read_filters(), Form())

    async def post(self) -> None:
        filters = self.read_filters()
        typed, form = self.read_form(Emergency)
        word = self._(WORD)
        if (typed.word if typed else form.value("word")).strip().upper() != word:
            form.errors = {"word": self._(N_("Type {word} to continue."), word=word), **form.errors}
        if not form.errors and typed and not await self.confirm_password(typed.password):
            form.errors["password"] = self._(N_("This is not your password."))
        if form.errors or typed is None or filters.errors:
            await self._show(filters, form, 400)
            return
        plan = await self._plan(filters)
        self.must(
            await self.parts.database.write(
                cutoffs.cut, self.principal, plan.kinds, plan.before, typed.reason or None, self.origin, clock.now()
            )
        )
        total = sum(plan.counts.values())
        self.redirect_to(
            f"/sign-in/?next={ADDRESS}" if plan.has_own else ADDRESS,
            DONE,
            count=total,
            number=self.language.number(total),
        )

    async def _plan(self, filters: Filters[SessionQuery]) -> Plan:
        asked = filters.query.filter if filters.query else SessionFilter()
        kinds = [kind for kind in KINDS.values() if asked.kind in (None, kind.name)]
        counts = {
            kind.name: self.must(
                await desk.count_sessions(
                    self.parts.database, self.principal, replace(asked, kind=kind.name), clock.now()
                )
            )
            for kind in kinds
        }
        principal, now = self.principal, clock.now()
        has_own = principal.kind in kinds
        if has_own and asked.started_to:
            read = self.parts.database.read
            own = self.must(await read(sessions.get_visible, principal, principal.kind, principal.session_id, now))
            has_own = own["created_at"] < asked.started_to
        return Plan(kinds, asked.started_to, counts, has_own)

    async def _show(self, filters: Filters[SessionQuery], form: Form, status: int = 200) -> None:
        database, principal, now = self.parts.database, self.principal, clock.now()
        plan = await self._plan(filters)
        past = self.must(
            await desk.list_events(database, principal, EventFilter(type="emergency"), now, most=MOST_EVENTS)
        )
        self.render_page(
            "desk/emergency.html",
            400 if filters.errors else status,
            filters=filters,
            form=form,
            plan=plan,
            total=sum(plan.counts.values()),
            word=self._(WORD),
            waiting=self.must(await database.scan(cutoffs.count_waiting, principal, now)),
            events=[log(row, self.language) for row in past.rows],
        )

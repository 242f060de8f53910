"""Pages: every live session of the house, narrowed by filters; ending some of them, or all that match."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from handlers.admin.filters import NO_NETWORK, NO_NUMBER, NO_SPAN, Field, time_field, write_address
from handlers.admin.people import DESK, Person, make_person
from handlers.admin.staff import ListHandler
from handlers.admin.words import name_value
from handlers.devices import Device, make_device
from handlers.languages import N_, Language
from handlers.queries import NONE, SessionQuery
from models import clock, desk
from models.places import Places
from models.principals import Principal
from models.schema import KINDS, Row

ADDRESS = f"{DESK}sessions/"
MOST_CHOICES = 100
KIND_NAMES = {"user": N_("Users"), "client": N_("Clients")}
UNITS = {"h": "hours", "d": "days"}
IDLE = ("1h", "12h", "1d", "7d", "14d", "30d", "90d")
SORTS = {
    "-started": N_("Newest first"),
    "started": N_("Oldest first"),
    "-seen": N_("Last used first"),
    "seen": N_("Unused longest first"),
}


def _named(name: str) -> Any:
    return lambda value, language: name_value(name, value, language)


FIELDS = {
    "kind": Field(N_("Kind of account"), lambda kind, language: language.gettext(KIND_NAMES[kind])),
    "q": Field(N_("Whose")),
    "device": Field(N_("Device")),
    "account": Field(N_("Account number"), error=NO_NUMBER),
    "device_kind": Field(N_("Kind of device"), _named("device_kind")),
    "browser": Field(N_("Browser"), _named("browser")),
    "os": Field(N_("System"), _named("os")),
    "country": Field(N_("Country"), _named("country")),
    "ip": Field(N_("IP address"), error=NO_NETWORK),
    "started_from": time_field(N_("Started since")),
    "started_to": time_field(N_("Started before")),
    "seen_from": time_field(N_("Used since")),
    "seen_to": time_field(N_("Not used since")),
    "idle": Field(N_("Not used for more than"), lambda idle, language: language.span(idle), NO_SPAN),
}


@dataclass(frozen=True, slots=True)
class Listed:
    """A session of the list, with whose it is."""

    key: str
    device: Device
    person: Person

    @property
    def address(self) -> str:
        """Its page."""
        return f"{ADDRESS}{self.person.kind.name}/{self.device.id}/"


def make_listed(row: Row, principal: Principal, language: Language, now: datetime, places: Places) -> Listed:
    """The line that a session's row is shown as."""
    kind = KINDS[row["kind"]]
    # Each kind numbers its sessions by itself: another's is never the one that staff look from.
    looking = principal if kind is principal.kind else replace(principal, session_id=0)
    return Listed(
        f"{kind.name}-{row['id']}",
        make_device(row, looking, language, now, places),
        make_person(kind, row["account_id"], row, language),
    )


class SessionListHandler(ListHandler[SessionQuery]):
    """The live sessions that match, of both kinds or of one."""

    query = SessionQuery
    fields = FIELDS

    async def get(self) -> None:
        filters, language, now = self.read_filters(), self.language, clock.now()
        found, choices = await asyncio.gather(
            self.find(filters, desk.list_sessions), desk.list_choices(self.parts.database, self.principal, now)
        )
        self.render_page(
            "desk/sessions.html",
            400 if filters.errors else 200,
            filters=filters,
            rows=[make_listed(row, self.principal, language, now, self.parts.places) for row in found.rows],
            found=found,
            choices={
                name: [
                    (value or NONE, f"{name_value(name, value, language)} ({language.number(count)})")
                    for value, count in counted[:MOST_CHOICES]
                ]
                for name, counted in self.must(choices).items()
            },
            idle=[(span, tell_span(span, language)) for span in IDLE],
            sorts=[(name, self._(label)) for name, label in SORTS.items()],
            end_all=write_address(f"{ADDRESS}end/", filters.written),
        )


def tell_span(span: str, language: Language) -> str:
    """One of IDLE in words."""
    return language.span(timedelta(**{UNITS[span[-1]]: int(span[:-1])}))

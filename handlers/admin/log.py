"""Pages: the log of what happened in the house, in sentences, and as a file."""

from __future__ import annotations

import csv
import io
import re
import socket
import struct
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, cast

import orjson
from markupsafe import Markup
from tornado.http1connection import HTTP1Connection
from tornado.iostream import StreamClosedError

from handlers.activity import Telling, tell
from handlers.admin.filters import NO_CHOICE, NO_NETWORK, NO_NUMBER, Field, time_field, write_address
from handlers.admin.people import DESK, name_account
from handlers.admin.sessions import KIND_NAMES
from handlers.admin.staff import ListHandler
from handlers.admin.words import CAUSES, LOGGED, TYPES, name_cause
from handlers.base import forbidden
from handlers.languages import N_, Language
from handlers.queries import EventQuery
from models import clock, desk
from models.schema import Row

ADDRESS = f"{DESK}events/"
PERSON = Markup('<a href="%s"><b><bdi>%s</bdi></b></a>')
COLUMNS = (
    "id", "at", "type", "cause", "kind", "account_id", "account_label", "session_id", "by_kind", "by_id", "by_label",
    "device", "ip", "country", "reason",
)  # fmt: skip
# Where a spreadsheet would begin a formula (OWASP, CSV injection): wherever a cell may begin, whatever parts it.
FORMULA = re.compile(r"""(^|[;,\t\r\n])(?=[\s"']*[=+\-@＝＋－＠])|^(?=[\t\r])""")
# What is asked for most.
SHORTCUTS = {
    "": N_("All"),
    "started": N_("Sign-ins"),
    "refused": N_("Refusals"),
    "ended": N_("Ended sessions"),
    "registered": N_("New accounts"),
}

FIELDS = {
    "type": Field(N_("What"), lambda type_, language: language.gettext(TYPES.get(type_, type_))),
    "cause": Field(N_("Why"), name_cause),
    "kind": Field(N_("Kind of account"), lambda kind, language: language.gettext(KIND_NAMES[kind])),
    "account": Field(N_("Account number"), error=NO_NUMBER),
    "session": Field(N_("Session number"), error=NO_NUMBER),
    "by_kind": Field(N_("Done by"), lambda kind, language: language.gettext(KIND_NAMES[kind]), NO_CHOICE),
    "by": Field(N_("Number of that account"), error=NO_NUMBER),
    "ip": Field(N_("IP address"), error=NO_NETWORK),
    "since": time_field(N_("Since")),
    "until": time_field(N_("Before")),
}


@dataclass(frozen=True, slots=True)
class Logged:
    """An event of the log: its sentence, and why it was done."""

    told: Telling
    reason: str


def log(row: Row, language: Language) -> Logged:
    """An event as staff read it: who, to whom."""
    whose = _name(row["kind"], row["account_id"], row["account_label"], language)
    by = language.gettext(N_("The server"))
    if row["by_kind"]:
        by = _name(row["by_kind"], row["by_id"], row["by_label"], language)
    told = tell(row, language, LOGGED, whose=whose, by=by, kind=_kind(row["kind"], language))
    return Logged(told, row["reason"] or "")


def _kind(kind: str | None, language: Language) -> Markup:
    return language.gettext(KIND_NAMES[kind]) if kind in KIND_NAMES else Markup("")


def _name(kind: str | None, account_id: int | None, label: str | None, language: Language) -> Markup:
    if kind is None or account_id is None:
        return Markup("<b>%s</b>") % language.gettext(N_("Somebody unknown"))
    name = label or name_account(kind, account_id, language)
    return PERSON % (f"{DESK}accounts/{kind}/{account_id}/", name)


class LogHandler(ListHandler[EventQuery]):
    """The events that match, newest first, a day under another."""

    query = EventQuery
    fields = FIELDS

    async def get(self) -> None:
        filters, language, now = self.read_filters(), self.language, clock.now()
        found = await self.find(filters, desk.list_events)
        logged = [log(row, language) for row in found.rows]
        self.render_page(
            "desk/events.html",
            400 if filters.errors else 200,
            filters=filters,
            found=found,
            days=[(day, list(some)) for day, some in groupby(logged, lambda one: language.near_day(one.told.at, now))],
            types=[(name, self._(label)) for name, label in TYPES.items()],
            causes=[(name, self._(label)) for name, label in CAUSES.items()],
            kinds=[(name, self._(label)) for name, label in KIND_NAMES.items()],
            shortcuts=[(name, self._(label), filters.to(type=name, cause=None)) for name, label in SHORTCUTS.items()],
            downloads=[
                (name, write_address(f"{ADDRESS}download/{name}/", filters.written)) for name in ("csv", "jsonl")
            ],
        )


class DownloadHandler(ListHandler[EventQuery]):
    """The events that match, all of them, as a file: sent batch by batch, as fast as it is taken."""

    query = EventQuery
    fields = FIELDS

    async def get(self, form: str) -> None:
        filters = self.read_filters()
        if filters.errors or filters.query is None:
            self.redirect_to(write_address(ADDRESS, filters.values))
            return
        now = clock.now()
        batches = desk.stream_events(self.parts.database, self.principal, filters.query.filter, now)
        self.set_header("Content-Type", "text/csv; charset=utf-8" if form == "csv" else "application/jsonl")
        self.set_header("Content-Disposition", f'attachment; filename="events-{now:%Y-%m-%d}.{form}"')
        write = write_csv if form == "csv" else write_jsonl
        try:
            if form == "csv":
                self.write(write_csv([dict(zip(COLUMNS, COLUMNS, strict=True))]))
            async for rows in batches:
                self.write(write(rows))
                await self.flush()
        except StreamClosedError:
            return
        except desk.NoLongerStaff:
            raise forbidden() from None
        self.finish()

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Say what failed; where some of the file is sent already, break off so that nobody takes it for all of it."""
        if not self._headers_written:
            super().send_error(status_code, **kwargs)
            return
        stream = cast(HTTP1Connection, self.request.connection).stream
        # Where whoever took it has gone there is nothing to break off.
        if not stream.closed():
            # Reset and not closed: the end of the connection is all that tells HTTP/1.0 where the file ends.
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.close()
        self.set_status(status_code)
        self.finish()


def write_csv(rows: list[Row]) -> bytes:
    """Rows of a table (RFC 4180), with nothing that a spreadsheet would reckon with."""
    text = io.StringIO()
    csv.writer(text).writerows([_cell(row[name]) for name in COLUMNS] for row in rows)
    return text.getvalue().encode()


def write_jsonl(rows: list[Row]) -> bytes:
    """A JSON object on each line."""
    options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_APPEND_NEWLINE
    return b"".join(orjson.dumps({name: row[name] for name in COLUMNS}, _iso, options) for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return clock.to_iso(value)
    return FORMULA.sub(r"\1'", value) if isinstance(value, str) else value


def _iso(value: Any) -> str:
    if isinstance(value, datetime):
        return clock.to_iso(value)
    raise TypeError(type(value))

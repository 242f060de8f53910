"""Who may sit at the desk: the one place that asks it, for every page and every act of the staff."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, Generic, NoReturn, TypeVar
from urllib.parse import parse_qsl

from tornado import web

from handlers.admin.filters import Field, Filters, Query, read_filters
from handlers.admin.people import DESK
from handlers.forms import FormHandler
from handlers.languages import N_
from handlers.pages import HOME
from models import clock
from models.desk import TooWide
from models.paging import InvalidCursor, Page

TOO_WIDE = N_("Too many accounts begin like this. Type more of it.")

NOTHING = Page([], 0, None, None)

Found = TypeVar("Found")


class StaffHandler(FormHandler):
    """A page of the desk. A viewer sees all of it and changes nothing."""

    home = DESK

    def require_rights(self) -> None:
        """Go on only for staff; a viewer may look."""
        if not self.principal.sees_all:
            self.forbid()
        if self.request.method == "POST" and not self.principal.is_staff:
            self.forbid()

    def forbid(self) -> NoReturn:
        """Say that this is for the staff, or what a viewer may not."""
        if self.principal.sees_all and self.request.method == "POST":
            title = self._(N_("You can look, but change nothing"))
            text = self._(N_("Your account is a viewer: you can see the whole desk. Nothing was changed."))
        else:
            title = self._(N_("This is for the staff"))
            text = self._(N_("Your account may not open the desk. Ask one of the staff if it should."))
        self.render_error(403, title, text, (HOME, self._(N_("Your devices"))))
        raise web.Finish

    def must(self, found: Found | None) -> Found:
        """What the database gave; where it gave nothing, whoever asks is staff no longer."""
        if found is None:
            self.forbid()
        return found


class ListHandler(StaffHandler, Generic[Query]):
    """A list of the desk, narrowed by the filters in its address."""

    query: type[Query]
    fields: ClassVar[Mapping[str, Field]]

    def read_filters(self, *also: str) -> Filters[Query]:
        """What the address asks for, beside `also`.

        One that says it in another way than all others is sent on to the one that does.
        """
        pairs = parse_qsl(self.request.query, keep_blank_values=True, errors="replace")
        sent = {name: value for name, value in pairs if name not in also}
        filters = read_filters(self.request.path, self.query, self.fields, sent, self.language)
        is_alone = len(sent) == len(dict(pairs))
        if (
            self.request.method == "GET"
            and is_alone
            and not filters.errors
            and sent != filters.written | filters.paging
        ):
            self.redirect_to(filters.here)
            raise web.Finish
        return filters

    async def find(self, filters: Filters[Query], list_: Callable[..., Awaitable[Page | None]], *which: Any) -> Page:
        """The page of the list that the address asks for; with errors in the filters it is empty."""
        query = filters.query
        if query is None:
            return NOTHING
        database, principal, now = self.parts.database, self.principal, clock.now()
        try:
            found = await list_(database, principal, *which, query.filter, now, query.after, query.before, query.limit)
        except InvalidCursor:
            self.redirect_to(filters.to())
            raise web.Finish from None
        except TooWide:
            filters.errors["q"] = self._(TOO_WIDE)
            return NOTHING
        return self.must(found)

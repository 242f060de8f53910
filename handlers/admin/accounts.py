"""Pages: the accounts of each kind, one of them, and what staff do to it."""

from __future__ import annotations

from typing import Any

from tornado import web

from handlers.admin.ends import Reason
from handlers.admin.filters import Field, write_address
from handlers.admin.log import log
from handlers.admin.people import DESK, make_person
from handlers.admin.sessions import make_listed
from handlers.admin.staff import ListHandler, StaffHandler
from handlers.base import read_id
from handlers.bodies import Text
from handlers.forms import TAKEN, Form, Typed
from handlers.languages import N_
from handlers.letters import make_reset
from handlers.queries import AccountQuery
from models import accounts, clock, desk
from models.accounts import AccountChange, ContactTaken, LastStaff, is_confirmed
from models.filters import EventFilter, SessionFilter
from models.schema import KINDS, Kind, Row

ADDRESS = f"{DESK}accounts/"
MOST_DEVICES = 20
MOST_EVENTS = 20
STATES = {
    "active": N_("In use"),
    "unconfirmed": N_("Not confirmed"),
    "disabled": N_("Disabled"),
}
ROLES = {"staff": N_("Staff"), "viewer": N_("Viewers")}
SORTS = {"-created": N_("Newest first"), "created": N_("Oldest first"), "surname": N_("By surname")}
FIELDS = {
    "q": Field(N_("Who")),
    "state": Field(N_("State"), lambda state, language: language.gettext(STATES[state])),
    "role": Field(N_("Role"), lambda role, language: language.gettext(ROLES[role])),
}
LAST_STAFF = N_("This is the last account of the staff: without it nobody could open the desk. Nothing was changed.")
UNFIT_REASON = N_("The reason is too long, or has characters that don't show. Nothing was changed.")

# What staff do to an account: the change, what is said of it afterwards, and whether the password is asked for.
ACTS: dict[str, tuple[AccountChange, str, bool]] = {
    "confirm": (AccountChange(confirmed=True), N_("The account is confirmed."), False),
    "enable": (AccountChange(disabled=False), N_("The account is enabled again."), False),
    "disable": (AccountChange(disabled=True), N_("The account is disabled, and signed out everywhere."), True),
    "make-staff": (AccountChange(staff=True, viewer=False), N_("The account is staff now."), True),
    "unmake-staff": (AccountChange(staff=False), N_("The account is no longer staff."), True),
    "make-viewer": (AccountChange(viewer=True), N_("The account is a viewer now."), True),
    "unmake-viewer": (AccountChange(viewer=False), N_("The account is no longer a viewer."), True),
}


class AccountsHandler(StaffHandler):
    """Users first."""

    def get(self) -> None:
        self.redirect_to(f"{ADDRESS}user/")


class AccountListHandler(ListHandler[AccountQuery]):
    """The accounts of one kind that match."""

    query = AccountQuery
    fields = FIELDS

    async def get(self, kind: str) -> None:
        of, filters, language = KINDS[kind], self.read_filters(), self.language
        found = await self.find(filters, desk.list_accounts, of)
        self.render_page(
            "desk/accounts.html",
            400 if filters.errors else 200,
            kind=of,
            filters=filters,
            found=found,
            rows=[(make_person(of, row["id"], row, language, ""), row, is_confirmed(of, row)) for row in found.rows],
            states=[(name, self._(label)) for name, label in STATES.items()],
            roles=[(name, self._(label)) for name, label in ROLES.items()],
            sorts=[(name, self._(label)) for name, label in SORTS.items()],
        )


class AccountPageHandler(StaffHandler):
    """One account: its fields, its live devices, its history, and what can be done to it."""

    async def get(self, kind: str, id: str) -> None:
        of, now, language = KINDS[kind], clock.now(), self.language
        database, principal = self.parts.database, self.principal
        row = await self.load(of, id)
        mine = {"kind": of.name, "account": row["id"]}
        devices = self.must(
            await desk.list_sessions(database, principal, SessionFilter(**mine), now, most=MOST_DEVICES)
        )
        history = self.must(await desk.list_events(database, principal, EventFilter(**mine), now, most=MOST_EVENTS))
        query = {name: str(value) for name, value in mine.items()}
        self.render_page(
            "desk/account.html",
            kind=of,
            row=row,
            person=make_person(of, row["id"], row, language, ""),
            is_confirmed=is_confirmed(of, row),
            devices=devices,
            sessions=[make_listed(one, principal, language, now, self.parts.places) for one in devices.rows],
            history=history,
            events=[log(one, language) for one in history.rows],
            all_sessions=write_address(f"{DESK}sessions/", query),
            all_events=write_address(f"{DESK}events/", query),
            end_all=write_address(f"{DESK}sessions/end/", query),
        )

    async def load(self, kind: Kind, id: str) -> Row:
        """The account; 404 where there is none."""
        row = await desk.get_account(self.parts.database, self.principal, kind, read_id(id), clock.now())
        if row is None:
            raise web.HTTPError(404)
        return row


class AccountActHandler(AccountPageHandler):
    """Does one of ACTS."""

    async def get(self, kind: str, id: str, act: str = "") -> None:
        """Where a browser comes back to that left the question for the password."""
        self.redirect_to(f"{ADDRESS}{kind}/{read_id(id)}/")

    async def post(self, kind: str, id: str, act: str) -> None:
        of, address = KINDS[kind], f"{ADDRESS}{kind}/{read_id(id)}/"
        change, done, hurts = ACTS[act]
        if of.name != "user" and (change.staff is not None or change.viewer is not None):
            raise web.HTTPError(400)
        reason = self.read_reason(address)
        row = await self.load(of, id)
        if hurts:
            name = make_person(of, row["id"], row, self.language, "").name
            await self.require_recent(self._(N_("Change the account of {name}"), name=name))
        try:
            self.must(
                await self.parts.database.write(
                    accounts.change_by_staff, self.principal, of, row["id"], change, reason, self.origin,
                    self.parts.settings.sessions, clock.now(),
                )
            )  # fmt: skip
        except LastStaff:
            self.redirect_to(address, LAST_STAFF, tone="wrong")
            return
        self.redirect_to(address, done)

    def read_reason(self, address: str) -> str | None:
        """The reason that was typed; one that can't be kept is told of at `address`, and nothing more is done."""
        typed, _ = self.read_form(Reason)
        if typed is None:
            self.redirect_to(address, UNFIT_REASON, tone="wrong")
            raise web.Finish
        return typed.reason or None


class AccountResetHandler(AccountActHandler):
    """Sends the account a link that sets a new password."""

    async def post(self, kind: str, id: str, act: str = "") -> None:
        of, address = KINDS[kind], f"{ADDRESS}{kind}/{read_id(id)}/"
        reason = self.read_reason(address)
        row = await self.load(of, id)
        name = make_person(of, row["id"], row, self.language, "").name
        await self.require_recent(self._(N_("Send {name} a link for a new password"), name=name))
        sent = await self.parts.database.write(
            accounts.send_reset_link, self.principal, of, row["id"], self.parts.keys, reason,
            self.origin, clock.now(), make_reset(self),
        )  # fmt: skip
        if self.must(sent):
            self.parts.delivery.wake()
            self.redirect_to(address, N_("A link for a new password is on its way to the account."))
        else:
            self.redirect_to(address, N_("The account has no contact that a link could be sent to."), tone="wrong")


class NewAccount(Typed):
    """An account that staff make."""

    email: Text = ""
    phone: Text = ""
    surname: Text = ""
    name: Text = ""
    patronymic: Text = ""
    address: Text = ""


class AccountMakeHandler(StaffHandler):
    """Makes an account, which is sent a link to set its password."""

    def get(self, kind: str) -> None:
        self._show(KINDS[kind], Form())

    async def post(self, kind: str) -> None:
        of = KINDS[kind]
        typed, form = self.read_form(NewAccount)
        if typed is None:
            self._show(of, form, 400)
            return
        fields: dict[str, Any] = {name: getattr(typed, name) for name in ("surname", "name", "patronymic", "address")}
        fields |= self.read_contacts(of, typed, form)
        if form.errors:
            self._show(of, form, 400)
            return
        await self.require_recent(self._(N_("Create an account")))
        try:
            row = self.must(
                await self.parts.database.write(
                    accounts.create_by_staff, self.principal, of, fields, self.parts.keys, self.origin, clock.now(),
                    make_reset(self),
                )
            )  # fmt: skip
        except ContactTaken as taken:
            form.errors[taken.contact] = self._(TAKEN)
            self._show(of, form, 400)
            return
        self.parts.delivery.wake()
        self.redirect_to(
            f"{ADDRESS}{kind}/{row['id']}/", N_("Account created. A link to set its password is on its way.")
        )

    def _show(self, kind: Kind, form: Form, status: int = 200) -> None:
        self.render_page("desk/new_account.html", status, kind=kind, form=form)

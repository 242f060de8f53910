"""Pages: the devices that an account is signed in on, one by one and all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from tornado import web

from handlers.activity import tell
from handlers.base import read_id
from handlers.languages import N_, NN_, Language, clean_name
from handlers.pages import HOME, PageHandler
from models import clock, events, sessions
from models.places import Places
from models.principals import Principal
from models.schema import Row

LONGEST_NAME = 64
# Seen is written once a minute; a little later it still is now.
ACTIVE = timedelta(minutes=3)
# From so many on, devices are grouped and searched.
MANY = 8
MOST_HISTORY = 50

GROUPS = {
    "computer": N_("Computers"),
    "phone": N_("Phones"),
    "tablet": N_("Tablets"),
    "program": N_("Programs"),
    "": N_("Others"),
}


@dataclass(frozen=True, slots=True)
class Device:
    """A session as its owner sees it."""

    id: int
    is_current: bool
    is_active: bool
    kind: str
    # The name that its owner gave it, and what it is by itself.
    name: str
    described: str
    browser: str
    os: str
    sent: str
    place: str
    ip: str
    novelty: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime

    @property
    def label(self) -> str:
        """What its owner knows it by."""
        return self.name or self.described

    @property
    def sought(self) -> str:
        """The text that a search looks into."""
        return clean_name(f"{self.name} {self.described} {self.place} {self.ip} {self.sent}").lower()


@dataclass(frozen=True, slots=True)
class Group:
    """Devices of one kind."""

    title: str
    devices: list[Device]


def make_device(row: Row, principal: Principal, language: Language, now: datetime, places: Places) -> Device:
    """The device that a session's row is shown as."""
    is_current = principal.session_id == row["id"]
    return Device(
        id=row["id"],
        is_current=is_current,
        is_active=is_current or now - row["last_seen_at"] < ACTIVE,
        kind=row["device_kind"] if row["device_kind"] in GROUPS else "",
        # Programs name devices too, and with any characters.
        name=clean_name(row["name"] or ""),
        described=language.device(row["browser"], row["os"], row["device"]),
        browser=row["browser"],
        os=row["os"],
        sent=row["device"],
        place=language.place(row, places),
        ip=row["ip"],
        novelty=row["novelty"],
        created_at=row["created_at"],
        last_seen_at=row["last_seen_at"],
        expires_at=row["expires_at"],
    )


def group(devices: Sequence[Device], language: Language) -> list[Group]:
    """The devices by their kind, in the order of GROUPS; those seen last first."""
    order = list(GROUPS)
    known = sorted(devices, key=lambda one: (order.index(one.kind), -one.last_seen_at.timestamp()))
    return [Group(language.gettext(GROUPS[kind]), list(some)) for kind, some in groupby(known, lambda one: one.kind)]


class OwnHandler(PageHandler):
    """A page about the sessions of whoever asks: here staff see their own too, and no others."""

    async def prepare(self) -> None:
        await super().prepare()
        if self.visitor:
            self.visitor = replace(self.visitor, role="")

    async def load(self, id: str) -> Device:
        """One device of whoever asks; 404 where it has no such."""
        principal, now = self.principal, clock.now()
        row = await self.parts.database.read(sessions.get_visible, principal, principal.kind, read_id(id), now)
        if row is None:
            raise web.HTTPError(404)
        return make_device(row, principal, self.language, now, self.parts.places)


class DeviceListHandler(OwnHandler):
    """Every device, this one first."""

    async def get(self) -> None:
        principal, language, now = self.principal, self.language, clock.now()
        found = await self.parts.database.read(
            sessions.list_visible, principal, principal.kind, principal.account_id, now, None, 0
        )
        places = self.parts.places
        devices = [make_device(row, principal, language, now, places) for row in found[1]] if found else []
        current = next((device for device in devices if device.is_current), None)
        if current is None:
            # It ended between the proof and the list.
            await self.turn_away()
        others = [device for device in devices if not device.is_current]
        query = self.get_query_argument("q", "")[:100]
        sought = query.lower().split()
        # What is not sought stays in the page, hidden: search.js shows it again.
        hidden = {device.id for device in others if not all(word in device.sought for word in sought)}
        is_long = len(others) >= MANY
        self.render_page(
            "devices.html",
            current=current,
            others_count=len(others),
            query=query,
            is_long=is_long,
            hidden=hidden,
            groups=group(others, language) if is_long else _in_one(others),
        )


def _in_one(devices: list[Device]) -> list[Group]:
    return [Group("", sorted(devices, key=lambda one: one.last_seen_at, reverse=True))] if devices else []


class DevicePageHandler(OwnHandler):
    """One device: everything known of it, its name, its history."""

    async def get(self, id: str) -> None:
        await self._show(await self.load(id))

    async def post(self, id: str) -> None:
        """Name it."""
        typed = self.get_body_argument("name", "")
        name = clean_name(typed)
        if len(name) > LONGEST_NAME:
            device = await self.load(id)
            error = self._(N_("This is too long: {count} characters, at most {most} are kept."), count=len(name),
                           most=LONGEST_NAME)  # fmt: skip
            await self._show(device, typed=name[: 4 * LONGEST_NAME], error=error, status=400)
            return
        principal = self.principal
        row = await self.parts.database.write(
            sessions.name, principal, principal.kind, read_id(id), name or None, self.origin, clock.now()
        )
        if row is None:
            raise web.HTTPError(404)
        if name:
            self.redirect_to(f"/devices/{row['id']}/", N_("This device is now called {name}."), name=name)
        else:
            self.redirect_to(f"/devices/{row['id']}/", N_("The name was removed."))

    async def _show(self, device: Device, status: int = 200, **typed: Any) -> None:
        history = await self.parts.database.read(
            events.list_own, self.principal, device.id, None, MOST_HISTORY, clock.now()
        )
        self.render_page(
            "device.html",
            status,
            **{"device": device, "typed": device.name, "error": None} | typed,
            history=[tell(row, self.language) for row in history],
        )


class DeviceEndHandler(OwnHandler):
    """Ends one device's session; this device's own is ended at once, another's after a recent password."""

    def get(self, id: str) -> None:
        """Where a browser comes back to that left the question for the password."""
        self.redirect_to(f"/devices/{read_id(id)}/")

    async def post(self, id: str) -> None:
        principal = self.principal
        if read_id(id) == principal.session_id:
            # The same form, its method kept.
            self.redirect("/sign-out/", status=307)
            return
        row = await self.parts.database.read(sessions.get_visible, principal, principal.kind, read_id(id), clock.now())
        if row is None:
            self.redirect_to(HOME, N_("That session had ended already."))
            return
        device = make_device(row, principal, self.language, clock.now(), self.parts.places)
        await self.require_recent(self._(N_("End session: {device}"), device=device.label))
        ended = await self.parts.database.write(
            sessions.end, principal, principal.kind, device.id, self.origin, clock.now()
        )
        if ended:
            self.redirect_to(HOME, N_("Ended: {device} is signed out."), device=device.label)
        else:
            self.redirect_to(HOME, N_("That session had ended already."))


class OtherDevicesEndHandler(OwnHandler):
    """Ends every session of the account but this one."""

    def get(self) -> None:
        """Where a browser comes back to that left the question for the password."""
        self.redirect_to(HOME)

    async def post(self) -> None:
        await self.require_recent(self._(N_("End all others")))
        ended = await self.parts.database.write(sessions.end_others, self.principal, self.origin, clock.now())
        if ended:
            message = NN_("Ended: {count} device is signed out.", "Ended: {count} devices are signed out.")
            self.redirect_to(HOME, message, count=ended)
        else:
            self.redirect_to(HOME, N_("No other device was signed in."))

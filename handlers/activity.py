"""Page: what happened on an account, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from urllib.parse import urlencode

from markupsafe import Markup

from handlers.base import read_id
from handlers.languages import N_, Language
from handlers.pages import PageHandler
from models import clock, devices, events
from models.schema import Row

MOST_ON_A_PAGE = 30
# Of itself a device may say anything; what turns the text's direction turns it in here alone.
EMPHASISED = Markup("<b><bdi>%s</bdi></b>")

Sentence = tuple[str, str, str]
# For each type of event, and where it matters its cause: the icon, how grave it is, and the sentence.
SENTENCES: dict[tuple[str, str | None], Sentence] = {
    ("registered", None): ("user-plus", "", N_("Account created.")),
    ("registered", "staff"): ("user-plus", "", N_("Staff created the account.")),
    ("confirmed", None): ("badge-check", "on", N_("A contact was confirmed.")),
    ("confirmed", "email"): ("badge-check", "on", N_("The e-mail address was confirmed.")),
    ("confirmed", "phone"): ("badge-check", "on", N_("The phone number was confirmed.")),
    ("confirmed", "staff"): ("badge-check", "on", N_("Staff confirmed the account.")),
    ("started", None): ("log-in", "on", N_("{device} signed in.")),
    ("refused", None): ("shield-alert", "wrong", N_("A wrong password was refused: {device}.")),
    ("refused", "code"): ("shield-alert", "wrong", N_("A wrong code was refused: {device}.")),
    ("sent", None): ("mail", "", N_("A code was asked for: {device}.")),
    ("named", None): ("pencil", "", N_("A device was named.")),
    ("named", "staff"): ("pencil", "notice", N_("Staff named a device.")),
    ("ended", None): ("log-out", "", N_("{device} was signed out.")),
    ("ended", "signed_out"): ("log-out", "", N_("{device} signed out.")),
    ("ended", "owner"): ("log-out", "", N_("You ended the session of {device}.")),
    ("ended", "link"): ("log-out", "", N_("{device} was signed out by the link in a message to you.")),
    ("ended", "staff"): ("log-out", "notice", N_("Staff ended the session of {device}.")),
    ("ended", "expired"): ("timer-off", "", N_("{device} was signed out after a long time.")),
    ("ended", "cap"): ("layers", "", N_("{device} was signed out: too many others were signed in.")),
    ("ended", "replaced"): ("repeat", "", N_("{device} signed in again; its session before that ended.")),
    ("ended", "disabled"): ("ban", "notice", N_("{device} was signed out, because the account was disabled.")),
    ("ended", "password"): ("key-round", "", N_("{device} was signed out, because the password was changed.")),
    ("ended", "restored"): ("history", "", N_("{device} was signed out, because the server was restored.")),
    ("ended", "theft"): (
        "shield-alert",
        "wrong",
        N_("{device} was signed out, because a copy of its session was used elsewhere."),
    ),
    ("ended", "emergency"): ("siren", "notice", N_("{device} was signed out: staff ended all sessions at once.")),
    ("changed", None): ("at-sign", "notice", N_("A contact was replaced by another.")),
    ("changed", "email"): ("at-sign", "notice", N_("The e-mail address was replaced by another.")),
    ("changed", "phone"): ("phone", "notice", N_("The phone number was replaced by another.")),
    ("changed", "no_email"): ("at-sign", "notice", N_("The e-mail address was removed.")),
    ("changed", "no_phone"): ("phone-off", "notice", N_("The phone number was removed.")),
    ("changed", "messages"): ("bell", "on", N_("Messages about new devices were turned on.")),
    ("changed", "no_messages"): ("bell-off", "notice", N_("Messages about new devices were turned off.")),
    ("password_changed", "reset"): ("key-round", "notice", N_("A new password was set by a code.")),
    ("password_changed", "link"): ("key-round", "notice", N_("A new password was set by the link that staff sent.")),
    ("password_changed", None): ("key-round", "notice", N_("The password was changed.")),
    ("reset_sent", None): ("mail", "notice", N_("Staff sent you a link that sets a new password.")),
    ("made_staff", None): ("shield-check", "notice", N_("The account was made one of the staff.")),
    ("unmade_staff", None): ("shield-off", "notice", N_("The account is no longer one of the staff.")),
    ("made_viewer", None): ("eye", "notice", N_("The account was made a viewer of the staff's desk.")),
    ("unmade_viewer", None): ("eye-off", "notice", N_("The account is no longer a viewer of the staff's desk.")),
    ("disabled", None): ("ban", "notice", N_("Staff disabled the account.")),
    ("enabled", None): ("circle-check", "on", N_("Staff enabled the account again.")),
}
OTHER = ("circle-dot", "", N_("Something was changed: {type}."))


@dataclass(frozen=True, slots=True)
class Telling:
    """An event as its account reads it."""

    id: int
    at: datetime
    picture: str
    tone: str
    text: Markup
    place: str
    ip: str


def tell(
    row: Row, language: Language, sentences: Mapping[tuple[str, str | None], Sentence] = SENTENCES, **names: Markup
) -> Telling:
    """An event in a sentence; `names` fill the places that `sentences` have beside the device."""
    told = sentences.get((row["type"], row["cause"])) or sentences.get((row["type"], None)) or OTHER
    picture, tone, sentence = told
    described = devices.describe(row["device"] or "")
    device = language.device(described.browser, described.os, row["device"] or "")
    return Telling(
        id=row["id"],
        at=row["at"],
        picture=picture,
        tone=tone,
        text=language.gettext(sentence, device=EMPHASISED % device, type=row["type"], **names),
        place=language.country(row["country"] or ""),
        ip=row["ip"] or "",
    )


class ActivityHandler(PageHandler):
    """The events of the account, newest first, a day under another."""

    async def get(self) -> None:
        before = self.get_query_argument("before", "")
        oldest = read_id(before) if before.isascii() and before.isdigit() else None
        # One more than is shown: it tells whether there are older ones.
        now = clock.now()
        rows = await self.parts.database.read(events.list_own, self.principal, None, oldest, MOST_ON_A_PAGE + 1, now)
        language = self.language
        tellings = [tell(row, language) for row in rows[:MOST_ON_A_PAGE]]
        last = tellings[-1].id if len(rows) > MOST_ON_A_PAGE else None
        self.render_page(
            "activity.html",
            days=[(day, list(some)) for day, some in groupby(tellings, lambda told: language.near_day(told.at, now))],
            is_newest=oldest is None,
            newest="/activity/" if oldest else None,
            older=f"/activity/?{urlencode({'before': last})}" if last else None,
        )

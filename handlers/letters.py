"""What is written to an account: a code; that a device never seen before signed in; a link for a new password."""

from __future__ import annotations

from handlers import languages
from handlers.base import BaseHandler
from handlers.languages import N_
from models import clock
from models.accounts import TellCode, TellLink
from models.announcements import Announcement
from models.keys import KeySet
from models.schema import Kind, Row

LINK = "link"


def make_code(language: languages.Language) -> TellCode:
    """The message with a code, in the language of whoever asks for it."""

    def write(code: str, minutes: int) -> tuple[str, str]:
        lines = [
            language.plain(N_("Your code is {code}."), code=code),
            language.ngettext(
                "It is good for {count} minute and for one use.",
                "It is good for {count} minutes and for one use.",
                minutes,
            ),
            language.plain(N_("If you did not ask for it, ignore this message.")),
        ]
        return language.plain(N_("{code} is your code"), code=code), "\n".join(map(str, lines))

    return write


def make_announcement(handler: BaseHandler) -> Announcement:
    """The letter about a sign-in that `handler` takes."""
    site, keys = handler.sure_site, handler.parts.keys

    def write(kind: Kind, account: Row, session: Row) -> tuple[str, str]:
        # Whoever signs in just now may be somebody else.
        language = _choose(handler, account)
        _ = language.plain
        device = language.device(session["browser"], session["os"], session["device"])
        place = language.place(session, handler.parts.places)
        lines = [
            _(N_("Somebody signed in to your account on a device that was never used for it before.")),
            "",
            _(N_("Device: {device}"), device=device),
            _(N_("Place: {place}"), place=f"{place} ({session['ip']})" if place else session["ip"]),
            _(N_("Time: {time}"), time=language.moment(session["created_at"])),
            "",
            _(N_("If this was you, there is nothing to do.")),
        ]
        if site:
            lines.append(_(N_("If it was not, sign that device out here, and then set a new password:")))
            lines.append(f"{site}/end/{name_link(keys, kind, session)}/")
        else:
            # Whoever signed in said where "here" is, and may want it clicked.
            lines.append(
                _(N_("If it was not, sign that device out on the page of your devices, and set a new password."))
            )
        return _(N_("New device: {device}"), device=device), "\n".join(lines)

    return Announcement(keys, write)


def make_reset(handler: BaseHandler) -> TellLink:
    """The letter with a link that sets a new password, for which staff ask by `handler`."""
    site = handler.site

    def write(kind: Kind, account: Row, code: str) -> tuple[str, str]:
        _ = _choose(handler, account).plain
        lines = [
            _(N_("Here you set the password of your account. The link is good for a day and for one use:")),
            f"{site}/reset/{kind.name}-{account['id']}-{code}/",
            "",
            _(N_("If you know nothing of it, ignore this message.")),
        ]
        return _(N_("A link to set your password")), "\n".join(lines)

    return write


def _choose(handler: BaseHandler, account: Row) -> languages.Language:
    """The account's own language, or else the one that `handler` is asked in."""
    if account["language"] in languages.LOCALES:
        return languages.Language(account["language"])
    return asked_in(handler)


def asked_in(handler: BaseHandler) -> languages.Language:
    """The language that a program asks in."""
    return languages.choose(handler.request.headers.get("Accept-Language", ""))


def name_link(keys: KeySet, kind: Kind, session: Row) -> str:
    """What the address of a session's end is made of; nobody else can make it.

    Its time stands beside its id: a server that was restored from a back-up uses ids again.
    """
    made = clock.to_microseconds(session["created_at"])
    named = f"{kind.name} {session['id']} {made}"
    return f"{kind.name}-{session['id']}-{made}-{keys.fingerprint(LINK, named)}"


def is_link(keys: KeySet, kind: Kind, session_id: int, mark: str) -> bool:
    """Whether a link was made by `name_link`, for whichever session has, or had, this id."""
    made, _, fingerprint = mark.partition("-")
    return keys.is_fingerprint(fingerprint, LINK, f"{kind.name} {session_id} {made}")


def is_link_of(session: Row, mark: str) -> bool:
    """Whether a link that was made for this id was made for this session."""
    return mark.partition("-")[0] == str(clock.to_microseconds(session["created_at"]))

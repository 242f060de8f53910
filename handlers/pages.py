"""What every page shares: who is asking, by the cookie alone; how a page is made; how an error is told."""

from __future__ import annotations

import asyncio
import gzip
import json
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property
from hmac import compare_digest
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, NoReturn
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree
from zipfile import ZipFile

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from tornado import web

from handlers import languages, static
from handlers.answers import DEFAULT_IMAGE
from handlers.application import Refusers, list_cookies
from handlers.base import RETRY_SECONDS, BaseHandler, Refusal, TooLarge, TooSlow, answers_method, tell_later
from handlers.languages import N_
from models import accounts, clock, devices, principals, sessions
from models.guesses import Purpose
from models.passwords import Busy
from models.principals import Principal
from models.schema import Row
from models.tokens import Claims, InvalidToken

ROOT = Path(__file__).parent.parent
HOME = "/devices/"
LONGEST_NEXT = 2000
# Browsers keep no cookie longer (RFC 6265bis, section 5.5).
LONGEST_COOKIE_SECONDS = 400 * 24 * 3600
NOTICE_SECONDS = 120

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

THEMES = ("system", "light", "dark")


@dataclass(frozen=True, slots=True)
class Notice:
    """What happened a moment ago, told once on the next page."""

    text: Markup
    tone: str = "done"


# Why a session ended, for the page that asks to sign in again.
REASONS = {
    "signed_out": N_("You signed out."),
    "owner": N_("You were signed out here from another of your devices."),
    "link": N_("You were signed out here by the link in a message to you."),
    "staff": N_("You were signed out here by the staff."),
    "emergency": N_("You were signed out here: the staff ended all sessions at once."),
    "expired": N_("You were signed out here after a long time."),
    "cap": N_("You were signed out here, because you signed in on too many other devices."),
    "replaced": N_("You were signed out here, because you signed in on this device again."),
    "disabled": N_("This account is disabled."),
    "password": N_("You were signed out here, because the password was changed."),
    "restored": N_("Everybody was signed out, because the server was restored from a back-up."),
    "theft": N_("You were signed out here, because somebody else used this device's session."),
}

ERRORS = {
    400: (N_("That can't be read"), N_("What was sent is not what this page expects. Nothing was changed.")),
    403: (N_("That is not allowed"), N_("You may not do this, or it came from another site. Nothing was changed.")),
    404: (N_("There is nothing here"), N_("The address is wrong, or what was here is gone.")),
    405: (N_("That can't be done here"), N_("This page does not take such a request. Nothing was changed.")),
    413: (N_("That is too large"), N_("What was sent is larger than this page takes. Nothing was changed.")),
    414: (N_("That address is too long"), N_("What it asks for can't be looked up.")),
    421: (N_("This is another address"), N_("This server does not answer for that name. Check the address.")),
    429: (N_("Too many tries"), N_("Nothing was changed. Try again {wait}.")),
    500: (N_("Something went wrong here"), N_("It has been logged. Try again in a moment.")),
    503: (N_("This is taking a break"), N_("The database can't be reached. Try again in a moment.")),
}

# What else a 503 may be.
LATE = {
    Busy: N_("Too many people are signing in at once. Try again in a moment."),
    TooSlow: N_("This took too long. See whether it was done, and try again in a moment."),
}

# What may be over when it is tried again.
PASSING = (429, 500, 503)

# Templates that most pages are made with.
COMMON = ("base.html", "_macros.html", "_forms.html", "_preferences.html")
# Names of what forms carry beside their fields.
WHOSE = "whose"
PROMPTED = "prompted_password"

_environment = Environment(
    loader=FileSystemLoader(ROOT / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@cache
def render_icon(name: str, size: int = 20) -> Markup:
    """A lucide icon, inlined; it says nothing by itself. Templates name a few dozen, and a list each of them often."""
    svg = ElementTree.fromstring(_open_icons().read(f"{name}.svg"))  # noqa: S314 - lucide's own
    for node in svg.iter():
        node.tag = node.tag.rpartition("}")[2]
    svg.attrib |= {"width": str(size), "height": str(size), "aria-hidden": "true", "focusable": "false"}
    return Markup(ElementTree.tostring(svg, encoding="unicode"))  # noqa: S704


def break_after(address: str, mark: str = ":") -> Markup:
    """An address that is long, such as IPv6 and e-mail: it goes on the next line after one of its own marks."""
    return Markup(f"{mark}<wbr>").join(address.split(mark))  # noqa: S704 - the templates' own


def stamp(at: datetime) -> str:
    """A time as <time> takes it, in UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


_environment.filters |= {"break_after": break_after, "stamp": stamp}


@cache
def _load() -> None:
    """Have all there that pages have in common: 0.2 s of reading and compiling, which the first of them waits for."""
    languages.load()
    static.load()
    _open_icons()
    for name in COMMON:
        _environment.get_template(name)


@cache
def _open_icons() -> ZipFile:
    # lucide's own function reads the list of all 1,600 for each icon: 10 ms, in which nobody is answered.
    return ZipFile(str(files("lucide") / "lucide.zip"))


def local_address(text: str, otherwise: str = HOME) -> str:
    """`text` where it is an address of this site, else `otherwise`: nobody is sent elsewhere."""
    if (
        len(text) > LONGEST_NEXT
        or not text.startswith("/")
        or text.startswith("//")
        or "\\" in text
        or any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in text)
    ):
        return otherwise
    try:
        parts = urlsplit(text)
    except ValueError:
        return otherwise
    return otherwise if parts.scheme or parts.netloc else text


class PageHandler(BaseHandler):
    """A page for a person, who is proved by the session's cookie and nothing else."""

    # Who serves strangers says so.
    is_open: ClassVar[bool] = False
    # Where whoever leaves an act undone goes.
    home: ClassVar[str] = HOME

    def initialize(self) -> None:
        super().initialize()
        # Whoever asks; None is a stranger.
        self.visitor: Principal | None = None
        # The visitor's account, which every page names.
        self.account: Row | None = None
        # The account that asks while it still has to confirm itself: it may do that and sign out.
        self.unconfirmed: Row | None = None
        # What the cookie says, checked; its session may have ended.
        self.claims: Claims | None = None
        self.is_strange_cookie = False
        # Whether the visitor is staff or a viewer, whatever the page is about.
        self.has_desk = False

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
        self.set_header("Cross-Origin-Opener-Policy", "same-origin")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Vary", "Cookie, Accept-Language, Accept-Encoding")

    @property
    def principal(self) -> Principal:
        """Who asks, where that is no stranger."""
        if self.visitor is None:
            raise web.HTTPError(403)
        return self.visitor

    async def prepare(self) -> None:
        method = (self.request.method or "").lower()
        if method != "head" and not answers_method(type(self), method):
            raise web.HTTPError(405)
        await self._prove()
        if self.is_open:
            return
        if self.visitor is None:
            await self.turn_away()
        self.require_rights()
        if method == "post":
            self.require_own_form()

    def require_rights(self) -> None:
        """Go on only where whoever is signed in may open the page: here everybody."""

    async def _prove(self) -> None:
        if not _load.cache_info().currsize:
            # By a thread: others are answered meanwhile, and streams closed.
            await asyncio.to_thread(_load)
        self._read_claims()
        if self.claims is None:
            return
        now = clock.microseconds()
        proved = await principals.prove(self.parts.database, self.claims, self.device, now)
        if proved:
            await devices.load()
            self.visitor = proved[0]
            self.has_desk = self.visitor.sees_all
            # What a script fetches by itself is no sign that somebody is there.
            if self.request.headers.get("Sec-Fetch-Dest") != "empty":
                self.parts.activity.note(self.visitor, now)
            self.account = await self.parts.database.read(accounts.get, self.visitor.kind, self.visitor.account_id)
        else:
            self.unconfirmed = await self.parts.database.read(principals.recognise, self.claims, clock.now())
        self.is_strange_cookie = self.visitor is None and self.unconfirmed is None

    def _read_claims(self) -> None:
        """The cookie's claims; a cookie that is forged, of an old key, or there twice, is none."""
        sent = self._sent_cookies(self.cookie_name("session"))
        if not sent:
            return
        self.is_strange_cookie = True
        if len(sent) == 1:
            try:
                self.claims = self.parts.tokens.check_cookie(sent[0])
            except InvalidToken:
                return
            self.is_strange_cookie = False

    async def turn_away(self) -> NoReturn:
        """Send a stranger to the sign-in page, and an account that is not confirmed to where it confirms itself."""
        if self.unconfirmed:
            self.redirect_to("/confirm/")
            raise web.Finish
        why = await self.why_ended()
        if self.request.method not in ("GET", "HEAD"):
            self.render_error(
                403,
                self._(N_("You are signed out")),
                (self._(why) + " " if why else "") + self._(N_("Nothing was changed. Sign in and try again.")),
                ("/sign-in/", self._(N_("Sign in"))),
            )
            raise web.Finish
        query = {"next": self.request.uri or ""} if self.request.path != "/" else {}
        self.redirect_to("/sign-in/" + (f"?{urlencode(query)}" if query else ""), why)
        raise web.Finish

    async def why_ended(self) -> str | None:
        """Why the session that the cookie speaks of has ended, as a sentence; None where it never was."""
        if self.claims is None:
            return None
        cause = await self.parts.database.read(sessions.why_ended, self.claims)
        return REASONS.get(cause or "expired")

    async def sign_out(self) -> None:
        """End this browser's session, have it forget the cookie, and go to the sign-in page."""
        if self.claims:
            await self.parts.database.write(sessions.sign_out, self.claims, self.origin, clock.now())
        self.drop_cookie("session")
        self.is_strange_cookie = False
        self.redirect_to("/sign-in/", N_("You are signed out."))

    @property
    def is_secure(self) -> bool:
        """Whether the browser speaks https with this site."""
        return self.site.startswith("https:")

    def cookie_name(self, name: str) -> str:
        """With the prefix that pins a cookie to this host; browsers take it from https alone."""
        return f"__Host-{name}" if self.is_secure else name

    def keep_cookie(self, name: str, value: str, seconds: int) -> None:
        """Have the browser keep a cookie of this site."""
        self.set_cookie(
            self.cookie_name(name),
            value,
            path="/",
            max_age=min(seconds, LONGEST_COOKIE_SECONDS),
            httponly=True,
            secure=self.is_secure,
            samesite="Lax",
        )

    def drop_cookie(self, name: str) -> None:
        """Have the browser forget a cookie of this site."""
        # Browsers take a __Host- cookie's end, too, only from one that is all that it must be.
        self.clear_cookie(self.cookie_name(name), path="/", httponly=True, secure=self.is_secure, samesite="Lax")

    def read_cookie(self, name: str) -> str:
        """A cookie's value; empty where it is not there, or there twice."""
        sent = self._sent_cookies(self.cookie_name(name))
        return sent[0] if len(sent) == 1 else ""

    def keep_sealed(self, name: str, value: Any, seconds: int) -> None:
        """Have the browser keep what it can neither read nor change."""
        self.keep_cookie(name, self.parts.keys.seal(json.dumps([name, value])), seconds)

    def read_sealed(self, name: str) -> Any:
        """What `keep_sealed` had the browser keep under this name; None where that is not there."""
        opened = self.parts.keys.unseal(self.read_cookie(name))
        # One cookie's seal is not good for another's.
        kept_as, value = json.loads(opened) if opened else (None, None)
        return value if kept_as == name else None

    def _sent_cookies(self, name: str) -> list[str]:
        return self._cookies_by_name.get(name, [])

    @cached_property
    def _cookies_by_name(self) -> dict[str, list[str]]:
        sent: dict[str, list[str]] = {}
        for name, value in list_cookies(self.request.headers):
            sent.setdefault(name, []).append(value)
        return sent

    @property
    def language(self) -> languages.Language:
        """The language that this person reads."""
        accepted = self.request.headers.get("Accept-Language", "")
        zone = self.read_cookie("zone").replace("%2F", "/")
        return languages.choose(accepted, self.read_cookie("language"), zone)

    def _(self, text: str, **values: object) -> Markup:
        return self.language.gettext(text, **values)

    @property
    def theme(self) -> str:
        """One of THEMES."""
        theme = self.read_cookie("theme")
        return theme if theme in THEMES else THEMES[0]

    @property
    def whose(self) -> str:
        """What forms carry to say for which session they were made: two accounts in two tabs don't act for each other.

        With the session it ends: a page that was kept from before acts for nobody.
        """
        if self.claims is None or not (self.visitor or self.unconfirmed):
            return ""
        return self.parts.keys.fingerprint("form", f"{self.claims.kind.name} {self.claims.sid}")[:32]

    @property
    def _portrait(self) -> str:
        """Where the visitor's picture is."""
        if self.visitor is None or self.account is None:
            return ""
        principal, file = self.visitor, self.account["image"] or DEFAULT_IMAGE
        return f"/sessions/session-{principal.kind.name}-l/{principal.account_id}/static/Users/{file}"

    def render_page(self, template: str, status: int = 200, **values: Any) -> None:
        """Send a page. A message that waited for it is shown on it, once."""
        self.set_status(status)
        if self.is_strange_cookie:
            self.drop_cookie("session")
        language = self.language
        self.set_header("Content-Language", language.code)
        shared = {
            "_": language.gettext,
            "ngettext": language.ngettext,
            "language": language,
            "languages": languages.NAMES.items(),
            "theme": self.theme,
            "principal": self.visitor,
            "account": self.account,
            "portrait": self._portrait,
            "unconfirmed": self.unconfirmed,
            "has_desk": self.has_desk,
            "home": self.home,
            "path": self.request.path,
            "address": self.request.uri,
            "now": clock.now(),
            "icon": render_icon,
            "static": static.address,
            "flash": self._take_notice(language),
            "whose": self.whose,
            "WHOSE": WHOSE,
        }
        page = _environment.get_template(template).render(shared | values).encode()
        if "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
            page = gzip.compress(page, 5, mtime=0)
        self.finish(page)

    def render_error(self, status: int, title: str, text: str, action: tuple[str, str] | None = None) -> None:
        """Send the page that says in plain words what did not work; `action` is where to go on, and its name."""
        if action is None:
            is_stranger = self.visitor is None and not self._sent_cookies(self.cookie_name("session"))
            action = ("/sign-in/", self._(N_("Sign in"))) if is_stranger else (HOME, self._(N_("Your devices")))
        self.render_page("error.html", status, code=status, title=title, text=text, action=action)

    def redirect_to(
        self, address: str, message: str | tuple[str, str] | None = None, *, tone: str = "done", **params: Any
    ) -> None:
        """Go on at an address of this site, which shows `message` once; its tone is "done" or "wrong".

        The message is a text of the catalogue (mark it with N_), or its singular and plural, which `count` in
        `params` chooses from; `params` fill its {places}.
        """
        if message:
            self.keep_sealed("notice", [message, tone, params], NOTICE_SECONDS)
        if self.is_strange_cookie:
            self.drop_cookie("session")
        self.set_status(303)
        self.set_header("Location", quote(local_address(address), safe="/?&=%#:;@!$'()*+,~-._[]"))
        self.finish()

    def _take_notice(self, language: languages.Language) -> Notice | None:
        waiting = self.read_sealed("notice")
        if waiting is None:
            return None
        self.drop_cookie("notice")
        message, tone, params = waiting
        told = (
            language.gettext(message, **params) if isinstance(message, str) else language.ngettext(*message, **params)
        )
        return Notice(told, tone)

    def field(self, name: str) -> str:
        """What was typed into a field; its spaces are kept."""
        return self.get_body_argument(name, "", strip=False)

    def require_own_form(self) -> None:
        """Go on only where the form was made for the session that sends it."""
        whose = self.whose
        if whose and not compare_digest(whose.encode(), self.field(WHOSE).encode()):
            self.render_error(
                409,
                self._(N_("This page was out of date")),
                self._(N_("It was made for another account, or a while ago. Nothing was changed. Open it again.")),
                (HOME, self._(N_("Your devices"))),
            )
            raise web.Finish

    async def require_recent(self, act: str) -> None:
        """Go on only where this session gave its password a short while ago; else ask for it first.

        The page that asks says what for, and carries the form's fields, so that the act follows when the password
        is right.
        """
        since = clock.now() - self.parts.settings.sessions.recent
        if await self.parts.database.read(sessions.is_recent, self.principal, since):
            return
        error = None
        password = self.field(PROMPTED)
        if password:
            if await self.confirm_password(password):
                return
            error = self._(N_("This is not your password."))
        kept = [
            (name, value.decode("utf-8", "replace"))
            for name, values in self.request.body_arguments.items()
            if name not in (PROMPTED, WHOSE)
            for value in values
        ]
        self.render_page(
            "prompt.html", act=act, kept=kept, error=error, username=await self._username(), PROMPTED=PROMPTED
        )
        raise web.Finish

    async def confirm_password(self, password: str) -> bool:
        """Whether this is the account's password; where it is, the session remembers the time."""
        principal, database = self.principal, self.parts.database
        row = await database.read(accounts.get, principal.kind, principal.account_id)
        if row is None:
            return False
        guess = await self.admit_principal(Purpose.PASSWORD, principal, row)
        if await self.check_password(password, row, guess):
            await self.release(guess)
            return await database.write(sessions.confirm_password, principal, row["password_hash"], clock.now())
        await self.refuse(guess)
        return False

    async def _username(self) -> str:
        """What the account signs in with: password managers find the password by it."""
        row = await self.parts.database.read(accounts.get, self.principal.kind, self.principal.account_id)
        return next((row[contact] for contact in self.principal.kind.contacts if row[contact]), "") if row else ""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        headers = error.headers if isinstance(error, Refusal) else {}
        if later := tell_later(error):
            status_code, headers = later.status, {"Retry-After": str(later.seconds)}
        for name, value in headers.items():
            self.set_header(name, value)
        if status_code == 405:
            own = [name for name in ("GET", "POST") if answers_method(type(self), name.lower())]
            self.set_header("Allow", ", ".join([*own, *(["HEAD"] if "GET" in own else [])]))
        # A cookie that could not be proved is not known to be bad.
        self.is_strange_cookie = False
        title, text = ERRORS.get(status_code) or ERRORS[500 if status_code >= 500 else 400]
        text = LATE.get(type(error), text)
        wait = self.language.wait(timedelta(seconds=int(headers.get("Retry-After", RETRY_SECONDS))))
        again = self.request.path if status_code in PASSING and answers_method(type(self), "get") else None
        self.render_error(
            status_code, self._(title), self._(text, wait=wait), (again, self._(N_("Try again"))) if again else None
        )


class UnknownPageHandler(PageHandler):
    """An address that is none."""

    is_open = True

    async def prepare(self) -> None:
        await self._prove()
        raise web.HTTPError(404)


@web.stream_request_body
class TooLargePageHandler(TooLarge, PageHandler):
    """A body that is larger than any that the page takes."""


class UnfitPageHandler(PageHandler):
    """A request that no page is asked: its address is too long, or is another server's."""

    is_open = True

    def initialize(self, status: int) -> None:  # type: ignore[override]
        super().initialize()
        self._status = status

    async def prepare(self) -> None:
        raise web.HTTPError(self._status)


PageHandler.refusers = Refusers(TooLargePageHandler, UnfitPageHandler)  # type: ignore[attr-defined]


class HomeHandler(PageHandler):
    """The site's first page: the devices."""

    async def get(self) -> None:
        self.redirect_to(HOME)

"""What every handler shares: who is asking, from where, and how an error is told."""

from __future__ import annotations

import contextlib
import time
from asyncio import Future
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, ParamSpec, TypeVar

import orjson
import structlog
from pydantic import BaseModel, ValidationError
from tornado import httputil, web

from handlers.application import Application
from handlers.requests import make_id, shown
from models import accounts, clock, guesses, principals
from models.database import DatabaseUnavailable, Query
from models.guesses import Guess, Purpose, TooMany
from models.origins import Origin, cut_device, make_origin
from models.passwords import Busy, WeakPassword
from models.principals import Principal
from models.schema import Contact, Kind, Row
from models.settings import Server
from models.tokens import LARGEST_ID, Claims, InvalidToken

Model = TypeVar("Model", bound=BaseModel)
P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS = 1

NOT_PROVIDED = b'{"detail":"Authentication credentials were not provided."}'
NOT_VALID = b'{"detail":"Given token not valid for any token type","code":"token_not_valid"}'
FORBIDDEN = b'{"detail":"You do not have permission to perform this action."}'

HEADERS = (
    ("Server", "Sessions"),
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    # Answers are read by programs: where a browser shows one all the same, nothing in it runs, and no page frames it.
    ("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
# What scripts of configured origins may read of an answer, and send with a request.
EXPOSED = "ETag, Link, Retry-After, WWW-Authenticate, X-Request-Id, X-Total-Count"
SENT = "Authorization, Content-Type, If-None-Match"
PREFLIGHT_SECONDS = 600

log = structlog.get_logger("handlers")


class Refusal(web.HTTPError):
    """An answer that is not what was asked for: its status, its JSON body, its headers."""

    def __init__(self, status: int, body: bytes | Mapping[str, Any], **headers: str) -> None:
        super().__init__(status)
        self.body = body if isinstance(body, bytes) else orjson.dumps(body)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def make_headers(settings: Server) -> tuple[tuple[str, str], ...]:
    """What every answer has."""
    hsts = settings.hsts if settings.address.startswith("https:") else ""
    return (*HEADERS, *((("Strict-Transport-Security", hsts),) if hsts else ()))


@lru_cache(maxsize=1)
def write_date(second: int) -> str:
    """A second since 1970 as answers tell it; the last one is kept."""
    return httputil.format_timestamp(second)


def not_provided() -> Refusal:
    """401: no token."""
    return Refusal(401, NOT_PROVIDED, WWW_Authenticate="Bearer")


def not_valid() -> Refusal:
    """401: a token that is none of ours, or no longer good (RFC 6750, section 3)."""
    return Refusal(401, NOT_VALID, WWW_Authenticate='Bearer error="invalid_token"')


def forbidden() -> Refusal:
    """403: whatever the reason, so that nobody learns which ids exist."""
    return Refusal(403, FORBIDDEN)


def read_bearer(headers: httputil.HTTPHeaders) -> str:
    """The token of `Authorization: Bearer` (RFC 6750, section 2.1); raises 401 where there is none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not (token := token.strip()):
        raise not_provided()
    return token


def read_id(text: str) -> int:
    """The id in an address; one that no row can have is 0, which none has."""
    return int(text) if len(text) <= 19 and int(text) <= LARGEST_ID else 0


@dataclass(frozen=True, slots=True)
class Later:
    """What can't be done now: its status, in how many seconds to try again, and why."""

    status: int
    seconds: int
    detail: str


def tell_later(error: object) -> Later | None:
    """When to try again what `error` stopped; None where trying again is of no use."""
    if isinstance(error, TooMany):
        return Later(429, error.seconds, f"Too many tries. Try again in {error.seconds} s.")
    if isinstance(error, Busy):
        return Later(503, RETRY_SECONDS, "Too many sign in at once. Try again in a moment.")
    if isinstance(error, TooSlow):
        return Later(503, RETRY_SECONDS, "This took too long. See whether it was done, and try again in a moment.")
    if isinstance(error, DatabaseUnavailable):
        return Later(503, RETRY_SECONDS, "The database can't be reached. Try again in a moment.")
    return None


class TooSlow(Exception):
    """The answer takes longer than `server.request_seconds`."""


class BaseHandler(web.RequestHandler):
    """What is asked for is answered to one caller alone, and kept by no cache."""

    application: Application
    etag: str | None = None
    # Names this request in its answer and in the log.
    request_id = ""
    is_cut = False

    def clear(self) -> None:
        """As Tornado's, but the time is written once a second and not for each answer, and our headers go first."""
        headers = self._headers = httputil.HTTPHeaders()
        for name, value in self.application.headers:
            headers[name] = value
        self.request_id = headers["X-Request-Id"] = self.request_id or make_id()
        if self.application.hsts_by_request and self.site.startswith("https:"):
            headers["Strict-Transport-Security"] = self.application.hsts_by_request
        headers["Date"] = write_date(int(time.time()))
        self.set_default_headers()
        self._write_buffer: list[bytes] = []
        self.set_status(200)

    def initialize(self) -> None:
        self.parts = self.application.parts
        self.application.running[self] = time.monotonic()

    def on_finish(self) -> None:
        self.application.running.pop(self, None)

    def cut(self) -> None:
        """Answer that it takes too long. The work goes on to its end, and nobody hears of it."""
        # What is being sent already takes as long as it takes.
        if not self._headers_written:
            self.log_exception(TooSlow, TooSlow(), None)
            self.send_error(503, exc_info=(TooSlow, TooSlow(), None))
            self.is_cut = True

    def compute_etag(self) -> str | None:
        """The name of the answer's state, where there is one; the body is not hashed for it."""
        return self.etag

    @property
    def device(self) -> str:
        """The User-Agent as sessions keep it."""
        sent = self.request.headers.get("User-Agent", "")
        # Header bytes arrive as Latin-1 (RFC 9110, section 5.5); most who send more than ASCII send UTF-8.
        with contextlib.suppress(UnicodeDecodeError):
            sent = sent if sent.isascii() else sent.encode("latin-1").decode()
        return cut_device(sent)

    @property
    def origin(self) -> Origin:
        """Where this request comes from."""
        return make_origin(self.remote_ip, self.device, self.parts.places)

    @property
    def remote_ip(self) -> str:
        """The caller's address: what the trusted proxies say, or the connection's own."""
        address = self.request.remote_ip or ""
        if not self._is_trusted(address):
            return address
        forwarded = ",".join(self.request.headers.get_list("X-Forwarded-For"))
        for hop in reversed([hop.strip() for hop in forwarded.split(",")]):
            try:
                ip_address(hop)
            except ValueError:
                break
            if "%" in hop:
                # A zone (RFC 4007) is any text, and means nothing to others.
                break
            address = hop
            if not self._is_trusted(hop):
                break
        return address

    @property
    def site(self) -> str:
        """Scheme and host of this server as the caller sees it."""
        server = self.application.parts.settings.server
        if server.address:
            return server.address
        scheme = self.request.protocol
        if server.trusted_proxies and self._is_trusted(self.request.remote_ip or ""):
            forwarded = self.request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip()
            scheme = forwarded if forwarded in ("http", "https") else scheme
        return f"{scheme}://{self.request.host}"

    @property
    def sure_site(self) -> str | None:
        """The same, where whoever asks can't have made it up: what is written to others may lead there."""
        server = self.application.parts.settings.server
        if server.address:
            return server.address
        stream = getattr(self.request.connection, "stream", None)
        if stream is None or stream.socket is None:
            return None
        ip, port = stream.socket.getsockname()[:2]
        names = {ip, f"[{ip}]", *server.hosts} | ({"localhost"} if ip_address(ip).is_loopback else set())
        name, _, given = self.request.host.lower().rpartition(":")
        is_here = name in names and given == str(port)
        return self.site if is_here or self.request.host.lower() in server.hosts else None

    def _is_trusted(self, address: str) -> bool:
        networks = self.application.parts.settings.server.trusted_proxies
        if not networks:
            return False
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in networks)

    async def admit(
        self, purpose: Purpose, kinds: Sequence[Kind], contact: Contact, value: str, device_id: str | None = None
    ) -> Guess:
        """Let somebody who is not signed in try, for the account that has a contact; raises TooMany."""
        settings, now = self.parts.settings.guesses, clock.now()
        return await self.parts.database.write(
            guesses.admit, self.parts.keys, purpose, kinds, contact, value, device_id, self.origin, settings, now
        )

    async def admit_registering(self) -> Guess:
        """Let somebody register; raises TooMany."""
        settings, now = self.parts.settings.guesses, clock.now()
        return await self.parts.database.write(guesses.admit_registering, self.parts.keys, self.origin, settings, now)

    async def admit_principal(self, purpose: Purpose, principal: Principal, account: Row) -> Guess:
        """Let somebody who is signed in try, for the own account; raises TooMany."""
        settings, now = self.parts.settings.guesses, clock.now()
        return await self.parts.database.write(
            guesses.admit_principal, self.parts.keys, purpose, principal, account, self.origin, settings, now
        )

    async def admit_sending(
        self, kinds: Sequence[Kind], contact: Contact, value: str, device_id: str | None = None
    ) -> Guess | None:
        """Let a code be sent; None where the contact was sent enough, which is answered as if it were sent.

        So a stranger who has many sent keeps nobody from the code that came last. Raises TooMany where it is the
        network that asks too often.
        """
        try:
            return await self.admit(Purpose.SEND, kinds, contact, value, device_id)
        except TooMany as error:
            if error.counted_by == "network":
                raise
            self.log_exception(TooMany, error, None)
            return None

    async def settle(self, guess: Guess | None, query: Query[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What a query gives that writes; where that is nothing, the guess was wrong. None: nothing was guessed."""
        if guess is None:
            return await self.parts.database.write(query, *args, **kwargs)
        return await self.parts.database.write(guesses.settle, guess, clock.now(), query, *args, **kwargs)

    async def refuse(self, guess: Guess) -> None:
        """Remember that the guess was wrong."""
        await self.parts.database.write(guesses.refuse, guess, clock.now())

    async def release(self, guess: Guess) -> None:
        """Count the guess no longer: it was right, or was none."""
        await self.parts.database.write(guesses.release, guess)

    async def check_password(self, password: str, account: Row | None, guess: Guess) -> bool:
        """Whether this is the account's password, and it may sign in; takes as long where there is none.

        Raises Busy: then the guess is none.
        """
        password_hash = account["password_hash"] if account and account["disabled_at"] is None else None
        try:
            return await self.parts.passwords.is_right(password, password_hash, is_known=guess.is_known)
        except Busy:
            await self.release(guess)
            raise

    async def hash_new(self, password: str, personal: Iterable[str], guess: Guess | None) -> str:
        """The hash to keep of a new password. Raises WeakPassword and Busy: then the guess beside it is none."""
        try:
            return await self.parts.passwords.hash(password, *personal, is_known=guess is None or guess.is_known)
        except (WeakPassword, Busy):
            if guess:
                await self.release(guess)
            raise

    def head(self, *args: str, **kwargs: str) -> Any:
        """As GET; Tornado sends the headers alone."""
        return self.get(*args, **kwargs)

    def log_exception(self, *exc_info: Any) -> None:
        error, request_id = exc_info[1], self.request_id
        if self.is_cut:
            return
        if isinstance(error, DatabaseUnavailable):
            log.error("database unavailable", error=str(error), request=request_id)
        elif isinstance(error, TooSlow):
            log.error("a request took too long", handler=type(self).__name__, request=request_id)
        elif isinstance(error, TooMany):
            told = {"purpose": error.purpose.value, "counted_by": error.counted_by, "seconds": error.seconds}
            log.warning("throttled", ip=self.remote_ip, request=request_id, **told)
        elif isinstance(error, Busy):
            log.warning("too many passwords wait to be checked", ip=self.remote_ip, request=request_id)
        elif not isinstance(error, web.HTTPError):
            log.error("unexpected error", path=shown(self.request.path), request=request_id, exc_info=exc_info)


class TooLarge(BaseHandler):
    """Told at once; but what still comes is read to its end: closing on it would cut the answer off."""

    is_open = True
    _told: Future[None] | None = None

    async def prepare(self) -> None:
        self.set_header("Connection", "close")
        self.write_error(413)
        if self._told:
            await self._told

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        """Send the answer; the request is over when its body is."""
        if self._told is None and chunk is not None:
            self.write(chunk)
            self.set_header("Content-Length", str(sum(map(len, self._write_buffer))))
            self._told = self.flush()
            return self._told
        return super().finish(chunk)

    def data_received(self, chunk: bytes) -> None:
        """Dropped."""

    def on_connection_close(self) -> None:
        # Tornado waits no longer for the body, and finishes nothing.
        super().on_connection_close()
        self.on_finish()

    def get(self, *_args: str, **_kwargs: str) -> None:
        self.finish()

    head = post = put = patch = delete = options = get


class ApiHandler(BaseHandler):
    """JSON for programs, which prove themselves by a Bearer token and nothing else."""

    # Who serves strangers says so.
    is_open = False
    principal: Principal

    def set_default_headers(self) -> None:
        """Let scripts of the configured origins read the answer; they prove themselves by a token, as all do."""
        origins = self.application.parts.settings.server.origins
        if origins:
            self.set_header("Vary", "Origin")
            if (origin := self.request.headers.get("Origin", "")) in origins:
                self.set_header("Access-Control-Allow-Origin", origin)
                self.set_header("Access-Control-Expose-Headers", EXPOSED)

    def prepare(self) -> Awaitable[None] | None:
        if self.request.method not in self.methods():
            raise web.HTTPError(405)
        return None if self.is_open or self.request.method == "OPTIONS" else self._prove()

    async def _prove(self) -> None:
        self.principal = await self.prove()

    async def prove(self) -> Principal:
        """The principal that the token speaks of; raises the refusal that the contract names."""
        now = clock.microseconds()
        proved = await principals.prove(self.parts.database, self.read_claims(), self.device, now)
        if proved is None:
            raise forbidden()
        self.parts.activity.note(proved[0], now)
        return proved[0]

    def read_claims(self) -> Claims:
        """The claims of the token; raises 401."""
        try:
            return self.parts.tokens.check_access(read_bearer(self.request.headers))
        except InvalidToken:
            raise not_valid() from None

    def own(self, kind: Kind) -> Principal:
        """The principal, at an address of its own kind; at the other's, 403."""
        if self.principal.kind is not kind:
            raise forbidden()
        return self.principal

    def check_trusted_origin(self, origin: str) -> bool:
        """Any: a browser adds no Bearer token by itself."""
        return True

    def read_body(self, model: type[Model]) -> Model:
        """The request's JSON as `model`; raises 415, or 400 with all that is wrong with each field."""
        sent = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if sent != "application/json":
            raise Refusal(415, {"detail": "Send the body as application/json."})
        try:
            return model.model_validate(orjson.loads(self.request.body))
        except orjson.JSONDecodeError:
            raise Refusal(400, {"detail": "The body is not JSON."}) from None
        except ValidationError as error:
            raise Refusal(400, tell_errors(error)) from None

    async def hash_password(
        self, kind: Kind, field: str, password: str, account: Mapping[str, Any], guess: Guess | None = None
    ) -> str:
        """The hash to keep of a new password of this account; raises 400 where it is too weak."""
        try:
            return await self.hash_new(password, accounts.personal_words(kind, account), guess)
        except WeakPassword as error:
            raise Refusal(400, {field: [str(error)]}) from None

    def answer(self, body: Any, status: int = 200) -> None:
        """Send `body` as JSON."""
        self.set_status(status)
        self.finish(orjson.dumps(body))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, Refusal):
            for name, value in error.headers.items():
                self.set_header(name, value)
            self.finish(error.body)
            return
        if later := tell_later(error):
            self.set_header("Retry-After", str(later.seconds))
            self.answer({"detail": later.detail}, later.status)
            return
        if status_code == 405:
            self.set_header("Allow", ", ".join(self.methods()))
        self.answer({"detail": _DETAILS.get(status_code) or HTTPStatus(status_code).phrase}, status_code)

    @classmethod
    @cache
    def methods(cls) -> list[str]:
        """The methods that this address answers."""
        own = [name for name in ("GET", "POST", "PATCH", "DELETE") if answers_method(cls, name.lower())]
        return [*own, *(["HEAD"] if "GET" in own else []), "OPTIONS"]

    def options(self, *_args: str, **_kwargs: str) -> None:
        """Which methods there are (RFC 9110, section 9.3.7)."""
        self.set_status(204)
        methods = ", ".join(self.methods())
        self.set_header("Allow", methods)
        if "Access-Control-Allow-Origin" in self._headers and "Access-Control-Request-Method" in self.request.headers:
            # A preflight (the Fetch standard, section 3.3).
            self.set_header("Access-Control-Allow-Methods", methods)
            self.set_header("Access-Control-Allow-Headers", SENT)
            self.set_header("Access-Control-Max-Age", str(PREFLIGHT_SECONDS))
        self.finish()


_DETAILS = {
    400: "The request can't be understood.",
    404: "Not found.",
    405: "Method not allowed.",
    413: "The body is too large.",
    414: "The address is too long.",
    421: "This server does not answer for that host.",
    500: "Something went wrong here. It has been logged.",
}


def answers_method(handler: type[web.RequestHandler], method: str) -> bool:
    """Whether `handler` has a method of its own for requests of `method`."""
    return getattr(handler, method) is not getattr(web.RequestHandler, method)


def tell_errors(error: ValidationError) -> dict[str, Any]:
    """The errors by field, each a sentence, without what was sent."""
    told: dict[str, Any] = {}
    for one in error.errors(include_url=False, include_context=False, include_input=False):
        message = {
            "missing": "This field is required.",
            "extra_forbidden": "There is no such field.",
        }.get(one["type"], one["msg"].removeprefix("Value error, "))
        if not one["loc"]:
            return {"detail": message if one["type"] == "value_error" else "Send a JSON object."}
        field = str(one["loc"][0])
        told.setdefault(field, []).append(message)
    return told

"""What strangers send, and who reads it: each reader gives an answer of its own, whatever is sent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import orjson
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from pydantic import BaseModel, ValidationError
from tornado import httputil

from handlers import bodies, forms, languages
from handlers.base import Refusal, read_bearer, read_id, tell_errors
from handlers.forms import clean_code
from handlers.languages import clean_name
from handlers.pages import local_address
from handlers.queries import AccountQuery, EventQuery, SessionQuery, encode, read_query
from handlers.sessions import Page
from models import clock
from models.contacts import normalise_email, normalise_phone
from models.guesses import network_of
from models.keys import Key, KeySet
from models.origins import cut_device, make_origin
from models.paging import InvalidCursor, Place
from models.pictures import NotAPicture, make
from models.places import Places
from models.schema import KINDS
from models.tokens import InvalidToken, Tokens

KEYS = KeySet([Key("one", b"1" * 64, "HS256"), Key("two", b"2" * 64, "HS512", check_only=True)])
TOKENS = Tokens(KEYS, 900, timedelta(days=366))
PLACES = Places(None)
ACCOUNT = {"id": 5, "surname": "Иванова", "name": "Anna", "patronymic": "", "phone": "+79137779135"}

anything = st.text(max_size=200) | st.binary(max_size=200).map(lambda sent: sent.decode("latin-1"))
# What the owner's own devices call themselves, for others to be like.
AGENTS = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "PostmanRuntime/7.28.3",
    "curl/8.5.0",
]


@st.composite
def spoiled(draw: st.DrawFn, texts: list[str]) -> str:
    """One of these texts with a part of it replaced by something else."""
    text = draw(st.sampled_from(texts))
    first = draw(st.integers(0, len(text)))
    last = draw(st.integers(first, len(text)))
    return text[:first] + draw(anything) + text[last:]


def good_tokens() -> list[str]:
    """A token of each type."""
    now, kind = clock.now(), KINDS["client"]
    session = {"id": 7, "sid": "s" * 22}
    return [
        TOKENS.make_access(kind, ACCOUNT, "s" * 22, now),
        TOKENS.make_refresh(kind, 5, "s" * 22, 1, now, now + timedelta(days=1)),
        TOKENS.make_cookie(kind, 5, session, now + timedelta(days=1)),
    ]


def signed(claims: Any) -> str:
    """A token that says this, signed by a key of ours: another service may issue what it likes."""
    import jwt

    return jwt.encode(claims, KEYS.signing.secret, "HS256", headers={"kid": "one"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
claims = st.dictionaries(
    st.sampled_from(["token_type", "exp", "iat", "nbf", "jti", "sid", "gen", "session", "user_id", "client_id"]),
    st.sampled_from(["access", "refresh", "cookie", 1, 2**63, -1, "s" * 22, 2**33]) | json_values,
)


def check_token(token: str) -> None:
    """Read a token as each of its types."""
    for check in (TOKENS.check_access, TOKENS.check_refresh, TOKENS.check_cookie):
        with suppress(InvalidToken):
            check(token)


def check_claims(claims: dict[str, Any]) -> None:
    """Read a token that says this."""
    try:
        token = signed(claims)
    except (TypeError, ValueError):
        # It can't be said in a token.
        return
    check_token(token)


def check_agent(agent: str) -> None:
    """Describe a device, and find the place that it is at."""
    origin = make_origin(agent[:40], agent, PLACES).described()
    assert len(cut_device(agent)) <= 512
    assert "\0" not in origin.device
    for code in languages.NAMES:
        languages.Language(code).device(origin.browser, origin.os, origin.device)


FORMS: list[type[BaseModel]] = [
    forms.SignIn,
    forms.Registration,
    forms.Confirmation,
    forms.Reset,
    forms.Fields,
    forms.ContactCode,
]
BODIES = [*bodies.SIGN_IN.values(), *bodies.REGISTRATION.values(), *bodies.CONFIRMATION.values(), bodies.Naming]
form_fields = st.dictionaries(
    st.sampled_from(["identity", "password", "email", "phone", "code", "new_password", "surname", "value"]) | anything,
    anything,
    max_size=6,
)


def _read(model: type[BaseModel], sent: Any) -> None:
    try:
        model.model_validate(sent)
    except ValidationError as error:
        # What is told of it is JSON, whatever it is.
        orjson.dumps(tell_errors(error))


def check_form(fields: dict[str, str]) -> None:
    """Read a form as a browser sends it."""
    sent = urlencode({name: value.encode("utf-8", "replace") for name, value in fields.items()}).encode()
    arguments: dict[str, list[bytes]] = {}
    httputil.parse_body_arguments("application/x-www-form-urlencoded", sent, arguments, {})
    typed = {name: values[-1].decode() for name, values in arguments.items()}
    for model in FORMS:
        _read(model, {name: typed.get(name, "") for name in model.model_fields})
    for text in typed.values():
        clean_code(text)
        clean_name(text)
        local_address(text)


def check_garbled_form(sent: bytes) -> None:
    """Read what is no form, as one."""
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        with suppress(httputil.HTTPInputError):
            httputil.parse_body_arguments(kind, sent, {}, {})


def check_body(sent: Any) -> None:
    """Read JSON as each body."""
    for model in BODIES:
        _read(model, sent)


def check_filter(sent: dict[str, str]) -> None:
    """Read a list's address."""
    _read(Page, sent)
    for text in sent.values():
        if text.isascii() and text.isdigit():
            assert read_id(text) >= 0


QUERIES: list[type[SessionQuery] | type[AccountQuery] | type[EventQuery]] = [SessionQuery, AccountQuery, EventQuery]
query_values = anything | st.sampled_from(
    ["user", "-", "7", "90m", "99999d", "2026-11-24T09:30:00Z", "2026-11-24", "9998-12-31T23:59:59+14:00", "::/0",
     "10.0.0.0/8", "fe80::1%x", "-started", "active", "viewer", "0", "9223372036854775807"]
)  # fmt: skip


def check_query(sent: dict[str, str]) -> None:
    """Read the address of a list of the desk; what was understood can be written, and reads as the same."""
    arguments = {name: [value.encode("utf-8", "replace")] for name, value in sent.items()}
    for model in QUERIES:
        try:
            query = read_query(model, arguments)
        except ValidationError as error:
            orjson.dumps(tell_errors(error))
            continue
        again = read_query(model, {name: [value.encode()] for name, value in encode(query.filter)})
        assert again.filter == query.filter
        with suppress(InvalidCursor):
            Place.read(query.after, query.before)


def check_contact(text: str) -> None:
    """Read a contact."""
    for normalise in (normalise_email, lambda text: normalise_phone(text, "RU")):
        try:
            normal = normalise(text)
        except ValueError:
            continue
        assert normalise(normal) == normal


def check_header(text: str) -> None:
    """Read what headers say."""
    languages.choose(text, text, text)
    network_of(text)
    with suppress(httputil.HTTPInputError, Refusal):
        read_bearer(httputil.HTTPHeaders({"Authorization": text}))


def check_picture(content: bytes) -> None:
    """Read a picture."""
    with suppress(NotAPicture):
        make(content)


phones = ["+79137779135", "8 (913) 777-91-35", "+1 201 555 0123", "user3@gmail.com", "имя@пример.example.com"]
READERS: dict[str, tuple[SearchStrategy[Any], Callable[[Any], None]]] = {
    "tokens": (spoiled(good_tokens()) | anything, check_token),
    "claims": (claims, check_claims),
    "User-Agents": (spoiled(AGENTS) | anything, check_agent),
    "forms": (form_fields, check_form),
    "garbled forms": (st.binary(max_size=300), check_garbled_form),
    "bodies": (st.dictionaries(st.sampled_from(["email", "phone", "password", "code", "name"]), json_values)
               | json_values, check_body),
    "filters": (st.dictionaries(st.sampled_from(["details", "limit", "offset"]) | anything, anything), check_filter),
    "queries": (
        st.dictionaries(st.sampled_from(sorted({*SessionQuery.model_fields, *EventQuery.model_fields, "state", "role"}))
                        | anything, query_values, max_size=4), check_query),
    "contacts": (spoiled(phones) | anything, check_contact),
    "headers": (anything, check_header),
    "pictures": (st.binary(max_size=300) | st.binary(max_size=60).map(lambda rest: b"\x89PNG\r\n\x1a\n" + rest)
                 | st.binary(max_size=60).map(lambda rest: b"\xff\xd8\xff\xe0" + rest), check_picture),
}  # fmt: skip

"""The OpenAPI 3.1 document of the whole JSON surface."""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, get_args

import orjson
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from handlers import bodies
from handlers.answers import DEFAULT_IMAGE
from handlers.base import FORBIDDEN, NOT_PROVIDED, NOT_VALID
from handlers.bodies import CONFIRMATION, CONTACT, REGISTRATION, SIGN_IN
from handlers.desk import Ending
from handlers.live import MOST_OF_ACCOUNT, MOST_OF_SESSION
from handlers.queries import MOST_ON_A_PAGE, EventQuery, ListQuery, SessionQuery
from handlers.sessions import Page
from handlers.tokens import WRONG
from models.filters import AccountSort, AccountState, SessionSort
from models.schema import KINDS, LONGEST_DEVICE_KEY, USER, Kind

Json = dict[str, Any]

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
DESCRIPTION = """\
Where am I signed in, and how do I end it? Every session of two kinds of account, `user` and `client`: each kind \
has its own numbering, so that user 1 and client 1 both exist, and so do a session 1 of each.

**Begin** by signing in (`POST /auth/user/token/` or `POST /auth/client/token/`), and send the `access` token with \
each request: `Authorization: Bearer …`. It lives for `expires_in` seconds; `refresh` gets the next one.

**Every address** answers errors as JSON. A method that it does not have is 405 with `Allow`; a missing final \
slash is redirected by 308, method and body kept; an address that is none is 404. Times are ISO 8601, UTC, with six \
decimals. Once ending a session has been answered, no server accepts that session again.
"""
TAGS = {
    "Signing in": "Tokens for programs.",
    "User sessions": "The sessions of users: listed, named, ended.",
    "Client sessions": "The sessions of clients: listed, named, ended.",
    "Live": "What happens, as it happens.",
    "Desk": "For staff, and for viewers, who may look: every session, account and event.",
    "User accounts": "Registering, confirming and changing users.",
    "Client accounts": "Registering, confirming and changing clients.",
    "Server": "For whoever operates it.",
}
SITE = "https://sessions.example.com"
TIME = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$",
    "examples": ["2021-09-08T12:22:26.072030Z"],
}
ID = {"type": "integer", "format": "int64", "minimum": 1}
TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
TEXT_OR_NULL = {"type": ["string", "null"]}
DEVICE = TEXT | {"maxLength": 512, "description": "The User-Agent that the session was started with, as sent."}
FIELDS: dict[str, Json] = {
    "id": ID,
    "surname": TEXT,
    "name": TEXT,
    "patronymic": TEXT,
    "address": TEXT,
    "email": TEXT_OR_NULL | {"format": "email"},
    "phone": TEXT_OR_NULL | {"pattern": r"^\+[1-9]\d{1,14}$", "description": "In E.164."},
    "image": TEXT | {"format": "uri", "description": "Serves the account's picture, to anybody."},
    "confirmed_email": FLAG,
    "confirmed_phone": FLAG,
    "created_at": TIME,
    "updated_at": TIME,
}
DETAILS: Json = {
    "name": TEXT_OR_NULL | {"maxLength": 64, "description": "What its owner named it."},
    "current": FLAG | {"description": "Whether it is the session that this token belongs to."},
    "ip": TEXT,
    "location": TEXT_OR_NULL | {"description": "City and country of the address, as far as they are known."},
    "browser": TEXT,
    "os": TEXT,
    "created_at": TIME,
    "last_seen_at": TIME,
    "expires_at": TIME
    | {"description": "When it ends; use before that moves it, up to the longest that a session lives."},
}
# The owner's document's own accounts, sessions and devices.
ACCOUNTS: dict[str, Json] = {
    "user": {
        "id": 5,
        "surname": "user3",
        "name": "user3",
        "patronymic": "user3",
        "address": "user3address",
        "email": "user3@gmail.com",
        "phone": "+79137779135",
        "image": f"{SITE}/sessions/session-user-l/5/static/Users/{DEFAULT_IMAGE}",
        "confirmed_email": True,
        "confirmed_phone": False,
        "created_at": "2021-09-08T12:22:26.072030Z",
        "updated_at": "2021-09-08T15:11:20.864802Z",
    },
    "client": {
        "id": 1,
        "surname": "Client1",
        "name": "Client1",
        "patronymic": "Client1",
        "address": "Client1",
        "phone": "+79137779135",
        "image": f"{SITE}/sessions/session-client-l/1/static/Users/{DEFAULT_IMAGE}",
        "confirmed_phone": False,
        "created_at": "2021-09-08T12:22:26.072030Z",
        "updated_at": "2021-09-08T15:11:20.864802Z",
    },
}
SESSIONS = {name: {"id": 1, name: account, "device": "PostmanRuntime/7.28.3"} for name, account in ACCOUNTS.items()}
DETAILED = {
    name: session
    | {
        "name": "Work laptop",
        "current": True,
        "ip": "203.0.113.7",
        "location": "Novosibirsk, RU",
        "browser": "PostmanRuntime 7.28.3",
        "os": "",
        "created_at": "2021-09-08T12:30:00.000000Z",
        "last_seen_at": "2021-09-08T15:11:20.864802Z",
        "expires_at": "2021-10-08T15:11:20.864802Z",
    }
    for name, session in SESSIONS.items()
}
ROLES = ("staff", "viewer")
COUNT = {"type": "integer", "minimum": 0}
ID_OR_NULL: Json = {"type": ["integer", "null"], "format": "int64"}
LIVE = {"sessions": COUNT | {"description": "How many live sessions it has."}}
KNOWN = {
    "user": ACCOUNTS["user"] | {"confirmed": True, "disabled": False, "staff": False, "viewer": False, "sessions": 1},
    "client": ACCOUNTS["client"] | {"confirmed": True, "disabled": False, "sessions": 1},
}
JOB_FIELDS: Json = {
    "id": ID,
    "state": {"type": "string", "enum": ["waiting", "running", "done", "stopped"],
              "description": "`stopped`: whoever asked for it is no longer staff."},
    "total": COUNT | {"description": "How many matched when it was asked for."},
    "ended": COUNT | {"description": "How many it has ended so far."},
    "reason": TEXT_OR_NULL,
    "by": ID | {"description": "The user who asked for it."},
    "created_at": TIME,
    "finished_at": {"type": ["string", "null"], "format": "date-time"},
}  # fmt: skip
JOB = {
    "id": 3, "state": "running", "total": 12345, "ended": 600, "reason": "Unused", "by": 1,
    "created_at": "2021-09-08T15:11:20.864802Z", "finished_at": None,
}  # fmt: skip
EVENT_FIELDS: Json = {
    "id": ID, "at": TIME, "type": TEXT, "cause": TEXT_OR_NULL, "kind": TEXT_OR_NULL, "account_id": ID_OR_NULL,
    "session_id": ID_OR_NULL, "by_kind": TEXT_OR_NULL, "by_id": ID_OR_NULL, "device": TEXT_OR_NULL,
    "ip": TEXT_OR_NULL, "country": TEXT_OR_NULL, "reason": TEXT_OR_NULL,
}  # fmt: skip
EVENT = {
    "id": 7, "at": "2021-09-08T15:11:20.864802Z", "type": "ended", "cause": "staff", "kind": "user", "account_id": 5,
    "session_id": 1, "by_kind": "user", "by_id": 1, "device": "PostmanRuntime/7.28.3", "ip": "203.0.113.7",
    "country": "RU", "reason": "Unused",
}  # fmt: skip
TIME_ASKED = TEXT | {"examples": ["2026-11-24T09:30:00Z"]}
KIND_ASKED: Json = {"type": "string", "enum": [*KINDS]}
# What lists are asked for: what it means, and its schema.
DESK_PARAMETERS: dict[str, tuple[str, Json]] = {
    "kind": ("Of users or of clients; without it of both.", KIND_ASKED),
    "account": ("The account's id; give its kind too.", ID),
    "browser": ("The browser or program, exactly; `-`: none is known.", TEXT | {"maxLength": 100}),
    "os": ("The system, exactly; `-`: none is known.", TEXT | {"maxLength": 100}),
    "device_kind": ("phone, tablet, computer, program or unknown.", TEXT | {"maxLength": 100}),
    "country": ("Two letters (ISO 3166-1); `-`: none is known.", TEXT | {"maxLength": 100}),
    "ip": ("An address or a network, IPv4 or IPv6: 203.0.113.0/24.", TEXT),
    "started_from": ("Started then or later.", TIME_ASKED),
    "started_to": ("Started earlier.", TIME_ASKED),
    "seen_from": ("Last seen then or later.", TIME_ASKED),
    "seen_to": ("Last seen earlier.", TIME_ASKED),
    "idle": ("Not seen for longer: 90m, 12h, 7d.", TEXT | {"pattern": "^[0-9]{1,5}[mhd]$"}),
    "q": ("How the e-mail address, the phone or the surname begins, or name and surname.", TEXT | {"maxLength": 100}),
    "device": ("How the User-Agent begins.", TEXT | {"maxLength": LONGEST_DEVICE_KEY}),
    "sort": ("By when they were started or seen; `-`: the latest first.",
             {"type": "string", "enum": [*get_args(SessionSort)]}),
    "account_sort": ("By when they were made, or by surname; `-`: the latest first.",
                     {"type": "string", "enum": [*get_args(AccountSort)]}),
    "state": ("Confirmed and enabled, still to be confirmed, or disabled.",
              {"type": "string", "enum": [*get_args(AccountState)]}),
    "role": ("Only users have one.", {"type": "string", "enum": [*ROLES]}),
    "type": ("What happened: started, ended, refused, …", TEXT | {"pattern": "^[a-z_]{1,40}$"}),
    "cause": ("Why: staff, expired, …", TEXT | {"pattern": "^[a-z_]{1,40}$"}),
    "session": ("The session's id; give its account too.", ID),
    "by_kind": ("The kind of the account that did it.", KIND_ASKED),
    "by": ("The id of the account that did it; give its kind too.", ID),
    "since": ("Then or later.", TIME_ASKED),
    "until": ("Earlier.", TIME_ASKED),
    "after": ("Where the page begins: `Link` says it.", TEXT | {"maxLength": 400}),
    "before": ("Where the page ends: `Link` says it.", TEXT | {"maxLength": 400}),
    "limit": ("The most to list.", {"type": "integer", "minimum": 1, "maximum": MOST_ON_A_PAGE}),
}  # fmt: skip
TOKENS = {
    "access": "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.…",
    "refresh": "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.…",
    "token_type": "Bearer",
    "expires_in": 900,
    "session": 1,
}


def make_document() -> Json:
    """The whole document."""
    paths: dict[str, Json] = {}
    for kind in KINDS.values():
        paths |= _session_paths(kind) | _account_paths(kind)
    refresh = _operation(
        "refreshTokens", "Signing in", "Get the next tokens",
        {"200": _signed_in(), "401": _refer("responses", "NotValid"), "403": _refer("responses", "Forbidden")},
        "A refresh token is good once: send the newest. For 30 seconds one that was used gives the same tokens'"
        " successor again; later it was stolen, and ends its session.",
        body=_body("Refresh", {"refresh": TOKENS["refresh"]}), is_open=True,
    )  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sessions",
            "version": PROJECT["version"],
            "description": DESCRIPTION,
            "license": {"name": PROJECT["license"], "identifier": PROJECT["license"]},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": description} for name, description in TAGS.items()],
        "security": [{"bearer": []}],
        "paths": {
            **paths,
            "/auth/token/refresh/": {"post": refresh},
            **_live_paths(),
            **_desk_paths(),
            **_server_paths(),
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": _body_schemas() | _answer_schemas(),
            "parameters": _parameters(),
            "headers": _headers(),
            "responses": _refusals(),
        },
    }


def _session_paths(kind: Kind) -> dict[str, Json]:
    name, title, tag = kind.name, kind.name.title(), f"{kind.name.title()} sessions"
    address = f"/sessions/session-{name}"
    session = _refer("schemas", f"{title}Session")
    detailed = _refer("schemas", f"{title}SessionDetails")
    one = _answer("The session.", detailed, DETAILED[name])
    by_first = _links(title, "$response.body#/0/id")
    listed = {
        "200": {
            "description": "The live sessions, newest first.",
            "headers": {header: _refer("headers", header) for header in ("ETag", "X-Total-Count", "Link")},
            "content": {
                "application/json": {
                    "schema": {"type": "array", "items": {"anyOf": [session, detailed]}},
                    "examples": {
                        "plain": {"value": [SESSIONS[name]]},
                        "detailed": {"summary": "with details=true", "value": [DETAILED[name]]},
                    },
                }
            },
            "links": by_first,
        },
        "304": _refer("responses", "NotModified"),
        "400": _refer("responses", "BadRequest"),
    }
    query = [_refer("parameters", parameter) for parameter in (*Page.model_fields, "If-None-Match")]
    ended = {"204": {"description": "It has ended, for every server and at once."}}
    return {
        f"{address}-l/": {
            "get": _operation(f"listOwn{title}Sessions", tag, "List your own sessions", listed, parameters=query),
        },
        f"{address}-l/{{id}}/": {
            "get": _operation(
                f"list{title}Sessions", tag, "List an account's sessions", listed,
                f"`id` is the {name}'s. Where it is no account that you may see, but one of the sessions that you may "
                "see, that session alone is listed.",
                parameters=[_id(f"The {name}'s id."), *query],
            ),
        },
        f"{address}-l/{{id}}/static/Users/{{file}}": {
            "get": _operation(
                f"get{title}Picture", tag, "Get an account's picture",
                {"200": _answer("The picture.", {}, media="image/jpeg"), "400": _refer("responses", "BadRequest")},
                parameters=[_id("Of any account, or of none.") | {"schema": {"type": "integer", "minimum": 0}},
                            _refer("parameters", "file")],
                is_open=True,
            ),
        },
        f"{address}-r/{{id}}/": {
            "get": _operation(
                f"get{title}Session", tag, "Get one session with its details", {"200": one},
                parameters=[_id("The session's id.")],
            ),
        },
        f"{address}-u/{{id}}/": {
            "patch": _operation(
                f"name{title}Session", tag, "Name a session", {"200": one},
                parameters=[_id("The session's id.")], body=_body("Naming", {"name": "Work laptop"}),
            ),
        },
        f"{address}-d/": {
            "delete": _operation(f"signOut{title}", tag, "Sign out: end the session that the token belongs to", ended),
        },
        f"{address}-d/{{id}}/": {
            "delete": _operation(
                f"end{title}Session", tag, "End a session", ended, parameters=[_id("The session's id.")],
            ),
        },
        f"{address}-d/others/": {
            "delete": _operation(
                f"endOther{title}Sessions", tag, "End every other session of your account",
                {"200": _answer("How many that were.", _refer("schemas", "Ended"), {"ended": 3})},
            ),
        },
    }  # fmt: skip


def _account_paths(kind: Kind) -> dict[str, Json]:
    name, title, tag = kind.name, kind.name.title(), f"{kind.name.title()} accounts"
    account = ACCOUNTS[name]
    changed = account | {"disabled": False} | (dict.fromkeys(ROLES, False) if kind is USER else {})
    contact: Json = {kind.contacts[0]: account[kind.contacts[0]]}
    shape = _refer("schemas", title)
    waits = {"detail": "If this contact waits for a code, one is on its way."}
    return {
        f"/auth/{name}/token/": {
            "post": _post(
                f"signIn{title}", "Signing in", f"Sign a {name} in", SIGN_IN[name].__name__,
                contact | {"password": "a quiet harbour", "device_id": "laptop-1"},
                {"200": _signed_in(_links(title, "$response.body#/session")), "401": _refer("responses", "Wrong")},
                "Starts a session. With a `device_id` it takes the place of that device's last one.",
            ),
        },
        f"/auth/{name}/register/": {
            "post": _post(
                f"register{title}", tag, f"Register a {name}", REGISTRATION[name].__name__,
                {field: account[field] for field in REGISTRATION[name].model_fields if field != "password"}
                | {"password": "a quiet harbour"},
                {"201": _answer("The account.", shape, account), "403": _refer("responses", "Closed")},
                "Sends the codes that confirm its contacts.",
            ),
        },
        f"/auth/{name}/confirm/": {
            "post": _post(
                f"confirm{title}", tag, "Confirm a contact by its code", CONFIRMATION[name].__name__,
                contact | {"code": "123456"}, {"200": _answer("The account.", shape, account)},
                "Where the account has proved another contact, send a token of it too: confirmed without one, this"
                " contact sets no password.",
            ),
        },
        f"/auth/{name}/confirm/send/": {
            "post": _post(
                f"send{title}Code", tag, "Send another code", CONTACT[name].__name__, contact,
                {"202": _answer("Whether or not there is such an account.", _constant(waits), waits)},
            ),
        },
        f"/auth/{name}/password/": {
            "post": _operation(
                f"change{title}Password", tag, "Change your password",
                {"204": {"description": "Changed."}, "429": _refer("responses", "TooMany")},
                "Ends every other session of your account.",
                body=_body("PasswordChange", {"password": "a quiet harbour", "new_password": "a quieter harbour"}),
            ),
        },
        f"/accounts/{name}/{{id}}/": {
            "patch": _operation(
                f"change{title}", tag, f"Confirm, disable or enable a {name}, or give and take a role (staff)",
                {"200": _answer("The account.", _refer("schemas", f"Changed{title}"), changed)},
                "Disabling an account ends its sessions. Users can be made `staff`, who may see and end all, and "
                "`viewer`, who may see it. The last who is staff stays so.",
                parameters=[_id(f"The {name}'s id.")], body=_body("AccountChange", {"confirmed": True}),
            ),
        },
    }  # fmt: skip


def _desk_paths() -> dict[str, Json]:
    def listed(name: str, schema: str, summary: str, shown: Json, parameters: tuple[str, ...]) -> Json:
        page = _answer("A page of the list.", {"type": "array", "items": _refer("schemas", schema)}, [shown])
        page["headers"] = {header: _refer("headers", header) for header in ("X-Total-Count", "Link")}
        query = [_desk_parameter(parameter) for parameter in (*parameters, "after", "before", "limit")]
        refused = {"400": _refer("responses", "BadRequest")}
        told = "Goes on at the address that `Link` names `next`."
        return {"get": _operation(name, "Desk", summary, {"200": page} | refused, told, parameters=query)}

    def job(description: str, **headers: Json) -> Json:
        answer = _answer(description, _refer("schemas", "Job"), JOB)
        return answer | ({"headers": headers} if headers else {})

    sessions = tuple(name for name in SessionQuery.model_fields if name not in ListQuery.model_fields)
    accounts = ("q", "state", "role", "account_sort")
    events = tuple(name for name in EventQuery.model_fields if name not in ListQuery.model_fields)
    location = {"required": True, "description": "Where to ask how far it is.", "schema": TEXT}
    return {
        "/sessions/": listed(
            "listSessions", "KnownSession", "List every live session of the house", {"kind": "user"} | DETAILED["user"],
            sessions,
        ),
        "/sessions/end/": {
            "post": _operation(
                "endSessions", "Desk", "End all sessions that match a filter (staff)",
                {"202": job("It has begun, and goes on some at a time.", Location=location)},
                "`filter` has the names and values of the list's query; `{}` matches every session. Those that are "
                "started later are not ended.",
                body=_body("Ending", {"filter": {"kind": "client", "idle": "90d"}, "reason": "Unused"}),
            ),
        },
        "/sessions/end/{id}/": {
            "get": _operation(
                "getEnding", "Desk", "How far the ending of many sessions is", {"200": job("So far.")},
                parameters=[_id("The id that the answer to beginning it has.")],
            ),
        },
        **{
            f"/accounts/{name}/": listed(
                f"list{name.title()}s", f"Known{name.title()}", f"List every {name}", KNOWN[name], accounts
            )
            for name in KINDS
        },
        "/events/": listed("listEvents", "Event", "List what happened, newest first", EVENT, events),
    }  # fmt: skip


def _desk_parameter(name: str) -> Json:
    """A parameter of a list's query."""
    description, schema = DESK_PARAMETERS[name]
    return {"name": name.rpartition("_")[2] if name == "account_sort" else name, "in": "query",
            "description": description, "schema": schema}  # fmt: skip


def _live_paths() -> dict[str, Json]:
    events = 'retry: 1000\nevent: device\ndata: {}\n\nid: 7\nevent: device\ndata: {"action":"started","session":2}\n\n'
    stream = {"200": _answer("Server-Sent Events, until one of the two sides ends.", TEXT, events,
                             media="text/event-stream"), "429": _refer("responses", "TooManyStreams")}  # fmt: skip
    return {
        "/sessions/live/": {
            "get": _operation(
                "followAccount", "Live", "Follow what happens to your account", stream,
                "`device`: something happened to a session of your account (`action`, `session`), or may have while "
                "nobody listened (`{}`). `over`: the session that you asked from has ended, and so does the stream.",
            ),
        },
    }  # fmt: skip


def _server_paths() -> dict[str, Json]:
    def get(id: str, summary: str, answers: Json, **more: Any) -> Json:
        return {"get": _operation(id, "Server", summary, answers, is_open=True, asks_database=False, **more)}

    well = _answer("It does.", _constant({"status": "ok"}), {"status": "ok"})
    etag = {"ETag": _refer("headers", "ETag")}
    return {
        "/healthz": get("getHealth", "Whether the process answers", {"200": well}),
        "/readyz": get(
            "getReadiness", "Whether the database answers too",
            {"200": well, "503": _refer("responses", "Unavailable")},
        ),
        "/metrics": get(
            "getMetrics", "Metrics for Prometheus",
            {"200": _answer("The metrics of all workers.", TEXT, media="text/plain")},
        ),
        "/openapi.json": get(
            "getDocument", "This document",
            {
                "200": _answer("OpenAPI 3.1.", {"type": "object", "required": ["openapi"]}) | {"headers": etag},
                "304": _refer("responses", "NotModified"),
            },
            parameters=[_refer("parameters", "If-None-Match")],
        ),
    }  # fmt: skip


def _operation(
    id: str,
    tag: str,
    summary: str,
    answers: Json,
    description: str = "",
    *,
    parameters: list[Json] | None = None,
    body: Json | None = None,
    is_open: bool = False,
    asks_database: bool = True,
) -> Json:
    """An operation: its own answers, and those that follow from what it takes."""
    refusals = {
        "400": "BadRequest" if body else None,
        "401": None if is_open else "Unauthorized",
        "403": None if is_open else "Forbidden",
        "404": "NotFound" if any(parameter.get("in") == "path" for parameter in parameters or ()) else None,
        "413": "TooLarge" if body else None,
        "415": "NotJson" if body else None,
        "503": "Unavailable" if asks_database else None,
    }
    told = {status: _refer("responses", name) for status, name in refusals.items() if name}
    operation: Json = {"operationId": id, "tags": [tag], "summary": summary}
    operation |= {"description": description} if description else {}
    operation |= {"security": []} if is_open else {}
    operation |= {"parameters": parameters} if parameters else {}
    operation |= {"requestBody": body} if body else {}
    return operation | {"responses": dict(sorted((told | answers).items()))}


def _post(id: str, tag: str, summary: str, body: str, example: Json, answers: Json, description: str = "") -> Json:
    """What anybody may ask without a token, though not as often as he likes."""
    answers = answers | {"429": _refer("responses", "TooMany")}
    return _operation(id, tag, summary, answers, description, body=_body(body, example), is_open=True)


def _answer(description: str, schema: Json, example: Any = None, *, media: str = "application/json") -> Json:
    content = {"schema": schema} | ({} if example is None else {"example": example})
    return {"description": description, "content": {media: content}}


def _signed_in(links: Json | None = None) -> Json:
    refresh = {"operationId": "refreshTokens", "requestBody": {"refresh": "$response.body#/refresh"}}
    answer = _answer("The session's tokens.", _refer("schemas", "Tokens"), TOKENS)
    return answer | {"links": {"refreshTokens": refresh} | (links or {})}


def _links(title: str, id: str) -> Json:
    """What can be asked next of the session whose id is there in the answer."""
    operations = [f"{verb}{title}Session" for verb in ("get", "name", "end")]
    return {operation: {"operationId": operation, "parameters": {"id": id}} for operation in operations}


def _body(name: str, example: Json) -> Json:
    content = {"schema": _refer("schemas", name), "example": example}
    return {"required": True, "content": {"application/json": content}}


def _refer(part: str, name: str) -> Json:
    return {"$ref": f"#/components/{part}/{name}"}


def _id(description: str) -> Json:
    return {"name": "id", "in": "path", "required": True, "description": description, "schema": ID, "example": 1}


def _object(properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _constant(body: Json) -> Json:
    """The schema of exactly this body."""
    return _object({key: {"type": "string", "const": value} for key, value in body.items()})


class _Untitled(GenerateJsonSchema):
    """Pydantic's schemas, without a title for each field that repeats its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _body_schemas() -> dict[str, Json]:
    models: list[type[bodies.Body]] = [
        *SIGN_IN.values(), *REGISTRATION.values(), *CONTACT.values(), *CONFIRMATION.values(),
        bodies.Refresh, bodies.PasswordChange, bodies.Naming, bodies.AccountChange, Ending,
    ]  # fmt: skip
    _, made = models_json_schema(
        [(model, "validation") for model in models],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    schemas: dict[str, Json] = made["$defs"]
    # What validators say of several fields together, no field's schema can.
    contacts = [
        {"required": [contact], "properties": {contact: {"type": "string"}}} for contact in KINDS["user"].contacts
    ]
    for model in (SIGN_IN, CONTACT, CONFIRMATION):
        schemas[model["user"].__name__]["oneOf"] = contacts
    schemas[REGISTRATION["user"].__name__]["anyOf"] = contacts
    return {name: {key: value for key, value in schema.items() if key != "title"} for name, schema in schemas.items()}


def _answer_schemas() -> dict[str, Json]:
    schemas: dict[str, Json] = {
        "Tokens": _object(
            {
                "access": TEXT,
                "refresh": TEXT,
                "token_type": {"type": "string", "const": "Bearer"},
                "expires_in": {"type": "integer", "minimum": 1, "description": "Seconds that `access` lives."},
                "session": ID | {"description": "The session's id."},
            }
        ),
        "Job": _object(JOB_FIELDS),
        "Event": _object(EVENT_FIELDS),
        "KnownSession": {
            "oneOf": [
                _object({"kind": {"type": "string", "const": name}} | own | DETAILS)
                for name in KINDS
                for own in [{"id": ID, name: _refer("schemas", name.title()), "device": DEVICE}]
            ]
        },
        "Ended": _object({"ended": {"type": "integer", "minimum": 0}}),
        "Detail": _object({"detail": TEXT}),
        "FieldErrors": {
            "type": "object",
            "description": "What is wrong, by field.",
            "minProperties": 1,
            "additionalProperties": {"type": "array", "items": TEXT, "minItems": 1},
        },
        "NotProvided": _constant(orjson.loads(NOT_PROVIDED)),
        "NotValid": _constant(orjson.loads(NOT_VALID)),
    }
    for kind in KINDS.values():
        title = kind.name.title()
        account = {field: FIELDS[field] for field in kind.fields}
        session = {"id": ID, kind.name: _refer("schemas", title), "device": DEVICE}
        roles = dict.fromkeys(ROLES, FLAG) if kind is USER else {}
        schemas |= {
            title: _object(account),
            f"Changed{title}": _object(account | {"disabled": FLAG} | roles),
            f"Known{title}": _object(account | dict.fromkeys(("confirmed", "disabled"), FLAG) | roles | LIVE),
            f"{title}Session": _object(session),
            f"{title}SessionDetails": _object(session | DETAILS),
        }
    return schemas


def _parameters() -> dict[str, Json]:
    told = {
        "details": "Tell all that is known of each session.",
        "limit": "The most sessions to list.",
        "offset": "The sessions to leave out, from the newest.",
    }
    query = Page.model_json_schema(schema_generator=_Untitled)["properties"]
    file = {"type": "string", "pattern": "^[^/]+$"}
    return {
        **{
            name: {"name": name, "in": "query", "description": told[name], "schema": _as_query(schema)}
            for name, schema in query.items()
        },
        "file": {"name": "file", "in": "path", "required": True, "schema": file, "example": DEFAULT_IMAGE},
        "If-None-Match": {
            "name": "If-None-Match", "in": "header", "schema": TEXT,
            "description": "The `ETag` of the answer that you have.",
        },
    }  # fmt: skip


def _as_query(schema: Json) -> Json:
    """A query has no null, and the API page would send each default."""
    one = next((one for one in schema.get("anyOf", ()) if one != {"type": "null"}), schema)
    return {key: value for key, value in one.items() if key != "default"}


def _headers() -> dict[str, Json]:
    told = {
        "ETag": (TEXT, "Of your own list and this document: names what was answered."),
        "X-Total-Count": ({"type": "integer", "minimum": 0}, "How many there are in all, with `limit` or `offset`."),
        "Link": (TEXT, "The pages around this one (RFC 8288), with `limit` or `offset`."),
        "Allow": (TEXT, "The methods that the address has."),
        "Retry-After": ({"type": "integer", "minimum": 0}, "Seconds to wait before asking again."),
    }
    headers: dict[str, Json] = {
        name: {"description": description, "schema": schema} for name, (schema, description) in told.items()
    }
    for name in ("Allow", "Retry-After"):
        headers[name]["required"] = True
    return headers


def _refusals() -> dict[str, Json]:
    """The answers that are not what was asked for, the same wherever they occur."""

    def refuse(description: str, body: Any, **headers: Json) -> Json:
        answer = _answer(description, _constant(body), body)
        told = {name.replace("_", "-"): header for name, header in headers.items()}
        return answer | ({"headers": told} if told else {})

    def challenge(*values: str) -> Json:
        return {"required": True, "schema": {"type": "string", "enum": [*values]}}

    plain, invalid = "Bearer", 'Bearer error="invalid_token"'
    not_provided, not_valid = orjson.loads(NOT_PROVIDED), orjson.loads(NOT_VALID)
    wrong = {"anyOf": [_refer("schemas", "FieldErrors"), _refer("schemas", "Detail")]}
    later = _refer("headers", "Retry-After")
    return {
        "NotModified": {"description": "You have it already.", "headers": {"ETag": _refer("headers", "ETag")}},
        "BadRequest": _answer("Something is wrong with what was sent.", wrong, {"name": ["This field is required."]}),
        "Unauthorized": {
            "description": "No token, or one that is expired, forged or none of ours.",
            "headers": {"WWW-Authenticate": challenge(plain, invalid)},
            "content": {
                "application/json": {
                    "schema": {"anyOf": [_refer("schemas", "NotProvided"), _refer("schemas", "NotValid")]},
                    "examples": {"none": {"value": not_provided}, "not good": {"value": not_valid}},
                }
            },
        },
        "NotValid": refuse("A refresh token that is expired, forged or none of ours.", not_valid,
                           WWW_Authenticate=challenge(invalid)),
        "Wrong": refuse("Wrong credentials, or an account that is disabled.", WRONG,
                        WWW_Authenticate=challenge(plain)),
        "Forbidden": refuse(
            "Not enough rights; the account is not confirmed or disabled; the session has ended; it is another's, or "
            "there is none: the same for all, so that nobody learns which ids exist.",
            orjson.loads(FORBIDDEN),
        ),
        "Closed": refuse("Registration is closed.", {"detail": "Registration is closed."}),
        "NotFound": refuse("There is no such address.", {"detail": "Not found."}),
        "MethodNotAllowed": refuse("The address does not have this method.", {"detail": "Method not allowed."},
                                   Allow=_refer("headers", "Allow")),
        "TooLarge": refuse("A body of more than `server.body_bytes`: 64 KiB, unless it is set otherwise.",
                           {"detail": "The body is too large."}),
        "NotJson": refuse("A body that is not application/json.", {"detail": "Send the body as application/json."}),
        "TooMany": _answer(
            "Too many wrong tries for this account or from this network, too many codes asked for or accounts made "
            "from it. A device that names itself by a `device_id` which the account has signed in with waits for no "
            "stranger's tries.",
            _refer("schemas", "Detail"), {"detail": "Too many tries. Try again in 32 s."},
        ) | {"headers": {"Retry-After": later}},
        "TooManyStreams": _answer(
            f"{MOST_OF_SESSION} streams of this session are open already, or {MOST_OF_ACCOUNT} of this account, on one "
            "worker.",
            _refer("schemas", "Detail"), {"detail": f"This session has {MOST_OF_SESSION} streams open already."},
        ) | {"headers": {"Retry-After": later}},
        "Unavailable": _answer(
            "The database is away, too many sign in at once, there is no room for a stream, or this took too long.",
            _refer("schemas", "Detail"),
            {"detail": "The database can't be reached. Try again in a moment."},
        ) | {"headers": {"Retry-After": later}},
    }  # fmt: skip


@cache
def dump_document() -> tuple[bytes, str]:
    """The document as JSON, and its ETag; made when it is first asked for."""
    dumped = orjson.dumps(make_document())
    return dumped, f'"{hashlib.sha256(dumped).hexdigest()[:16]}"'

"""The owner's document, to the letter: its rows, its answers, its refusals, its tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import Connection, insert, select, update

from models import clock, sessions
from models.events import Cause
from models.origins import Origin
from models.schema import KINDS
from models.settings import SessionSettings
from tests.conftest import KEY, House, open_house, start_server

POSTMAN = "PostmanRuntime/7.28.3"
OTHER_SERVICE = "o" * 64

NOT_PROVIDED = '{"detail":"Authentication credentials were not provided."}'
FORBIDDEN = '{"detail":"You do not have permission to perform this action."}'
NOT_VALID = '{"detail":"Given token not valid for any token type","code":"token_not_valid"}'

# As printed; {address} stands where the document says "host".
USER_LIST = """
[
    {
        "id": 1,
        "user": {
            "id": 5,
            "surname": "user3",
            "name": "user3",
            "patronymic": "user3",
            "address": "user3address",
            "email": "user3@gmail.com",
            "phone": "+79137779135",
            "image": "{address}/sessions/session-user-l/5/static/Users/default-user-image.jpeg",
            "confirmed_email": true,
            "confirmed_phone": false,
            "created_at": "2021-09-08T12:22:26.072030Z",
            "updated_at": "2021-09-08T15:11:20.864802Z"
        },
        "device": "PostmanRuntime/7.28.3"
    }
]
"""
CLIENT_LIST = """
[
    {
        "id": 1,
        "client": {
            "id": 1,
            "surname": "Client1",
            "name": "Client1",
            "patronymic": "Client1",
            "address": "Client1",
            "phone": "+79137779135",
            "image": "{address}/sessions/session-client-l/1/static/Users/default-user-image.jpeg",
            "confirmed_phone": false,
            "created_at": "2021-09-08T12:22:26.072030Z",
            "updated_at": "2021-09-08T15:11:20.864802Z"
        },
        "device": "PostmanRuntime/7.28.3"
    }
]
"""
LISTS = {"user": USER_LIST, "client": CLIENT_LIST}

# The tokens as printed: whoever signed them, it was none of our keys.
PRINTED = {
    "user": (
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiZXhwIjoxNjMyMjI4NDYyLCJqdGkiOiIwZDEwZj"
        "NiYzNhM2M0NzdiODQyZWVjNzQ5ZTY5MGI5OSIsInVzZXJfaWQiOjV9.aYGVJfdEXxsp9_ggjdtc6BMYW7qIp7DCH3BPvabllQ0"
    ),
    "client": (
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.eyJjbGllbnRfaWQiOjEsInN1cm5hbWUiOiJDbGllbnQxIiwiZmlyc3RfbmFtZSI6IkNsaW"
        "VudDEiLCJwYXRyb255bWljIjoiQ2xpZW50MSIsInBob25lIjoiKzc5OTY3NDg2Mjk0In0.gbODpQyaaenDkgDTL2kM-JMaLnoW7YzTrXdoi"
        "VCL1Bg"
    ),
}


def sign(kind: str, secret: str = KEY, *, kid: str | None = None, **changed: Any) -> str:
    """The document's example token, signed with a key that we know; a user's ends in an hour."""
    claims = jwt.decode(PRINTED[kind], options={"verify_signature": False})
    if kind == "user":
        claims["exp"] = int(time.time()) + 3600
    claims = {name: value for name, value in {**claims, **changed}.items() if value is not None}
    return jwt.encode(claims, secret, "HS256", {"kid": kid} if kid else None)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def document(
    request: pytest.FixtureRequest, make_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A server that holds the document's own rows, and checks another service's tokens too."""
    keys = [
        {"kid": "other-service", "secret": OTHER_SERVICE, "check_only": True},
        {"kid": "test", "secret": KEY},
    ]
    url = make_url(request.param)
    server = start_server(tmp_path_factory.mktemp("server"), url, SESSIONS_TOKENS__KEYS=json.dumps(keys))
    with open_house(server, url) as opened:
        opened.write(add_accounts)
        yield opened
    assert server.stop() == 0, server.log.read_text()


def add_accounts(db: Connection) -> None:
    """User 5 and client 1, who staff confirmed by hand."""
    for kind, listed in ((KINDS[name], json.loads(LISTS[name])[0][name]) for name in LISTS):
        fields = {name: value for name, value in listed.items() if name != "image"}
        times = {name: datetime.fromisoformat(listed[name]) for name in ("created_at", "updated_at")}
        by_staff = clock.now() if kind.name == "client" else None
        db.execute(
            insert(kind.accounts).values(
                {**fields, **times, "password_hash": "no password has this hash", "confirmed_by_staff_at": by_staff}
            )
        )


@pytest.fixture(autouse=True)
def session(document: House) -> None:
    """Session 1 of each, as the document has it: started with Postman, and nothing else of theirs is live."""
    document.write(start_sessions)


def start_sessions(db: Connection) -> None:
    """Session 1 of user 5 and of client 1, live; no other is."""
    for kind, account_id in ((KINDS["user"], 5), (KINDS["client"], 1)):
        for session_id in db.scalars(select(kind.sessions.c.id)).all():
            sessions.end_one(db, kind, session_id, Cause.OWNER, clock.now())
        started = sessions.start(
            db, kind, account_id, None, None, Origin(device=POSTMAN), SessionSettings(), clock.now()
        )
        assert started
        db.execute(update(kind.sessions).where(kind.sessions.c.id == started.session["id"]).values(id=1))


def ask(document: House, method: str, address: str, token: str | None, agent: str = POSTMAN) -> httpx.Response:
    """The answer to a request with the headers that the document prints."""
    headers = {"Content-Type": "application/json", "User-Agent": agent}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return document.client.request(method, f"/sessions/{address}", headers=headers)


@pytest.mark.parametrize("kind", KINDS)
def test_the_list_comes_out_key_for_key(document: House, kind: str) -> None:
    answer = ask(document, "GET", f"session-{kind}-l/1/", sign(kind))

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    expected = json.loads(LISTS[kind].replace("{address}", document.address))
    # As text: the order of the keys is part of it.
    assert answer.text == json.dumps(expected, separators=(",", ":"))


def test_the_list_is_the_same_at_the_account_s_id_and_at_the_session_s(document: House) -> None:
    by_account = ask(document, "GET", "session-user-l/5/", sign("user"))
    by_session = ask(document, "GET", "session-user-l/1/", sign("user"))

    assert by_account.status_code == by_session.status_code == 200
    assert by_account.text == by_session.text


@pytest.mark.parametrize("kind", KINDS)
def test_ending_answers_204_with_no_body(document: House, kind: str) -> None:
    answer = ask(document, "DELETE", f"session-{kind}-d/1/", sign(kind))

    assert (answer.status_code, answer.content) == (204, b"")
    # Nothing to read, so nothing that says what it is, or how long.
    assert not {"Content-Type", "Content-Length", "Transfer-Encoding"} & {name.title() for name in answer.headers}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "action"), [("GET", "l"), ("DELETE", "d")])
def test_without_a_token_it_is_401_with_the_document_s_body(
    document: House, kind: str, method: str, action: str
) -> None:
    answer = ask(document, method, f"session-{kind}-{action}/1/", None)

    assert (answer.status_code, answer.text) == (401, NOT_PROVIDED)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("method", "action"), [("GET", "l"), ("DELETE", "d")])
def test_of_a_deleted_session_it_is_403_with_the_document_s_body(
    document: House, kind: str, method: str, action: str
) -> None:
    token = sign(kind)
    assert ask(document, "DELETE", f"session-{kind}-d/1/", token).status_code == 204

    answer = ask(document, method, f"session-{kind}-{action}/1/", token)

    assert (answer.status_code, answer.text) == (403, FORBIDDEN)
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_that_is_not_confirmed_gets_403_with_the_document_s_body(document: House, kind: str) -> None:
    token = sign(kind)
    document.write(confirm, kind, False)

    answer = ask(document, "GET", f"session-{kind}-l/1/", token)

    document.write(confirm, kind, True)
    assert (answer.status_code, answer.text) == (403, FORBIDDEN)
    assert ask(document, "GET", f"session-{kind}-l/1/", token).status_code == 200


def confirm(db: Connection, kind: str, is_confirmed: bool) -> None:
    """Confirm the document's account the way that it was, or take it back."""
    how: dict[str, Any] = {"confirmed_email": is_confirmed}
    if kind == "client":
        how = {"confirmed_by_staff_at": clock.now() if is_confirmed else None}
    db.execute(update(KINDS[kind].accounts).values(how))


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_without_a_session_s_name_speaks_of_the_device_that_it_comes_from(document: House, kind: str) -> None:
    token = sign(kind)

    from_postman = ask(document, "GET", f"session-{kind}-l/1/", token)
    from_elsewhere = ask(document, "GET", f"session-{kind}-l/1/", token, "PostmanRuntime/7.28.4")

    assert from_postman.status_code == 200
    assert (from_elsewhere.status_code, from_elsewhere.text) == (403, FORBIDDEN)


@pytest.mark.parametrize("kind", KINDS)
def test_such_a_token_names_shows_and_signs_out_its_own_session(document: House, kind: str) -> None:
    token = sign(kind)

    shown = ask(document, "GET", f"session-{kind}-r/1/", token)
    assert (shown.status_code, shown.json()["current"]) == (200, True)
    assert ask(document, "DELETE", f"session-{kind}-d/others/", token).json() == {"ended": 0}
    assert ask(document, "DELETE", f"session-{kind}-d/", token).status_code == 204
    assert ask(document, "GET", f"session-{kind}-l/", token).status_code == 403


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kid", [None, "other-service"])
def test_a_key_for_checking_only_lets_another_service_go_on_issuing(
    document: House, kind: str, kid: str | None
) -> None:
    answer = ask(document, "GET", f"session-{kind}-l/1/", sign(kind, OTHER_SERVICE, kid=kid))

    assert answer.status_code == 200
    assert [one["id"] for one in answer.json()] == [1]


def test_a_key_for_checking_only_signs_nothing_though_it_is_the_first(document: House) -> None:
    account = document.add("user")

    device = document.sign_in(account)

    assert jwt.get_unverified_header(device.access)["kid"] == "test"
    assert jwt.get_unverified_header(device.refresh)["kid"] == "test"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(PRINTED["user"], id="the user's as printed"),
        pytest.param(PRINTED["client"], id="the client's as printed"),
        pytest.param(sign("user", "x" * 64), id="signed with a key that is not configured"),
        pytest.param(sign("user", OTHER_SERVICE, kid="test"), id="signed with another key than it names"),
        pytest.param(sign("user", exp=1632228462), id="the user's, ended in 2021"),
        pytest.param(sign("user", exp=None), id="a user's without an end"),
        pytest.param(sign("user", token_type=None), id="a user's without its type"),
        pytest.param(sign("user", token_type="refresh"), id="a refresh token"),
        pytest.param(sign("client", token_type="refresh"), id="a client's refresh token"),
        pytest.param(sign("client", exp=1632228462), id="a client's with an end, in 2021"),
        pytest.param(sign("user", client_id=1), id="a user's and a client's at once"),
    ],
)
def test_what_is_almost_the_document_s_token_is_401(document: House, token: str) -> None:
    for kind in KINDS:
        answer = ask(document, "GET", f"session-{kind}-l/1/", token)
        assert (answer.status_code, answer.text) == (401, NOT_VALID)
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'

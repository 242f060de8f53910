"""The demo's rows: the document's own, and a house that could have become what it is."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import Connection, select

from models import accounts, clock, demo, sessions
from models.contacts import normalise_email, normalise_phone
from models.events import Cause, Type
from models.origins import Origin
from models.passwords import Passwords
from models.places import Places
from models.schema import CLIENT, EVENTS, KINDS, USER, Kind
from models.settings import SessionSettings
from tests.conftest import KEY, NO_TLS, Server, open_database, open_loop, password_hash, start_server

DOCUMENT = {
    "user": {
        "id": 5,
        "surname": "user3",
        "name": "user3",
        "patronymic": "user3",
        "address": "user3address",
        "email": "user3@gmail.com",
        "phone": "+79137779135",
        "image": "{site}/sessions/session-user-l/5/static/Users/default-user-image.jpeg",
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
        "image": "{site}/sessions/session-client-l/1/static/Users/default-user-image.jpeg",
        "confirmed_phone": False,
        "created_at": "2021-09-08T12:22:26.072030Z",
        "updated_at": "2021-09-08T15:11:20.864802Z",
    },
}
POSTMAN = "PostmanRuntime/7.28.3"
ROLES = (Type.MADE_STAFF, Type.UNMADE_STAFF, Type.MADE_VIEWER, Type.UNMADE_VIEWER)
KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

Rows = list[dict[str, Any]]


class Demo:
    """A database that the demo filled, and all that is in it."""

    def __init__(self, url: str, run: Callable[[Any], Any]) -> None:
        self.url = url
        self.run = run
        self.database = open_database(url)
        self.how_to = run(_fill(self.database))
        self.filled_at = clock.now()
        self.accounts: dict[Kind, Rows] = {kind: self.list(kind.accounts) for kind in KINDS.values()}
        self.sessions: dict[Kind, Rows] = {kind: self.list(kind.sessions) for kind in KINDS.values()}
        self.events = self.list(EVENTS)

    def list(self, table: Any) -> Rows:
        """Every row of a table, in the order of ids."""

        def read(db: Connection) -> Rows:
            return [dict(row) for row in db.execute(select(table).order_by(table.c.id)).mappings()]

        rows: Rows = self.run(self.database.read(read))
        return rows

    def list_events(self, kind: Kind, *types: Type) -> Rows:
        """The events of these types that befell accounts of a kind."""
        return [event for event in self.events if event["kind"] == kind.name and event["type"] in types]


async def _fill(database: Any) -> str:
    passwords, places = Passwords(), Places()
    try:
        return await demo.fill(database, passwords, places, "http://127.0.0.1:8888")
    finally:
        passwords.close()
        places.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(request: pytest.FixtureRequest, make_url: Callable[[str], str]) -> Iterator[Demo]:
    """A filled database of each kind, which these tests read."""
    with open_loop() as run:
        opened = Demo(make_url(request.param), run)
        yield opened
        run(opened.database.close())


@pytest.fixture(scope="module")
def server(filled: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the filled database."""
    started = start_server(tmp_path_factory.mktemp("demo"), filled.url)
    yield started
    assert started.stop() == 0, started.log.read_text()


def expect(kind: str, site: str) -> Any:
    """What the document lists."""
    account = DOCUMENT[kind] | {"image": str(DOCUMENT[kind]["image"]).format(site=site)}
    return [{"id": 1, kind: account, "device": POSTMAN}]


def get(server: Server, address: str, token: str, device: str = "tests/1") -> Any:
    """The JSON at `address`, keys in their order."""
    headers = {"Authorization": f"Bearer {token}", "User-Agent": device}
    answer = httpx.get(server.address + address, headers=headers, verify=NO_TLS)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.long
@pytest.mark.parametrize(("kind", "account_id"), [("user", 5), ("client", 1)])
@pytest.mark.parametrize("address", ["", "1/"], ids=["own list", "as printed"])
def test_the_documents_own_token_lists_what_the_document_says(
    server: Server, kind: str, account_id: int, address: str
) -> None:
    claims = {
        "token_type": "access",
        "exp": clock.now() + timedelta(hours=1),
        "jti": "0d10f3bc3a3c477b842eec749e690b99",
    }
    token = jwt.encode(claims | {f"{kind}_id": account_id}, KEY, algorithm="HS256", headers={"kid": "test"})

    listed = get(server, f"/sessions/session-{kind}-l/{address}", token, POSTMAN)

    assert json.dumps(listed) == json.dumps(expect(kind, server.address))


def test_everybody_who_is_told_of_can_sign_in_with_the_lines_as_printed(filled: Demo, server: Server) -> None:
    lines = re.findall(r"curl http://127.0.0.1:8888(\S+) --json '(.+)'", filled.how_to)

    answers = [httpx.post(server.address + address, json=json.loads(body), verify=NO_TLS) for address, body in lines]

    assert [(address, answer.status_code) for (address, _), answer in zip(lines, answers, strict=True)] == [
        ("/auth/user/token/", 200),
        ("/auth/user/token/", 200),
        ("/auth/client/token/", 200),
    ]
    staff = answers[0].json()["access"]
    tested = get(server, "/sessions/session-user-l/5/", answers[1].json()["access"])
    assert [row["device"] for row in tested] == [answers[1].request.headers["User-Agent"], POSTMAN]
    assert get(server, "/sessions/session-client-l/2/", staff) is not None
    assert set(re.findall(r"127.0.0.1:8888/(?:sessions|auth)/\S+", filled.how_to)) == {
        "127.0.0.1:8888/auth/user/token/",
        "127.0.0.1:8888/auth/client/token/",
        "127.0.0.1:8888/sessions/session-user-l/5/",
        "127.0.0.1:8888/sessions/session-user-d/1/",
    }


def test_one_account_is_staff_and_it_is_not_the_documents(filled: Demo) -> None:
    assert [row["id"] for row in filled.accounts[USER] if row["is_staff"]] == [1]


def test_there_are_some_three_hundred_accounts_more(filled: Demo) -> None:
    assert (len(filled.accounts[USER]), len(filled.accounts[CLIENT])) == (demo.USERS, demo.CLIENTS)
    assert 300 <= demo.USERS + demo.CLIENTS <= 310


@KIND
def test_every_contact_is_valid_in_its_normal_form_and_ours_reach_nobody(filled: Demo, kind: Kind) -> None:
    for row in filled.accounts[kind]:
        contacts = {contact: row[contact] for contact in kind.contacts if row[contact]}
        assert contacts
        if phone := contacts.get("phone"):
            assert normalise_phone(phone) == phone
        if email := contacts.get("email"):
            assert normalise_email(email) == email
            assert email.isascii()
            assert email.endswith(("@example.com", "@example.org")) or row["id"] == 5


@KIND
def test_accounts_were_made_in_the_order_of_their_ids(filled: Demo, kind: Kind) -> None:
    times = [row["created_at"] for row in filled.accounts[kind]]
    assert times == sorted(times)
    assert all(row["created_at"] <= row["updated_at"] < filled.filled_at for row in filled.accounts[kind])


@KIND
def test_every_session_is_live_and_no_account_has_more_than_twelve(filled: Demo, kind: Kind) -> None:
    staff = {row["id"] for row in filled.accounts[kind] if row.get("is_staff")}
    for row in filled.sessions[kind]:
        limits = SessionSettings().limits(kind, row["account_id"] in staff)
        assert row["created_at"] <= row["refreshed_at"] <= row["last_seen_at"] <= filled.filled_at < row["expires_at"]
        assert row["expires_at"] == min(row["last_seen_at"] + limits.idle, row["created_at"] + limits.absolute)
    counts = Counter(row["account_id"] for row in filled.sessions[kind])
    assert max(counts.values()) <= 12
    assert len(set(counts.values())) > 5
    assert len(counts) < len(filled.accounts[kind])


@KIND
def test_accounts_that_may_do_nothing_are_there_and_have_no_session(filled: Demo, kind: Kind) -> None:
    confirmations = [f"confirmed_{contact}" for contact in kind.contacts] + ["confirmed_by_staff_at"]
    rows = filled.accounts[kind]
    disabled = {row["id"] for row in rows if row["disabled_at"]}
    unconfirmed = {row["id"] for row in rows if not any(row[name] for name in confirmations)}

    assert disabled
    assert unconfirmed
    assert not (disabled | unconfirmed) & {row["account_id"] for row in filled.sessions[kind]}


def test_devices_are_of_every_sort_from_many_countries_some_named_and_some_idle(filled: Demo) -> None:
    rows = [row for kind in KINDS.values() for row in filled.sessions[kind]]
    programs = [row for row in rows if not row["device"].startswith("Mozilla/5.0")]
    idle = [row for row in rows if row["last_seen_at"] < filled.filled_at - timedelta(days=3)]

    assert {"computer", "phone", "tablet"} <= {row["device_kind"] for row in rows}
    assert len({row["country"] for row in rows}) > 5
    assert all(row["country"] and row["ip"] for row in rows)
    assert all(row["browser"] and row["os"] for row in rows if row not in programs)
    assert len(programs) > 5
    assert len(idle) > 20
    assert len([row for row in rows if row["name"]]) > 20


@KIND
def test_each_session_was_started_once_and_each_that_is_not_live_was_ended_once(filled: Demo, kind: Kind) -> None:
    started = {event["session_id"]: event for event in filled.list_events(kind, Type.STARTED)}
    ended = {event["session_id"]: event for event in filled.list_events(kind, Type.ENDED)}
    live = {row["id"]: row for row in filled.sessions[kind]}

    assert len(started) == len(filled.list_events(kind, Type.STARTED))
    assert len(ended) == len(filled.list_events(kind, Type.ENDED))
    assert sorted(started) == sorted([*live, *ended]) == list(range(1, len(started) + 1))
    assert [event["at"] for _, event in sorted(started.items())] == sorted(event["at"] for event in started.values())
    for session_id, row in live.items():
        event = started[session_id]
        assert (event["account_id"], event["at"]) == (row["account_id"], row["created_at"])
        assert (event["device"], event["ip"]) == (row["device"], row["ip"])
    for session_id, event in ended.items():
        start = started[session_id]
        assert (event["account_id"], event["device"]) == (start["account_id"], start["device"])
        assert event["id"] > start["id"]


@KIND
def test_each_end_says_by_whom_as_the_program_would(filled: Demo, kind: Kind) -> None:
    own = {Cause.SIGNED_OUT, Cause.OWNER, Cause.PASSWORD}
    for event in filled.list_events(kind, Type.ENDED):
        by = (event["by_kind"], event["by_id"])
        if event["cause"] in own:
            assert by == (kind.name, event["account_id"])
        elif event["cause"] in {Cause.STAFF, Cause.DISABLED}:
            assert by == ("user", 1)
        else:
            assert by == (None, None)
        assert (event["ip"] is None) == (event["cause"] == Cause.EXPIRED)


def test_the_log_holds_every_type_and_cause_in_the_order_in_which_they_happened(filled: Demo) -> None:
    times = [event["at"] for event in filled.events]

    # An emergency would have ended the document's own sessions, and nothing was brought back from a back-up.
    assert {event["type"] for event in filled.events} == set(Type) - {Type.EMERGENCY}
    ends = {event["cause"] for event in filled.events if event["type"] == Type.ENDED}
    assert ends == set(Cause) - {Cause.EMERGENCY, Cause.RESTORED}
    assert times == sorted(times)
    assert times[-1] < filled.filled_at


def test_all_but_the_beginnings_of_accounts_and_forgotten_sessions_is_of_these_thirty_days(filled: Demo) -> None:
    since = filled.filled_at - timedelta(days=30, minutes=1)
    earlier = {event["type"] for event in filled.events if event["at"] < since}
    assert earlier == {Type.REGISTERED, Type.SENT, Type.CONFIRMED, Type.STARTED}


@KIND
def test_what_an_account_went_through_is_what_it_is(filled: Demo, kind: Kind) -> None:
    changes = (Type.CONFIRMED, Type.CHANGED, Type.PASSWORD_CHANGED, Type.DISABLED, Type.ENABLED, *ROLES)
    made = {event["account_id"]: event["at"] for event in filled.list_events(kind, Type.REGISTERED)}
    changed = {event["account_id"]: event["at"] for event in filled.list_events(kind, *changes)}
    switched = {event["account_id"]: event for event in filled.list_events(kind, Type.DISABLED, Type.ENABLED)}
    for row in filled.accounts[kind]:
        switch = switched.get(row["id"])
        assert row["created_at"] == made[row["id"]]
        assert row["updated_at"] == changed.get(row["id"], row["created_at"])
        assert row["disabled_at"] == (switch["at"] if switch and switch["type"] == Type.DISABLED else None)


def test_staff_acted_in_sessions_that_were_live_then(filled: Demo) -> None:
    mine = [event for event in filled.list_events(USER, Type.STARTED, Type.ENDED) if event["account_id"] == 1]
    starts = {event["session_id"]: event["at"] for event in mine if event["type"] == Type.STARTED}
    ends = {event["session_id"]: event["at"] for event in mine if event["type"] == Type.ENDED}
    acts = [event for event in filled.events if event["by_id"] == 1 and event["by_kind"] == "user"]
    recent = [event["at"] for event in acts if event["at"] > filled.filled_at - timedelta(days=30)]

    assert recent
    for at in recent:
        assert any(start <= at <= ends.get(number, at) for number, start in starts.items())


def test_no_refusal_is_so_young_that_it_could_hinder_a_sign_in(filled: Demo) -> None:
    refused = [event["at"] for event in filled.events if event["type"] == Type.REFUSED]
    assert len(refused) > 100
    assert max(refused) < filled.filled_at - timedelta(hours=2)


@KIND
def test_what_comes_next_gets_ids_that_were_never_used(filled: Demo, kind: Kind) -> None:
    def write(db: Connection) -> tuple[int, int]:
        now = clock.now()
        row = accounts.create(db, kind, {"phone": "+79130000001"}, password_hash(), None, now)
        started = sessions.start(db, kind, row["id"], None, None, Origin(), SessionSettings(), now)
        assert started
        return row["id"], started.session["id"]

    account_id, session_id = filled.run(filled.database.write(write))

    assert account_id > max(row["id"] for row in filled.accounts[kind])
    assert session_id > max(event["session_id"] for event in filled.list_events(kind, Type.STARTED))


def test_the_same_house_comes_each_time(filled: Demo, make_url: Callable[[str], str]) -> None:
    again = Demo(make_url("sqlite"), filled.run)
    filled.run(again.database.close())

    def outline(one: Demo) -> Any:
        names = [[(row["id"], row["surname"], row["phone"]) for row in one.accounts[kind]] for kind in KINDS.values()]
        devices = [[(row["id"], row["sid"], row["device"]) for row in one.sessions[kind]] for kind in KINDS.values()]
        return names, devices, [(event["type"], event["cause"], event["session_id"]) for event in one.events]

    assert outline(again) == outline(filled)

"""Signing in, refreshing, registering, confirming, passwords, disabling: over HTTP, as programs do."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from sqlalchemy import Connection, func, select, update

from models import clock
from models.schema import CODES, EVENTS, KINDS
from models.sessions import GRACE
from tests.conftest import NO_TLS, PASSWORD, Account, Device, House, Server, start_server, wait_until

NEW_PASSWORD = "an orchard behind the old mill"
WRONG = {"detail": "No active account found with the given credentials"}
FORBIDDEN = {"detail": "You do not have permission to perform this action."}
NOT_VALID = {"detail": "Given token not valid for any token type", "code": "token_not_valid"}
_numbers = itertools.count(1)

both_kinds = pytest.mark.parametrize("kind", KINDS)


def fresh_phone() -> str:
    return f"+7914{next(_numbers):07}"


def fresh_email() -> str:
    return f"person{next(_numbers)}@example.com"


def contact(kind: str) -> dict[str, str]:
    """A contact that no account has, of the sort that this kind signs in with."""
    return {"email": fresh_email()} if kind == "user" else {"phone": fresh_phone()}


def read_events(house: House, account: Account) -> list[tuple[str, str | None, int | None]]:
    """What happened to the account, oldest first: type, cause, session."""
    columns = EVENTS.c
    wanted = select(columns.type, columns.cause, columns.session_id)

    def read(db: Connection) -> Any:
        mine = (columns.kind == account.kind) & (columns.account_id == account.id)
        return db.execute(wanted.where(mine).order_by(columns.id)).all()

    return [tuple(row) for row in house.read(read)]


def read_sessions(house: House, account: Account) -> list[dict[str, Any]]:
    table = KINDS[account.kind].sessions

    def read(db: Connection) -> Any:
        return db.execute(select(table).where(table.c.account_id == account.id).order_by(table.c.id)).mappings().all()

    return [dict(row) for row in house.read(read)]


def change_session(house: House, device: Device, **values: Any) -> None:
    table = KINDS[device.account.kind].sessions
    house.write(lambda db: db.execute(update(table).where(table.c.id == device.session).values(values)) and None)


def change_codes(house: House, kind: str, account_id: int, **values: Any) -> None:
    """Have time pass for the codes of an account."""
    mine = (CODES.c.kind == kind) & (CODES.c.account_id == account_id)
    house.write(lambda db: db.execute(update(CODES).where(mine).values(values)) and None)


def everything(house: House) -> Any:
    """How much there is in the tables that a refused request must leave alone."""

    def read(db: Connection) -> Any:
        # What the sweep does meanwhile is left out.
        live = [select(func.count()).where(kind.sessions.c.expires_at > clock.now()) for kind in KINDS.values()]
        changed = [select(func.count(), func.max(kind.accounts.c.updated_at)) for kind in KINDS.values()]
        happened = select(func.count()).where(EVENTS.c.cause.is_distinct_from("expired"))
        codes = select(func.count(), func.sum(CODES.c.attempts_left))
        return [tuple(db.execute(query).one()) for query in (*live, *changed, happened, codes)]

    return house.read(read)


def find_sent(house: House, recipient: str) -> list[str]:
    """What was sent to `recipient`, oldest first: it is in the log of whichever server took it."""
    logs = {log.resolve() for log in house.log.parent.parent.glob("*/server-*.log")}
    lines = [line for log in logs for line in log.read_text().splitlines() if "NOT SENT" in line and recipient in line]
    return sorted(lines)


def read_codes(house: House, recipient: str) -> list[str]:
    """The codes that were sent to `recipient`, oldest first."""
    return [re.findall(r"Your code is ([0-9]{6})", line)[0] for line in find_sent(house, recipient)]


def wait_for_code(house: House, recipient: str, count: int = 1) -> str:
    return str(wait_until(lambda: (codes := read_codes(house, recipient)) and len(codes) >= count and codes[-1]))


def refresh(house: House, token: str) -> httpx.Response:
    return house.client.post("/auth/token/refresh/", json={"refresh": token})


def is_live(house: House, device: Device) -> bool:
    return house.ask("GET", f"/sessions/session-{device.account.kind}-l/", device).status_code == 200


@both_kinds
def test_signing_in_gives_tokens_and_names_the_session(house: House, kind: str) -> None:
    account = house.add(kind)
    answer = house.client.post(f"/auth/{kind}/token/", json=account.credentials, headers={"User-Agent": "laptop/1"})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert list(body) == ["access", "refresh", "token_type", "expires_in", "session"]
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 900)
    (session,) = read_sessions(house, account)
    assert (session["id"], session["device"]) == (body["session"], "laptop/1")
    assert jwt.decode(body["access"], options={"verify_signature": False})["sid"] == session["sid"]
    assert read_events(house, account)[-1] == ("started", None, body["session"])


def test_a_user_signs_in_by_email_or_phone_however_they_are_written(house: House) -> None:
    sent = {"email": fresh_email(), "phone": fresh_phone(), "password": PASSWORD}
    assert house.client.post("/auth/user/register/", json=sent).status_code == 201
    phone = sent["phone"]
    for written in (
        {"email": sent["email"]},
        {"email": f"  {sent['email'].upper()} "},
        {"phone": phone},
        {"phone": f"{phone[:2]} ({phone[2:5]}) {phone[5:8]}-{phone[8:]}"},
        {"email": sent["email"], "phone": None},
    ):
        answer = house.client.post("/auth/user/token/", json=written | {"password": PASSWORD})
        assert answer.status_code == 200, written


@both_kinds
def test_whatever_is_wrong_with_credentials_is_answered_alike(house: House, kind: str) -> None:
    account, disabled = house.add(kind), house.add(kind, disabled=True)
    for sent in (
        account.credentials | {"password": "wrong"},
        account.credentials | {"password": PASSWORD + " "},
        account.credentials | {"password": "\0"},
        account.credentials | {"password": "x" * 1024},
        disabled.credentials,
        disabled.credentials | {"password": "wrong"},
        {"phone": fresh_phone(), "password": PASSWORD},
        {"phone": "no phone", "password": PASSWORD},
        {"phone": "112", "password": "nobody has this password"},
        *([{"email": "nobody@example.com", "password": PASSWORD}] if kind == "user" else []),
    ):
        answer = house.client.post(f"/auth/{kind}/token/", json=sent)
        assert (answer.status_code, answer.json()) == (401, WRONG), sent
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert not read_sessions(house, account)
    assert read_events(house, account)[1:] == [("refused", None, None)] * 4
    assert [event[0] for event in read_events(house, disabled)][1:] == ["refused"] * 2


@both_kinds
def test_an_account_of_one_kind_is_none_of_the_other(house: House, kind: str) -> None:
    (other,) = set(KINDS) - {kind}
    answer = house.client.post(f"/auth/{other}/token/", json=house.add(kind).credentials)
    assert (answer.status_code, answer.json()) == (401, WRONG)


@both_kinds
def test_an_unconfirmed_account_signs_in_and_confirms_itself_and_nothing_else(house: House, kind: str) -> None:
    sent = contact(kind)
    registered = house.client.post(f"/auth/{kind}/register/", json=sent | {"password": PASSWORD}).json()
    signed_in = house.client.post(f"/auth/{kind}/token/", json=sent | {"password": PASSWORD})
    assert signed_in.status_code == 200
    device = Device(Account(kind, registered["id"], ""), signed_in.json()["access"], "", 0, "tests/1")
    for method, address, more in (
        ("GET", f"/sessions/session-{kind}-l/", {}),
        ("DELETE", f"/sessions/session-{kind}-d/", {}),
        ("POST", f"/auth/{kind}/password/", {"json": {"password": PASSWORD, "new_password": NEW_PASSWORD}}),
    ):
        answer = house.ask(method, address, device, **more)
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    assert refresh(house, signed_in.json()["refresh"]).status_code == 403
    code = wait_for_code(house, next(iter(sent.values())))
    confirmed = house.client.post(f"/auth/{kind}/confirm/", json=sent | {"code": code})
    assert confirmed.status_code == 200
    assert is_live(house, device)
    assert refresh(house, signed_in.json()["refresh"]).status_code == 200


@both_kinds
def test_a_refresh_rotates_the_token_and_keeps_the_session(house: House, kind: str) -> None:
    account = house.add(kind)
    first = house.enter(account)
    answer = refresh(house, first.refresh)
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["access", "refresh", "token_type", "expires_in", "session"]
    assert body["session"] == first.session
    assert body["refresh"] != first.refresh
    again = refresh(house, body["refresh"])
    assert again.status_code == 200
    assert again.json()["refresh"] not in (body["refresh"], first.refresh)
    assert len(read_sessions(house, account)) == 1
    for access in (first.access, body["access"], again.json()["access"]):
        assert is_live(house, Device(account, access, "", 0, "tests/1"))


@both_kinds
def test_a_token_that_is_used_twice_within_the_grace_has_one_successor(house: House, kind: str) -> None:
    account = house.add(kind)
    device = house.enter(account)
    answers = [refresh(house, device.refresh) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json()["refresh"] for answer in answers}) == 1
    change_session(house, device, refreshed_at=clock.now() - GRACE + timedelta(seconds=5))
    assert refresh(house, device.refresh).status_code == 200
    assert refresh(house, answers[0].json()["refresh"]).status_code == 200
    assert "ended" not in [event[0] for event in read_events(house, account)]


@both_kinds
def test_a_token_that_is_used_again_after_the_grace_is_theft_and_ends_the_session(house: House, kind: str) -> None:
    account = house.add(kind)
    device, bystander = house.enter(account), house.enter(account)
    successor = refresh(house, device.refresh).json()
    change_session(house, device, refreshed_at=clock.now() - GRACE - timedelta(seconds=1))
    assert_stolen(house, device, bystander, device.refresh, successor)


@both_kinds
def test_a_token_whose_successor_was_used_too_has_its_own_grace(house: House, kind: str) -> None:
    account = house.add(kind)
    device, bystander = house.enter(account), house.enter(account)
    # A tab that was slow, beside one that has refreshed twice.
    second = refresh(house, device.refresh).json()["refresh"]
    successor = refresh(house, second).json()
    assert refresh(house, device.refresh).json()["refresh"] == second
    assert refresh(house, second).json()["refresh"] == successor["refresh"]
    change_session(house, device, refreshed_before=[clock.now() - GRACE - timedelta(seconds=1)])
    assert refresh(house, second).status_code == 200
    assert_stolen(house, device, bystander, device.refresh, successor)


def assert_stolen(house: House, device: Device, bystander: Device, token: str, successor: dict[str, Any]) -> None:
    answer = refresh(house, token)
    assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    assert read_events(house, device.account)[-1] == ("ended", "theft", device.session)
    assert refresh(house, successor["refresh"]).status_code == 403
    assert not is_live(house, Device(device.account, successor["access"], "", 0, "tests/1"))
    assert is_live(house, bystander)


@both_kinds
def test_the_session_of_a_refresh_has_to_be_live_and_its_account_able(house: House, kind: str) -> None:
    account = house.add(kind)
    ended, expired = house.enter(account), house.enter(account)
    house.ask("DELETE", f"/sessions/session-{kind}-d/", ended)
    change_session(house, expired, expires_at=clock.now())
    for device in (ended, expired):
        answer = refresh(house, device.refresh)
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)


@both_kinds
def test_what_is_no_refresh_token_is_401(house: House, kind: str) -> None:
    device = house.enter(house.add(kind))
    before = everything(house)
    for token in (device.access, device.refresh + "x", "x", "a.b.c", "é", "\0", "[" * 5000, "\u2028", "e30.e30."):
        answer = refresh(house, token)
        assert (answer.status_code, answer.json()) == (401, NOT_VALID), token
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert everything(house) == before
    assert refresh(house, device.refresh).status_code == 200


@both_kinds
def test_a_refresh_does_not_outlive_the_absolute_limit(house: House, kind: str) -> None:
    device = house.enter(house.add(kind))
    created_at = clock.now() - timedelta(days=364, hours=23)
    change_session(house, device, created_at=created_at)
    body = refresh(house, device.refresh).json()
    (session,) = read_sessions(house, device.account)
    assert session["expires_at"] == created_at + timedelta(days=365)
    ends = jwt.decode(body["refresh"], options={"verify_signature": False})["exp"]
    assert ends == int((created_at + timedelta(days=365)).timestamp())


@pytest.fixture(scope="module")
def twin(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A second server on the same database; registration is closed there."""
    server = start_server(tmp_path_factory.mktemp("twin"), house.url, SESSIONS_ACCOUNTS__REGISTRATION="false")
    yield server
    assert server.stop() == 0


def read_timeless(token: str) -> dict[str, Any]:
    """What a token says, but when it was made and how long it is good."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return {name: value for name, value in claims.items() if name not in ("iat", "exp")}


async def refresh_at_once(addresses: list[str], token: str, count: int) -> list[dict[str, Any]]:
    """The answers to `count` refreshes of one token, each on a connection of its own, that all start at once."""
    body = json.dumps({"refresh": token})
    sent = (
        "POST /auth/token/refresh/ HTTP/1.1\r\nHost: sessions\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    answers: list[dict[str, Any]] = []

    async def connect(address: str) -> Any:
        host, _, port = address.removeprefix("http://").partition(":")
        return await asyncio.open_connection(host, int(port))

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            status, length = head.split()[1], int(re.findall(rb"(?i)content-length: ([0-9]+)", head)[0])
            answer = json.loads(await reader.readexactly(length))
            # A machine with more to do than this may say so; who is told to try again later does.
            if status != b"503":
                break
            await asyncio.sleep(int(re.findall(rb"(?i)retry-after: ([0-9]+)", head)[0]))
        assert status == b"200", head
        answers.append(answer)

    opened = [await connect(addresses[number % len(addresses)]) for number in range(count)]
    try:
        await asyncio.gather(*(ask(*streams) for streams in opened))
    finally:
        for _, writer in opened:
            writer.close()
    return answers


@pytest.mark.long
def test_a_thousand_refreshes_at_once_on_two_servers_leave_one_chain(house: House, twin: Server) -> None:
    account = house.add("user")
    device = house.enter(account)
    answers = asyncio.run(refresh_at_once([house.address, twin.address], device.refresh, 1000))
    assert len(answers) == 1000
    (successor,) = {answer["refresh"] for answer in answers}
    (session,) = read_sessions(house, account)
    assert (session["id"], session["generation"]) == (device.session, 2)
    assert "ended" not in [event[0] for event in read_events(house, account)]
    assert all(is_live(house, Device(account, answers[at]["access"], "", 0, "tests/1")) for at in (0, -1))
    assert refresh(house, successor).status_code == 200
    assert refresh(house, successor).status_code == 200
    # As if its first use had been now: a slow machine may need more than the grace for all that was before. Its
    # successor is the same, and made when that was.
    change_session(house, device, refreshed_before=[clock.now()])
    again = [refresh(house, device.refresh).json()["refresh"] for _ in range(2)]
    assert again[0] == again[1]
    assert read_timeless(again[0]) == read_timeless(successor)
    change_session(house, device, refreshed_before=[clock.now() - GRACE - timedelta(seconds=1)])
    assert refresh(house, device.refresh).status_code == 403


def test_a_session_that_ends_on_one_server_is_ended_on_the_other(house: House, twin: Server) -> None:
    device = house.enter(house.add("user"))
    address = f"{twin.address}/sessions/session-user-l/"
    assert httpx.get(address, headers=device.headers, verify=NO_TLS).status_code == 200
    house.ask("DELETE", "/sessions/session-user-d/", device)
    assert httpx.get(address, headers=device.headers, verify=NO_TLS).status_code == 403
    answer = httpx.post(f"{twin.address}/auth/token/refresh/", json={"refresh": device.refresh}, verify=NO_TLS)
    assert answer.status_code == 403


@both_kinds
def test_signing_in_again_on_a_device_replaces_its_session(house: House, kind: str) -> None:
    account, stranger = house.add(kind), house.add(kind)
    first, other = house.sign_in(account, device_id="phone-1"), house.sign_in(account, device_id="phone-2")
    strangers = house.sign_in(stranger, device_id="phone-1")
    second = house.sign_in(account, device_id="phone-1")
    assert [session["id"] for session in read_sessions(house, account)] == [other.session, second.session]
    assert not is_live(house, first)
    assert refresh(house, first.refresh).status_code == 403
    assert all(is_live(house, device) for device in (other, strangers, second))
    assert ("ended", "replaced", first.session) in read_events(house, account)


@both_kinds
def test_a_device_id_is_taken_as_it_is(house: House, kind: str) -> None:
    account = house.add(kind)
    for device_id in ("D1", "d1", " D1 ", "D1"):
        house.sign_in(account, device_id=device_id)
    assert len(read_sessions(house, account)) == 3


@both_kinds
def test_without_a_device_id_each_sign_in_is_a_session(house: House, kind: str) -> None:
    account = house.add(kind)
    for device_id in (None, None):
        house.sign_in(account)
        house.sign_in(account, device_id=device_id)
    assert len(read_sessions(house, account)) == 4


def test_many_sign_ins_of_one_device_at_once_leave_one_session(house: House, twin: Server) -> None:
    account = house.add("user")

    def sign_in(address: str) -> int:
        sent = account.credentials | {"device_id": "phone-1"}
        return httpx.post(f"{address}/auth/user/token/", json=sent, timeout=30, verify=NO_TLS).status_code

    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(sign_in, [house.address, twin.address] * 3)) == {200}
    assert len(read_sessions(house, account)) == 1


USER_KEYS = ["id", "surname", "name", "patronymic", "address", "email", "phone", "image", "confirmed_email",
             "confirmed_phone", "created_at", "updated_at"]  # fmt: skip
CLIENT_KEYS = [key for key in USER_KEYS if "email" not in key]


@both_kinds
def test_registering_makes_an_account_and_sends_a_code_to_each_contact(house: House, kind: str) -> None:
    contacts = {"phone": fresh_phone()} | ({"email": fresh_email()} if kind == "user" else {})
    fields = {"surname": "Иванова", "name": " Anna ", "patronymic": "", "address": "1 Harbour Street"}
    answer = house.client.post(f"/auth/{kind}/register/", json={**contacts, **fields, "password": PASSWORD})
    assert answer.status_code == 201
    body = answer.json()
    assert list(body) == (USER_KEYS if kind == "user" else CLIENT_KEYS)
    assert {key: body[key] for key in contacts} == contacts
    assert (body["surname"], body["name"]) == ("Иванова", "Anna")
    assert not any(value for key, value in body.items() if key.startswith("confirmed"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", body["created_at"])
    assert body["image"].startswith(f"{house.address}/sessions/session-{kind}-l/{body['id']}/static/Users/")
    for recipient in contacts.values():
        assert wait_for_code(house, recipient)
    assert read_events(house, Account(kind, body["id"], "")) == [("registered", None, None)]
    assert PASSWORD not in house.log.read_text()


@both_kinds
def test_a_contact_belongs_to_one_account_of_its_kind(house: House, kind: str) -> None:
    taken = house.add(kind)
    before = everything(house)
    spaced = f"{taken.contact[:2]} {taken.contact[2:5]} {taken.contact[5:]}"
    for phone in (taken.contact, spaced):
        answer = house.client.post(f"/auth/{kind}/register/", json={"phone": phone, "password": PASSWORD})
        assert answer.status_code == 400
        assert list(answer.json()) == ["phone"]
    assert everything(house) == before
    (other,) = set(KINDS) - {kind}
    answer = house.client.post(f"/auth/{other}/register/", json={"phone": taken.contact, "password": PASSWORD})
    assert answer.status_code == 201


def test_an_email_differs_from_another_by_more_than_case(house: House) -> None:
    email = fresh_email()
    assert house.client.post("/auth/user/register/", json={"email": email, "password": PASSWORD}).status_code == 201
    answer = house.client.post("/auth/user/register/", json={"email": email.title(), "password": PASSWORD})
    assert (answer.status_code, list(answer.json())) == (400, ["email"])


def test_a_code_is_sent_in_the_language_that_is_asked_in(house: House) -> None:
    phone = fresh_phone()
    sent = {"phone": phone, "surname": "Иванова", "password": PASSWORD}
    answer = house.client.post("/auth/client/register/", json=sent, headers={"Accept-Language": "ru, en;q=0.5"})
    assert answer.status_code == 201
    wait_until(lambda: "Ваш код: " in "".join(find_sent(house, phone)))
    change_codes(house, "client", answer.json()["id"], created_at=clock.now() - timedelta(seconds=61))
    again = house.client.post("/auth/client/confirm/send/", json={"phone": phone}, headers={"Accept-Language": "ru"})
    assert again.status_code == 202
    wait_until(lambda: "".join(find_sent(house, phone)).count("Ваш код: ") == 2)


def test_of_many_that_register_one_contact_at_once_one_gets_it(house: House) -> None:
    sent = {"email": fresh_email(), "password": PASSWORD}

    def register(_: int) -> tuple[int, tuple[str, ...]]:
        answer = httpx.post(f"{house.address}/auth/user/register/", json=sent, timeout=30, verify=NO_TLS)
        return answer.status_code, tuple(answer.json()) if answer.status_code != 201 else ()

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(register, range(6)))
    assert answers.count((201, ())) == 1
    assert set(answers) == {(201, ()), (400, ("email",))}


@both_kinds
def test_registration_can_be_closed(house: House, twin: Server, kind: str) -> None:
    before = everything(house)
    answer = httpx.post(
        f"{twin.address}/auth/{kind}/register/", json=contact(kind) | {"password": PASSWORD}, verify=NO_TLS
    )
    assert (answer.status_code, list(answer.json())) == (403, ["detail"])
    assert everything(house) == before


@both_kinds
def test_a_password_that_is_easily_guessed_registers_nobody(house: House, kind: str) -> None:
    before = everything(house)
    for password in ("short", "password1", "12345678", "qwertyuiop", "x" * 300):
        answer = house.client.post(f"/auth/{kind}/register/", json=contact(kind) | {"password": password})
        assert (answer.status_code, list(answer.json())) == (400, ["password"])
        assert password not in answer.text
    assert everything(house) == before


def test_a_persons_own_contact_is_no_password(house: House) -> None:
    for password in ("margaretha.oosterhuis@example.com", "Oosterhuisen", "+79145550101"):
        sent = {"email": "margaretha.oosterhuis@example.com", "phone": "+79145550101", "surname": "Oosterhuisen"}
        answer = house.client.post("/auth/user/register/", json=sent | {"password": password})
        assert (answer.status_code, list(answer.json())) == (400, ["password"])


# What is sent as a body, and the answer: for signing in, registering, confirming, sending, refreshing alike.
BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no json": (b"phone=1&password=2", 400),
    "half a json": (b'{"phone": "+79137779135", "password": ', 400),
    "two jsons": (b"{}{}", 400),
    "NaN": (b'{"phone": NaN}', 400),
    "an array": (b"[]", 400),
    "a string": (b'"phone"', 400),
    "a number": (b"1", 400),
    "null": (b"null", 400),
    "no fields": (b"{}", 400),
    "not UTF-8": (b'{"phone": "\xff\xfe"}', 400),
    "UTF-16": ('{"phone": "1"}'.encode("utf-16"), 400),
    "a lone surrogate": (b'{"phone": "\\ud800", "password": "\\udfff", "code": "\\ud800", "refresh": "\\ud800"}', 400),
    "nested deep": (b"[" * 30_000 + b"]" * 30_000, 400),
    "objects nested deep": (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400),
    "more than 64 KiB": (b'{"phone": "' + b"1" * 65_536 + b'"}', 413),
    "much more than 64 KiB": (b" " * 1_000_000, 413),
}
ADDRESSES = [
    "/auth/user/token/", "/auth/client/token/", "/auth/user/register/", "/auth/client/register/", "/auth/user/confirm/",
    "/auth/client/confirm/", "/auth/user/confirm/send/", "/auth/client/confirm/send/", "/auth/token/refresh/",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_bad_body_is_refused_in_words_and_writes_nothing(house: House, address: str) -> None:
    before = everything(house)
    for name, (content, status) in BAD_BODIES.items():
        answer = house.client.post(address, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, (name, answer.text)
        assert answer.headers["Content-Type"] == "application/json"
        body = answer.json()
        assert body, name
        assert all(isinstance(told, str | list) for told in body.values()), name
    assert everything(house) == before


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_body_of_another_type_is_415(house: House, address: str) -> None:
    for sent in (None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        headers = {} if sent is None else {"Content-Type": sent}
        answer = house.client.post(address, content=b"{}", headers=headers)
        assert (answer.status_code, list(answer.json())) == (415, ["detail"]), sent


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_body_that_is_too_large_is_told_so_and_its_connection_is_over(house: House, address: str) -> None:
    headers = {"Content-Type": "application/json"}
    before = everything(house)
    for content in (b" " * 65_537, iter([b" " * 40_000, b" " * 40_000])):
        answer = house.client.post(address, content=content, headers=headers)
        assert (answer.status_code, list(answer.json())) == (413, ["detail"])
        # A client that keeps it would have its next request cut off.
        assert answer.headers["Connection"] == "close"
    assert house.client.post(address, content=b" " * 65_536, headers=headers).status_code == 400
    assert everything(house) == before


def test_a_charset_beside_the_type_is_no_other_type(house: House) -> None:
    content = json.dumps(house.add("user").credentials)
    for sent in ("application/json; charset=utf-8", "Application/JSON", "application/json;"):
        answer = house.client.post("/auth/user/token/", content=content, headers={"Content-Type": sent})
        assert answer.status_code == 200


GOOD: dict[str, dict[str, Any]] = {
    "/auth/client/token/": {"phone": "+79137779135", "password": PASSWORD, "device_id": "x"},
    "/auth/user/token/": {"email": "nobody@example.com", "password": PASSWORD, "device_id": "x"},
    "/auth/client/register/": {"phone": "+79130000000", "password": PASSWORD, "name": "x", "address": "x"},
    "/auth/user/register/": {"email": "nobody@example.com", "password": PASSWORD, "surname": "x", "patronymic": "x"},
    "/auth/client/confirm/": {"phone": "+79137779135", "code": "123456"},
    "/auth/user/confirm/": {"email": "nobody@example.com", "code": "123456"},
    "/auth/client/confirm/send/": {"phone": "+79137779135"},
    "/auth/user/confirm/send/": {"email": "nobody@example.com"},
    "/auth/token/refresh/": {"refresh": "x"},
}
FIELDS = [(address, field) for address, body in GOOD.items() for field in body]
MAY_BE_EMPTY = {"surname", "name", "patronymic", "address"}
MAY_BE_MISSING = {"device_id", *MAY_BE_EMPTY}


@pytest.mark.parametrize(("address", "field"), FIELDS)
def test_a_field_of_another_type_is_told_by_its_name_and_writes_nothing(house: House, address: str, field: str) -> None:
    before = everything(house)
    values: list[Any] = [1, True, 1.5, [], ["x"], {}, {"x": "y"}]
    if field not in ("device_id", "email", "phone") or ("client" in address and field != "device_id"):
        values.append(None)
    for value in values:
        answer = house.client.post(address, json=GOOD[address] | {field: value})
        assert (answer.status_code, list(answer.json())) == (400, [field]), (value, answer.text)
    assert everything(house) == before


@pytest.mark.parametrize(("address", "field"), [each for each in FIELDS if each[1] not in MAY_BE_MISSING])
def test_a_field_that_is_missing_is_asked_for(house: House, address: str, field: str) -> None:
    before = everything(house)
    answer = house.client.post(address, json={name: value for name, value in GOOD[address].items() if name != field})
    assert answer.status_code == 400
    if field == "email":
        assert list(answer.json()) == ["detail"]
    else:
        assert answer.json() == {field: ["This field is required."]}
    assert everything(house) == before


@pytest.mark.parametrize("address", GOOD)
def test_an_unknown_field_is_refused(house: House, address: str) -> None:
    before = everything(house)
    for field in ("is_staff", "id", "confirmed_phone", "Phone", "", "__class__", "\0"):
        answer = house.client.post(address, json=GOOD[address] | {field: True})
        assert (answer.status_code, answer.json()) == (400, {field: ["There is no such field."]})
    assert everything(house) == before


@pytest.mark.parametrize(
    ("address", "field"), [each for each in FIELDS if each[1] not in ("password", "code", "refresh")]
)
def test_controls_and_texts_that_are_too_long_are_refused(house: House, address: str, field: str) -> None:
    before = everything(house)
    value = GOOD[address][field]
    for bad in (f"{value}\0", f"\0{value}", f"{value}\r\nx", f"{value}\u202e", f"{value}\x1b[2J", value + "x" * 201):
        answer = house.client.post(address, json=GOOD[address] | {field: bad})
        assert (answer.status_code, list(answer.json())) == (400, [field]), (bad, answer.text)
    assert everything(house) == before


@pytest.mark.parametrize(("address", "field"), [each for each in FIELDS if each[1] not in MAY_BE_EMPTY])
def test_an_empty_text_is_no_contact_password_or_code(house: House, address: str, field: str) -> None:
    answer = house.client.post(address, json=GOOD[address] | {field: ""})
    assert (answer.status_code, list(answer.json())) == (400, [field])


@both_kinds
def test_all_that_is_wrong_is_told_at_once(house: House, kind: str) -> None:
    sent = {"phone": 1, "surname": [], "extra": 1}
    answer = house.client.post(f"/auth/{kind}/register/", json=sent)
    assert answer.status_code == 400
    assert sorted(answer.json()) == ["extra", "password", "phone", "surname"]


def test_a_user_gives_one_contact_to_sign_in_with_and_any_to_register(house: House) -> None:
    both = {"email": fresh_email(), "phone": fresh_phone()}
    for address, sent in (
        ("token", both | {"password": PASSWORD}),
        ("confirm", both | {"code": "123456"}),
        ("confirm/send", both),
        ("register", {"password": PASSWORD}),
    ):
        answer = house.client.post(f"/auth/user/{address}/", json=sent)
        assert (answer.status_code, list(answer.json())) == (400, ["detail"])
    assert house.client.post("/auth/user/register/", json=both | {"password": PASSWORD}).status_code == 201


@both_kinds
@pytest.mark.parametrize("bad", ["nobody", "+7", "a@", "+1 112", "a@b@c.com"])
def test_what_is_no_contact_registers_and_confirms_nobody(house: House, kind: str, bad: str) -> None:
    before = everything(house)
    for name in KINDS[kind].contacts:
        for address, more in (
            ("register", {"password": PASSWORD}),
            ("confirm", {"code": "123456"}),
            ("confirm/send", {}),
        ):
            answer = house.client.post(f"/auth/{kind}/{address}/", json={name: bad, **more})
            assert (answer.status_code, list(answer.json())) == (400, [name])
    assert everything(house) == before


class Registered:
    """An account that was registered over HTTP, not confirmed yet, and the contact that its codes go to."""

    def __init__(self, house: House, kind: str, name: str) -> None:
        self.house = house
        self.kind = kind
        self.name = name
        self.sent = {name: fresh_email() if name == "email" else fresh_phone()}
        answer = house.client.post(f"/auth/{kind}/register/", json=self.sent | {"password": PASSWORD})
        assert answer.status_code == 201, answer.text
        self.account = Account(kind, answer.json()["id"], self.sent[name])

    def confirm(self, code: str) -> httpx.Response:
        return self.house.client.post(f"/auth/{self.kind}/confirm/", json=self.sent | {"code": code})

    def send_again(self) -> httpx.Response:
        return self.house.client.post(f"/auth/{self.kind}/confirm/send/", json=self.sent)

    def wait_for_code(self, count: int = 1) -> str:
        return wait_for_code(self.house, self.sent[self.name], count)


each_contact = pytest.mark.parametrize(
    "registered", [("user", "email"), ("user", "phone"), ("client", "phone")], ids="-".join, indirect=True
)


@pytest.fixture
def registered(house: House, request: pytest.FixtureRequest) -> Registered:
    return Registered(house, *request.param)


def assert_wrong_code(answer: httpx.Response) -> None:
    assert (answer.status_code, list(answer.json())) == (400, ["code"])


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


@each_contact
def test_a_code_confirms_its_contact_once(registered: Registered) -> None:
    code = registered.wait_for_code()
    answer = registered.confirm(f" {code} ")
    assert answer.status_code == 200
    body = answer.json()
    assert body["id"] == registered.account.id
    assert list(body) == (USER_KEYS if registered.kind == "user" else CLIENT_KEYS)
    confirmed = {key for key, value in body.items() if key.startswith("confirmed") and value}
    assert confirmed == {f"confirmed_{registered.name}"}
    assert read_events(registered.house, registered.account)[-1] == ("confirmed", registered.name, None)
    assert_wrong_code(registered.confirm(code))


@each_contact
def test_a_code_expires(registered: Registered) -> None:
    code = registered.wait_for_code()
    change_codes(registered.house, registered.kind, registered.account.id, expires_at=clock.now())
    assert_wrong_code(registered.confirm(code))


@each_contact
def test_after_five_wrong_tries_the_right_code_is_void(registered: Registered) -> None:
    code = registered.wait_for_code()
    for _ in range(5):
        assert_wrong_code(registered.confirm(wrong(code)))
    assert_wrong_code(registered.confirm(code))


@each_contact
def test_tries_that_come_at_once_are_counted_each(registered: Registered) -> None:
    code = registered.wait_for_code()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: registered.confirm(wrong(code)).status_code, range(8)))
    assert answers == [400] * 8
    assert_wrong_code(registered.confirm(code))


@each_contact
def test_a_new_code_voids_the_last(registered: Registered) -> None:
    first = registered.wait_for_code()
    earlier = clock.now() - timedelta(seconds=61)
    change_codes(registered.house, registered.kind, registered.account.id, created_at=earlier)
    assert registered.send_again().status_code == 202
    second = registered.wait_for_code(2)
    if first != second:
        assert_wrong_code(registered.confirm(first))
    assert registered.confirm(second).status_code == 200


@each_contact
def test_asking_again_at_once_sends_nothing_and_answers_alike(registered: Registered) -> None:
    code = registered.wait_for_code()
    answers = [registered.send_again() for _ in range(3)]
    unknown = {"email": fresh_email()} if registered.name == "email" else {"phone": fresh_phone()}
    confirmed = registered.house.add(registered.kind)
    disabled = registered.house.add(registered.kind, confirmed=False, disabled=True)
    address = f"/auth/{registered.kind}/confirm/send/"
    answers += [
        registered.house.client.post(address, json=sent)
        for sent in (unknown, {"phone": confirmed.contact}, {"phone": disabled.contact})
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(202, answers[0].text)}
    assert registered.confirm(code).status_code == 200
    assert registered.send_again().status_code == 202
    # Letters go out in the order in which they were queued: once this one is there, no other is on its way.
    last = Registered(registered.house, registered.kind, registered.name)
    last.wait_for_code()
    recipients = (*registered.sent.values(), *unknown.values(), disabled.contact)
    assert [len(read_codes(registered.house, recipient)) for recipient in recipients] == [1, 0, 0]


@each_contact
def test_a_disabled_account_confirms_nothing(registered: Registered) -> None:
    code = registered.wait_for_code()
    accounts = KINDS[registered.kind].accounts
    mine = accounts.c.id == registered.account.id
    registered.house.write(lambda db: db.execute(update(accounts).where(mine).values(disabled_at=clock.now())) and None)
    assert_wrong_code(registered.confirm(code))


@each_contact
def test_a_code_is_not_kept_where_it_can_be_read(registered: Registered) -> None:
    code = registered.wait_for_code()

    def read(db: Connection) -> Any:
        mine = (CODES.c.kind == registered.kind) & (CODES.c.account_id == registered.account.id)
        return [row.hash for row in db.execute(select(CODES).where(mine))]

    (kept,) = registered.house.read(read)
    assert re.fullmatch("[0-9a-f]{64}", kept)
    assert kept != code


@both_kinds
def test_a_changed_password_ends_every_other_session(house: House, kind: str) -> None:
    account, stranger = house.add(kind), house.add(kind)
    mine, other, third = (house.enter(account) for _ in range(3))
    strangers = house.enter(stranger)
    sent = {"password": PASSWORD, "new_password": NEW_PASSWORD}
    answer = house.ask("POST", f"/auth/{kind}/password/", mine, json=sent)
    assert (answer.status_code, answer.content) == (204, b"")
    assert [is_live(house, device) for device in (mine, other, third, strangers)] == [True, False, False, True]
    assert refresh(house, other.refresh).status_code == 403
    assert refresh(house, mine.refresh).status_code == 200
    changed, *ended = read_events(house, account)[-3:]
    assert changed == ("password_changed", None, None)
    assert sorted(ended) == [("ended", "password", other.session), ("ended", "password", third.session)]
    credentials = account.credentials
    assert house.client.post(f"/auth/{kind}/token/", json=credentials).status_code == 401
    credentials["password"] = NEW_PASSWORD
    assert house.client.post(f"/auth/{kind}/token/", json=credentials).status_code == 200


@both_kinds
def test_a_password_that_is_not_changed_ends_nothing(house: House, kind: str) -> None:
    account = house.add(kind)
    mine, other = house.enter(account), house.enter(account)
    wrong = house.ask("POST", f"/auth/{kind}/password/", mine, json={"password": "wrong", "new_password": NEW_PASSWORD})
    assert (wrong.status_code, list(wrong.json())) == (400, ["password"])
    assert read_events(house, account)[-1] == ("refused", None, None)
    before = everything(house)
    for sent, field in (
        ({"password": PASSWORD, "new_password": "short"}, "new_password"),
        ({"password": PASSWORD, "new_password": "password1"}, "new_password"),
        ({"password": PASSWORD, "new_password": "12345678"}, "new_password"),
        ({"password": PASSWORD, "new_password": ""}, "new_password"),
        ({"password": PASSWORD, "new_password": None}, "new_password"),
        ({"password": PASSWORD}, "new_password"),
        ({"new_password": NEW_PASSWORD}, "password"),
        ({"password": PASSWORD, "new_password": NEW_PASSWORD, "account": 1}, "account"),
    ):
        answer = house.ask("POST", f"/auth/{kind}/password/", mine, json=sent)
        assert (answer.status_code, list(answer.json())) == (400, [field])
    assert everything(house) == before
    assert is_live(house, mine)
    assert is_live(house, other)


def test_a_password_is_changed_at_the_address_of_its_own_kind(house: House) -> None:
    sent = {"password": PASSWORD, "new_password": NEW_PASSWORD}
    for kind, other in (("user", "client"), ("client", "user")):
        answer = house.ask("POST", f"/auth/{other}/password/", house.enter(house.add(kind)), json=sent)
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)


def test_of_two_that_change_a_password_at_once_one_does(house: House) -> None:
    account = house.add("client")
    devices = [house.enter(account) for _ in range(4)]

    def change(device: Device) -> int:
        sent = {"password": PASSWORD, "new_password": f"{NEW_PASSWORD} {device.session}"}
        return house.ask("POST", "/auth/client/password/", device, json=sent).status_code

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(change, devices))
    assert answers.count(204) == 1
    assert set(answers) <= {204, 403, 400}
    (left,) = read_sessions(house, account)
    assert left["id"] == devices[answers.index(204)].session


def test_a_password_that_changes_while_it_is_checked_signs_nobody_in(house: House) -> None:
    account = house.add("client")
    device = house.enter(account)
    sent = {"password": PASSWORD, "new_password": NEW_PASSWORD}

    def sign_in(_: int) -> int:
        return house.client.post("/auth/client/token/", json=account.credentials).status_code

    with ThreadPoolExecutor(6) as threads:
        signing_in = threads.map(sign_in, range(5))
        change = threads.submit(house.ask, "POST", "/auth/client/password/", device, json=sent)
        assert change.result().status_code == 204
        assert set(signing_in) <= {200, 401}
    # Whoever was signed in with the old password was ended with it, or came too late.
    assert [session["id"] for session in read_sessions(house, account)] == [device.session]


@both_kinds
def test_disabling_an_account_ends_its_sessions_at_once(house: House, kind: str) -> None:
    staff = house.enter(house.add("user", staff=True))
    account, stranger = house.add(kind), house.add(kind)
    devices = [house.enter(account) for _ in range(2)]
    bystander = house.enter(stranger)
    answer = house.ask("PATCH", f"/accounts/{kind}/{account.id}/", staff, json={"disabled": True})
    assert (answer.status_code, answer.json()["id"], answer.json()["disabled"]) == (200, account.id, True)
    assert not read_sessions(house, account)
    for device in devices:
        assert house.ask("GET", f"/sessions/session-{kind}-l/", device).status_code == 403
        assert refresh(house, device.refresh).status_code == 403
    assert house.client.post(f"/auth/{kind}/token/", json=account.credentials).status_code == 401
    assert is_live(house, bystander)
    assert is_live(house, staff)
    disabled, *ended = read_events(house, account)[-4:-1]
    assert disabled == ("disabled", None, None)
    assert sorted(ended) == [("ended", "disabled", device.session) for device in devices]


@both_kinds
def test_an_account_that_is_enabled_again_signs_in_anew(house: House, kind: str) -> None:
    staff = house.enter(house.add("user", staff=True))
    account = house.add(kind)
    device = house.enter(account)
    for disabled in (True, False):
        answer = house.ask("PATCH", f"/accounts/{kind}/{account.id}/", staff, json={"disabled": disabled})
        assert answer.json()["disabled"] is disabled
    assert not is_live(house, device)
    assert refresh(house, device.refresh).status_code == 403
    assert is_live(house, house.enter(account))


@both_kinds
def test_staff_confirm_an_account_and_leave_its_flags_as_they_are(house: House, kind: str) -> None:
    staff = house.enter(house.add("user", staff=True))
    account = house.add(kind, confirmed=False)
    device = house.enter(account)
    assert not is_live(house, device)
    answer = house.ask("PATCH", f"/accounts/{kind}/{account.id}/", staff, json={"confirmed": True})
    assert answer.status_code == 200
    assert answer.json()["confirmed_phone"] is False
    assert is_live(house, device)
    assert read_events(house, account)[-1] == ("confirmed", "staff", None)


@both_kinds
def test_accounts_are_changed_by_staff_alone(house: House, kind: str) -> None:
    account = house.add(kind)
    device, user, client = house.enter(account), house.enter(house.add("user")), house.enter(house.add("client"))
    staff = house.enter(house.add("user", staff=True))
    before = everything(house)
    address = f"/accounts/{kind}/{account.id}/"
    assert house.ask("PATCH", address, json={"disabled": True}).status_code == 401
    for caller in (device, user, client):
        answer = house.ask("PATCH", address, caller, json={"disabled": True})
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    for number in (0, 10**9, 2**63 - 1, 2**63, 10**30):
        answer = house.ask("PATCH", f"/accounts/{kind}/{number}/", staff, json={"disabled": True})
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN)
    for bad in ({"confirmed": False}, {"disabled": "yes"}, {"disabled": 1}, {"is_staff": True}):
        answer = house.ask("PATCH", address, staff, json=bad)
        assert (answer.status_code, list(answer.json())) == (400, list(bad))
    assert everything(house) == before
    assert is_live(house, device)


def test_a_token_of_an_account_that_was_deleted_is_403(house: House) -> None:
    for kind in KINDS:
        device = house.enter(house.add(kind))
        accounts, account_id = KINDS[kind].accounts, device.account.id
        remove: Callable[[Connection], None] = lambda db, table=accounts, number=account_id: (  # type: ignore[misc] # noqa: E731
            db.execute(table.delete().where(table.c.id == number)) and None
        )
        house.write(remove)
        assert house.ask("GET", f"/sessions/session-{kind}-l/", device).status_code == 403
        assert refresh(house, device.refresh).status_code == 403

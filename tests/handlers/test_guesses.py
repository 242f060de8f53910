"""Guessing: made to wait by account and by network, before a password is looked at, and never the owner's device."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, func, select

from models import accounts, clock, codes
from models.passwords import MOST_WAITING, Passwords
from models.schema import CODES, EVENTS, GUESSES, KINDS
from tests.conftest import KEY_SET, NO_TLS, PASSWORD, Account, Device, House, open_house, start_server, wait_until
from tests.handlers.browsers import Browser, Page

TRIES = 3
NETWORK_TRIES = 8
WRONG = "nobody has this password"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def gate(
    request: pytest.FixtureRequest, make_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A server with small limits, behind a proxy that says who asks."""
    url = make_url(request.param)
    limits = {"tries": TRIES, "network_tries": NETWORK_TRIES, "sends": 2, "network_sends": 4, "first_wait_seconds": 600}
    settings = {f"SESSIONS_GUESSES__{name.upper()}": str(value) for name, value in limits.items()}
    proxies = {"SESSIONS_SERVER__TRUSTED_PROXIES": '["127.0.0.1/32"]'}
    server = start_server(tmp_path_factory.mktemp("server"), url, **settings, **proxies)
    with open_house(server, url) as opened:
        yield opened
    assert server.stop() == 0


@pytest.fixture
def browse(gate: House) -> Iterator[Callable[[str], Browser]]:
    """Opens a browser at an address."""
    with contextlib.ExitStack() as stack:

        def open_at(ip: str) -> Browser:
            browser = Browser(gate, **{"X-Forwarded-For": ip})
            stack.callback(browser.close)
            return browser

        yield open_at


def add_twin(gate: House, account: Account, password: str) -> Account:
    """An account of the other kind that has the same contact, as a stranger may register one."""
    kind = "client" if account.kind == "user" else "user"
    now = clock.now()
    fields = {"phone": account.contact, "confirmed_by_staff_at": now}
    row = gate.write(accounts.create, KINDS[kind], fields, Passwords().hash_now(password), None, now)
    return Account(kind, row["id"], account.contact, password)


def ask(gate: House, kind: str, contact: str, password: str, ip: str, **more: Any) -> httpx.Response:
    """The answer to a sign-in from an address."""
    return gate.client.post(
        f"/auth/{kind}/token/",
        json={"phone": contact, "password": password, **more},
        headers={"X-Forwarded-For": ip},
    )


@pytest.mark.parametrize("kind", ["user", "client"])
@pytest.mark.parametrize("is_there", [True, False])
def test_past_the_free_tries_even_the_right_password_waits(gate: House, kind: str, is_there: bool) -> None:
    account = gate.add(kind)
    contact = account.contact if is_there else account.contact.replace("+7913", "+7914" if kind == "user" else "+7915")
    for number in range(TRIES):
        assert ask(gate, kind, contact, WRONG, f"2001:db8:{number}::1").status_code == 401
    answer = ask(gate, kind, contact, PASSWORD, "2001:db8:99::1")
    assert answer.status_code == 429
    assert 590 < int(answer.headers["Retry-After"]) <= 600
    assert answer.json() == {"detail": f"Too many tries. Try again in {answer.headers['Retry-After']} s."}


@pytest.mark.parametrize("kind", ["user", "client"])
def test_the_owner_signs_in_on_a_known_device_all_the_same(gate: House, kind: str) -> None:
    account = gate.add(kind)
    assert ask(gate, kind, account.contact, PASSWORD, "192.0.2.1", device_id="the owner's phone").status_code == 200
    for _ in range(TRIES):
        assert ask(gate, kind, account.contact, WRONG, "192.0.2.2").status_code == 401
    assert ask(gate, kind, account.contact, PASSWORD, "192.0.2.2").status_code == 429
    assert ask(gate, kind, account.contact, PASSWORD, "192.0.2.3", device_id="a stranger's").status_code == 429
    assert ask(gate, kind, account.contact, PASSWORD, "192.0.2.4", device_id="the owner's phone").status_code == 200
    for _ in range(TRIES):
        assert ask(gate, kind, account.contact, WRONG, "192.0.2.4", device_id="the owner's phone").status_code == 401
    assert ask(gate, kind, account.contact, PASSWORD, "192.0.2.4", device_id="the owner's phone").status_code == 429


def test_a_network_waits_whatever_accounts_it_tries(gate: House) -> None:
    for _ in range(NETWORK_TRIES):
        assert ask(gate, "client", gate.add("client").contact, WRONG, "2001:db8:5:5::1").status_code == 401
    other = gate.add("client").contact
    assert ask(gate, "client", other, PASSWORD, "2001:db8:5:5:ffff::2").status_code == 429
    assert ask(gate, "client", other, PASSWORD, "2001:db8:5:6::1").status_code == 200


def test_what_guesses_cost_outlives_the_server(gate: House, tmp_path_factory: pytest.TempPathFactory) -> None:
    account = gate.add("user")
    for _ in range(TRIES):
        assert ask(gate, "user", account.contact, WRONG, "192.0.2.9").status_code == 401
    another = start_server(
        tmp_path_factory.mktemp("server"), gate.url, SESSIONS_GUESSES__TRIES=str(TRIES),
        SESSIONS_GUESSES__FIRST_WAIT_SECONDS="600",
    )  # fmt: skip
    try:
        answer = httpx.post(f"{another.address}/auth/user/token/", json=account.credentials, verify=NO_TLS)
        assert answer.status_code == 429
    finally:
        another.stop()


def test_of_many_guesses_at_once_no_more_than_the_free_ones_are_answered(gate: House) -> None:
    account = gate.add("user")

    async def try_many() -> list[int]:
        async with httpx.AsyncClient(base_url=gate.address, verify=NO_TLS) as client:
            answers = await asyncio.gather(
                *(
                    client.post(
                        "/auth/user/token/",
                        json={"phone": account.contact, "password": WRONG},
                        headers={"X-Forwarded-For": f"198.51.100.{number}"},
                    )
                    for number in range(20)
                )
            )
        return [answer.status_code for answer in answers]

    statuses = gate.run(try_many())
    assert sorted(set(statuses)) == [401, 429]
    assert statuses.count(401) == TRIES


def test_codes_are_guessed_as_seldom_as_passwords(gate: House) -> None:
    account = gate.add("user", confirmed=False)
    wrong = {"phone": account.contact, "code": "000000"}
    statuses = [gate.client.post("/auth/user/confirm/", json=wrong).status_code for _ in range(TRIES + 1)]
    assert statuses == [400] * TRIES + [429]


def test_codes_are_sent_to_a_contact_and_from_a_network_only_so_often(gate: House) -> None:
    def send(contact: str, ip: str) -> int:
        return gate.client.post(
            "/auth/user/confirm/send/", json={"phone": contact}, headers={"X-Forwarded-For": ip}
        ).status_code

    contact = gate.add("user", confirmed=False).contact
    # Past the limit nothing is sent, and the answer is the same.
    assert [send(contact, "192.0.2.20") for _ in range(3)] == [202] * 3
    assert [send(gate.add("user").contact, "192.0.2.20") for _ in range(3)] == [202, 202, 429]


@pytest.mark.parametrize("kind", ["user", "client"])
def test_one_s_own_password_is_guessed_as_seldom_and_strangers_do_not_count(gate: House, kind: str) -> None:
    account = gate.add(kind)
    device = gate.sign_in(account)
    for _ in range(TRIES):
        ask(gate, kind, account.contact, WRONG, "192.0.2.30")
    change = {"password": WRONG, "new_password": "seven boats at anchor"}
    statuses = [gate.ask("POST", f"/auth/{kind}/password/", device, json=change).status_code for _ in range(TRIES + 1)]
    assert statuses == [400] * TRIES + [429]


@pytest.mark.parametrize("kind", ["user", "client"])
def test_who_has_one_session_keeps_the_owner_from_his_password_in_no_other(gate: House, kind: str) -> None:
    account = gate.add(kind)
    own, *stolen = (gate.sign_in(account, device_id=f"device {number}") for number in range(4))
    address, new = f"/auth/{kind}/password/", "seven boats at anchor"

    def guess(device: Device, password: str = WRONG) -> int:
        return gate.ask("POST", address, device, json={"password": password, "new_password": new}).status_code

    assert [guess(stolen[0]) for _ in range(TRIES + 1)] == [400] * TRIES + [429]
    assert guess(own) == 400
    # All of them together have as many as a network.
    assert [guess(stolen[1]) for _ in range(TRIES)] == [400] * TRIES
    assert [guess(stolen[2]) for _ in range(2)] == [400, 429]
    assert NETWORK_TRIES == TRIES + 1 + TRIES + 1
    other = gate.add(kind)
    own, thief = (gate.sign_in(other, device_id=f"device {number}") for number in range(2))
    assert [guess(thief) for _ in range(TRIES + 1)] == [400] * TRIES + [429]
    assert guess(own, PASSWORD) == 204


def test_the_pages_say_how_long_to_wait_and_let_the_owner_s_browser_in(
    gate: House, browse: Callable[[str], Browser]
) -> None:
    account = gate.add("client")
    owner = browse("192.0.2.40")
    stranger = browse("192.0.2.41")
    assert owner.sign_in(account).headers["Location"] == "/devices/"
    owner.send("/sign-out/")
    for _ in range(TRIES):
        assert stranger.sign_in(account, WRONG).status_code == 400
    turned_away = stranger.sign_in(account)
    assert turned_away.status_code == 429
    assert 590 < int(turned_away.headers["Retry-After"]) <= 600
    assert "Try again in 10 minutes." in Page(turned_away.text).words
    assert owner.sign_in(account).headers["Location"] == "/devices/"


def test_a_password_that_asks_again_is_guessed_as_seldom(gate: House, browse: Callable[[str], Browser]) -> None:
    account = gate.add("user")
    browser = browse("192.0.2.50")
    browser.sign_in(account)
    form = {"password": WRONG, "new_password": "seven boats at anchor"}
    whose = browser.open("/account/").form("/account/password/")
    statuses = [browser.post("/account/password/", whose | form).status_code for _ in range(TRIES + 1)]
    assert statuses == [400] * TRIES + [429]


def test_registering_a_contact_that_is_taken_is_a_guess_at_its_password(
    gate: House, browse: Callable[[str], Browser]
) -> None:
    account = gate.add("client")
    browser = browse("192.0.2.60")
    form = browser.open("/register/?kind=client").form("/register/") | {
        "phone": account.contact, "surname": "A", "name": "B", "new_password": "seven boats at anchor",
    }  # fmt: skip
    statuses = [browser.post("/register/", form).status_code for _ in range(TRIES + 1)]
    assert statuses == [400] * TRIES + [429]


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_network_makes_so_many_accounts_and_is_told_of_so_many_that_are_there(gate: House, is_taken: bool) -> None:
    ip = "192.0.2.81" if is_taken else "192.0.2.82"
    statuses = []
    for number in range(5):
        phone = gate.add("client").contact if is_taken else f"+7916{int(ip[-2:]):03}{number:04}"
        body = {"phone": phone, "password": "seven boats at anchor"}
        statuses.append(gate.client.post("/auth/client/register/", json=body, headers={"X-Forwarded-For": ip}))
    expected = 400 if is_taken else 201
    assert [answer.status_code for answer in statuses] == [expected] * 4 + [429]
    assert 590 < int(statuses[-1].headers["Retry-After"]) <= 600


def test_a_link_of_staff_lets_a_new_browser_in_while_strangers_guess(
    gate: House, browse: Callable[[str], Browser]
) -> None:
    account = gate.add("user")
    for number in range(TRIES + 1):
        ask(gate, "user", account.contact, WRONG, f"192.0.2.{90 + number}")
    browser = browse("192.0.2.99")
    assert browser.sign_in(account).status_code == 429
    link = f"/reset/user-{account.id}-{gate.write(codes.make_link, KEY_SET, KINDS['user'], account.id, clock.now())}/"
    assert browser.send(link, new_password="six gulls over the pier").status_code == 303
    assert browser.sign_in(account, "six gulls over the pier").status_code == 303


@pytest.mark.parametrize("kind", ["user", "client"])
def test_who_signs_in_to_the_other_account_of_a_contact_is_a_stranger_to_this_one(
    gate: House, browse: Callable[[str], Browser], kind: str
) -> None:
    account = gate.add(kind)
    owner = browse("192.0.2.110")
    assert owner.sign_in(account).status_code == 303
    twin = add_twin(gate, account, "nine otters in the reeds")
    attackers = [browse(f"192.0.2.{111 + number}") for number in range(3)]
    for attacker in attackers:
        assert attacker.sign_in(twin, twin.password, kind=twin.kind).status_code == 303
    *spent, fresh = attackers
    for attacker in spent:
        for _ in range(TRIES):
            assert attacker.sign_in(account, WRONG).status_code == 400
        assert attacker.sign_in(account, kind=kind).status_code == 429
    # The twin knows this browser, and is tried; the other account is not, even with the right password.
    assert fresh.sign_in(account).status_code == 400
    owner.send("/sign-out/")
    assert owner.sign_in(account).status_code == 303


@pytest.mark.parametrize("kind", ["user", "client"])
def test_a_password_that_is_right_at_the_other_account_of_a_contact_is_a_guess_at_this_one_s(
    gate: House, browse: Callable[[str], Browser], kind: str
) -> None:
    account = gate.add(kind)
    twin = add_twin(gate, account, "nine otters in the reeds")
    for number in range(TRIES):
        assert browse(f"192.0.2.{120 + number}").sign_in(twin, twin.password).status_code == 303
    assert browse("192.0.2.125").sign_in(account, kind=kind).status_code == 429


@pytest.mark.parametrize("kind", ["user", "client"])
def test_the_other_account_of_a_contact_uses_up_nothing_of_a_device_that_this_one_knows(gate: House, kind: str) -> None:
    account = gate.add(kind)
    twin = add_twin(gate, account, "nine otters in the reeds")
    for one in (account, twin):
        assert ask(gate, one.kind, one.contact, one.password, "192.0.2.130", device_id="phone").status_code == 200
    for _ in range(TRIES):
        assert ask(gate, twin.kind, twin.contact, WRONG, "192.0.2.130", device_id="phone").status_code == 401
    assert ask(gate, twin.kind, twin.contact, twin.password, "192.0.2.130", device_id="phone").status_code == 429
    assert ask(gate, kind, account.contact, PASSWORD, "192.0.2.130", device_id="phone").status_code == 200


def test_codes_are_tried_and_sent_only_at_the_accounts_that_let_them(
    gate: House, browse: Callable[[str], Browser]
) -> None:
    account = gate.add("user")
    twin = add_twin(gate, account, "nine otters in the reeds")
    attacker = browse("192.0.2.140")
    assert attacker.sign_in(twin, twin.password, kind=twin.kind).status_code == 303
    attacker.send("/sign-out/")

    def count_sent() -> int:
        return int(gate.read(lambda db: db.scalar(select(func.count()).where(EVENTS.c.type == "sent"))))

    def ask_for_code(ip: str) -> None:
        sent = count_sent()
        browse(ip).send("/reset/", identity=account.contact)
        # It is made after the answer: one that still is would outlive what voids them.
        wait_until(lambda: count_sent() > sent)

    for number in range(2):
        ask_for_code(f"192.0.2.{141 + number}")

    def count_waiting(kind: str) -> int:
        columns = CODES.c
        mine = (columns.kind == kind) & (columns.purpose == "reset phone")
        mine &= columns.account_id == (account.id if kind == "user" else twin.id)
        return int(gate.read(lambda db: db.scalar(select(func.count()).where(mine))))

    assert count_waiting("user") == count_waiting("client") == 1
    for kind in KINDS.values():
        gate.write(codes.void_resets, kind, account.id if kind.name == "user" else twin.id)
    assert attacker.send("/reset/", identity=account.contact).status_code == 303
    wait_until(lambda: count_waiting("client"))
    assert count_waiting("user") == 0


@pytest.mark.parametrize("by", ["code", "link"])
def test_a_new_password_leaves_no_other_device_a_budget_of_its_own(
    gate: House, browse: Callable[[str], Browser], by: str
) -> None:
    account = gate.add("user")
    new = "six gulls over the pier"
    assert ask(gate, "user", account.contact, PASSWORD, "192.0.2.150", device_id="stolen").status_code == 200
    browser = browse("192.0.2.151")
    if by == "code":
        browser.send("/reset/", identity=account.contact)
        wait_until(lambda: f"recipient={account.contact}" in gate.log.read_text())
        found = re.findall(rf"recipient={re.escape(account.contact)} .*?subject='(\d{{6}}) is", gate.log.read_text())
        assert browser.send("/reset/code/", code=found[-1], new_password=new).status_code == 303
    else:
        code = gate.write(codes.make_link, KEY_SET, KINDS["user"], account.id, clock.now())
        assert browser.send(f"/reset/user-{account.id}-{code}/", new_password=new).status_code == 303
    for number in range(TRIES):
        assert ask(gate, "user", account.contact, WRONG, f"192.0.2.{152 + number}").status_code == 401
    assert ask(gate, "user", account.contact, new, "192.0.2.150", device_id="stolen").status_code == 429
    assert browser.sign_in(account, new).status_code == 303


BUSY = re.compile("Too many (people are signing|sign) in at once")


@pytest.mark.long
@pytest.mark.parametrize(
    ("address", "form", "field", "wrong"),
    [("/auth/user/token/", "json", "email", 401), ("/sign-in/", "data", "identity", 400)],
)
def test_a_guess_that_is_turned_away_untried_is_none(
    gate: House, address: str, form: str, field: str, wrong: int
) -> None:
    def count_under_way(db: Connection) -> int:
        return db.scalar(select(func.count()).select_from(GUESSES)) or 0

    before = gate.read(count_under_way)

    def write(number: int) -> dict[str, Any]:
        return {form: {field: f"flood{number}@example.com", "password": WRONG}}

    async def flood() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=gate.address, verify=NO_TLS, timeout=60, limits=limits) as client:
            return await asyncio.gather(
                *(
                    client.post(address, headers={"X-Forwarded-For": f"2001:db8:f:{number:x}::1"}, **write(number))
                    # So many come sooner than most of them are checked, on however quick a machine; of more, some would
                    # wait so long for PostgreSQL, on a slow one, that they are turned away for that.
                    for number in range(2 * MOST_WAITING)
                )
            )

    answers = gate.run(flood())
    assert {answer.status_code for answer in answers} == {503, wrong}
    assert all(BUSY.search(answer.text) for answer in answers if answer.status_code == 503)
    assert gate.read(count_under_way) == before

"""The log: no token, cookie, password or code is ever in it, whoever sends one wherever."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from handlers import API, OPERATIONS, PAGES
from handlers.letters import name_link
from models import clock, codes, sessions
from models.schema import CODES, KINDS
from models.settings import AccountSettings
from tests.conftest import KEY_SET, NO_TLS, House, open_house, start_server
from tests.handlers.browsers import Browser
from tests.postgres import free_port

pytestmark = pytest.mark.long


def mark(what: str) -> str:
    """A secret that can be found."""
    return f"secret-{what}-{secrets.token_hex(8)}"


def fill_in(pattern: str, secret: str) -> str:
    """An address of the URL table."""
    named = {"kind": "user", "id": "1", "code": "0" * 32, "mark": f"1-{secret}", "name": "email", "file": "x"}
    return re.sub(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)", lambda found: named[found[1]], pattern)


@pytest.mark.parametrize("shape", ["text", "json"])
def test_whatever_is_sent_no_secret_is_in_the_log(make_url: Callable[[str], str], tmp_path: Path, shape: str) -> None:
    url = make_url("sqlite")
    # Letters wait for a server that is not there: where none is set up they are written to the log.
    server = start_server(
        tmp_path, url, SESSIONS_LOG__LEVEL="debug", SESSIONS_LOG__FORMAT=shape, SESSIONS_MAIL__HOST="127.0.0.1",
        SESSIONS_MAIL__PORT=str(free_port()), SESSIONS_SMS__ADDRESS=f"http://127.0.0.1:{free_port()}/",
    )  # fmt: skip
    found: set[str] = set()
    try:
        with open_house(server, url) as house:
            found = drive(house)
    finally:
        server.stop()
    assert len(found) > 12
    log = server.log.read_text()
    assert log.count('"event":"request"' if shape == "json" else " request method=") > 100
    assert "not sent" in log
    # What the first start says to whoever started it.
    setup = KEY_SET.fingerprint("setup", "")[:32]
    assert [secret for secret in found if secret in log.replace(f"/setup/{setup}/", "", 1)] == []
    if shape == "json":
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        assert all({"timestamp", "level", "event"} <= line.keys() for line in lines)


def drive(house: House) -> set[str]:
    """Ask everything there is with secrets everywhere; the secrets."""
    password, new_password, wrong = mark("password"), mark("new"), mark("wrong")
    found = {password, new_password, wrong, KEY_SET.fingerprint("setup", "")[:32]}
    registered = house.client.post(
        "/auth/user/register/", json={"email": f"{secrets.token_hex(4)}@example.com", "password": password}
    ).json()
    account_id, email = registered["id"], registered["email"]
    purpose = "confirm email"
    house.write(lambda db: db.execute(CODES.delete()))
    code = house.write(
        codes.make, KEY_SET, KINDS["user"], account_id, purpose, AccountSettings(code_again_seconds=1), clock.now()
    )
    wrong_code = f"{(int(code) + 1) % 1_000_000:06}"
    contact = {"email": email}
    for one in (wrong_code, code):
        house.client.post("/auth/user/confirm/", json=contact | {"code": one})
    credentials = contact | {"password": password, "device_id": "mine"}
    tokens = house.client.post("/auth/user/token/", json=credentials).json()
    browser = Browser(house)
    browser.send("/sign-in/", identity=email, password=password)
    cookie, browser_id = browser.cookie("session"), browser.cookie("browser")
    assert cookie
    assert browser_id
    found |= {tokens["access"], tokens["refresh"], cookie, browser_id}
    # Each part of a token by itself, too: its signature is what matters.
    found |= {token.rpartition(".")[2] for token in (tokens["access"], tokens["refresh"], cookie)}
    row = house.read(lambda db: db.execute(select(KINDS["user"].accounts)).mappings().first())
    found.add(row["password_hash"])
    session = house.read(sessions.get_named, KINDS["user"], tokens["session"], clock.now())
    link = f"/end/{name_link(KEY_SET, KINDS['user'], session)}/"
    found.add(link.rstrip("/").rpartition("-")[2])
    house.write(lambda db: db.execute(update(KINDS["user"].accounts).values(is_staff=True)))
    reset = house.write(codes.make_link, KEY_SET, KINDS["user"], account_id, clock.now())
    found.add(reset)
    assert house.client.get(f"/reset/user-{account_id}-{reset}/").status_code == 200

    everything = {
        "password": password, "new_password": new_password, "code": code, "refresh": tokens["refresh"],
        "access": tokens["access"], "email": email, "identity": email, "value": email,
    }  # fmt: skip
    headers = {
        "Authorization": f"Bearer {tokens['access']}", "Cookie": f"session={cookie}; browser={browser_id}",
        "X-Forwarded-For": wrong, "Referer": f"http://127.0.0.1/?x={password}",
    }  # fmt: skip
    with httpx.Client(base_url=house.address, timeout=20, verify=NO_TLS) as client:
        for pattern, _ in [*API, *PAGES, *OPERATIONS]:
            address = fill_in(pattern, "0" * 64)
            if "/live/" in address or "/sign-out/" in address:
                continue
            for path in {address, address.removesuffix("/")}:
                for method in ("HEAD", "GET", "OPTIONS", "POST", "PATCH"):
                    client.request(method, path, params=everything, headers=headers)
                client.post(path, json=everything, headers=headers)
                client.post(path, data=everything, headers=headers)
                client.post(path, content=json.dumps(everything)[:-1], headers=headers)
                client.post(path, content=password * 10_000, headers=headers)
        client.get(f"/end/user-1-1-{'0' * 64}/")
        client.get(link)
        client.get(link.rstrip("/"))
        client.get(f"/setup/{KEY_SET.fingerprint('setup', '')[:32]}/")
        for token in (tokens["access"] + "x", wrong, f"x.{wrong}.y"):
            client.get("/sessions/session-user-l/", headers={"Authorization": f"Bearer {token}"})
            client.get("/devices/", headers={"Cookie": f"session={token}"})
            client.post("/auth/token/refresh/", json={"refresh": token})
        for sent in (contact | {"password": wrong}, {"email": wrong, "password": wrong}, {"password": [wrong]}):
            client.post("/auth/user/token/", json=sent)
    browser.close()
    return found

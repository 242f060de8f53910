"""One's own list and ending a session, answered without a handler being made for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, select, update
from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from handlers.answers import shape_tokens
from models import accounts, clock, sessions
from models.events import Cause
from models.origins import Origin
from models.schema import EVENTS, KINDS
from models.settings import Settings
from server import close_parts, make_application, open_parts
from tests.conftest import NO_TLS


@dataclass
class Door:
    """A server in this process, which counts the requests that were given to a handler."""

    address: str
    parts: Any
    client: httpx.AsyncClient
    handled: list[str] = field(default_factory=list)

    async def start(self, kind: str, account_id: int) -> dict[str, Any]:
        """The tokens of a new session."""
        started = await self.parts.database.write(
            sessions.start, KINDS[kind], account_id, None, None, Origin(device="a/1"), self.parts.settings.sessions,
            clock.now(),
        )  # fmt: skip
        assert started
        return shape_tokens(self.parts.tokens, started)

    async def ask(self, path: str, token: str, **headers: str) -> httpx.Response:
        """The answer to GET."""
        return await self.client.get(path, headers={"Authorization": f"Bearer {token}", **headers})

    async def end(self, path: str, token: str, **headers: str) -> httpx.Response:
        """The answer to DELETE."""
        return await self.client.delete(path, headers={"Authorization": f"Bearer {token}", **headers})


@asynccontextmanager
async def door(url: str, folder: Path, **server: Any) -> AsyncIterator[Door]:
    """A door on the database at `url`."""
    settings = Settings.model_validate(
        {
            "database": {"url": url},
            "tokens": {"key_file": str(folder / "signing.key")},
            "server": server,
        }
    )
    parts = open_parts(settings)
    application = make_application(parts)
    listening, port = bind_unused_port()
    address = f"http://127.0.0.1:{port}"
    opened = Door(address, parts, httpx.AsyncClient(base_url=address, verify=NO_TLS))
    find = application.find_handler

    def count(request: httputil.HTTPServerRequest, **more: Any) -> Any:
        opened.handled.append(request.path)
        return find(request, **more)

    application.find_handler = count  # type: ignore[method-assign]
    serving = HTTPServer(application)
    serving.add_socket(listening)
    try:
        yield opened
    finally:
        await opened.client.aclose()
        serving.stop()
        await serving.close_all_connections()
        application.settings["log_function"].flush()
        await close_parts(parts)


def at_a_door(**server: Any) -> Callable[[Callable[[Door, str, int], Awaitable[None]]], Callable[..., None]]:
    """A test that runs at a door, with an account of either kind."""

    def decorate(test: Callable[[Door, str, int], Awaitable[None]]) -> Callable[..., None]:
        @pytest.mark.parametrize("kind", KINDS)
        def run(kind: str, make_url: Callable[[str], str], tmp_path: Path) -> None:
            url = make_url("sqlite")

            async def awaited() -> None:
                async with door(url, tmp_path, **server) as opened:
                    now = clock.now()
                    made = {"phone": "+79137779135", "confirmed_by_staff_at": now}
                    row = await opened.parts.database.write(accounts.create, KINDS[kind], made, "", None, now)
                    await test(opened, kind, row["id"])

            asyncio.run(awaited())

        return run

    return decorate


def tell(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All that an answer says, but when it was given."""
    told = [(name, value) for name, value in answer.headers.multi_items() if name not in ("date", "x-request-id")]
    return answer.status_code, answer.content, told


@at_a_door()
async def test_a_list_that_was_sent_before_is_sent_again_to_the_byte_and_without_a_handler(
    door: Door, kind: str, account_id: int
) -> None:
    tokens = [(await door.start(kind, account_id))["access"] for _ in range(2)]
    address = f"/sessions/session-{kind}-l/"
    first = await door.ask(address, tokens[0])
    assert door.handled == [address]

    for token in tokens:
        for again in (address, f"{address}{account_id}/"):
            assert tell(await door.ask(again, token)) == tell(first)
    assert tell(await door.ask(address, tokens[0], Connection="Keep-Alive")) == tell(first)

    assert door.handled == [address]


@at_a_door()
async def test_an_address_with_its_host_is_that_of_the_host(door: Door, kind: str, account_id: int) -> None:
    token = (await door.start(kind, account_id))["access"]
    address = f"/sessions/session-{kind}-l/"
    first = await door.ask(address, token)
    host = door.address.partition("//")[2]

    answers = {}
    for target in (f"http://{host}{address}", f"HTTP://{host}/nothing/", f"ftp://{host}{address}"):
        reader, writer = await asyncio.open_connection(*host.split(":"))
        writer.write(f"GET {target} HTTP/1.1\r\nHost: other.example\r\nAuthorization: Bearer {token}\r\n".encode())
        writer.write(b"Connection: close\r\n\r\n")
        answers[target.partition(":")[0]] = await reader.read()
        writer.close()
        await writer.wait_closed()

    # Its pictures are at the host that was asked.
    assert answers["http"].endswith(first.content)
    assert answers["HTTP"].startswith(b"HTTP/1.1 404 ")
    assert answers["ftp"].startswith(b"HTTP/1.1 404 ")


@at_a_door()
async def test_a_list_that_changed_is_made_anew(door: Door, kind: str, account_id: int) -> None:
    token = (await door.start(kind, account_id))["access"]
    address = f"/sessions/session-{kind}-l/"
    one = await door.ask(address, token)

    await door.start(kind, account_id)
    two = await door.ask(address, token)

    assert (one.content.count(b'"device"'), two.content.count(b'"device"')) == (1, 2)
    assert one.headers["Etag"] != two.headers["Etag"]


@at_a_door()
async def test_no_list_is_sent_again_once_the_session_has_ended(door: Door, kind: str, account_id: int) -> None:
    token, ended = [await door.start(kind, account_id) for _ in range(2)]
    address = f"/sessions/session-{kind}-l/"
    assert (await door.ask(address, ended["access"])).status_code == 200

    await door.parts.database.write(sessions.end_one, KINDS[kind], ended["session"], Cause.OWNER, clock.now())

    assert (await door.ask(address, ended["access"])).status_code == 403
    assert (await door.ask(address, token["access"])).status_code == 200
    assert (await door.ask(address, ended["access"])).status_code == 403


@at_a_door()
async def test_no_list_is_sent_again_to_an_account_that_was_disabled(door: Door, kind: str, account_id: int) -> None:
    token = (await door.start(kind, account_id))["access"]
    address = f"/sessions/session-{kind}-l/"
    assert (await door.ask(address, token)).status_code == 200

    def disable(db: Connection) -> None:
        # Past the models, which would move the revision too.
        db.execute(update(KINDS[kind].accounts).values(disabled_at=clock.now()))

    await door.parts.database.write(disable)

    assert (await door.ask(address, token)).status_code == 403


@at_a_door()
async def test_whatever_asks_for_more_is_given_to_a_handler(door: Door, kind: str, account_id: int) -> None:
    started = await door.start(kind, account_id)
    token, address = started["access"], f"/sessions/session-{kind}-l/"
    first = await door.ask(address, token)
    asked = [
        (f"{address}?details=true", {}),
        (f"{address}{account_id + 1}/", {}),
        (f"{address}0{account_id}/", {}),
        (f"/sessions/session-{kind}-r/{started['session']}/", {}),
        (address, {"If-None-Match": first.headers["Etag"]}),
        (address, {"If-None-Match": "*"}),
        (address, {"Origin": "https://example.com"}),
        (address, {"Connection": "close"}),
        (address, {"Host": "example.com"}),
    ]
    door.handled.clear()

    answers = [await door.ask(path, token, **headers) for path, headers in asked]

    assert len(door.handled) == len(asked)
    assert [answer.status_code for answer in answers] == [200, 403, 200, 200, 304, 304, 200, 200, 200]
    assert answers[8].content == first.content.replace(door.address.encode(), b"http://example.com")


@at_a_door(trusted_proxies=["127.0.0.1/32"])
async def test_what_a_proxy_says_is_read_by_the_handler(door: Door, kind: str, account_id: int) -> None:
    token = (await door.start(kind, account_id))["access"]
    address = f"/sessions/session-{kind}-l/"
    await door.ask(address, token)

    secure = await door.ask(address, token, **{"X-Forwarded-Proto": "https"})

    assert b'"https://127.0.0.1' in secure.content.replace(b'"image":', b"")
    assert len(door.handled) == 2


@at_a_door(trusted_proxies=["127.0.0.1/32"], address="https://sessions.example.com")
async def test_behind_a_proxy_the_address_that_is_set_is_sent(door: Door, kind: str, account_id: int) -> None:
    token = (await door.start(kind, account_id))["access"]
    address = f"/sessions/session-{kind}-l/"
    first = await door.ask(address, token)

    assert tell(await door.ask(address, token)) == tell(first)

    assert b'"https://sessions.example.com/sessions/' in first.content
    assert door.handled == [address]


@at_a_door()
async def test_a_session_is_ended_without_a_handler_as_a_handler_would(door: Door, kind: str, account_id: int) -> None:
    device, other, third = [await door.start(kind, account_id) for _ in range(3)]
    address = f"/sessions/session-{kind}-d/"

    directly = await door.end(f"{address}{other['session']}/", device["access"])
    assert door.handled == []
    handled = await door.end(f"{address}{third['session']}/", device["access"], Origin="https://example.com")
    assert door.handled == [f"{address}{third['session']}/"]

    assert tell(directly) == tell(handled)
    assert (directly.status_code, directly.content) == (204, b"")
    ended = await door.parts.database.read(
        lambda db: db.execute(select(EVENTS).where(EVENTS.c.type == "ended").order_by(EVENTS.c.id)).mappings().all()
    )
    assert [event["session_id"] for event in ended] == [other["session"], third["session"]]
    alike = [
        {name: event[name] for name in ("cause", "by_kind", "by_id", "device", "ip", "country")} for event in ended
    ]
    assert alike[0] == alike[1]
    assert alike[0]["ip"] == "127.0.0.1"


@at_a_door()
async def test_signing_out_by_id_can_be_done_once(door: Door, kind: str, account_id: int) -> None:
    device = await door.start(kind, account_id)
    address = f"/sessions/session-{kind}-d/{device['session']}/"

    answers = [await door.end(address, device["access"]) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [204, 403]


@at_a_door()
async def test_ending_what_one_may_not_end_is_told_by_the_handler(door: Door, kind: str, account_id: int) -> None:
    now = clock.now()
    made = {"phone": "+79137779136", "confirmed_by_staff_at": now}
    other = await door.parts.database.write(accounts.create, KINDS[kind], made, "", None, now)
    device, others = await door.start(kind, account_id), await door.start(kind, other["id"])
    address = f"/sessions/session-{kind}-d/"

    for path in (f"{address}{others['session']}/", f"{address}0/", f"{address}{10**18 - 1}/", f"{address}{10**30}/"):
        assert (await door.end(path, device["access"])).status_code == 403
    assert (await door.end(f"{address}{device['session']}/", "forged")).status_code == 401

    assert (await door.ask(f"/sessions/session-{kind}-l/", others["access"])).status_code == 200
    assert (await door.ask(f"/sessions/session-{kind}-l/", device["access"])).status_code == 200


@at_a_door()
async def test_who_does_not_say_whom_he_asks_is_400_and_ends_nothing(door: Door, kind: str, account_id: int) -> None:
    device = await door.start(kind, account_id)
    address = f"/sessions/session-{kind}-d/"

    for host, session_id in product(("", "Host: a, b\r\n", "Host: a/b\r\n"), (device["session"], 10**17)):
        reader, writer = await asyncio.open_connection(*door.address.removeprefix("http://").split(":"))
        asked = f"DELETE {address}{session_id}/ HTTP/1.1\r\n{host}Authorization: Bearer {device['access']}\r\n\r\n"
        writer.write(asked.encode())
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await writer.wait_closed()

    assert (await door.ask(f"/sessions/session-{kind}-l/", device["access"])).status_code == 200


@at_a_door(trusted_proxies=["127.0.0.1/32"])
async def test_behind_a_proxy_a_session_is_ended_from_the_address_that_it_names(
    door: Door, kind: str, account_id: int
) -> None:
    device = await door.start(kind, account_id)
    address = f"/sessions/session-{kind}-d/{device['session']}/"

    answer = await door.end(address, device["access"], **{"X-Forwarded-For": "198.51.100.7"})

    assert answer.status_code == 204
    ips = await door.parts.database.read(
        lambda db: db.scalars(select(EVENTS.c.ip).where(EVENTS.c.type == "ended")).all()
    )
    assert ips == ["198.51.100.7"]

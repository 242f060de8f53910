"""What a server takes: from whom, by which name, how much, for how long; and what it tells browsers."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import httpx
import pytest
from tornado import web

from handlers import ROUTES
from handlers.live import MOST_OF_ACCOUNT, MOST_OF_SESSION
from handlers.requests import label, shown
from tests.conftest import NO_TLS, Device, House, open_house, start_server, wait_until

SITE = "https://sessions.example.com"
ORIGIN = "https://app.example.com"
ROOM = 16


@pytest.fixture(scope="module")
def strict(make_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server behind https that answers to two names, is open to one site's scripts, and waits seconds at most."""
    url = make_url("sqlite")
    settings = {
        "address": SITE, "hosts": '["other.example.com", "127.0.0.1"]', "origins": f'["{ORIGIN}"]',
        "connections": str(ROOM), "idle_seconds": "1", "body_seconds": "1", "request_seconds": "3",
    }  # fmt: skip
    server = start_server(
        tmp_path_factory.mktemp("server"), url, **{f"SESSIONS_SERVER__{name.upper()}": value
                                                   for name, value in settings.items()},
        SESSIONS_LOG__FORMAT="json",
    )  # fmt: skip
    with open_house(server, url) as opened:
        yield opened
    assert server.stop() == 0


def connect(house: House, sent: bytes) -> socket.socket:
    """A connection on which only this was sent."""
    host, _, port = house.address.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(sent)
    return connection


# Names


@pytest.mark.parametrize("host", ["sessions.example.com", "SESSIONS.example.com:443", "other.example.com"])
@pytest.mark.parametrize("path", ["/sessions/session-user-l/", "/sign-in/"])
def test_a_server_answers_to_its_names(strict: House, host: str, path: str) -> None:
    assert strict.client.get(path, headers={"Host": host}).status_code in (200, 401)


@pytest.mark.parametrize("host", ["elsewhere.example", "sessions.example.com.elsewhere.example", "", "[::1]:80"])
def test_a_request_for_another_host_is_421(strict: House, host: str) -> None:
    told = strict.client.get("/sessions/session-user-l/", headers={"Host": host})
    shown = strict.client.get("/sign-in/", headers={"Host": host})
    if host:
        assert (told.status_code, told.json()) == (421, {"detail": "This server does not answer for that host."})
        assert shown.status_code == 421
        assert "Check the address" in shown.text
    # Whoever looks whether it is well does so by any name.
    assert strict.client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_list_that_is_sent_again_is_not_sent_for_another_host(strict: House) -> None:
    device = strict.sign_in(strict.add("user"))
    for _ in range(2):
        assert strict.ask("GET", "/sessions/session-user-l/", device).status_code == 200
    answer = strict.ask("GET", "/sessions/session-user-l/", device, headers={"Host": "elsewhere.example"})
    assert answer.status_code == 421


def test_without_names_any_is_taken(house: House) -> None:
    assert house.client.get("/sign-in/", headers={"Host": "elsewhere.example"}).status_code == 200


# Headers


@pytest.mark.parametrize("path", ["/sessions/session-user-l/", "/auth/user/token/", "/sign-in/", "/docs/", "/healthz"])
def test_each_answer_says_what_browsers_may_do_with_it(strict: House, path: str) -> None:
    headers = strict.client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    # The page that shows the calls is the same for everybody.
    assert headers["Cache-Control"] == ("no-cache" if path == "/docs/" else "no-store")


def test_pages_tell_no_other_site_where_one_comes_from_and_use_no_camera(strict: House) -> None:
    headers = strict.client.get("/sign-in/").headers
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["X-Frame-Options"] == "DENY"
    assert "camera=()" in headers["Permissions-Policy"]


def test_by_http_nobody_is_told_to_ask_by_https(house: House) -> None:
    for path in ("/sessions/session-user-l/", "/sign-in/"):
        assert "Strict-Transport-Security" not in house.client.get(path).headers
        lied = house.client.get(path, headers={"X-Forwarded-Proto": "https"})
        assert "Strict-Transport-Security" not in lied.headers


def test_a_trusted_proxy_s_https_is_told_on(
    make_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    server = start_server(
        tmp_path_factory.mktemp("server"), make_url("sqlite"), SESSIONS_SERVER__TRUSTED_PROXIES='["127.0.0.1/32"]'
    )
    try:
        for scheme, is_told in (("https", True), ("http", False)):
            answer = httpx.get(f"{server.address}/sign-in/", headers={"X-Forwarded-Proto": scheme}, verify=NO_TLS)
            assert ("Strict-Transport-Security" in answer.headers) is is_told
    finally:
        server.stop()


# Other sites


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", ORIGIN + ".elsewhere.example", "https://x"])
def test_no_other_site_s_script_reads_an_answer(strict: House, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "DELETE"}
    for method in ("GET", "OPTIONS"):
        headers = strict.client.request(method, "/sessions/session-user-l/", headers=asked).headers
        assert not [name for name in headers if name.startswith("access-control-")]


def test_where_no_origin_is_configured_none_is_open(house: House) -> None:
    asked = {"Origin": house.address, "Access-Control-Request-Method": "GET"}
    for method in ("GET", "OPTIONS"):
        headers = house.client.request(method, "/sessions/session-user-l/", headers=asked).headers
        assert not [name for name in headers if name.startswith("access-control-")]


def test_a_configured_origin_s_script_asks_by_token_and_never_by_cookie(strict: House) -> None:
    asked = {
        "Origin": ORIGIN, "Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization",
    }  # fmt: skip
    preflight = strict.client.options("/sessions/session-user-d/1/", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "DELETE" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    device = strict.sign_in(strict.add("user"))
    answers = [strict.ask("GET", "/sessions/session-user-l/", device, headers={"Origin": ORIGIN}) for _ in range(2)]
    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "X-Total-Count" in answer.headers["Access-Control-Expose-Headers"]
    for told in (preflight, *answers):
        assert told.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Credentials" not in told.headers
    # Pages are for people: no script of another site reads them.
    page = strict.client.get("/sign-in/", headers={"Origin": ORIGIN})
    assert "Access-Control-Allow-Origin" not in page.headers


# How much


def test_an_address_that_is_too_long_is_414(strict: House) -> None:
    query = "?x=" + "x" * 9000
    told = strict.client.get(f"/sessions/session-user-l/{query}")
    assert (told.status_code, told.json()) == (414, {"detail": "The address is too long."})
    assert strict.client.get(f"/sign-in/{query}").status_code == 414


def test_headers_that_are_too_long_close_the_connection(strict: House) -> None:
    with connect(strict, b"GET / HTTP/1.1\r\nHost: other.example.com\r\nX: ") as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"x" * 200_000 + b"\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""


# How long


@pytest.mark.long
@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: oth",
        b"POST /auth/user/token/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 20\r\n\r\n{",
    ],
)
def test_who_does_not_finish_is_waited_for_no_longer_than_is_set(strict: House, sent: bytes) -> None:
    with connect(strict, sent) as connection:
        assert connection.recv(1) == b""


def test_those_who_send_nothing_keep_out_nobody(strict: House) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(strict, b"GET / HTTP/1.1\r\nX: ")) for _ in range(4 * ROOM)]
        for _ in range(3):
            assert httpx.get(f"{strict.address}/healthz", verify=NO_TLS).status_code == 200
        with contextlib.suppress(ConnectionResetError):
            assert slow[0].recv(1) == b""


@pytest.mark.long
def test_a_request_that_takes_too_long_is_503(strict: House) -> None:
    device = strict.sign_in(strict.add("client"))
    with contextlib.closing(sqlite3.connect(strict.url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(2) as threads:
            path, form = (
                f"/sessions/session-client-u/{device.session}/",
                {"identity": "late@example.com", "password": "x"},
            )
            asked = threads.submit(strict.ask, "PATCH", path, device, json={"name": "Mine"})
            page = threads.submit(strict.client.post, "/sign-in/", data=form).result()
            answer = asked.result()
        other.execute("ROLLBACK")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.json()["detail"].startswith("This took too long.")
    assert page.status_code == 503
    assert "This took too long. See whether it was done" in page.text
    assert strict.ask("GET", "/sessions/session-client-l/", device).status_code == 200


# What is kept of it


def test_each_answer_has_an_id_that_is_in_the_log_too(strict: House) -> None:
    device = strict.sign_in(strict.add("user"))
    answers = [
        strict.ask("GET", "/sessions/session-user-l/", device),
        strict.ask("GET", "/sessions/session-user-l/", device),
        strict.client.get("/sessions/session-user-l/"),
        strict.client.get("/sign-in/"),
        strict.client.get("/nowhere/"),
        strict.client.get("/sessions/session-user-l/", headers={"Host": "elsewhere.example"}),
    ]
    ids = [answer.headers["X-Request-Id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)

    def lines() -> list[dict[str, object]]:
        logged = (line for line in strict.log.read_text().splitlines() if line.startswith("{"))
        told = {line["id"]: line for line in map(json.loads, logged) if line["event"] == "request"}
        return [told[one] for one in ids if one in told]

    logged = wait_until(lambda: len(lines()) == len(ids) and lines())
    assert [line["status"] for line in logged] == [answer.status_code for answer in answers]
    assert [line["level"] for line in logged] == ["info", "info", "warning", "info", "info", "warning"]
    assert [line.get("ip") for line in logged] == [None, None, "127.0.0.1", None, None, "127.0.0.1"]


def test_no_name_is_as_long_as_a_page(house: House) -> None:
    device = house.enter(house.add("user"))
    answer = house.ask("GET", "/sessions/session-user-l/", device, headers={"Host": "h" * 300})
    assert answer.status_code == 421


def test_methods_that_somebody_made_up_are_one_in_the_metrics(house: House) -> None:
    for number in range(3):
        house.client.request(f"MADEUP{number}", "/healthz")
    wait_until(lambda: 'method="other"' in house.client.get("/metrics").text)
    assert "MADEUP" not in house.client.get("/metrics").text


def test_the_metrics_tell_a_page_from_what_a_program_asks(house: House) -> None:
    staff = house.enter(house.add("user", staff=True))
    for path in ("/sessions/session-user-l/", "/sessions/", "/admin/sessions/"):
        house.ask("GET", path, staff)

    def names() -> list[str]:
        return re.findall('sessions_requests_total{handler="([^"]*)"', house.client.get("/metrics").text)

    wait_until(lambda: {"sessions.SessionListHandler", "admin.sessions.SessionListHandler"} <= set(names()))


def test_each_handler_has_a_name_of_its_own_in_the_metrics() -> None:
    handlers = {cast(type[web.RequestHandler], route[1]) for route in ROUTES}
    assert len({label(handler) for handler in handlers}) == len(handlers)


def test_a_session_has_so_many_streams_and_no_more(house: House) -> None:
    device = house.enter(house.add("user"))
    with contextlib.ExitStack() as stack:
        answers = [
            stack.enter_context(house.client.stream("GET", "/sessions/live/", headers=device.headers))
            for _ in range(MOST_OF_SESSION + 1)
        ]
        assert [answer.status_code for answer in answers] == [200] * MOST_OF_SESSION + [429]
        other = house.enter(device.account)
        with house.client.stream("GET", "/sessions/live/", headers=other.headers) as answer:
            assert answer.status_code == 200


def open_stream(house: House, device: Device) -> tuple[socket.socket, bytes]:
    """A connection that asked for a stream, and how its answer begins."""
    asked = "GET /sessions/live/ HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    asked += "".join(f"{name}: {value}\r\n" for name, value in device.headers.items())
    connection = connect(house, f"{asked}\r\n".encode())
    try:
        return connection, connection.recv(4096)
    except OSError:
        connection.close()
        raise


def test_an_account_has_so_many_streams_and_no_more(house: House) -> None:
    account = house.add("client")
    devices = [house.enter(account) for _ in range(MOST_OF_ACCOUNT // MOST_OF_SESSION + 1)]
    with contextlib.ExitStack() as stack:
        for device in devices[1:]:
            for _ in range(MOST_OF_SESSION):
                connection, begun = open_stream(house, device)
                stack.enter_context(connection)
                assert begun.startswith(b"HTTP/1.1 200 ")
        answer = house.ask("GET", "/sessions/live/", devices[0])
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
        assert answer.json() == {"detail": f"This account has {MOST_OF_ACCOUNT} streams open already."}
        connection, begun = open_stream(house, house.enter(house.add("client")))
        connection.close()
        assert begun.startswith(b"HTTP/1.1 200 ")


def test_streams_leave_half_of_the_connections_to_those_who_ask(strict: House) -> None:
    devices = [strict.sign_in(strict.add("user")) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        answers = []
        for number in range(ROOM):
            connection, begun = open_stream(strict, devices[number % 3])
            stack.enter_context(connection)
            answers.append(begun)
        assert [answer[9:12] for answer in answers] == [b"200"] * (ROOM // 2) + [b"503"] * (ROOM // 2)
        assert all(b"\r\nRetry-After: 30\r\n" in answer for answer in answers[ROOM // 2 :])
        for _ in range(ROOM):
            assert httpx.get(f"{strict.address}/healthz", verify=NO_TLS).status_code == 200

    def is_open() -> bool:
        # Until the server has seen that the others are gone, it may have no room even to read what is asked.
        with contextlib.suppress(ConnectionResetError):
            connection, begun = open_stream(strict, devices[0])
            connection.close()
            return begun.startswith(b"HTTP/1.1 200 ")
        return False

    wait_until(is_open)


def test_asking_for_the_headers_of_a_stream_opens_none(house: House) -> None:
    device = house.enter(house.add("user"))
    answer = house.ask("HEAD", "/sessions/live/", device)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream")


def test_an_address_is_shown_in_the_log_without_what_a_terminal_obeys() -> None:
    assert shown("/a\x9b2J\x85é%20;x=1") == "/a%9B2J%85%E9%20;x=1"

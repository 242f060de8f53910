"""What every handler shares: who is asking, from where, and how an error is told."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, func, select

from models.schema import KINDS, METADATA
from tests.conftest import NO_TLS, Device, House, start_server

NOT_PROVIDED = b'{"detail":"Authentication credentials were not provided."}'
NOT_VALID = b'{"detail":"Given token not valid for any token type","code":"token_not_valid"}'
FORBIDDEN = b'{"detail":"You do not have permission to perform this action."}'
NOT_FOUND = b'{"detail":"Not found."}'
TOO_LARGE = b'{"detail":"The body is too large."}'
LARGEST_BODY = 64 * 1024

LIST = "/sessions/session-user-l/"

# Nothing here is the database's matter.
pytestmark = pytest.mark.parametrize("house", ["sqlite"], indirect=True)


@dataclass(frozen=True)
class Raw:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def device(house: House) -> Device:
    """A user's device, which no test ends."""
    return house.enter(house.add("user"))


def send(house: House, head: str | bytes, body: bytes = b"") -> Raw:
    """The answer to exactly these bytes, which httpx would not send; lines of `head` end as HTTP's do."""
    host, _, port = house.address.removeprefix("http://").partition(":")
    lines = head if isinstance(head, bytes) else head.encode()
    request = lines.strip().replace(b"\n", b"\r\n") + f"\r\nHost: {host}:{port}\r\n\r\n".encode()
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request + body)
        return _receive(connection)


def _receive(connection: socket.socket) -> Raw:
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers: dict[str, str] = {}
        while line := stream.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.title()] = value.strip()
        return Raw(status, headers, stream.read(int(headers.get("Content-Length", 0))))


# What the server's chores write to while nobody asks: what they count, and what they send.
CHORES = {"session_counts", "session_days", "session_moves", "event_counts", "event_marks", "messages"}


def count_rows(db: Connection) -> dict[str, int]:
    """How many rows each table has that only a request writes to."""
    tables = {table.name: table for table in METADATA.sorted_tables if table.name not in CHORES}
    return {name: db.scalar(select(func.count()).select_from(table)) or 0 for name, table in tables.items()}


# Who is asking.


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_s_case_and_the_spaces_after_it_are_the_caller_s(house: House, device: Device, scheme: str) -> None:
    answer = house.ask("GET", LIST, headers={"Authorization": f"{scheme} {device.access}"})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "credentials",
    ["", "Bearer", "Basic dXNlcjpwYXNz", "Bearer{token}", "Token {token}", "{token}", "Bearerish {token}"],
)
def test_what_is_no_bearer_token_is_no_token(house: House, device: Device, credentials: str) -> None:
    answer = house.ask("GET", LIST, headers={"Authorization": credentials.format(token=device.access)})

    assert (answer.status_code, answer.content) == (401, NOT_PROVIDED)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("credentials", ["Bearer x", "Bearer a.b.c", "Bearer {token} {token}", "Bearer {token}="])
def test_a_bearer_token_that_is_none_of_ours_is_not_valid(house: House, device: Device, credentials: str) -> None:
    answer = house.ask("GET", LIST, headers={"Authorization": credentials.format(token=device.access)})

    assert (answer.status_code, answer.content) == (401, NOT_VALID)
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 0)])
def test_two_authorization_headers_are_refused_whichever_comes_first(
    house: House, device: Device, order: tuple[int, int]
) -> None:
    credentials = (f"Bearer {device.access}", "Bearer a.b.c")
    lines = "\n".join(f"Authorization: {credentials[number]}" for number in order)

    answer = send(house, f"GET {LIST} HTTP/1.1\n{lines}")

    assert (answer.status, answer.body) == (401, NOT_VALID)


def test_a_token_in_the_address_or_in_a_cookie_is_none(house: House, device: Device) -> None:
    by_query = house.ask("GET", f"{LIST}?access_token={device.access}&token={device.access}")
    by_cookie = house.ask("GET", LIST, headers={"Cookie": f"Authorization=Bearer {device.access}"})

    assert (by_query.status_code, by_query.content) == (401, NOT_PROVIDED)
    assert (by_cookie.status_code, by_cookie.content) == (401, NOT_PROVIDED)


def test_a_refresh_token_opens_nothing(house: House, device: Device) -> None:
    answer = house.ask("GET", LIST, headers={"Authorization": f"Bearer {device.refresh}"})

    assert (answer.status_code, answer.content) == (401, NOT_VALID)


def test_a_token_of_100_kb_is_not_valid(house: House) -> None:
    answer = house.ask("GET", LIST, headers={"Authorization": f"Bearer {'a' * 100_000}"})

    assert (answer.status_code, answer.content) == (401, NOT_VALID)


def test_a_token_that_is_not_ascii_is_not_valid(house: House) -> None:
    answer = send(house, f"GET {LIST} HTTP/1.1\nAuthorization: Bearer ключ.é.\N{SNOWMAN}")

    assert (answer.status, answer.body) == (401, NOT_VALID)


# Which address there is, and what may be asked of it.


@pytest.mark.parametrize(
    "address",
    [
        "/sessions/session-user-l/1/2/",
        "/sessions/session-staff-l/1/",
        "/sessions/session-user-x/1/",
        "/sessions/session-user-l/-1/",
        "/sessions/session-user-l/1e3/",
        "/sessions/session-user-l/٣/",
        "/sessions/session-user-l/1.0/",
        "/sessions/session-user-l/%31%00/",
        "/sessions/session-user-l/1%2F/",
        "/sessions/session-user-l/ 1/",
        "/sessions/session-user-r/",
        "/sessions/session-user-l/me/",
        "/auth/",
        "/auth/staff/token/",
        "/auth/user/token/x/",
        "/sessions/../auth/user/",
        "//sessions/session-user-l/1/",
    ],
)
def test_an_address_that_is_none_is_404_in_json(house: House, device: Device, address: str) -> None:
    for method in ("GET", "POST", "PATCH", "DELETE", "PUT"):
        head = f"{method} {address.replace(' ', '%20')} HTTP/1.1\nAuthorization: Bearer {device.access}"
        answer = send(house, f"{head}\nContent-Length: 0")
        assert (answer.status, answer.body) == (404, NOT_FOUND), method
        assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("sent", ["0", "00", str(2**63 - 1), str(2**63), "9" * 20, "1" * 4000])
def test_an_id_that_no_row_can_have_is_403_like_another_s(house: House, device: Device, sent: str) -> None:
    for method, action in (("GET", "l"), ("GET", "r"), ("PATCH", "u"), ("DELETE", "d")):
        body = {"json": {"name": "Mine"}} if method == "PATCH" else {}
        answer = house.ask(method, f"/sessions/session-user-{action}/{sent}/", device, **body)
        assert (answer.status_code, answer.content) == (403, FORBIDDEN), method


def test_zeros_before_an_id_change_nothing(house: House, device: Device) -> None:
    answer = house.ask("GET", f"/sessions/session-user-r/000{device.session}/", device)

    assert (answer.status_code, answer.json()["id"]) == (200, device.session)


METHODS = [
    ("/sessions/session-user-l/", ["GET", "HEAD", "OPTIONS"]),
    ("/sessions/session-user-l/1/", ["GET", "HEAD", "OPTIONS"]),
    ("/sessions/session-client-r/1/", ["GET", "HEAD", "OPTIONS"]),
    ("/sessions/session-client-u/1/", ["PATCH", "OPTIONS"]),
    ("/sessions/session-client-d/", ["DELETE", "OPTIONS"]),
    ("/sessions/session-client-d/1/", ["DELETE", "OPTIONS"]),
    ("/sessions/session-client-d/others/", ["DELETE", "OPTIONS"]),
    ("/auth/user/token/", ["POST", "OPTIONS"]),
    ("/auth/token/refresh/", ["POST", "OPTIONS"]),
    ("/accounts/user/1/", ["PATCH", "OPTIONS"]),
]


@pytest.mark.parametrize(("address", "allowed"), METHODS)
def test_what_may_not_be_asked_of_an_address_is_405_and_says_what_may(
    house: House, address: str, allowed: list[str]
) -> None:
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - set(allowed):
        answer = house.client.request(method, address)
        assert answer.status_code == 405, method
        assert answer.headers["Allow"].split(", ") == allowed
        assert answer.headers["Content-Type"] == "application/json"
        assert method == "HEAD" or answer.json() == {"detail": "Method not allowed."}


@pytest.mark.parametrize(("address", "allowed"), METHODS)
def test_options_tells_the_methods_to_anyone(house: House, address: str, allowed: list[str]) -> None:
    answer = house.client.options(address)

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Allow"].split(", ") == allowed


@pytest.mark.parametrize("method", ["BREW", "TRACE", "get", "PROPFIND"])
def test_a_method_that_nobody_knows_is_405_in_json(house: House, method: str) -> None:
    answer = send(house, f"{method} {LIST} HTTP/1.1")

    assert answer.status == 405
    assert answer.headers["Allow"].split(", ") == ["GET", "HEAD", "OPTIONS"]
    assert answer.body == b'{"detail":"Method not allowed."}'


def test_head_answers_as_get_does_without_the_body(house: House, device: Device) -> None:
    got, headed = house.ask("GET", LIST, device), house.ask("HEAD", LIST, device)

    assert (headed.status_code, headed.content) == (200, b"")
    for name in ("Content-Length", "Content-Type", "Etag", "Cache-Control"):
        assert headed.headers[name] == got.headers[name]
    assert house.ask("HEAD", LIST).status_code == 401


@pytest.mark.parametrize("query", ["", "?details=true&limit=5"])
@pytest.mark.parametrize("address", [address for address, _ in METHODS])
def test_without_its_final_slash_an_address_is_redirected(house: House, address: str, query: str) -> None:
    for method in ("GET", "POST", "PATCH", "DELETE"):
        answer = house.client.request(method, address.rstrip("/") + query)
        # 308: the one that lets nobody change the method or drop the body.
        assert (answer.status_code, answer.headers["Location"]) == (308, address + query), method


def test_the_redirect_keeps_method_and_body(house: House) -> None:
    account = house.add("user")

    signed_in = house.client.post("/auth/user/token", json=account.credentials, follow_redirects=True)
    headers = {"Authorization": f"Bearer {signed_in.json()['access']}"}
    address = f"/sessions/session-user-u/{signed_in.json()['session']}"
    named = house.client.patch(address, headers=headers, json={"name": "Mine"}, follow_redirects=True)
    ended = house.client.delete("/sessions/session-user-d", headers=headers, follow_redirects=True)

    assert (signed_in.status_code, signed_in.request.method) == (200, "POST")
    assert (named.status_code, named.json()["name"]) == (200, "Mine")
    assert (ended.status_code, ended.request.method) == (204, "DELETE")


def test_the_redirect_leads_nowhere_else(house: House) -> None:
    answer = send(house, "GET //example.com/sessions/session-user-l HTTP/1.1")

    assert answer.status == 404
    assert "Location" not in answer.headers


# What may be sent.


@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("GET", LIST),
        ("DELETE", "/sessions/session-user-d/"),
        ("DELETE", "/sessions/session-user-d/others/"),
        ("PATCH", "/sessions/session-user-u/{id}/"),
        ("POST", "/auth/user/token/"),
        ("POST", "/auth/token/refresh/"),
        ("POST", "/auth/client/register/"),
        ("GET", "/sessions/no/such/address/"),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["by length", "in chunks"])
def test_a_body_over_64_kib_is_413_and_does_nothing(
    house: House, device: Device, method: str, address: str, is_chunked: bool
) -> None:
    body = b'{"name": "' + b"x" * LARGEST_BODY + b'"}'
    before = house.read(count_rows)

    answer = house.client.request(
        method,
        address.format(id=device.session),
        headers={"Authorization": f"Bearer {device.access}", "Content-Type": "application/json"},
        content=_in_pieces(body) if is_chunked else body,
    )

    assert (answer.status_code, answer.content) == (413, TOO_LARGE)
    assert answer.headers["Content-Type"] == "application/json"
    assert house.read(count_rows) == before


def _in_pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 10_000):
        yield body[start : start + 10_000]


def test_a_length_that_is_announced_is_refused_before_the_body_comes(house: House, device: Device) -> None:
    head = f"POST /auth/user/token/ HTTP/1.1\nAuthorization: Bearer {device.access}\nContent-Length: 60000000"

    answer = send(house, head)

    assert (answer.status, answer.body) == (413, TOO_LARGE)


def test_who_sends_his_body_all_the_same_still_hears_the_refusal(house: House) -> None:
    # More than the sockets between us hold: it only goes through where somebody reads it.
    body = b"x" * 400 * LARGEST_BODY
    host, _, port = house.address.removeprefix("http://").partition(":")
    head = f"POST /auth/user/token/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1, socket.MSG_PEEK)
        # As browsers do: they listen only once all is sent.
        connection.sendall(body)
        answer = _receive(connection)

    assert (answer.status, answer.body) == (413, TOO_LARGE)


def test_a_body_of_exactly_64_kib_is_read(house: House) -> None:
    account = house.add("user")
    body = json.dumps(account.credentials).encode()
    body += b" " * (LARGEST_BODY - len(body))

    answer = house.client.post("/auth/user/token/", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 200


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_small_body_where_none_is_wanted_is_ignored(house: House, device: Device, method: str) -> None:
    other = house.enter(device.account)
    address = f"/sessions/session-user-{'l' if method == 'GET' else 'd'}/{other.session}/"

    answer = house.ask(method, address, device, content=b"[not json", headers={"Content-Type": "text/plain"})

    assert answer.status_code in (200, 204)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        (None, 415),
        ("", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("application/jsonp", 415),
    ],
)
def test_a_body_is_json_or_415(house: House, device: Device, content_type: str | None, status: int) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}

    answer = house.ask(
        "PATCH",
        f"/sessions/session-user-u/{device.session}/",
        device,
        content=b'{"name": "Mine"}',
        headers=headers,
    )

    assert answer.status_code == status
    if status == 415:
        assert answer.json() == {"detail": "Send the body as application/json."}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", {"detail": "The body is not JSON."}),
        (b"{", {"detail": "The body is not JSON."}),
        (b"name=Mine", {"detail": "The body is not JSON."}),
        (b'{"name": NaN}', {"detail": "The body is not JSON."}),
        (b'{"name": "\\ud800"}', {"detail": "The body is not JSON."}),
        (b'{"name": "\xff"}', {"detail": "The body is not JSON."}),
        (b"[" * 60_000, {"detail": "The body is not JSON."}),
        (b"[]", {"detail": "Send a JSON object."}),
        (b"null", {"detail": "Send a JSON object."}),
        (b'"Mine"', {"detail": "Send a JSON object."}),
        (b"{}", {"name": ["This field is required."]}),
        (b'{"name": "Mine", "id": 1}', {"id": ["There is no such field."]}),
        (b'{"name": 1}', {"name": ["Input should be a valid string"]}),
        (b'{"name": ["Mine"]}', {"name": ["Input should be a valid string"]}),
        (b'{"names": "Mine"}', {"name": ["This field is required."], "names": ["There is no such field."]}),
    ],
)
def test_a_body_that_is_not_what_it_should_be_is_400_and_told_by_field(
    house: House, device: Device, body: bytes, told: dict[str, Any]
) -> None:
    address = f"/sessions/session-user-u/{device.session}/"
    before = house.read(count_rows)

    answer = house.ask("PATCH", address, device, content=body, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()) == (400, told)
    assert house.read(count_rows) == before


def test_who_has_no_token_is_told_so_before_what_is_wrong_with_his_body(house: House) -> None:
    answer = house.client.patch("/sessions/session-user-u/1/", content=b"x")

    assert (answer.status_code, answer.content) == (401, NOT_PROVIDED)


@pytest.mark.parametrize("address", ["/sessions/%ff/", "/sessions/session-user-l/?details=%ff", "/sessions/%c3%28/"])
def test_bytes_in_an_address_that_are_no_text_are_an_error_in_json(house: House, device: Device, address: str) -> None:
    answer = send(house, f"GET {address} HTTP/1.1\nAuthorization: Bearer {device.access}")

    assert answer.status in (400, 404)
    assert isinstance(json.loads(answer.body)["detail"], str)


# How it is answered.


def test_no_answer_is_kept_or_guessed_at(house: House, device: Device) -> None:
    for answer in (
        house.ask("GET", LIST, device),
        house.ask("GET", LIST),
        house.ask("GET", "/nowhere/"),
        house.client.post("/auth/user/token/", json=house.add("user").credentials),
    ):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "Sessions"


def test_a_page_elsewhere_may_be_open_while_a_program_asks(house: House) -> None:
    # No browser adds a Bearer token by itself: nothing to forge across sites.
    headers = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}

    answer = house.client.post("/auth/user/token/", json=house.add("user").credentials, headers=headers)

    assert answer.status_code == 200


def test_a_form_with_a_file_is_415_or_where_it_is_garbled_400(house: House, device: Device) -> None:
    address = f"/sessions/session-user-u/{device.session}/"

    whole = house.ask("PATCH", address, device, files={"name": b"Mine"})
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    garbled = house.ask("PATCH", address, device, content=b"Mine", headers=headers)

    assert (whole.status_code, whole.json()) == (415, {"detail": "Send the body as application/json."})
    assert (garbled.status_code, garbled.json()) == (400, {"detail": "The request can't be understood."})


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_addressed_as_the_caller_sees_the_server(house: House, kind: str) -> None:
    device = house.enter(house.add(kind))

    head = f"GET /sessions/session-{kind}-l/ HTTP/1.0\nHost: sessions.example\nAuthorization: Bearer {device.access}"
    host, _, port = house.address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        answer = _receive(connection)

    image = json.loads(answer.body)[0][kind]["image"]
    assert image.startswith(f"http://sessions.example/sessions/session-{kind}-l/{device.account.id}/static/Users/")


# Before whom stands a proxy.


@pytest.fixture(scope="module")
def behind(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server on the same database that believes this machine and 10.0.0.0/8 what they say of the caller."""
    trusted = {"SESSIONS_SERVER__TRUSTED_PROXIES": '["127.0.0.1/32", "10.0.0.0/8"]'}
    server = start_server(tmp_path_factory.mktemp("server"), house.url, **trusted)
    opened = House(server.address, house.url, house.run, server.log)
    yield opened
    opened.close()
    assert server.stop() == 0, server.log.read_text()


def start_from(house: House, headers: list[tuple[str, str]]) -> dict[str, Any]:
    """The details of a session that was started with these headers."""
    account = house.add("user")
    signed_in = house.client.post("/auth/user/token/", json=account.credentials, headers=headers)
    token = signed_in.json()["access"]
    proxied = [("Authorization", f"Bearer {token}"), *headers]
    answer = httpx.get(f"{house.address}{LIST}?details=true", headers=proxied, verify=NO_TLS)
    details: dict[str, Any] = answer.json()[0]
    return details


def test_who_is_no_trusted_proxy_is_the_caller_whatever_he_says(house: House) -> None:
    details = start_from(house, [("X-Forwarded-For", "198.51.100.7"), ("X-Forwarded-Proto", "https")])

    assert details["ip"] == "127.0.0.1"
    assert details["user"]["image"].startswith("http://")


@pytest.mark.parametrize(
    ("forwarded", "ip"),
    [
        (["198.51.100.7"], "198.51.100.7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        (["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7, 10.1.2.3"], "198.51.100.7"),
        (["198.51.100.7, nonsense, 10.1.2.3"], "10.1.2.3"),
        (["nonsense"], "127.0.0.1"),
        ([""], "127.0.0.1"),
        ([], "127.0.0.1"),
        (["10.1.2.3"], "10.1.2.3"),
        (["fe80::1%any text"], "127.0.0.1"),
    ],
)
def test_a_trusted_proxy_names_the_caller_and_nobody_behind_him_does(
    behind: House, forwarded: list[str], ip: str
) -> None:
    assert start_from(behind, [("X-Forwarded-For", value) for value in forwarded])["ip"] == ip


@pytest.mark.parametrize(
    ("said", "scheme"), [("https", "https"), ("http", "http"), ("http, https", "https"), ("ftp", "http"), ("", "http")]
)
def test_a_trusted_proxy_says_by_which_scheme_it_was_asked(behind: House, said: str, scheme: str) -> None:
    details = start_from(behind, [("X-Forwarded-Proto", said)])

    assert details["user"]["image"].startswith(f"{scheme}://")

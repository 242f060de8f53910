"""The log: in sentences with who did it, filtered, page by page, and as a file of any size."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, update

from handlers.admin.log import COLUMNS, write_csv
from handlers.admin.words import CAUSES, LOGGED, OTHER_CAUSES, TYPES
from handlers.pages import render_icon
from models import clock
from models.events import Cause, Type
from models.schema import EVENTS, USERS
from tests.conftest import Account, House, Server, open_house, start_server, wait_until
from tests.handlers.desks import Staff, staff_at


@pytest.fixture(scope="module")
def staff(house: House) -> Iterator[Staff]:
    """Somebody of the staff."""
    with staff_at(house) as browser:
        yield browser


def of(account: Account) -> str:
    """The query that asks for the events of an account."""
    return f"kind={account.kind}&account={account.id}"


@pytest.mark.parametrize("kind", ["user", "client"])
def test_each_event_is_a_sentence_that_says_who_did_it_to_whom(house: House, staff: Staff, kind: str) -> None:
    account = house.add(kind, confirmed=False)
    house.enter(account, "Spoken/1.0")
    page = f"/admin/accounts/{kind}/{account.id}/"
    staff.send(page, f"{page}disable/", reason="left the firm")

    log = staff.open(f"/admin/events/?{of(account)}")

    assert re.search(r"Test\s+signed in on\s+Spoken", log.words)
    assert re.search(r"Test\s+disabled the account of\s+Test", log.words)
    assert "Reason: left the firm" in log.words
    assert f"/admin/accounts/user/{staff.account.id}/" in log.links


def test_filters_combine(house: House, staff: Staff) -> None:
    account = house.add("user")
    device = house.enter(account, "Combined/1.0")
    house.enter(account, "Combined/2.0")
    house.ask("DELETE", "/sessions/session-user-d/", device)

    ends = staff.open(f"/admin/events/?type=ended&cause=signed_out&{of(account)}&session={device.session}")
    none = staff.open(f"/admin/events/?type=ended&cause=theft&{of(account)}")
    by = staff.open(f"/admin/events/?{of(account)}&by_kind=user&by={account.id}&ip=127.0.0.1&since=2020-01-01")

    assert "1 event matches." in ends.words
    assert "No event matches" in none.words
    assert "signed out on" in by.words


def test_a_long_log_goes_on_page_by_page_each_event_once(house: House, staff: Staff) -> None:
    account = house.add("client")
    for _ in range(6):
        house.enter(account)

    seen: list[str] = []
    address: str | None = f"/admin/events/?{of(account)}&limit=3"
    while address:
        html = staff.get(address, follow_redirects=True).text
        seen += re.findall(r'id="event-(\d+)"', html)
        following = re.search(r'rel="next" href="([^"]+)"', html)
        address = following[1].replace("&amp;", "&") if following else None

    assert len(seen) == len(set(seen)) == 7
    assert seen == sorted(seen, key=int, reverse=True)


def test_the_view_can_be_taken_away_as_csv_and_as_json_lines(house: House, staff: Staff) -> None:
    account = house.add("client")
    house.enter(account, "=HYPERLINK(1)")
    house.enter(account, "Mozilla; =cmd|'/C calc'!A0;-x")
    links = staff.open(f"/admin/events/?{of(account)}").links
    as_csv, as_jsonl = (staff.get(next(link for link in links if f"/{form}/" in link)) for form in ("csv", "jsonl"))

    rows = list(csv.DictReader(io.StringIO(as_csv.text)))
    lines = [json.loads(line) for line in as_jsonl.text.splitlines()]

    assert as_csv.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert re.fullmatch(r'attachment; filename="events-[0-9-]+\.csv"', as_csv.headers["Content-Disposition"])
    assert as_jsonl.headers["Content-Type"] == "application/jsonl"
    assert [row["type"] for row in rows] == [line["type"] for line in lines] == ["started", "started", "registered"]
    assert tuple(rows[0]) == tuple(lines[0]) == COLUMNS
    assert {row["account_id"] for row in rows} == {str(account.id)}
    # A spreadsheet would reckon with it; a program gets it as it is.
    assert rows[1]["device"] == "'=HYPERLINK(1)"
    assert lines[1]["device"] == "=HYPERLINK(1)"
    # Where it parts cells by semicolons, too.
    assert rows[0]["device"] == "Mozilla;' =cmd|'/C calc'!A0;'-x"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", rows[0]["at"])


def test_a_file_comes_in_pieces_and_whoever_goes_away_leaves_the_server_well(house: House, staff: Staff) -> None:
    with staff.client.stream("GET", "/admin/events/download/csv/") as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert next(answer.iter_bytes())

    assert house.client.get("/healthz").status_code == 200


MANY = 40_000


def fill_log(db: Connection) -> None:
    """More events than the sockets of one connection hold."""
    row = {"at": clock.now(), "type": "started", "kind": "user", "account_id": 1, "reason": "why " * 150}
    db.execute(insert(EVENTS), [row] * MANY)


@contextmanager
def taking_slowly(tmp_path: Path, url: str, version: str = "1.1") -> Iterator[tuple[Server, House, socket.socket]]:
    """A server of its own, and a connection that has begun to take the whole log from it."""
    server = start_server(tmp_path, url, SESSIONS_SERVER__REQUEST_SECONDS="4", SESSIONS_SERVER__SHUTDOWN_SECONDS="20")
    with open_house(server, url) as house, socket.socket() as taking:
        house.write(fill_log)
        with staff_at(house) as browser:
            assert browser.get("/admin/").status_code == 200
            cookie = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
        host = server.address.partition("//")[2]
        taking.connect((host.partition(":")[0], int(host.partition(":")[2])))
        taking.settimeout(20)
        head = f"Host: {host}\r\nCookie: {cookie}\r\nUser-Agent: Mozilla/5.0 tests\r\nConnection: close"
        taking.sendall(f"GET /admin/events/download/jsonl/ HTTP/{version}\r\n{head}\r\n\r\n".encode())
        assert taking.recv(4096).startswith(b"HTTP/1.1 200 ")
        # Longer than any request may take before it is answered.
        time.sleep(5.5)
        yield server, house, taking
    if server.process.poll() is None:
        server.stop()
    assert server.process.returncode == 0, server.log.read_text()


def take(taking: socket.socket) -> bytes:
    """All that still comes."""
    return b"".join(iter(lambda: taking.recv(65536), b""))


@pytest.mark.long
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_file_that_breaks_off_is_not_taken_for_whole(
    make_url: Callable[[str], str], tmp_path: Path, version: str
) -> None:
    url = make_url("sqlite")
    file = Path(url.removeprefix("sqlite:///"))
    with taking_slowly(tmp_path, url, version) as (_, house, taking):
        file.rename(file.with_name("away"))
        wait_until(lambda: house.client.get("/readyz").status_code == 503)
        with pytest.raises(ConnectionResetError):
            take(taking)
        file.with_name("away").rename(file)
        wait_until(lambda: house.client.get("/readyz").status_code == 200)


@pytest.mark.long
def test_whoever_is_staff_no_longer_gets_no_more_and_is_told_that_there_was(
    make_url: Callable[[str], str], tmp_path: Path
) -> None:
    with taking_slowly(tmp_path, make_url("sqlite")) as (_, house, taking):
        house.write(lambda db: db.execute(update(USERS).values(is_staff=False, is_viewer=False)) and None)
        with pytest.raises(ConnectionResetError):
            take(taking)


@pytest.mark.long
def test_a_server_that_is_stopped_sends_a_file_to_its_end(make_url: Callable[[str], str], tmp_path: Path) -> None:
    with taking_slowly(tmp_path, make_url("sqlite")) as (server, _, taking):
        server.process.terminate()
        wait_until(lambda: not server.is_up())
        sent = take(taking)
        # A second signal would find nobody who heeds it.
        server.process.wait(20)

    assert sent.endswith(b"0\r\n\r\n")
    assert sent.count(b"\n{") > MANY - 10


def test_a_file_that_cannot_be_asked_for_leads_back_to_the_page(staff: Staff) -> None:
    answer = staff.get("/admin/events/download/csv/?ip=nonsense")

    assert answer.status_code == 303
    assert answer.headers["Location"] == "/admin/events/?ip=nonsense"
    assert staff.get("/admin/events/download/xml/").status_code == 404


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "x"),
        ("account", "1"),
        ("session", "1"),
        ("by", "1"),
        ("ip", "300.1.1.1"),
        ("since", "2026-02-31"),
        ("until", "\u202e"),
        ("until", "9" * 400),
        ("type", "\x00"),
        ("cause", "x" * 300),
        ("after", "nonsense"),
        ("before", "9" * 40),
    ],
)
def test_what_cannot_be_read_is_told_on_the_page(staff: Staff, name: str, value: str) -> None:
    answer = staff.get("/admin/events/", params={name: value}, follow_redirects=True)

    assert answer.status_code in (200, 400)
    assert "Events" in answer.text


def test_every_event_and_every_cause_has_its_name_its_sentence_and_its_icon() -> None:
    assert set(TYPES) == {event.value for event in Type}
    assert set(CAUSES) == {cause.value for cause in Cause}
    assert {event.value for event in Type} <= {type_ for type_, _ in LOGGED}
    assert {("ended", cause.value) for cause in Cause} <= set(LOGGED)
    # Each names an account, and each cause is called something where an address asks for it.
    assert not [text for _, _, text in LOGGED.values() if "{whose}" not in text and "{by}" not in text]
    assert {cause for _, cause in LOGGED if cause} <= CAUSES.keys() | OTHER_CAUSES.keys()
    for picture, _, _ in LOGGED.values():
        assert "<svg" in render_icon(picture)


def test_a_cause_that_no_list_offers_is_called_something_where_it_is_asked_for(staff: Staff) -> None:
    page = staff.get("/admin/events/?type=started&cause=device").text

    assert '<option value="device" selected>A new device</option>' in page
    assert 'value="device"' not in staff.get("/admin/events/").text


def test_a_cell_is_no_formula() -> None:
    row = dict.fromkeys(COLUMNS)
    for begin in ("=", "+", "-", "@", "\t", "\r", "\uff1d", " =", "'="):
        cells = next(csv.reader(io.StringIO(write_csv([row | {"device": f"{begin}cmd"}]).decode(), newline="")))
        assert cells[COLUMNS.index("device")].startswith("'")

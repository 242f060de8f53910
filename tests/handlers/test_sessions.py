"""An account's sessions as programs list, name and end them."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from PIL import Image
from sqlalchemy import Connection, func, select, update

from models import clock
from models.schema import EVENTS, KINDS, Row
from tests.conftest import NO_TLS, Account, Device, House, wait_until
from tests.handlers.test_base import FORBIDDEN, NOT_FOUND, Raw, send

KEYS = {
    "user": [
        "id", "surname", "name", "patronymic", "address", "email", "phone", "image", "confirmed_email",
        "confirmed_phone", "created_at", "updated_at",
    ],
    "client": [
        "id", "surname", "name", "patronymic", "address", "phone", "image", "confirmed_phone", "created_at",
        "updated_at",
    ],
}  # fmt: skip
DETAILS = ["name", "current", "ip", "location", "browser", "os", "created_at", "last_seen_at", "expires_at"]

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
IDLE = {"user": timedelta(days=30), "client": timedelta(days=90)}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Either kind of account."""
    name: str = request.param
    return name


@pytest.fixture
def account(house: House, kind: str) -> Account:
    """An account."""
    return house.add(kind)


@pytest.fixture
def device(house: House, account: Account) -> Device:
    """The device that the account asks from."""
    return house.enter(account)


@pytest.fixture
def staff(house: House) -> Device:
    """A device of one of the staff."""
    return house.enter(house.add("user", staff=True), "staff/1")


def list_ids(house: House, device: Device, listed: int | str = "", query: str = "", kind: str = "") -> list[int]:
    """The ids that a list shows."""
    address = f"/sessions/session-{kind or device.account.kind}-l/{listed}/".replace("//", "/")
    answer = house.ask("GET", f"{address}{query}", device)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()]


def get_events(db: Connection, account: Account) -> list[Row]:
    """What happened to an account, the newest last."""
    mine = (EVENTS.c.kind == account.kind) & (EVENTS.c.account_id == account.id)
    return list(db.execute(select(EVENTS).where(mine).order_by(EVENTS.c.id)).mappings())


def set_session(db: Connection, kind: str, session_id: int, **values: Any) -> None:
    """Change a session past the models."""
    table = KINDS[kind].sessions
    db.execute(update(table).where(table.c.id == session_id).values(values))


def renumber(house: House, account: Account) -> Account:
    """Give a new account an id far above all others, so that a session can have the same."""
    table, new_id = KINDS[account.kind].accounts, account.id + 10**9
    house.write(lambda db: db.execute(update(table).where(table.c.id == account.id).values(id=new_id)) and None)
    return dataclasses.replace(account, id=new_id)


# Listing.


def test_it_lists_an_account_s_sessions_newest_first(house: House, account: Account, device: Device) -> None:
    second, third = house.enter(account, "second/2"), house.enter(account, "third/3")
    house.enter(house.add(account.kind))

    answer = house.ask("GET", f"/sessions/session-{account.kind}-l/{account.id}/", second)

    assert [(one["id"], one["device"]) for one in answer.json()] == [
        (third.session, "third/3"),
        (second.session, "second/2"),
        (device.session, "tests/1"),
    ]
    assert answer.json() == house.ask("GET", f"/sessions/session-{account.kind}-l/", device).json()


def test_it_lists_exactly_the_document_s_keys_in_their_order(house: House, account: Account, device: Device) -> None:
    for address in ("", f"{account.id}/", f"{device.session}/"):
        (one,) = house.ask("GET", f"/sessions/session-{account.kind}-l/{address}", device).json()
        assert list(one) == ["id", account.kind, "device"]
        assert list(one[account.kind]) == KEYS[account.kind]
        assert TIME.fullmatch(one[account.kind]["created_at"])


def test_it_adds_details_where_they_are_asked_for(house: House, account: Account, device: Device) -> None:
    other = house.enter(account)

    listed = house.ask("GET", f"/sessions/session-{account.kind}-l/?details=true", device).json()

    assert [one["id"] for one in listed] == [other.session, device.session]
    assert [one["current"] for one in listed] == [False, True]
    for one in listed:
        assert list(one) == ["id", account.kind, "device", *DETAILS]
        assert (one["name"], one["ip"], one["location"]) == (None, "127.0.0.1", None)
        created_at, seen_at, expires_at = (datetime.fromisoformat(one[name]) for name in DETAILS[-3:])
        assert all(TIME.fullmatch(one[name]) for name in DETAILS[-3:])
        assert created_at <= seen_at <= clock.now()
        assert expires_at - seen_at == IDLE[account.kind]


def test_details_are_not_there_where_they_are_not_wanted(house: House, account: Account, device: Device) -> None:
    (one,) = house.ask("GET", f"/sessions/session-{account.kind}-l/?details=false&more=1", device).json()

    assert list(one) == ["id", account.kind, "device"]


def test_one_session_is_shown_with_its_details(house: House, account: Account, device: Device) -> None:
    other = house.enter(account, "other/1")

    shown = house.ask("GET", f"/sessions/session-{account.kind}-r/{other.session}/", device).json()

    assert list(shown) == ["id", account.kind, "device", *DETAILS]
    assert (shown["id"], shown["device"], shown["current"]) == (other.session, "other/1", False)


def test_pages_of_a_list_can_be_walked_by_their_links(house: House, account: Account, device: Device) -> None:
    ids = [*[house.enter(account).session for _ in range(4)][::-1], device.session]
    address = f"/sessions/session-{account.kind}-l/{account.id}/"

    answer = house.ask("GET", f"{address}?limit=2", device)
    pages, relations = [[one["id"] for one in answer.json()]], [set(answer.links)]
    while "next" in answer.links:
        answer = house.ask("GET", answer.links["next"]["url"], device)
        pages.append([one["id"] for one in answer.json()])
        relations.append(set(answer.links))
        assert answer.headers["X-Total-Count"] == "5"

    assert pages == [ids[:2], ids[2:4], ids[4:]]
    assert relations == [{"first", "next", "last"}, {"first", "prev", "next", "last"}, {"first", "prev", "last"}]
    before = house.ask("GET", answer.links["prev"]["url"], device)
    assert [one["id"] for one in before.json()] == ids[2:4]
    for relation, page in (("first", ids[:2]), ("last", ids[4:])):
        assert [one["id"] for one in house.ask("GET", answer.links[relation]["url"], device).json()] == page


def test_links_to_pages_keep_the_details(house: House, account: Account, device: Device) -> None:
    house.enter(account)

    first = house.ask("GET", f"/sessions/session-{account.kind}-l/?details=true&limit=1", device)

    assert "current" in house.ask("GET", first.links["next"]["url"], device).json()[0]


def test_a_page_is_an_array_and_says_how_many_there_are(house: House, account: Account, device: Device) -> None:
    ids = [*[house.enter(account).session for _ in range(2)][::-1], device.session]
    pages = {
        "?limit=1": ids[:1],
        "?limit=1000": ids,
        "?offset=0": ids,
        "?offset=1": ids[1:],
        "?limit=1&offset=2": ids[2:],
        "?offset=3": [],
        "?limit=5&offset=1000000": [],
    }

    for query, page in pages.items():
        answer = house.ask("GET", f"/sessions/session-{account.kind}-l/{query}", device)
        assert [one["id"] for one in answer.json()] == page, query
        assert answer.headers["X-Total-Count"] == "3"
        assert set(answer.links) >= {"first", "last"}


def test_from_a_page_one_comes_to_those_beside_it(house: House, account: Account, device: Device) -> None:
    for _ in range(3):
        house.enter(account)
    address = f"/sessions/session-{account.kind}-l/"
    beside = {
        "limit=2&offset=2": {"prev": "limit=2&offset=0"},
        # None is on two pages.
        "limit=2&offset=1": {"prev": "limit=1&offset=0", "next": "limit=2&offset=3"},
        # From past the end back to what there is.
        "limit=1&offset=7": {"prev": "limit=1&offset=3"},
        "offset=100": {"prev": "limit=4&offset=0"},
    }

    for query, links in beside.items():
        told = house.ask("GET", f"{address}?{query}", device).links
        assert {name: told[name]["url"].partition("?")[2] for name in ("prev", "next") if name in told} == links, query


NONSENSE = [
    "limit=0", "limit=-1", "limit=1001", "limit=x", "limit=1e3", "limit=1.5", "limit=", "limit=9999999999999999999999",
    "offset=-1", "offset=1000001", "offset=x", "details=maybe", "details=",
]  # fmt: skip


def test_a_page_that_makes_no_sense_is_400_and_says_which_part(house: House, device: Device) -> None:
    for query in NONSENSE:
        answer = house.ask("GET", f"/sessions/session-{device.account.kind}-l/?{query}", device)
        assert answer.status_code == 400, query
        assert list(answer.json()) == [query.partition("=")[0]]


def test_a_session_s_id_lists_that_session_alone(house: House, account: Account, device: Device) -> None:
    other = house.enter(account, "other/1")

    assert list_ids(house, device, other.session) == [other.session]
    assert list_ids(house, device, device.session) == [device.session]
    assert list_ids(house, device, other.session, "?details=true&limit=1") == [other.session]


def test_another_s_session_id_lists_nothing(house: House, device: Device) -> None:
    stranger = house.enter(house.add(device.account.kind))

    answer = house.ask("GET", f"/sessions/session-{device.account.kind}-l/{stranger.session}/", device)

    assert (answer.status_code, answer.content) == (403, FORBIDDEN)


def test_where_an_id_is_the_account_s_and_a_session_s_the_account_s_goes_first(house: House, account: Account) -> None:
    account = renumber(house, account)
    first, second = house.enter(account), house.enter(account)
    house.write(lambda db: set_session(db, account.kind, first.session, id=account.id))

    assert list_ids(house, second, account.id) == [account.id, second.session]
    assert list_ids(house, second, second.session) == [second.session]


def test_to_staff_an_account_without_sessions_is_an_empty_list_though_a_session_has_its_id(
    house: House, account: Account, device: Device, staff: Device
) -> None:
    empty = renumber(house, house.add(account.kind))
    house.write(lambda db: set_session(db, account.kind, device.session, id=empty.id))

    assert list_ids(house, staff, empty.id, kind=account.kind) == []
    assert list_ids(house, staff, empty.id, "?limit=5", kind=account.kind) == []
    assert list_ids(house, staff, account.id, kind=account.kind) == [empty.id]


def test_what_has_expired_is_not_there_though_nobody_swept_it(house: House, account: Account, device: Device) -> None:
    old = house.enter(account)
    house.write(lambda db: set_session(db, account.kind, old.session, expires_at=clock.now()))

    assert list_ids(house, device) == [device.session]
    for method, address in (("GET", "r"), ("DELETE", "d"), ("GET", "l")):
        answer = house.ask(method, f"/sessions/session-{account.kind}-{address}/{old.session}/", device)
        assert (answer.status_code, answer.content) == (403, FORBIDDEN)
        assert house.ask("GET", f"/sessions/session-{account.kind}-l/", old).status_code == 403
    assert house.ask("DELETE", f"/sessions/session-{account.kind}-d/others/", device).json() == {"ended": 0}


def test_a_list_that_was_sent_before_is_not_sent_past_the_end_of_one_of_its_sessions(
    house: House, account: Account, device: Device
) -> None:
    old = house.enter(account)
    soon = clock.now() + timedelta(milliseconds=200)
    house.write(lambda db: set_session(db, account.kind, old.session, expires_at=soon))
    address = f"/sessions/session-{account.kind}-l/"
    known = {"If-None-Match": house.ask("GET", address, device).headers["Etag"]}

    wait_until(lambda: clock.now() > soon)

    assert list_ids(house, device) == [device.session]
    assert house.ask("GET", address, device, headers=known).status_code == 200


def test_who_knows_a_list_already_is_told_that_it_is_the_same(house: House, account: Account, device: Device) -> None:
    address = f"/sessions/session-{account.kind}-l/"
    first = house.ask("GET", address, device)

    again = house.ask("GET", address, device, headers={"If-None-Match": first.headers["Etag"]})
    house.enter(account)
    changed = house.ask("GET", address, device, headers={"If-None-Match": first.headers["Etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["Etag"] == first.headers["Etag"]
    assert (changed.status_code, len(changed.json())) == (200, 2)
    assert changed.headers["Etag"] != first.headers["Etag"]


def test_a_list_is_not_the_same_for_another_account_or_site(house: House, account: Account, device: Device) -> None:
    address = f"/sessions/session-{account.kind}-l/"
    known = {"If-None-Match": house.ask("GET", address, device).headers["Etag"]}
    other = house.enter(house.add(account.kind))

    theirs = house.ask("GET", address, other, headers=known)
    elsewhere = house.ask("GET", address, device, headers=known | {"Host": "sessions.example.com"})

    # Both accounts are at the same revision, with as many sessions.
    revision = known["If-None-Match"].strip('"').rpartition(".")[0]
    assert theirs.headers["Etag"].strip('"').rpartition(".")[0] == revision
    assert (theirs.status_code, [one["id"] for one in theirs.json()]) == (200, [other.session])
    assert elsewhere.status_code == 200
    assert "sessions.example.com" in elsewhere.text
    assert house.ask("GET", address, device, headers=known).status_code == 304


def test_who_may_not_see_a_list_is_not_told_that_it_is_the_same(house: House, account: Account, device: Device) -> None:
    address = f"/sessions/session-{account.kind}-l/"
    known = {"If-None-Match": house.ask("GET", address, device).headers["Etag"]}
    other = house.enter(account)
    assert house.ask("DELETE", f"/sessions/session-{account.kind}-d/", other).status_code == 204

    assert house.ask("GET", address, other, headers=known).status_code == 403
    assert house.ask("GET", address, other, headers={"If-None-Match": "*"}).status_code == 403


# Naming.


NAMES = [
    "Work laptop", "x" * 64, "ж" * 64, "\N{GRINNING FACE}" * 64, "מחשב", "الهاتف", "<b>&\"'", "null", "a  b", "e\u0301",
]  # fmt: skip


def test_a_session_is_named_and_shown_with_its_name(house: House, device: Device) -> None:
    address = f"/sessions/session-{device.account.kind}-u/{device.session}/"
    for name in NAMES:
        named = house.ask("PATCH", address, device, json={"name": name})
        assert (named.status_code, named.json()["name"]) == (200, name)
        assert list(named.json()) == ["id", device.account.kind, "device", *DETAILS]
        assert house.ask("GET", address.replace("-u/", "-r/"), device).json()["name"] == name


def test_spaces_around_a_name_are_not_part_of_it(house: House, device: Device) -> None:
    address = f"/sessions/session-{device.account.kind}-u/{device.session}/"

    assert house.ask("PATCH", address, device, json={"name": "  Work\u3000 "}).json()["name"] == "Work"


def test_null_takes_a_name_away(house: House, device: Device) -> None:
    address = f"/sessions/session-{device.account.kind}-u/{device.session}/"
    house.ask("PATCH", address, device, json={"name": "Work laptop"})

    answer = house.ask("PATCH", address, device, json={"name": None})

    assert (answer.status_code, answer.json()["name"]) == (200, None)
    assert house.ask("GET", address.replace("-u/", "-r/"), device).json()["name"] is None


NO_NAMES = [
    "", " ", "\u3000\t", "x" * 65, "\N{GRINNING FACE}" * 65, "a\0b", "a\nb", "a\x1bb", "a\x7fb", "a\x85b",
    "\u202eabc", "abc\u202c", "a\u200fb", "\u200e", "\u061cabc", "\u2066abc\u2069", 7, True, ["a"], {"a": "b"},
]  # fmt: skip


def test_a_name_that_is_none_is_400_and_changes_nothing(house: House, device: Device) -> None:
    address = f"/sessions/session-{device.account.kind}-u/{device.session}/"
    house.ask("PATCH", address, device, json={"name": "Work laptop"})
    before = house.read(get_events, device.account)

    for name in NO_NAMES:
        answer = house.ask("PATCH", address, device, json={"name": name})
        assert answer.status_code == 400, name
        assert list(answer.json()) == ["name"]
        assert all(isinstance(message, str) for message in answer.json()["name"])

    assert house.ask("GET", address.replace("-u/", "-r/"), device).json()["name"] == "Work laptop"
    assert house.read(get_events, device.account) == before


def test_a_name_is_seen_by_staff_and_by_the_other_device_at_once(
    house: House, account: Account, device: Device, staff: Device
) -> None:
    other = house.enter(account)
    assert {one["name"] for one in _details(house, account, other)} == {None}

    house.ask("PATCH", f"/sessions/session-{account.kind}-u/{device.session}/", other, json={"name": "Old phone"})

    for watching in (device, other, staff):
        assert [one["name"] for one in _details(house, account, watching)] == [None, "Old phone"]
    event = house.read(get_events, account)[-1]
    assert (event["type"], event["session_id"], event["by_id"]) == ("named", device.session, account.id)
    assert event["cause"] is None


def _details(house: House, account: Account, device: Device) -> list[dict[str, Any]]:
    answer = house.ask("GET", f"/sessions/session-{account.kind}-l/{account.id}/?details=true", device)
    listed: list[dict[str, Any]] = answer.json()
    return listed


# Ending.


@pytest.mark.parametrize("is_by_id", [True, False])
def test_signing_out_ends_the_session_that_asks(house: House, account: Account, device: Device, is_by_id: bool) -> None:
    other = house.enter(account)
    own = f"{device.session}/" if is_by_id else ""

    answer = house.ask("DELETE", f"/sessions/session-{account.kind}-d/{own}", device)

    assert (answer.status_code, answer.content) == (204, b"")
    assert list_ids(house, other) == [other.session]
    event = house.read(get_events, account)[-1]
    assert (event["type"], event["cause"], event["session_id"]) == ("ended", "signed_out", device.session)


def test_once_ended_a_session_is_good_for_nothing(house: House, account: Account, device: Device) -> None:
    other = house.enter(account, "other/1")
    list_ids(house, other)
    assert house.ask("DELETE", f"/sessions/session-{account.kind}-d/{other.session}/", device).status_code == 204

    for method, address in (("GET", "l/"), ("GET", f"r/{device.session}/"), ("DELETE", "d/"), ("DELETE", "d/others/")):
        answer = house.ask(method, f"/sessions/session-{account.kind}-{address}", other)
        assert (answer.status_code, answer.content) == (403, FORBIDDEN)
    refreshed = house.client.post("/auth/token/refresh/", json={"refresh": other.refresh})
    assert (refreshed.status_code, refreshed.content) == (403, FORBIDDEN)
    again = house.ask("DELETE", f"/sessions/session-{account.kind}-d/{other.session}/", device)
    assert (again.status_code, again.content) == (403, FORBIDDEN)


def test_ending_all_others_says_how_many_those_were(house: House, account: Account, device: Device) -> None:
    others = [house.enter(account) for _ in range(3)]
    stranger = house.enter(house.add(account.kind))
    address = f"/sessions/session-{account.kind}-d/others/"

    first, second = house.ask("DELETE", address, device), house.ask("DELETE", address, device)

    assert (first.status_code, first.content) == (200, b'{"ended":3}')
    assert (second.status_code, second.content) == (200, b'{"ended":0}')
    assert list_ids(house, device) == [device.session]
    assert [house.ask("GET", f"/sessions/session-{account.kind}-l/", one).status_code for one in others] == [403] * 3
    assert list_ids(house, stranger) == [stranger.session]
    ended = [event for event in house.read(get_events, account) if event["type"] == "ended"]
    assert [(event["cause"], event["session_id"]) for event in ended] == [("owner", one.session) for one in others]


def test_of_many_who_end_one_session_at_once_one_did(house: House, account: Account, device: Device) -> None:
    other = house.enter(account)
    address = f"{house.address}/sessions/session-{account.kind}-d/{other.session}/"

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(httpx.delete, address, headers=device.headers) for _ in range(8)]
        statuses = [one.result().status_code for one in asked]

    assert sorted(statuses) == [204] + [403] * 7
    assert [event["type"] for event in house.read(get_events, account)].count("ended") == 1


def test_staff_list_name_and_end_anyone_s_sessions_and_the_log_says_who(
    house: House, account: Account, device: Device, staff: Device
) -> None:
    other = house.enter(account, "other/1")
    assert list_ids(house, staff, account.id, kind=account.kind) == [other.session, device.session]
    assert list_ids(house, staff, other.session, kind=account.kind) == [other.session]

    named = house.ask("PATCH", f"/sessions/session-{account.kind}-u/{other.session}/", staff, json={"name": "Odd"})
    ended = house.ask("DELETE", f"/sessions/session-{account.kind}-d/{other.session}/", staff)

    assert (named.status_code, named.json()["current"], ended.status_code) == (200, False, 204)
    assert list_ids(house, device) == [device.session]
    named_event, ended_event = house.read(get_events, account)[-2:]
    by = {"by_kind": "user", "by_id": staff.account.id, "ip": "127.0.0.1", "session_id": other.session}
    assert dict(named_event) | by | {"type": "named", "cause": "staff"} == dict(named_event)
    assert dict(ended_event) | by | {"type": "ended", "cause": "staff", "device": "other/1"} == dict(ended_event)


def test_staff_who_end_a_session_of_their_own_are_its_owner(house: House, staff: Device) -> None:
    other = house.enter(staff.account)

    assert house.ask("DELETE", f"/sessions/session-user-d/{other.session}/", staff).status_code == 204

    assert house.read(get_events, staff.account)[-1]["cause"] == "owner"


def test_all_others_are_those_of_the_caller_s_account_also_for_staff(
    house: House, account: Account, device: Device, staff: Device
) -> None:
    mine = house.enter(staff.account)

    answer = house.ask("DELETE", "/sessions/session-user-d/others/", staff)

    assert answer.json() == {"ended": 1}
    assert house.ask("GET", "/sessions/session-user-l/", mine).status_code == 403
    assert list_ids(house, device) == [device.session]


def test_who_is_staff_no_longer_sees_no_more_than_his_own(
    house: House, account: Account, device: Device, staff: Device
) -> None:
    assert list_ids(house, staff, account.id, kind=account.kind) == [device.session]
    users = KINDS["user"].accounts
    taken = update(users).where(users.c.id == staff.account.id).values(is_staff=False)
    house.write(lambda db: db.execute(taken) and None)

    for method, address in (
        ("GET", f"l/{account.id}"),
        ("GET", f"r/{device.session}"),
        ("DELETE", f"d/{device.session}"),
    ):
        assert house.ask(method, f"/sessions/session-{account.kind}-{address}/", staff).status_code == 403
    assert list_ids(house, staff) == [staff.session]


# The picture.


def test_the_picture_s_address_serves_a_real_jpeg_to_anyone(house: House, account: Account, device: Device) -> None:
    address = house.ask("GET", f"/sessions/session-{account.kind}-l/", device).json()[0][account.kind]["image"]

    answer = httpx.get(address, verify=NO_TLS)

    file = f"/sessions/session-{account.kind}-l/{account.id}/static/Users/default-user-image.jpeg"
    assert address == f"{house.address}{file}"
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg")
    # Other sites may show it.
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    with Image.open(io.BytesIO(answer.content)) as image:
        image.load()
        assert (image.format, min(image.size) >= 32) == ("JPEG", True)
    headed = httpx.head(address, verify=NO_TLS)
    assert (headed.status_code, headed.content, headed.headers["Content-Length"]) == (
        200,
        b"",
        str(len(answer.content)),
    )


@pytest.mark.parametrize(
    "file", ["other.jpeg", "..%2f..%2fconfig.yaml", "%2e%2e/config.yaml", "default-user-image.jpeg/", "", "%00"]
)
def test_no_other_file_is_served(house: House, kind: str, file: str) -> None:
    answer = send(house, f"GET /sessions/session-{kind}-l/1/static/Users/{file} HTTP/1.1")

    assert (answer.status, answer.body) == (404, NOT_FOUND)


# The device: any User-Agent is kept as it came, and none is an error.

AGENTS = [
    pytest.param(None, "", id="missing"),
    pytest.param(b"", "", id="empty"),
    pytest.param(b"x" * 10_000, "x" * 512, id="10 kB"),
    pytest.param("Телефон Ольги \N{GRINNING FACE}".encode(), "Телефон Ольги \N{GRINNING FACE}", id="UTF-8"),
    pytest.param("ж".encode() * 600, "ж" * 512, id="600 characters in UTF-8"),
    pytest.param("\N{GRINNING FACE}".encode() * 600, "\N{GRINNING FACE}" * 512, id="600 emoji"),
    pytest.param("Café/1".encode("latin-1"), "Café/1", id="Latin-1"),
    pytest.param(b"\xff\xfe/1", "ÿþ/1", id="no text at all"),
    pytest.param(b"<script>alert('1')</script>", "<script>alert('1')</script>", id="markup"),
]


@pytest.mark.parametrize(("agent", "kept"), AGENTS)
def test_any_user_agent_signs_in_lists_names_and_ends(
    house: House, account: Account, agent: bytes | None, kept: str
) -> None:
    line = b"" if agent is None else b"\nUser-Agent: " + agent
    credentials = json.dumps(account.credentials).encode()

    def ask(method: str, address: str, token: str, body: bytes = b"") -> Raw:
        head = f"{method} {address} HTTP/1.1\nAuthorization: {token}\nContent-Type: application/json"
        return send(house, f"{head}\nContent-Length: {len(body)}".encode() + line, body)

    started = ask("POST", f"/auth/{account.kind}/token/", "", credentials)
    assert started.status == 200, started.body
    body = json.loads(started.body)
    token, session = f"Bearer {body['access']}", body["session"]
    listed = ask("GET", f"/sessions/session-{account.kind}-l/", token)
    named = ask("PATCH", f"/sessions/session-{account.kind}-u/{session}/", token, b'{"name": "Mine"}')
    ended = ask("DELETE", f"/sessions/session-{account.kind}-d/", token)

    assert [one["device"] for one in json.loads(listed.body)] == [kept]
    assert (listed.status, named.status, ended.status) == (200, 200, 204)


def test_the_name_that_a_session_has_already_is_no_event(house: House, kind: str) -> None:
    device = house.enter(house.add(kind))
    address = f"/sessions/session-{kind}-u/{device.session}/"
    answers = [house.ask("PATCH", address, device, json={"name": "Till"}) for _ in range(3)]
    assert [answer.json()["name"] for answer in answers] == ["Till"] * 3
    named = (EVENTS.c.session_id == device.session) & (EVENTS.c.kind == kind) & (EVENTS.c.type == "named")
    assert house.read(lambda db: db.scalar(select(func.count()).select_from(EVENTS).where(named))) == 1

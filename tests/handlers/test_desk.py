"""JSON for staff: who may ask what, lists and their pages, ending all that match, the emergency."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, delete, false, func, insert, select, update

from models import clock, counts, cutoffs, jobs, sessions
from models.accounts import AccountChange, LastStaff, change_by_staff
from models.events import Cause
from models.filters import SessionFilter
from models.origins import Origin
from models.principals import Principal
from models.schema import EVENTS, JOBS, KINDS, USER, Kind, Row
from models.settings import SessionSettings
from tests.conftest import NO_TLS, Account, Device, House, open_house, open_loop, start_server, wait_until
from tests.handlers.test_base import FORBIDDEN

ADDRESSES = {
    "sessions": ("GET", "/sessions/", None),
    "accounts": ("GET", "/accounts/{kind}/", None),
    "events": ("GET", "/events/", None),
    "job": ("GET", "/sessions/end/{job}/", None),
    "end": ("POST", "/sessions/end/", {"filter": {"kind": "client", "account": "{owner}"}}),
    "change": ("PATCH", "/accounts/{kind}/{owner}/", {"confirmed": True}),
}
TABLE = """
who       sessions  accounts  events  job  end  change
nobody    401       401       401     401  401  401
user      403       403       403     403  403  403
client    403       403       403     403  403  403
viewer    200       200       200     200  403  403
staff     200       200       200     200  202  200
disabled  403       403       403     403  403  403
ended     403       403       403     403  403  403
unmade    403       403       403     403  403  403
"""
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]


def add(house: House, **roles: bool) -> Device:
    """A device of a new user with these roles."""
    device = house.enter(house.add("user"))
    if roles:
        house.write(give, device.account, roles)
    return device


def give(db: Connection, account: Account, values: dict[str, Any]) -> None:
    """Change a user past the models."""
    db.execute(update(USER.accounts).where(USER.accounts.c.id == account.id).values(**values))


def principal_of(device: Device) -> Principal:
    """A member of staff, in the session of its device."""
    return Principal(USER, device.account.id, device.session, "staff")


@pytest.fixture
def staff(house: House) -> Device:
    """A device of one of the staff."""
    return add(house, is_staff=True)


def make_caller(house: House, who: str) -> Device | None:
    """Whoever asks."""
    if who == "nobody":
        return None
    if who == "client":
        return house.enter(house.add("client"))
    roles = {"user": {}, "viewer": {"is_viewer": True}}.get(who, {"is_staff": True})
    caller = add(house, **roles)
    if who == "disabled":
        house.write(give, caller.account, {"disabled_at": clock.now()})
    elif who == "unmade":
        house.write(give, caller.account, {"is_staff": False})
    elif who == "ended":
        assert house.write(sessions.end_one, USER, caller.session, Cause.SIGNED_OUT, clock.now())
    return caller


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_who_may_ask_what(house: House, staff: Device, row: list[str]) -> None:
    who, *statuses = row
    caller = make_caller(house, who)
    owners = {kind: house.enter(house.add(kind)) for kind in KINDS}
    owner = owners["client"]
    job = start_job(house, staff, SessionFilter(kind="client", account=10**9))
    for act, status in zip(HEAD[1:], statuses, strict=True):
        method, address, body = ADDRESSES[act]
        for kind in KINDS if "{kind}" in address else ("client",):
            concrete = address.format(kind=kind, owner=owners[kind].account.id, job=job["id"])
            sent = {"json": fill(body, owner.account.id)} if body else {}
            answer = house.ask(method, concrete, caller, **sent)
            assert answer.status_code == int(status), f"{who} {act}: {answer.text}"
            if answer.status_code == 403:
                assert answer.content == FORBIDDEN
    is_ended = who == "staff"
    wait_until(lambda: is_live(house, owner) is not is_ended)


def fill(body: dict[str, Any], owner: int) -> dict[str, Any]:
    if "filter" not in body:
        return body
    return {"filter": {name: text.format(owner=owner) for name, text in body["filter"].items()}}


def is_live(house: House, device: Device) -> bool:
    return house.ask("GET", f"/sessions/session-{device.account.kind}-l/", device).status_code == 200


def start_job(house: House, staff: Device, sought: SessionFilter) -> Row:
    """A job that nobody was told of."""
    row = house.write(jobs.start, principal_of(staff), sought, 0, None, Origin(), clock.now())
    assert row
    found: Row = row
    return found


def test_a_viewer_sees_every_session_and_ends_and_names_only_his_own(house: House) -> None:
    viewer, other = add(house, is_viewer=True), house.enter(house.add("client"))
    second = house.enter(viewer.account)
    client, user = "/sessions/session-client", "/sessions/session-user"
    assert house.ask("GET", f"{client}-l/{other.account.id}/", viewer).status_code == 200
    assert house.ask("GET", f"{client}-r/{other.session}/", viewer).status_code == 200
    assert house.ask("PATCH", f"{client}-u/{other.session}/", viewer, json={"name": "Mine"}).status_code == 403
    assert house.ask("DELETE", f"{client}-d/{other.session}/", viewer).status_code == 403
    assert is_live(house, other)
    assert house.ask("PATCH", f"{user}-u/{second.session}/", viewer, json={"name": "Mine"}).status_code == 200
    assert house.ask("DELETE", f"{user}-d/{second.session}/", viewer).status_code == 204
    assert house.ask("DELETE", f"{user}-d/others/", viewer).json() == {"ended": 0}


def test_a_list_goes_on_at_its_links_without_gaps_or_repeats(house: House, staff: Device) -> None:
    account = house.add("client")
    devices = [house.enter(account, f"agent/{number}") for number in range(7)]
    address: str | None = f"/sessions/?kind=client&account={account.id}&limit=3"
    seen, totals, links = [], set(), ""
    while address:
        answer = house.ask("GET", address, staff)
        seen += [(row["kind"], row["id"]) for row in answer.json()]
        totals.add(answer.headers["X-Total-Count"])
        links = answer.headers["Link"]
        found = re.search(r'<([^>]+)>; rel="next"', links)
        address = found[1] if found else None
    assert seen == [("client", device.session) for device in reversed(devices)]
    assert totals == {"7"}
    assert 'rel="prev"' in links


def test_a_session_is_shown_with_its_details_and_its_account(house: House, staff: Device) -> None:
    device = house.enter(house.add("client"), "curl/8.14.1")
    answer = house.ask("GET", f"/sessions/?kind=client&account={device.account.id}", staff)
    (row,) = answer.json()
    alone = house.ask("GET", f"/sessions/session-client-r/{device.session}/", staff).json()
    assert row == {"kind": "client"} | alone


@pytest.mark.parametrize(
    ("address", "field"),
    [
        ("/sessions/?browsr=Chrome", "browsr"),
        ("/sessions/?limit=0", "limit"),
        ("/sessions/?limit=201", "limit"),
        ("/sessions/?ip=10.0.0.0/33", "ip"),
        ("/sessions/?idle=soon", "idle"),
        ("/sessions/?started_from=yesterday", "started_from"),
        ("/sessions/?seen_to=1969-01-01", "seen_to"),
        ("/sessions/?sort=name", "sort"),
        ("/sessions/?account=1", "detail"),
        ("/sessions/?after=nowhere", "detail"),
        ("/sessions/?after=user.1~n1&before=user.1~n1", "detail"),
        ("/sessions/?q=%00", "q"),
        ("/accounts/user/?state=asleep", "state"),
        ("/accounts/user/?sort=surname&after=user.1~n1", "detail"),
        ("/events/?session=1&kind=user", "detail"),
        ("/events/?by=1", "detail"),
        ("/events/?type=A", "type"),
    ],
)
def test_what_a_list_can_t_be_asked_for_is_told_by_field(house: House, staff: Device, address: str, field: str) -> None:
    answer = house.ask("GET", address, staff)
    assert (answer.status_code, list(answer.json())) == (400, [field]), answer.text


def test_accounts_are_listed_with_what_staff_know_of_them(house: House, staff: Device) -> None:
    account = house.add("user")
    house.enter(account)
    (row,) = house.ask("GET", f"/accounts/user/?q=%2B{account.contact[1:]}", staff).json()
    assert row["id"] == account.id
    assert {name: row[name] for name in ("confirmed", "disabled", "staff", "viewer", "sessions")} == {
        "confirmed": True, "disabled": False, "staff": False, "viewer": False, "sessions": 1,
    }  # fmt: skip


def test_all_that_match_are_ended_with_a_reason_and_later_ones_are_not(house: House, staff: Device) -> None:
    account = house.add("client")
    devices = [house.enter(account) for _ in range(5)]
    sought = {"kind": "client", "account": str(account.id)}
    answer = house.ask("POST", "/sessions/end/", staff, json={"filter": sought, "reason": "An audit"})
    assert (answer.status_code, answer.json()["total"]) == (202, 5)
    later = house.enter(account)
    address = answer.headers["Location"]
    wait_until(lambda: house.ask("GET", address, staff).json()["state"] == "done")
    assert house.ask("GET", address, staff).json()["ended"] == 5
    assert [is_live(house, device) for device in (*devices, later)] == [False] * 5 + [True]
    ended = house.ask("GET", f"/events/?kind=client&account={account.id}&type=ended", staff).json()
    assert {(row["cause"], row["reason"], row["by_id"]) for row in ended} == {("staff", "An audit", staff.account.id)}
    assert sorted(row["session_id"] for row in ended) == [device.session for device in devices]


@pytest.mark.parametrize("asked", ["idle", "seen_to"])
def test_where_idle_ones_are_ended_what_was_used_since_stays(house: House, staff: Device, asked: str) -> None:
    account, now = house.add("client"), clock.now()
    idle, fresh = (house.enter(account) for _ in range(2))
    columns = KINDS["client"].sessions.c

    def age(db: Connection) -> None:
        old = update(KINDS["client"].sessions).where(columns.id == idle.session)
        db.execute(old.values(created_at=now - timedelta(days=50), last_seen_at=now - timedelta(days=40)))

    house.write(age)
    sought = {"kind": "client", "account": str(account.id)}
    sought[asked] = "30d" if asked == "idle" else clock.to_iso(now - timedelta(days=30))
    answer = house.ask("POST", "/sessions/end/", staff, json={"filter": sought})
    assert answer.json()["total"] == 1
    wait_until(lambda: house.ask("GET", answer.headers["Location"], staff).json()["state"] == "done")
    assert house.ask("GET", answer.headers["Location"], staff).json()["ended"] == 1
    assert [is_live(house, device) for device in (idle, fresh)] == [False, True]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filter": {"browsr": "x"}},
        {"filter": {"country": ""}},
        {"filter": {"country": " \u00a0"}},
        {"filter": {"account": "", "kind": "user"}},
        {"filter": {"limit": "10"}},
        {"filter": {"device": "x" * 65}},
        {"filter": {"after": "user.1~n1"}},
        {"filter": {}, "reason": ""},
        {"filter": []},
    ],
)
def test_what_is_not_understood_ends_nothing(house: House, staff: Device, body: dict[str, Any]) -> None:
    before = house.read(count_jobs)
    assert house.ask("POST", "/sessions/end/", staff, json=body).status_code == 400
    assert house.read(count_jobs) == before


def count_jobs(db: Connection) -> int:
    return db.scalar(select(func.count()).select_from(JOBS)) or 0


@pytest.mark.long
@pytest.mark.parametrize("change", [{"is_staff": False}, {"disabled_at": clock.now()}], ids=["unmade", "disabled"])
def test_a_job_stops_where_whoever_asked_is_no_longer_staff(house: House, change: dict[str, Any]) -> None:
    boss, target = add(house, is_staff=True), house.enter(house.add("client"))
    viewer = add(house, is_viewer=True)
    sought = SessionFilter(kind="client", account=target.account.id)

    def start(db: Connection) -> Row:
        row = jobs.start(db, principal_of(boss), sought, 1, None, Origin(), clock.now())
        assert row
        give(db, boss.account, change)
        return row

    row = house.write(start)
    told = wait_until(
        lambda: (found := house.ask("GET", f"/sessions/end/{row['id']}/", viewer).json())["finished_at"] and found
    )
    assert (told["state"], told["ended"]) == ("stopped", 0)
    assert is_live(house, target)


def test_a_job_is_for_what_was_started_by_the_time_that_it_was_asked_for(house: House) -> None:
    boss, target = add(house, is_staff=True), house.enter(house.add("client"))
    ahead = SessionFilter(kind="client", account=target.account.id, started_to=clock.now() + timedelta(days=1))

    def start(db: Connection) -> Row | None:
        row = jobs.start(db, principal_of(boss), ahead, 1, None, Origin(), clock.now())
        # Before anybody takes it up.
        db.execute(delete(JOBS).where(JOBS.c.id == row["id"] if row else false()))
        return row

    row = house.write(start)
    assert row["filter"].started_to == row["created_at"] + clock.MICROSECOND
    assert is_live(house, target)


MANY = 3000


def fill_sessions(db: Connection, kind: Kind, account_id: int, many: int) -> None:
    """Many sessions of one account."""
    now = clock.now()
    shared: dict[str, Any] = dict.fromkeys(("device", "ip", "browser", "os", "device_kind", "country", "city"), "")
    shared |= dict.fromkeys(("created_at", "last_seen_at", "refreshed_at"), now)
    shared |= {"account_id": account_id, "expires_at": now + timedelta(days=1)}
    db.execute(insert(kind.sessions), [shared | {"sid": f"many {number}"} for number in range(many)])


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_job_that_is_killed_is_gone_on_with_and_ends_nothing_twice(
    make_url: Callable[[str], str], tmp_path: Path, database: str
) -> None:
    url = make_url(database)
    server = start_server(tmp_path, url)
    with open_house(server, url) as house:
        staff, account = add(house, is_staff=True), house.add("client")
        house.write(fill_sessions, KINDS["client"], account.id, MANY)
        body = {"filter": {"kind": "client"}}
        address = house.ask("POST", "/sessions/end/", staff, json=body).headers["Location"]
        job_id = int(address.rstrip("/").rpartition("/")[2])
        wait_until(lambda: house.ask("GET", address, staff).json()["ended"] > 0)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(30)
        done = house.read(read_job, job_id)["ended"]
        assert house.read(count_ends) == (done, done)
        assert done < MANY
        again = start_server(tmp_path, url)
        wait_until(lambda: house.read(read_job, job_id)["finished_at"], 40)
        assert house.read(read_job, job_id)["ended"] == MANY
        assert house.read(count_ends) == (MANY, MANY)
        house.write(counts.fold)
        assert house.read(lambda db: db.scalar(counts.sum_sessions("client", {}))) == 0
    assert again.stop() == 0


def read_job(db: Connection, job_id: int) -> Row:
    table = JOBS
    return dict(db.execute(select(table).where(table.c.id == job_id)).mappings().one())


def count_ends(db: Connection) -> tuple[int, int]:
    """How many ends are in the log, and of how many sessions."""
    columns = EVENTS.c
    mine = (columns.type == "ended") & (columns.kind == "client")
    row = db.execute(select(func.count(), func.count(columns.session_id.distinct())).where(mine)).one()
    return row[0], row[1]


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_an_emergency_ends_every_session_at_once_and_closes_live_streams(
    make_url: Callable[[str], str], tmp_path: Path, database: str
) -> None:
    url = make_url(database)
    server = start_server(tmp_path, url)
    with open_house(server, url) as house:
        staff, user, client = add(house, is_staff=True), add(house), house.enter(house.add("client"))
        # Kept in memory by the server.
        assert all(is_live(house, device) for device in (staff, user, client))
        with httpx.stream(
            "GET", f"{server.address}/sessions/live/", headers=client.headers, timeout=10, verify=NO_TLS
        ) as stream:
            heard = stream.iter_bytes()
            next(heard)
            cut_off(house, staff, ["client"], None)
            # Ends where the server closes it.
            b"".join(heard)
        assert [is_live(house, device) for device in (staff, user, client)] == [True, True, False]
        refreshed = house.client.post("/auth/token/refresh/", json={"refresh": client.refresh})
        assert refreshed.status_code == 403
        again = house.enter(client.account)
        assert is_live(house, again)
        at = clock.now()
        later = house.enter(user.account)
        # Kept too, and no longer true once some of it are cut off, though no row is gone.
        assert list_own(house, later) == [later.session, user.session]
        cut_off(house, staff, ["user", "client"], at)
        assert list_own(house, later) == [later.session]
        assert [is_live(house, device) for device in (staff, user, again, later)] == [False, False, False, True]
        wait_until(lambda: house.read(count_causes, "emergency") == 4)
        assert not house.write(
            cutoffs.cut, replace(principal_of(later), role=""), [USER], None, None, Origin(), clock.now()
        )
        assert is_live(house, later)
    assert server.stop() == 0


def list_own(house: House, device: Device) -> list[int]:
    """The sessions that a device is told of when it asks for its account's own."""
    return [row["id"] for row in house.ask("GET", f"/sessions/session-{device.account.kind}-l/", device).json()]


def cut_off(house: House, staff: Device, kinds: list[str], before: Any) -> None:
    asked = [KINDS[name] for name in kinds]
    assert house.write(cutoffs.cut, principal_of(staff), asked, before, "A drill", Origin(), clock.now())


def count_causes(db: Connection, cause: str) -> int:
    return db.scalar(select(func.count()).where(EVENTS.c.type == "ended", EVENTS.c.cause == cause)) or 0


def test_staff_give_and_take_roles_and_clients_have_none(house: House, staff: Device) -> None:
    user, client = house.add("user"), house.add("client")
    address = f"/accounts/user/{user.id}/"
    made = house.ask("PATCH", address, staff, json={"viewer": True, "reason": "Audit"})
    assert (made.json()["viewer"], made.json()["staff"]) == (True, False)
    assert house.ask("PATCH", address, staff, json={"staff": True, "viewer": False}).json()["staff"] is True
    assert house.ask("PATCH", address, staff, json={"staff": False}).json()["staff"] is False
    told = house.ask("GET", f"/events/?kind=user&account={user.id}", staff).json()
    assert [row["type"] for row in reversed(told)][1:] == [
        "made_viewer", "made_staff", "unmade_viewer", "unmade_staff",
    ]  # fmt: skip
    assert [row["reason"] for row in told if row["type"] == "made_viewer"] == ["Audit"]
    refused = house.ask("PATCH", f"/accounts/client/{client.id}/", staff, json={"staff": True})
    assert (refused.status_code, list(refused.json())) == (400, ["staff"])


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize(
    "change", [AccountChange(staff=False), AccountChange(disabled=True)], ids=["unmake", "disable"]
)
def test_of_two_staff_who_unmake_each_other_at_once_one_stays(
    make_url: Callable[[str], str], tmp_path: Path, database: str, change: AccountChange
) -> None:
    url = make_url(database)
    with open_loop() as run:
        house = House("http://127.0.0.1:1", url, run, tmp_path)
        accounts = [house.add("user", staff=True) for _ in range(2)]
        principals = []
        for account in accounts:
            started = house.write(
                sessions.start, USER, account.id, None, None, Origin(), SessionSettings(), clock.now()
            )
            principals.append(Principal(USER, account.id, started.session["id"], "staff"))

        async def both() -> list[Any]:
            writes = [
                house.database.write(
                    change_by_staff, by, USER, other.id, change, None, Origin(), SessionSettings(), clock.now()
                )
                for by, other in zip(principals, reversed(accounts), strict=True)
            ]
            return await asyncio.gather(*writes, return_exceptions=True)

        outcomes = run(both())
        # Whoever is not staff any more is not allowed; where both are asked as staff, the last is refused.
        assert sum(outcome is not None and not isinstance(outcome, LastStaff) for outcome in outcomes) == 1
        with pytest.raises(LastStaff):
            house.write(
                change_by_staff, None, USER, left(house, accounts), change, None, None, SessionSettings(), clock.now()
            )
        house.close()


def left(house: House, accounts: list[Account]) -> int:
    users = USER.accounts.c
    able = select(users.id).where(users.is_staff, users.disabled_at.is_(None))
    (found,) = house.read(lambda db: db.scalars(able).all())
    number: int = found
    return number

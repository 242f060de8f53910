"""The house in numbers: counted, drawn, told in tables, followed live."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from handlers.admin.charts import make_bars, make_columns, round_up
from handlers.languages import Language
from tests.conftest import House
from tests.handlers.browsers import Page
from tests.handlers.desks import Staff, staff_at

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def staff(house: House) -> Iterator[Staff]:
    """Somebody of the staff."""
    with staff_at(house) as browser:
        yield browser


def count(page: str, label: str) -> int:
    """The number that stands under a label."""
    found = re.search(rf"<dt>{label}</dt>\s*<dd>(?:<a [^>]*>)?([0-9,]+)<", page)
    assert found, page
    return int(found[1].replace(",", ""))


def test_a_sign_in_a_refusal_and_an_end_are_counted_at_once(house: House, staff: Staff) -> None:
    labels = ("Live now", "Sign-ins today", "Sign-ins refused today", "Sessions ended today", "Accounts")
    before = {label: count(staff.get("/admin/").text, label) for label in labels}

    account = house.add("client")
    first, _ = (house.enter(account, f"Counted{number}/1.0") for number in range(2))
    house.client.post("/auth/client/token/", json=account.credentials | {"password": "not this one"})
    house.ask("DELETE", "/sessions/session-client-d/", first)
    page = staff.get("/admin/").text
    after = {label: count(page, label) for label in labels}

    assert {label: after[label] - before[label] for label in labels} == {
        "Live now": 1,
        "Sign-ins today": 2,
        "Sign-ins refused today": 1,
        "Sessions ended today": 1,
        "Accounts": 1,
    }
    assert "wrong passwords and codes" in page


def test_each_number_leads_to_the_list_behind_it(staff: Staff) -> None:
    page = staff.open("/admin/")
    lists = {link for link in page.links if link.startswith(("/admin/events/?", "/admin/sessions/?"))}

    assert len(lists) > 5
    for link in sorted(lists):
        answer = staff.get(link, follow_redirects=True)
        assert answer.status_code == 200, link


@pytest.mark.parametrize(("span", "columns"), [("", 24), ("day", 24), ("week", 28), ("month", 30), ("nonsense", 24)])
def test_each_chart_is_drawn_and_told_in_a_table(staff: Staff, span: str, columns: int) -> None:
    html = staff.get("/admin/", params={"span": span} if span else {}).text

    assert html.count('<li class="slot') == columns
    table = html[html.index('<details id="flow-numbers"') :]
    assert table[: table.index("</table>")].count('<th scope="row">') == columns
    assert "style=" not in html


def test_numbers_are_told_in_the_reader_s_language(staff: Staff) -> None:
    staff.client.cookies.set("language", "ru")
    page = Page(staff.get("/admin/?span=week").text)
    staff.client.cookies.delete("language")

    assert "Сейчас активно" in page.words
    assert "Входы и завершённые сеансы" in page.words


@pytest.mark.parametrize(
    ("count", "end"), [(0, 1), (1, 1), (7, 8), (11, 12), (99, 100), (105, 120), (201, 250), (100_001, 120_000)]
)
def test_a_scale_ends_at_a_round_number(count: int, end: int) -> None:
    assert round_up(count) == end


def test_what_is_there_at_all_is_seen() -> None:
    chart = make_columns([(NOON, 1, 0), (NOON, 1000, 3)], timedelta(hours=1), NOON, Language("en"))
    bars = make_bars([("a", 1000), ("b", 1), ("c", 0)], Language("en"), str.upper, lambda _: None)

    assert chart.most == 1000
    assert chart.height(1) >= 1
    assert chart.height(1000) == 100
    assert [(bar.label, bar.count) for bar in bars] == [("A", 1000), ("B", 1)]
    assert bars[0].width == 100
    assert 0 < bars[1].width < 1


def test_an_hour_and_a_day_are_named_as_people_say_them() -> None:
    hours = make_columns([(NOON, 1, 1)], timedelta(hours=1), NOON, Language("en"))
    days = make_columns([(NOON - timedelta(days=40, hours=12), 1, 1)], timedelta(days=1), NOON, Language("en"))

    assert (hours.slots[0].label, hours.slots[0].tick) == ("today, 12:00–13:00", "12:00")
    assert (days.slots[0].label, days.slots[0].tick) == ("15 October", "15 Oct")


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "Asia/Kolkata", "UTC"])
def test_days_are_named_by_the_reader_s_clock(zone: str) -> None:
    language = Language("en", ZoneInfo(zone))
    midnight = datetime(2026, 11, 24, tzinfo=language.zone).astimezone(UTC).replace(minute=0)
    days = [(midnight - timedelta(days=before), 1, 1) for before in range(29, -1, -1)]

    for now in (midnight + timedelta(hours=hour, minutes=45) for hour in (0, 15, 23)):
        slots = make_columns(days, timedelta(days=1), now, language).slots

        assert [slot.label for slot in slots[-3:]] == ["22 November", "yesterday", "today"]
        # Before the first of the month the clocks of New York were an hour ahead of what they are now.
        assert (slots[0].label, slots[0].tick) == ("26 October", "26 Oct")


@pytest.mark.parametrize("zone", ["Etc/GMT+12", "Etc/GMT-14", "America/New_York"])
def test_the_last_day_of_a_chart_is_today_wherever_it_is_read(staff: Staff, zone: str) -> None:
    staff.client.cookies.set("zone", zone)
    html = staff.get("/admin/?span=month").text
    staff.client.cookies.delete("zone")

    table = html[html.index('<details id="flow-numbers"') :]
    assert re.findall(r'<th scope="row">([^<]+)<', table)[:2] == ["today", "yesterday"]


@pytest.mark.long
def test_the_stream_tells_of_anybody_s_sign_in_but_not_whose(house: House, staff: Staff) -> None:
    with staff.client.stream("GET", "/admin/live/") as answer:
        lines = answer.iter_lines()
        heard = [next(lines) for _ in range(3)]
        assert "event: device" in heard
        house.enter(house.add("client"), "Loud/1.0")
        heard = []
        while "event: device" not in heard:
            heard.append(next(lines))

    assert not any("Loud" in line or "client" in line for line in heard)


@pytest.mark.parametrize("role", ["staff", "viewer"])
def test_the_stream_closes_where_the_role_of_whoever_listens_is_taken(house: House, staff: Staff, role: str) -> None:
    boss = house.enter(staff.account)
    with staff_at(house) as other:
        address = f"/accounts/user/{other.account.id}/"
        if role == "viewer":
            assert house.ask("PATCH", address, boss, json={"viewer": True, "staff": False}).status_code == 200
        with other.client.stream("GET", "/admin/live/") as answer:
            lines = answer.iter_lines()
            assert next(lines)
            assert house.ask("PATCH", address, boss, json={role: False}).status_code == 200
            # Ends where the server closes it.
            assert "event: over" not in list(lines)
        assert other.get("/admin/live/").status_code == 403


def test_the_stream_ends_with_the_session_of_whoever_listens(house: House) -> None:
    with staff_at(house) as other:
        form = other.open("/devices/").form("/sign-out/")
        with other.client.stream("GET", "/admin/live/") as answer:
            lines = answer.iter_lines()
            assert next(lines)
            other.post("/sign-out/", form)
            assert "event: over" in list(lines)

"""Staff look for sessions, and end those that they picked or all that match."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from urllib.parse import quote, urlencode

import pytest

from models.schema import LONGEST_DEVICE_KEY
from tests.conftest import House, wait_until
from tests.handlers.browsers import Page
from tests.handlers.desks import Staff, age_password, staff_at

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def staff(house: House) -> Iterator[Staff]:
    """Somebody of the staff."""
    with staff_at(house) as browser:
        yield browser


def keys(answer: str) -> list[str]:
    """The sessions that a list shows, in its order."""
    return re.findall(r'<tr id="((?:user|client)-\d+)"', answer)


@pytest.fixture
def agent() -> str:
    """A device that no other test has."""
    return f"Rare{next(_numbers)}/1.0"


def test_both_kinds_stand_in_one_list_or_apart(house: House, staff: Staff, agent: str) -> None:
    user, client = (house.enter(house.add(kind), agent).session for kind in ("user", "client"))

    both = staff.get(f"/admin/sessions/?device={quote(agent)}").text
    users = staff.get(f"/admin/sessions/?kind=user&device={quote(agent, safe='')}", follow_redirects=True).text

    assert set(keys(both)) == {f"user-{user}", f"client-{client}"}
    assert "2 live sessions match." in both
    assert keys(users) == [f"user-{user}"]


def test_like_devices_are_found_by_what_is_compared_and_shown(house: House, staff: Staff, agent: str) -> None:
    session = house.enter(house.add("user"), agent + "x" * 80).session

    page = Page(staff.get(f"/admin/sessions/user/{session}/").text)
    [like] = [link for link in page.links if "device=" in link]
    found = staff.get(like).text

    assert like.endswith("=" + quote((agent + "x" * 80)[:LONGEST_DEVICE_KEY], safe=""))
    assert keys(found) == [f"user-{session}"]


def test_filters_combine_and_each_can_be_taken_away(house: House, staff: Staff, agent: str) -> None:
    account = house.add("user")
    device = house.enter(account, agent)
    house.enter(house.add("user"), agent)
    address = f"/admin/sessions/?kind=user&account={account.id}&ip=127.0.0.0%2F8&started_from=2020-01-01&device={agent}"

    answer = staff.get(address, follow_redirects=True)
    page = Page(answer.text)

    assert keys(answer.text) == [f"user-{device.session}"]
    without = [link for link in page.links if link.startswith("/admin/sessions/?") and "account=" not in link]
    assert any("kind=user" in link and "device=" in link for link in without)
    assert "1 live session matches." in page.words


def test_a_search_finds_by_phone_as_it_begins(house: House, staff: Staff) -> None:
    account = house.add("client")
    device = house.enter(account)

    answer = staff.get("/admin/sessions/", params={"q": account.contact})

    assert keys(answer.text) == [f"client-{device.session}"]


def test_an_address_is_written_in_one_way_without_what_is_empty_and_with_times_in_utc(staff: Staff) -> None:
    staff.client.cookies.set("zone", "Asia/Tokyo")
    sent = staff.get("/admin/sessions/?q=&browser=Chrome&seen_from=2026-01-02T09:00&sort=-started&nonsense=1")
    staff.client.cookies.delete("zone")

    assert sent.status_code == 303
    assert sent.headers["Location"].startswith("/admin/sessions/?")
    assert "q=" not in sent.headers["Location"]
    assert "nonsense" not in sent.headers["Location"]
    assert "2026-01-02T00%3A00" in sent.headers["Location"]
    assert staff.get(sent.headers["Location"]).status_code == 200


@pytest.mark.parametrize("sort", ["", "started", "-seen", "seen"])
def test_a_long_list_goes_on_page_by_page_and_back_each_session_once(
    house: House, staff: Staff, agent: str, sort: str
) -> None:
    made = []
    for number in range(7):
        account = house.add("user" if number % 2 else "client")
        made.append(f"{account.kind}-{house.enter(account, agent).session}")

    seen: list[list[str]] = []
    back = None
    address: str | None = f"/admin/sessions/?device={agent}&limit=3" + (f"&sort={sort}" if sort else "")
    while address:
        html = staff.get(address, follow_redirects=True).text
        seen.append(keys(html))
        following = re.search(r'rel="next" href="([^"]+)"', html)
        back = re.search(r'rel="prev" href="([^"]+)"', html)
        address = following[1].replace("&amp;", "&") if following else None

    assert [len(page) for page in seen] == [3, 3, 1]
    assert sorted(itertools.chain(*seen)) == sorted(made)
    if sort in ("", "started"):
        assert list(itertools.chain(*seen)) == (made if sort else made[::-1])
    assert back
    assert keys(staff.get(back[1].replace("&amp;", "&")).text) == seen[-2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "admin"),
        ("account", "x"),
        ("account", "9" * 30),
        ("account", "5"),
        ("ip", "10.0.0.0/99"),
        ("ip", "not an address"),
        ("started_from", "yesterday"),
        ("started_to", "2026-13-45T99:99"),
        ("seen_from", "9999-12-31T23:59"),
        ("seen_to", "0001-01-01T00:00"),
        ("idle", "soon"),
        ("idle", "9" * 18 + "d"),
        ("q", "a\x00b"),
        ("q", "\u202egnp.exe"),
        ("q", "x" * 300),
        ("device", "\u2066x"),
        ("sort", "1; DROP TABLE users"),
        ("limit", "-1"),
        ("limit", "9" * 20),
        ("browser", "x" * 5000),
    ],
)
def test_what_cannot_be_read_is_told_on_the_page_and_nothing_breaks(staff: Staff, name: str, value: str) -> None:
    answer = staff.get("/admin/sessions/", params={name: value}, follow_redirects=True)

    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400 and name not in ("sort", "limit"):
        assert 'aria-invalid="true"' in answer.text
        assert "Nothing was searched for" in answer.text


@pytest.mark.parametrize("cursor", ["x", "user.1~n", "user.1~nx", "user.1~tabc", "\x00", "9" * 400, "client.0~n-1"])
@pytest.mark.parametrize("where", ["after", "before"])
def test_a_place_in_the_list_that_is_none_is_the_list_s_beginning(staff: Staff, where: str, cursor: str) -> None:
    answer = staff.get("/admin/sessions/", params={where: cursor}, follow_redirects=True)

    assert answer.status_code in (200, 400)


def test_nothing_that_matches_is_told_in_words(staff: Staff) -> None:
    assert "No session matches" in staff.get("/admin/sessions/?device=NobodyHasThis%2F9").text


def test_one_session_has_a_page_with_its_history(house: House, staff: Staff, agent: str) -> None:
    account = house.add("client")
    device = house.enter(account, agent)

    page = staff.open(f"/admin/sessions/client/{device.session}/")

    assert agent.split("/")[0] in page.words
    assert account.contact in page.words
    assert "signed in on" in page.words
    assert staff.get("/admin/sessions/client/999999999/").status_code == 404


def end(house: House, staff: Staff, address: str, **fields: str) -> tuple[str, Page]:
    """Go through the page that says what will happen; where it leads, and that page when it is done."""
    shown = staff.open(address)
    action = next(form.action for form in shown.forms if form.action.startswith("/admin/sessions/end/"))
    answer = staff.post(action, shown.form(action) | fields)
    assert answer.status_code == 303, answer.text
    at = answer.headers["Location"]
    wait_until(lambda: "Done " in staff.open(at).words)
    return at, staff.open(at)


def test_the_picked_ones_end_and_no_other_with_the_reason_in_the_log(house: House, staff: Staff, agent: str) -> None:
    user, client, other = house.add("user"), house.add("client"), house.add("user")
    picked = [house.enter(user, agent), house.enter(client, agent)]
    stays = house.enter(other, agent)
    ids = "&".join(f"session={device.account.kind}-{device.session}" for device in picked)

    shown = staff.open(f"/admin/sessions/end/?{ids}")
    assert "2 sessions that you picked end: 1 user session, 1 client session." in shown.words
    _, done = end(house, staff, f"/admin/sessions/end/?{ids}", reason="a lost van")

    assert "2 sessions have ended" in done.words
    for device in picked:
        assert house.ask("GET", f"/sessions/session-{device.account.kind}-l/", device).status_code == 403
    assert house.ask("GET", "/sessions/session-user-l/", stays).status_code == 200
    log = staff.open(f"/admin/events/?kind=user&account={user.id}").words
    assert "ended the session of" in log
    assert "Reason: a lost van" in log


def test_whoever_does_not_end_them_comes_back_to_the_list_with_its_filters(
    house: House, staff: Staff, agent: str
) -> None:
    device = house.enter(house.add("client"), agent)
    back = f"/admin/sessions/?{urlencode({'device': agent, 'sort': 'seen'})}"
    none = staff.open(back).form("/admin/sessions/end/")
    asked = f"/admin/sessions/end/?{urlencode(none | {'session': f'client-{device.session}'})}"

    for address in (back.replace("/?", "/end/?"), asked):
        assert staff.open(address).links.count(back) == 2
    assert staff.get(f"/admin/sessions/end/?{urlencode(none)}").headers["Location"] == back
    form = staff.open(asked).form(asked)
    assert house.ask("DELETE", f"/sessions/session-client-d/{device.session}/", device).status_code == 204
    assert staff.post(asked, form).headers["Location"] == back


def test_all_that_match_end_and_who_signs_in_meanwhile_stays(house: House, staff: Staff, agent: str) -> None:
    for _ in range(5):
        house.enter(house.add("client"), agent)
    address = f"/admin/sessions/end/?device={agent}"

    shown = staff.open(address)
    assert "All 5 sessions that match the filters below end: 5 client sessions." in shown.words
    at, done = end(house, staff, address)

    assert "5 sessions have ended" in done.words
    assert "Test" in done.words.partition("By")[2]
    assert "/admin/sessions/ends/" in staff.open("/admin/sessions/").links
    assert "No session matches" in staff.get(f"/admin/sessions/?device={agent}", follow_redirects=True).text
    assert at in staff.open("/admin/sessions/ends/").links


def test_what_has_ended_already_is_told(house: House, staff: Staff, agent: str) -> None:
    device = house.enter(house.add("user"), agent)
    address = f"/admin/sessions/end/?session=user-{device.session}"
    shown = staff.open(address)
    house.ask("DELETE", "/sessions/session-user-d/", device)

    answer = staff.post(address, shown.form(address))

    assert answer.status_code == 303
    assert "They have ended already" in staff.open(answer.headers["Location"]).words
    assert "There is nothing to end" in staff.open(address).words


def test_whoever_does_not_end_a_session_after_all_is_at_its_account_s_again(
    house: House, staff: Staff, agent: str
) -> None:
    account = house.add("client")
    device = house.enter(account, agent)
    for address in (f"/admin/sessions/client/{device.session}/", f"/admin/accounts/client/{account.id}/"):
        (way,) = [link for link in staff.open(address).links if "/sessions/end/?session=" in link]
        shown = staff.open(way)
        back = f"/admin/sessions/?kind=client&account={account.id}"
        assert "End 1 session?" in shown.words
        assert shown.links.count(back) == 2
        assert f"/admin/sessions/client/{device.session}/" in staff.open(back).links


@pytest.mark.parametrize("picked", ["x", "user-", "admin-5", "user-5-5", "user-²"])
def test_what_was_picked_must_be_sessions(staff: Staff, picked: str) -> None:
    assert staff.get("/admin/sessions/end/", params={"session": picked}).status_code == 400


@pytest.mark.parametrize("count", [0, 201])
def test_nothing_picked_is_not_all_and_too_much_is_told(staff: Staff, count: int) -> None:
    picked = [("picked", "1"), *(("session", f"user-{number}") for number in range(1, count + 1))]
    answer = staff.get("/admin/sessions/end/", params=picked)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/sessions/")
    assert "Pick at least one session" in staff.open(answer.headers["Location"]).words
    assert staff.open("/admin/sessions/").form("/admin/sessions/end/")["picked"] == "1"


def test_of_a_device_that_says_nothing_no_others_are_offered(house: House, staff: Staff) -> None:
    device = house.enter(house.add("user"), "")
    assert "same user agent" not in staff.open(f"/admin/sessions/user/{device.session}/").words


def test_ending_asks_for_the_password_where_it_was_given_a_while_ago(house: House, staff: Staff, agent: str) -> None:
    device = house.enter(house.add("user"), agent)
    with staff_at(house) as other:
        address = f"/admin/sessions/end/?session=user-{device.session}"
        shown = other.open(address)
        house.write(age_password, other.account.id)

        asked = other.post(address, shown.form(address) | {"reason": "why not"})
        assert "Your password, please" in asked.text
        assert house.ask("GET", "/sessions/session-user-l/", device).status_code == 200
        form = Page(asked.text).form(address)
        assert form["reason"] == "why not"
        wrong = other.post(address, form | {"prompted_password": "something else"})
        assert "This is not your password." in wrong.text
        right = other.post(address, form | {"prompted_password": "a quiet harbour at dusk"})

    assert right.status_code == 303
    wait_until(lambda: house.ask("GET", "/sessions/session-user-l/", device).status_code == 403)


def test_a_job_that_is_none_is_not_found(staff: Staff) -> None:
    assert staff.get("/admin/sessions/ends/999999/").status_code == 404

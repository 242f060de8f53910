"""Staff at the desk in a real browser: every page by axe, the keyboard alone, without JavaScript, live."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.browser import desk
from tests.browser.conftest import Open
from tests.browser.test_pages import IS_WHOLE, LANGUAGES, PATIENCE, inspect
from tests.conftest import House


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("walk", desk.WALKS)
@pytest.mark.parametrize("language", LANGUAGES if IS_WHOLE else LANGUAGES[-1:])
def test_no_page_of_the_desk_shuts_anybody_out_sticks_out_of_its_screen_or_complains(
    site: House, open_page: Open, language: str, walk: desk.Walk
) -> None:
    with inspect(open_page, language) as (page, visit):
        walk(site, page, visit)


def test_the_numbers_follow_what_happens_and_leave_what_was_opened(site: House, open_page: Open) -> None:
    page = open_page(site.add("user", staff=True), "/admin/")
    page.locator("#flow-numbers summary").click()
    live = page.locator(".figures dd").first
    before = int(live.inner_text().replace(",", ""))

    site.sign_in(site.add("client"))

    expect(live).to_have_text(f"{before + 1:,}")
    expect(page.locator("#flow-numbers")).to_have_attribute("open", "")
    expect(page.locator("#flow-numbers summary")).to_be_focused()


def test_the_hover_tells_what_a_column_stands_for(site: House, open_page: Open) -> None:
    page = open_page(site.add("user", staff=True), "/admin/", width=1440)

    page.locator(".slot").last.hover()

    expect(page.locator(".slot").last.locator(".tip")).to_be_visible()
    expect(page.locator(".slot").last.locator(".tip")).to_contain_text(re.compile(r"today, .*Sign-ins: \d"))


def test_rows_are_picked_all_at_once_and_end_after_a_page_that_says_so(site: House, open_page: Open) -> None:
    devices = [site.sign_in(site.add("client"), "Pickable/1.0") for _ in range(3)]
    page = open_page(site.add("user", staff=True), "/admin/sessions/?device=Pickable%2F1.0")
    button = page.get_by_role("button", name="End the picked ones …")
    expect(page.locator("[data-pick]")).to_have_count(3)
    expect(button).to_be_hidden()

    page.get_by_label("Pick all on this page").check()
    expect(page.get_by_text("3 picked")).to_be_visible()
    page.locator("[data-pick]").first.uncheck()
    expect(page.get_by_text("2 picked")).to_be_visible()
    button.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("End 2 sessions?")
    page.get_by_label("Reason").fill("a lost van")
    page.get_by_role("button", name="End 2 sessions").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("2 sessions have ended")
    assert sum(site.ask("GET", "/sessions/session-client-l/", device).status_code == 200 for device in devices) == 1


def test_empty_filters_stay_out_of_the_address(site: House, open_page: Open) -> None:
    page = open_page(site.add("user", staff=True), "/admin/sessions/")

    page.locator("#filters summary").click()
    page.get_by_label("IP address or network").fill("127.0.0.1")
    page.get_by_role("button", name="Apply").click()

    page.wait_for_url("**/admin/sessions/?ip=127.0.0.1")
    page.get_by_role("link", name="Remove: IP address 127.0.0.1").click()
    page.wait_for_url(re.compile("/admin/sessions/$"))


def test_everything_works_without_javascript(site: House, open_page: Open) -> None:
    account = site.add("user")
    device = site.sign_in(account, "Scriptless/1.0")
    staff = site.add("user", staff=True)
    page = open_page(staff, "/admin/sessions/", java_script_enabled=False)

    page.get_by_label("Search by how a surname").fill(account.contact)
    page.get_by_role("button", name="Search").click()
    page.locator("[data-pick]").check()
    page.get_by_role("button", name="End the picked ones …").click()
    page.get_by_role("button", name="End 1 session").click()
    page.wait_for_url("**/ends/**")
    look_again = page.get_by_role("link", name="Look again")
    while look_again.count():
        look_again.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("1 session has ended")
    assert site.ask("GET", "/sessions/session-user-l/", device).status_code == 403

    page.goto(f"/admin/accounts/user/{account.id}/")
    page.get_by_role("button", name="Make a viewer").click()
    page.get_by_role("dialog").get_by_role("button", name="Make a viewer").click()
    expect(page.get_by_text("The account is a viewer now.")).to_be_visible()


def test_the_keyboard_alone_reaches_everything_and_the_focus_is_seen(site: House, open_page: Open) -> None:
    site.sign_in(site.add("user"), "Keyed/1.0")
    page = open_page(site.add("user", staff=True), "/admin/sessions/?device=Keyed%2F1.0")
    page.reload()
    reached: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "() => {const at = document.activeElement; const label = at.labels?.[0]?.innerText ?? at.innerText;"
            " return [at.getAttribute('aria-label') ?? label, getComputedStyle(at).outlineStyle]}"
        )
        reached.append(" ".join(name.split()))
        assert outline == "solid", f"the focus is not seen on {reached[-1]!r}"
        if reached[-1].startswith("Pick Keyed"):
            break
    for name in ("To the content", "Overview", "Emergency", "All", "Search", "Filters", "Last used"):
        assert name in reached, name
    assert "Pick all on this page" in reached
    page.keyboard.press("Space")
    expect(page.get_by_text("1 picked")).to_be_visible()
    while page.evaluate("document.activeElement.innerText.trim()") != "End the picked ones …":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("End 1 session?")

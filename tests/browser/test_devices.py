"""People at their devices: with a mouse, with the keyboard alone, without JavaScript, on two browsers at once."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from playwright.sync_api import expect
from sqlalchemy import text

from tests.browser.conftest import Open
from tests.conftest import PASSWORD, House

KIND_NAMES = ["user", "client"]
TABS = ["Devices", "Activity", "Account"]


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_a_device_that_another_ends_is_at_the_sign_in_page_within_a_second_and_a_third_one_stays(
    site: House, open_page: Open, kind: str
) -> None:
    account = site.add(kind)
    first, second, third = (open_page(account) for _ in range(3))
    current = second.locator(".this .row").get_attribute("id")
    second_tab = second.context.new_page()
    second_tab.goto("/account/")
    expect(first.locator(f"#{current}")).to_be_visible()

    first.locator(f"#{current} button").click()
    first.get_by_role("status").filter(has_text="Ended:").wait_for()
    started = time.monotonic()
    second.wait_for_url("**/sign-in/**")
    passed = time.monotonic() - started

    assert passed < 1
    expect(second.get_by_text("You were signed out here from another of your devices.")).to_be_visible()
    second_tab.wait_for_url("**/sign-in/**")
    expect(third.locator(f"#{current}")).to_have_count(0)
    expect(third.get_by_role("heading", level=1)).to_have_text("Where you are signed in")


def test_a_device_that_signs_in_appears_without_a_reload_and_what_was_typed_stays(site: House, open_page: Open) -> None:
    account = site.add("user")
    for number in range(8):
        site.sign_in(account, f"Thing{number}/1.0")
    page = open_page(account)
    page.get_by_role("searchbox").fill("newcomer")
    expect(page.get_by_text("No device matches.")).to_be_visible()

    device = site.sign_in(account, "Newcomer/2.0")

    expect(page.locator(f"#device-{device.session}")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="9 other devices")).to_have_count(1)
    expect(page.get_by_role("searchbox")).to_have_value("newcomer")
    expect(page.get_by_role("searchbox")).to_be_focused()
    expect(page.locator("[data-device]:visible")).to_have_count(1)


def test_a_hidden_page_follows_nothing_and_catches_up_when_it_is_shown(site: House, open_page: Open) -> None:
    account = site.add("client")
    page = open_page(account)
    show = "state => {Object.defineProperty(document, 'hidden', {value: state === 'hidden', configurable: true});"
    show += " document.dispatchEvent(new Event('visibilitychange'))}"
    page.evaluate(show, "hidden")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    device = site.sign_in(account, "Newcomer/2.0")
    open_page(account).close()
    assert not asked

    page.evaluate(show, "visible")
    expect(page.locator(f"#device-{device.session}")).to_be_visible()


def test_a_page_that_is_offline_says_so_and_recovers_by_itself(site: House, open_page: Open) -> None:
    page = open_page(site.add("user"))
    page.context.set_offline(True)
    expect(page.locator("#offline")).to_be_visible()

    page.context.set_offline(False)
    expect(page.locator("#offline")).to_be_hidden()


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_everything_works_without_javascript(site: House, open_page: Open, kind: str) -> None:
    account = site.add(kind)
    others = [site.sign_in(account, f"Thing{number}/1.0") for number in range(10)]
    page = open_page(None, java_script_enabled=False)
    page.get_by_label("E-mail or phone").fill(account.contact)
    page.get_by_label("Password").fill(account.password)
    page.get_by_role("button", name="Sign in").click()

    page.get_by_label("Search devices").fill("thing3")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("[data-device]:visible")).to_have_count(1)

    page.get_by_role("link", name="Thing3").click()
    page.get_by_label("What you call this device").fill("Toaster")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Toaster")
    page.get_by_role("button", name="End session: Toaster").click()
    expect(page.get_by_role("status").filter(has_text="Ended: Toaster is signed out.")).to_be_visible()
    assert site.ask("GET", f"/sessions/session-{kind}-l/", others[3]).status_code == 403

    page.get_by_role("button", name="End all others").click()
    page.get_by_role("dialog").get_by_role("button", name="End all others").click()
    expect(page.get_by_text("Ended: 9 devices are signed out.")).to_be_visible()

    page.get_by_role("link", name="Activity").click()
    expect(page.get_by_text("You ended the session of").first).to_be_visible()
    page.get_by_role("button", name="Русский").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Что происходило с аккаунтом")
    page.get_by_role("button", name="Тёмное").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Выйти").click()
    page.wait_for_url("**/sign-in/")


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_without_javascript_too_a_device_that_another_ends_is_told_so_and_a_third_one_stays(
    site: House, open_page: Open, kind: str
) -> None:
    account = site.add(kind)
    first, second, third = (open_page(account, java_script_enabled=False) for _ in range(3))
    current = second.locator(".this .row").get_attribute("id")
    first.reload()

    first.locator(f"#{current} button").click()
    expect(first.get_by_role("status").filter(has_text="is signed out.")).to_be_visible()
    second.get_by_role("link", name="Account").click()

    expect(second.get_by_text("You were signed out here from another of your devices.")).to_be_visible()
    assert "/sign-in/" in second.url
    third.reload()
    expect(third.get_by_role("heading", level=1)).to_have_text("Where you are signed in")


def test_a_page_whose_stream_was_cut_follows_again_and_misses_nothing(site: House, open_page: Open) -> None:
    account = site.add("client")
    page = open_page(account)
    first = site.sign_in(account, "First/1.0")
    expect(page.locator(f"#device-{first.session}")).to_be_visible()

    # Workers take their time to start where all cores are busy.
    with page.expect_request("**/live/", timeout=60_000):
        # New workers take over, and the old ones let their streams go.
        os.kill(site.pid, signal.SIGHUP)
        meanwhile = site.sign_in(account, "Second/1.0")
    expect(page.locator(f"#device-{meanwhile.session}")).to_be_visible()
    third = site.sign_in(account, "Third/1.0")

    expect(page.locator(f"#device-{third.session}")).to_be_visible()


def test_the_keyboard_alone_ends_a_device_and_the_focus_goes_to_what_was_done(site: House, open_page: Open) -> None:
    account = site.add("user")
    site.sign_in(account, "Thing/1.0")
    page = open_page(account)
    page.reload()

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    reached: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = "document.activeElement"
        reached.append(page.evaluate(f"{focused}.getAttribute('aria-label') ?? {focused}.innerText"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"the focus is not seen on {reached[-1]!r}"
        if reached[-1].startswith("End session: Thing"):
            break
    assert [name for name in reached if name in TABS] == TABS
    page.keyboard.press("Enter")

    expect(page.locator("#flash")).to_be_focused()
    expect(page.locator("#flash")).to_contain_text("is signed out.")


def test_the_question_before_ending_all_others_keeps_the_focus_and_is_left_by_escape(
    site: House, open_page: Open
) -> None:
    account = site.add("client")
    for _ in range(2):
        site.sign_in(account)
    page = open_page(account)

    page.get_by_role("button", name="End all others").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep them")).to_be_focused()
    for _ in range(4):
        page.keyboard.press("Tab")
        # Past its last button is the browser itself, and never the page behind.
        assert page.evaluate("document.activeElement.matches('body, dialog *')")
    page.keyboard.press("Escape")

    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="End all others")).to_be_focused()
    expect(page.get_by_role("heading", name="2 other devices")).to_be_visible()


def test_a_double_click_ends_once_and_tells_it_in_words(site: House, open_page: Open) -> None:
    account = site.add("user")
    site.sign_in(account, "Thing/1.0")
    page = open_page(account)

    page.get_by_role("button", name=re.compile("^End session: Thing")).dblclick()

    page.wait_for_url("**/devices/")
    expect(page.locator("#flash")).to_contain_text("is signed out")
    expect(page.get_by_role("heading", name="Nowhere else")).to_be_visible()


def test_a_form_that_is_under_way_is_not_sent_again(site: House, open_page: Open) -> None:
    page = open_page(site.add("user"))
    page.goto("/account/")
    page.get_by_label("Current password").fill(PASSWORD)
    page.get_by_label("New password").fill("an island behind the fog")
    sent = []
    page.on("request", lambda request: sent.append(request.method) if request.method == "POST" else None)
    button = page.get_by_role("button", name="Change the password")

    is_busy = button.evaluate("button => { button.click(); button.click(); return button.ariaBusy; }")

    expect(page.locator("#flash")).to_contain_text("changed")
    assert (sent, is_busy) == (["POST"], "true")


def test_what_was_typed_wrongly_stays_beside_what_is_wrong_with_it(site: House, open_page: Open) -> None:
    account = site.add("user")
    page = open_page(account)
    page.locator(".this .row a").first.click()
    name = page.get_by_role("textbox")
    name.fill("x" * 100)
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch"):
        page.get_by_role("button", name="Save").click()
    # The stream of the page that came has it looked at again, once it is open and whenever something happens.
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch"):
        site.sign_in(account)
    expect(page.locator(".error")).to_contain_text("too long")
    expect(name).to_have_value("x" * 100)


def test_what_is_selected_stays_so_when_something_happens(site: House, open_page: Open) -> None:
    account = site.add("user")
    page = open_page(account)
    page.locator(".this .row a").first.click()
    name = page.get_by_role("textbox")
    name.fill("Work laptop")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#flash")).to_be_visible()
    name.press("ControlOrMeta+a")
    page.evaluate("document.addEventListener('swapped', () => document.body.classList.add('swapped'))")

    site.sign_in(account)
    expect(page.locator("body.swapped")).to_be_attached()
    page.keyboard.type("Home")

    expect(name).to_have_value("Home")


def test_back_after_signing_out_shows_no_page_of_the_account(site: House, open_page: Open) -> None:
    page = open_page(site.add("client"))
    page.get_by_role("link", name="Activity").click()
    page.wait_for_url("**/activity/")
    page.get_by_role("banner").get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in/**")

    page.go_back()

    page.wait_for_url("**/sign-in/**")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_a_page_that_the_browser_kept_in_memory_is_left_once_its_session_is_over(site: House, open_page: Open) -> None:
    account = site.add("user")
    page = open_page(account, "/account/")
    # The page looks once more when its stream opens: only after that nothing else sends it away.
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch"):
        page.goto("/devices/")
    site.write(
        lambda db: db.execute(text("DELETE FROM user_sessions WHERE account_id = :id"), {"id": account.id}) and None
    )
    expect(page.get_by_role("heading", level=1)).to_have_text("Where you are signed in")

    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")

    page.wait_for_url("**/sign-in/**")


def test_typing_narrows_the_list(site: House, open_page: Open) -> None:
    account = site.add("user")
    for number in range(12):
        site.sign_in(account, f"Thing{number}/1.0")
    page = open_page(account)

    page.get_by_role("searchbox").fill("thing1")
    expect(page.locator("[data-device]:visible")).to_have_count(3)
    page.get_by_role("searchbox").fill("no such thing")
    expect(page.get_by_text("No device matches.")).to_be_visible()
    page.get_by_role("searchbox").fill("")
    expect(page.locator("[data-device]:visible")).to_have_count(12)


def test_the_appearance_changes_at_once_and_stays(site: House, open_page: Open) -> None:
    page = open_page(site.add("user"))
    with page.expect_response("**/preferences/"):
        page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")

    page.reload()

    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")


def test_a_picture_that_is_too_large_is_told_of_before_it_is_sent(site: House, open_page: Open) -> None:
    page = open_page(site.add("user"))
    page.goto("/account/")
    for size, told in ((2 * 1024 * 1024, ""), (2 * 1024 * 1024 + 1, "Choose a JPEG or PNG picture of up to 2 MB.")):
        page.set_input_files("#picture", {"name": "me.png", "mimeType": "image/png", "buffer": bytes(size)})
        assert page.locator("#picture").evaluate("field => field.validationMessage") == told

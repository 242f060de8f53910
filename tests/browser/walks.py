"""Every page in every state that a person can find it in, reached as a person does: by addresses and forms."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO

from PIL import Image
from playwright.sync_api import Page, expect
from sqlalchemy import Connection, text, update

from models import clock
from models.schema import KINDS
from tests.browser.conftest import sign_in
from tests.conftest import PASSWORD, Account, House, wait_until

# Called on each page in each state, with a name for it.
Visit = Callable[[Page, str], None]
Walk = Callable[[House, Page, Visit, str], None]
WRONG = "certainly not this"
# What a device may say of itself: longer than any line.
WIDE = "Thing/1.0 (" + "wide" * 40 + ")"


def submit(page: Page, action: str, **fields: str) -> None:
    """Send the page's form with this action as a browser without JavaScript does, even where fields are left empty."""
    script = """([action, fields]) => {
        const is = one => [one, one?.split("?")[0]].includes(action);
        const form = [...document.forms].find(one => is(one.getAttribute("action")));
        for (const name in fields) form.elements[name].value = fields[name];
        form.noValidate = true;
        form.submit();
    }"""
    with page.expect_navigation():
        page.evaluate(script, [action, fields])


def letter(site: House, contact: str, pattern: str) -> str:
    """What `pattern` finds in the last message to a contact, in the log: the server has no way to send it."""

    def find() -> str:
        lines = [line for line in site.log.read_text().splitlines() if "NOT SENT" in line and contact in line]
        found = re.findall(pattern, lines[-1].partition("subject=")[2]) if lines else []
        return str(found[0]) if found else ""

    return str(wait_until(find))


def forget_passwords(db: Connection, account: Account) -> None:
    """Let an hour pass since the account's password was given."""
    table = KINDS[account.kind].sessions
    values = {"password_at": clock.now() - timedelta(hours=1)}
    db.execute(update(table).where(table.c.account_id == account.id).values(values))


def enter(site: House, page: Page, account: Account) -> None:
    """Have the page's browser be signed in, as this account and nobody else."""
    page.goto("about:blank")
    page.context.clear_cookies(name="session")
    sign_in(site, page.context, account, page.evaluate("navigator.userAgent"))


def open_followed(page: Page, address: str) -> None:
    """Open a page and wait until its stream is: whoever asks for one without a session is refused."""
    with page.expect_response("**/live/"):
        page.goto(address)


def walk_as_a_stranger(site: House, page: Page, visit: Visit, kind: str) -> None:
    """Every page of who is not signed in."""
    for address in ("/sign-in/", "/sign-in/?why=owner", f"/register/?kind={kind}", "/confirm/", "/reset/"):
        page.goto(address)
        visit(page, address)

    page.goto("/sign-in/")
    submit(page, "/sign-in/")
    visit(page, "/sign-in/ with errors at its fields")
    submit(page, "/sign-in/", identity="nobody@example.com", password=WRONG)
    visit(page, "/sign-in/ refused")
    guessed = site.add(kind)
    # One more than are free.
    for _ in range(11):
        submit(page, "/sign-in/", identity=guessed.contact, password=WRONG)
    expect(page.locator("form[action^='/sign-in/']")).to_have_count(0)
    visit(page, "429")
    page.goto("/sign-in/")
    user, client = site.add("user"), site.add("client")
    alike = text("UPDATE clients SET phone = :phone WHERE id = :id")
    site.write(lambda db: db.execute(alike, {"phone": user.contact, "id": client.id}) and None)
    submit(page, "/sign-in/", identity=user.contact, password=PASSWORD)
    visit(page, "/sign-in/ with two accounts to choose from")

    page.goto(f"/register/?kind={kind}")
    submit(page, "/register/", phone="12", surname="x" * 300, new_password="1")
    visit(page, "/register/ with errors at its fields")

    page.goto("/confirm/")
    submit(page, "/confirm/", identity="nobody", code="1")
    visit(page, "/confirm/ with an error at who it is")
    submit(page, "/confirm/", identity="nobody@example.com", code="1")
    visit(page, "/confirm/ with an error at the code")

    page.goto("/reset/")
    submit(page, "/reset/", identity="nobody")
    visit(page, "/reset/ with an error at its field")
    submit(page, "/reset/", identity="somebody@example.com")
    visit(page, "/reset/code/")
    submit(page, "/reset/code/", code="1", new_password="password")
    visit(page, "/reset/code/ with an error at the password")
    submit(page, "/reset/code/", code="1", new_password="another harbour at dawn")
    visit(page, "/reset/code/ with an error at the code")
    page.context.clear_cookies(name="reset")
    submit(page, "/reset/code/", code="1", new_password="another harbour at dawn")
    visit(page, "/reset/ after it took too long")


def walk_unconfirmed(site: House, page: Page, visit: Visit, kind: str) -> None:
    """The pages of an account that still has to confirm itself."""
    account = site.add(kind, confirmed=False)
    enter(site, page, account)
    page.goto("/devices/")
    visit(page, "/confirm/ unconfirmed")
    submit(page, "/confirm/", code="000000")
    visit(page, "/confirm/ unconfirmed, with an error at the code")
    submit(page, "/confirm/send/")
    visit(page, "/confirm/ unconfirmed, another code sent")
    page.goto("/sign-out/")
    visit(page, "/sign-out/ unconfirmed")
    page.goto("/nowhere/")
    visit(page, "404 unconfirmed")
    _submit_elsewhere(page, site.address + "/sign-out/")
    visit(page, "403 unconfirmed")


def walk_signed_in(site: House, page: Page, visit: Visit, kind: str) -> None:
    """The pages of an account."""
    account = site.add(kind)
    enter(site, page, account)
    page.goto("/devices/")
    visit(page, "/devices/ with no other")
    page.goto("/sign-in/")
    visit(page, "/sign-in/ signed in")
    page.goto("/activity/?before=1")
    visit(page, "/activity/ with nothing on it")
    for address in ("/activity/", "/account/", "/sign-out/"):
        page.goto(address)
        visit(page, address)
    _walk_devices(site, page, visit, account)
    _walk_account(site, page, visit, account)
    page.goto("/devices/")
    page.evaluate("document.getElementById('offline').hidden = false")
    visit(page, "/devices/ offline")
    end_everywhere = text(f"DELETE FROM {kind}_sessions WHERE account_id = :id")
    open_followed(page, "/account/")
    site.write(lambda db: db.execute(end_everywhere, {"id": account.id}) and None)
    submit(page, "/account/fields/", name="Changed")
    visit(page, "403 signed out meanwhile")
    page.goto("/devices/")
    visit(page, "/sign-in/ after the end")


def _walk_devices(site: House, page: Page, visit: Visit, account: Account) -> None:
    for agent in ("curl/8.5.0", WIDE):
        site.sign_in(account, agent)
    page.goto("/devices/")
    visit(page, "/devices/ with some others")
    for number in range(8):
        site.sign_in(account, f"Thing{number}/1.0")
    other = site.sign_in(account, WIDE).session
    for address in ("/devices/", "/devices/?q=thing4", "/devices/?q=nothing", f"/devices/{other}/"):
        page.goto(address)
        visit(page, address)
    submit(page, f"/devices/{other}/", name="n" * 65)
    visit(page, "/devices/ID/ with an error at the name")
    submit(page, f"/devices/{other}/", name="W" * 64)
    visit(page, "/devices/ID/ named")
    page.goto("/devices/")
    page.locator("#end-others").click()
    visit(page, "/devices/ asking before all others end")
    site.write(forget_passwords, account)
    submit(page, f"/devices/{other}/end/")
    visit(page, "the password asked for")
    submit(page, f"/devices/{other}/end/", prompted_password=WRONG)
    visit(page, "the password refused")
    submit(page, f"/devices/{other}/end/", prompted_password=PASSWORD)
    visit(page, "/devices/ after an end")
    page.goto(page.locator(".this a").get_attribute("href") or "")
    visit(page, "/devices/ID/ of this device")
    long_ago = text("DELETE FROM events WHERE kind = :kind AND account_id = :id")
    for _ in range(31):
        site.sign_in(account, "Thing0/1.0")
    page.goto("/activity/")
    page.get_by_role("main").get_by_role("navigation").get_by_role("link").click()
    visit(page, "/activity/ older")
    site.write(lambda db: db.execute(long_ago, {"kind": account.kind, "id": account.id}) and None)
    page.goto(page.url.partition("/activity/")[0] + "/devices/")
    page.locator(".row .title a").last.click()
    visit(page, "/devices/ID/ without a history")


def _walk_account(site: House, page: Page, visit: Visit, account: Account) -> None:
    page.goto("/account/")
    submit(page, "/account/fields/", name="x" * 300, surname="\u202eevil")
    visit(page, "/account/ with errors at its fields")
    submit(page, "/account/fields/", name="Ada Augusta", surname="King of the Lovelaces")
    visit(page, "/account/ saved")
    submit(page, "/account/phone/", value="12")
    visit(page, "/account/ with an error at the phone")
    submit(page, "/account/phone/", value="+79135550" + account.contact[-3:])
    visit(page, "/account/ with a code on its way")
    submit(page, "/account/phone/confirm/", code="1")
    visit(page, "/account/ with an error at the code")
    submit(page, "/account/password/", password=WRONG, new_password="another harbour at dawn")
    visit(page, "/account/ with an error at the password")
    submit(page, "/account/password/", password=PASSWORD, new_password="password")
    visit(page, "/account/ with an error at the new password")
    _send_picture(page, b"no picture")
    visit(page, "/account/ with an error at the picture")
    made = BytesIO()
    Image.new("RGB", (300, 200), "teal").save(made, "PNG")
    _send_picture(page, made.getvalue())
    visit(page, "/account/ with a picture")


def _send_picture(page: Page, content: bytes) -> None:
    page.set_input_files("#picture", {"name": "me.png", "mimeType": "image/png", "buffer": content})
    submit(page, "/account/picture/")


def _submit_elsewhere(page: Page, address: str) -> None:
    """Have another site send a form to `address`."""
    page.goto(f'data:text/html,<form method="post" action="{address}"></form>')
    with page.expect_navigation():
        page.evaluate("document.forms[0].submit()")


def walk_links(site: House, page: Page, visit: Visit, kind: str) -> None:
    """The page that the link in a message leads to."""
    account = site.add(kind)
    site.sign_in(account, "Thing/1.0")
    site.sign_in(account, "Stranger/1.0")
    link = letter(site, account.contact, r"(/end/[^/\s\\]+/)")
    page.goto("about:blank")
    page.context.clear_cookies(name="session")
    page.goto(link)
    visit(page, "/end/…")
    submit(page, link)
    visit(page, "/end/… done")
    page.goto(link)
    visit(page, "/end/… used")


def walk_errors(site: House, page: Page, visit: Visit, kind: str) -> None:
    """What goes wrong, told to somebody who is signed in and to a stranger."""
    for account in (site.add(kind), None):
        who = account.kind if account else "stranger"
        if account:
            enter(site, page, account)
        else:
            # First away: a page whose cookie is gone may ask for its stream again, and is refused.
            page.goto("about:blank")
            page.context.clear_cookies(name="session")
        for status, address in ((404, "/nowhere/"), (404, "/setup/0123/"), (400, "/sign-in/?next=%ff")):
            page.goto(address)
            visit(page, f"{status} {address} {who}")
        _submit_elsewhere(page, site.address + "/preferences/")
        visit(page, f"403 {who}")
        page.goto("/sign-in/")
        page.evaluate("document.forms[0].action = '/activity/'")
        submit(page, "/activity/")
        visit(page, f"405 {who}")
        page.goto("/sign-in/")
        submit(page, "/sign-in/", identity="x" * 70_000, password="x")
        visit(page, f"413 {who}")
    account = site.add(kind)
    enter(site, page, account)
    open_followed(page, "/account/")
    enter(site, page.context.new_page(), site.add(kind))
    page.context.pages[-1].close()
    submit(page, "/account/fields/", name="Changed")
    visit(page, "409")


def walk_first(site: House, page: Page, visit: Visit) -> None:
    """The pages of a server without an account, and with registration closed; then of one that breaks."""
    setup = str(re.findall(r"(/setup/\S+)", site.log.read_text())[0])
    page.goto(setup)
    visit(page, "/setup/…")
    submit(page, setup, email="nobody", name="x" * 300, new_password="1")
    visit(page, "/setup/… with errors at its fields")
    submit(page, setup, email="first@example.com", name="Ada", new_password=PASSWORD)
    visit(page, "/devices/ of the first account")
    page.goto("/register/")
    visit(page, "/register/ closed")
    # A time that no clock shows.
    site.write(lambda db: db.execute(text(f"UPDATE user_sessions SET last_seen_at = {2**62}")) and None)
    page.goto("/devices/")
    visit(page, "500")
    site.write(lambda db: db.execute(text("ALTER TABLE user_sessions RENAME TO lost")) and None)
    page.goto("/devices/")
    visit(page, "503")


# Those that share a server with an account; `walk_first` has one of its own.
WALKS = [walk_as_a_stranger, walk_signed_in, walk_unconfirmed, walk_errors, walk_links]

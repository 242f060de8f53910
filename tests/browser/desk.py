"""Every page of the desk in every state, reached as staff reach it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page
from sqlalchemy import Connection, text, update

from models.schema import USER
from tests.browser.walks import WIDE, WRONG, Visit, enter, forget_passwords, submit
from tests.conftest import House

Walk = Callable[[House, Page, Visit], None]
# In microseconds: nobody's lease is over before the year 2100.
MUCH_LATER = 4_102_444_800_000_000
PAGES = [
    "/admin/",
    "/admin/?span=week",
    "/admin/?span=month",
    "/admin/sessions/",
    "/admin/sessions/?kind=client&device=Thing%2F1.0&sort=seen&limit=2",
    "/admin/sessions/?device=Nobody%2F9",
    "/admin/sessions/?ip=nonsense&q=%E2%80%AE",
    "/admin/sessions/user/{session}/",
    "/admin/sessions/end/?kind=user&account={account}",
    "/admin/sessions/end/?session=user-{session}",
    "/admin/sessions/end/?session=user-999999",
    "/admin/sessions/end/",
    "/admin/sessions/ends/",
    "/admin/accounts/user/",
    "/admin/accounts/client/?state=unconfirmed",
    "/admin/accounts/user/?q=NobodyIsCalledSo&state=disabled",
    "/admin/accounts/user/{account}/",
    "/admin/accounts/client/{unconfirmed}/",
    "/admin/accounts/user/{staff}/",
    "/admin/accounts/user/new/",
    "/admin/events/",
    "/admin/events/?type=ended&cause=theft",
    "/admin/events/?kind=user&account={account}&limit=2",
    "/admin/events/?account=5",
    "/admin/emergency/",
    "/admin/emergency/?kind=client&started_to=2026-01-01T00%3A00",
    "/admin/emergency/?started_to=never",
]


def _change(db: Connection, account_id: int, values: dict[str, Any]) -> None:
    db.execute(update(USER.accounts).where(USER.accounts.c.id == account_id).values(values))


def walk_pages(site: House, page: Page, visit: Visit) -> None:
    """What staff see."""
    staff, account = site.add("user", staff=True), site.add("user")
    unconfirmed = site.add("client", confirmed=False)
    sessions = [site.sign_in(account, agent).session for agent in ("Thing/1.0", WIDE, "curl/8.5.0")]
    for _ in range(3):
        site.sign_in(site.add("client"), WIDE)
    long = {"surname": "W" * 200, "name": "\u202eevil", "address": "x" * 200}
    site.write(_change, account.id, long)
    enter(site, page, staff)
    names = {"account": account.id, "unconfirmed": unconfirmed.id, "staff": staff.id, "session": sessions[1]}
    for address in PAGES:
        page.goto(address.format(**names))
        visit(page, address)
    page.goto("/admin/")
    page.locator("#flow-numbers summary").click()
    visit(page, "/admin/ with its numbers as a table")
    page.goto("/admin/sessions/?kind=user")
    page.locator("#filters summary").click()
    page.locator("[data-pick]").first.check()
    visit(page, "/admin/sessions/ with its filters open and a row picked")


def walk_as_others(site: House, page: Page, visit: Visit) -> None:
    """What viewers see, and who is neither."""
    viewer, account = site.add("user"), site.add("user")
    enter(site, page, viewer)
    page.goto("/admin/")
    visit(page, "/admin/ as nobody of the staff")
    site.write(_change, viewer.id, {"is_viewer": True})
    for address in ("/admin/", "/admin/sessions/", f"/admin/accounts/user/{account.id}/", "/admin/emergency/"):
        page.goto(address)
        visit(page, f"{address} as a viewer")


def change_job(db: Connection, job_id: int, values: str) -> None:
    """Have an ending look as it does at another time."""
    db.execute(text(f"UPDATE jobs SET {values} WHERE id = :id"), {"id": job_id})


def walk_acts(site: House, page: Page, visit: Visit) -> None:
    """What staff do to one account, and to everybody, with what goes wrong."""
    account = site.add("user")
    enter(site, page, site.add("user", staff=True))
    address = f"/admin/accounts/user/{account.id}/"
    page.goto(address)
    page.locator("#disable-button").click()
    visit(page, "an account, asking before it is disabled")
    page.locator("#disable-popover input[name=reason]").fill("Why not")
    page.locator("#disable-popover .primary").click()
    page.wait_for_selector("#flash")
    visit(page, "an account, disabled")
    page.goto("/admin/accounts/user/new/")
    submit(page, "/admin/accounts/user/new/", email="nobody")
    visit(page, "a new account with an error at its field")
    page.goto("/admin/emergency/")
    page.fill("[name=word]", "no")
    page.fill("[name=password]", WRONG)
    page.locator("main .danger").click()
    page.wait_for_selector("#word-error")
    visit(page, "the emergency without its word")


def walk_ends(site: House, page: Page, visit: Visit) -> None:
    """How staff end sessions."""
    staff = site.add("user", staff=True)
    enter(site, page, staff)
    clients = [site.sign_in(site.add("client"), "Ending/1.0") for _ in range(3)]
    address = f"/admin/sessions/end/?session=client-{clients[0].session}"
    site.write(forget_passwords, staff)
    page.goto(address)
    page.locator("main .danger").click()
    page.wait_for_selector("[name=prompted_password]")
    visit(page, "the password asked for before sessions end")
    page.fill("[name=prompted_password]", staff.password)
    page.press("[name=prompted_password]", "Enter")
    page.wait_for_url("**/ends/**")
    page.wait_for_selector("progress")
    page.wait_for_selector("main:not([data-every='1000'])")
    visit(page, "an ending that is done")
    number = page.url.rstrip("/").rpartition("/")[2]
    for state, values in (
        ("running", f"finished_at = NULL, taken_until = {MUCH_LATER}, total = 12345, ended = 678"),
        ("stopped", "finished_at = created_at, is_stopped = 1"),
    ):
        site.write(change_job, int(number), values)
        page.goto(f"/admin/sessions/ends/{number}/")
        visit(page, f"an ending that is {state}")
    page.goto("/admin/sessions/ends/")
    visit(page, "what staff ended")
    page.goto("/admin/events/?type=ended&cause=staff&kind=client")
    visit(page, "the log of what staff ended")


WALKS: list[Walk] = [walk_pages, walk_as_others, walk_acts, walk_ends]

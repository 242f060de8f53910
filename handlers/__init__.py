"""The whole URL table, readable top to bottom."""

from __future__ import annotations

from tornado import web

from handlers import account, admin, register, reset
from handlers.accounts import AccountHandler
from handlers.activity import ActivityHandler
from handlers.desk import AccountsHandler, EndingHandler, EventsHandler, JobHandler, SessionsHandler
from handlers.devices import DeviceEndHandler, DeviceListHandler, DevicePageHandler, OtherDevicesEndHandler
from handlers.docs import DOCS_FILE, DocsFileHandler, DocsHandler, OpenApiHandler
from handlers.live import LiveHandler, LivePageHandler
from handlers.operations import HealthHandler, MetricsHandler, ReadyHandler, SlashHandler, UnknownHandler
from handlers.pages import HomeHandler, UnknownPageHandler
from handlers.preferences import PreferencesHandler
from handlers.sessions import (
    ImageHandler,
    OtherSessionsHandler,
    SessionEndHandler,
    SessionHandler,
    SessionListHandler,
    SessionNameHandler,
)
from handlers.setup import SetupHandler
from handlers.sign_in import EndLinkHandler, SignInHandler, SignOutHandler
from handlers.static import StaticHandler
from handlers.tokens import (
    ConfirmHandler,
    PasswordHandler,
    RefreshHandler,
    RegisterHandler,
    SendCodeHandler,
    TokenHandler,
)

KIND = "(?P<kind>user|client)"
ID = "(?P<id>[0-9]+)"

# What programs ask; an address without its final slash is redirected to the one that has it.
API: list[tuple[str, type[web.RequestHandler]]] = [
    (f"/sessions/session-{KIND}-l/", SessionListHandler),
    (f"/sessions/session-{KIND}-l/{ID}/", SessionListHandler),
    (f"/sessions/session-{KIND}-r/{ID}/", SessionHandler),
    (f"/sessions/session-{KIND}-u/{ID}/", SessionNameHandler),
    (f"/sessions/session-{KIND}-d/", SessionEndHandler),
    (f"/sessions/session-{KIND}-d/{ID}/", SessionEndHandler),
    (f"/sessions/session-{KIND}-d/others/", OtherSessionsHandler),
    ("/sessions/live/", LiveHandler),
    ("/sessions/", SessionsHandler),
    ("/sessions/end/", EndingHandler),
    (f"/sessions/end/{ID}/", JobHandler),
    ("/auth/token/refresh/", RefreshHandler),
    (f"/auth/{KIND}/token/", TokenHandler),
    (f"/auth/{KIND}/register/", RegisterHandler),
    (f"/auth/{KIND}/confirm/", ConfirmHandler),
    (f"/auth/{KIND}/confirm/send/", SendCodeHandler),
    (f"/auth/{KIND}/password/", PasswordHandler),
    (f"/accounts/{KIND}/", AccountsHandler),
    (f"/accounts/{KIND}/{ID}/", AccountHandler),
    ("/events/", EventsHandler),
]

FILES: list[tuple[str, type[web.RequestHandler]]] = [
    (f"/sessions/session-{KIND}-l/{ID}/static/Users/(?P<file>[^/]+)", ImageHandler),
    (DOCS_FILE, DocsFileHandler),
]

OPERATIONS: list[tuple[str, type[web.RequestHandler]]] = [
    ("/healthz", HealthHandler),
    ("/readyz", ReadyHandler),
    ("/metrics", MetricsHandler),
    ("/openapi.json", OpenApiHandler),
    ("/docs", SlashHandler),
    ("/docs/", DocsHandler),
]

# What people open.
PAGES: list[tuple[str, type[web.RequestHandler]]] = [
    ("/", HomeHandler),
    ("/sign-in/", SignInHandler),
    ("/sign-out/", SignOutHandler),
    (f"/end/{KIND}-{ID}-(?P<mark>[0-9]+-[0-9a-f]{{64}})/", EndLinkHandler),
    ("/register/", register.RegisterHandler),
    ("/confirm/", register.ConfirmHandler),
    ("/confirm/send/", register.SendCodeHandler),
    ("/reset/", reset.ForgottenHandler),
    ("/reset/code/", reset.ResetHandler),
    (f"/reset/{KIND}-{ID}-(?P<code>[0-9a-f]{{48}})/", reset.ResetLinkHandler),
    ("/setup/(?P<code>[0-9a-f]+)/", SetupHandler),
    ("/devices/", DeviceListHandler),
    ("/devices/end-others/", OtherDevicesEndHandler),
    (f"/devices/{ID}/", DevicePageHandler),
    (f"/devices/{ID}/end/", DeviceEndHandler),
    ("/activity/", ActivityHandler),
    ("/account/", account.AccountHandler),
    ("/account/fields/", account.FieldsHandler),
    ("/account/(?P<name>email|phone)/", account.ContactHandler),
    ("/account/(?P<name>email|phone)/confirm/", account.ContactCodeHandler),
    ("/account/(?P<name>email|phone)/remove/", account.NoContactHandler),
    ("/account/picture/", account.PictureHandler),
    ("/account/picture/remove/", account.NoPictureHandler),
    ("/account/password/", account.PasswordHandler),
    ("/account/telling/", account.TellingHandler),
    ("/account/download/", account.DownloadHandler),
    ("/live/", LivePageHandler),
    ("/preferences/", PreferencesHandler),
]

# What staff open.
DESK: list[tuple[str, type[web.RequestHandler]]] = [
    ("/admin/", admin.overview.OverviewHandler),
    ("/admin/live/", admin.live.HouseLiveHandler),
    ("/admin/sessions/", admin.sessions.SessionListHandler),
    ("/admin/sessions/end/", admin.ends.EndHandler),
    ("/admin/sessions/ends/", admin.ends.EndListHandler),
    (f"/admin/sessions/ends/{ID}/", admin.ends.EndPageHandler),
    (f"/admin/sessions/{KIND}/{ID}/", admin.session.SessionPageHandler),
    ("/admin/accounts/", admin.accounts.AccountsHandler),
    (f"/admin/accounts/{KIND}/", admin.accounts.AccountListHandler),
    (f"/admin/accounts/{KIND}/new/", admin.accounts.AccountMakeHandler),
    (f"/admin/accounts/{KIND}/{ID}/", admin.accounts.AccountPageHandler),
    (f"/admin/accounts/{KIND}/{ID}/reset/", admin.accounts.AccountResetHandler),
    (f"/admin/accounts/{KIND}/{ID}/(?P<act>{'|'.join(admin.accounts.ACTS)})/", admin.accounts.AccountActHandler),
    ("/admin/events/", admin.log.LogHandler),
    ("/admin/events/download/(?P<form>csv|jsonl)/", admin.log.DownloadHandler),
    ("/admin/emergency/", admin.emergency.EmergencyHandler),
]

STATIC: list[tuple[str, type[web.RequestHandler]]] = [
    ("/static/(?P<state>[0-9a-f]+)/(?P<name>.+)", StaticHandler),
]

# What is none of these: programs are told in JSON, people by a page.
UNKNOWN: list[tuple[str, type[web.RequestHandler]]] = [
    ("/+(?:sessions|auth|accounts|events)/.*", UnknownHandler),
    (".*", UnknownPageHandler),
]

ROUTES = [
    *API,
    *FILES,
    *OPERATIONS,
    *PAGES,
    *DESK,
    *STATIC,
    *((address.removesuffix("/"), SlashHandler) for address, _ in [*API, *PAGES, *DESK] if address != "/"),
    *UNKNOWN,
]

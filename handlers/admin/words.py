"""What the desk calls things: events and their causes, and values that are no name by themselves."""

from __future__ import annotations

from handlers.activity import SENTENCES
from handlers.languages import N_, Language
from handlers.queries import NONE

TYPES = {
    "started": N_("Sign-in"),
    "refused": N_("Refused sign-in"),
    "sent": N_("Code sent"),
    "ended": N_("Session ended"),
    "registered": N_("New account"),
    "confirmed": N_("Confirmation"),
    "named": N_("Device named"),
    "changed": N_("Account changed"),
    "password_changed": N_("New password"),
    "reset_sent": N_("Link for a new password"),
    "disabled": N_("Account disabled"),
    "enabled": N_("Account enabled"),
    "made_staff": N_("Made staff"),
    "unmade_staff": N_("Staff no longer"),
    "made_viewer": N_("Made a viewer"),
    "unmade_viewer": N_("Viewer no longer"),
    "emergency": N_("Emergency cut-off"),
}

# Why sessions end.
CAUSES = {
    "signed_out": N_("Signed out"),
    "owner": N_("By the owner, from another device"),
    "link": N_("By the link in a message"),
    "staff": N_("By staff"),
    "expired": N_("Expired"),
    "cap": N_("Too many sessions"),
    "replaced": N_("Signed in again"),
    "disabled": N_("Account disabled"),
    "password": N_("New password"),
    "theft": N_("Stolen"),
    "restored": N_("Restored from a back-up"),
    "emergency": N_("Emergency cut-off"),
}

# Why other things happened: no list offers them, but what leads to one says so.
OTHER_CAUSES = {
    "device": N_("A new device"),
    "country": N_("A new country"),
    "code": N_("A wrong code"),
    "email": N_("E-mail"),
    "phone": N_("Phone"),
    "no_email": N_("E-mail removed"),
    "no_phone": N_("Phone removed"),
    "messages": N_("Messages turned on"),
    "no_messages": N_("Messages turned off"),
    "reset": N_("By a code"),
    "before": N_("Older sessions alone"),
}

DEVICE_KINDS = {
    "computer": N_("Computer"),
    "phone": N_("Phone"),
    "tablet": N_("Tablet"),
    "program": N_("Program"),
    # Televisions, consoles, watches, and what does not say what it is.
    "unknown": N_("Other"),
}
# Where the log says it in other words than the account's own page, which speaks to its reader.
LOGGED = SENTENCES | {
    ("registered", None): ("user-plus", "", N_("{whose} was registered.")),
    ("registered", "staff"): ("user-plus", "", N_("{by} created the account of {whose}.")),
    ("confirmed", None): ("badge-check", "on", N_("A contact of {whose} was confirmed.")),
    ("confirmed", "email"): ("badge-check", "on", N_("The e-mail address of {whose} was confirmed.")),
    ("confirmed", "phone"): ("badge-check", "on", N_("The phone number of {whose} was confirmed.")),
    ("confirmed", "staff"): ("badge-check", "on", N_("{by} confirmed the account of {whose}.")),
    ("started", None): ("log-in", "on", N_("{whose} signed in on {device}.")),
    ("started", "device"): ("log-in", "notice", N_("{whose} signed in on {device}, a new device.")),
    ("started", "country"): ("log-in", "notice", N_("{whose} signed in on {device}, from a new country.")),
    ("refused", None): ("shield-alert", "wrong", N_("A wrong password for {whose} was refused on {device}.")),
    ("refused", "code"): ("shield-alert", "wrong", N_("A wrong code for {whose} was refused on {device}.")),
    ("sent", None): ("mail", "", N_("A code for {whose} was asked for on {device}.")),
    ("named", None): ("pencil", "", N_("{by} named a device of {whose}.")),
    ("named", "staff"): ("pencil", "notice", N_("{by} named a device of {whose}.")),
    ("ended", None): ("log-out", "", N_("{whose} was signed out on {device}.")),
    ("ended", "signed_out"): ("log-out", "", N_("{whose} signed out on {device}.")),
    ("ended", "owner"): ("log-out", "", N_("{whose} ended the session on {device} from another device.")),
    ("ended", "link"): ("log-out", "", N_("{whose} was signed out on {device} by the link in a message.")),
    ("ended", "staff"): ("log-out", "notice", N_("{by} ended the session of {whose} on {device}.")),
    ("ended", "expired"): ("timer-off", "", N_("The session of {whose} on {device} expired.")),
    ("ended", "cap"): ("layers", "", N_("{whose} was signed out on {device}: too many others were signed in.")),
    ("ended", "replaced"): ("repeat", "", N_("{whose} signed in again on {device}; the session before that ended.")),
    ("ended", "disabled"): ("ban", "notice", N_("{whose} was signed out on {device}: the account was disabled.")),
    ("ended", "password"): ("key-round", "", N_("{whose} was signed out on {device}: the password was changed.")),
    ("ended", "theft"): (
        "shield-alert",
        "wrong",
        N_("{whose} was signed out on {device}: a copy of the session was used elsewhere."),
    ),
    ("ended", "emergency"): ("siren", "wrong", N_("{whose} was signed out on {device} by an emergency cut-off.")),
    ("ended", "restored"): (
        "history",
        "notice",
        N_("{whose} was signed out on {device}: the server was restored from a back-up."),
    ),
    ("changed", None): ("at-sign", "notice", N_("{whose} replaced a contact by another.")),
    ("changed", "email"): ("at-sign", "notice", N_("{whose} replaced the e-mail address by another.")),
    ("changed", "phone"): ("phone", "notice", N_("{whose} replaced the phone number by another.")),
    ("changed", "no_email"): ("at-sign", "notice", N_("{whose} removed the e-mail address.")),
    ("changed", "no_phone"): ("phone-off", "notice", N_("{whose} removed the phone number.")),
    ("changed", "messages"): ("bell", "on", N_("{whose} turned on the messages about new devices.")),
    ("changed", "no_messages"): ("bell-off", "notice", N_("{whose} turned off the messages about new devices.")),
    ("password_changed", None): ("key-round", "notice", N_("{whose} changed the password.")),
    ("password_changed", "reset"): ("key-round", "notice", N_("{whose} set a new password by a code.")),
    ("password_changed", "link"): (
        "key-round",
        "notice",
        N_("{whose} set a new password by the link that staff sent."),
    ),
    ("reset_sent", None): ("mail", "notice", N_("{by} sent {whose} a link that sets a new password.")),
    ("disabled", None): ("ban", "notice", N_("{by} disabled the account of {whose}.")),
    ("enabled", None): ("circle-check", "on", N_("{by} enabled the account of {whose} again.")),
    ("made_staff", None): ("shield-check", "notice", N_("{by} made {whose} staff.")),
    ("unmade_staff", None): ("shield-off", "notice", N_("{by} removed the staff rights of {whose}.")),
    ("made_viewer", None): ("eye", "notice", N_("{by} made {whose} a viewer.")),
    ("unmade_viewer", None): ("eye-off", "notice", N_("{by} removed the viewer rights of {whose}.")),
    ("emergency", None): ("siren", "wrong", N_("{by} ended every session: {kind}.")),
    ("emergency", "before"): ("siren", "wrong", N_("{by} ended the older sessions: {kind}.")),
}


def name_cause(cause: str, language: Language) -> str:
    """What a cause is called."""
    return language.gettext((CAUSES | OTHER_CAUSES).get(cause, cause))


def name_value(filter_name: str, value: str, language: Language) -> str:
    """What a value of a filter is called."""
    if value in ("", NONE):
        return language.gettext(N_("Not known"))
    if filter_name == "device_kind" and value in DEVICE_KINDS:
        return language.gettext(DEVICE_KINDS[value])
    return language.country(value) if filter_name == "country" else value

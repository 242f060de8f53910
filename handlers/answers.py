"""The shapes of answers: key for key, and in the order of, the owner's document."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import orjson

from models import clock
from models.principals import Principal
from models.schema import Kind, Row
from models.sessions import OwnList, Started
from models.tokens import Tokens

DEFAULT_IMAGE = "default-user-image.jpeg"
# What answers may take of each worker's memory: those of some ten thousand accounts.
MOST_MEGABYTES = 16
# What a kept answer takes beside its body.
BESIDES = 600


@dataclass(frozen=True, slots=True)
class Answer:
    """A list of sessions as it was sent: good for its account's revision, and until one of them expires."""

    site: str
    revision: int
    until: int
    etag: str
    body: bytes

    @classmethod
    def make(cls, kind: Kind, listed: OwnList, site: str) -> Answer:
        """The answer that lists these sessions.

        Within a revision sessions only go, by expiry: so their number and the revision name the answer, among those
        of one account and site.
        """
        # Copied: what orjson gives holds on to 4 or 8 kB.
        body = bytes(memoryview(orjson.dumps([shape_session(kind, row, site) for row in listed.rows])))
        whose = hashlib.blake2s(f"{kind.name} {listed.principal.account_id} {site}".encode(), digest_size=6).hexdigest()
        return cls(site, listed.revision, listed.until, f'"{listed.revision}.{len(listed.rows)}.{whose}"', body)


class Answers:
    """The answers that were sent last, one for an account, up to so many megabytes."""

    def __init__(self, most: int = MOST_MEGABYTES) -> None:
        self._left = most * 1_000_000
        self._kept: OrderedDict[tuple[str, int], Answer] = OrderedDict()

    def get(self, kind: str, account_id: int, site: str) -> Answer | None:
        """What was sent last to this account, where that was for this site.

        Whoever asks chooses what the server is called: each name's answer kept beside the others' would let one
        account fill all there is.
        """
        key = (kind, account_id)
        kept = self._kept.get(key)
        if kept is None or kept.site != site:
            return None
        self._kept.move_to_end(key)
        return kept

    def keep(self, kind: str, account_id: int, answer: Answer) -> None:
        """Have `get` give it, in place of what it gave for this account."""
        key = (kind, account_id)
        if old := self._kept.pop(key, None):
            self._left += len(old.body) + BESIDES
        self._kept[key] = answer
        self._left -= len(answer.body) + BESIDES
        while self._left < 0:
            self._left += len(self._kept.popitem(last=False)[1].body) + BESIDES


def shape_account(kind: Kind, row: Row, site: str, prefix: str = "") -> dict[str, Any]:
    """An account; its columns in `row` may have a prefix, its id there is then `account_id`."""
    shaped: dict[str, Any] = {}
    for field in kind.fields:
        value = row[prefix + field]
        if field.endswith("_at"):
            value = clock.to_iso(value)
        elif field == "image":
            account_id = row[prefix + "id"]
            value = f"{site}/sessions/session-{kind.name}-l/{account_id}/static/Users/{value or DEFAULT_IMAGE}"
        shaped[field] = value
    return shaped


def shape_session(kind: Kind, row: Row, site: str) -> dict[str, Any]:
    """A session with its account, as the owner's document has it."""
    return {"id": row["id"], kind.name: shape_account(kind, row, site, "account_"), "device": row["device"]}


def shape_details(kind: Kind, row: Row, site: str, principal: Principal) -> dict[str, Any]:
    """A session with its account, and all else that its owner may know of it."""
    return shape_session(kind, row, site) | {
        "name": row["name"],
        "current": principal.kind is kind and principal.session_id == row["id"],
        "ip": row["ip"],
        "location": ", ".join(filter(None, (row["city"], row["country"]))) or None,
        "browser": row["browser"],
        "os": row["os"],
        "created_at": clock.to_iso(row["created_at"]),
        "last_seen_at": clock.to_iso(row["last_seen_at"]),
        "expires_at": clock.to_iso(row["expires_at"]),
    }


def shape_tokens(tokens: Tokens, started: Started) -> dict[str, Any]:
    """The tokens of a session that was started or refreshed."""
    kind, account, session = started.kind, started.account, started.session
    return {
        "access": tokens.make_access(kind, account, session["sid"], clock.now()),
        "refresh": tokens.make_refresh(
            kind, account["id"], session["sid"], session["generation"], session["refreshed_at"], started.ends_at
        ),
        "token_type": "Bearer",
        "expires_in": tokens.access_seconds,
        "session": session["id"],
    }

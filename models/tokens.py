"""Tokens: JWTs (RFC 7519) signed by the key set, checked strictly (RFC 8725)."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import jwt

from models.keys import Key, KeySet
from models.schema import KINDS, Kind, Row

TokenType = Literal["access", "refresh", "cookie"]

# A client's has three names, 200 letters each; JSON writes some of those with twelve.
LONGEST_TOKEN = 16_384
# Names as they are fit. Checking what is longer each time takes less than room for all of it that may be sent.
LONGEST_KEPT = 1024
LARGEST_ID = 2**63 - 1
LATEST = 2**53
SID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# RFC 7515, section 3.1.
COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class InvalidToken(Exception):
    """The token is expired, forged, of another type, or no token at all."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a checked token says. Without `sid` the session is found by its device."""

    kind: Kind
    account_id: int
    sid: str | None
    expires_at: float
    generation: int = 0
    # A cookie tells its session's id too: why it ended can be said when its row is gone.
    session_id: int = 0


class Tokens:
    """Makes and checks the tokens of one key set."""

    def __init__(self, keys: KeySet, access_seconds: int, longest: timedelta, kept: int = 16_384) -> None:
        self.keys = keys
        self.access_seconds = access_seconds
        self._longest = longest.total_seconds()
        self._most_kept = kept
        self._kept: dict[str, Claims] = {}

    def make_access(self, kind: Kind, account: Row, sid: str, now: datetime) -> str:
        """An access token with the owner's claims and the session's name."""
        claims: dict[str, Any] = {}
        if kind.name == "client":
            claims = {
                "surname": account["surname"],
                "first_name": account["name"],
                "patronymic": account["patronymic"],
                "phone": account["phone"],
            }
        issued = int(now.timestamp())
        return self._encode(
            {
                "token_type": "access",
                "exp": issued + self.access_seconds,
                "iat": issued,
                "jti": secrets.token_hex(16),
                kind.claim: account["id"],
                **claims,
                "sid": sid,
            }
        )

    def make_refresh(
        self, kind: Kind, account_id: int, sid: str, generation: int, at: datetime, until: datetime
    ) -> str:
        """The one refresh token of a session's generation: the same arguments give the same token."""
        return self._encode(
            {
                "token_type": "refresh",
                "exp": int(until.timestamp()),
                "iat": int(at.timestamp()),
                "jti": f"{sid}.{generation}",
                kind.claim: account_id,
                "sid": sid,
                "gen": generation,
            }
        )

    def make_cookie(self, kind: Kind, account_id: int, session: Row, until: datetime) -> str:
        """What a browser keeps of a session: good as long as the session is there, and never longer than `until`."""
        return self._encode(
            {
                "token_type": "cookie",
                "exp": int(until.timestamp()),
                kind.claim: account_id,
                "sid": session["sid"],
                "session": session["id"],
            }
        )

    def check_access(self, token: str) -> Claims:
        """The claims of a good access token; raises InvalidToken.

        Signatures that were checked are kept, so many of tokens so long; the time is looked at on each call.
        """
        claims = self._kept.get(token)
        if claims is None:
            claims = self._check(token, "access")
            if len(token) <= LONGEST_KEPT:
                if len(self._kept) >= self._most_kept:
                    del self._kept[next(iter(self._kept))]
                self._kept[token] = claims
        if claims.expires_at <= time.time():
            self._kept.pop(token, None)
            raise InvalidToken
        return claims

    def check_refresh(self, token: str) -> Claims:
        """The claims of a good refresh token; raises InvalidToken."""
        return self._check_with_time(token, "refresh")

    def check_cookie(self, token: str) -> Claims:
        """The claims of a good cookie; raises InvalidToken."""
        return self._check_with_time(token, "cookie")

    def _check_with_time(self, token: str, token_type: TokenType) -> Claims:
        claims = self._check(token, token_type)
        if claims.expires_at <= time.time():
            raise InvalidToken
        return claims

    def _encode(self, claims: dict[str, Any]) -> str:
        key = self.keys.signing
        return jwt.encode(claims, key.secret, key.algorithm, headers={"kid": key.kid})

    def _check(self, token: str, token_type: TokenType) -> Claims:
        payload = self._decode(token)
        kind, account_id = _read_account(payload)
        sid, generation = payload.get("sid"), payload.get("gen", 0)
        is_type = payload.get("token_type") == token_type
        if sid is None and token_type == "access":  # noqa: S105
            # The document's own tokens name no session, and a client's neither its type nor an end.
            is_type = is_type or (kind.name == "client" and "token_type" not in payload)
        elif not (isinstance(sid, str) and SID.fullmatch(sid)):
            raise InvalidToken
        session_id = payload.get("session", 0)
        if not is_type or not _is_integer(generation) or not _is_integer(session_id):
            raise InvalidToken
        expires_at = self._read_expiry(payload, kind, sid)
        if token_type == "access" and time.time() + self._longest < expires_at < float("inf"):  # noqa: S105
            raise InvalidToken
        return Claims(kind, account_id, sid, expires_at, generation, session_id if 0 <= session_id <= LARGEST_ID else 0)

    def _decode(self, token: str) -> dict[str, Any]:
        """The payload, its signature checked with the key that the token names, or with each if it names none."""
        # One way to write a token: the decoder below would also take padding.
        if len(token) > LONGEST_TOKEN or not COMPACT.fullmatch(token):
            raise InvalidToken
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError as error:
            raise InvalidToken from error
        for key in self._candidates(kid):
            try:
                payload: dict[str, Any] = jwt.decode(
                    token, key.secret, [key.algorithm], options={"verify_iat": False, "verify_jti": False}
                )
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError):
                continue
            except (jwt.PyJWTError, OverflowError, TypeError) as error:
                raise InvalidToken from error
            return payload
        raise InvalidToken

    def _candidates(self, kid: object) -> list[Key]:
        if kid is None:
            return list(self.keys.by_kid.values())
        key = self.keys.by_kid.get(kid) if isinstance(kid, str) else None
        return [key] if key else []

    def _read_expiry(self, payload: dict[str, Any], kind: Kind, sid: str | None) -> float:
        exp = payload.get("exp")
        if exp is None and sid is None and kind.name == "client":
            return float("inf")
        # PyJWT takes a string of digits for a time; RFC 7519 does not.
        if not isinstance(exp, int | float) or isinstance(exp, bool) or not 0 <= exp < LATEST:
            raise InvalidToken
        return float(exp)


def _read_account(payload: dict[str, Any]) -> tuple[Kind, int]:
    named = [kind for kind in KINDS.values() if kind.claim in payload]
    if len(named) != 1:
        raise InvalidToken
    account_id = payload[named[0].claim]
    if not _is_integer(account_id) or not 0 < account_id <= LARGEST_ID:
        raise InvalidToken
    return named[0], account_id


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

"""The key set: which secrets sign and check tokens, and what else is derived from them."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from nacl.encoding import URLSafeBase64Encoder
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from models.settings import InvalidSettings, TokenSettings


@dataclass(frozen=True, slots=True)
class Key:
    """A secret with the one algorithm that it is used with (RFC 8725, section 3.1)."""

    kid: str
    secret: bytes
    algorithm: str
    check_only: bool = False


class KeySet:
    """The first key that may sign signs; all check."""

    def __init__(self, keys: list[Key]) -> None:
        self.by_kid = {key.kid: key for key in keys}
        # A key for checking only is another service's secret too: nothing of ours is derived from it.
        self._own = [key for key in keys if not key.check_only]
        self.signing = self._own[0]

    def seal(self, text: str) -> str:
        """`text`, readable only with this key set (XSalsa20-Poly1305)."""
        return _make_box(self.signing).encrypt(text.encode(), encoder=URLSafeBase64Encoder).decode()

    def unseal(self, sealed: str) -> str | None:
        """What was sealed; None where no key of this set sealed it."""
        for key in self._own:
            try:
                return _make_box(key).decrypt(sealed.encode("ascii"), encoder=URLSafeBase64Encoder).decode()
            except (CryptoError, ValueError):
                continue
        return None

    def fingerprint(self, purpose: str, text: str) -> str:
        """A keyed hash of `text`: a short code can't be found from it by trying all."""
        return _fingerprint(self.signing, purpose, text)

    def is_fingerprint(self, fingerprint: str, purpose: str, text: str) -> bool:
        """Whether a key of this set made `fingerprint` of `text`; constant time."""
        matches = [hmac.compare_digest(_fingerprint(key, purpose, text), fingerprint) for key in self._own]
        return any(matches)


def load(settings: TokenSettings) -> KeySet:
    """The configured key set, or the one key of `key_file`, which is made (mode 0600) if it is not there.

    Raises InvalidSettings where the file can't be made, read, or holds too little.
    """
    if settings.keys:
        return KeySet(
            [Key(key.kid, key.secret.get_secret_value().encode(), key.algorithm, key.check_only)
             for key in settings.keys]
        )  # fmt: skip
    secret = _read_or_make(settings.key_file)
    algorithm = settings.algorithms[0]
    if len(secret) < 64:
        raise InvalidSettings(f"{settings.key_file}: expected a key of at least 64 bytes, as the first start makes it")
    return KeySet([Key(hashlib.sha256(secret).hexdigest()[:8], secret, algorithm)])


def _read_or_make(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and linked into place: of several that start at once one makes the key, whole.
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, secrets.token_urlsafe(64).encode())
            os.fsync(descriptor)
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            os.close(descriptor)
            draft.unlink()
        return path.read_bytes().strip()
    except OSError as error:
        raise InvalidSettings(f"{path}: the signing key can't be made or read: {error.strerror}") from None


def _derive(key: Key, purpose: str) -> bytes:
    return hmac.digest(key.secret, f"sessions {purpose}".encode(), "sha256")


def _make_box(key: Key) -> SecretBox:
    return SecretBox(_derive(key, "box"))


def _fingerprint(key: Key, purpose: str, text: str) -> str:
    return hmac.digest(_derive(key, purpose), text.encode(), "sha256").hex()

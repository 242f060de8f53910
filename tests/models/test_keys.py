"""The key set: what it signs with, what it seals, and the key that the first start makes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models import keys
from models.keys import Key, KeySet
from models.settings import InvalidSettings, KeySettings, TokenSettings

NEW = Key("new", b"n" * 32, "HS256")
OLD = Key("old", b"o" * 32, "HS256")
OTHERS = Key("others", b"x" * 32, "HS256", check_only=True)


def test_the_first_key_that_may_sign_signs() -> None:
    assert KeySet([NEW, OLD]).signing is NEW
    assert KeySet([OTHERS, OLD, NEW]).signing is OLD
    assert set(KeySet([OTHERS, OLD]).by_kid) == {"others", "old"}


def test_what_is_sealed_is_read_with_this_key_set_alone() -> None:
    sealed = KeySet([OLD]).seal("Your code is 123456. Здравствуйте.")
    assert "123456" not in sealed
    assert KeySet([OLD]).unseal(sealed) == "Your code is 123456. Здравствуйте."
    assert KeySet([NEW, OLD]).unseal(sealed) == "Your code is 123456. Здравствуйте."
    assert KeySet([NEW]).unseal(sealed) is None
    assert KeySet([NEW]).unseal("not sealed") is None


def test_the_same_text_is_never_sealed_the_same_way() -> None:
    assert KeySet([NEW]).seal("123456") != KeySet([NEW]).seal("123456")


def test_a_fingerprint_is_known_by_the_keys_that_were_there_and_for_its_purpose_alone() -> None:
    made = KeySet([OLD]).fingerprint("confirm phone", "user 5 123456")
    assert "123456" not in made
    for key_set in (KeySet([OLD]), KeySet([NEW, OLD])):
        assert key_set.is_fingerprint(made, "confirm phone", "user 5 123456")
        assert not key_set.is_fingerprint(made, "confirm phone", "user 5 123457")
        assert not key_set.is_fingerprint(made, "confirm email", "user 5 123456")
    assert not KeySet([NEW]).is_fingerprint(made, "confirm phone", "user 5 123456")


def test_nothing_is_derived_from_another_services_key() -> None:
    twin = Key("others", OTHERS.secret, "HS256")
    sealed, made = KeySet([twin]).seal("secret"), KeySet([twin]).fingerprint("purpose", "secret")
    assert KeySet([NEW, OTHERS]).unseal(sealed) is None
    assert not KeySet([NEW, OTHERS]).is_fingerprint(made, "purpose", "secret")


def test_the_first_start_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    file = tmp_path / "data" / "signing.key"
    settings = TokenSettings(key_file=file)
    made = keys.load(settings).signing
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(made.secret) >= 64
    assert keys.load(settings).signing == made
    assert [path.name for path in file.parent.iterdir()] == ["signing.key"]


def test_two_first_starts_make_different_keys(tmp_path: Path) -> None:
    first, second = (keys.load(TokenSettings(key_file=tmp_path / name)).signing for name in ("one", "two"))
    assert first.secret != second.secret
    assert first.kid != second.kid


def test_of_several_that_start_at_once_all_have_the_same_key(tmp_path: Path) -> None:
    for number in range(20):
        settings = TokenSettings(key_file=tmp_path / str(number) / "signing.key")
        with ThreadPoolExecutor(8) as threads:
            made = {key_set.signing for key_set in threads.map(lambda _, it=settings: keys.load(it), range(8))}
        assert len(made) == 1


def test_a_key_file_that_holds_too_little_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "signing.key"
    for content in ("", "short", "x" * 63, f"\n{'x' * 63}\n"):
        file.write_text(content)
        with pytest.raises(InvalidSettings, match=r"signing\.key: expected a key of at least 64 bytes"):
            keys.load(TokenSettings(key_file=file))


def test_a_key_file_that_cannot_be_made_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "signing.key", tmp_path):
        with pytest.raises(InvalidSettings, match=f"{path}: the signing key can't be made or read: "):
            keys.load(TokenSettings(key_file=path))


def test_configured_keys_go_before_the_key_file(tmp_path: Path) -> None:
    file = tmp_path / "signing.key"
    configured = KeySettings(kid="configured", secret="c" * 64, algorithm="HS512", check_only=False)
    made = keys.load(TokenSettings(keys=(configured,), algorithms=("HS512",), key_file=file)).signing
    assert made == Key("configured", b"c" * 64, "HS512")
    assert not file.exists()

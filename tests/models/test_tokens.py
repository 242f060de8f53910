"""Which tokens are good: everything that a forger, a careless issuer or an old service may send."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.keys import Key, KeySet
from models.schema import CLIENT, KINDS, USER
from models.tokens import LONGEST_TOKEN, Claims, InvalidToken, Tokens

HOUSE = Key("house", b"h" * 64, "HS256")
OLDER = Key("older", b"o" * 64, "HS256")
OTHER = Key("other", b"x" * 64, "HS256", check_only=True)
LONG = Key("long", b"l" * 64, "HS512")
LONGEST = timedelta(days=366)
TOKENS = Tokens(KeySet([HOUSE, OLDER, OTHER, LONG]), 900, LONGEST)

ACCOUNT = {"id": 5, "surname": "user3", "name": "User", "patronymic": "Third", "phone": "+79137779135"}
# The tokens that are printed in the owner's document, for whom they speak.
DOCUMENT_CLIENT = {
    "client_id": 1,
    "surname": "Client1",
    "first_name": "Client1",
    "patronymic": "Client1",
    "phone": "+79967486294",
}


def now() -> datetime:
    return datetime.now(UTC)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a user's good access token, changed; a change to `...` takes the claim away."""
    issued = int(time.time())
    good = {"token_type": "access", "exp": issued + 900, "iat": issued, "jti": "j", "user_id": 5, "sid": "s"}
    return {name: value for name, value in (good | changes).items() if value is not ...}


def refresh_claims(**changes: Any) -> dict[str, Any]:
    return claims(**{"token_type": "refresh", "gen": 1, **changes})


def sign(payload: object, key: Key = HOUSE, **header: Any) -> str:
    """A token with any payload and header at all, its signature right; a payload that is text is taken as it is."""
    head = {"alg": key.algorithm, "typ": "JWT", "kid": key.kid} | header
    return sign_text(json.dumps(head), payload if isinstance(payload, str) else json.dumps(payload), key)


def sign_text(header: str, payload: str, key: Key = HOUSE) -> str:
    signed = b".".join(base64.urlsafe_b64encode(part.encode()).rstrip(b"=") for part in (header, payload))
    digest = hmac.digest(key.secret, signed, key.algorithm.replace("HS", "sha"))
    return (signed + b"." + base64.urlsafe_b64encode(digest).rstrip(b"=")).decode()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_its_own_tokens_are_good_and_say_whose_they_are(kind: Any) -> None:
    access = TOKENS.check_access(TOKENS.make_access(kind, ACCOUNT, "sid", now()))
    assert (access.kind, access.account_id, access.sid) == (kind, 5, "sid")
    assert 890 < access.expires_at - time.time() <= 900
    refresh = TOKENS.check_refresh(TOKENS.make_refresh(kind, 5, "sid", 3, now(), now() + timedelta(days=1)))
    assert (refresh.kind, refresh.account_id, refresh.sid, refresh.generation) == (kind, 5, "sid", 3)


def test_an_access_token_has_the_claims_of_the_contract() -> None:
    shared = ["exp", "iat", "jti", "sid", "token_type"]
    user, client = (
        jwt.decode(TOKENS.make_access(kind, ACCOUNT, "sid", now()), HOUSE.secret, ["HS256"]) for kind in (USER, CLIENT)
    )
    assert sorted(user) == sorted([*shared, "user_id"])
    assert sorted(client) == sorted([*shared, "client_id", "surname", "first_name", "patronymic", "phone"])
    assert client["first_name"] == "User"
    assert (user["token_type"], user["exp"] - user["iat"]) == ("access", 900)


def test_a_generation_has_one_refresh_token_however_often_it_is_asked_for() -> None:
    at = now()
    first, again = (TOKENS.make_refresh(USER, 5, "sid", 2, at, at + LONGEST) for _ in range(2))
    assert first == again
    assert first != TOKENS.make_refresh(USER, 5, "sid", 3, at, at + LONGEST)


def test_one_type_of_token_is_never_taken_for_the_other() -> None:
    access, refresh = sign(claims()), sign(refresh_claims())
    assert TOKENS.check_access(access).sid == TOKENS.check_refresh(refresh).sid == "s"
    with pytest.raises(InvalidToken):
        TOKENS.check_access(refresh)
    with pytest.raises(InvalidToken):
        TOKENS.check_refresh(access)


@pytest.mark.parametrize("token_type", ["Access", "sliding", "", None, 1, ["access"], {"access": 1}, ...], ids=repr)
def test_a_token_of_no_known_type_is_refused(token_type: object) -> None:
    assert is_refused(claims(token_type=token_type))


def is_good(payload: object, key: Key = HOUSE, **header: Any) -> bool:
    """Whether a signed token with this payload is taken as an access token."""
    return not _is_refused(TOKENS.check_access, sign(payload, key, **header))


def _is_refused(check: Callable[[str], Claims], token: str) -> bool:
    try:
        check(token)
    except InvalidToken:
        return True
    return False


def is_refused(payload: object, key: Key = HOUSE, **header: Any) -> bool:
    """Whether a signed token with this payload is refused, as access and as refresh token alike."""
    token = sign(payload, key, **header)
    return all(_is_refused(check, token) for check in (TOKENS.check_access, TOKENS.check_refresh))


def test_a_token_that_is_signed_with_nothing_is_refused() -> None:
    for token in (
        jwt.encode(claims(), "", "none"),
        jwt.encode(claims(), "", "none", headers={"kid": "house"}),
        sign(claims(), alg="none"),
        sign(claims(), alg="None"),
        sign(claims()).rpartition(".")[0] + ".",
        sign(claims()).rpartition(".")[0],
    ):
        with pytest.raises(InvalidToken):
            TOKENS.check_access(token)


def test_an_rs256_token_is_not_checked_with_an_hmac_key() -> None:
    assert is_refused(claims(), alg="RS256")
    for header in ({"alg": "RS256"}, {"alg": "RS256", "kid": "house"}):
        token = sign_text(json.dumps(header), json.dumps(claims()))
        # Such a signature is 2048 bits long.
        for forged in (token, token.rpartition(".")[0] + "." + "A" * 342):
            assert _is_refused(TOKENS.check_access, forged)


def test_a_key_checks_its_own_algorithm_alone() -> None:
    assert is_good(claims(), LONG)
    with pytest.raises(InvalidToken):
        TOKENS.check_access(jwt.encode(claims(), HOUSE.secret, "HS512", headers={"kid": "house"}))
    with pytest.raises(InvalidToken):
        TOKENS.check_access(jwt.encode(claims(), LONG.secret, "HS256", headers={"kid": "long"}))


def test_a_changed_or_foreign_signature_is_refused() -> None:
    head, body, signature = sign(claims()).split(".")
    forged = base64.urlsafe_b64encode(json.dumps(claims(user_id=1)).encode()).rstrip(b"=").decode()
    stranger = Key("house", b"f" * 64, "HS256")
    for token in (f"{head}.{forged}.{signature}", f"{head}.{body}.{signature[::-1]}", sign(claims(), stranger)):
        with pytest.raises(InvalidToken):
            TOKENS.check_access(token)


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "/dev/null", "nobody", "", "house\0", "' OR 1=1 --", 1, True, ["house"], {}], ids=repr
)
def test_a_kid_that_names_no_key_is_refused(kid: object) -> None:
    assert is_refused(claims(), kid=kid)


def test_a_token_that_names_another_key_than_it_is_signed_with_is_refused() -> None:
    assert is_refused(claims(), kid="older")


@pytest.mark.parametrize("key", [HOUSE, OLDER, OTHER, LONG], ids=lambda key: key.kid)
def test_a_token_that_names_no_key_is_checked_with_each(key: Key) -> None:
    token = sign_text(json.dumps({"alg": key.algorithm}), json.dumps(claims()), key)
    assert TOKENS.check_access(token).account_id == 5


def test_a_token_of_100_kb_is_refused_unread() -> None:
    for token in ("a" * 100_000, sign(claims(padding="p" * 100_000)), "." * 100_000, "[" * 100_000):
        assert len(token) > LONGEST_TOKEN
        with pytest.raises(InvalidToken):
            TOKENS.check_access(token)


def test_json_that_nests_too_deep_is_refused() -> None:
    # Some 5,900 levels fit into a token, and a reader that recurses has a thousand.
    deep = "[" * 5900 + "]" * 5900
    for header, payload in (
        (deep, json.dumps(claims())),
        (f'{{"alg":"HS256","kid":"house","x":{deep}}}', "{}"),
        (json.dumps({"alg": "HS256", "kid": "house"}), deep),
        (json.dumps({"alg": "HS256", "kid": "house"}), f'{{"user_id":5,"x":{deep}}}'),
    ):
        token = sign_text(header, payload)
        assert len(token) <= LONGEST_TOKEN
        with pytest.raises(InvalidToken):
            TOKENS.check_access(token)


YEAR_9999 = 253_402_300_799
BAD_TIMES = ['"9999999999"', "true", "false", "null", "[]", "{}", "NaN", "1e999", "-1e999", "1e400", "0", "-1", '""']


@pytest.mark.parametrize("exp", [*BAD_TIMES, str(YEAR_9999), f"{YEAR_9999}.5", "1e300", "9" * 400, "9" * 4500])
def test_an_exp_that_is_no_time_of_ours_is_refused(exp: str) -> None:
    for name in KINDS:
        payload = json.dumps(claims(user_id=..., exp="EXP") | {f"{name}_id": 5}).replace('"EXP"', exp)
        with pytest.raises(InvalidToken):
            TOKENS.check_access(sign(payload))


def test_an_exp_with_a_fraction_is_a_time() -> None:
    assert is_good(claims(exp=time.time() + 60.5))


def test_a_token_without_an_exp_is_refused() -> None:
    assert is_refused(claims(exp=...))
    assert is_refused(refresh_claims(exp=...))
    assert is_refused(claims(exp=..., user_id=..., client_id=1))


def test_an_expired_token_is_refused() -> None:
    assert is_refused(claims(exp=int(time.time()) - 1))
    assert is_refused(refresh_claims(exp=int(time.time()) - 1))


def test_a_token_that_is_not_good_yet_is_refused() -> None:
    assert is_refused(claims(nbf=int(time.time()) + 600))
    assert is_good(claims(nbf=int(time.time()) - 600))
    for nbf in BAD_TIMES[4:8]:
        assert is_refused(json.dumps(claims(nbf="NBF")).replace('"NBF"', nbf))


def test_a_token_that_would_live_too_long_is_refused() -> None:
    longest = int(time.time() + LONGEST.total_seconds())
    assert is_good(claims(exp=longest - 60))
    assert is_refused(claims(exp=longest + 60))


def test_a_token_for_both_kinds_or_for_none_is_refused() -> None:
    assert is_refused(claims(client_id=1))
    assert is_refused(claims(user_id=...))
    assert is_refused(claims(user_id=..., account_id=5))


@pytest.mark.parametrize("account_id", [0, -1, 2**63, 10**400, "5", True, 5.0, None, [5], {"id": 5}], ids=repr)
def test_an_account_id_that_no_account_has_is_refused(account_id: object) -> None:
    assert is_refused(claims(user_id=account_id))
    assert is_refused(refresh_claims(user_id=account_id))
    assert is_refused(DOCUMENT_CLIENT | {"client_id": account_id})


def test_the_largest_account_id_is_an_account_id() -> None:
    assert TOKENS.check_access(sign(claims(user_id=2**63 - 1))).account_id == 2**63 - 1


@pytest.mark.parametrize("sid", [5, True, 1.5, ["s"], {"s": 1}, "", "s" * 65, "s\0", "\ud800"], ids=ascii)
def test_a_sid_that_no_session_has_is_refused(sid: object) -> None:
    assert is_refused(claims(sid=sid))
    assert is_refused(refresh_claims(sid=sid))


@pytest.mark.parametrize("generation", ["1", True, None, 1.0, [1]], ids=repr)
def test_a_generation_that_is_no_number_is_refused(generation: object) -> None:
    assert is_refused(refresh_claims(gen=generation))


@pytest.mark.parametrize("payload", ["", "[]", "null", "1", '"claims"', "{", "\ufeff{}", "\0"], ids=repr)
def test_a_payload_that_is_no_object_is_refused(payload: str) -> None:
    assert is_refused(payload)


@pytest.mark.parametrize("header", ["", "[]", "null", "{}", '{"alg": null}', '{"alg": ["HS256"]}', "{", "\0"], ids=repr)
def test_a_header_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(InvalidToken):
        TOKENS.check_access(sign_text(header, json.dumps(claims())))


def test_the_documents_tokens_name_no_session_and_a_clients_no_end() -> None:
    user = TOKENS.check_access(sign(claims(sid=..., iat=...)))
    assert (user.kind, user.account_id, user.sid) == (USER, 5, None)
    client = TOKENS.check_access(sign(DOCUMENT_CLIENT))
    assert (client.kind, client.account_id, client.sid, client.expires_at) == (CLIENT, 1, None, float("inf"))


def test_the_documents_tokens_are_held_to_what_they_do_say() -> None:
    expired = int(time.time()) - 1
    assert is_refused(claims(sid=..., exp=...))
    assert is_refused(claims(sid=..., token_type=...))
    assert is_refused(DOCUMENT_CLIENT | {"exp": expired})
    assert is_refused(DOCUMENT_CLIENT | {"exp": "never"})
    assert is_refused(DOCUMENT_CLIENT | {"token_type": "refresh"})
    with pytest.raises(InvalidToken):
        TOKENS.check_refresh(sign(refresh_claims(sid=...)))


def test_an_older_key_still_checks_and_the_first_signs() -> None:
    before = Tokens(KeySet([OLDER]), 900, LONGEST)
    after = Tokens(KeySet([HOUSE, OLDER]), 900, LONGEST)
    without = Tokens(KeySet([HOUSE]), 900, LONGEST)
    old = before.make_access(USER, ACCOUNT, "sid", now())
    assert after.check_access(old).account_id == 5
    assert jwt.get_unverified_header(after.make_access(USER, ACCOUNT, "sid", now()))["kid"] == "house"
    with pytest.raises(InvalidToken):
        without.check_access(old)


def test_a_key_for_checking_only_never_signs() -> None:
    tokens = Tokens(KeySet([OTHER, HOUSE]), 900, LONGEST)
    assert tokens.check_access(sign(claims(), OTHER)).sid == "s"
    for token in (
        tokens.make_access(USER, ACCOUNT, "sid", now()),
        tokens.make_refresh(USER, 5, "sid", 1, now(), now() + LONGEST),
    ):
        assert jwt.get_unverified_header(token)["kid"] == "house"
        with pytest.raises(InvalidToken):
            Tokens(KeySet([Key("house", OTHER.secret, "HS256")]), 900, LONGEST).check_access(token)


def test_a_kept_token_is_refused_once_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(KeySet([HOUSE]), 900, LONGEST)
    token = tokens.make_access(USER, ACCOUNT, "sid", now())
    assert tokens.check_access(token) is tokens.check_access(token)
    later = time.time() + 901
    monkeypatch.setattr("time.time", lambda: later)
    with pytest.raises(InvalidToken):
        tokens.check_access(token)


def test_what_is_kept_is_bounded_and_what_was_let_go_is_checked_again() -> None:
    tokens = Tokens(KeySet([HOUSE]), 900, LONGEST, kept=2)
    first, second, third = (tokens.make_access(USER, ACCOUNT, sid, now()) for sid in "abc")
    kept = tokens.check_access(first)
    assert tokens.check_access(second).sid == "b"
    assert tokens.check_access(first) is kept
    assert tokens.check_access(third).sid == "c"
    again = tokens.check_access(first)
    assert again == kept
    assert again is not kept


def test_of_tokens_with_very_long_names_none_is_kept() -> None:
    tokens = Tokens(KeySet([HOUSE]), 900, LONGEST)
    long = tokens.make_access(CLIENT, ACCOUNT | {"surname": "\N{SLIGHTLY SMILING FACE}" * 200}, "sid", now())
    first = tokens.check_access(long)
    assert tokens.check_access(long) == first
    assert tokens.check_access(long) is not first


def test_a_refused_token_pushes_no_kept_one_out() -> None:
    tokens = Tokens(KeySet([HOUSE]), 900, LONGEST, kept=1)
    token = tokens.make_access(USER, ACCOUNT, "sid", now())
    kept = tokens.check_access(token)
    for bad in ("", "a.b.c", sign(claims(exp=1)), sign(claims(), Key("house", b"f" * 64, "HS256"))):
        with pytest.raises(InvalidToken):
            tokens.check_access(bad)
    assert tokens.check_access(token) is kept


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
NAMES = st.sampled_from(
    ["token_type", "exp", "iat", "nbf", "jti", "sid", "gen", "user_id", "client_id", "aud", "sub", "iss"]
)
# The same tokens in each run, and no complaint of a machine that is busy.
STEADY = settings(derandomize=True, deadline=None)
HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip", "jwk", "x5u"]), VALUES, max_size=3
)


@STEADY
@given(token=st.text(st.characters(codec=None)) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}"))
@example(token="\ud800")
@example(token="e30.e30.")
@example(token="é.é.é")
def test_no_text_is_answered_by_anything_but_a_refusal(token: str) -> None:
    for check in (TOKENS.check_access, TOKENS.check_refresh):
        with pytest.raises(InvalidToken):
            check(token)


@STEADY
@given(changes=st.dictionaries(NAMES, VALUES, max_size=4), header=HEADERS)
@example(changes={"exp": 10**400}, header={})
@example(changes={"exp": float("nan")}, header={})
def test_no_signed_claims_are_answered_by_anything_but_claims_or_a_refusal(
    changes: dict[str, Any], header: dict[str, Any]
) -> None:
    for payload in (claims(**changes), refresh_claims(**changes), DOCUMENT_CLIENT | changes):
        token = sign(payload, **header)
        for check in (TOKENS.check_access, TOKENS.check_refresh):
            try:
                assert check(token).expires_at > time.time()
            except InvalidToken:
                continue

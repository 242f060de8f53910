"""Who may do what to whose sessions: one table that owns authorisation, and the proof that it would notice a hole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, column, delete, func, insert, or_, select, table, text, update

from models import accounts, clock, sessions
from models.database import is_postgres
from models.events import Cause
from models.keys import Key, KeySet
from models.origins import Origin
from models.schema import EVENTS, KINDS, Kind, Row
from models.settings import SessionSettings
from models.tokens import Tokens
from tests import conftest
from tests.conftest import ROOT, TOKENS, House, open_house, start_server

# Nobody, expired, forged: nobody's token, or the owner's own made useless. Unconfirmed, disabled, ended: the owner
# itself in that state. Own: the owner of a user's sessions and its twin, the client with the very same ids.
TABLE = """
who             address  list  mine  detail  name  end  current  others
nobody          user     401   401   401     401   401  401      401
nobody          client   401   401   401     401   401  401      401
expired         user     401   401   401     401   401  401      401
expired         client   401   401   401     401   401  401      401
forged          user     401   401   401     401   401  401      401
forged          client   401   401   401     401   401  401      401
own_user        user     200   200   200     200   204  204      200
own_user        client   403   403   403     403   403  403      403
own_client      user     403   403   403     403   403  403      403
own_client      client   200   200   200     200   204  204      200
other_user      user     403   200   403     403   403  204      200
other_user      client   403   403   403     403   403  403      403
other_client    user     403   403   403     403   403  403      403
other_client    client   403   200   403     403   403  204      200
unconfirmed     user     403   403   403     403   403  403      403
unconfirmed     client   403   403   403     403   403  403      403
disabled        user     403   403   403     403   403  403      403
disabled        client   403   403   403     403   403  403      403
ended           user     403   403   403     403   403  403      403
ended           client   403   403   403     403   403  403      403
staff           user     200   200   200     200   204  204      200
staff           client   200   403   200     200   204  403      403
"""
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = {
    (who, address, act): int(status)
    for who, address, *statuses in ROWS
    for act, status in zip(HEAD[2:], statuses, strict=True)
}

ACTS = {
    "list": ("GET", "/sessions/session-{kind}-l/{account}/"),
    "mine": ("GET", "/sessions/session-{kind}-l/"),
    "detail": ("GET", "/sessions/session-{kind}-r/{session}/"),
    "name": ("PATCH", "/sessions/session-{kind}-u/{session}/"),
    "end": ("DELETE", "/sessions/session-{kind}-d/{session}/"),
    "current": ("DELETE", "/sessions/session-{kind}-d/"),
    "others": ("DELETE", "/sessions/session-{kind}-d/others/"),
}

NOT_PROVIDED = {"detail": "Authentication credentials were not provided."}, "Bearer"
NOT_VALID = (
    {"detail": "Given token not valid for any token type", "code": "token_not_valid"},
    'Bearer error="invalid_token"',
)
FORBIDDEN = {"detail": "You do not have permission to perform this action."}, None

FORGER = Tokens(KeySet([Key("test", b"f" * 64, "HS256")]), 900, timedelta(days=366))
TABLES = ("users", "clients", "user_sessions", "client_sessions")


@dataclass(frozen=True)
class Party:
    """An account with two sessions: it calls from the first, and the second is what is asked for."""

    kind: Kind
    account: Row
    first: Row
    second: Row

    @property
    def listed(self) -> list[int]:
        """Its sessions' ids, newest first."""
        return [self.second["id"], self.first["id"]]


@dataclass(frozen=True)
class Cast:
    """Who calls, and whose sessions it asks for."""

    caller: Party
    owner: Party
    accounts: frozenset[int]


@dataclass(frozen=True)
class Attempt:
    """One request: its answer, and the rows that concern its cast before and after."""

    act: str
    who: str
    cast: Cast
    answer: httpx.Response
    before: dict[str, list[Row]]
    after: dict[str, list[Row]]

    @property
    def shown(self) -> list[int]:
        """The sessions that the answer shows."""
        if not self.answer.content or self.answer.status_code != 200 or self.act == "others":
            return []
        body = self.answer.json()
        return [one["id"] for one in body] if isinstance(body, list) else [body["id"]]

    @property
    def ended(self) -> set[tuple[str, int]]:
        """The sessions that are no more."""
        return _ids(self.before) - _ids(self.after)

    @property
    def named(self) -> set[tuple[str, int]]:
        """The sessions that have a name now."""
        return {(kind, row["id"]) for kind in KINDS for row in self.after[f"{kind}_sessions"] if row["name"]}


def make_cast(db: Connection, who: str, address: str) -> Cast:
    """The owner of what is asked for, its twin of the other kind, and a caller who is `who`."""
    now = clock.now()
    level(db)
    twins = {name: make_party(db, kind, now, is_confirmed=who != "unconfirmed") for name, kind in KINDS.items()}
    owner = caller = twins[address]
    if who in ("own_user", "own_client"):
        caller = twins[who.removeprefix("own_")]
    elif who in ("other_user", "other_client"):
        caller = make_party(db, KINDS[who.removeprefix("other_")], now)
    elif who == "staff":
        caller = make_party(db, KINDS["user"], now, is_staff=True)
    if who == "disabled":
        # Past the models, which would end its sessions: the account's state alone must do.
        mine = caller.kind.accounts.c.id == caller.account["id"]
        db.execute(update(caller.kind.accounts).where(mine).values(disabled_at=now))
    if who == "ended":
        sessions.end_one(db, caller.kind, caller.first["id"], Cause.SIGNED_OUT, now)
    return Cast(caller, owner, frozenset({caller.account["id"], *(twin.account["id"] for twin in twins.values())}))


def level(db: Connection) -> None:
    """Have accounts and sessions of both kinds go on from the same id: whoever takes one for another is caught."""
    if is_postgres(db):
        sequence = "pg_get_serial_sequence(:name, 'id')"
        top = max(db.scalar(text(f"SELECT nextval({sequence})"), {"name": name}) for name in TABLES)
        for name in TABLES:
            db.execute(text(f"SELECT setval({sequence}, :top)"), {"name": name, "top": top})
        return
    sequences = table("sqlite_sequence", column("name"), column("seq"))
    top = db.scalar(select(func.max(sequences.c.seq)).where(sequences.c.name.in_(TABLES))) or 0
    db.execute(delete(sequences).where(sequences.c.name.in_(TABLES)))
    for name in TABLES:
        db.execute(insert(sequences).values(name=name, seq=top))


def make_party(
    db: Connection, kind: Kind, now: datetime, *, is_confirmed: bool = True, is_staff: bool = False
) -> Party:
    """An account with its two sessions."""
    fields: dict[str, Any] = {"confirmed_by_staff_at": now if is_confirmed else None}
    if is_staff:
        fields["is_staff"] = True
    account = accounts.create(db, kind, fields, "no password has this hash", None, now)
    started = [
        sessions.start(db, kind, account["id"], None, None, Origin(device="tests/1"), SessionSettings(), now)
        for _ in range(2)
    ]
    first, second = (one.session for one in started if one)
    return Party(kind, account, first, second)


def attempt(house: House, cast: Cast, who: str, address: str, act: str) -> Attempt:
    """Let the cast's caller, who is `who`, try `act` on its owner's sessions, at the address of one kind."""
    method, template = ACTS[act]
    before = house.read(snapshot, cast)
    answer = house.client.request(
        method,
        template.format(kind=address, account=cast.owner.account["id"], session=cast.owner.second["id"]),
        headers=make_headers(who, cast.caller),
        json={"name": "Mine"} if act == "name" else None,
    )
    return Attempt(act, who, cast, answer, before, house.read(snapshot, cast))


def make_headers(who: str, caller: Party) -> dict[str, str]:
    """What the caller sends."""
    if who == "nobody":
        return {}
    tokens = FORGER if who == "forged" else TOKENS
    now = clock.now() - (timedelta(hours=1) if who == "expired" else timedelta())
    return {"Authorization": f"Bearer {tokens.make_access(caller.kind, caller.account, caller.first['sid'], now)}"}


def snapshot(db: Connection, cast: Cast) -> dict[str, list[Row]]:
    """The rows that concern the cast, without what every accepted token moves: when it was seen."""
    seen = ("last_seen_at", "expires_at")
    rows: dict[str, list[Row]] = {}
    for kind in KINDS.values():
        mine = kind.accounts.c.id.in_(cast.accounts)
        rows[kind.accounts.name] = _read(db, select(kind.accounts).where(mine).order_by(kind.accounts.c.id))
        columns = [column for column in kind.sessions.c if column.name not in seen]
        theirs = kind.sessions.c.account_id.in_(cast.accounts)
        rows[f"{kind.name}_sessions"] = _read(db, select(*columns).where(theirs).order_by(kind.sessions.c.id))
    concern = or_(EVENTS.c.account_id.in_(cast.accounts), EVENTS.c.by_id.in_(cast.accounts))
    rows["events"] = _read(db, select(EVENTS).where(concern).order_by(EVENTS.c.id))
    return rows


def judge(made: Attempt, status: int) -> None:
    """Fail unless the attempt was answered, and did, what the table says."""
    cast, answer = made.cast, made.answer
    assert answer.status_code == status, answer.text
    if status in (401, 403):
        invalid = NOT_PROVIDED if made.who == "nobody" else NOT_VALID
        body, challenge = FORBIDDEN if status == 403 else invalid
        assert answer.json() == body
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers.get("WWW-Authenticate") == challenge
        assert made.after == made.before
        return
    mine, theirs = (cast.caller.kind.name, cast.caller), (cast.owner.kind.name, cast.owner)
    shown = {
        "list": cast.owner.listed,
        "mine": cast.caller.listed,
        "detail": [cast.owner.second["id"]],
        "name": [cast.owner.second["id"]],
    }
    ended = {
        "end": {(theirs[0], theirs[1].second["id"])},
        "current": {(mine[0], mine[1].first["id"])},
        "others": {(mine[0], mine[1].second["id"])},
    }
    assert made.shown == shown.get(made.act, [])
    assert made.ended == ended.get(made.act, set())
    assert made.named == ({(theirs[0], theirs[1].second["id"])} if made.act == "name" else set())
    if status == 204:
        assert answer.content == b""


def _ids(rows: dict[str, list[Row]]) -> set[tuple[str, int]]:
    return {(kind, row["id"]) for kind in KINDS for row in rows[f"{kind}_sessions"]}


def _read(db: Connection, statement: Any) -> list[Row]:
    return [dict(row) for row in db.execute(statement).mappings()]


@pytest.fixture(scope="module")
def refused(house: House) -> dict[tuple[str, str], Cast]:
    """The casts of refused calls: they left everything as it was, so that the next may have them too."""
    return {}


@pytest.mark.parametrize(("who", "address", "act"), [pytest.param(*cell, id="-".join(cell)) for cell in CELLS])
def test_each_may_do_what_the_table_says_and_nothing_more(
    house: House, refused: dict[tuple[str, str], Cast], who: str, address: str, act: str
) -> None:
    status = CELLS[who, address, act]
    cast = (status in (401, 403) and refused.get((who, address))) or house.write(make_cast, who, address)

    judge(attempt(house, cast, who, address, act), status)

    if status in (401, 403):
        refused[who, address] = cast


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_that_is_none_is_refused_as_another_s_is(house: House, kind: str) -> None:
    cast = house.write(make_cast, f"own_{kind}", kind)
    headers = make_headers(f"own_{kind}", cast.caller)
    for act in ("list", "detail", "name", "end"):
        method, template = ACTS[act]
        missing = 2**62
        answer = house.client.request(
            method,
            template.format(kind=kind, account=missing, session=missing),
            headers=headers,
            json={"name": "Mine"} if act == "name" else None,
        )
        assert (answer.status_code, answer.json()) == (403, FORBIDDEN[0])


@pytest.fixture(scope="module")
def unfiltered(make_url: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server of a copy of this tree in which every session is everybody's own."""
    tree = tmp_path_factory.mktemp("copy") / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".*", "__pycache__", "benchmarks", "data", "tests"))
    queries = tree / Path(str(sessions.__file__)).relative_to(ROOT)
    assert callable(sessions.owned_by)
    with queries.open("a") as source:
        source.write("\n\ndef owned_by(*_: object) -> ColumnElement[bool]:\n    return true()\n")
    url = make_url("sqlite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest, "ROOT", tree)
        server = start_server(tmp_path_factory.mktemp("server"), url)
    with open_house(server, url) as opened:
        yield opened
    assert server.stop() == 0, server.log.read_text()


LEAKS: dict[str, Callable[[Attempt], bool]] = {
    "list": lambda made: made.cast.owner.first["id"] in made.shown,
    "detail": lambda made: made.cast.owner.second["id"] in made.shown,
    "name": lambda made: (made.cast.owner.kind.name, made.cast.owner.second["id"]) in made.named,
    "end": lambda made: made.ended == {(made.cast.owner.kind.name, made.cast.owner.second["id"])},
    "others": lambda made: made.ended >= {(made.cast.owner.kind.name, one) for one in made.cast.owner.listed},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("act", LEAKS)
def test_without_the_ownership_filter_the_table_fails(unfiltered: House, kind: str, act: str) -> None:
    who = f"other_{kind}"

    made = attempt(unfiltered, unfiltered.write(make_cast, who, kind), who, kind, act)

    assert LEAKS[act](made), "another's sessions stayed hidden: the filter is not what hides them"
    with pytest.raises(AssertionError):
        judge(made, CELLS[who, kind, act])

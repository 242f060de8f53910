"""What the document says, asked of the running server in many ways: the same each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import requests
import schemathesis
from schemathesis import Case
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.schemas import BaseSchema

from handlers import openapi
from tests.conftest import Device, House

pytestmark = pytest.mark.long


def load(mode: str) -> BaseSchema:
    """The document, asked with data that it allows (`positive`), or also with what it forbids (`all`)."""
    config = {
        "seed": 1,
        "generation": {
            "deterministic": True, "max-examples": 2, "mode": mode, "with-security-parameters": False,
        },
        "checks": {
            # What is well formed can still be wrong, or be tried too often: 400, 403 and 429 say so.
            "positive_data_acceptance": {"expected-statuses": ["2xx", "304", "400", "403", "404", "429"]},
        },
        "operations": [
            {
                "include-path-regex": "/token/",
                "checks": {"positive_data_acceptance": {"expected-statuses": ["200", "400", "401", "429"]}},
            }
        ],
    }  # fmt: skip
    document = orjson.loads(openapi.dump_document()[0])
    loaded = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(config))
    # A stream has no end.
    return loaded.exclude(path="/sessions/live/")


api, allowed = load("all"), load("positive")


class Callers:
    """A user, a client and one of the staff; whoever may have ended his session signs in again."""

    def __init__(self, house: House, session: requests.Session) -> None:
        self._house = house
        self._session = session
        self._accounts = {who: house.add(who) for who in ("user", "client")}
        self._accounts["staff"] = house.add("user", staff=True)
        self._changed = {kind: house.add(kind).id for kind in ("user", "client")}
        self._devices: dict[str, Device] = {}

    def ask(self, case: Case[Any]) -> dict[str, Any]:
        """How this call is sent: where to, and with whose token."""
        path = case.operation.path
        kind = "client" if "client" in path else "user"
        who = "staff" if path.startswith(("/accounts/", "/events/")) or path == "/sessions/" else kind
        device = self._devices.pop(who, None) or self._house.sign_in(self._accounts[who])
        if case.method != "DELETE":
            self._devices[who] = device
        if is_good(case) and "id" in case.path_parameters:
            # One that there is, and whose changes no other test sees.
            is_account = "-l/" in path
            case.path_parameters["id"] = (
                self._changed[kind] if who == "staff" else device.account.id if is_account else device.session
            )
        return {"base_url": self._house.address, "session": self._session, "headers": device.headers}


def is_good(case: Case[Any]) -> bool:
    """Whether the document allows what is sent."""
    return bool(case.meta and case.meta.generation.mode is GenerationMode.POSITIVE)


@pytest.fixture(scope="session")
def callers(house: House) -> Iterator[Callers]:
    """Those who call, over connections that are kept."""
    with requests.Session() as session:
        yield Callers(house, session)


def test_the_document_is_openapi() -> None:
    schemathesis.openapi.from_dict(orjson.loads(openapi.dump_document()[0])).validate()


@api.parametrize()
@pytest.mark.parametrize("house", ["sqlite"], indirect=True, scope="session")
def test_each_call_is_answered_as_the_document_says(case: Case[Any], callers: Callers) -> None:
    case.call_and_validate(**callers.ask(case))


# What the document forbids never reaches the database: there once is enough.
@allowed.parametrize()
@pytest.mark.parametrize("house", ["postgresql"], indirect=True, scope="session")
def test_each_good_call_is_answered_so_on_postgresql_too(case: Case[Any], callers: Callers) -> None:
    case.call_and_validate(**callers.ask(case))

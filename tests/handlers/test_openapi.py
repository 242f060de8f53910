"""The document and the URL table say the same, and what the document shows is true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest

from handlers import API, FILES, KIND, OPERATIONS, openapi
from handlers.base import ApiHandler
from handlers.docs import DocsFileHandler, DocsHandler
from handlers.operations import SlashHandler
from tests.conftest import House

DOCUMENT: dict[str, Any] = orjson.loads(openapi.dump_document()[0])
# Pages and redirects are no part of the JSON surface.
OTHERS = (DocsHandler, DocsFileHandler, SlashHandler)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each operation of the document, with its method and its address."""
    for address, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), address, operation


def walk(part: Any) -> Iterator[dict[str, Any]]:
    """Every object in the document."""
    if isinstance(part, dict):
        yield part
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from walk(inner)


def resolve(part: dict[str, Any]) -> dict[str, Any]:
    """What a reference refers to."""
    while "$ref" in part:
        _, _, section, name = part["$ref"].split("/")
        part = DOCUMENT["components"][section][name]
    return part


def find_errors(schema: dict[str, Any], value: Any) -> list[str]:
    """What is wrong with `value`, held to a schema of the document."""
    whole = {**schema, "components": DOCUMENT["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
    return [error.message for error in validator.iter_errors(value)]


def test_the_document_has_the_url_tables_addresses_and_methods_and_no_others() -> None:
    table = set()
    for pattern, handler in [*API, *FILES, *OPERATIONS]:
        if not issubclass(handler, OTHERS):
            own = [name for name in METHODS if getattr(handler, name.lower()) is not getattr(ApiHandler, name.lower())]
            for kind in ("user", "client"):
                address = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"{\1}", pattern.replace(KIND, kind))
                table |= {(method, address) for method in own}
    assert {(method, address) for method, address, _ in operations()} == table


def test_every_reference_refers_to_something() -> None:
    for part in walk(DOCUMENT):
        if "$ref" in part:
            assert resolve(part)


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for *_, operation in operations()]
    assert len(set(names)) == len(names)
    linked = {link["operationId"] for part in walk(DOCUMENT) for link in part.get("links", {}).values()}
    assert linked <= set(names)


def test_every_operation_says_which_parameters_its_address_has() -> None:
    for _, address, operation in operations():
        parameters = [resolve(parameter) for parameter in operation.get("parameters", ())]
        named = [parameter["name"] for parameter in parameters if parameter["in"] == "path"]
        assert named == re.findall(r"{(\w+)}", address)


def test_every_example_is_what_its_schema_says() -> None:
    checked = 0
    for part in walk(DOCUMENT):
        if "schema" in part:
            examples = [example["value"] for example in part.get("examples", {}).values()]
            examples += [part["example"]] if "example" in part else []
            for example in examples:
                assert find_errors(part["schema"], example) == []
                checked += 1
    assert checked > 50


@pytest.mark.parametrize("kind", ["user", "client"])
def test_the_shown_session_is_the_owners_key_for_key_and_in_his_order(kind: str) -> None:
    listed = DOCUMENT["paths"][f"/sessions/session-{kind}-l/"]["get"]["responses"]["200"]
    (shown,) = listed["content"]["application/json"]["examples"]["plain"]["value"]
    email = ["email"] if kind == "user" else []
    confirmed_email = ["confirmed_email"] if kind == "user" else []
    assert [*shown] == ["id", kind, "device"]
    assert [*shown[kind]] == [
        "id", "surname", "name", "patronymic", "address", *email, "phone", "image", *confirmed_email,
        "confirmed_phone", "created_at", "updated_at",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["user", "client"])
@pytest.mark.parametrize("body", ["{}", '{"email": null, "phone": null}', '{"email": "a", "phone": "b"}'])
def test_a_body_without_one_contact_is_refused_by_the_document_and_by_the_server(
    house: House, kind: str, body: str
) -> None:
    name = {"user": "UserSignIn", "client": "ClientSignIn"}[kind]
    sent = orjson.loads(body) | {"password": "a quiet harbour"}
    assert find_errors({"$ref": f"#/components/schemas/{name}"}, sent)
    assert house.ask("POST", f"/auth/{kind}/token/", json=sent).status_code == 400


def test_the_server_sends_the_document(house: House) -> None:
    answer = house.ask("GET", "/openapi.json")
    assert answer.content == openapi.dump_document()[0]
    assert answer.headers["Content-Type"] == "application/json"
    again = house.ask("GET", "/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_method_that_an_address_does_not_have_is_answered_as_the_document_says(house: House) -> None:
    told = DOCUMENT["components"]["responses"]["MethodNotAllowed"]
    for address, methods in DOCUMENT["paths"].items():
        concrete = address.replace("{id}", "1").replace("{file}", "none")
        answer = house.ask("PUT", concrete)
        assert answer.status_code == 405
        assert find_errors(told["content"]["application/json"]["schema"], answer.json()) == []
        allowed = set(answer.headers["Allow"].split(", ")) - {"HEAD", "OPTIONS"}
        assert allowed == {method.upper() for method in methods}


@pytest.mark.parametrize("kind", ["user", "client"])
def test_every_link_of_an_answer_leads_to_what_it_names(house: House, kind: str) -> None:
    account = house.add(kind)
    by_id = {operation["operationId"]: (method, address) for method, address, operation in operations()}
    followed = []
    for path, method in ((f"/auth/{kind}/token/", "post"), (f"/sessions/session-{kind}-l/", "get")):
        links = DOCUMENT["paths"][path][method]["responses"]["200"]["links"]
        for link in links.values():
            device = house.enter(account)
            body = {} if method == "get" else {"json": account.credentials}
            answer = house.ask(method.upper(), path, device, **body).json()
            next_method, address = by_id[link["operationId"]]
            for name, expression in link.get("parameters", {}).items():
                address = address.replace(f"{{{name}}}", str(evaluate(expression, answer)))
            sent = {name: evaluate(expression, answer) for name, expression in link.get("requestBody", {}).items()}
            sent |= {"name": "Work laptop"} if next_method == "PATCH" else {}
            more = {"json": sent} if sent else {}
            assert house.ask(next_method, address, device, **more).is_success
            followed.append(link["operationId"])
    assert len(followed) == 7


def evaluate(expression: str, answer: Any) -> Any:
    """The part of an answer that a runtime expression names (OpenAPI 3.1, section 4.8.20.4)."""
    value = answer
    for key in expression.removeprefix("$response.body#/").split("/"):
        value = value[int(key) if isinstance(value, list) else key]
    return value

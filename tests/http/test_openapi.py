"""The document says what the routes do: it is valid, and answers are as it describes them."""

import re
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from server.app import all_operations
from server.http.shaping import time_fields
from tests.architecture.test_routes import ROUTES
from tests.http.conftest import MONITOR, ORG_ID
from tests.http.test_parsing import path_of

CHECK = {
    **dict.fromkeys(("dns_ms", "connect_ms", "tls_ms", "tls_expires_at")),
    "id": MONITOR["id"],
    "started_at": MONITOR["created_at"],
    "region": "default",
    "outcome": "down",
    "counted": True,
    "status_code": 503,
    "error_kind": "status",
    "error_detail": "The answer was 503.",
    "first_byte_ms": 12.25,
    "total_ms": 13.5,
    "remote_ip": "203.0.113.7",
}
# Where the inventory of routes answers with no rows, so that there is something to describe.
FULLER: dict[str, list[Any]] = {
    "list_checks": [[CHECK, {**CHECK, "outcome": "up", "error_kind": None, "tls_expires_at": MONITOR["created_at"]}]],
    "read_me": [[{"org_id": ORG_ID, "role": "owner", "organisations": {"name": "Acme"}}]],
}
ANSWERING = [operation for operation in all_operations() if operation.answers or operation.list_of]


@pytest.fixture(scope="module")
def document(_app_and_upstream) -> dict[str, Any]:
    found: dict[str, Any] = _app_and_upstream[0].test_client().get("/openapi.json").json
    return found


def described(operation, document) -> dict[str, Any]:
    path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", operation.path)
    found: dict[str, Any] = document["paths"][path][operation.method.lower()]
    return found


def test_the_document_is_valid_openapi_3_1(document):
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_every_route_is_in_it_and_says_whether_it_is_open(document):
    for operation in all_operations():
        entry = described(operation, document)
        assert entry["operationId"] == operation.name
        assert entry["summary"], operation.name
        is_open = operation.is_public and not operation.is_elsewhere
        assert (entry.get("security") == []) == is_open
        assert ("401" in entry["responses"]) == (not is_open)


def test_what_the_stream_process_serves_carries_its_address(document):
    elsewhere = {path for path, item in document["paths"].items() if "servers" in item}
    assert elsewhere == {"/v1/events/stream"}
    assert document["paths"]["/v1/events/stream"]["servers"][0]["url"] == "http://127.0.0.1:8001"


def test_every_field_of_a_body_is_described(document):
    for operation in all_operations():
        if operation.body:
            schema = document["components"]["schemas"][operation.body.__name__]
            assert schema["additionalProperties"] is False
            assert schema["examples"], operation.body


@pytest.mark.parametrize("operation", ANSWERING, ids=lambda operation: operation.name)
def test_an_answer_is_as_the_document_describes_it(operation, client, upstream, signed_in, document, auth_says_yes):
    *_, body, answers = ROUTES[operation.method, operation.path]
    for answer in FULLER.get(operation.name, answers):
        upstream.answer(answer, 403 if operation.path == "/readyz" else 200)
    headers = {} if operation.is_public else signed_in
    reply = client.open(
        path_of(operation), method=operation.method, headers=headers, **({"json": body} if body else {})
    )
    content = described(operation, document)["responses"][str(reply.status_code)]["content"]
    schema = {**content[reply.content_type]["schema"], "components": document["components"]}
    registry: Registry[Any] = Registry().with_resource("", Resource.from_contents(schema, DRAFT202012))
    validator = jsonschema.Draft202012Validator(schema, registry=registry, format_checker=jsonschema.FormatChecker())
    validator.validate(reply.json)
    rows = reply.json["data"] if operation.list_of else [reply.json]
    assert rows, "an empty list is as any schema would have it"
    for row in rows:
        for name in time_fields(operation.list_of or operation.answers):
            assert row.get(name) is None or row[name].endswith("Z")


def test_a_problem_is_as_the_document_describes_it(client, signed_in, document):
    problem = client.post("/v1/orgs", json={"name": "", "x": 1}, headers=signed_in).json
    jsonschema.validate(problem, document["components"]["schemas"]["Problem"])


def test_the_page_is_whole_without_the_internet_and_knows_openapi_3_1(client):
    page = client.get("/docs")
    assert page.content_type.startswith("text/html")
    assert "//" not in page.text.replace("<!doctype", ""), "it names no other host"
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    for asset in re.findall(r'(?:src|href)="(/docs/[^"]+)"', page.text):
        found = client.get(asset)
        assert (found.status_code, found.headers["Cache-Control"]) == (200, "public, max-age=86400")
    bundle = client.get("/docs/swagger-ui-bundle.js").text
    assert re.findall(r'PACKAGE_VERSION:"(\d+)\.', bundle) == ["5"], "Swagger UI 4 cannot read OpenAPI 3.1"
    assert client.get("/docs/LICENSE").status_code == 404

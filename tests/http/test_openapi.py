"""The document says what the routes do: it is valid, and answers are as it describes them."""

import re
from typing import Any

import jsonschema
import orjson
import pytest
from openapi_spec_validator import validate
from pydantic import BaseModel
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from server.app import all_operations
from server.egress import Egress
from server.http import openapi
from server.http.examples import NoExample, examples_of
from server.http.replies import Reply, nothing
from server.http.routing import Feature, Operation
from server.http.shaping import time_fields
from tests.architecture.test_routes import ROUTES
from tests.http.conftest import MONITOR, ORG_ID
from tests.http.test_parsing import CHANNEL, INCIDENT, path_of

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
    "assertions": [{"assertion": "status == 200", "observed": "503", "holds": False}],
}
# Where the inventory of routes answers with no rows, so that there is something to describe.
FULLER: dict[str, list[Any]] = {
    "list_checks": [
        [
            CHECK,
            {**CHECK, "outcome": "up", "error_kind": None, "assertions": None, "tls_expires_at": MONITOR["created_at"]},
        ]
    ],
    "read_me": [[{"id": ORG_ID, "name": "Acme", "my_role": "owner"}]],
}
OPERATIONS = list(all_operations())
ANSWERING = [operation for operation in OPERATIONS if operation.answers or operation.list_of]
TAKING = [operation for operation in OPERATIONS if operation.body]


@pytest.fixture(scope="module")
def document(_app_and_upstream) -> dict[str, Any]:
    found: dict[str, Any] = _app_and_upstream[0].test_client().get("/openapi.json").json
    return found


def described(operation, document) -> dict[str, Any]:
    path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", operation.path)
    found: dict[str, Any] = document["paths"][path][operation.method.lower()]
    return found


def resolved(part: Any, document: dict[str, Any]) -> Any:
    """Return a part of the document with its references replaced, but for schemas."""
    if isinstance(part, list):
        return [resolved(each, document) for each in part]
    if not isinstance(part, dict):
        return part
    where = part.get("$ref")
    if where is None:
        return {name: resolved(value, document) for name, value in part.items()}
    _, _, kind, name = where.split("/")
    return part if kind == "schemas" else resolved(document["components"][kind][name], document)


def validator_of(schema: dict[str, Any], document: dict[str, Any]) -> Any:
    """Return what holds a value against a schema of the document."""
    whole = {**schema, "components": document["components"]}
    registry: Registry[Any] = Registry().with_resource("", Resource.from_contents(whole, DRAFT202012))
    return jsonschema.Draft202012Validator(whole, registry=registry, format_checker=jsonschema.FormatChecker())


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


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_route_is_documented_whole(operation: Operation, document):
    entry = described(operation, document)
    assert (operation.handler.__doc__ or "").strip(), f"give {operation.name} a docstring: it is the documentation"
    assert operation.status in openapi._SUCCESSES, f"say in openapi._SUCCESSES what {operation.status} means"
    for name, field in (operation.query.model_fields if operation.query else {}).items():
        assert field.description, f"say what the parameter {name} of {operation.name} does: Field(description=…)"
    for parameter in resolved(entry["parameters"], document):
        assert parameter["description"], f"{operation.name}: describe the parameter {parameter['name']}"
    for response in resolved(list(entry["responses"].values()), document):
        assert response["description"]
        for name, header in response["headers"].items():
            assert header["description"], name
            assert "example" in header, name


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_route_has_worked_examples_of_what_it_takes_and_gives(operation: Operation, document):
    for model in filter(None, (operation.body, operation.answers, operation.list_of)):
        mode = "validation" if model is operation.body else "serialization"
        names, schemas = openapi._schemas(OPERATIONS)
        try:
            examples_of(names[model, mode], schemas)
        except NoExample as where:
            pytest.fail(
                f"{operation.name}: give {where} an example: Field(examples=[…]), or the model examples of its own"
            )
    entry = resolved(described(operation, document), document)
    contents = [entry["requestBody"]["content"]] if operation.body else []
    contents += [response["content"] for response in entry["responses"].values() if "content" in response]
    for media_type, content in (pair for of_types in contents for pair in of_types.items()):
        found = [each["value"] for each in content.get("examples", {}).values()] or [content.get("example")]
        assert found != [None], f"{operation.name}: say what its {media_type} looks like: feature.route(…, example=…)"
        for example in found:
            validator_of(content["schema"], document).validate(example)


@pytest.mark.parametrize("operation", TAKING, ids=lambda operation: operation.name)
def test_the_example_of_a_body_is_taken(operation: Operation, document):
    assert operation.body
    schema = document["components"]["schemas"][openapi._schemas(OPERATIONS)[0][operation.body, "validation"]]
    assert schema["additionalProperties"] is False, f"refuse unknown fields in {operation.body}: extra='forbid'"
    for name, field in schema["properties"].items():
        assert field.get("description"), f"say what {operation.body}.{name} is: Field(description=…)"
    content = described(operation, document)["requestBody"]["content"]
    for example in resolved(content["application/json"], document)["examples"].values():
        operation.body.model_validate_json(orjson.dumps(example["value"]), strict=True, context={"egress": Egress(())})


def test_a_route_that_lacks_an_example_is_served_all_the_same():
    feature = Feature("Things")

    class Thing(BaseModel):
        colour: str

    @feature.route("GET", "/v1/thing", answers=Thing)
    def read_thing() -> Reply:
        """Read the thing."""
        return nothing()

    made = openapi.document(feature.operations, "1", "http://127.0.0.1:8001")
    content = made["paths"]["/v1/thing"]["get"]["responses"]["200"]["content"]
    assert content == {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}


def test_every_schema_says_what_it_is(document):
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), f"give {name} a docstring"


@pytest.mark.parametrize("operation", [op for op in OPERATIONS if not op.says], ids=lambda operation: operation.name)
def test_every_refusal_is_documented_with_its_code(operation: Operation, document):
    responses = resolved(described(operation, document)["responses"], document)
    codes = {
        (int(status), example["value"]["code"])
        for status, response in responses.items()
        for example in response.get("content", {}).get("application/problem+json", {}).get("examples", {}).values()
    }
    assert codes >= {(kind.status, kind.default_code) for kind in operation.refusals}
    assert (500, "internal_error") in codes
    keyed = {(409, "idempotency_key_in_use"), (422, "idempotency_key_reused")}
    assert (codes >= keyed) == (operation.method == "POST")
    assert ((429, "rate_limited") in codes) >= (not operation.is_public)


def test_the_headers_of_requests_stand_where_they_work(document):
    for operation in OPERATIONS:
        entry = resolved(described(operation, document), document)
        names = {parameter["name"] for parameter in entry["parameters"] if parameter["in"] == "header"}
        assert "X-Request-ID" in names
        assert ("Idempotency-Key" in names) == (operation.method == "POST" and not operation.says)
        assert ("If-None-Match" in names) == ("304" in entry["responses"])
        assert ("If-Match" in names) >= ("412" in entry["responses"])


def test_what_is_shared_is_written_once(document):
    inline = [
        (operation.name, status)
        for operation in OPERATIONS
        for status, response in described(operation, document)["responses"].items()
        if int(status) >= 300 and "$ref" not in response and status not in {"307", "503"}
    ]
    assert inline == []
    assert len(orjson.dumps(document)) < 4_000 * len(OPERATIONS), "a few kilobytes for each route"


@pytest.mark.parametrize("operation", ANSWERING, ids=lambda operation: operation.name)
def test_an_answer_is_as_the_document_describes_it(operation, client, upstream, signed_in, document, auth_says_yes):
    *_, body, answers = ROUTES[operation.method, operation.path]
    for answer in FULLER.get(operation.name, answers):
        upstream.answer(answer)
    headers = {} if operation.is_public else signed_in
    reply = client.open(
        path_of(operation), method=operation.method, headers=headers, **({} if body is None else {"json": body})
    )
    response = resolved(described(operation, document)["responses"][str(reply.status_code)], document)
    validator_of(response["content"][reply.content_type]["schema"], document).validate(reply.json)
    documented = {"X-Request-ID", *(("ETag",) if operation.method == "GET" or "ETag" in reply.headers else ())}
    assert documented <= set(response["headers"]) & set(reply.headers.keys())
    rows = reply.json["data"] if operation.list_of else [reply.json]
    assert rows, "an empty list is as any schema would have it"
    for row in rows:
        for name in time_fields(operation.list_of or operation.answers):
            assert row.get(name) is None or row[name].endswith("Z")


INCLUDED: dict[str, dict[str, Any]] = {
    "list_monitors": {"open_incident": None, "latest_check": [{**CHECK, "id": MONITOR["id"]}]},
    "read_monitor": {"open_incident": [], "latest_check": []},
    "list_incidents": {"monitor": MONITOR, "comments": []},
    "read_incident": {"monitor": MONITOR},
    "list_deliveries": {"channel": CHANNEL, "incident": INCIDENT},
}


@pytest.mark.parametrize("operation", ANSWERING, ids=lambda operation: operation.name)
def test_what_can_be_included_is_in_the_document_and_absent_unless_asked_for(
    operation, client, upstream, signed_in, document
):
    offered = next(
        (p for p in described(operation, document).get("parameters", []) if p.get("name") == "include"), None
    )
    assert (offered is None) == (operation.name not in INCLUDED)
    if offered is None:
        return
    embedded = INCLUDED[operation.name]
    assert (offered["style"], offered["explode"]) == ("form", False)
    items = offered["schema"]["items"]
    assert set(items.get("enum", [items.get("const")])) == set(embedded)
    model = document["components"]["schemas"][(operation.list_of or operation.answers).__name__]
    assert set(embedded) <= set(model["properties"])
    assert not set(embedded) & set(model["required"])
    ((row,),) = ROUTES[operation.method, operation.path][-1]
    for wanted in (set[str](), set(embedded)):
        upstream.answer([{**row, **{name: embedded[name] for name in wanted}}])
        query = {"include": ",".join(wanted)} if wanted else {}
        answer = client.get(path_of(operation), query_string=query, headers=signed_in).json
        found = answer["data"][0] if operation.list_of else answer
        assert set(found) & set(embedded) == wanted
    refused = client.get(f"{path_of(operation)}?include=secret", headers=signed_in)
    assert refused.status_code == 422
    assert all(name in refused.json["errors"][0]["detail"] for name in embedded)


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


def test_no_two_models_share_a_name(document):
    """Two that did would be told apart by their modules' names, which are nobody's business."""
    assert [name for name in document["components"]["schemas"] if "__" in name] == []

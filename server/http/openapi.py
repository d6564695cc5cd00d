"""The OpenAPI 3.1 document, made from the routes' own declarations, so that it cannot say anything else.

What a route must say for itself is little: a sentence in its handler's docstring, a description of each query
parameter, and an example of each text and number that it answers (`Field(examples=[…])`). The rest follows from its
declaration.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from server.errors import (
    AppError,
    BodyTooLarge,
    Conflict,
    Forbidden,
    Gone,
    InvalidInput,
    MalformedRequest,
    NotAcceptable,
    NotFound,
    PreconditionFailed,
    RateLimited,
    TimedOut,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from server.http.examples import NoExample, examples_of, page_example
from server.http.openapi_parts import (
    HEADERS,
    PROBLEM,
    REQUEST_HEADERS,
    SCHEMA,
    error_response,
    path_parameter,
    query_parameters,
    refer,
    refusal,
    refusals_of_post,
    response_name,
)
from server.http.pagination import PageQuery
from server.http.parsing import JSON_TYPES, PATCH_TYPES
from server.http.replies import JSON
from server.http.routing import Operation
from server.http.wsgi import TEXT

_PATH_PARAMETER = re.compile(r"<(?:(\w+):)?(\w+)>")
_PAGING = {parameter["name"]: parameter for parameter in query_parameters(PageQuery)}
_SUCCESSES = {
    200: "As asked.",
    201: "Created.",
    202: "Accepted; it follows in a moment.",
    204: "Done.",
    307: "The API itself answers with the address of the stream process.",
}
# What is sent bit by bit has no validator.
_STREAMED = {"text/event-stream", "text/csv", "application/x-ndjson"}
# A service that is not ready says so in the shape of one that is.
_ALSO = {"readyz": {503: "Not ready: a dependency does not answer."}}
_DESCRIPTION = """\
Uptime monitoring for Supabase projects. Sign in with Supabase Auth (supabase-js, -swift, -kotlin, -flutter) and send
the access token: `Authorization: Bearer <access_token>`. Servers and CI send an API key in its place. Row-level
security decides what you see.

Times are RFC 3339 in UTC. Lists answer `{"data": [...], "next_cursor": ...}`: pass `next_cursor` as `cursor` for the
next page. Every GET has an `ETag` and answers 304 to `If-None-Match`; `If-Match` guards a change. Every POST takes an
`Idempotency-Key`, so that it is safe to send again. Unknown fields are refused. Errors are RFC 9457 problems: programs
go by their `code`. Requests are limited: `RateLimit` says what is left, and a 429 when to come again.

Within `/v1` nothing that you rely on is taken away or changes its meaning; things are added. Ignore what you do not
know.
"""


def document(operations: Iterable[Operation], version: str, streams_url: str) -> dict[str, Any]:
    """Return the document. What the stream process serves carries its address."""
    return _Document(list(operations)).whole(version, streams_url)


class _Schemas(GenerateJsonSchema):
    """Pydantic's JSON schemas without the titles that repeat the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False."""
        return False


class _Document:
    """Collects what the operations share while it describes them."""

    def __init__(self, operations: list[Operation]) -> None:
        self._operations = operations
        self._parameters: dict[str, Any] = {}
        self._responses: dict[str, Any] = {}
        self._headers: dict[str, Any] = {}
        self._examples: dict[str, Any] = {}
        self._names, self._schemas = _schemas(operations)

    def whole(self, version: str, streams_url: str) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = defaultdict(dict)
        for operation in self._operations:
            path = _PATH_PARAMETER.sub(r"{\2}", operation.path)
            paths[path][operation.method.lower()] = self._describe(operation)
            if operation.is_elsewhere:
                paths[path]["servers"] = [{"url": streams_url, "description": "The stream process."}]
        for schema in self._schemas.values():
            schema.pop("examples", None)  # they stand among the examples
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Tocsin",
                "version": version,
                "description": _DESCRIPTION,
                "contact": {"name": "Whoever runs this installation of Tocsin"},
                "license": {"name": "All rights reserved", "identifier": "LicenseRef-All-Rights-Reserved"},
            },
            "servers": [{"url": "/"}],
            "security": [{"access_token": []}, {"api_key": []}],
            "tags": _tags(self._operations),
            "paths": dict(paths),
            "components": {
                "securitySchemes": {
                    "access_token": {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "JWT",
                        "description": "The access token of a Supabase Auth session.",
                    },
                    "api_key": {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "tocsin_…",
                        "description": "The secret of an API key, for servers and CI.",
                    },
                },
                "schemas": {**self._schemas, "Problem": PROBLEM},
                "parameters": self._parameters,
                "headers": self._headers,
                "responses": self._responses,
                "examples": self._examples,
            },
        }

    def _describe(self, operation: Operation) -> dict[str, Any]:
        text = " ".join((operation.handler.__doc__ or "").split())
        described: dict[str, Any] = {
            "operationId": operation.name,
            "tags": [operation.tag],
            "summary": text.split(". ")[0].rstrip("."),
            "description": text,
            "parameters": list(self._describe_parameters(operation)),
            "responses": self._describe_responses(operation),
        }
        if operation.body:
            types = PATCH_TYPES if operation.method == "PATCH" else JSON_TYPES
            content = self._content_of(operation.body, "validation")
            described["requestBody"] = {"required": True, "content": dict.fromkeys(sorted(types), content)}
        if operation.says and operation.method == "POST":
            content = {"schema": {}, "example": "Backup of 3 databases: 120 rows\n"}
            described["requestBody"] = {"description": "Whatever the job has to say.", "content": {"*/*": content}}
        if operation.is_public and not operation.is_elsewhere:
            described["security"] = []
        elif operation.users_only:
            described["security"] = [{"access_token": []}]
        return described

    def _describe_parameters(self, operation: Operation) -> Iterable[dict[str, Any]]:
        for kind, name in _PATH_PARAMETER.findall(operation.path):
            yield self._shared_parameter(name, path_parameter(name, kind == "uuid"))
        if operation.query:
            for parameter in query_parameters(operation.query):
                is_shared = parameter == _PAGING.get(parameter["name"])
                yield self._shared_parameter(parameter["name"], parameter) if is_shared else parameter
        for name in _request_headers(operation):
            yield self._shared_parameter(name, REQUEST_HEADERS[name])

    def _shared_parameter(self, name: str, parameter: dict[str, Any]) -> dict[str, str]:
        self._parameters[name] = parameter
        return refer("parameters", name)

    def _describe_responses(self, operation: Operation) -> dict[str, Any]:
        if operation.says:
            return self._describe_words(operation)
        content = self._answer(operation)
        responses: dict[str, Any] = {}
        if operation.is_elsewhere:
            text = "The stream. It does not end by itself."
            responses["200"] = {"description": text, "headers": self._refer_headers("X-Request-ID"), "content": content}
            content = {}
        for status, text in {operation.status: _SUCCESSES[operation.status], **_ALSO.get(operation.name, {})}.items():
            responses[str(status)] = {"description": text, "headers": self._answer_headers(operation)}
            if content:
                responses[str(status)]["content"] = content
        if _has_validator(operation):
            responses["304"] = self._unchanged()
        by_status: dict[int, list[AppError]] = defaultdict(list)
        for error in _refusals(operation):
            by_status[error.status].append(error)
        for status, errors in sorted(by_status.items()):
            name = response_name(errors)
            self._responses[name] = error_response(errors)
            self._refer_headers(*self._responses[name]["headers"])
            responses[str(status)] = refer("responses", name)
        return responses

    def _describe_words(self, operation: Operation) -> dict[str, Any]:
        """Describe the answers of a protocol of others: plain text, refusals too."""
        words = {**operation.says, **{kind.status: kind.title for kind in (AppError, Unavailable, TimedOut)}}
        described = {}
        for status, text in words.items():
            names = ["Ping-Body-Limit"] if status < 300 else ["Retry-After"] if status in {429, 503, 504} else []
            name = f"Says{status}"
            self._responses[name] = {
                "description": f"In plain text: {text}.",
                "headers": self._refer_headers(*names, "X-Request-ID", "RateLimit", "RateLimit-Policy"),
                "content": {TEXT: {"schema": {"type": "string"}, "example": text}},
            }
            described[str(status)] = refer("responses", name)
        return described

    def _unchanged(self) -> dict[str, str]:
        text = "What you hold still stands."
        self._responses["NotModified"] = {"description": text, "headers": self._refer_headers("ETag", "X-Request-ID")}
        return refer("responses", "NotModified")

    def _answer(self, operation: Operation) -> dict[str, Any]:
        if operation.status == 204:
            return {}
        if operation.files:
            return {name: {"schema": {"type": "string"}, "example": begin} for name, begin in operation.files.items()}
        if operation.answers:
            others = {name: {"schema": {"type": "string"}, "example": begin} for name, begin in operation.also.items()}
            return {operation.content_type: self._content_of(operation.answers, "serialization"), **others}
        if operation.list_of:
            return {operation.content_type: self._page_of(operation.list_of)}
        content: dict[str, Any] = {"schema": {"type": "object" if operation.content_type == JSON else "string"}}
        example = operation.example or _UNMODELLED.get(operation.name)
        return {operation.content_type: {**content, "example": example} if example else content}

    def _content_of(self, model: type[BaseModel], mode: str) -> dict[str, Any]:
        name = self._names[model, mode]
        return self._with_examples(name, lambda: examples_of(name, self._schemas))

    def _page_of(self, model: type[BaseModel]) -> dict[str, Any]:
        row = self._names[model, "serialization"]
        name = f"{row}Page"
        self._schemas[name] = {
            "type": "object",
            "description": "One page of a list.",
            "required": ["data", "next_cursor"],
            "properties": {
                "data": {"type": "array", "items": refer("schemas", row)},
                "next_cursor": {
                    "type": ["string", "null"],
                    "description": "The cursor of the next page; null on the last.",
                },
            },
        }
        return self._with_examples(name, lambda: [page_example(examples_of(row, self._schemas)[0])])

    def _with_examples(self, name: str, make: Any) -> dict[str, Any]:
        try:
            made = make()
        except NoExample:  # the tests say which; a document without it is better than no API
            return {"schema": refer("schemas", name)}
        names = [name if number == 1 else f"{name}-{number}" for number in range(1, len(made) + 1)]
        self._examples.update({key: {"value": value} for key, value in zip(names, made, strict=True)})
        return {"schema": refer("schemas", name), "examples": {key: refer("examples", key) for key in names}}

    def _answer_headers(self, operation: Operation) -> dict[str, Any]:
        names = ["X-Request-ID"]
        if _has_validator(operation) or "version" in getattr(operation.answers, "model_fields", {}):
            names.append("ETag")
        if operation.status in {201, 307}:
            names.append("Location")
        if operation.files:
            names.append("Content-Disposition")
        if operation.limit is not None:
            names += ["RateLimit", "RateLimit-Policy"]
        return self._refer_headers(*names)

    def _refer_headers(self, *names: str) -> dict[str, Any]:
        self._headers.update({name: HEADERS[name] for name in names})
        return {name: refer("headers", name) for name in names}


# Answers that have no model.
_UNMODELLED: dict[str, Any] = {
    "follow_events": 'id: AQAAAAAAAAK9AAAAAAAAAAw\nevent: monitor.down\ndata: {"type": "monitor.down"}\n\n',
    "openapi": {"openapi": "3.1.0", "info": {"title": "Tocsin", "version": "1.0.0"}, "paths": {}},
    "docs": '<!doctype html>\n<html lang="en">...</html>\n',
    "docs_asset": 'window.addEventListener("load", () => { ... });\n',
    "metrics": 'tocsin_http_requests_total{method="GET",route="/v1/monitors",status="200"} 42.0\n',
}


def _schemas(operations: list[Operation]) -> tuple[dict[tuple[Any, str], str], dict[str, Any]]:
    """Return the models' names in the document, by model and mode, and their schemas, by name."""
    taken = {(op.body, "validation") for op in operations if op.body}
    given = {(model, "serialization") for op in operations for model in (op.answers, op.list_of) if model}
    wanted: list[Any] = sorted(taken | given, key=lambda pair: (pair[0].__name__, pair[0].__module__, pair[1]))
    references, schema = models_json_schema(wanted, ref_template=SCHEMA, schema_generator=_Schemas)
    for definition in schema["$defs"].values():
        definition.pop("title", None)
    return {key: of["$ref"].rsplit("/", 1)[1] for key, of in references.items()}, schema["$defs"]


def _tags(operations: list[Operation]) -> list[dict[str, str]]:
    """Name the tags, each described by the docstrings of the modules whose routes it marks."""
    texts: dict[str, list[str]] = defaultdict(list)
    for operation in operations:
        text = " ".join((sys.modules[operation.handler.__module__].__doc__ or "").split())
        if text not in texts[operation.tag]:
            texts[operation.tag].append(text)
    return [{"name": tag, "description": " ".join(of)} for tag, of in texts.items()]


def _request_headers(operation: Operation) -> Iterable[str]:
    if operation.method in {"PATCH", "DELETE"} or PreconditionFailed in operation.refusals:
        yield "If-Match"
    if _has_validator(operation):
        yield "If-None-Match"
    if operation.method == "POST" and not operation.says:
        yield "Idempotency-Key"
    if operation.is_elsewhere:
        yield "Last-Event-ID"
    yield "X-Request-ID"


def _has_validator(operation: Operation) -> bool:
    is_streamed = operation.files or operation.says or operation.content_type.partition(";")[0] in _STREAMED
    return operation.method == "GET" and not is_streamed


def _refusals(operation: Operation) -> Iterable[AppError]:
    # A credential in the query is malformed, whatever the route.
    kinds = {*operation.refusals, MalformedRequest, NotAcceptable, InvalidInput, AppError}
    if operation.limit is not None:
        kinds.add(RateLimited)
    if operation.is_elsewhere:
        kinds |= {Unauthenticated, NotFound, Gone, Unavailable, TimedOut}
    if not operation.is_public:
        # Row-level security, a key's scopes and the database itself may refuse whatever the route does not.
        kinds |= {Unauthenticated, Forbidden, Unavailable, TimedOut}
        if operation.method != "GET":
            kinds.add(Conflict)
    if operation.body:
        kinds |= {UnsupportedMediaType, BodyTooLarge}
    refused = [refusal(kind) for kind in kinds] + [*(refusals_of_post() if operation.method == "POST" else ())]
    return sorted(refused, key=lambda error: (error.status, error.code))

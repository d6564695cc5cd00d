"""The OpenAPI 3.1 document, made from the routes' own declarations, so that it cannot say anything else."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from server.errors import (
    AppError,
    BodyTooLarge,
    Gone,
    InvalidInput,
    MalformedRequest,
    NotAcceptable,
    NotFound,
    RateLimited,
    TimedOut,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
)
from server.http.parsing import JSON_TYPES, PATCH_TYPES
from server.http.problem_document import PROBLEM_JSON
from server.http.routing import Operation

_PATH_PARAMETER = re.compile(r"<(?:(\w+):)?(\w+)>")
_REFERENCE = "#/components/schemas/{model}"
_OF_STREAMS = (MalformedRequest, Unauthenticated, NotFound, Gone, RateLimited, Unavailable, TimedOut)
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "urn:tocsin:problem: and the code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence for people."},
        "code": {"type": "string", "description": "Stable, for programs."},
        "request_id": {"type": "string", "description": "Finds the request in the logs."},
        "errors": {
            "type": "array",
            "description": "Every fault of the input at once.",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {"type": "string", "description": "JSON pointer into the body, or a parameter's name."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
_DESCRIPTION = """\
Uptime monitoring for Supabase projects. Sign in with Supabase Auth (supabase-js, -swift, -kotlin, -flutter) and send
the access token: `Authorization: Bearer <access_token>`. Row-level security decides what you see.

Times are RFC 3339 in UTC. Lists answer `{"data": [...], "next_cursor": ...}`: pass `next_cursor` as `cursor` for the
next page. Every GET has an `ETag` and answers 304 to `If-None-Match`; `If-Match` guards a change. Unknown fields are
refused.
"""


def document(operations: Iterable[Operation], version: str, streams_url: str) -> dict[str, Any]:
    """Return the document. What the stream process serves carries its address."""
    operations = list(operations)
    schemas = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = _PATH_PARAMETER.sub(r"{\2}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _describe(operation)
        if operation.is_elsewhere:
            paths[path]["servers"] = [{"url": streams_url, "description": "The stream process."}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tocsin",
            "version": version,
            "description": _DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "security": [{"access_token": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "access_token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The access token of a Supabase Auth session.",
                }
            },
            "schemas": schemas,
        },
    }


def _schemas(operations: list[Operation]) -> dict[str, Any]:
    taken = {(op.body, "validation") for op in operations if op.body}
    given = {(model, "serialization") for op in operations for model in (op.answers, op.list_of) if model}
    wanted: list[Any] = sorted(taken | given, key=lambda pair: pair[0].__name__)
    _, schema = models_json_schema(wanted, ref_template=_REFERENCE)
    return {**schema["$defs"], "Problem": _PROBLEM}


def _describe(operation: Operation) -> dict[str, Any]:
    text = (operation.handler.__doc__ or "").strip()
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": text.split(". ")[0].rstrip("."),
        "description": text,
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.body:
        types = PATCH_TYPES if operation.method == "PATCH" else JSON_TYPES
        described["requestBody"] = {
            "required": True,
            "content": {media_type: {"schema": _reference(operation.body)} for media_type in sorted(types)},
        }
    if operation.is_public and not operation.is_elsewhere:
        described["security"] = []
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "format": "uuid"} if kind == "uuid" else {"type": "string"},
        }
        for kind, name in _PATH_PARAMETER.findall(operation.path)
    ]
    if operation.query:
        schema = operation.query.model_json_schema(mode="validation")
        for name, of_field in schema["properties"].items():
            inlined = _inlined(of_field, schema.get("$defs", {}))
            text = inlined.pop("description", "")
            parameters.append({"name": name, "in": "query", "required": False, "description": text, "schema": inlined})
    if operation.method in {"PATCH", "DELETE"}:
        parameters.append(_header("If-Match", "The ETag that you read; 412 if it was changed since."))
    if operation.is_elsewhere:
        parameters.append(_header("Last-Event-ID", "The id after which to go on; it counts before `after`."))
    if operation.method == "GET" and not operation.is_public:
        parameters.append(_header("If-None-Match", "The ETag that you hold; 304 if it still stands."))
    return parameters


def _header(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}


def _responses(operation: Operation) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done." if operation.status == 204 else "As asked."}
    if operation.answers:
        success["content"] = {operation.content_type: {"schema": _reference(operation.answers)}}
    elif operation.list_of:
        success["content"] = {operation.content_type: {"schema": _page_of(operation.list_of)}}
    elif operation.status != 204:
        kind = "object" if operation.content_type == "application/json" else "string"
        success["content"] = {operation.content_type: {"schema": {"type": kind}}}
    if operation.method == "GET":
        success["headers"] = {"ETag": {"description": "The validator of this answer.", "schema": {"type": "string"}}}
    if operation.is_elsewhere:
        return _responses_elsewhere(operation)
    responses = {str(operation.status): success}
    if operation.method == "GET" and not operation.is_public:
        responses["304"] = {"description": "What you hold still stands."}
    for refusal in sorted(set(_refusals(operation)), key=lambda kind: kind.status):
        responses[str(refusal.status)] = _refusal(refusal)
    return responses


def _responses_elsewhere(operation: Operation) -> dict[str, Any]:
    """Describe what the stream process answers, and what whoever asks the API is told instead."""
    responses: dict[str, Any] = {
        "200": {
            "description": "The stream. It does not end by itself.",
            "content": {operation.content_type: {"schema": {"type": "string"}}},
        },
        str(operation.status): {
            "description": "The API itself answers with the address of the stream process.",
            "headers": {"Location": {"description": "Where the stream is.", "schema": {"type": "string"}}},
        },
    }
    refusals: set[type[AppError]] = {*_refusals(operation), *_OF_STREAMS}
    for refusal in sorted(refusals, key=lambda kind: kind.status):
        responses[str(refusal.status)] = _refusal(refusal)
    return responses


def _refusals(operation: Operation) -> Iterable[type[AppError]]:
    yield from operation.refusals
    yield NotAcceptable
    yield InvalidInput
    if not operation.is_public:
        yield from (Unauthenticated, Unavailable, TimedOut)
    if operation.body:
        yield from (MalformedRequest, UnsupportedMediaType, BodyTooLarge)


def _refusal(kind: type[AppError]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "description": kind.title,
        "content": {PROBLEM_JSON: {"schema": {"$ref": _REFERENCE.format(model="Problem")}}},
    }
    if kind is Unauthenticated:
        described["headers"] = {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}}
    if issubclass(kind, Unavailable):
        described["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return described


def _page_of(model: type[BaseModel]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["data", "next_cursor"],
        "properties": {
            "data": {"type": "array", "items": _reference(model)},
            "next_cursor": {
                "type": ["string", "null"],
                "description": "The cursor of the next page; null on the last.",
            },
        },
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _inlined(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema with its references resolved: parameters have no definitions of their own."""
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    inlined = {name: value for name, value in schema.items() if name != "title"}
    if "anyOf" in inlined:
        options = [_inlined(option, definitions) for option in inlined.pop("anyOf") if option != {"type": "null"}]
        inlined.pop("default", None)
        inlined = {**options[0], **inlined} if len(options) == 1 else {**inlined, "anyOf": options}
    return inlined

"""What many entries of the OpenAPI document share: headers, parameters, and the one shape of every error."""

from collections.abc import Sequence
from typing import Any

from server.errors import AppError, Conflict, Fault, InvalidInput, RateLimited, Unauthenticated, Unavailable
from server.http.examples import A_REQUEST_ID, example_id, noun_of
from server.http.problem_document import PROBLEM_JSON, problem

SCHEMA = "#/components/schemas/{model}"
PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "urn:tocsin:problem: and the code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence for people."},
        "code": {"type": "string", "description": "Stable, for programs. New codes may come."},
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
        "quota": {
            "type": "object",
            "description": "The limit of the organisation's plan that was hit; GET /v1/usage shows all of them.",
            "required": ["name", "limit"],
            "properties": {
                "name": {"type": "string"},
                "limit": {"type": "integer"},
                "used": {"type": "integer", "description": "How many there are, where the limit is a number."},
            },
        },
    },
}
AN_ETAG = '"3.c2a1f0b4d7e9856301"'
_TEXT = {"type": "string"}
_SECONDS = {"type": "integer", "minimum": 0}

# What answers carry. The keys are the headers' names.
HEADERS: dict[str, dict[str, Any]] = {
    "Content-Disposition": {
        "description": "What to call the file.",
        "schema": {"type": "string"},
        "example": 'attachment; filename="tocsin-audit.csv"',
    },
    "ETag": {
        "description": "The validator of this answer, for If-None-Match and If-Match.",
        "schema": _TEXT,
        "example": AN_ETAG,
    },
    "Location": {
        "description": "Where the new thing is to be read. Absent where it cannot be read by itself.",
        "schema": {"type": "string", "format": "uri-reference"},
        "example": f"/v1/monitors/{example_id('monitor')}",
    },
    "Retry-After": {"description": "Wait this many seconds, then try again.", "schema": _SECONDS, "example": 2},
    "RateLimit": {
        "description": "What is left of the limit (`r`), and in how many seconds (`t`) it is whole again.",
        "schema": _TEXT,
        "example": '"default";r=592;t=37',
    },
    "RateLimit-Policy": {
        "description": "The limit itself: `q` requests in `w` seconds.",
        "schema": _TEXT,
        "example": '"default";q=600;w=60',
    },
    "Ping-Body-Limit": {
        "description": "How many bytes of a ping's body are kept; what is longer is cut.",
        "schema": {"type": "integer"},
        "example": 100_000,
    },
    "X-Request-ID": {
        "description": "This request's id: yours where you sent one. Name it when you ask us about the request.",
        "schema": _TEXT,
        "example": A_REQUEST_ID,
    },
    "WWW-Authenticate": {
        "description": "RFC 6750: whether a token was missing or not valid.",
        "schema": _TEXT,
        "example": 'Bearer realm="tocsin", error="invalid_token"',
    },
}


def _request_header(name: str, text: str, example: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": text,
        "schema": {"type": "string", **schema},
        "example": example,
    }


# What requests may carry. The keys are the components' names.
REQUEST_HEADERS = {
    "Last-Event-ID": _request_header(
        "Last-Event-ID", "The id after which to go on; it counts before `after`.", "AQAAAAAAAAK9AAAAAAAAAAw"
    ),
    "If-Match": _request_header("If-Match", "The ETag that you read; 412 if it was changed since.", AN_ETAG),
    "If-None-Match": _request_header("If-None-Match", "The ETag that you hold; 304 if it still stands.", AN_ETAG),
    "Idempotency-Key": _request_header(
        "Idempotency-Key",
        "Makes it safe to send this again: the same key and body replays the first answer for 24 hours, another body "
        "is 422 `idempotency_key_reused`, a concurrent twin is 409 `idempotency_key_in_use`. At most 255 visible ASCII "
        "characters: make a new UUID for each thing that you want done.",
        example_id("idempotency_key"),
        minLength=1,
        maxLength=255,
        pattern="^[!-~]+$",
    ),
    "X-Request-ID": _request_header(
        "X-Request-ID",
        "Your own id for this request, 8 to 128 of A-Z a-z 0-9 . _ -; another is made up where it is not such a one.",
        A_REQUEST_ID,
    ),
}


# Parts of paths that are no ids.
_NAMED = {
    "heartbeat": ("The `ping_id` of a heartbeat; or an API key with the scope `pings:write`.", example_id("heartbeat")),
    "signal": (
        "`start`, `fail`, `log`, or an exit status from 0 to 255; after a key: the slug of a heartbeat.",
        "start",
    ),
    "ping_key": ("An API key with the scope `pings:write`.", f"tocsin_AbCdEfGh_{43 * 'x'}"),
    "slug": ("The slug of a heartbeat of the key's organisation.", "backup"),
}


def refer(kind: str, name: str) -> dict[str, str]:
    """Return a reference to a shared part: `refer("headers", "ETag")`."""
    return {"$ref": f"#/components/{kind}/{name}"}


def path_parameter(name: str, is_uuid: bool) -> dict[str, Any]:
    """Describe a part of the path."""
    noun = noun_of(name).replace("_", " ")
    described = {"name": name, "in": "path", "required": True}
    if not is_uuid:
        text, example = _NAMED.get(name, (f"The name of the {noun}.", None))
        shown = {} if example is None else {"example": example}
        return {**described, "description": text, "schema": {"type": "string"}, **shown}
    schema = {"type": "string", "format": "uuid"}
    return {
        **described,
        "description": f"The id of the {noun}.",
        "schema": schema,
        "example": example_id(noun_of(name)),
    }


def query_parameters(model: Any) -> list[dict[str, Any]]:
    """Describe the query parameters that a model reads."""
    schema = model.model_json_schema(mode="validation")
    parameters = []
    for name, of_field in schema["properties"].items():
        inlined = _inlined(of_field, schema.get("$defs", {}))
        text, examples = inlined.pop("description", ""), inlined.pop("examples", [])
        required = name in schema.get("required", ())
        parameter = {"name": name, "in": "query", "required": required, "description": text, "schema": inlined}
        if inlined.get("type") == "array":  # several with a comma, in one parameter
            parameter |= {"style": "form", "explode": False}
            inlined.pop("default", None)
        parameters.append({**parameter, "example": examples[0]} if examples else parameter)
    return parameters


def refusals_of_post() -> tuple[AppError, AppError]:
    """Return what every POST can be refused with for its Idempotency-Key."""
    return (
        Conflict("A request with this key is being answered at this moment.", code="idempotency_key_in_use"),
        InvalidInput("This key came with another body before.", code="idempotency_key_reused"),
    )


def refusal(kind: type[AppError]) -> AppError:
    """Return a kind of refusal as the document shows it."""
    if kind is InvalidInput:
        detail = "Input should be greater than or equal to 5"
        return kind(faults=[Fault("/interval_seconds", "greater_than_equal", detail)])
    return kind()


def response_name(refused: Sequence[AppError]) -> str:
    """Return the component's name of an error response: `ConflictOrIdempotencyKeyInUse`."""
    return "Or".join("".join(word.capitalize() for word in error.code.split("_")) for error in refused)


def error_response(refused: Sequence[AppError]) -> dict[str, Any]:
    """Describe the response with the status that these refusals share, with an example of each."""
    headers = ["X-Request-ID"]
    if isinstance(refused[0], Unauthenticated):
        headers.append("WWW-Authenticate")
    if isinstance(refused[0], Unavailable | RateLimited):
        headers.append("Retry-After")
    if isinstance(refused[0], RateLimited):
        headers += ["RateLimit", "RateLimit-Policy"]
    examples = {error.code: {"summary": error.detail, "value": problem(error, A_REQUEST_ID)} for error in refused}
    return {
        "description": " ".join(f"`{error.code}`: {error.detail}" for error in refused),
        "headers": {name: refer("headers", name) for name in headers},
        "content": {PROBLEM_JSON: {"schema": refer("schemas", "Problem"), "examples": examples}},
    }


def _inlined(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema with its references resolved: parameters have no definitions of their own."""
    if "$ref" in schema:
        beside = {name: value for name, value in schema.items() if name != "$ref"}
        return _inlined({**definitions[schema["$ref"].rsplit("/", 1)[1]], **beside}, definitions)
    inlined = {name: value for name, value in schema.items() if name != "title"}
    if "anyOf" in inlined:
        options = [_inlined(option, definitions) for option in inlined.pop("anyOf") if option != {"type": "null"}]
        inlined.pop("default", None)
        inlined = {**options[0], **inlined} if len(options) == 1 else {**inlined, "anyOf": options}
    return inlined

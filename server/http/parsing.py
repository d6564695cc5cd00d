"""From bytes and strings to checked values: 400 and 415 for what cannot be read, 422 with every fault for the rest.

JSON is RFC 8259 read strictly: UTF-8, no duplicate names, no NaN. Text that Postgres cannot hold (NUL, lone surrogates)
is refused here, by JSON pointer (RFC 6901), before anything else looks at it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin

import orjson
from pydantic import AwareDatetime, BaseModel, ValidationError

from server.errors import BodyTooLarge, Fault, InvalidInput, MalformedRequest, UnsupportedMediaType

Model = TypeVar("Model", bound=BaseModel)

JSON_TYPES = frozenset({"application/json"})
PATCH_TYPES = frozenset({"application/json", "application/merge-patch+json"})  # RFC 7396
MAX_BODY_BYTES = 1_048_576
# No route takes such a one.
CREDENTIAL_PARAMETERS = frozenset({"access_token", "api_key", "apikey", "authorization", "jwt", "key", "token"})
_LARGEST_INTEGER = 2**63 - 1
_DEEPEST = 100  # far below what any Python refuses to recurse into

_CODES = {"extra_forbidden": "unknown_field", "missing": "missing_field"}
_DETAILS = {
    "extra_forbidden": "This field is not known here.",
    "missing": "This field is required.",
    "string_type": "This must be a string.",
    "int_type": "This must be a whole number.",
    "bool_type": "This must be true or false.",
    "list_type": "This must be an array.",
    "model_type": "This must be a JSON object.",
    "dict_type": "This must be a JSON object.",
}
_TOO_DEEP = "The body is nested too deeply."


class _NotStrict(ValueError):
    """JSON as Python reads it, but not as RFC 8259 does."""


def read_body(environ: Mapping[str, Any]) -> bytes:
    """Read a request's body whole. Raises BodyTooLarge, before reading where the length is told.

    Not werkzeug's limit, which takes a longer chunked body for one that ends there.
    """
    told = environ.get("CONTENT_LENGTH") or "0"
    if told.isdigit() and int(told) > MAX_BODY_BYTES:
        raise BodyTooLarge
    raw: bytes = environ["wsgi.input"].read(MAX_BODY_BYTES + 1)
    if len(raw) > MAX_BODY_BYTES:
        raise BodyTooLarge
    return raw


def parse_body(
    model: type[Model],
    raw: bytes,
    content_type: str | None,
    *,
    accepted: frozenset[str] = JSON_TYPES,
    context: dict[str, Any] | None = None,
) -> Model:
    """Read a JSON body as `model`, whose validators see `context`.

    Raises UnsupportedMediaType, MalformedRequest, InvalidInput.
    """
    media_type = (content_type or "").split(";", 1)[0].strip().lower()
    if media_type not in accepted:
        raise UnsupportedMediaType(f"The body must be sent as {' or '.join(sorted(accepted))}.")
    document = read_json(raw)
    faults = list(unstorable(document, ""))
    if faults:
        raise InvalidInput(faults=faults)
    try:
        return model.model_validate_json(raw, strict=True, context=context)
    except ValidationError as error:
        raise InvalidInput(faults=faults_of(error, _pointer)) from None


def parse_part(model: type[Model], part: Any, pointer: str, context: dict[str, Any] | None = None) -> Model:
    """Read a part of a body, which stands at `pointer` in it, as `model`. Raises InvalidInput."""
    try:
        # By way of JSON, in which a strict reader takes a time or an id from text.
        return model.model_validate_json(orjson.dumps(part), strict=True, context=context)
    except ValidationError as error:
        raise InvalidInput(faults=faults_of(error, lambda where: pointer + _pointer(where))) from None


def parse_query(model: type[Model], pairs: Mapping[str, Sequence[str]]) -> Model:
    """Read the query parameters as `model`. Raises InvalidInput, whose pointers are the parameters' names."""
    twice = [
        Fault(name, "given_twice", "Give this parameter once.") for name, values in pairs.items() if len(values) > 1
    ]
    faults = twice + [fault for name, values in pairs.items() for fault in unstorable(values[0], name)]
    if faults:
        raise InvalidInput(faults=faults)
    texts = {name: values[0] for name, values in pairs.items()}
    misspelt = {name: fault for name, text in texts.items() if (fault := _misspelling(model, name, text))}
    try:
        found = model.model_validate(texts)
    except ValidationError as error:
        others = faults_of(error, lambda where: ".".join(map(str, where)))
        faults = [*misspelt.values(), *(fault for fault in others if fault.pointer not in misspelt)]
        raise InvalidInput(faults=faults) from None
    if misspelt:
        raise InvalidInput(faults=list(misspelt.values()))
    return found


# What pydantic reads in a text is wider than what we document: 5.0 and 5_0 are numbers to it, and 1700000000 is a time.
_TIME = (
    re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"),
    "datetime_parsing",
    "This must be a time as RFC 3339 writes it, with its offset, such as 2026-01-31T12:00:00Z.",
)
_SPELLINGS: dict[type, tuple[re.Pattern[str], str, str]] = {
    int: (re.compile(r"-?(0|[1-9][0-9]*)"), "int_parsing", "This must be a whole number, such as 50."),
    bool: (re.compile(r"true|false"), "bool_parsing", "This must be true or false."),
    datetime: _TIME,
    AwareDatetime: _TIME,
}


def _misspelling(model: type[BaseModel], name: str, text: str) -> Fault | None:
    """Return what is wrong with how a parameter is written, None where nothing is, or nobody knows the parameter."""
    for kind in _kinds_of_parameters(model).get(name, ()):
        spelling, code, detail = _SPELLINGS[kind]
        if not spelling.fullmatch(text):
            return Fault(name, code, detail)
    return None


@cache
def _kinds_of_parameters(model: type[BaseModel]) -> dict[str, tuple[type, ...]]:
    """Return the parameters, as they are named on the wire, whose text is held against a spelling."""
    return {
        info.alias or name: tuple(kind for kind in _kinds_in(info.annotation) if kind in _SPELLINGS)
        for name, info in model.model_fields.items()
    }


def _kinds_in(annotation: Any) -> Iterator[Any]:
    parts = get_args(annotation)
    if not parts:
        yield annotation
    for part in parts[:1] if get_origin(annotation) is Annotated else parts:
        yield from _kinds_in(part)


def refuse_credentials(names: Iterable[str]) -> None:
    """Refuse a query that holds a token or a key by one of its usual names. Raises MalformedRequest.

    A URL is kept in logs and histories along its whole way, so who sent one there should hear of it before anything
    else, and have it revoked.
    """
    if any(name.lower() in CREDENTIAL_PARAMETERS for name in names):
        raise MalformedRequest(
            "A token or key does not belong into a URL. Send it in a header, Authorization: Bearer <access_token>, and "
            "replace the one that was sent here: it may stand in logs.",
            code="credentials_in_query",
        )


def read_json(raw: bytes) -> Any:
    """Read one JSON document strictly. Raises MalformedRequest, which says where it stops making sense."""
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_unique_names, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise MalformedRequest(f"The body is not UTF-8: byte {error.start} cannot be read.") from None
    except json.JSONDecodeError as error:
        raise MalformedRequest(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise MalformedRequest(_TOO_DEEP) from None
    except _NotStrict as error:
        raise MalformedRequest(f"The body is not acceptable JSON: {error}.") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise MalformedRequest("The body is not acceptable JSON: a number has too many digits.") from None


def unstorable(value: Any, pointer: str, depth: int = 0) -> Iterator[Fault]:
    """Find every text and number that Postgres cannot hold. Raises MalformedRequest where it is nested too deeply."""
    if depth > _DEEPEST:
        raise MalformedRequest(_TOO_DEEP)
    if isinstance(value, str):
        if "\0" in value:
            yield Fault(pointer, "nul_character", "Text cannot hold the NUL character.")
        if any("\ud800" <= c <= "\udfff" for c in value):
            yield Fault(pointer, "lone_surrogate", "Text cannot hold half of a surrogate pair.")
    elif isinstance(value, dict):
        for name, member in value.items():
            path = f"{pointer}/{_escaped(name)}"
            if any(unstorable(name, path)):
                yield Fault(pointer, "unreadable_name", "A field's name holds a character that cannot be stored.")
            else:
                yield from unstorable(member, path, depth + 1)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from unstorable(member, f"{pointer}/{index}", depth + 1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and not abs(value) <= _LARGEST_INTEGER:
        yield Fault(pointer, "out_of_range", "This number is too large.")


def faults_of(error: ValidationError, point: Any) -> list[Fault]:
    """Turn pydantic's errors into ours; `point` makes a pointer of pydantic's path."""
    return [
        Fault(
            pointer=point(found["loc"]),
            code=_CODES.get(found["type"], found["type"]),
            detail=_DETAILS.get(found["type"], found["msg"].removeprefix("Value error, ")),
        )
        for found in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _pointer(where: Sequence[int | str]) -> str:
    return "".join(f"/{_escaped(str(step))}" for step in where)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise _NotStrict("a name stands twice in one object")
    return names


def _no_constant(name: str) -> NoReturn:
    raise _NotStrict(f"{name} is not a JSON number")

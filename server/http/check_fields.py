"""Field types of what a monitor is told to do, each read as its kind has it.

They go by the field `kind`, which stands before them in their model; where that has none, by the context's: a change
leaves the kind as it is. Where no kind is known nothing is said of them, since something else is wrong already.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError, WrapValidator
from pydantic import ValidationInfo as Info
from pydantic_core import InitErrorDetails, PydanticCustomError

from server.fields import WITHOUT_NUL
from server.http.fields import URL_PATTERN, check_url
from server.probes.assertions import MAX_ASSERTIONS, MAX_LENGTH, parse
from server.probes.dns import DnsOptions
from server.probes.heartbeat import HeartbeatOptions
from server.probes.http_options import HttpOptions
from server.probes.icmp import IcmpOptions
from server.probes.kinds import KINDS
from server.probes.tcp import TcpOptions
from server.probes.tls import TlsOptions

HEARTBEAT = "heartbeat"
# The database takes a little more: it spells JSON with blanks.
MAX_OPTIONS_BYTES = 250_000
MAX_ASSERTIONS_BYTES = 20_000
OPTIONS: Mapping[str, type[BaseModel]] = {
    **{kind: each.options for kind, each in KINDS.items()},
    HEARTBEAT: HeartbeatOptions,
}
_HOST_PORT_PATTERN = r"^(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):[0-9]{1,5}$"
_HOST_PATTERN = r"^[^\s/]+$"
_TARGET_PATTERNS = {
    "http": URL_PATTERN,
    "tcp": _HOST_PORT_PATTERN,
    "tls": _HOST_PORT_PATTERN,
    "dns": _HOST_PATTERN,
    "icmp": _HOST_PATTERN,
}


def _kind_of(info: Info) -> str | None:
    return info.data.get("kind") or (info.context or {}).get("kind")


def not_of_heartbeats(words: str, resting: Any = None) -> AfterValidator:
    """Refuse a value in a heartbeat, but what its answers show there: null or `resting`."""

    def check(value: Any, info: Info) -> Any:
        if _kind_of(info) == HEARTBEAT and value is not None and value != resting:
            raise PydanticCustomError("not_of_this_kind", "{words}", {"words": f"A heartbeat has none: {words}"})
        return value

    return AfterValidator(check)


def only_of_heartbeats(words: str) -> AfterValidator:
    """Refuse a value in what is no heartbeat."""

    def check(value: Any, info: Info) -> Any:
        if value is not None and _kind_of(info) in KINDS:
            raise PydanticCustomError("not_of_this_kind", "{words}", {"words": f"Only a heartbeat has one: {words}"})
        return value

    return AfterValidator(check)


def _refuse_null(value: Any, info: Info) -> Any:
    if value is None and _kind_of(info) in KINDS:
        raise PydanticCustomError("null", "This cannot be null in a monitor of this kind.")
    return value


# In a change null means null. Only a heartbeat has these so.
NOT_NULL_BUT_IN_HEARTBEATS = AfterValidator(_refuse_null)


def _refuse_large(size_bytes: int, most_bytes: int) -> None:
    if size_bytes > most_bytes:
        raise PydanticCustomError("too_large", "All of it together holds at most {most} bytes.", {"most": most_bytes})


def _check_target(target: str | None, info: Info) -> str | None:
    kind = _kind_of(info)
    if kind is None or kind == HEARTBEAT:
        return target
    if target is None:
        raise PydanticCustomError("missing", "This field is required.")
    if kind == "http":
        return check_url(target, info)
    try:
        place = KINDS[kind].read_target(target)
    except ValueError as error:
        raise PydanticCustomError("target_invalid", "{what}", {"what": str(error)}) from None
    egress = (info.context or {}).get("egress")
    host = place if isinstance(place, str) else place.host
    if kind != "dns" and egress is not None and egress.refuses_literal(host):
        raise PydanticCustomError(
            "target_private", "The target is in a private network, which this installation does not reach."
        )
    return target


Target = Annotated[
    Annotated[str, StringConstraints(max_length=2048)] | None,
    not_of_heartbeats("a job pings its ping_id, and nobody goes and looks."),
    AfterValidator(_check_target),
]


def _check_assertions(texts: list[str], info: Info) -> list[str]:
    kind = _kind_of(info)
    if kind is None or kind == HEARTBEAT:
        return texts
    wrong: list[InitErrorDetails] = []
    for place, text in enumerate(texts):
        try:
            parse(text, kind)
        except ValueError as error:
            fault = PydanticCustomError("assertion_invalid", "{what}", {"what": str(error)})
            wrong.append(InitErrorDetails(type=fault, loc=(place,), input=text))
    if wrong:
        raise ValidationError.from_exception_data("assertions", wrong)
    _refuse_large(sum(len(text.encode()) for text in texts), MAX_ASSERTIONS_BYTES)
    return texts


Assertions = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_LENGTH), WITHOUT_NUL]],
    Field(max_length=MAX_ASSERTIONS),
    not_of_heartbeats("a ping says by itself whether the job went well.", []),
    AfterValidator(_check_assertions),
]


def _read_options(given: Any, _: Any, info: Info) -> Any:
    kind = _kind_of(info)
    if kind is None:
        return given
    # By way of JSON, in which a strict reader takes an enumeration's members from text.
    raw = orjson.dumps(given)
    _refuse_large(len(raw), MAX_OPTIONS_BYTES)
    try:
        return OPTIONS[kind].model_validate_json(raw, strict=True, context=info.context)
    except ValidationError as error:
        raise _pointing_into(given, error) from None


def _read_merged_options(given: dict[str, Any], info: Info) -> dict[str, Any]:
    return given if _kind_of(info) is None else _read_options(given, None, info).model_dump(mode="json")


def _pointing_into(given: Any, error: ValidationError) -> ValidationError:
    """Return an error whose paths are of the document: of a union pydantic names the member that it took as well."""
    faults = [
        InitErrorDetails(
            type=PydanticCustomError(found["type"], "{message}", {"message": found["msg"]}),
            loc=tuple(_steps_of(found["loc"], given)),
            input=None,
        )
        for found in error.errors(include_url=False, include_input=False)
    ]
    return ValidationError.from_exception_data(error.title, faults)


def _steps_of(where: tuple[int | str, ...], document: Any) -> Iterable[int | str]:
    for step in where[:-1]:
        if isinstance(document, dict) and step not in document:
            continue
        yield step
        document = document[step]
    yield from where[-1:]


# The kind's own; what is left out has its default. The union is for the document: the kind says which it is.
CheckOptions = Annotated[
    HttpOptions | TcpOptions | TlsOptions | DnsOptions | IcmpOptions,
    WrapValidator(_read_options),
    Field(default_factory=dict, validate_default=True, repr=False),
]
Options = Annotated[
    HttpOptions | TcpOptions | TlsOptions | DnsOptions | IcmpOptions | HeartbeatOptions,
    WrapValidator(_read_options),
    Field(default_factory=dict, validate_default=True, repr=False),
]
# As a change has them: whatever the kind, and read once they are merged into those that there are.
MergedOptions = Annotated[dict[str, Any], AfterValidator(_read_merged_options)]


def tell_kinds_apart(
    schema: dict[str, Any], of_checks: Mapping[str, Any], of_heartbeats: Mapping[str, Any] | None
) -> None:
    """Add to a model's schema what each kind may be told.

    `of_checks` and `of_heartbeats` are the schemas of the members that they have none of; None: it is of checks alone.
    """
    options = dict(zip(OPTIONS, schema["properties"]["options"]["anyOf"], strict=False))
    alternatives = [
        {
            "properties": {
                "kind": {"const": kind},
                "target": {"type": "string", "pattern": _TARGET_PATTERNS[kind]},
                "options": options[kind],
                **of_checks,
            },
            "required": ["target"] if kind == "http" else ["kind", "target"],
        }
        for kind in KINDS
    ]
    if of_heartbeats is not None:
        own = {"kind": {"const": HEARTBEAT}, "options": options[HEARTBEAT]}
        alternatives.append({"properties": {**own, **of_heartbeats}, "required": ["kind"]})
    schema["allOf"] = [{"anyOf": alternatives}]  # by itself it stands beside the properties, as generators read it

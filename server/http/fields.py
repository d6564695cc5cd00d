"""Field types that several features share, so that a URL or a status range means the same wherever it is written."""

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, ValidationInfo
from pydantic_core import PydanticCustomError

# Named again, for the schemas: these three the probes share.
from server.fields import NOT_BLANK as NOT_BLANK
from server.fields import WHOLE as WHOLE
from server.fields import WITHOUT_NUL as WITHOUT_NUL

OrgId = Annotated[
    UUID | None, Field(description="The organisation it belongs to. May be left out where you belong to exactly one.")
]


def _check_century(moment: datetime) -> datetime:
    if not 2000 <= moment.year < 2200:
        raise PydanticCustomError("moment_out_of_range", "This must be a time of the years 2000 to 2199.")
    return moment


# Wide enough for any window, narrow enough for arithmetic.
Moment = Annotated[
    AwareDatetime, AfterValidator(_check_century), Field(json_schema_extra={"pattern": "^2[01][0-9]{2}-"})
]


# How uptime is accounted (server/features/uptime/rules.py), wherever it is asked for.
DegradedCounts = Annotated[
    Literal["up", "down"], Field(description="What degraded time, answered but too slow, counts as.")
]
UnknownCounts = Annotated[
    Literal["exclude", "down"],
    Field(description="Whether time in which nobody could look is left out, or counts as down."),
]
MaintenanceCounts = Annotated[
    Literal["exclude", "include"],
    Field(description="Whether maintenance is left out, whatever state it was in, or counts like any other time."),
]


def included(description: str) -> Any:
    """Describe a field that is there only where the reader's `include` asked for it."""
    return Field(default=None, description=description, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def check_url(url: str, info: ValidationInfo) -> str:
    """Return a URL that may be watched or told. Raises PydanticCustomError with what is right."""
    if not url.isprintable() or " " in url:
        raise PydanticCustomError("url_invalid", "A URL holds no blanks and no control characters.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise PydanticCustomError("url_invalid", "This is not a URL. An example: https://example.com/health") from None
    if parts.scheme not in {"http", "https"}:
        raise PydanticCustomError("url_scheme", "The URL must begin with http:// or https://.")
    if not host or port == 0:
        raise PydanticCustomError("url_invalid", "The URL names no host. An example: https://example.com/health")
    if parts.username is not None or parts.password is not None:
        raise PydanticCustomError("url_credentials", "The URL must not carry a user name or a password.")
    egress = (info.context or {}).get("egress")
    if egress is not None and egress.refuses_literal(host):
        raise PydanticCustomError(
            "url_private", "The URL points into a private network, which this installation does not reach."
        )
    return url


URL_PATTERN = r"^[Hh][Tt]{2}[Pp][Ss]?://[^\s\x00-\x1f\x7f-\x9f/?#@]+([/?#][^\s\x00-\x1f\x7f-\x9f]*)?$"
# The early word to whoever types it. The guard that counts is at the socket (server/egress.py).
HttpUrl = Annotated[
    str,
    StringConstraints(max_length=2048),
    AfterValidator(check_url),
    Field(json_schema_extra={"pattern": URL_PATTERN}),
]

"""Field types that several features share, so that a URL or a status range means the same wherever it is written."""

from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, ValidationInfo
from pydantic_core import PydanticCustomError

OrgId = Annotated[
    UUID | None, Field(description="The organisation it belongs to. May be left out where you belong to exactly one.")
]

# Wide enough for any window, narrow enough for arithmetic.
Moment = Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC), le=datetime(2200, 1, 1, tzinfo=UTC))]


def included(description: str) -> Any:
    """Describe a field that is there only where the reader's `include` asked for it."""
    return Field(default=None, description=description, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _check_url(url: str, info: ValidationInfo) -> str:
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


# The early word to whoever types it. The guard that counts is at the socket (server/egress.py).
HttpUrl = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_check_url)]

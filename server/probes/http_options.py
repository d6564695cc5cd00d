"""What an http check may be told: the method, headers, body and credentials of its request, and what counts as success.

Kept apart from the probe, because the API reads it as well.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from server.features.monitors.rules import status_ranges
from server.fields import WHOLE, WITHOUT_NUL

MAX_HEADERS = 50

# RFC 9110, section 5.1: a field's name is a token; 5.5: its value is visible ASCII, blanks and tabs.
_FIELD_NAME = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
_VALUE = r"^[\t\x20-\x7e]*$"
_VISIBLE = r"^[\x21-\x7e]+$"
_WITHOUT_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
_WITHOUT_COLON = r"^[^:\x00-\x1f\x7f]*$"

# Who sets these decides how messages are framed, where they go, and what the body that comes back is packed in.
_OWNED = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


def _spelled(pattern: str, words: str) -> tuple[AfterValidator, Any]:
    """Hold a text to a pattern, and say in words what is right."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text) or "\n" in text:
            raise PydanticCustomError("not_acceptable", "{words}", {"words": words})
        return text

    return AfterValidator(check), Field(json_schema_extra={"pattern": pattern})


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    lower = [name.lower() for name in headers]
    for name in headers:
        if not re.fullmatch(_FIELD_NAME, name):
            raise PydanticCustomError("header_name", "{name} is not a header's name.", {"name": repr(name)[:100]})
        if name.lower() == "authorization":
            raise PydanticCustomError("header_owned", "Put credentials into auth, where they are kept secret.")
        if name.lower() in _OWNED:
            raise PydanticCustomError("header_owned", "{name} is set by the check itself.", {"name": name})
        if lower.count(name.lower()) > 1:
            raise PydanticCustomError("header_twice", "{name} stands there twice.", {"name": name})
    return headers


def _check_credential_name(name: str) -> str:
    if name.lower() in _OWNED | {"host", "cookie"}:
        raise PydanticCustomError("header_owned", "{name} does not carry credentials.", {"name": name})
    return name


def _check_ranges(expected_status: list[str]) -> list[str]:
    try:
        status_ranges(expected_status)
    except ValueError as error:
        raise PydanticCustomError("status_range", "{what}", {"what": str(error)}) from None
    return expected_status


HeaderValue = Annotated[
    str, Field(max_length=4000), *_spelled(_VALUE, "A header's value holds printable ASCII and tabs alone.")
]
Headers = Annotated[
    dict[str, HeaderValue],
    Field(max_length=MAX_HEADERS, json_schema_extra={"propertyNames": {"pattern": _FIELD_NAME}}),
    AfterValidator(_check_headers),
]
StatusRange = Annotated[str, Field(json_schema_extra={"pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"})]
ExpectedStatus = Annotated[list[StatusRange], Field(min_length=1, max_length=20), AfterValidator(_check_ranges)]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class BasicAuth(BaseModel):
    """A user name and a password (RFC 7617)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["basic"]
    username: Annotated[
        str,
        Field(max_length=200, description="The user name, without a colon."),
        *_spelled(_WITHOUT_COLON, "A user name holds no colon and no control characters."),
    ]
    password: Annotated[
        str,
        Field(max_length=1000, description="The password. It is never shown again.", repr=False),
        *_spelled(_WITHOUT_CONTROLS, "A password holds no control characters."),
    ]


class BearerAuth(BaseModel):
    """A token (RFC 6750)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["bearer"]
    token: Annotated[
        str,
        Field(max_length=4000, description="The token. It is never shown again.", repr=False),
        *_spelled(_VISIBLE, "A token holds visible ASCII characters alone, and at least one."),
    ]


class HeaderAuth(BaseModel):
    """A secret in a header of the target's own, such as `X-Api-Key`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["header"]
    name: Annotated[
        str,
        Field(max_length=100, description="The header's name."),
        *_spelled(_FIELD_NAME, "This is not a header's name. An example: X-Api-Key"),
        AfterValidator(_check_credential_name),
    ]
    value: Annotated[
        str,
        Field(min_length=1, max_length=4000, description="The header's value. It is never shown again.", repr=False),
        *_spelled(_VALUE, "A header's value holds printable ASCII and tabs alone."),
    ]


Auth = Annotated[BasicAuth | BearerAuth | HeaderAuth, Field(discriminator="type")]


class HttpOptions(BaseModel):
    """How an http check goes, and which answers count as success."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"headers": {"Accept": "application/json"}, "auth": {"type": "bearer", "token": "s3cret"}},
                {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": '{"query": "{ ok }"}'},
            ]
        },
    )

    method: Annotated[Method, Field(description="The request's method.")] = "GET"
    headers: Annotated[
        Headers,
        Field(description="Headers to send, by name. Those that frame the message are set by the check itself."),
    ] = Field(default_factory=dict)
    body: Annotated[
        Annotated[str, Field(max_length=100_000), WITHOUT_NUL] | None,
        Field(description="What to send, as UTF-8; its Content-Type is one of the headers. Null: nothing."),
    ] = None
    auth: Annotated[
        Auth | None, Field(description="Credentials. A redirect to another origin does not carry them on.")
    ] = None
    expected_status: Annotated[
        ExpectedStatus,
        Field(description="The status codes that count as success: `404`, or a range such as `200-299`."),
    ] = ["200-299"]
    max_redirects: Annotated[
        int,
        Field(
            ge=0,
            le=10,
            description="How many redirects to follow; 0: none, so that a 3xx is judged by expected_status.",
        ),
        WHOLE,
    ] = 5
    verify_tls: Annotated[
        bool, Field(description="Whether the certificate must be valid and the host's. Only switch it off knowingly.")
    ] = True

    @model_validator(mode="after")
    def _has_a_body_that_is_sent(self) -> "HttpOptions":
        if self.method == "HEAD" and self.body is not None:
            raise PydanticCustomError("body_of_head", "A HEAD request has no body: leave it out, or choose GET.")
        return self

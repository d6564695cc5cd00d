"""What a route answers with, and the validators of it (RFC 9110: ETag, If-None-Match, If-Match).

An ETag is `"<version>.<hash>"` where the thing has a version that people's writes raise, else `"<hash>"`; the hash is
of the body. If-Match compares the version alone: it guards people against people. A monitor that went down since it was
read has another ETag, but a change of its name is not refused for that.
"""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from server.errors import AppError, PreconditionFailed, Unavailable
from server.http.pagination import PageQuery, Position

JSON = "application/json"
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its body, and what the envelope cannot know."""

    body: bytes = b""
    status: int = 200
    version: int | None = None
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)


def one(model: type[BaseModel], row: bytes, *, status: int = 200, location: str | None = None) -> Reply:
    """Answer with one row, given as the JSON object or the one-element array that the database answered."""
    return shaped(read_row(model, row), status=status, location=location)


def shaped(thing: BaseModel, *, status: int = 200, location: str | None = None) -> Reply:
    """Answer with one thing in its wire shape."""
    headers = {"Location": location.format(id=getattr(thing, "id", ""))} if location else {}
    return Reply(
        thing.model_dump_json(by_alias=True).encode(), status, getattr(thing, "version", None), headers=headers
    )


def page(model: type[BaseModel], rows: bytes, query: PageQuery, by: str = "created_at") -> Reply:
    """Answer with one page of rows, given as the JSON array that `pagination.paged` made the database answer."""
    found: list[Any] = _read(_list_of(model), rows)
    shown = found[: query.limit]
    cursor = b"null"
    if len(found) > query.limit:
        cursor = b'"' + Position(getattr(shown[-1], by), shown[-1].id).encode().encode() + b'"'
    return Reply(b'{"data":' + _list_of(model).dump_json(shown) + b',"next_cursor":' + cursor + b"}")


def nothing() -> Reply:
    """Answer 204: done, and nothing to say."""
    return Reply(status=204)


def read_row(model: type[M], row: bytes) -> M:
    """Read one row in the shape of `model`, from a JSON object or a one-element array."""
    if row.startswith(b"["):
        found: list[M] = _read(_list_of(model), row)
        return found[0]
    thing: M = _read(_one_of(model), row)
    return thing


def etag(reply: Reply) -> str:
    """Return the strong validator of an answer."""
    digest = hashlib.blake2b(reply.body, digest_size=9).hexdigest()
    return f'"{digest}"' if reply.version is None else f'"{reply.version}.{digest}"'


def matches(if_none_match: str, current: str) -> bool:
    """Tell whether If-None-Match names `current`, by weak comparison (RFC 9110, 13.1.2)."""
    return if_none_match.strip() == "*" or current in (
        tag.strip().removeprefix("W/") for tag in if_none_match.split(",")
    )


def expected_version(if_match: str | None) -> int | None:
    """Return the version that If-Match insists on; None where there is no such header, or `*`.

    Raises PreconditionFailed for a tag that we never gave out: it cannot match.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    version, dot, _ = if_match.strip().strip('"').partition(".")
    if not dot or not version.isascii() or not version.isdigit() or len(version) > 9:
        raise PreconditionFailed("If-Match takes one ETag of ours, as it came with the answer to a GET.")
    return int(version)


@cache
def _list_of(model: type[BaseModel]) -> TypeAdapter[Any]:
    return TypeAdapter(list[model])  # type: ignore[valid-type]  # a type built at run time


@cache
def _one_of(model: type[BaseModel]) -> TypeAdapter[Any]:
    return TypeAdapter(model)


def _read(adapter: TypeAdapter[Any], raw: bytes) -> Any:
    try:
        return adapter.validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":  # cut off in the middle, or HTML with status 200
            raise Unavailable(retry_after_seconds=1, reason="upstream_answered_no_json") from None
        raise AppError(reason=f"upstream_shape: {first['loc']} {first['msg']}") from None

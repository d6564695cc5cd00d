"""What a route answers with, and the validators of it (RFC 9110: ETag, If-None-Match, If-Match).

An ETag is `"<version>.<hash>"` where the thing has a version that people's writes raise, else `"<hash>"`; the hash is
of the body. If-Match compares the version alone: it guards people against people. A monitor that went down since it was
read has another ETag, but a change of its name is not refused for that.
"""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, TypeVar
from uuid import UUID

import orjson
from pydantic import BaseModel, ValidationError

from server.data.failures import read_answer, read_rows
from server.errors import AppError, PreconditionFailed
from server.http.pagination import PageQuery, Position
from server.http.shaping import shape

JSON = "application/json"
M = TypeVar("M", bound=BaseModel)
# From 2,048 bytes on hashlib gives up the interpreter lock, and getting it back costs more than the hash.
_HASHED_AT_ONCE = 2047
_VERSIONED = re.compile(r'"([0-9]{1,9})\.[^"]+"')


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its body, and what the envelope cannot know."""

    body: bytes = b""
    status: int = 200
    version: int | None = None
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    download: IO[bytes] | None = None  # the body instead, where it may be too large for memory; closed when it is sent


def one(model: type[BaseModel], raw: bytes, *, status: int = 200, location: str | None = None) -> Reply:
    """Answer with one row, given as the JSON object or the one-element array that the database answered."""
    found = read_answer(raw)
    rows: list[dict[str, Any]] = found if isinstance(found, list) else [found]
    shape(model, rows)
    if len(rows) != 1:
        raise AppError(reason=f"upstream_shape: {model.__name__} {len(rows)} rows for one")
    row = rows[0]
    headers = {"Location": location.format(id=row["id"])} if location else {}
    return Reply(orjson.dumps(row), status, row.get("version"), headers=headers)


def shaped(thing: BaseModel, *, status: int = 200) -> Reply:
    """Answer with one thing that was put together here."""
    return Reply(thing.model_dump_json(by_alias=True).encode(), status, getattr(thing, "version", None))


def page(model: type[BaseModel], raw: bytes, query: PageQuery, by: str = "created_at") -> Reply:
    """Answer with one page of rows, given as the JSON array that `pagination.paged` made the database answer."""
    rows = read_rows(raw)
    shape(model, rows)
    cursor = None
    if len(rows) > query.limit:
        rows = rows[: query.limit]
        cursor = Position(datetime.fromisoformat(rows[-1][by]), UUID(rows[-1]["id"])).encode()
    return Reply(orjson.dumps({"data": rows, "next_cursor": cursor}))


def nothing() -> Reply:
    """Answer 204: done, and nothing to say."""
    return Reply(status=204)


def read_row(model: type[M], raw: bytes) -> M:
    """Read one row for a rule to look at, from a JSON object or a one-element array."""
    found = read_answer(raw)
    try:
        return model.model_validate(found[0] if isinstance(found, list) and found else found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise AppError(reason=f"upstream_shape: {model.__name__} {first['loc']} {first['msg']}") from None


def etag(reply: Reply) -> str:
    """Return the strong validator of an answer."""
    digest = hashlib.blake2b(digest_size=9)
    for start in range(0, len(reply.body), _HASHED_AT_ONCE):
        digest.update(reply.body[start : start + _HASHED_AT_ONCE])
    text = digest.hexdigest()
    return f'"{text}"' if reply.version is None else f'"{reply.version}.{text}"'


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
    ours = _VERSIONED.fullmatch(if_match.strip())
    if ours is None:
        raise PreconditionFailed("If-Match takes one ETag of ours, as it came with the answer to a GET.")
    return int(ours[1])

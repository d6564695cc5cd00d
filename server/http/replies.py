"""What a route answers with, and the validators of it (RFC 9110: ETag, If-None-Match, If-Match).

An ETag is `"<version>.<hash>"` where the thing has a version that people's writes raise, else `"<hash>"`. If-Match
compares the version alone: it guards people against people. A monitor that went down since it was read has another
ETag, but a change of its name is not refused for that.

The hash of a read that goes straight through is of what the database said, so that an answer which the reader holds
already is neither parsed nor shaped nor written down again. It is salted with how this program shapes answers: where a
deploy changes that, no old ETag holds. Any other answer is hashed as it is sent.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar
from uuid import UUID

import orjson
from pydantic import BaseModel, ValidationError

from server.data.failures import read_answer, read_rows
from server.errors import AppError, PreconditionFailed
from server.http import shaping
from server.http.pagination import Order, PageQuery, Position, order_of
from server.http.shaping import shape

JSON = "application/json"
M = TypeVar("M", bound=BaseModel)
# From 2,048 bytes on hashlib gives up the interpreter lock, and getting it back costs more than the hash.
_HASHED_AT_ONCE = 2047
_VERSIONED = re.compile(r'"([0-9]{1,9})\.[^"]+"')
_TAG = re.compile(r'"(?:([0-9]{1,9})\.)?([0-9a-f]{18})"')


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its body, and what the envelope cannot know.

    With `render` it is an answer yet to be made, of `source` alone, which is what the database said: `rendered` makes
    it, and only its `status` is known before.
    """

    body: bytes = b""
    status: int = 200
    version: int | None = None
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    source: bytes | None = None
    render: "Callable[[bytes], Reply] | None" = None
    download: IO[bytes] | None = None  # the body instead, where it may be too large for memory; closed when it is sent

    def rendered(self) -> "Reply":
        """Return the answer itself. Raises AppError where the database said something else than what was asked."""
        return self if self.render is None or self.source is None else self.render(self.source)


def one(
    model: type[BaseModel],
    raw: bytes,
    *,
    status: int = 200,
    location: str | None = None,
    included: Sequence[str] = (),
) -> Reply:
    """Answer with one row, given as the JSON object or the one-element array that the database answered.

    `included` names the optional fields of the model that were asked for.
    """
    return Reply(status=status, source=raw, render=partial(_render_one, model, status, location, included))


def _render_one(
    model: type[BaseModel], status: int, location: str | None, included: Sequence[str], raw: bytes
) -> Reply:
    found = read_answer(raw)
    rows: list[dict[str, Any]] = found if isinstance(found, list) else [_columns(model, found)]
    shape(model, rows, included)
    if len(rows) != 1:
        raise AppError(reason=f"upstream_shape: {model.__name__} {len(rows)} rows for one")
    row = rows[0]
    headers = {"Location": location.format(id=row["id"])} if location else {}
    return Reply(orjson.dumps(row), status, row.get("version"), headers=headers, source=raw)


def _columns(model: type[BaseModel], row: dict[str, Any]) -> dict[str, Any]:
    """Return what `model` has of a row: a function answers with the whole of it. A name that lacks, `shape` reports."""
    return {name: row[name] for name in model.model_fields if name in row}


def shaped(thing: BaseModel, *, status: int = 200) -> Reply:
    """Answer with one thing that was put together here."""
    return Reply(thing.model_dump_json(by_alias=True).encode(), status, getattr(thing, "version", None))


def page(
    model: type[BaseModel],
    raw: bytes,
    query: PageQuery,
    by: str = "created_at",
    key: str = "id",
    included: Sequence[str] = (),
) -> Reply:
    """Answer with one page of rows, given as the JSON array that `pagination.paged` made the database answer.

    `by` is the column of a list that offers no order, `key` the one that settles its ties.
    """
    return Reply(source=raw, render=partial(_render_page, model, query.limit, order_of(query, by), key, included))


def _render_page(
    model: type[BaseModel], limit: int, order: str, key: str, included: Sequence[str], raw: bytes
) -> Reply:
    rows = read_rows(raw)
    shape(model, rows, included)
    cursor = None
    if len(rows) > limit:
        rows = rows[:limit]
        last = rows[-1]
        cursor = Position(order, last[Order.read(order).column], UUID(last[key])).encode()
    return Reply(orjson.dumps({"data": rows, "next_cursor": cursor}), source=raw)


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


def salt_of(openapi_document: bytes) -> bytes:
    """Return what tells ETags of differently shaped answers apart: of the wire models, and of what brings rows there.

    The same for all processes of one deploy.
    """
    digest = hashlib.blake2b(openapi_document, digest_size=16)
    for source in (shaping.__file__, __file__):
        digest.update(Path(source).read_bytes())
    return digest.digest()


def hash_of(reply: Reply, salt: bytes) -> bytes:
    """Return the hash that an answer's validator is made of: of what the database said, else of the body."""
    hashed = reply.body if reply.source is None else reply.source
    digest = hashlib.blake2b(digest_size=16, key=salt)
    for start in range(0, len(hashed), _HASHED_AT_ONCE):
        digest.update(hashed[start : start + _HASHED_AT_ONCE])
    return digest.digest()


def etag(hashed: bytes, version: int | None) -> str:
    """Return the strong validator. The version goes into its hash too, so that no other can be put before it."""
    before = "" if version is None else f"{version}."
    return f'"{before}{hashlib.blake2b(before.encode(), digest_size=9, key=hashed).hexdigest()}"'


def held(if_none_match: str, hashed: bytes) -> str | None:
    """Return the ETag of ours that If-None-Match names and that stands for `hashed`; None where there is none.

    The comparison is the weak one (RFC 9110, 13.1.2).
    """
    for given in if_none_match.split(","):
        tag = given.strip().removeprefix("W/")
        ours = _TAG.fullmatch(tag)
        if ours is not None and tag == etag(hashed, int(ours[1]) if ours[1] else None):
            return tag
    return None


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

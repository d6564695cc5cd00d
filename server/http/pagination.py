"""Keyset pagination over (timestamp, id), newest first, with opaque cursors. Stable while rows come and go."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 200


class Position(NamedTuple):
    """The last row that the reader has seen."""

    at: datetime
    id: UUID

    def encode(self) -> str:
        """Return the position as an opaque, URL-safe cursor."""
        at = self.at.astimezone(UTC).isoformat()
        return base64.urlsafe_b64encode(f"{at}|{self.id}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """Return the position that `encode` made a cursor of. Raises ValueError for anything else."""
    try:
        at, _, row_id = (
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode().partition("|")
        )
        position = Position(datetime.fromisoformat(at), UUID(row_id))
        is_ours = position.encode() == cursor
    except (ValueError, OverflowError, binascii.Error):
        raise ValueError("This is not a cursor of ours. Use next_cursor of the page before, unchanged.") from None
    if not is_ours:
        raise ValueError("This is not a cursor of ours. Use next_cursor of the page before, unchanged.")
    return position


class PageQuery(BaseModel):
    """The query parameters that every list takes; a list with filters adds its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=LARGEST_LIMIT, description="How many rows to answer at most.")] = DEFAULT_LIMIT
    cursor: Annotated[
        str | None, Field(max_length=200, description="`next_cursor` of the page before; absent for the first page.")
    ] = None

    @field_validator("cursor")
    @classmethod
    def _cursor_is_ours(cls, cursor: str | None) -> str | None:
        if cursor is not None:
            decode_cursor(cursor)
        return cursor

    @property
    def after(self) -> Position | None:
        """The position after which this page begins; None: at the newest row."""
        return decode_cursor(self.cursor) if self.cursor else None


def paged(query: Any, page: PageQuery, by: str = "created_at") -> Any:
    """Order a query newest first by (`by`, id), and cut out the page and one row more: does it go on?"""
    if position := page.after:
        at = position.at.isoformat()
        # The first condition lets Postgres start inside the index; the second settles ties.
        query = query.lte(by, at).or_(f"{by}.lt.{at},id.lt.{position.id}")
    return query.order(by, desc=True).order("id", desc=True).limit(page.limit + 1)

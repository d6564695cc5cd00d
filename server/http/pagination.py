"""Keyset pagination over (a column, id), with opaque cursors. Exact while rows come and go.

A page begins after the last row that the reader has seen: after its value in the column that the list is ordered by,
ties settled by id. Names are compared and sorted by their code points, times as they are, so that no collation and no
quoting comes between what was sorted and what is asked for.
"""

import base64
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, NamedTuple
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationInfo, field_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

DEFAULT_LIMIT = 50
LARGEST_LIMIT = 200
LONGEST_CURSOR = 2000  # a name of 200 characters, each of four bytes, and its frame
# What the document says of a cursor; more is not for readers to know.
OPAQUE: dict[str, Any] = {"pattern": "^[A-Za-z0-9_-]+$"}
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?Z")
_TIME_COLUMN = re.compile(r"\w+_(at|since)")
ORDER_DESCRIPTION = "By what to sort; with a minus: downwards. Ties go by id, in the same direction."
_NOT_OURS = "This is not a cursor of ours. Use next_cursor of the page before, unchanged."


@dataclass(frozen=True, slots=True)
class OrderedBy:
    """What stands beside a list's `order`: the columns that it offers, each upwards, and downwards with a minus.

    None of them may hold null, which is neither before nor after anything, and each needs an index with id.
    """

    columns: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Allow these texts alone, in the document as well."""
        return core_schema.literal_schema([text for column in self.columns for text in (column, f"-{column}")])


class Order(NamedTuple):
    """How a list is sorted: by which column, and whether downwards. Ties go by id in the same direction."""

    column: str
    is_descending: bool

    @classmethod
    def read(cls, text: str) -> "Order":
        """Read `name` or `-name`."""
        return cls(text.removeprefix("-"), text.startswith("-"))


class Position(NamedTuple):
    """The last row that the reader has seen: in which order, its value there, as it is on the wire, and its id."""

    order: str
    value: str
    id: UUID

    @property
    def at(self) -> datetime:
        """The value of a list that is sorted by a time."""
        return datetime.fromisoformat(self.value)

    def encode(self) -> str:
        """Return the position as an opaque, URL-safe cursor."""
        return base64.urlsafe_b64encode(orjson.dumps([self.order, self.value, str(self.id)])).decode().rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """Return the position that `encode` made a cursor of. Raises ValueError for anything else."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        order, value, row_id = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        position = Position(order, value, UUID(row_id))
        is_ours = position.encode() == cursor and _is_value_of(Order.read(order).column, value)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise ValueError(_NOT_OURS) from None
    if not is_ours:
        raise ValueError(_NOT_OURS)
    return position


def _is_value_of(column: str, value: str) -> bool:
    if _TIME_COLUMN.fullmatch(column):
        return bool(_TIME.fullmatch(value) and datetime.fromisoformat(value))
    return "\0" not in value


class PageQuery(BaseModel):
    """The query parameters that every list takes; a list adds its own filters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=LARGEST_LIMIT, description="How many rows to answer at most.")] = DEFAULT_LIMIT
    cursor: Annotated[
        str | None,
        Field(
            max_length=LONGEST_CURSOR,
            json_schema_extra=OPAQUE,
            description="`next_cursor` of the page before; absent for the first page.",
        ),
    ] = None

    @field_validator("cursor")
    @classmethod
    def _cursor_is_ours(cls, cursor: str | None, info: ValidationInfo) -> str | None:
        if cursor is None:
            return None
        position = decode_cursor(cursor)
        if "order" in info.data and position.order != info.data["order"]:
            raise PydanticCustomError(
                "cursor_of_another_order",
                "This cursor continues a list in another order. Keep `order`, or begin without a cursor.",
            )
        if "order" not in cls.model_fields and not _TIME_COLUMN.fullmatch(Order.read(position.order).column):
            raise ValueError(_NOT_OURS)
        return cursor

    @property
    def after(self) -> Position | None:
        """The position after which this page begins; None: at the first row."""
        return decode_cursor(self.cursor) if self.cursor else None


class _Ordered(BaseModel):
    order: str


class OrderedQuery(PageQuery, _Ordered):
    """The query parameters of a list that offers several orders: it says which, as `order` with its OrderedBy.

    Of the two bases `order` comes first, so that the cursor can be held against it.
    """


def order_of(page: PageQuery, by: str = "created_at") -> str:
    """Return how a list is sorted: as the reader wishes, or newest first by `by` where there is nothing to wish."""
    return page.order if isinstance(page, OrderedQuery) else f"-{by}"


def listed(table: str, page: PageQuery) -> str:
    """Return the name of what a page of a table is read from: for an order by name, the view that knows the name's key.

    No name goes into a filter: PostgREST reads `null` and quotation marks there in ways of its own, and the embedded
    Supabase in others. Its key is hexadecimal: it needs no quoting, and sorts by code point under any collation.
    """
    return f"named_{table}" if Order.read(order_of(page)).column == "name" else table


def before_arguments(page: PageQuery) -> dict[str, Any]:
    """Return what a function that cuts out a page itself, newest first, takes of it: {before_at, before_id, max_rows}.

    It answers one row more than the page, which tells whether the list goes on.
    """
    after = page.after
    return {
        "before_at": after.at.isoformat() if after else None,
        "before_id": str(after.id) if after else None,
        "max_rows": page.limit + 1,
    }


def paged(query: Any, page: PageQuery, by: str = "created_at") -> Any:
    """Sort a query as the page wants it, and cut out the page and one row more: does it go on?"""
    column, is_descending = Order.read(order_of(page, by))
    sorted_by = "name_key" if column == "name" else column
    if position := page.after:
        beyond = "lt" if is_descending else "gt"
        value = name_key(position.value) if column == "name" else position.value
        # The first condition lets Postgres start inside the index; the second settles ties.
        query = query.filter(sorted_by, f"{beyond}e", value)
        query = query.or_(f"{sorted_by}.{beyond}.{value},id.{beyond}.{position.id}")
    return query.order(sorted_by, desc=is_descending).order("id", desc=is_descending).limit(page.limit + 1)


def name_key(name: str) -> str:
    """Return what a name is sorted by: as private.name_key of the database has it."""
    return "x" + name.encode().hex()

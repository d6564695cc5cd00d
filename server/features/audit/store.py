"""The audit trail in the database."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from server.data.clients import Database
from server.data.failures import read_answer
from server.data.queries import call
from server.errors import AppError
from server.features.audit.rules import Position


class Page(NamedTuple):
    """Some rows of events, newest first, and the cut that further pages of the same walk are to keep to."""

    rows: list[dict[str, Any]]
    settled_below: str


def read_page(
    database: Database,
    filters: dict[str, Any],
    *,
    after: Position | None,
    max_rows: int,
    below_xid: str | None = None,
) -> Page:
    """Return up to `max_rows` rows. Raises Forbidden for members below admin, InvalidInput without an organisation."""
    arguments = {
        **filters,
        "before_at": after.at.isoformat() if after else None,
        "before_seq": after.seq if after else None,
        "below_xid": below_xid,
        "max_rows": max_rows,
    }
    answer = read_answer(database.execute(call("audit_page", arguments)))
    if not isinstance(answer, dict) or not isinstance(answer.get("entries"), list):
        raise AppError(reason="upstream_shape: no page of the audit trail")
    return Page(answer["entries"], str(answer.get("settled_below")))


def walk(database: Database, filters: dict[str, Any], page_rows: int) -> Iterator[list[dict[str, Any]]]:
    """Give everything, page after page, as it stood when the walk began: one upstream call a page."""
    after, below_xid = None, None
    while True:
        page = read_page(database, filters, after=after, max_rows=page_rows, below_xid=below_xid)
        yield page.rows
        if len(page.rows) < page_rows:
            return
        after, below_xid = position_of(page.rows[-1]), page.settled_below


def position_of(row: dict[str, Any]) -> Position:
    """Return where a row stands."""
    return Position(datetime.fromisoformat(row["occurred_at"]), row["seq"])

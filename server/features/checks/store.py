"""Check results in the database."""

from datetime import datetime
from uuid import UUID

from server.data.clients import Database
from server.data.queries import call
from server.http.pagination import Order, PageQuery, order_of


def list_page(
    database: Database,
    monitor_id: UUID,
    page: PageQuery,
    outcome: str | None,
    from_at: datetime | None,
    to_at: datetime | None,
) -> bytes:
    """Return a page of a monitor's results as a JSON array, or `null` where the caller sees no such monitor.

    A function of the database rather than a query of the table: it tells an empty page of a monitor from a monitor that
    is not there, in one call.
    """
    position = page.after
    arguments = {
        "monitor_id": str(monitor_id),
        "ascending": not Order.read(order_of(page, "started_at")).is_descending,
        "after_at": position.value if position else None,
        "after_id": str(position.id) if position else None,
        "with_outcome": outcome,
        "from_at": from_at.isoformat() if from_at else None,
        "to_at": to_at.isoformat() if to_at else None,
        "max_rows": page.limit + 1,
    }
    return database.execute(call("list_checks", arguments))

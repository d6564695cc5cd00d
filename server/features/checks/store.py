"""Check results in the database."""

from uuid import UUID

from server.data.clients import Database
from server.data.queries import call
from server.http.pagination import PageQuery


def list_page(database: Database, monitor_id: UUID, page: PageQuery, outcome: str | None) -> bytes:
    """Return a page of a monitor's results as a JSON array, or `null` where the caller sees no such monitor.

    A function of the database rather than a query of the table: it tells an empty page of a monitor from a monitor that
    is not there, in one call.
    """
    position = page.after
    arguments = {
        "monitor_id": str(monitor_id),
        "before_at": position.at.isoformat() if position else None,
        "before_id": str(position.id) if position else None,
        "with_outcome": outcome,
        "max_rows": page.limit + 1,
    }
    return database.execute(call("monitor_checks", arguments))

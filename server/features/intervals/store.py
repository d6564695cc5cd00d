"""The ledger of intervals in the database."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from server.data.clients import Database
from server.data.queries import call
from server.http.pagination import PageQuery, before_arguments


def list_page(
    database: Database,
    monitor_id: UUID,
    page: PageQuery,
    states: Sequence[str],
    from_at: datetime | None,
    to_at: datetime | None,
) -> bytes:
    """Return a page of a monitor's lines as a JSON array, or `null` where the caller sees no such monitor."""
    arguments = {
        "monitor_id": str(monitor_id),
        **before_arguments(page),
        "with_states": list(states) or None,
        "from_at": from_at.isoformat() if from_at else None,
        "to_at": to_at.isoformat() if to_at else None,
    }
    return database.execute(call("list_intervals", arguments))

"""The overview in the database."""

from uuid import UUID

from server.data.clients import Database
from server.data.queries import Statement, call, remembered


def read_overview(database: Database, org_id: UUID | None) -> bytes:
    """Return {organisations: [...]} of one or all of the caller's organisations, as a JSON object."""
    return database.execute(_overview(org_id))


@remembered
def _overview(org_id: UUID | None) -> Statement:
    return call("overview", {"org_id": str(org_id) if org_id else None})

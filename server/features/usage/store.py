"""Usage in the database."""

from uuid import UUID

from server.data.clients import Database
from server.data.queries import call


def read(database: Database, org_id: UUID | None) -> bytes:
    """Return the usage of one organisation as a JSON array, empty where the caller sees no such organisation.

    An `org_id` of None means the caller's own, and where there are several, two of them.
    """
    return database.execute(call("organisation_usage", {"org_id": str(org_id) if org_id else None}))

"""The caller's memberships in the database."""

from server.data.clients import Database
from server.data.queries import table


def memberships(database: Database) -> bytes:
    """Return where the caller, user or key, belongs: a JSON array of {id, name, my_role}, at most 1,000."""
    query = table("organisations").select("id", "name", "my_role")
    return database.execute(query.order("created_at").limit(1000))

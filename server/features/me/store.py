"""The caller's memberships in the database."""

from server.data.clients import Database
from server.data.queries import table


def memberships(database: Database, user_id: str) -> bytes:
    """Return where the caller belongs, as a JSON array of {org_id, role, organisations: {name}}, at most 1,000."""
    query = table("memberships").select("org_id", "role", "organisations(name)")
    return database.execute(query.eq("user_id", user_id).order("created_at").limit(1000))

"""Where a user belongs: what a write needs to know before it can say whose the new thing is."""

from uuid import UUID

from server.data.clients import Database
from server.data.failures import read_rows
from server.data.queries import table


def read_memberships(database: Database, user_id: str) -> dict[UUID, str]:
    """Return the caller's organisations with the role in each, at most 1,000."""
    query = table("memberships").select("org_id", "role").eq("user_id", user_id).limit(1000)
    return {UUID(row["org_id"]): row["role"] for row in read_rows(database.execute(query))}

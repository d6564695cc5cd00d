"""Channels in the database."""

from typing import Any
from uuid import UUID

from server.data.clients import Database
from server.data.queries import call, table
from server.http.pagination import PageQuery, listed, paged

COLUMNS = "id,org_id,name,kind,url,created_at,version"


def create(database: Database, channel: dict[str, Any]) -> bytes:
    """Create a channel of {org_id, kind, name, url, secret}; return it, without the secret, as a JSON object."""
    return database.execute(call("create_channel", channel))


def list_page(database: Database, page: PageQuery, org_id: UUID | None) -> bytes:
    """Return a page of channels, filtered, as a JSON array."""
    query = table(listed("channels", page)).select(COLUMNS)
    if org_id is not None:
        query = query.eq("org_id", org_id)
    return database.execute(paged(query, page))


def read_for_writing(database: Database, channel_id: UUID) -> bytes:
    """Return {version, my_role} of one channel as a one-element JSON array. Raises NotFound."""
    query = (
        table("channels")
        .select("version", "...organisations!channels_org_id_fkey(my_role)")
        .eq("id", channel_id)
        .limit(1)
    )
    return database.execute_one(query)


def delete(database: Database, channel_id: UUID, version: int | None) -> bool:
    """Delete it with what it has not been told yet; return False where it is gone or has moved past `version`."""
    query = table("channels").delete().eq("id", channel_id)
    if version is not None:
        query = query.eq("version", version)
    return database.execute_if_it_stands(query.select("id")) is not None

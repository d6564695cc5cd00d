"""Deliveries in the database."""

from collections.abc import Mapping
from uuid import UUID

from server.data.clients import Database
from server.data.queries import call, table
from server.http.pagination import PageQuery, paged

COLUMNS = (
    "id,org_id,channel_id,incident_id,type,state,attempts,next_attempt_at,last_status_code,last_error,created_at,"
    "delivered_at"
)


def list_page(database: Database, page: PageQuery, filters: Mapping[str, UUID | str | None]) -> bytes:
    """Return a page of deliveries, filtered by column, as a JSON array."""
    query = table("deliveries").select(COLUMNS)
    for column, value in filters.items():
        if value is not None:
            query = query.eq(column, value)
    return database.execute(paged(query, page))


def retry(database: Database, delivery_id: UUID) -> bytes:
    """Make it due now, with its attempts counted afresh; return it as a JSON object. Raises NotFound, Forbidden."""
    return database.execute(call("retry_delivery", {"delivery_id": str(delivery_id)}))


def test_channel(database: Database, channel_id: UUID) -> bytes:
    """Put a test message for a channel into the outbox; return it as a JSON object. Raises NotFound, Forbidden."""
    return database.execute(call("test_channel", {"channel_id": str(channel_id)}))

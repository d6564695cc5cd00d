"""Deliveries in the database."""

from collections.abc import Mapping
from uuid import UUID

from server.data.clients import Database
from server.data.queries import call, one_of, table
from server.http.pagination import PageQuery, paged

COLUMNS = (
    "id,org_id,channel_id,incident_id,type,state,attempts,next_attempt_at,last_status_code,last_error,created_at,"
    "delivered_at"
)


EMBEDDED = {
    "channel": "channel:channels!deliveries_channel_id_fkey(id,name,kind,url)",
    "incident": (
        "incident:incidents!deliveries_incident_id_fkey"
        "(id,monitor_id,state,cause,summary,started_at,opened_at,resolved_at)"
    ),
}


def list_page(
    database: Database,
    page: PageQuery,
    ids: Mapping[str, UUID | None],
    states: tuple[str, ...],
    types: tuple[str, ...],
    include: tuple[str, ...] = (),
) -> bytes:
    """Return a page of deliveries, filtered by ids, by column, and more, with what `include` names, as a JSON array."""
    query = table("deliveries").select(COLUMNS, *(EMBEDDED[name] for name in include))
    for column, value in ids.items():
        if value is not None:
            query = query.eq(column, value)
    if states:
        query = one_of(query, "state", states)
    if types:
        query = one_of(query, "type", types)
    return database.execute(paged(query, page))


def retry(database: Database, delivery_id: UUID) -> bytes:
    """Make it due now, with its attempts counted afresh; return it as a JSON object. Raises NotFound, Forbidden."""
    return database.execute(call("retry_delivery", {"delivery_id": str(delivery_id)}))


def test_channel(database: Database, channel_id: UUID) -> bytes:
    """Put a test message for a channel into the outbox; return it as a JSON object. Raises NotFound, Forbidden."""
    return database.execute(call("test_channel", {"channel_id": str(channel_id)}))

"""The event log in the database, as a reader may see it."""

from uuid import UUID

from server.data.clients import Database
from server.data.queries import call
from server.features.events.rules import Position


def read_page(database: Database, after: Position | None, limit: int, org_id: UUID | None) -> bytes:
    """Return {events, position, has_more, horizon, roles, snapshot}: what follows `after`, at most `limit` events.

    After None: no events, the present position. Raises Gone.
    """
    arguments = {
        "after_xid": str(after.xid) if after else None,
        "after_seq": after.seq if after else None,
        "max_events": limit,
        "of_org": str(org_id) if org_id else None,
    }
    return database.execute(call("read_events", arguments))

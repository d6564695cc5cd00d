"""How a monitor did."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from server.errors import Fault, InvalidInput, NotFound
from server.features.uptime import store
from server.features.uptime.rules import count_uptime
from server.features.uptime.schemas import Uptime, UptimeQuery
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Uptime")

DEFAULT_WINDOW = timedelta(days=30)


@feature.route("GET", "/v1/monitors/<uuid:monitor_id>/uptime", query=UptimeQuery, answers=Uptime, refusals=(NotFound,))
def read_uptime(call: Call, monitor_id: UUID, query: UptimeQuery) -> Reply:
    """Say how much of a window a monitor was up, and how much of it somebody looked."""
    to_at = query.to_at or datetime.now(UTC)
    from_at = query.from_at or to_at - DEFAULT_WINDOW
    if from_at >= to_at:
        raise InvalidInput(faults=[Fault("from", "window_empty", "The window must begin before it ends.")])
    history = store.read_history(call.database, monitor_id, from_at, to_at)
    if history is None:
        raise NotFound
    counted = count_uptime(history, from_at, to_at, query.policy)
    return replies.shaped(Uptime.model_validate(counted, from_attributes=True))

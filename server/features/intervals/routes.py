"""The ledger of a monitor: in which state it was, since when, and why."""

from uuid import UUID

from server.errors import NotFound
from server.features.intervals import store
from server.features.intervals.schemas import Interval, IntervalQuery
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Intervals")


@feature.route(
    "GET", "/v1/monitors/<uuid:monitor_id>/intervals", query=IntervalQuery, list_of=Interval, refusals=(NotFound,)
)
def list_intervals(call: Call, monitor_id: UUID, query: IntervalQuery) -> Reply:
    """List the stretches of time that a monitor spent in one state, newest first. What has ended never changes.

    A window shows the lines that touch it, whole.
    """
    rows = store.list_page(call.database, monitor_id, query, query.state, query.from_at, query.to_at)
    if rows == b"null":
        raise NotFound
    return replies.page(Interval, rows, query, by="started_at")

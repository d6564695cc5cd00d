"""The raw results of a monitor's checks."""

from uuid import UUID

from server.errors import NotFound
from server.features.checks import store
from server.features.checks.schemas import Check, CheckQuery
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Checks")


@feature.route("GET", "/v1/monitors/<uuid:monitor_id>/checks", query=CheckQuery, list_of=Check, refusals=(NotFound,))
def list_checks(call: Call, monitor_id: UUID, query: CheckQuery) -> Reply:
    """List a monitor's check results, newest first unless `order` says otherwise, with what each phase took."""
    rows = store.list_page(call.database, monitor_id, query, query.outcome, query.from_at, query.to_at)
    if rows == b"null":
        raise NotFound
    return replies.page(Check, rows, query)

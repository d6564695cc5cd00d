"""How much an organisation has of what its plan allows."""

from typing import Any
from uuid import UUID

from server.data.failures import read_rows
from server.errors import Fault, InvalidInput, NotFound
from server.features.usage import store
from server.features.usage.schemas import Usage, UsageQuery
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Usage")


@feature.route("GET", "/v1/usage", query=UsageQuery, answers=Usage, refusals=(NotFound,))
def read_usage(call: Call, query: UsageQuery) -> Reply:
    """Show an organisation's plan: each limit with what is used of it, the shortest interval, the retention."""
    found = store.read(call.database, query.org_id)
    _require_one(read_rows(found), query.org_id)
    return replies.one(Usage, found)


def _require_one(rows: list[Any], wanted: UUID | None) -> None:
    if len(rows) == 1:
        return
    if wanted is not None:
        raise NotFound
    detail = "You belong to several organisations: say which one." if rows else "You belong to no organisation yet."
    raise InvalidInput(faults=[Fault("org_id", "org_required", detail)])

"""What a home screen needs, in one call."""

from server.errors import NotFound
from server.features.overview import store
from server.features.overview.rules import share_of
from server.features.overview.schemas import (
    OrganisationFound,
    OrganisationOverview,
    Overview,
    OverviewFound,
    OverviewQuery,
    UptimeShare,
)
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Overview")


@feature.route("GET", "/v1/overview", query=OverviewQuery, answers=Overview, refusals=(NotFound,))
def read_overview(call: Call, query: OverviewQuery) -> Reply:
    """Look over your organisations: what is down, what goes on, what could not be told, and the uptime of late."""
    found = replies.read_row(OverviewFound, store.read_overview(call.database, query.org_id))
    if query.org_id is not None and not found.organisations:
        raise NotFound
    return replies.shaped(Overview(organisations=[_shown(each) for each in found.organisations]))


def _shown(found: OrganisationFound) -> OrganisationOverview:
    return OrganisationOverview(
        **found.model_dump(exclude={"spent_24_hours", "spent_7_days"}),
        uptime_24_hours=UptimeShare(**share_of(found.spent_24_hours)._asdict()),
        uptime_7_days=UptimeShare(**share_of(found.spent_7_days)._asdict()),
    )

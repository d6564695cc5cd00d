"""How long a monitor's checks took, over time."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from server.errors import Fault, InvalidInput, NotFound
from server.features.series import store
from server.features.series.rules import lengths_for
from server.features.series.schemas import Series, SeriesQuery
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Series")

DEFAULT_WINDOW = timedelta(days=1)


@feature.route("GET", "/v1/monitors/<uuid:monitor_id>/series", query=SeriesQuery, answers=Series, refusals=(NotFound,))
def read_series(call: Call, monitor_id: UUID, query: SeriesQuery) -> Reply:
    """Chart how long a monitor's checks took: least, average and percentiles, in at most as many buckets as asked for.

    Up to a day is told from the results themselves, as long as they are kept, and more from hourly and daily rollups.
    A bucket in which nothing was seen is there, with nulls.
    """
    to_at = query.to_at or datetime.now(UTC)
    from_at = query.from_at or to_at - DEFAULT_WINDOW
    if from_at >= to_at:
        raise InvalidInput(faults=[Fault("from", "window_empty", "The window must begin before it ends.")])
    series = store.read_series(
        call.database, monitor_id, query.region, from_at, to_at, lengths_for(from_at, to_at, query.points)
    )
    if series is None:
        raise NotFound
    return replies.shaped(Series.model_validate(series, from_attributes=True))

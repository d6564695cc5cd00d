"""What was sent to whom: list, retry, and send a test."""

from uuid import UUID

from server.errors import Forbidden, NotFound
from server.features.deliveries import store
from server.features.deliveries.schemas import Delivery, DeliveryAndMore, DeliveryQuery
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Deliveries")


@feature.route("GET", "/v1/deliveries", query=DeliveryQuery, list_of=DeliveryAndMore)
def list_deliveries(call: Call, query: DeliveryQuery) -> Reply:
    """List deliveries, newest first unless `order` says otherwise, with how each went."""
    ids = {"org_id": query.org_id, "channel_id": query.channel_id, "incident_id": query.incident_id}
    rows = store.list_page(call.database, query, ids, query.state, query.type, query.include)
    return replies.page(DeliveryAndMore, rows, query, included=query.include)


@feature.route(
    "POST", "/v1/deliveries/<uuid:delivery_id>/retry", status=202, answers=Delivery, refusals=(NotFound, Forbidden)
)
def retry_delivery(call: Call, delivery_id: UUID) -> Reply:
    """Send a delivery once more, under the same id, whatever became of it before."""
    return replies.one(Delivery, store.retry(call.database, delivery_id), status=202)


@feature.route(
    "POST",
    "/v1/channels/<uuid:channel_id>/test",
    status=202,
    answers=Delivery,
    refusals=(NotFound, Forbidden),
    limit="costly",
)
def test_channel(call: Call, channel_id: UUID) -> Reply:
    """Send a test message to a channel. Answers with the delivery; the list shows how it went, a second later."""
    return replies.one(Delivery, store.test_channel(call.database, channel_id), status=202)

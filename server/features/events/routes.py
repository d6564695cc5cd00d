"""Events: what has happened since; and the way to the stream, which another process serves."""

from urllib.parse import urlencode

import orjson

from server.data.failures import read_answer
from server.errors import AppError, Gone, NotFound
from server.features.events import store
from server.features.events.schemas import EventPage, EventQuery, StreamQuery, position_of, wire_event
from server.http.replies import Reply
from server.http.routing import Call, Feature, Services, public

feature = Feature("Events")


@feature.route("GET", "/v1/events", query=EventQuery, answers=EventPage, refusals=(NotFound, Gone))
def list_events(call: Call, query: EventQuery) -> Reply:
    """Read what has happened after a position, in the order of the log.

    Nothing is ever skipped, however late its transaction commits.

    To keep a copy of what you see: ask without `after` first, which answers no events but the present position; then
    list what there is; then follow from that position, asking again with `after=next_after`. An event that tells what
    the list already showed changes nothing: `data` is the whole thing after the change, null once it is deleted.

    410 `events_gone`: what followed this position is no longer kept; 410 `position_unknown`: it lies ahead of all that
    has happened. In both cases start anew.
    """
    page = read_answer(store.read_page(call.database, query.position, query.limit, query.org_id))
    try:
        roles, next_after, has_more = page["roles"], position_of(page["position"]).encode(), page["has_more"]
        data = [wire_event(row, roles.get(row["org_id"])) for row in page["events"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AppError(reason=f"upstream_shape: EventPage {type(error).__name__} {error}") from None
    if query.org_id is not None and str(query.org_id) not in roles:
        raise NotFound
    return Reply(orjson.dumps({"data": data, "next_after": next_after, "has_more": has_more}))


@feature.route(
    "GET", "/v1/events/stream", status=307, query=StreamQuery, content_type="text/event-stream", is_elsewhere=True
)
@public
def follow_events(services: Services, query: StreamQuery) -> Reply:
    """Follow what happens, as Server-Sent Events or over a WebSocket.

    Served by a process of its own, at the address under `servers`; here is a redirect to it.

    Go to that address at once where you can: browsers take the Authorization header away from a redirect to another
    origin, and WebSockets follow none. The first event is `ready`; each event has its position as `id`, its type as
    `event`, and the same JSON as in `GET /v1/events` as `data`. To resume, send the last `id` as `Last-Event-ID` or as
    `after`: nothing is missed and nothing comes twice. A comment every 15 s shows that the stream is alive, and moves
    the position on. The stream ends with `token_expired`, `overflow` (you read too slowly) or `restart`: resume.

    Over a WebSocket each message is `{"id", "type", "data"}`. Send `{"access_token", "after"}` within 10 s, or the
    Authorization header; `{"access_token"}` again, of the same user, goes on past its end. It closes with 4401 (the
    token), 4403 (a key that may not read), 4404 (no such organisation), 4410 (the position is gone), 4408 (no first
    message), 4400 (a message that is none), 1012 (restart) or 1013 (too slow, too many, or the database is away).
    """
    given = query.model_dump(mode="json", exclude_none=True)
    target = services.settings.streams_url + "/v1/events/stream" + (f"?{urlencode(given)}" if given else "")
    return Reply(
        status=307, content_type="text/event-stream", headers={"Location": target, "Cache-Control": "no-store"}
    )

"""Heartbeats: a job that says how it does, in the ping protocol of Healthchecks, so that its clients need another host.

A ping is recorded and answered; what it means is judged a moment later by a worker. It is the fastest path of the API:
one call of the database, no model, no token.
"""

from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from server.data.api_keys import is_key
from server.data.clients import Database
from server.data.failures import read_rows
from server.errors import MalformedRequest, NotFound
from server.features.pings import rules, store
from server.features.pings.schemas import (
    MAX_BODY_BYTES,
    HeartbeatNow,
    PingParameters,
    PingRow,
    is_slug,
    is_uuid,
    read_metrics,
    read_parameters,
    read_signal,
)
from server.http import replies
from server.http.limits import client_address
from server.http.pagination import PageQuery
from server.http.parsing import MAX_BODY_BYTES as MOST_READ
from server.http.replies import Reply
from server.http.routing import Call, Feature, Services, public
from server.http.wsgi import TEXT, Answer

feature = Feature("Heartbeats")

# The protocol's own words (healthchecks.io/docs/http_api), and ours where it has none.
WORDS: Final = {
    200: "OK",
    201: "Created",
    400: "invalid url format",
    403: "quota exceeded",
    404: "not found",
    409: "ambiguous slug",
    429: "rate limited",
}
_HEADERS: Final = [
    ("Content-Type", TEXT),
    ("Ping-Body-Limit", str(MAX_BODY_BYTES)),
    ("Access-Control-Allow-Origin", "*"),
    ("Cache-Control", "no-store"),
]
_ANSWERS: Final = {status: Answer(words.encode(), status, _HEADERS) for status, words in WORDS.items()}
_LONGEST_USER_AGENT: Final = 200


@feature.route("GET", "/ping/<string:heartbeat>", says=WORDS, query=PingParameters, limit="pings")
@feature.route("POST", "/ping/<string:heartbeat>", says=WORDS, query=PingParameters, limit="pings")
@public
def ping(services: Services, environ: dict[str, Any], heartbeat: str) -> Answer:
    """Say that the job of a heartbeat succeeded. The URL names it by its `ping_id`, which whoever knows may ping."""
    if not is_uuid(heartbeat):
        raise MalformedRequest
    return _take(services, environ, heartbeat, None, "")


@feature.route("GET", "/ping/<string:heartbeat>/<string:signal>", says=WORDS, query=PingParameters, limit="pings")
@feature.route("POST", "/ping/<string:heartbeat>/<string:signal>", says=WORDS, query=PingParameters, limit="pings")
@public
def ping_signal(services: Services, environ: dict[str, Any], heartbeat: str, signal: str) -> Answer:
    """Say `start`, `fail`, `log` or an exit status from 0 to 255 of a heartbeat. Or `<key>/<slug>`: it succeeded.

    The key is an API key with the scope `pings:write`, the slug that of a heartbeat of its organisation.
    """
    if is_uuid(heartbeat):
        return _take(services, environ, heartbeat, None, signal)
    return _take(services, environ, heartbeat, signal, "")


@feature.route(
    "GET", "/ping/<string:ping_key>/<string:slug>/<string:signal>", says=WORDS, query=PingParameters, limit="pings"
)
@feature.route(
    "POST", "/ping/<string:ping_key>/<string:slug>/<string:signal>", says=WORDS, query=PingParameters, limit="pings"
)
@public
def ping_slug_signal(services: Services, environ: dict[str, Any], ping_key: str, slug: str, signal: str) -> Answer:
    """Say `start`, `fail`, `log` or an exit status of the heartbeat that a slug names in the key's organisation."""
    return _take(services, environ, ping_key, slug, signal)


@feature.route("GET", "/v1/monitors/<uuid:monitor_id>/heartbeat", answers=HeartbeatNow, refusals=(NotFound,))
def read_heartbeat(call: Call, monitor_id: UUID) -> Reply:
    """Say how a heartbeat does at this moment. What only the clock tells (late, started) is worked out as you ask."""
    heartbeat = store.read_heartbeat(call.database, monitor_id)
    if heartbeat is None:
        raise NotFound
    schedule, standing = heartbeat.schedule, heartbeat.judge(heartbeat.now).standing
    deadline = rules.deadline(schedule, standing)
    return replies.shaped(
        HeartbeatNow(
            status=rules.status(schedule, standing, heartbeat.paused, heartbeat.now),
            state=standing.state,
            last_ping_at=standing.last_ping_at,
            last_success_at=standing.last_success_at,
            last_duration_ms=standing.last_duration_ms,
            started_at=standing.started_at,
            next_expected_at=None if heartbeat.paused else rules.next_expected(schedule, standing),
            down_at=deadline.at if deadline and not heartbeat.paused else None,
            ping_count=heartbeat.n,
        )
    )


@feature.route("GET", "/v1/monitors/<uuid:monitor_id>/pings", query=PageQuery, list_of=PingRow, refusals=(NotFound,))
def list_pings(call: Call, monitor_id: UUID, query: PageQuery) -> Reply:
    """List a heartbeat's pings, newest first, with how long each run took."""
    rows = store.list_page(call.database, monitor_id, query)
    if rows == b"null":
        raise NotFound
    return replies.page(PingRow, rows, query, by="received_at")


@feature.route(
    "GET",
    "/v1/monitors/<uuid:monitor_id>/pings/<uuid:ping_id>/body",
    content_type=TEXT,
    refusals=(NotFound,),
    example="Backup of 3 databases: 120 rows\n",
)
def read_ping_body(call: Call, monitor_id: UUID, ping_id: UUID) -> Reply:
    """Answer with the text that a ping carried, such as the output of the job. 404 where it carried none."""
    (row,) = read_rows(store.read_body(call.database, monitor_id, ping_id))
    return Reply(row["body"].encode(), content_type=TEXT)


def _take(services: Services, environ: dict[str, Any], whose: str, slug: str | None, signal: str) -> Answer:
    """Take one ping of the heartbeat `whose`, or of that with the slug in the organisation of the key `whose`."""
    if slug is not None and not is_slug(slug):
        raise MalformedRequest
    try:
        kind, exit_status = read_signal(signal)
        said = read_parameters(environ["QUERY_STRING"])
    except ValueError:
        raise MalformedRequest from None
    if slug is not None and not is_key(whose):
        raise NotFound
    # A key stays out of memory that is shared, and out of logs.
    named = whose.lower() if slug is None else blake2b(f"{whose}/{slug}".encode(), digest_size=16).hexdigest()
    services.limits.admit(environ, "heartbeat", named)
    body = environ["wsgi.input"].read(MOST_READ)[:MAX_BODY_BYTES] if environ["REQUEST_METHOD"] == "POST" else b""
    arguments = {
        "ping_id": whose if slug is None else None,
        "slug": slug,
        "create_missing": said.create,
        "kind": kind,
        "exit_status": exit_status,
        "rid": said.rid,
        "method": environ["REQUEST_METHOD"],
        "remote_ip": client_address(environ, services.settings.trusted_proxies),
        "user_agent": environ.get("HTTP_USER_AGENT", "")[:_LONGEST_USER_AGENT] or None,
        # Postgres holds no NUL. What is no UTF-8 stands as U+FFFD, and no job hears of it.
        "body": body.decode("utf-8", "replace").replace("\0", "\ufffd") or None,
        "metrics": {**read_metrics(body), **said.metrics} or None,
    }
    return _ANSWERS[store.ping(_database(services, environ, whose, slug), arguments)]


def _database(services: Services, environ: dict[str, Any], whose: str, slug: str | None) -> Database:
    request_id = environ["tocsin.request_id"]
    if slug is None:
        return services.supabase.as_nobody(request_id)
    return services.supabase.as_key(whose, request_id)

"""Which routes there are, who may call them, how often each calls Supabase. A new route fails until it is decided."""

from collections.abc import Callable
from typing import Any

import pytest
import responses

from server.app import all_operations
from server.features.audit.routes import PAGE_ROWS
from server.features.checks.rules import Observation
from server.http.routing import Operation
from tests.http.conftest import EVENTS, MEMBERSHIPS, MONITOR_FOR_WRITING, ORG_ID, SUPABASE_URL, auth_says_yes
from tests.http.test_parsing import (
    API_KEY,
    CHANNEL,
    COMMENT,
    INCIDENT,
    INVITATION,
    JOINED,
    MEMBER,
    MEMBERSHIP_TO_CHANGE,
    ORGANISATION,
    WINDOW,
    path_of,
)

__all__ = ["ROUTES", "auth_says_yes"]

CLOSED, PUBLIC = "closed", "public"
MONITOR = MONITOR_FOR_WRITING
HISTORY = {
    "now": MONITOR["created_at"],
    "first_started_at": None,
    "last_observed_at": None,
    "last_interval_seconds": None,
    "ended_ms": {},
    "maintained_ms": {},
    "longest_down_ms": 0,
    "open": None,
}
INTERVAL = {
    "id": MONITOR["id"],
    "state": "down",
    "cause": "fail_threshold_reached",
    "started_at": MONITOR["created_at"],
    "ended_at": None,
    "observed_until": MONITOR["created_at"],
    "duration_ms": 0,
}
SLA: dict[str, Any] = {
    "org_id": MONITOR["org_id"],
    "monitors": [
        {"monitor_id": MONITOR["id"], "name": "x", "kind": "http", "incident_count": 1, "history": HISTORY},
    ],
}
OVERVIEW = {
    "organisations": [
        {
            "org_id": MONITOR["org_id"],
            "name": "Acme",
            "my_role": "owner",
            "monitors": {"total": 2, "paused": 1, "by_state": {"down": 1}},
            "in_trouble": [{name: MONITOR[name] for name in ("id", "name", "target", "state", "state_since")}],
            "open_incident_count": 1,
            "open_incidents": [{**INCIDENT, "version": 1}],
            "failed_deliveries": [],
            "spent_24_hours": {"up": 999_999, "down": 1},
            "spent_7_days": {},
        }
    ]
}
DELIVERY = {
    **dict.fromkeys(("incident_id", "next_attempt_at", "last_status_code", "last_error", "delivered_at")),
    "id": MONITOR["id"],
    "org_id": MONITOR["org_id"],
    "channel_id": MONITOR["id"],
    "type": "channel.test",
    "state": "pending",
    "attempts": 0,
    "created_at": MONITOR["created_at"],
}
USAGE = {
    "org_id": MONITOR["org_id"],
    "plan": "free",
    "quotas": [{"name": "monitors", "limit": 20, "used": 21}, {"name": "members", "limit": None, "used": 1}],
    "shortest_interval_seconds": 60,
    "retention_days": 7,
}
AUDITED = {
    **dict.fromkeys(("before", "session_id")),
    "seq": 7,
    "org_id": MONITOR["org_id"],
    "occurred_at": MONITOR["created_at"],
    "actor_kind": "user",
    "actor_id": MONITOR["id"],
    "actor_email": "ada@example.com",
    "type": "channel.created",
    "subject_kind": "channel",
    "subject_id": MONITOR["id"],
    "after": {"url": "https://hooks.example.com/T0/secret", "created_at": MONITOR["created_at"], "version": 1},
}
# A full page of the export, and what follows it.
AUDIT_PAGES = [{"settled_below": "9", "entries": [AUDITED] * PAGE_ROWS}, {"settled_below": "9", "entries": []}]

HEARTBEAT = {
    **dict.fromkeys(("last_ping_at", "last_success_at", "last_duration_ms", "started_at", "started_rid")),
    "monitor_id": MONITOR["id"],
    "options": {"period_seconds": 3600},
    "paused": False,
    "state": "new",
    "state_since": MONITOR["created_at"],
    "n": 0,
    "judged_n": 0,
    "leapt_seconds": 0,
    "schedule_since": MONITOR["created_at"],
    "pings": [],
    "now": MONITOR["created_at"],
}
PING = {
    **dict.fromkeys(("exit_status", "rid", "duration_ms", "remote_ip", "user_agent", "metrics")),
    "id": MONITOR["id"],
    "n": 1,
    "received_at": MONITOR["created_at"],
    "kind": "success",
    "method": "GET",
    "body_bytes": 0,
}

# (method, path): who may call it, how often it asks Supabase Auth, a body that it takes, and what the database answers,
# one for each call of it, in turn.
ROUTES: dict[tuple[str, str], tuple[str, int, Any, list[Any]]] = {
    ("GET", "/healthz"): (PUBLIC, 0, None, []),
    ("GET", "/readyz"): (PUBLIC, 1, None, [[]]),
    ("GET", "/metrics"): (PUBLIC, 0, None, []),
    ("GET", "/openapi.json"): (PUBLIC, 0, None, []),
    ("GET", "/docs"): (PUBLIC, 0, None, []),
    ("GET", "/docs/<string:asset>"): (PUBLIC, 0, None, []),
    ("GET", "/v1/me"): (CLOSED, 0, None, [[]]),
    ("POST", "/v1/orgs"): (CLOSED, 0, {"name": "Acme"}, [ORGANISATION]),
    ("GET", "/v1/orgs"): (CLOSED, 0, None, [[ORGANISATION]]),
    ("GET", "/v1/orgs/<uuid:org_id>"): (CLOSED, 0, None, [[ORGANISATION]]),
    ("PATCH", "/v1/orgs/<uuid:org_id>"): (CLOSED, 0, {"name": "New"}, [[ORGANISATION], ORGANISATION]),
    ("DELETE", "/v1/orgs/<uuid:org_id>"): (CLOSED, 1, None, [b""]),
    ("POST", "/v1/orgs/<uuid:org_id>/transfer"): (CLOSED, 1, {"user_id": MONITOR["id"]}, [ORGANISATION]),
    ("POST", "/v1/orgs/<uuid:org_id>/leave"): (CLOSED, 0, None, [MEMBER]),
    ("GET", "/v1/orgs/<uuid:org_id>/members"): (CLOSED, 0, None, [[MEMBER]]),
    ("GET", "/v1/orgs/<uuid:org_id>/members/<uuid:user_id>"): (CLOSED, 0, None, [MEMBER]),
    ("PATCH", "/v1/orgs/<uuid:org_id>/members/<uuid:user_id>"): (
        CLOSED,
        0,
        {"role": "editor"},
        [[MEMBERSHIP_TO_CHANGE], MEMBER],
    ),
    ("DELETE", "/v1/orgs/<uuid:org_id>/members/<uuid:user_id>"): (CLOSED, 0, None, [[MEMBERSHIP_TO_CHANGE], MEMBER]),
    ("POST", "/v1/orgs/<uuid:org_id>/invitations"): (
        CLOSED,
        0,
        {"email": "grace@example.com", "role": "editor"},
        [INVITATION],
    ),
    ("GET", "/v1/orgs/<uuid:org_id>/invitations"): (CLOSED, 0, None, [[INVITATION]]),
    ("POST", "/v1/orgs/<uuid:org_id>/invitations/<uuid:invitation_id>/resend"): (CLOSED, 0, None, [INVITATION]),
    ("DELETE", "/v1/orgs/<uuid:org_id>/invitations/<uuid:invitation_id>"): (CLOSED, 0, None, [INVITATION]),
    ("POST", "/v1/invitations/accept"): (CLOSED, 0, {"token": "x"}, [JOINED]),
    ("POST", "/v1/monitors"): (
        CLOSED,
        0,
        {"name": "x", "target": "https://example.com/"},
        [MEMBERSHIPS, [MONITOR]],
    ),
    ("POST", "/v1/monitors:batch"): (
        CLOSED,
        0,
        {"monitors": [{"name": "x", "target": "https://example.com/"}]},
        [MEMBERSHIPS, [{"index": 0, "monitor": MONITOR}]],
    ),
    ("GET", "/v1/monitors"): (CLOSED, 0, None, [[MONITOR]]),
    ("GET", "/v1/monitors/<uuid:monitor_id>"): (CLOSED, 0, None, [[MONITOR]]),
    ("PATCH", "/v1/monitors/<uuid:monitor_id>"): (CLOSED, 0, {"name": "New"}, [[MONITOR], [MONITOR]]),
    ("DELETE", "/v1/monitors/<uuid:monitor_id>"): (CLOSED, 0, None, [[MONITOR], [MONITOR]]),
    ("POST", "/v1/monitors/<uuid:monitor_id>/pause"): (CLOSED, 0, None, [[MONITOR], [MONITOR]]),
    ("POST", "/v1/monitors/<uuid:monitor_id>/resume"): (CLOSED, 0, None, [[MONITOR], [MONITOR]]),
    ("POST", "/v1/monitors/preview"): (CLOSED, 0, {"target": "https://example.com/"}, []),
    ("GET", "/v1/monitors/<uuid:monitor_id>/checks"): (CLOSED, 0, None, [[]]),
    ("GET", "/v1/monitors/<uuid:monitor_id>/uptime"): (CLOSED, 0, None, [HISTORY]),
    ("GET", "/v1/monitors/<uuid:monitor_id>/intervals"): (CLOSED, 0, None, [[INTERVAL]]),
    ("GET", "/v1/monitors/<uuid:monitor_id>/series"): (CLOSED, 0, None, [{"source": "raw", "buckets": []}]),
    ("GET", "/v1/reports/sla"): (CLOSED, 0, None, [SLA]),
    ("GET", "/v1/monitors/<uuid:monitor_id>/heartbeat"): (CLOSED, 0, None, [HEARTBEAT]),
    ("GET", "/v1/monitors/<uuid:monitor_id>/pings"): (CLOSED, 0, None, [[PING]]),
    ("GET", "/v1/monitors/<uuid:monitor_id>/pings/<uuid:ping_id>/body"): (CLOSED, 0, None, [[{"body": "done"}]]),
    # Whoever knows a heartbeat's id, or holds a key, may ping: the database's function looks at either.
    **{
        (method, path): (PUBLIC, 0, None, [200])
        for method in ("GET", "POST")
        for path in (
            "/ping/<string:heartbeat>",
            "/ping/<string:heartbeat>/<string:signal>",
            "/ping/<string:ping_key>/<string:slug>/<string:signal>",
        )
    },
    ("GET", "/v1/overview"): (CLOSED, 0, None, [OVERVIEW]),
    ("GET", "/v1/incidents"): (CLOSED, 0, None, [[INCIDENT]]),
    ("GET", "/v1/incidents/<uuid:incident_id>"): (CLOSED, 0, None, [[{**INCIDENT, "comments": [COMMENT]}]]),
    ("POST", "/v1/incidents/<uuid:incident_id>/acknowledge"): (CLOSED, 0, None, [[INCIDENT], [INCIDENT]]),
    ("POST", "/v1/incidents/<uuid:incident_id>/resolve"): (CLOSED, 0, None, [[INCIDENT], [INCIDENT]]),
    ("POST", "/v1/incidents/<uuid:incident_id>/comments"): (CLOSED, 0, {"body": "x"}, [[INCIDENT], [COMMENT]]),
    ("POST", "/v1/maintenance-windows"): (
        CLOSED,
        0,
        {
            "name": "x",
            "all_monitors": True,
            "starts_at": "2100-01-01T00:00:00Z",
            "ends_at": "2100-01-01T01:00:00Z",
        },
        [MEMBERSHIPS, WINDOW],
    ),
    ("GET", "/v1/maintenance-windows"): (CLOSED, 0, None, [[WINDOW]]),
    ("GET", "/v1/maintenance-windows/<uuid:window_id>"): (CLOSED, 0, None, [[WINDOW]]),
    ("PATCH", "/v1/maintenance-windows/<uuid:window_id>"): (CLOSED, 0, {"name": "New"}, [[WINDOW], WINDOW]),
    ("DELETE", "/v1/maintenance-windows/<uuid:window_id>"): (CLOSED, 0, None, [[WINDOW], [WINDOW]]),
    ("POST", "/v1/maintenance-windows/<uuid:window_id>/end"): (CLOSED, 0, None, [WINDOW]),
    ("POST", "/v1/channels"): (CLOSED, 0, {"name": "x", "url": "https://example.com/"}, [MEMBERSHIPS, CHANNEL]),
    ("GET", "/v1/channels"): (CLOSED, 0, None, [[CHANNEL]]),
    ("DELETE", "/v1/channels/<uuid:channel_id>"): (CLOSED, 0, None, [[CHANNEL], [CHANNEL]]),
    ("POST", "/v1/channels/<uuid:channel_id>/test"): (CLOSED, 0, None, [DELIVERY]),
    ("GET", "/v1/deliveries"): (CLOSED, 0, None, [[DELIVERY]]),
    ("POST", "/v1/deliveries/<uuid:delivery_id>/retry"): (CLOSED, 0, None, [DELIVERY]),
    ("POST", "/v1/api-keys"): (CLOSED, 1, {"name": "CI", "scopes": ["read"]}, [MEMBERSHIPS, API_KEY]),
    ("GET", "/v1/api-keys"): (CLOSED, 0, None, [[API_KEY]]),
    ("GET", "/v1/api-keys/<uuid:key_id>"): (CLOSED, 0, None, [[API_KEY]]),
    ("POST", "/v1/api-keys/<uuid:key_id>/rotate"): (CLOSED, 1, {}, [API_KEY]),
    ("DELETE", "/v1/api-keys/<uuid:key_id>"): (CLOSED, 0, None, [API_KEY]),
    ("GET", "/v1/usage"): (CLOSED, 0, None, [[USAGE]]),
    ("GET", "/v1/audit"): (CLOSED, 0, None, [{"settled_below": "9", "entries": [AUDITED]}]),
    ("GET", "/v1/audit/export"): (CLOSED, 0, None, AUDIT_PAGES),
    ("GET", "/v1/events"): (CLOSED, 0, None, [EVENTS]),
    # Who follows is asked at the stream process, to which this only points.
    ("GET", "/v1/events/stream"): (PUBLIC, 0, None, []),
}
# The one read that costs more than one call: it is as long as the trail, and no memory holds all of it at once.
PAGE_AFTER_PAGE = ("GET", "/v1/audit/export")
OPERATIONS = list(all_operations())


def test_every_route_of_the_app_is_decided_here(app):
    served = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in (rule.methods or set()) - {"HEAD"}}
    assert served == set(ROUTES)
    assert {(operation.method, operation.path) for operation in OPERATIONS} == set(ROUTES)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_route_is_closed_unless_it_says_public(operation: Operation, client, upstream):
    who = ROUTES[operation.method, operation.path][0]
    assert operation.is_public == (who == PUBLIC)
    status = client.open(path_of(operation), method=operation.method).status_code
    assert (status == 401) == (who == CLOSED)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_route_calls_the_database_as_often_as_it_is_listed(
    operation: Operation, client, upstream, signed_in: dict[str, str], auth_says_yes: Callable[[], int], monkeypatch
):
    # A preview's own check leaves the machine, and is no call of Supabase.
    monkeypatch.setattr("server.features.monitors.routes.check_once", lambda check, egress, now: Observation(now))
    _, auth_calls, body, answers = ROUTES[operation.method, operation.path]
    for answer in answers:
        upstream.answer(answer)
    path = path_of(operation).replace("<string:asset>", "start.js")
    for name, given in {
        "heartbeat": MONITOR["id"],
        "ping_key": f"tocsin_AbCdEfGh_{43 * 'x'}",
        "slug": "backup",
        "signal": "start",
    }.items():
        path = path.replace(f"<string:{name}>", str(given))
    headers = {} if operation.is_public else signed_in
    sent = {} if body is None else {"json": body}
    reply = client.open(path, method=operation.method, headers=headers, **sent)
    assert reply.status_code == operation.status, reply.text
    assert reply.get_data() or not reply.content_length, "a body is sent whole"
    assert len(upstream.requests) == len(answers)
    assert auth_says_yes() == auth_calls


def test_a_read_costs_one_call_and_a_write_at_most_two():
    calls = {route: len(answers) for route, (_, _, _, answers) in ROUTES.items()}
    closed = {route for route, (who, _, _, _) in ROUTES.items() if who == CLOSED}
    assert {calls[route] for route in closed - {PAGE_AFTER_PAGE} if route[0] == "GET"} == {1}
    assert {calls[route] for route in closed if route[0] != "GET"} == {0, 1, 2}
    assert [route for route in closed if not calls[route]] == [("POST", "/v1/monitors/preview")]
    asking = {route for route in calls if route not in closed and calls[route] and not route[1].startswith("/ping/")}
    assert asking == {("GET", "/readyz")}


def test_no_post_takes_a_query_for_an_idempotency_key_knows_of_none():
    ours = [operation for operation in OPERATIONS if not operation.says]
    assert [operation.name for operation in ours if operation.method == "POST" and operation.query] == []


@pytest.mark.parametrize(("method", "what", "body"), [("DELETE", "", None), ("POST", "/transfer", {"user_id": ORG_ID})])
def test_what_cannot_be_undone_asks_auth_first(client, upstream, signed_in, method, what, body):
    with responses.RequestsMock() as auth:
        auth.get(f"{SUPABASE_URL}/auth/v1/user", status=403)
        answer = client.open(f"/v1/orgs/{ORG_ID}{what}", method=method, headers=signed_in, json=body)
    assert answer.status_code == 401
    assert upstream.requests == [], "nothing is done for a session that has ended"

"""Which routes there are, who may call them, how often each calls Supabase. A new route fails until it is decided."""

from collections.abc import Callable
from typing import Any

import pytest
import responses

from server.app import all_operations
from server.features.monitors.rules import Observation
from server.http.routing import Operation
from tests.http.conftest import EVENTS, MEMBERSHIPS, MONITOR_FOR_WRITING, SUPABASE_URL, auth_says_yes
from tests.http.test_parsing import CHANNEL, COMMENT, INCIDENT, ORGANISATION, path_of

__all__ = ["ROUTES", "auth_says_yes"]

CLOSED, PUBLIC = "closed", "public"
MONITOR = MONITOR_FOR_WRITING
HISTORY = {
    "now": MONITOR["created_at"],
    "first_started_at": None,
    "last_observed_at": None,
    "last_interval_seconds": None,
    "ended_ms": {},
    "open": None,
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

# (method, path): who may call it, how often it asks Supabase Auth, a body that it takes, and what the database answers,
# one for each call of it, in turn.
ROUTES: dict[tuple[str, str], tuple[str, int, Any, list[Any]]] = {
    ("GET", "/healthz"): (PUBLIC, 0, None, []),
    ("GET", "/readyz"): (PUBLIC, 1, None, [{"code": "42501", "message": "permission denied"}]),
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
    ("POST", "/v1/monitors"): (
        CLOSED,
        0,
        {"name": "x", "target": "https://example.com/"},
        [MEMBERSHIPS, [MONITOR]],
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
    ("GET", "/v1/incidents"): (CLOSED, 0, None, [[INCIDENT]]),
    ("GET", "/v1/incidents/<uuid:incident_id>"): (CLOSED, 0, None, [[{**INCIDENT, "comments": [COMMENT]}]]),
    ("POST", "/v1/incidents/<uuid:incident_id>/acknowledge"): (CLOSED, 0, None, [[INCIDENT], [INCIDENT]]),
    ("POST", "/v1/incidents/<uuid:incident_id>/resolve"): (CLOSED, 0, None, [[INCIDENT], [INCIDENT]]),
    ("POST", "/v1/incidents/<uuid:incident_id>/comments"): (CLOSED, 0, {"body": "x"}, [[INCIDENT], [COMMENT]]),
    ("POST", "/v1/channels"): (CLOSED, 0, {"name": "x", "url": "https://example.com/"}, [MEMBERSHIPS, CHANNEL]),
    ("GET", "/v1/channels"): (CLOSED, 0, None, [[CHANNEL]]),
    ("DELETE", "/v1/channels/<uuid:channel_id>"): (CLOSED, 0, None, [[CHANNEL], [CHANNEL]]),
    ("POST", "/v1/channels/<uuid:channel_id>/test"): (CLOSED, 0, None, [DELIVERY]),
    ("GET", "/v1/deliveries"): (CLOSED, 0, None, [[DELIVERY]]),
    ("POST", "/v1/deliveries/<uuid:delivery_id>/retry"): (CLOSED, 0, None, [DELIVERY]),
    ("GET", "/v1/events"): (CLOSED, 0, None, [EVENTS]),
    # Who follows is asked at the stream process, to which this only points.
    ("GET", "/v1/events/stream"): (PUBLIC, 0, None, []),
}
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
        upstream.answer(answer, 403 if operation.path == "/readyz" else 200)
    path = path_of(operation).replace("<string:asset>", "start.js")
    headers = {} if operation.is_public else signed_in
    reply = client.open(path, method=operation.method, headers=headers, **({"json": body} if body else {}))
    assert reply.status_code == operation.status, reply.text
    assert len(upstream.requests) == len(answers)
    assert auth_says_yes() == auth_calls


def test_a_read_costs_one_call_and_a_write_at_most_two():
    calls = {route: len(answers) for route, (_, _, _, answers) in ROUTES.items()}
    closed = {route for route, (who, _, _, _) in ROUTES.items() if who == CLOSED}
    assert {calls[route] for route in closed if route[0] == "GET"} == {1}
    assert {calls[route] for route in closed if route[0] != "GET"} == {0, 1, 2}
    assert [route for route in closed if not calls[route]] == [("POST", "/v1/monitors/preview")]
    assert [route for route in calls if route not in closed and calls[route]] == [("GET", "/readyz")]


def test_deleting_an_organisation_asks_auth_first(client, upstream, signed_in):
    with responses.RequestsMock() as auth:
        auth.get(f"{SUPABASE_URL}/auth/v1/user", status=403)
        answer = client.delete(f"/v1/orgs/{MONITOR['org_id']}", headers=signed_in)
    assert answer.status_code == 401
    assert upstream.requests == [], "nothing is deleted for a session that has ended"

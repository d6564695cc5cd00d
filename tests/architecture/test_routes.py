"""Which routes there are, who may call them, how often each calls Supabase. A new route fails until it is decided."""

from collections.abc import Callable
from typing import Any

import pytest
import responses

from server.app import all_operations
from server.http.routing import Operation
from tests.http.conftest import MEMBERSHIPS, MONITOR_FOR_WRITING, SUPABASE_URL
from tests.http.test_parsing import CHANNEL, COMMENT, INCIDENT, ORGANISATION, path_of

CLOSED, PUBLIC = "closed", "public"
READ, WRITE = 1, 2  # the most calls of Supabase that a read and a write may cost
MONITOR = MONITOR_FOR_WRITING
HISTORY = {
    "now": MONITOR["created_at"],
    "first_started_at": None,
    "last_observed_at": None,
    "interval_seconds": 60,
    "retry_interval_seconds": 15,
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

# (method, path): who may call it, the most upstream calls, a body that it takes, and what Supabase answers in turn.
ROUTES: dict[tuple[str, str], tuple[str, int, Any, list[Any]]] = {
    ("GET", "/healthz"): (PUBLIC, 0, None, []),
    ("GET", "/readyz"): (PUBLIC, READ, None, [{"code": "42501", "message": "permission denied"}]),
    ("GET", "/metrics"): (PUBLIC, 0, None, []),
    ("GET", "/openapi.json"): (PUBLIC, 0, None, []),
    ("GET", "/docs"): (PUBLIC, 0, None, []),
    ("GET", "/docs/<string:asset>"): (PUBLIC, 0, None, []),
    ("GET", "/v1/me"): (CLOSED, READ, None, [[]]),
    ("POST", "/v1/orgs"): (CLOSED, WRITE, {"name": "Acme"}, [ORGANISATION]),
    ("GET", "/v1/orgs"): (CLOSED, READ, None, [[ORGANISATION]]),
    ("GET", "/v1/orgs/<uuid:org_id>"): (CLOSED, READ, None, [[ORGANISATION]]),
    ("PATCH", "/v1/orgs/<uuid:org_id>"): (CLOSED, WRITE, {"name": "New"}, [[ORGANISATION], ORGANISATION]),
    ("DELETE", "/v1/orgs/<uuid:org_id>"): (CLOSED, WRITE - 1, None, [b""]),  # the other call is Supabase Auth's
    ("POST", "/v1/monitors"): (
        CLOSED,
        WRITE,
        {"name": "x", "target": "https://example.com/"},
        [MEMBERSHIPS, [MONITOR]],
    ),
    ("GET", "/v1/monitors"): (CLOSED, READ, None, [[MONITOR]]),
    ("GET", "/v1/monitors/<uuid:monitor_id>"): (CLOSED, READ, None, [[MONITOR]]),
    ("PATCH", "/v1/monitors/<uuid:monitor_id>"): (CLOSED, WRITE, {"name": "New"}, [[MONITOR], [MONITOR]]),
    ("DELETE", "/v1/monitors/<uuid:monitor_id>"): (CLOSED, WRITE, None, [[MONITOR], [MONITOR]]),
    ("POST", "/v1/monitors/<uuid:monitor_id>/pause"): (CLOSED, WRITE, None, [[MONITOR], [MONITOR]]),
    ("POST", "/v1/monitors/<uuid:monitor_id>/resume"): (CLOSED, WRITE, None, [[MONITOR], [MONITOR]]),
    ("POST", "/v1/monitors/preview"): (CLOSED, 0, {"target": "http://name.invalid/", "timeout_seconds": 1}, []),
    ("GET", "/v1/monitors/<uuid:monitor_id>/checks"): (CLOSED, READ, None, [[]]),
    ("GET", "/v1/monitors/<uuid:monitor_id>/uptime"): (CLOSED, READ, None, [HISTORY]),
    ("GET", "/v1/incidents"): (CLOSED, READ, None, [[INCIDENT]]),
    ("GET", "/v1/incidents/<uuid:incident_id>"): (CLOSED, READ, None, [[{**INCIDENT, "comments": [COMMENT]}]]),
    ("POST", "/v1/incidents/<uuid:incident_id>/acknowledge"): (CLOSED, WRITE, None, [[INCIDENT], [INCIDENT]]),
    ("POST", "/v1/incidents/<uuid:incident_id>/resolve"): (CLOSED, WRITE, None, [[INCIDENT], [INCIDENT]]),
    ("POST", "/v1/incidents/<uuid:incident_id>/comments"): (CLOSED, WRITE, {"body": "x"}, [[INCIDENT], [COMMENT]]),
    ("POST", "/v1/channels"): (CLOSED, WRITE, {"name": "x", "url": "https://example.com/"}, [MEMBERSHIPS, CHANNEL]),
    ("GET", "/v1/channels"): (CLOSED, READ, None, [[CHANNEL]]),
    ("DELETE", "/v1/channels/<uuid:channel_id>"): (CLOSED, WRITE, None, [[CHANNEL], [CHANNEL]]),
    ("POST", "/v1/channels/<uuid:channel_id>/test"): (CLOSED, WRITE, None, [DELIVERY]),
    ("GET", "/v1/deliveries"): (CLOSED, READ, None, [[DELIVERY]]),
    ("POST", "/v1/deliveries/<uuid:delivery_id>/retry"): (CLOSED, WRITE, None, [DELIVERY]),
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
def test_a_read_costs_one_call_of_supabase_and_a_write_at_most_two(
    operation: Operation, client, upstream, signed_in: dict[str, str], auth_says_yes: Callable[[], int]
):
    _, most_calls, body, answers = ROUTES[operation.method, operation.path]
    for answer in answers:
        upstream.answer(answer, 403 if operation.path == "/readyz" else 200)
    path = path_of(operation).replace("<string:asset>", "start.js")
    headers = {} if operation.is_public else signed_in
    reply = client.open(path, method=operation.method, headers=headers, **({"json": body} if body else {}))
    assert reply.status_code == operation.status, reply.text
    if operation.method == "GET":
        assert len(upstream.requests) == most_calls
    else:
        assert len(upstream.requests) <= most_calls


def test_deleting_an_organisation_asks_auth_first(client, upstream, signed_in, auth_says_yes):
    with_auth_away = responses.RequestsMock()
    with with_auth_away:
        with_auth_away.get(f"{SUPABASE_URL}/auth/v1/user", status=403)
        answer = client.delete(f"/v1/orgs/{MONITOR['org_id']}", headers=signed_in)
    assert answer.status_code == 401
    assert upstream.requests == [], "nothing is deleted for a session that has ended"


@pytest.fixture
def auth_says_yes():
    with responses.RequestsMock(assert_all_requests_are_fired=False) as auth:
        auth.get(f"{SUPABASE_URL}/auth/v1/user", json={})
        auth.get(f"{SUPABASE_URL}/auth/v1/health", json={})
        yield lambda: len(auth.calls)

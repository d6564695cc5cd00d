"""Every refusal has one shape, says nothing it should not, and names the request."""

import json
import logging
from typing import Any

import pytest

from server.app import all_operations
from server.data.transport import UpstreamAnswer
from server.errors import TimedOut, Unavailable
from tests.http.conftest import MONITOR, MONITOR_FOR_WRITING
from tests.http.minting import SECRET, mint_hs256, user_claims
from tests.http.test_parsing import path_of

PROBLEM = "application/problem+json"
CLOSED = [operation for operation in all_operations() if not operation.is_public]


def is_problem(answer, status: int, code: str) -> None:
    assert (answer.status_code, answer.content_type) == (status, PROBLEM)
    assert answer.json["status"] == status
    assert answer.json["code"] == code
    assert answer.json["type"] == f"urn:tocsin:problem:{code}"
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("operation", CLOSED, ids=lambda operation: operation.name)
def test_every_closed_route_answers_401_alike_whatever_is_wrong_with_the_token(operation, client, upstream, token):
    wrong = {
        "none": {},
        "no bearer": {"Authorization": "Basic YTpi"},
        "garbage": {"Authorization": "Bearer a.b.c"},
        "expired": {"Authorization": f"Bearer {token(exp=1, iat=0)}"},
        "of a service": {"Authorization": f"Bearer {token(role='service_role')}"},
        "of nobody": {"Authorization": f"Bearer {token(role='anon')}"},
        "of another secret": {"Authorization": f"Bearer {mint_hs256(user_claims(), SECRET[::-1])}"},
    }
    bodies = []
    for headers in wrong.values():
        answer = client.open(path_of(operation), method=operation.method, headers=headers)
        is_problem(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="tocsin"')
        assert ('error="invalid_token"' in answer.headers["WWW-Authenticate"]) == bool(headers)
        bodies.append({name: value for name, value in answer.json.items() if name != "request_id"})
    assert all(body == bodies[0] for body in bodies)
    assert upstream.requests == []


def test_a_token_in_the_query_string_is_none(client, token):
    is_problem(client.get(f"/v1/me?access_token={token()}"), 400, "credentials_in_query")


def test_two_authorization_headers_are_none(client, token):
    twice = f"Bearer {token()}, Bearer {token()}"
    assert client.get("/v1/me", headers={"Authorization": twice}).status_code == 401


def test_an_anonymous_user_founds_and_previews_nothing(client, upstream, token):
    headers = {"Authorization": f"Bearer {token(is_anonymous=True)}"}
    founding = client.post("/v1/orgs", json={"name": "x"}, headers=headers)
    is_problem(founding, 403, "anonymous_users_create_nothing")
    preview = client.post("/v1/monitors/preview", json={"target": "https://example.com/"}, headers=headers)
    is_problem(preview, 403, "forbidden")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/monitors/", 404, "not_found"),
        ("GET", "/v1//monitors", 404, "not_found"),
        ("GET", "/v1/monitors/not-a-uuid", 404, "not_found"),
        ("PUT", "/v1/monitors", 405, "method_not_allowed"),
        ("TRACE", "/v1/monitors", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/monitors", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_and_what_is_not_offered(client, method, path, status, code):
    answer = client.open(path, method=method)
    is_problem(answer, status, code)
    if status == 405:
        assert {"GET"} <= set(answer.headers["Allow"].split(", "))


def test_a_client_that_accepts_no_json_gets_406(client, signed_in):
    for accept in ("text/html", "image/*", "application/json;q=0"):
        is_problem(client.get("/v1/monitors", headers={**signed_in, "Accept": accept}), 406, "not_acceptable")
    for accepted in ("application/json", "*/*", "application/*", "text/html, application/json;q=0.5", None):
        accepting = {"Accept": accepted} if accepted else {}
        assert client.get("/v1/monitors", headers={**signed_in, **accepting}).status_code == 200, accepted


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>Bad gateway</html>", 502),
        (b"<html>Welcome</html>", 200),
        (b'[{"id": "a74', 200),
        (b"", 200),
        (b"", 500),
        (b"null", 503),
    ],
)
def test_an_upstream_that_talks_no_postgrest_is_503_and_the_next_request_works(
    client, signed_in, upstream, body, status
):
    upstream.answer(body, status)
    answer = client.get("/v1/monitors", headers=signed_in)
    is_problem(answer, 503, "unavailable")
    assert answer.headers["Retry-After"] == "1"
    upstream.answer([MONITOR])
    assert client.get("/v1/monitors", headers=signed_in).status_code == 200


@pytest.mark.parametrize(
    "error", [Unavailable(reason="ConnectError", retry_after_seconds=1), TimedOut(retry_after_seconds=1)]
)
def test_an_upstream_that_does_not_answer_is_503_or_504(client, signed_in, upstream, error):
    upstream.fail(error)
    answer = client.get("/v1/monitors", headers=signed_in)
    is_problem(answer, error.status, error.code)
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    "row", [{}, {**MONITOR, "created_at": 7}, {**MONITOR, "created_at": "yesterday"}, "text", None]
)
def test_rows_of_another_shape_are_our_failure_and_logged(client, signed_in, upstream, row, caplog):
    upstream.answer([row])
    with caplog.at_level(logging.ERROR):
        is_problem(client.get("/v1/monitors", headers=signed_in), 500, "internal_error")
    assert "upstream_shape" in caplog.text


def test_what_the_database_says_reaches_the_log_and_not_the_caller(client, signed_in, upstream, caplog):
    secret = {"code": "XX000", "message": "relation pg_secret is broken", "details": "at /var/lib/postgres"}
    upstream.answer(secret, 500)
    with caplog.at_level(logging.INFO):
        answer = client.get("/v1/monitors", headers=signed_in)
    is_problem(answer, 500, "internal_error")
    assert "pg_secret" not in answer.text
    assert "pg_secret" in caplog.text


def test_a_bug_is_a_bare_500_with_its_trace_in_the_log(client, signed_in, upstream, caplog):
    upstream.fail(ZeroDivisionError("a bug of ours"))
    with caplog.at_level(logging.ERROR):
        answer = client.get("/v1/monitors", headers=signed_in)
    is_problem(answer, 500, "internal_error")
    assert "a bug of ours" not in answer.text
    assert "a bug of ours" in caplog.text


def test_a_viewer_may_read_and_gets_403_for_changing(client, signed_in, upstream):
    viewed = {**MONITOR_FOR_WRITING, "my_role": "viewer"}
    for method, path in [("PATCH", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")]:
        upstream.answer([viewed])
        body = {"json": {"name": "x"}} if method == "PATCH" else {}
        answer = client.open(f"/v1/monitors/{MONITOR['id']}{path}", method=method, headers=signed_in, **body)
        is_problem(answer, 403, "forbidden")


def test_an_organisation_must_be_named_where_there_are_several_and_be_ones_own(client, signed_in, upstream):
    def create(memberships: list[dict[str, Any]], **more: Any) -> dict[str, str]:
        upstream.answer(memberships)
        body = {"name": "x", "target": "https://example.com/", **more}
        answer = client.post("/v1/monitors", json=body, headers=signed_in)
        assert answer.status_code == 422
        fault: dict[str, str] = json.loads(answer.data)["errors"][0]
        return fault

    mine, other = MONITOR["org_id"], MONITOR["id"]
    assert create([])["code"] == "org_required"
    assert create([{"org_id": mine, "role": "owner"}, {"org_id": other, "role": "editor"}])["code"] == "org_required"
    assert create([{"org_id": mine, "role": "owner"}], org_id=other)["code"] == "org_not_found"
    assert create([{"org_id": mine, "role": "owner"}], org_id=other)["pointer"] == "/org_id"


def test_the_fake_stands_for_the_real_answer():
    assert UpstreamAnswer._fields == ("status", "content")

"""What each answer of PostgREST becomes, row by row, and that no route takes nonsense for success."""

import logging
from typing import Any

import orjson
import pytest

from server.app import all_operations
from server.data.failures import read_problem, refusal
from server.http.routing import Operation
from tests.architecture.test_routes import ROUTES
from tests.http.conftest import MONITOR
from tests.http.test_errors import is_problem
from tests.http.test_parsing import path_of

HTML = b"<html><body>502 Bad Gateway</body></html>"
CUT_OFF = b'[{"id":"a7470079-8fd5-'


@pytest.mark.parametrize(
    ("status", "code", "ours"),
    [
        *((503, code, 503) for code in ("PGRST000", "PGRST001", "PGRST002", "PGRST003")),
        *(
            (503, code, 503)
            for code in ("08000", "08001", "08006", "53000", "53200", "53300", "57P01", "57P02", "57P03")
        ),
        *((401, code, 401) for code in ("PGRST300", "PGRST301", "PGRST302", "PGRST303")),
        (406, "PGRST116", 404),
        (409, "23505", 409),
        (409, "23503", 409),
        *((400, code, 422) for code in ("23514", "23502", "22P02", "22P05", "22001", "22003", "22007", "22008")),
        (403, "42501", 403),
        (500, "40001", 409),
        (500, "40P01", 409),
        (500, "57014", 504),
        (409, "PT409", 409),
        (404, "PT404", 404),
        (403, "PT403", 403),
        (412, "PT412", 412),
        (422, "PT422", 422),
        (418, "PT418", 500),
        (500, "XX000", 500),
        (400, "P0001", 500),
        (404, "PGRST202", 500),
        (404, "PGRST205", 500),
        (500, "SUP", 500),
    ],
)
def test_each_code_of_postgrest_has_its_answer(client, signed_in, upstream, status, code, ours):
    body = {"code": code, "message": "an_upstream_word", "details": None, "hint": None}
    upstream.answer(body, status)
    upstream.answer(body, status)  # for those that are tried twice
    answer = client.get("/v1/monitors", headers=signed_in)
    assert (answer.status_code, answer.json["status"]) == (ours, ours)
    assert answer.content_type == "application/problem+json"
    assert ("Retry-After" in answer.headers) == (ours in {503, 504})
    assert ("WWW-Authenticate" in answer.headers) == (ours == 401)
    assert len(upstream.requests) == (2 if code in {"40001", "40P01"} else 1)
    if not code.startswith("PT"):
        assert "an_upstream_word" not in answer.text, "the upstream's words are for the log"


def test_a_lost_race_that_is_won_at_the_second_try_is_a_success(client, signed_in, upstream):
    upstream.answer({"code": "40P01", "message": "deadlock detected"}, 500)
    upstream.answer([MONITOR])
    assert client.get("/v1/monitors", headers=signed_in).status_code == 200


def test_what_our_own_functions_raise_is_answered_in_their_words(client, signed_in, upstream, auth_says_yes):
    upstream.answer({"code": "PT403", "message": "forbidden", "details": "Only an owner can."}, 403)
    answer = client.delete(f"/v1/orgs/{MONITOR['org_id']}", headers=signed_in)
    is_problem(answer, 403, "forbidden")
    assert answer.json["detail"] == "Only an owner can."


def test_a_broken_constraint_is_named(client, signed_in, upstream):
    message = 'new row for relation "monitors" violates check constraint "monitors_timeout_within_interval"'
    upstream.answer([{**MONITOR, "my_role": "owner"}])
    upstream.answer({"code": "23514", "message": message, "details": "Failing row contains (secret)."}, 400)
    answer = client.patch(f"/v1/monitors/{MONITOR['id']}", json={"name": "x"}, headers=signed_in)
    is_problem(answer, 422, "invalid_input")
    assert [fault["code"] for fault in answer.json["errors"]] == ["monitors_timeout_within_interval"]
    assert "secret" not in answer.text

    doubled = 'duplicate key value violates unique constraint "memberships_pkey"'
    assert refusal(409, read_problem(orjson.dumps({"code": "23505", "message": doubled}))).code == "memberships_pkey"


@pytest.mark.parametrize("body", [HTML, CUT_OFF, b"", b"[]", b"null", b'"text"', b"1", b"\xff", b'{"code": 7}'])
def test_an_error_that_is_not_postgrests_is_read_without_a_failure_of_ours(body):
    assert refusal(500, read_problem(body)).status in {500, 503}


WITH_CALLS = [op for op in all_operations() if not op.is_public and ROUTES[op.method, op.path][-1]]


@pytest.mark.parametrize("nonsense", [HTML, CUT_OFF], ids=["html", "cut off"])
@pytest.mark.parametrize("operation", WITH_CALLS, ids=lambda operation: operation.name)
def test_nonsense_with_status_200_is_503_at_every_call_of_every_route(
    operation: Operation, nonsense: bytes, client, upstream, signed_in, auth_says_yes
):
    *_, body, answers = ROUTES[operation.method, operation.path]
    for broken in range(len(answers)):
        if nonsense == CUT_OFF and operation.status == 204 and broken == len(answers) - 1:
            continue  # it is done: what the rest of the answer would have said changes nothing
        upstream._script.clear()
        for answer in [*answers[:broken], nonsense]:
            upstream.answer(answer)
        more: dict[str, Any] = {} if body is None else {"json": body}
        reply = client.open(path_of(operation), method=operation.method, headers=signed_in, **more)
        is_problem(reply, 503, "unavailable")
        assert reply.headers["Retry-After"] == "1"


def test_what_fails_is_in_the_log_with_its_request_and_its_cause_but_no_token(client, signed_in, upstream, caplog):
    upstream.answer({"code": "PGRST000", "message": "could not connect to 10.1.2.3"}, 503)
    with caplog.at_level(logging.INFO):
        answer = client.get("/v1/monitors", headers={**signed_in, "X-Request-ID": "request-of-the-test"})
    (record,) = [record for record in caplog.records if record.name == "tocsin.errors"]
    assert record.levelno == logging.WARNING
    assert vars(record)["request_id"] == answer.headers["X-Request-ID"] == "request-of-the-test"
    assert "PGRST000 could not connect to 10.1.2.3" in record.getMessage()
    assert signed_in["Authorization"].removeprefix("Bearer ") not in caplog.text

"""GET /v1/usage, and how a limit that was hit reaches the caller."""

import json

import orjson
import pytest

from server.data.failures import read_problem, refusal
from server.errors import Forbidden, InvalidInput
from tests.architecture.test_routes import USAGE
from tests.http.conftest import MEMBERSHIPS, MONITOR_FOR_WRITING, ORG_ID
from tests.http.test_errors import is_problem

FULL = {
    "code": "PT403",
    "message": "quota_exceeded",
    "details": "The plan free allows 20 monitors, and the organisation has 20.",
    "hint": '{"quota": {"name": "monitors", "used": 20, "limit": 20}}',
}
TOO_OFTEN = {
    "code": "PT422",
    "message": "interval_below_plan",
    "details": "The plan free allows intervals of 60 seconds or longer.",
    "hint": '{"quota": {"name": "shortest_interval_seconds", "limit": 60}, "pointer": "/interval_seconds"}',
}


def test_usage_is_answered_as_the_database_counted_it(client, signed_in, upstream):
    upstream.answer([USAGE])
    answer = client.get(f"/v1/usage?org_id={ORG_ID}", headers=signed_in)
    assert (answer.status_code, answer.json) == (200, USAGE)
    assert [json.loads(asked.content or b"") for asked in upstream.requests] == [{"org_id": ORG_ID}]


def test_who_belongs_to_one_organisation_need_not_name_it(client, signed_in, upstream):
    upstream.answer([USAGE])
    assert client.get("/v1/usage", headers=signed_in).json == USAGE
    assert [json.loads(asked.content or b"") for asked in upstream.requests] == [{"org_id": None}]


@pytest.mark.parametrize("count", [0, 2])
def test_who_belongs_to_none_or_several_is_told_to_choose(client, signed_in, upstream, count):
    upstream.answer([USAGE] * count)
    answer = client.get("/v1/usage", headers=signed_in)
    is_problem(answer, 422, "invalid_input")
    assert [(fault["pointer"], fault["code"]) for fault in answer.json["errors"]] == [("org_id", "org_required")]


def test_an_organisation_that_the_caller_does_not_see_is_not_found(client, signed_in, upstream):
    upstream.answer([])
    is_problem(client.get(f"/v1/usage?org_id={ORG_ID}", headers=signed_in), 404, "not_found")


def test_a_full_quota_is_403_with_the_limit_in_words_and_for_machines(client, signed_in, upstream):
    upstream.answer(MEMBERSHIPS)
    upstream.answer(FULL, 403)
    draft = {"name": "x", "target": "https://example.com/"}
    answer = client.post("/v1/monitors", json=draft, headers=signed_in)
    is_problem(answer, 403, "quota_exceeded")
    assert answer.json["detail"] == FULL["details"]
    assert answer.json["quota"] == {"name": "monitors", "limit": 20, "used": 20}
    assert "errors" not in answer.json


def test_too_short_an_interval_is_422_at_its_pointer_with_the_limit(client, signed_in, upstream):
    upstream.answer([MONITOR_FOR_WRITING])
    upstream.answer(TOO_OFTEN, 422)
    changes = {"interval_seconds": 30}
    answer = client.patch(f"/v1/monitors/{MONITOR_FOR_WRITING['id']}", json=changes, headers=signed_in)
    is_problem(answer, 422, "invalid_input")
    assert answer.json["errors"] == [
        {"pointer": "/interval_seconds", "code": "interval_below_plan", "detail": TOO_OFTEN["details"]}
    ]
    assert answer.json["quota"] == {"name": "shortest_interval_seconds", "limit": 60}


@pytest.mark.parametrize("hint", [None, "", "words for people", "[1]", "1", '"pointer"', "{", "{}"])
def test_a_hint_that_is_none_of_ours_adds_nothing(hint):
    error = refusal(403, read_problem(orjson.dumps({**FULL, "hint": hint})))
    assert (type(error), error.code, error.members.get("quota")) == (Forbidden, "quota_exceeded", None)
    error = refusal(422, read_problem(orjson.dumps({**TOO_OFTEN, "hint": hint})))
    assert (type(error), error.code, error.faults) == (InvalidInput, "interval_below_plan", ())


def test_a_hint_counts_only_where_our_own_functions_raised(client, signed_in, upstream):
    upstream.answer({**FULL, "code": "42501"}, 403)
    answer = client.get("/v1/usage", headers=signed_in)
    is_problem(answer, 403, "forbidden")
    assert "quota" not in answer.json

"""What cannot be read is 400, what is wrong is 422 with every fault at once, and no input is a failure of ours."""

import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.app import all_operations
from server.features.monitors.schemas import PreviewDraft
from server.http.problem_document import MOST_FAULTS_SHOWN
from server.http.routing import Operation
from tests.http.conftest import EVENTS, MEMBERSHIPS, MONITOR, MONITOR_FOR_WRITING, FakeUpstream

GOOD = {"name": "Home page", "target": "https://example.com/"}


def post(client: FlaskClient, signed_in: dict[str, str], body: Any, path: str = "/v1/monitors") -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, data=raw, content_type="application/json", headers=signed_in)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"name": "x",}', "line 1, column"),
        (b"\xff\xfe", "not UTF-8"),
        (b'\xef\xbb\xbf{"name": "x"}', "BOM"),
        (b'{"name": NaN}', "NaN"),
        (b'{"name": -Infinity}', "-Infinity"),
        (b'{"name": "a", "name": "b"}', "twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"interval_seconds": ' + b"9" * 5000 + b"}", "acceptable"),
    ],
)
def test_a_body_that_is_no_strict_json_is_400_and_says_where(client, signed_in, upstream, raw, says):
    answer = post(client, signed_in, raw)
    assert (answer.status_code, answer.json["code"]) == (400, "malformed_request")
    assert says in answer.json["detail"]
    assert upstream.requests == []


def faults(answer: Any) -> dict[str, str]:
    assert answer.status_code == 422, answer.json
    return {fault["pointer"]: fault["code"] for fault in answer.json["errors"]}


def test_every_fault_is_named_at_once(client, signed_in, upstream):
    body = {"name": "", "target": "ftp://x", "interval_seconds": "60", "paused": 1, "colour": "red"}
    assert faults(post(client, signed_in, body)) == {
        "/name": "string_too_short",
        "/target": "url_scheme",
        "/interval_seconds": "int_type",
        "/paused": "bool_type",
        "/colour": "unknown_field",
    }
    assert upstream.requests == [], "nothing is asked of the database for a body that is wrong"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": None}, {"/name": "string_type"}),
        ({"name": "   "}, {"/name": "string_too_short"}),
        ({"name": "x" * 201}, {"/name": "string_too_long"}),
        ({"name": "a\0b"}, {"/name": "nul_character"}),
        ({"name": "a\ud800b"}, {"/name": "lone_surrogate"}),
        (
            {"assertions": ["status == 200", "\0", "\udfff"]},
            {"/assertions/1": "nul_character", "/assertions/2": "lone_surrogate"},
        ),
        ({"a\0b": 1}, {"": "unreadable_name"}),
        ({"a\ud800b": 1}, {"": "unreadable_name"}),
        ({"x": [{"a\0b": "\0"}, {"y": "\udfff"}]}, {"/x/0": "unreadable_name", "/x/1/y": "lone_surrogate"}),
        ({"x": {"y": [1, 2**80, -(2**80)]}}, {"/x/y/1": "out_of_range", "/x/y/2": "out_of_range"}),
        ({"a/b~c": 1}, {"/a~1b~0c": "unknown_field"}),
        ({"interval_seconds": 4}, {"/interval_seconds": "greater_than_equal"}),
        ({"interval_seconds": 86_401}, {"/interval_seconds": "less_than_equal"}),
        ({"interval_seconds": 60.5}, {"/interval_seconds": "int_type"}),
        ({"interval_seconds": True}, {"/interval_seconds": "int_type"}),
        ({"interval_seconds": 2**80}, {"/interval_seconds": "out_of_range"}),
        ({"degraded_after_ms": 0}, {"/degraded_after_ms": "greater_than_equal"}),
        ({"org_id": "not-a-uuid"}, {"/org_id": "uuid_parsing"}),
        ({"interval_seconds": 10, "timeout_seconds": 30}, {"/timeout_seconds": "inconsistent"}),
        (
            {"interval_seconds": 10, "timeout_seconds": 30, "retry_interval_seconds": 11},
            {"/timeout_seconds": "inconsistent", "/retry_interval_seconds": "inconsistent"},
        ),
    ],
)
def test_a_wrong_value_is_422_at_its_pointer(client, signed_in, changes, expected):
    assert faults(post(client, signed_in, {**GOOD, **changes})) == expected


def test_a_whole_number_may_be_spelled_with_a_point(client, signed_in, upstream):
    upstream.answer(MEMBERSHIPS)
    upstream.answer([MONITOR])
    assert post(client, signed_in, {**GOOD, "interval_seconds": 60.0, "fail_threshold": 2.0}).status_code == 201


def test_at_most_a_hundred_faults_are_listed(client, signed_in):
    body = {f"field_{number}": number for number in range(MOST_FAULTS_SHOWN + 50)}
    assert len(faults(post(client, signed_in, body))) == MOST_FAULTS_SHOWN


def test_a_number_beyond_floating_point_is_422(client, signed_in):
    raw = b'{"name": "x", "target": "https://example.com/", "interval_seconds": 1e400}'
    assert faults(post(client, signed_in, raw)) == {"/interval_seconds": "out_of_range"}


@pytest.mark.parametrize("body", [[], "text", 1, None, True])
def test_a_body_that_is_no_object_is_422(client, signed_in, body):
    assert set(faults(post(client, signed_in, body))) == {""}


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("https://user:secret@example.com/", "url_credentials"),
        ("https://user@example.com/", "url_credentials"),
        ("ftp://example.com/", "url_scheme"),
        ("file:///etc/passwd", "url_scheme"),
        ("javascript:alert(1)", "url_scheme"),
        ("example.com", "url_scheme"),
        ("https://", "url_invalid"),
        ("https:///path", "url_invalid"),
        ("https://example.com:0/", "url_invalid"),
        ("https://example.com:99999/", "url_invalid"),
        ("https://exa mple.com/", "url_invalid"),
        ("https://example.com/\r\nX: y", "url_invalid"),
        ("https://[::1", "url_invalid"),
        ("https://example.com/" + "x" * 2048, "string_too_long"),
        ("http://127.0.0.1/", "url_private"),
        ("http://localhost:8000/", "url_private"),
        ("http://api.localhost/", "url_private"),
        ("http://example.com\\@127.0.0.1/", "url_credentials"),
        ("http://%31%32%37.0.0.1/", "url_private"),
        ("http://\uff11\uff12\uff17\u30020.0.1/", "url_private"),
        ("http://127.1./", "url_private"),
        ("http://[64:ff9b::7f00:1]/", "url_private"),
        ("http://2130706433/", "url_private"),
        ("http://0x7f.1/", "url_private"),
        ("http://0177.0.0.1/", "url_private"),
        ("http://[::1]/", "url_private"),
        ("http://[::ffff:10.0.0.1]/", "url_private"),
        ("http://169.254.169.254/latest/meta-data", "url_private"),
        ("http://10.0.0.1/", "url_private"),
        ("http://100.64.0.1/", "url_private"),
        ("http://[fd00::1]/", "url_private"),
    ],
)
def test_a_target_that_may_not_be_watched_is_refused_by_name(client, signed_in, target, code):
    assert faults(post(client, signed_in, {**GOOD, "target": target})) == {"/target": code}
    channel = {"name": "hook", "url": target}
    assert faults(post(client, signed_in, channel, "/v1/channels")) == {"/url": code}


def test_a_body_of_another_type_is_415(client, signed_in):
    for content_type in ("text/plain", "application/x-www-form-urlencoded", None):
        answer = client.post("/v1/monitors", data=b"{}", content_type=content_type, headers=signed_in)
        assert (answer.status_code, answer.json["code"]) == (415, "unsupported_media_type")


def test_a_patch_may_be_sent_as_json_or_as_a_merge_patch(client, signed_in, upstream):
    for content_type in ("application/json; charset=utf-8", "application/merge-patch+json"):
        upstream.answer([MONITOR_FOR_WRITING])
        upstream.answer([MONITOR_FOR_WRITING])
        path = f"/v1/monitors/{MONITOR_FOR_WRITING['id']}"
        answer = client.patch(path, data=b'{"name": "new"}', content_type=content_type, headers=signed_in)
        assert answer.status_code == 200


def test_a_body_over_1_mb_is_413(client, signed_in):
    answer = post(client, signed_in, b'{"name": "' + b"x" * 1_048_576 + b'"}')
    assert (answer.status_code, answer.json["code"]) == (413, "body_too_large")


def test_null_takes_away_what_there_may_not_be_and_nothing_else(client, signed_in, upstream):
    path = f"/v1/monitors/{MONITOR_FOR_WRITING['id']}"

    def patch(body: dict[str, Any]) -> Any:
        return client.patch(path, json=body, headers=signed_in)

    upstream.answer([MONITOR_FOR_WRITING])
    upstream.answer([MONITOR_FOR_WRITING])
    assert patch({"degraded_after_ms": None}).status_code == 200
    assert json.loads(upstream.requests[-1].content or b"") == {"degraded_after_ms": None}
    assert faults(patch({"name": None, "paused": None})) == {"/name": "string_type", "/paused": "bool_type"}
    upstream.answer([MONITOR_FOR_WRITING])
    assert faults(patch({"interval_seconds": None, "target": None})) == {
        "/interval_seconds": "null",
        "/target": "missing_field",
    }
    assert faults(patch({})) == {"": "nothing_to_change"}
    assert faults(patch({"state": "up", "version": 9})) == {"/state": "unknown_field", "/version": "unknown_field"}


# --- whatever comes in ------------------------------------------------------------------------------------------------

TAKING_A_BODY = [operation for operation in all_operations() if operation.body and operation.name != "preview_monitor"]
# What the database says of a thing that is not there, where it is not `[]`.
NOTHING = {
    "list_events": EVENTS,
    "read_uptime": b"null",
    "list_checks": b"null",
    "read_series": b"null",
    "read_sla_report": b'{"org_id":"00000000-0000-0000-0000-000000000001","monitors":[]}',
    "read_overview": b'{"organisations":[]}',
    "list_audit": b'{"settled_below":"1","entries":[]}',
    "export_audit": b'{"settled_below":"1","entries":[]}',
}
TAKING_A_QUERY = [operation for operation in all_operations() if operation.query]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


ORGANISATION = {**MONITOR_FOR_WRITING, "name": "Acme", "plan": "free", "require_aal2": False}
CHANNEL = {**MONITOR_FOR_WRITING, "kind": "webhook", "url": "https://example.com/"}
INCIDENT = {
    **dict.fromkeys(("acknowledged_at", "acknowledged_by", "resolved_at", "resolved_by", "resolution", "held_by")),
    **{name: MONITOR_FOR_WRITING[name] for name in ("id", "org_id", "my_role", "version")},
    "monitor_id": MONITOR_FOR_WRITING["id"],
    "state": "open",
    "cause": "status",
    "summary": "503",
    "evidence": {},
    "started_at": MONITOR_FOR_WRITING["created_at"],
    "opened_at": MONITOR_FOR_WRITING["created_at"],
    "alerted_at": MONITOR_FOR_WRITING["created_at"],
}
WINDOW = {
    **dict.fromkeys(("description", "ended_at", "current_until", "next_starts_at")),
    **{name: MONITOR_FOR_WRITING[name] for name in ("id", "org_id", "my_role", "created_at", "updated_at", "version")},
    "name": "Backups",
    "all_monitors": False,
    "monitor_ids": [MONITOR_FOR_WRITING["id"]],
    "starts_at": "2030-01-12T00:00:00+00:00",
    "ends_at": "2030-01-12T02:00:00+00:00",
    "time_zone": "Europe/Berlin",
    "recurrence": "FREQ=WEEKLY;BYDAY=SA",
    "active": False,
}
COMMENT = {"id": INCIDENT["id"], "author_id": INCIDENT["id"], "body": "x", "created_at": INCIDENT["opened_at"]}
API_KEY = {
    **dict.fromkeys(("expires_at", "last_used_at", "revoked_at", "replaced_by")),
    "id": MONITOR_FOR_WRITING["id"],
    "org_id": MONITOR_FOR_WRITING["org_id"],
    "name": "CI",
    "prefix": "tocsin_ABCDEFGH",
    "scopes": ["read"],
    "created_by": MONITOR_FOR_WRITING["id"],
    "created_at": MONITOR_FOR_WRITING["created_at"],
    "version": 1,
}

MEMBER = {
    "org_id": MONITOR_FOR_WRITING["org_id"],
    "user_id": MONITOR_FOR_WRITING["id"],
    "email": "grace@example.com",
    "role": "editor",
    "joined_at": MONITOR_FOR_WRITING["created_at"],
    "version": 1,
}
MEMBERSHIP_TO_CHANGE = {"role": "viewer", "version": 1, "my_role": "owner", "require_aal2": False}
INVITATION = {
    "id": MONITOR_FOR_WRITING["id"],
    "org_id": MONITOR_FOR_WRITING["org_id"],
    "email": "grace@example.com",
    "role": "editor",
    "invited_by": MONITOR_FOR_WRITING["id"],
    "created_at": MONITOR_FOR_WRITING["created_at"],
    "expires_at": MONITOR_FOR_WRITING["created_at"],
    "version": 1,
}
JOINED = {"org_id": MONITOR_FOR_WRITING["org_id"], "org_name": "Acme", "role": "editor"}
GOOD_ANSWERS: dict[str, list[object]] = {
    "create_org": [ORGANISATION],
    "update_org": [[{**ORGANISATION, "require_aal2": True}], ORGANISATION],
    "transfer_org": [ORGANISATION],
    "change_member": [[MEMBERSHIP_TO_CHANGE], MEMBER],
    "create_invitation": [INVITATION],
    "accept_invitation": [JOINED],
    "update_monitor": [[MONITOR_FOR_WRITING], [MONITOR_FOR_WRITING]],
    "create_channel": [MEMBERSHIPS, CHANNEL],
    "comment_on_incident": [[INCIDENT], [COMMENT]],
    "create_maintenance_window": [MEMBERSHIPS, WINDOW],
    "update_maintenance_window": [[WINDOW], WINDOW],
    "create_monitors": [MEMBERSHIPS, [{"index": 0, "monitor": MONITOR_FOR_WRITING}]],
    "create_api_key": [MEMBERSHIPS, API_KEY],
    "rotate_api_key": [API_KEY],
}


def path_of(operation: Operation) -> str:
    return re.sub(r"<uuid:\w+>", str(MONITOR_FOR_WRITING["id"]), operation.path)


@pytest.mark.parametrize("operation", TAKING_A_BODY, ids=lambda operation: operation.name)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_of_a_client_is_a_failure_of_ours(
    operation, client, signed_in, upstream: FakeUpstream, auth_says_yes, data
):
    assert operation.body is not None
    names = st.sampled_from(sorted(operation.body.model_fields))
    body = data.draw(st.dictionaries(names | st.text(max_size=5), ANYTHING, max_size=6) | ANYTHING)
    for answer in GOOD_ANSWERS.get(operation.name, [MEMBERSHIPS, [MONITOR_FOR_WRITING]]):
        upstream.answer(answer)
    answer = client.open(
        path_of(operation),
        method=operation.method,
        data=json.dumps(body).encode(),
        content_type="application/json",
        headers=signed_in,
    )
    upstream._script.clear()
    assert answer.status_code in {200, 201, 400, 422}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(st.sampled_from(sorted(PreviewDraft.model_fields)), ANYTHING, max_size=5) | ANYTHING)
def test_no_body_of_a_preview_is_a_failure_of_ours(client, signed_in, body):
    answer = post(client, signed_in, body, "/v1/monitors/preview")
    assert answer.status_code in {400, 422}, "what hypothesis makes up is no URL, so nothing is ever looked up"


@pytest.mark.parametrize("operation", TAKING_A_QUERY, ids=lambda operation: operation.name)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_query_of_a_client_is_a_failure_of_ours(operation, client, signed_in, upstream: FakeUpstream, data):
    assert operation.query is not None
    names = sorted(info.alias or name for name, info in operation.query.model_fields.items())
    pairs = data.draw(
        st.lists(st.tuples(st.sampled_from(names) | st.text(max_size=5), st.text(max_size=30)), max_size=4)
    )
    upstream.answer(NOTHING.get(operation.name, b"[]"))
    answer = client.open(path_of(operation), method=operation.method, query_string=pairs, headers=signed_in)
    answer.get_data()
    upstream._script.clear()
    assert answer.status_code in {operation.status, 400, 404, 422}

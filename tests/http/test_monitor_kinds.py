"""What each kind of monitor may be told, and how the API says what is right where it is told something else."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from server.features.monitors.rules import KINDS, slug_of
from server.features.monitors.schemas import MonitorDraft, MonitorSettings
from server.http.merging import merge
from server.probes.http_options import HttpOptions
from tests.http.conftest import MEMBERSHIPS, MONITOR, MONITOR_FOR_WRITING, FakeUpstream
from tests.http.test_parsing import faults, post

TARGETS = {
    "http": "https://example.com/",
    "tcp": "db.example.com:5432",
    "tls": "[2001:4860:4860::8888]:443",
    "dns": "example.com",
    "icmp": "gateway.example.com",
}
HEARTBEAT = {"name": "Nightly backup", "kind": "heartbeat", "options": {"period_seconds": 3600}}
# A monitor of each kind as the database has it.
STORED = {
    **{kind: {**MONITOR_FOR_WRITING, "kind": kind, "target": target} for kind, target in TARGETS.items()},
    "heartbeat": {
        **MONITOR_FOR_WRITING,
        **dict.fromkeys(("target", "interval_seconds", "timeout_seconds", "retry_interval_seconds")),
        "kind": "heartbeat",
        "options": {"period_seconds": 3600, "cron": None, "timezone": "UTC", "grace_seconds": 60},
        "slug": "nightly-backup",
        "ping_id": "1fd8b05c-6f8e-4bb5-9d7c-0f4e6c7b7c55",
    },
}
for _kind in ("tcp", "tls", "dns", "icmp"):
    STORED[_kind]["options"] = {}


def draft(kind: str = "http", **changes: Any) -> dict[str, Any]:
    settings = HEARTBEAT if kind == "heartbeat" else {"name": "m", "kind": kind, "target": TARGETS[kind]}
    return {**settings, **changes}


def written(client: FlaskClient, signed_in: dict[str, str], upstream: FakeUpstream, body: Any) -> dict[str, Any]:
    """Create a monitor; return the row that the database was given."""
    upstream.answer(MEMBERSHIPS)
    upstream.answer(MONITOR)
    answer = post(client, signed_in, body)
    assert answer.status_code == 201, answer.json
    row: dict[str, Any] = json.loads(upstream.requests[-1].content or b"")["draft"]
    return row


def patch(client: FlaskClient, signed_in: dict[str, str], upstream: FakeUpstream, stored: Any, body: Any) -> Any:
    """Change a monitor that stands as `stored`."""
    upstream.answer([stored])
    upstream.answer([MONITOR])
    return client.patch(f"/v1/monitors/{MONITOR['id']}", json=body, headers=signed_in)


# --- creating ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TARGETS)
def test_a_check_of_each_kind_is_written_whole_with_its_defaults(client, signed_in, upstream, kind):
    row = written(client, signed_in, upstream, draft(kind))
    assert row.pop("options"), "the options are whole"
    assert row == {
        "org_id": MONITOR["org_id"],
        "name": "m",
        "kind": kind,
        "target": TARGETS[kind],
        "interval_seconds": 60,
        "timeout_seconds": 10,
        "retry_interval_seconds": 15,
        "fail_threshold": 2,
        "recover_threshold": 1,
        "degraded_after_ms": None,
        "assertions": [],
        "depends_on": [],
        "regions": [],
        "slug": None,
        "paused": False,
    }


def test_a_heartbeat_has_a_schedule_and_nothing_that_looks(client, signed_in, upstream):
    row = written(client, signed_in, upstream, HEARTBEAT)
    looking = ("target", "interval_seconds", "timeout_seconds", "retry_interval_seconds", "degraded_after_ms")
    assert {row[name] for name in looking} == {None}
    assert (row["fail_threshold"], row["recover_threshold"], row["slug"]) == (1, 1, "nightly-backup")
    assert row["options"]["period_seconds"] == 3600


def test_what_a_heartbeat_shows_of_what_it_has_not_may_be_sent_back(client, signed_in, upstream):
    resting: dict[str, Any] = {
        "target": None,
        "interval_seconds": None,
        "fail_threshold": 1,
        "assertions": [],
        "regions": [],
    }
    assert written(client, signed_in, upstream, HEARTBEAT | resting) == written(client, signed_in, upstream, HEARTBEAT)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Nightly backup", "nightly-backup"),
        ("  DB: dump (eu) ", "db-dump-eu"),
        ("Überwachung", "uberwachung"),
        ("snake_case", "snake_case"),
        ("夜間", None),
        ("x" * 200, "x" * 100),
        ("x" * 99 + " y", "x" * 99),
    ],
)
def test_a_slug_is_made_of_the_name(name, slug):
    assert slug_of(name) == slug


def test_a_slug_is_made_only_where_there_is_none_and_none_is_not_wanted(client, signed_in, upstream):
    assert written(client, signed_in, upstream, {**HEARTBEAT, "slug": "mine"})["slug"] == "mine"
    assert written(client, signed_in, upstream, {**HEARTBEAT, "slug": None})["slug"] is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"name": "m", "kind": "ping", "target": "x"}, {"/kind": "literal_error"}),
        ({"name": "m"}, {"/target": "missing_field"}),
        *(({"name": "m", "kind": kind}, {"/target": "missing_field"}) for kind in TARGETS),
        # What a kind does not have
        (draft("heartbeat", target="https://example.com/"), {"/target": "not_of_this_kind"}),
        (draft("heartbeat", interval_seconds=60), {"/interval_seconds": "not_of_this_kind"}),
        (draft("heartbeat", timeout_seconds=10), {"/timeout_seconds": "not_of_this_kind"}),
        (draft("heartbeat", retry_interval_seconds=10), {"/retry_interval_seconds": "not_of_this_kind"}),
        (draft("heartbeat", fail_threshold=2), {"/fail_threshold": "not_of_this_kind"}),
        (draft("heartbeat", recover_threshold=2), {"/recover_threshold": "not_of_this_kind"}),
        (draft("heartbeat", degraded_after_ms=5), {"/degraded_after_ms": "not_of_this_kind"}),
        (draft("heartbeat", assertions=["status == 200"]), {"/assertions": "not_of_this_kind"}),
        (draft("heartbeat", regions=["eu"]), {"/regions": "not_of_this_kind"}),
        *((draft(kind, slug="x"), {"/slug": "not_of_this_kind"}) for kind in TARGETS),
        *((draft(kind, ping_id=MONITOR["id"]), {"/ping_id": "unknown_field"}) for kind in (*TARGETS, "heartbeat")),
        (draft("tcp", options={"method": "GET"}), {"/options/method": "unknown_field"}),
        (draft("heartbeat", options={"packets": 3}), {"/options/packets": "unknown_field"}),
        (draft("http", expected_status=["200"]), {"/expected_status": "unknown_field"}),
        # Targets
        (draft("tcp", target="db.example.com"), {"/target": "target_invalid"}),
        (draft("tcp", target="db.example.com:0"), {"/target": "target_invalid"}),
        (draft("tcp", target="http://db.example.com:80/"), {"/target": "target_invalid"}),
        (draft("tls", target="2001:db8::1:443"), {"/target": "target_invalid"}),
        (draft("dns", target="example.com/x"), {"/target": "target_invalid"}),
        (draft("icmp", target="https://example.com/"), {"/target": "target_invalid"}),
        (draft("icmp", target=""), {"/target": "target_invalid"}),
        (draft("icmp", target="x" * 2049), {"/target": "string_too_long"}),
        (draft("http", target="example.com:80"), {"/target": "url_scheme"}),
        (draft("tcp", target="127.0.0.1:22"), {"/target": "target_private"}),
        (draft("tcp", target="localhost:22"), {"/target": "target_private"}),
        (draft("tls", target="[::1]:443"), {"/target": "target_private"}),
        (draft("tls", target="169.254.169.254:443"), {"/target": "target_private"}),
        (draft("icmp", target="10.0.0.1"), {"/target": "target_private"}),
        (draft("icmp", target="0x7f.1"), {"/target": "target_private"}),
        (draft("dns", options={"resolver": "10.0.0.1"}), {"/options/resolver": "resolver_private"}),
        # Options
        (draft(options=None), {"/options": "model_type"}),
        (draft(options=[]), {"/options": "model_type"}),
        (draft(options={"method": "BREW"}), {"/options/method": "literal_error"}),
        (draft(options={"expected_status": []}), {"/options/expected_status": "too_short"}),
        (draft(options={"expected_status": ["299-200"]}), {"/options/expected_status": "status_range"}),
        (draft(options={"expected_status": ["2xx"]}), {"/options/expected_status": "status_range"}),
        (draft(options={"headers": {"Authorization": "x"}}), {"/options/headers": "header_owned"}),
        (draft(options={"headers": {"X-A": "ä"}}), {"/options/headers/X-A": "not_acceptable"}),
        (draft(options={"auth": {"type": "digest"}}), {"/options/auth": "union_tag_invalid"}),
        (draft(options={"auth": {"type": "basic", "username": "u"}}), {"/options/auth/password": "missing_field"}),
        (draft(options={"auth": {"type": "bearer", "token": "t", "x": 1}}), {"/options/auth/x": "unknown_field"}),
        (draft(options={"auth": {"type": "bearer", "token": "a b"}}), {"/options/auth/token": "not_acceptable"}),
        (draft(options={"method": "HEAD", "body": "x"}), {"/options": "body_of_head"}),
        (draft(options={"body": "a\0b"}), {"/options/body": "nul_character"}),
        (draft("dns", options={"record_type": "ANY"}), {"/options/record_type": "enum"}),
        (draft("icmp", options={"packets": 0}), {"/options/packets": "greater_than_equal"}),
        (draft("heartbeat", options={"cron": "0 0 30 2 *"}), {"/options/cron": "cron_invalid"}),
        (draft("heartbeat", options={"cron": "hourly, please"}), {"/options/cron": "cron_invalid"}),
        (draft("heartbeat", options={"timezone": "Mars/Olympus"}), {"/options/timezone": "timezone_unknown"}),
        (draft("heartbeat", options={"cron": "* * * * *", "period_seconds": 60}), {"/options": "two_schedules"}),
        # Assertions
        (
            draft(assertions=["status == 200", "stat == 200", "status = 200", "status == 200 or 204"]),
            dict.fromkeys(("/assertions/1", "/assertions/2", "/assertions/3"), "assertion_invalid"),
        ),
        (draft("tcp", assertions=["status == 200"]), {"/assertions/0": "assertion_invalid"}),
        (draft("icmp", assertions=["loss_percent < 5", "answers exists"]), {"/assertions/1": "assertion_invalid"}),
        (draft(assertions=['body matches "("']), {"/assertions/0": "assertion_invalid"}),
        (draft(assertions=["status == 200"] * 21), {"/assertions": "too_long"}),
        (draft(assertions=[7]), {"/assertions/0": "string_type"}),
        (draft(assertions=["x" * 1001]), {"/assertions/0": "string_too_long"}),
        # What the database would not hold
        (draft(options={"body": "\U0001f514" * 70_000}), {"/options": "too_large"}),
        (draft(assertions=[f'body contains "{"ä" * 600}"'] * 20), {"/assertions": "too_large"}),
        # Parents and regions
        (draft(depends_on=["me"]), {"/depends_on/0": "uuid_parsing"}),
        (draft(depends_on=[MONITOR["id"]] * 2), {"/depends_on": "given_twice"}),
        (draft(regions=["EU"]), {"/regions/0": "string_pattern_mismatch"}),
        (draft(regions=["eu", "eu"]), {"/regions": "given_twice"}),
        (draft(regions=[f"r{n}" for n in range(11)]), {"/regions": "too_long"}),
        (draft("heartbeat", slug="Has Blanks"), {"/slug": "string_pattern_mismatch"}),
        # All at once
        (
            draft("tcp", name="", target="x", options={"send": 1, "y": 2}, assertions=["z"], regions=["!"]),
            {
                "/name": "string_too_short",
                "/target": "target_invalid",
                "/options/send": "string_type",
                "/options/y": "unknown_field",
                "/assertions/0": "assertion_invalid",
                "/regions/0": "string_pattern_mismatch",
            },
        ),
    ],
)
def test_what_does_not_fit_a_kind_is_refused_at_its_pointer(client, signed_in, upstream, body, expected):
    assert faults(post(client, signed_in, body)) == expected
    assert upstream.requests == [], "nothing is asked of the database for a body that is wrong"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (draft("heartbeat", retry_interval_seconds=9), "A heartbeat has none: set period_seconds or cron"),
        (draft("heartbeat", target="https://x.example/"), "A heartbeat has none: a job pings its ping_id"),
        (draft("tcp", slug="x"), "Only a heartbeat has one"),
        (draft("tcp", target="db.example.com"), "Write host:port, as db.example.com:5432"),
        (draft(assertions=["status == 2xx"]), "Column 12: expected the end"),
        (draft("tcp", assertions=["status == 200"]), "Column 1: expected what to look at, one of"),
        (draft("heartbeat", options={"cron": "0 0 30 2 *"}), "This cron line cannot be read"),
        (draft(options={"auth": {"type": "basic", "username": "u"}}), "This field is required."),
    ],
)
def test_a_refusal_says_what_is_right(client, signed_in, body, says):
    (fault,) = post(client, signed_in, body).json["errors"]
    assert says in fault["detail"]


def test_a_batch_points_into_the_draft_that_is_wrong(client, signed_in, upstream):
    body = {"monitors": [draft("icmp"), draft("tcp", assertions=["status == 200"]), draft("heartbeat", slug="!")]}
    assert faults(post(client, signed_in, body, "/v1/monitors:batch")) == {
        "/monitors/1/assertions/0": "assertion_invalid",
        "/monitors/2/slug": "string_pattern_mismatch",
    }


def test_a_batch_points_at_the_parent_that_the_database_does_not_know(client, signed_in, upstream):
    unknown = "00000000-0000-4000-8000-000000000000"
    refusal = {
        "code": "PT422",
        "message": "unknown_dependency",
        "details": f"There is no monitor {unknown} in this organisation.",
        "hint": '{"pointer": "/depends_on/0"}',
    }
    upstream.answer(MEMBERSHIPS)
    upstream.answer(refusal, status=422)
    body = {"monitors": [draft("icmp"), draft("tcp", depends_on=[unknown])]}
    assert faults(post(client, signed_in, body, "/v1/monitors:batch")) == {
        "/monitors/1/depends_on/0": "unknown_dependency"
    }


def test_a_secret_is_not_in_what_a_draft_looks_like():
    auth = {"type": "bearer", "token": "hush"}
    read = MonitorSettings.model_validate_json(json.dumps(draft(options={"auth": auth})), strict=True)
    assert "hush" not in repr(read)


# --- changing ---------------------------------------------------------------------------------------------------------

BASIC = {"type": "basic", "username": "ci", "set_at": "2026-01-01T00:00:00Z"}
SIGNING_IN: dict[str, Any] = HttpOptions().model_dump() | {"headers": {"X-Old": "1", "X-Kept": "2"}, "auth": BASIC}
WITH_AUTH = {**MONITOR_FOR_WRITING, "options": SIGNING_IN}


@pytest.mark.parametrize(
    ("patched", "stored"),
    [
        ({}, SIGNING_IN),
        ({"headers": {"X-Old": None}}, {**SIGNING_IN, "headers": {"X-Kept": "2"}}),
        ({"headers": {"X-New": "3"}}, {**SIGNING_IN, "headers": {"X-Old": "1", "X-Kept": "2", "X-New": "3"}}),
        ({"headers": None}, {**SIGNING_IN, "headers": {}}),
        ({"max_redirects": 0}, {**SIGNING_IN, "max_redirects": 0}),
        ({"expected_status": ["404"]}, {**SIGNING_IN, "expected_status": ["404"]}),
        ({"auth": None}, {**SIGNING_IN, "auth": None}),
        ({"auth": BASIC}, SIGNING_IN),
        (
            {"auth": {"type": "bearer", "token": "new"}},
            {**SIGNING_IN, "auth": {"type": "bearer", "token": "new"}},
        ),
    ],
)
def test_options_are_merged_and_written_onto_the_version_that_was_read(client, signed_in, upstream, patched, stored):
    answer = patch(client, signed_in, upstream, WITH_AUTH, {"options": patched})
    assert answer.status_code == 200, answer.json
    sent = upstream.requests[-1]
    assert json.loads(sent.content or b"") == {"options": stored}
    assert f"version=eq.{MONITOR['version']}" in sent.path


@pytest.mark.parametrize(
    ("kind", "change", "expected"),
    [
        ("http", {"kind": "tcp"}, {"/kind": "kind_fixed"}),
        ("http", {"kind": "http"}, {"/kind": "kind_fixed"}),
        ("http", {"target": "db.example.com:5432"}, {"/target": "url_scheme"}),
        ("tcp", {"target": "https://example.com/"}, {"/target": "target_invalid"}),
        ("icmp", {"target": "10.1.2.3"}, {"/target": "target_private"}),
        ("tcp", {"assertions": ["status == 200"]}, {"/assertions/0": "assertion_invalid"}),
        (
            "http",
            {"options": {"auth": {"type": "basic", "username": "x"}}},
            {"/options/auth/password": "missing_field"},
        ),
        ("http", {"options": {"headers": {"Host": 7}}}, {"/options/headers/Host": "string_type"}),
        ("http", {"options": None}, {"/options": "dict_type"}),
        ("dns", {"options": {"auth": {"type": "bearer", "token": "t"}}}, {"/options/auth": "unknown_field"}),
        ("heartbeat", {"options": {"cron": "* * * * *"}}, {"/options": "two_schedules"}),
        ("heartbeat", {"interval_seconds": 60}, {"/interval_seconds": "not_of_this_kind"}),
        ("heartbeat", {"regions": ["eu"]}, {"/regions": "not_of_this_kind"}),
        ("http", {"interval_seconds": None}, {"/interval_seconds": "null"}),
        ("http", {"timeout_seconds": 61}, {"/timeout_seconds": "less_than_equal"}),
        (
            "http",
            {"interval_seconds": 5},
            {"/timeout_seconds": "inconsistent", "/retry_interval_seconds": "inconsistent"},
        ),
        ("http", {"slug": "x"}, {"/slug": "not_of_this_kind"}),
        ("http", {"ping_id": MONITOR["id"]}, {"/ping_id": "unknown_field"}),
    ],
)
def test_a_change_is_held_against_the_kind_that_stands(client, signed_in, upstream, kind, change, expected):
    assert faults(patch(client, signed_in, upstream, STORED[kind], change)) == expected
    assert not any(asked.method == "PATCH" for asked in upstream.requests)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("heartbeat", {"slug": None, "paused": True}),
        ("heartbeat", {"interval_seconds": None, "target": None, "fail_threshold": 1}),
        ("tcp", {"target": "other.example.com:1", "regions": ["eu", "us"], "assertions": ["response_ms < 9"]}),
        ("http", {"degraded_after_ms": None, "depends_on": []}),
    ],
)
def test_a_change_that_leaves_the_options_alone_writes_what_it_says(client, signed_in, upstream, kind, change):
    assert patch(client, signed_in, upstream, STORED[kind], change).status_code == 200
    sent = upstream.requests[-1]
    assert json.loads(sent.content or b"") == change
    assert "version=" not in sent.path, "the last writer wins, as before"


def test_options_that_somebody_else_changes_meanwhile_are_not_overwritten(client, signed_in, upstream):
    upstream.answer([MONITOR_FOR_WRITING])
    upstream.answer([])
    body = {"options": {"max_redirects": 1}}
    answer = client.patch(f"/v1/monitors/{MONITOR['id']}", json=body, headers=signed_in)
    assert (answer.status_code, answer.json["code"]) == (409, "conflict")
    assert "Send your change again" in answer.json["detail"]


def test_if_match_says_412_of_the_same(client, signed_in, upstream):
    upstream.answer([MONITOR_FOR_WRITING])
    upstream.answer([])
    body, headers = {"options": {"max_redirects": 1}}, {**signed_in, "If-Match": f'"{MONITOR["version"]}.x"'}
    assert client.patch(f"/v1/monitors/{MONITOR['id']}", json=body, headers=headers).status_code == 412


# RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("current", "given", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_is_merged_as_its_rfc_shows(current, given, merged):
    assert merge(current, given) == merged


# --- the rest ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"kind": "heartbeat", "target": None}, {"/kind": "literal_error"}),
        ({}, {"/target": "missing_field"}),
        ({"kind": "tcp", "target": "10.0.0.1:80"}, {"/target": "target_private"}),
        ({"kind": "tls", "target": "x:1", "assertions": ["status == 1"]}, {"/assertions/0": "assertion_invalid"}),
        (
            {"target": "https://example.com/", "options": {"auth": {"type": "x"}}},
            {"/options/auth": "union_tag_invalid"},
        ),
        ({"target": "https://example.com/", "interval_seconds": 5}, {"/interval_seconds": "unknown_field"}),
    ],
)
def test_a_preview_is_told_what_is_wrong_before_it_looks(client, signed_in, body, expected):
    assert faults(post(client, signed_in, body, "/v1/monitors/preview")) == expected


def test_monitors_are_listed_by_kind(client, signed_in, upstream):
    assert client.get("/v1/monitors?kind=heartbeat,tcp", headers=signed_in).status_code == 200
    assert "kind=in.%28tcp%2Cheartbeat%29" in upstream.requests[-1].path
    refused = client.get("/v1/monitors?kind=ping", headers=signed_in)
    assert refused.status_code == 422
    assert "heartbeat" in refused.json["errors"][0]["detail"]


def documented() -> list[str]:
    """Return the monitors that the documents show, as JSON."""
    root = Path(__file__).parents[2]
    (section,) = re.findall(r"```json\n(\{\"name\": \"API\".*?)```", (root / "docs" / "api.md").read_text(), re.DOTALL)
    readme = re.findall(r"tocsin monitors -d '(.*?)'", (root / "README.md").read_text(), re.DOTALL)
    return [*re.split(r"\n(?=\{)", section), *readme]


def test_the_documents_show_each_kind():
    shown = [json.loads(text)["kind"] for text in documented()]
    assert {kind for kind in KINDS if shown.count(kind) >= 2} == set(KINDS), "in docs/api.md and in README.md"


@pytest.mark.parametrize("text", documented())
def test_what_the_documents_show_is_taken(text):
    MonitorDraft.model_validate_json(text, strict=True)

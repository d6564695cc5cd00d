"""Pings over an upstream in memory: what is read of them, what leaves for the database, and what is told to whom."""

import json
import logging
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.app import create_app
from server.errors import Unavailable
from server.features.pings.schemas import MAX_METRIC_NAME, MAX_METRICS, read_metrics, read_parameters, read_signal
from server.http.envelope import path_noted
from server.settings import read_settings
from tests.http.conftest import ENVIRONMENT, MONITOR, FakeUpstream

HEART = f"/ping/{MONITOR['id']}"
KEY = "tocsin_AbCdEfGh_" + "x" * 43


def asked(upstream: FakeUpstream) -> dict[str, Any]:
    (request,) = upstream.requests
    arguments: dict[str, Any] = json.loads(request.content or b"")
    return arguments


def test_a_ping_costs_one_call_that_carries_no_token_and_holds_all_there_is_to_it(client, upstream):
    upstream.answer(200)
    answer = client.post(f"{HEART}/3?rid={MONITOR['id']}", data=b"out", headers={"User-Agent": "job/1"})

    assert (answer.status_code, answer.text, answer.content_type) == (200, "OK", "text/plain; charset=utf-8")
    assert asked(upstream) == {
        "ping_id": MONITOR["id"],
        "slug": None,
        "create_missing": False,
        "kind": "fail",
        "exit_status": 3,
        "rid": MONITOR["id"],
        "method": "POST",
        "remote_ip": "127.0.0.1",
        "user_agent": "job/1",
        "body": "out",
        "metrics": None,
    }
    assert upstream.requests[0].path == "/rpc/ping"
    assert upstream.requests[0].headers.keys().isdisjoint({"Authorization", "X-Tocsin-Key"})


def test_a_slug_goes_out_under_the_key_of_the_url(client, upstream):
    upstream.answer(201)
    answer = client.get(f"/ping/{KEY}/backup/start?create=1")

    assert (answer.status_code, answer.text) == (201, "Created")
    sent = asked(upstream)
    assert (sent["ping_id"], sent["slug"], sent["create_missing"], sent["kind"]) == (None, "backup", True, "start")
    assert upstream.requests[0].headers["X-Tocsin-Key"] == KEY


@pytest.mark.parametrize("status", [200, 201, 404, 409])
def test_what_the_database_says_is_told_in_the_protocols_words(client, upstream, status):
    upstream.answer(status)
    answer = client.get(HEART)
    words = {200: "OK", 201: "Created", 404: "not found", 409: "ambiguous slug"}
    assert (answer.status_code, answer.text) == (status, words[status])


def test_any_page_may_ping(client, upstream):
    upstream.answer(200)
    for origin in ("https://app.example.com", "https://elsewhere.example"):
        upstream.answer(200)
        answer = client.get(HEART, headers={"Origin": origin})
        assert answer.headers.get_all("Access-Control-Allow-Origin") == ["*"]


def test_a_client_that_wants_json_is_not_refused(client, upstream):
    upstream.answer(200)
    assert client.get(HEART, headers={"Accept": "application/json"}).status_code == 200


@pytest.mark.parametrize(
    "url", ["/ping/x", f"{HEART}/stop", f"{HEART}/256", f"{HEART}?rid=x", f"/ping/{KEY}/A", "/ping/x/y/z"]
)
def test_what_makes_no_sense_costs_the_database_nothing(client, upstream, url):
    answer = client.get(url)
    assert (answer.status_code, answer.text, upstream.requests) == (400, "invalid url format", [])


@pytest.mark.parametrize("key", ["nobody", "tocsin_unknown", KEY + "x", "%1FM%C3%B7%C3%A5", "x%0D%0AX-Y:%20z"])
def test_what_cannot_be_a_key_finds_nothing_and_goes_into_no_header(client, upstream, key):
    answer = client.get(f"/ping/{key}/backup/start")
    assert (answer.status_code, answer.text, upstream.requests) == (404, "not found", [])


def test_a_ping_that_is_not_taken_says_so_and_the_client_tries_again(client, upstream):
    upstream.fail(Unavailable(retry_after_seconds=1))
    answer = client.get(HEART)
    assert (answer.status_code, answer.text, answer.headers["Retry-After"]) == (503, "Unavailable", "1")


@pytest.mark.parametrize("answered", [b"null", b"{}", b"[]"])
def test_an_answer_of_another_shape_is_a_failure_of_ours_and_no_ok(client, upstream, answered):
    upstream.answer(answered)
    assert client.get(HEART).status_code == 500


def test_each_heartbeat_has_ten_pings_a_minute_whoever_sends_them():
    upstream = FakeUpstream()
    limits = {**ENVIRONMENT, "RATE_LIMITS": "", "TRUSTED_PROXIES": "1"}
    api = create_app(read_settings(limits), upstream, clock=lambda: 1_000.0)  # type: ignore[arg-type]
    client = api.test_client()

    def ping(url: str, number: int) -> Any:
        upstream.answer(200)
        return client.get(url, headers={"X-Forwarded-For": f"192.0.2.{number}"})

    urls = [HEART, HEART.upper().replace("/PING", "/ping") + "/start", HEART + "/log", HEART + "/0", HEART + "/1"]
    assert [ping(url, number).status_code for number, url in enumerate(urls * 2)] == [200] * 10
    refused = ping(HEART, 11)
    assert (refused.status_code, refused.text) == (429, "rate limited")
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit-Policy"] == '"heartbeat";q=10;w=60'
    assert len(upstream.requests) == 10
    assert ping(f"/ping/{KEY}/backup", 1).status_code == 200, "another one has its own"


def test_neither_a_key_nor_an_id_comes_into_the_log(client: FlaskClient, upstream, caplog):
    with caplog.at_level(logging.DEBUG):
        for url in (f"/ping/{KEY}/backup", HEART, f"/ping/{KEY}/a/b/c/d"):
            client.get(url)
    assert KEY not in caplog.text and MONITOR["id"] not in caplog.text
    assert path_noted(f"/ping/{KEY}/backup") == "/ping/…"
    assert path_noted("/v1/monitors") == "/v1/monitors"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ("success", None)),
        ("start", ("start", None)),
        ("0", ("success", 0)),
        ("00", ("success", 0)),
        ("137", ("fail", 137)),
        ("256", None),
        ("-1", None),
        ("1.0", None),
        ("٣", None),
        ("success", None),
        ("START", None),
    ],
)
def test_a_signal_is_read_as_the_protocol_has_it(text, expected):
    if expected is not None:
        assert read_signal(text) == expected
        return
    with pytest.raises(ValueError, match="signal"):
        read_signal(text)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"metrics": {"rows": 120, "ratio": 0.5}}', {"rows": 120, "ratio": 0.5}),
        (b'{"metrics": {"rows": 120, "name": "x", "on": true, "none": null}}', {"rows": 120}),
        (b' {"rows": 120, "bytes": 1e6}', {"rows": 120, "bytes": 1e6}),
        (b'{"rows": 120, "host": "srv01"}', {}),
        (b'{"metrics": 3}', {"metrics": 3}),
        (b'{"metrics": {"huge": 1e400}}', {}),
        (b"{}", {}),
        (b"[1, 2]", {}),
        (b"{ not json", {}),
        (b"rows: 120", {}),
        (b"", {}),
        (b'{"' + b"n" * (MAX_METRIC_NAME + 1) + b'": 1, "n": 2}', {"n": 2}),
        (json.dumps({f"m{n}": n for n in range(60)}).encode(), {f"m{n}": n for n in range(MAX_METRICS)}),
    ],
)
def test_numbers_are_read_of_a_body_that_holds_some(body, expected):
    assert read_metrics(body) == expected


def test_numbers_are_read_of_the_query_and_what_is_none_is_passed_over():
    said = read_parameters("metric.rows=120&metric.t=-0.5&metric.bad=x&metric.nan=nan&metric.inf=inf&metric.=1&x=2")
    assert said.metrics == {"rows": 120, "t": -0.5}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200) | st.text(max_size=100).map(str.encode),
    query=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=60),
    agent=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60),
)
def test_nothing_that_a_job_sends_is_a_failure_of_ours(client, upstream, body, query, agent):
    upstream.answer(200)
    answer = client.post(f"{HEART}?{query}", data=body, headers={"User-Agent": agent})
    upstream._script.clear()
    assert answer.status_code in {200, 400}

"""What is true of every exchange: its id, who may read it in a browser, its headers, its line in the log, its count."""

import json
import re
from typing import Any

import pytest

from server.http.parsing import MAX_BODY_BYTES
from tests.http.conftest import ENVIRONMENT, MONITOR, MONITOR_FOR_WRITING

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/healthz"), ("GET", "/v1/monitors"), ("GET", "/nothing"), ("PUT", "/v1/me"), ("OPTIONS", "/v1/me")],
)
def test_security_headers_are_on_everything(client, method, path):
    answer = client.open(path, method=method)
    assert {name: answer.headers[name] for name in SECURITY} == SECURITY
    assert "max-age" in answer.headers["Strict-Transport-Security"]


def test_security_headers_are_on_every_kind_of_answer(client, signed_in, upstream):
    here, json_body = f"/v1/monitors/{MONITOR['id']}", {"content_type": "application/json"}
    tag = client.get("/healthz").headers["ETag"]
    asking: dict[int, tuple[str, str, dict[str, Any]]] = {
        204: ("DELETE", here, {}),
        304: ("GET", "/healthz", {"headers": {"If-None-Match": tag}}),
        400: ("POST", "/v1/orgs", {"data": b"{", **json_body}),
        406: ("GET", "/healthz", {"headers": {"Accept": "text/html"}}),
        412: ("DELETE", here, {"headers": {**signed_in, "If-Match": '"1.a"'}}),
        413: ("POST", "/v1/orgs", {"data": b" " * (MAX_BODY_BYTES + 1), **json_body}),
        415: ("POST", "/v1/orgs", {"data": b"{}", "content_type": "text/plain"}),
        422: ("POST", "/v1/orgs", {"data": b"{}", **json_body}),
        500: ("GET", here, {}),
        503: ("GET", here, {}),
    }
    answers: dict[int, list[object]] = {
        204: [[MONITOR_FOR_WRITING], [MONITOR]],
        412: [[MONITOR_FOR_WRITING]],
        500: [[{}]],
        503: [b"<html>"],
    }
    for status, (method, path, more) in asking.items():
        for answer in answers.get(status, []):
            upstream.answer(answer)
        reply = client.open(path, method=method, **{"headers": signed_in, **more})
        assert reply.status_code == status
        assert {name: reply.headers[name] for name in SECURITY} == SECURITY, status
        assert reply.headers["X-Request-ID"]


def test_a_request_id_goes_in_out_and_on_to_supabase(client, signed_in, upstream):
    answer = client.get("/v1/monitors", headers={**signed_in, "X-Request-ID": "from-the-phone-1"})
    assert answer.headers["X-Request-ID"] == "from-the-phone-1"
    assert upstream.requests[0].headers["X-Request-ID"] == "from-the-phone-1"


@pytest.mark.parametrize("strange", ["", "short", "x" * 129, "with blank 123", "new\tline12", "ünïcödé12"])
def test_a_strange_request_id_is_replaced(client, strange):
    given = client.get("/healthz", headers={"X-Request-ID": strange.encode().decode("latin-1")})
    assert re.fullmatch(r"[0-9a-f]{32}", given.headers["X-Request-ID"])


def test_a_listed_origin_may_read_the_answer_and_no_other_may(client, signed_in):
    ours = client.get("/v1/monitors", headers={**signed_in, "Origin": "https://app.example.com"})
    assert ours.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert {"ETag", "Content-Disposition"} <= set(ours.headers["Access-Control-Expose-Headers"].split(", "))
    assert "Origin" in ours.headers.getlist("Vary")
    for other in ("https://evil.example.com", "null", "https://app.example.com.evil.com", "http://app.example.com"):
        theirs = client.get("/v1/monitors", headers={**signed_in, "Origin": other})
        assert "Access-Control-Allow-Origin" not in theirs.headers
        assert "Origin" in theirs.headers.getlist("Vary")
    assert all(name != "Access-Control-Allow-Credentials" for name, _ in ours.headers), "no cookies are taken"


def test_errors_may_be_read_by_a_listed_origin_too(client):
    refused = client.get("/v1/monitors", headers={"Origin": "https://app.example.com"})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example.com"


def test_a_preflight_is_answered_without_a_token(client, upstream):
    asking = {
        "Origin": "https://app.example.com",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization, content-type, if-match",
    }
    answer = client.options("/v1/monitors", headers=asking)
    assert (answer.status_code, answer.data) == (204, b"")
    assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "content-type", "if-match", "if-none-match", "idempotency-key"} <= set(allowed)
    foreign = client.options("/v1/monitors", headers={**asking, "Origin": "https://evil.example.com"})
    assert "Access-Control-Allow-Methods" not in foreign.headers
    assert upstream.requests == []


def lines_of(capfd) -> list[dict[str, object]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines() if '"tocsin.access"' in line]


def test_each_request_has_one_line_in_the_log_and_nothing_secret_in_it(client, signed_in, upstream, capfd):
    upstream.answer([MONITOR])
    answer = client.get("/v1/monitors?limit=7", headers=signed_in)
    (line,) = lines_of(capfd)
    assert line["request_id"] == answer.headers["X-Request-ID"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v1/monitors", 200)
    assert line["route"] == "/v1/monitors"
    assert isinstance(line["duration_ms"], float)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", str(line["time"]))
    assert line["principal_id"]
    text = json.dumps(line)
    assert signed_in["Authorization"].split(".")[1] not in text
    assert "limit" not in text
    assert ENVIRONMENT["SUPABASE_JWT_SECRET"] not in text


def test_what_reaches_no_route_has_a_line_too(client, capfd):
    client.get("/nothing/" + "x" * 5000)
    (line,) = lines_of(capfd)
    assert (line["status"], line["route"]) == (404, "unmatched")
    assert len(json.dumps(line)) < 1500


def test_requests_are_counted_by_template_and_not_by_path(client, signed_in, upstream):
    upstream.answer([MONITOR])
    client.get(f"/v1/monitors/{MONITOR['id']}", headers=signed_in)
    client.get("/who/knows/what")
    client.open("/healthz", method="BREW")
    text = client.get("/metrics").text
    counted = r'tocsin_http_requests_total\{method="GET",route="/v1/monitors/<uuid:monitor_id>",status="200"\} \d'
    assert re.search(counted, text)
    assert MONITOR["id"] not in text
    assert "/who/knows" not in text
    assert 'method="BREW"' not in text
    assert 'tocsin_http_request_duration_seconds_bucket{le="0.005"' in text

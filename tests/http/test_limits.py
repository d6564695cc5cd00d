"""The edges of what is taken in: how large, how deep, how long; and what of an Accept header counts."""

import base64
import io

import pytest

from server.http.pagination import PageQuery
from server.http.parsing import MAX_BODY_BYTES
from tests.http.conftest import MONITOR, MONITOR_FOR_WRITING
from tests.http.test_errors import is_problem


def padded(size: int) -> bytes:
    body = b'{"name": "Acme"}'
    return body + b" " * (size - len(body))


@pytest.mark.parametrize("told", [True, False], ids=["with its length", "chunked"])
def test_a_body_of_1_mb_is_read_and_one_byte_more_is_413(client, signed_in, upstream, told):
    def send(body: bytes):
        if told:
            return client.post("/v1/orgs", data=body, content_type="application/json", headers=signed_in)
        return client.post(
            "/v1/orgs",
            input_stream=io.BytesIO(body),
            content_type="application/json",
            headers={**signed_in, "Transfer-Encoding": "chunked"},
            environ_overrides={"wsgi.input_terminated": True},
        )

    upstream.answer({**MONITOR_FOR_WRITING, "name": "Acme"})
    assert send(padded(MAX_BODY_BYTES)).status_code == 201
    is_problem(send(padded(MAX_BODY_BYTES + 1)), 413, "body_too_large")


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(client, signed_in):
    class Unread(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise AssertionError("somebody read it")

    answer = client.post(
        "/v1/orgs",
        input_stream=Unread(),
        content_type="application/json",
        headers=signed_in,
        environ_overrides={"CONTENT_LENGTH": str(10**12)},
    )
    is_problem(answer, 413, "body_too_large")


@pytest.mark.parametrize("depth", [101, 500, 900, 950, 1_000, 5_000, 400_000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["arrays", "objects"])
def test_however_deep_a_body_is_nested_it_is_400(client, signed_in, depth, opening):
    closing = b"]" if opening == b"[" else b"}"
    depth = min(depth, (MAX_BODY_BYTES - 20) // (len(opening) + 1))
    raw = b'{"name":' + opening * depth + b"1" + closing * depth + b"}"
    answer = client.post("/v1/orgs", data=raw, content_type="application/json", headers=signed_in)
    is_problem(answer, 400, "malformed_request")
    assert "deep" in answer.json["detail"]


def test_a_number_of_many_digits_is_400_and_says_so_in_our_words(client, signed_in):
    answer = client.post(
        "/v1/orgs", data=b'{"name":' + b"9" * 5000 + b"}", content_type="application/json", headers=signed_in
    )
    is_problem(answer, 400, "malformed_request")
    assert "digits" in answer.json["detail"]
    assert "sys." not in answer.json["detail"]


@pytest.mark.parametrize(
    ("path", "accept", "status"),
    [
        ("/healthz", "application/json", 200),
        ("/healthz", "APPLICATION/JSON", 200),
        ("/healthz", "application/json; charset=utf-8", 200),
        ("/healthz", "", 200),
        ("/healthz", "text/html", 406),
        ("/healthz", "application/jsonp", 406),
        ("/healthz", "application/json;q=0", 406),
        ("/healthz", "nonsense", 406),
        ("/docs", "text/html", 200),
        ("/docs", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 200),
        ("/docs", "application/json", 406),
        ("/docs/start.js", "text/css", 200),
        ("/metrics", "text/plain", 200),
        ("/metrics", "text/plain;version=0.0.4;q=0.5", 200),
        ("/metrics", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", 200),
        ("/metrics", "application/json", 406),
    ],
)
def test_what_a_client_accepts_is_matched_by_type_whatever_its_parameters(client, path, accept, status):
    assert client.get(path, headers={"Accept": accept}).status_code == status


@pytest.mark.parametrize(
    "at",
    [
        "2026-01-01T00:00:00+23:00",  # beyond what Postgres takes for an offset
        "2026-01-01T00:00:00+05:00",
        "2026-01-01T00:00:00-00:00:30",
        "0001-01-01T00:00:00+14:00",  # before the first year that Python knows
        "9999-12-31T23:59:59-14:00",
        "2026-01-01T00:00:00",
        "2026-01-01",
        "infinity",
    ],
)
def test_a_cursor_made_by_hand_is_422_before_the_database_sees_it(client, signed_in, upstream, at):
    cursor = base64.urlsafe_b64encode(f"{at}|{MONITOR['id']}".encode()).decode().rstrip("=")
    answer = client.get("/v1/monitors", query_string={"cursor": cursor}, headers=signed_in)
    is_problem(answer, 422, "invalid_input")
    assert answer.json["errors"][0]["pointer"] == "cursor"
    assert upstream.requests == []


def test_a_cursor_is_in_utc_whatever_the_time_zone_of_the_database(client, signed_in, upstream):
    rows = [{**MONITOR, "created_at": "2026-01-01T02:00:00+02:00"}, MONITOR]
    upstream.answer(rows)
    cursor = client.get("/v1/monitors?limit=1", headers=signed_in).json["next_cursor"]
    position = PageQuery(cursor=cursor).after
    assert position is not None
    assert position.at.isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    "tag", ['"3.a", "4.b"', '"3.a', "3.a", '"3."', 'W/"3.a"', '"-3.a"', '"3"', '"9999999999.a"', ""]
)
def test_an_if_match_that_is_not_one_etag_of_ours_is_412_and_writes_nothing(client, signed_in, upstream, tag):
    upstream.answer([MONITOR_FOR_WRITING])
    answer = client.delete(f"/v1/monitors/{MONITOR['id']}", headers={**signed_in, "If-Match": tag})
    is_problem(answer, 412, "precondition_failed")
    assert not [asked for asked in upstream.requests if asked.method == "DELETE"]

"""Lists: pages that neither repeat nor skip, and cursors that are ours alone."""

import base64
import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.http.pagination import Position, decode_cursor
from tests.http.conftest import MONITOR

OTHER_ID = "00000000-0000-4000-8000-000000000001"


def rows(count: int) -> list[dict[str, object]]:
    return [{**MONITOR, "id": str(uuid.UUID(int=count - number)), "version": number} for number in range(count)]


def test_a_page_asks_for_one_row_more_than_it_shows(client, signed_in, upstream):
    upstream.answer(rows(3))
    page = client.get("/v1/monitors?limit=2", headers=signed_in).json
    assert [row["version"] for row in page["data"]] == [0, 1]
    asked = parse_qs(urlsplit(upstream.requests[0].path).query)
    assert asked["limit"] == ["3"]
    assert asked["order"] == ["created_at.desc,id.desc"]


def test_the_last_page_has_no_cursor(client, signed_in, upstream):
    for count in (0, 1, 2):
        upstream.answer(rows(count))
        page = client.get("/v1/monitors?limit=2", headers=signed_in).json
        assert (len(page["data"]), page["next_cursor"]) == (count, None)


def test_the_next_page_begins_after_the_last_row_shown(client, signed_in, upstream):
    upstream.answer(rows(3))
    cursor = client.get("/v1/monitors?limit=2", headers=signed_in).json["next_cursor"]
    client.get(f"/v1/monitors?limit=2&cursor={cursor}", headers=signed_in)
    asked = parse_qs(urlsplit(upstream.requests[1].path).query)
    at, last = "2026-01-01T00:00:00.512345+00:00", str(uuid.UUID(int=2))
    assert asked["created_at"] == [f"lte.{at}"]
    assert asked["or"] == [f"(created_at.lt.{at},id.lt.{last})"]


def test_without_a_word_a_page_holds_fifty(client, signed_in, upstream):
    client.get("/v1/monitors", headers=signed_in)
    assert parse_qs(urlsplit(upstream.requests[0].path).query)["limit"] == ["51"]


@pytest.mark.parametrize("limit", ["-1", "0", "201", "1000000000", "abc", "1.5", "", "\uff11"])
def test_a_limit_outside_1_to_200_is_refused_by_name(client, signed_in, upstream, limit):
    answer = client.get("/v1/monitors", query_string={"limit": limit}, headers=signed_in)
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["limit"]
    assert answer.status_code == 422
    assert upstream.requests == []


@given(at=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), row_id=st.uuids())  # noqa: DTZ001  made aware below
def test_a_cursor_tells_its_position_and_nothing_but_itself(at, row_id):
    position = Position(at.replace(tzinfo=UTC), row_id)
    assert decode_cursor(position.encode()) == position


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "%%%",
        "A" * 201,
        base64.urlsafe_b64encode(b"2026-01-01|x").decode(),
        base64.urlsafe_b64encode(f"2026-01-01T00:00:00|{OTHER_ID}".encode()).decode(),
        base64.urlsafe_b64encode(f"2026-01-01T00:00:00+00:00|{OTHER_ID} or true".encode()).decode(),
        Position(datetime(2026, 1, 1, tzinfo=UTC), uuid.UUID(OTHER_ID)).encode() + "=",
        Position(datetime(2026, 1, 1, tzinfo=UTC), uuid.UUID(OTHER_ID)).encode()[:-3],
    ],
)
def test_a_cursor_that_was_tampered_with_is_refused(client, signed_in, upstream, cursor):
    answer = client.get("/v1/monitors", query_string={"cursor": cursor}, headers=signed_in)
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, "cursor")
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("sort=name", ("sort", "unknown_field")),
        ("limit=5&limit=6", ("limit", "given_twice")),
        ("state=broken", ("state", "enum")),
        ("paused=perhaps", ("paused", "bool_parsing")),
        ("org_id=1", ("org_id", "uuid_parsing")),
        ("cursor=%00", ("cursor", "nul_character")),
    ],
)
def test_a_parameter_that_is_not_offered_or_not_readable_is_refused_by_name(client, signed_in, query, fault):
    answer = client.get(f"/v1/monitors?{query}", headers=signed_in)
    assert answer.status_code == 422
    assert (answer.json["errors"][0]["pointer"], answer.json["errors"][0]["code"]) == fault


def test_a_route_without_parameters_takes_none(client, signed_in):
    assert client.get("/v1/me?verbose=1", headers=signed_in).status_code == 422
    assert client.get("/healthz?x=1").status_code == 422


def test_filters_reach_the_database(client, signed_in, upstream):
    query = {"org_id": MONITOR["org_id"], "state": "down", "paused": "false"}
    client.get("/v1/monitors", query_string=query, headers=signed_in)
    asked = parse_qs(urlsplit(upstream.requests[0].path).query)
    assert (asked["org_id"], asked["state"], asked["paused"]) == (
        [f"eq.{MONITOR['org_id']}"],
        ["eq.down"],
        ["eq.false"],
    )


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("from=yesterday", "from"),
        ("from=2026-01-01T00:00:00", "from"),
        ("to=0001-01-01T00:00:00Z", "to"),
        ("to=9999-12-31T00:00:00Z", "to"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
    ],
)
def test_a_window_that_cannot_be_is_refused_by_name(client, signed_in, upstream, query, pointer):
    answer = client.get(f"/v1/monitors/{MONITOR['id']}/uptime?{query}", headers=signed_in)
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, pointer)


def test_a_cursor_of_another_list_only_begins_elsewhere(client, signed_in, upstream):
    cursor = Position(datetime.now(UTC) - timedelta(days=1), uuid.uuid4()).encode()
    assert client.get(f"/v1/orgs?cursor={cursor}", headers=signed_in).status_code == 200

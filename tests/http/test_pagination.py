"""Lists: pages that neither repeat nor skip, and cursors that are ours alone."""

import base64
import re
import uuid
from datetime import datetime
from urllib.parse import parse_qs, parse_qsl, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.app import all_operations
from server.data.queries import compiled, table
from server.features.monitors.schemas import MonitorQuery
from server.http.pagination import PageQuery, Position, decode_cursor, name_key, paged
from tests.http.conftest import MONITOR
from tests.http.test_parsing import path_of

# What a name may hold: anything that Postgres can.
TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=200)
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
    at, last = "2026-01-01T00:00:00.512345Z", str(uuid.UUID(int=2))
    assert asked["created_at"] == [f"lte.{at}"]
    assert asked["or"] == [f"(created_at.lt.{at},id.lt.{last})"]


def test_without_a_word_a_page_holds_fifty(client, signed_in, upstream):
    client.get("/v1/monitors", headers=signed_in)
    assert parse_qs(urlsplit(upstream.requests[0].path).query)["limit"] == ["51"]


@pytest.mark.parametrize(
    "limit",
    ["-1", "0", "201", "1000000000", "abc", "1.5", "5.0", "5e0", "+5", " 5", "5_0", "05", "9" * 5000, "", "\uff11"],
)
def test_a_limit_outside_1_to_200_is_refused_by_name(client, signed_in, upstream, limit):
    answer = client.get("/v1/monitors", query_string={"limit": limit}, headers=signed_in)
    assert [fault["pointer"] for fault in answer.json["errors"]] == ["limit"]
    assert answer.status_code == 422
    assert upstream.requests == []


@given(
    position=st.builds(
        Position,
        st.sampled_from(["-created_at", "opened_at"]),
        st.datetimes(datetime(1000, 1, 1)).map(lambda at: at.isoformat() + "Z"),  # noqa: DTZ001  UTC by its Z
        st.uuids(),
    )
    | st.builds(Position, st.just("-name"), TEXTS.filter(bool), st.uuids())
)
def test_a_cursor_tells_its_position_and_nothing_but_itself(position):
    assert decode_cursor(position.encode()) == position
    assert position.encode().replace("-", "").replace("_", "").isalnum(), "it needs no escaping in a URL"


def packed(*position: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode().rstrip("=")


GOOD = ("-created_at", "2026-01-01T00:00:00Z", OTHER_ID)


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "%%%",
        "A" * 2001,
        base64.urlsafe_b64encode(b"2026-01-01|x").decode(),
        base64.urlsafe_b64encode(b'{"a":1}').decode(),
        base64.urlsafe_b64encode(b"[" * 1000).decode(),
        packed(*GOOD) + "=",
        packed(*GOOD)[:-3],
        packed(*GOOD[:2]),
        packed(*GOOD, "more"),
        packed("-created_at", "2026-01-01T00:00:00", OTHER_ID),
        packed("-created_at", "2026-01-01T00:00:00+00:00", OTHER_ID),
        packed("-created_at", "2026-13-01T00:00:00Z", OTHER_ID),
        packed("-created_at", "now()", OTHER_ID),
        packed("-created_at", 5, OTHER_ID),
        packed("-created_at", None, OTHER_ID),
        packed("-created_at", GOOD[1], f"{OTHER_ID} or true"),
        packed("-created_at", GOOD[1], OTHER_ID.replace("-", "")),
        packed("-created_at", GOOD[1], 1),
        packed(None, GOOD[1], OTHER_ID),
        packed(["-created_at"], GOOD[1], OTHER_ID),
        packed("-name", "a\0b", OTHER_ID),
    ],
)
def test_a_cursor_that_was_tampered_with_is_refused(client, signed_in, upstream, cursor):
    answer = client.get("/v1/monitors", query_string={"cursor": cursor}, headers=signed_in)
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, "cursor")
    assert upstream.requests == []


def test_a_cursor_carries_its_order_and_continues_no_other(client, signed_in, upstream):
    upstream.answer(rows(3))
    cursor = client.get("/v1/monitors?limit=2&order=name", headers=signed_in).json["next_cursor"]
    for query in ({}, {"order": "-name"}, {"order": "created_at"}):
        refused = client.get("/v1/monitors", query_string={**query, "cursor": cursor}, headers=signed_in)
        assert refused.status_code == 422
        (fault,) = refused.json["errors"]
        assert (fault["pointer"], fault["code"]) == ("cursor", "cursor_of_another_order")
        assert "another order" in fault["detail"]
    assert client.get(f"/v1/monitors?order=name&cursor={cursor}", headers=signed_in).status_code == 200


def test_a_cursor_of_a_text_is_no_time_to_a_list_without_a_choice():
    with pytest.raises(ValidationError):
        PageQuery(cursor=Position("name", "x", uuid.UUID(OTHER_ID)).encode())


ORDERS = {
    "list_monitors": ("-created_at", "created_at", "updated_at", "state_since", "name"),
    "list_incidents": ("-opened_at", "opened_at", "started_at"),
    "list_channels": ("-created_at", "created_at", "name"),
    "list_deliveries": ("-created_at", "created_at"),
    "list_checks": ("-started_at", "started_at"),
    "list_orgs": ("-created_at", "created_at"),
}


@pytest.mark.parametrize("name", ORDERS)
def test_each_order_is_in_the_document_and_any_other_is_refused_by_naming_them(name, client, signed_in, upstream):
    operation = next(operation for operation in all_operations() if operation.name == name)
    default, *columns = ORDERS[name]
    offered = {order for column in columns for order in (column, f"-{column}")}
    document = client.get("/openapi.json").json
    path = re.sub(r"<\w+:(\w+)>", r"{\1}", operation.path)
    (described,) = (each for each in document["paths"][path]["get"]["parameters"] if each.get("name") == "order")
    assert set(described["schema"]["enum"]) == offered
    assert described["schema"]["default"] == default
    for order in offered:
        upstream.answer([])
        assert client.get(f"{path_of(operation)}?order={order}", headers=signed_in).status_code == 200
    refused = client.get(f"{path_of(operation)}?order=secret", headers=signed_in)
    assert (refused.status_code, refused.json["errors"][0]["pointer"]) == (422, "order")
    assert all(order in refused.json["errors"][0]["detail"] for order in offered)


@given(name=TEXTS)
def test_a_name_in_a_cursor_is_asked_for_by_its_key(name):
    cursor = Position("-name", name, uuid.UUID(OTHER_ID)).encode()
    query = paged(table("monitors").select("id"), MonitorQuery(order="-name", cursor=cursor))
    asked = dict(parse_qsl(urlsplit(compiled(query).target).query, keep_blank_values=True))
    key = asked["name_key"].removeprefix("lte.")
    assert re.fullmatch(r"x[0-9a-f]*", key), "nothing in it has to be quoted"
    assert bytes.fromhex(key[1:]).decode() == name
    assert asked["or"] == f"(name_key.lt.{key},id.lt.{OTHER_ID})"


@given(one=TEXTS, other=TEXTS)
def test_keys_sort_as_the_code_points_of_their_names(one, other):
    assert (name_key(one) < name_key(other)) == (one < other)


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("sort=name", ("sort", "unknown_field")),
        ("limit=5&limit=6", ("limit", "given_twice")),
        ("state=broken", ("state", "unknown_choice")),
        ("state=", ("state", "unknown_choice")),
        ("state=up,broken", ("state", "unknown_choice")),
        ("state=up,%20down", ("state", "unknown_choice")),
        ("include=secrets", ("include", "unknown_choice")),
        ("include=open_incident,secrets", ("include", "unknown_choice")),
        ("paused=perhaps", ("paused", "bool_parsing")),
        ("paused=1", ("paused", "bool_parsing")),
        ("q=", ("q", "string_too_short")),
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
        ("from=1767225600", "from"),
        ("from=1767225600.5", "from"),
        ("from=2026-01-01", "from"),
        ("from=1999-12-31T23:30:00-01:00", "from"),
        ("to=2200-01-01T00:30:00%2B01:00", "to"),
        ("to=2026-01-01T00:00Z", "to"),
        ("from=2026-01-01T00:00:00", "from"),
        ("to=0001-01-01T00:00:00Z", "to"),
        ("to=9999-12-31T00:00:00Z", "to"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
    ],
)
def test_a_window_that_cannot_be_is_refused_by_name(client, signed_in, upstream, query, pointer):
    answer = client.get(f"/v1/monitors/{MONITOR['id']}/uptime?{query}", headers=signed_in)
    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, pointer)


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("/v1/incidents?opened_after=1767225600", "opened_after"),
        ("/v1/incidents?opened_before=2026-01-01", "opened_before"),
        (f"/v1/monitors/{MONITOR['id']}/checks?from=1767225600", "from"),
        (f"/v1/monitors/{MONITOR['id']}/checks?to=tomorrow", "to"),
        ("/v1/deliveries?type=incident.forgotten", "type"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused_by_name(client, signed_in, upstream, path, pointer):
    answer = client.get(path, headers=signed_in)
    assert (answer.status_code, [fault["pointer"] for fault in answer.json["errors"]]) == (422, [pointer])
    assert upstream.requests == []


def test_every_misspelt_parameter_is_named_beside_every_other_fault(client, signed_in):
    answer = client.get("/v1/monitors?limit=5.0&paused=yes&sort=x&order=up", headers=signed_in)
    assert {fault["pointer"]: fault["code"] for fault in answer.json["errors"]} == {
        "limit": "int_parsing",
        "paused": "bool_parsing",
        "sort": "unknown_field",
        "order": "literal_error",
    }


def test_several_choices_are_one_wish_however_they_are_written(client, signed_in, upstream):
    for state in ("acknowledged,open", "open,acknowledged", "open,open,acknowledged"):
        client.get(f"/v1/incidents?state={state}", headers=signed_in)
    assert len({asked.path for asked in upstream.requests}) == 1
    assert parse_qs(urlsplit(upstream.requests[0].path).query)["state"] == ["in.(open,acknowledged)"]


def test_a_cursor_of_another_list_only_begins_elsewhere(client, signed_in, upstream):
    cursor = Position("-created_at", "2026-01-01T00:00:00Z", uuid.uuid4()).encode()
    assert client.get(f"/v1/orgs?cursor={cursor}", headers=signed_in).status_code == 200

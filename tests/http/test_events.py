"""GET /v1/events: from the database's answer to the wire; and the way to the stream."""

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import BaseModel

from server.features.channels.schemas import Channel
from server.features.deliveries.schemas import Delivery
from server.features.events.rules import Position
from server.features.events.schemas import SHAPES, EventPage, wire_event
from server.features.incidents.schemas import Comment, Incident
from server.features.invitations.schemas import Invitation
from server.features.keys.schemas import ApiKey
from server.features.maintenance.schemas import Window
from server.features.monitors.schemas import Monitor
from server.features.orgs.schemas import Organisation
from server.http.shaping import time_fields
from tests.architecture.test_boundaries import ROOT
from tests.http.conftest import EVENTS, MONITOR, ORG_ID

MODELS: dict[str, type[BaseModel]] = {
    "organisation": Organisation,
    "monitor": Monitor,
    "incident": Incident,
    "incident_comment": Comment,
    "maintenance_window": Window,
    "channel": Channel,
    "delivery": Delivery,
    "api_key": ApiKey,
    "invitation": Invitation,
}
# What an event says beyond the resource's own GET, whose path names it; and kinds that have no GET of their own.
BEYOND = {"incident_comment": {"incident_id"}}
WITHOUT_MODEL = {"membership"}
AFTER = Position(700, 7)
ROW: dict[str, Any] = {
    "xid": "701",
    "seq": 12,
    "org_id": ORG_ID,
    "occurred_at": "2026-01-01T00:00:00.500000Z",
    "actor_kind": "user",
    "actor_id": MONITOR["id"],
    "type": "monitor.created",
    "subject_kind": "monitor",
    "subject_id": MONITOR["id"],
    "after": {**MONITOR, "created_at": "2026-01-01T01:00:00+01:00", "a_column_of_later": "hidden"},
}


def page(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**EVENTS, "events": list(rows), "roles": {ORG_ID: "viewer"}, "position": {"xid": "702", "seq": 0}, **more}


def test_a_page_shows_each_event_in_the_shape_of_its_resource(client, upstream, signed_in):
    upstream.answer(page(ROW, has_more=True))
    answer = client.get(f"/v1/events?after={AFTER.encode()}", headers=signed_in)
    assert answer.status_code == 200
    EventPage.model_validate_json(answer.data)
    (event,) = answer.json["data"]
    assert event["id"] == Position(701, 12).encode()
    assert event["actor"] == {"kind": "user", "id": MONITOR["id"]}
    assert event["subject"] == {"kind": "monitor", "id": MONITOR["id"]}
    assert event["data"] == {**MONITOR, **{name: event["data"][name] for name in time_fields(Monitor)}}
    assert event["data"]["created_at"] == "2026-01-01T00:00:00Z"
    assert (answer.json["next_after"], answer.json["has_more"]) == (Position(702, 0).encode(), True)


def test_what_the_caller_asks_reaches_the_database(client, upstream, signed_in):
    upstream.answer(page())
    client.get(f"/v1/events?after={AFTER.encode()}&limit=7&org_id={ORG_ID}", headers=signed_in)
    (asked,) = upstream.requests
    assert asked.path == "/rpc/read_events"
    assert asked.content == b'{"after_xid":"700","after_seq":7,"max_events":7,"of_org":"%b"}' % ORG_ID.encode()


def test_without_a_position_the_present_one_is_answered(client, upstream, signed_in):
    upstream.answer(page())
    answer = client.get("/v1/events", headers=signed_in)
    assert answer.json == {"data": [], "next_after": Position(702, 0).encode(), "has_more": False}
    assert b'"after_xid":null' in upstream.requests[0].content


def test_a_deletion_is_a_tombstone(client, upstream, signed_in):
    upstream.answer(page({**ROW, "type": "monitor.deleted", "after": None}))
    (event,) = client.get("/v1/events", headers=signed_in).json["data"]
    assert (event["type"], event["data"], event["subject"]["id"]) == ("monitor.deleted", None, MONITOR["id"])


def test_an_organisation_shows_what_the_reader_is_in_it():
    row = {**ROW, "subject_kind": "organisation", "after": {"id": ORG_ID, "name": "Acme"}}
    assert wire_event(row, "viewer")["data"] == {"id": ORG_ID, "name": "Acme", "my_role": "viewer"}


def test_of_a_kind_that_nobody_has_described_only_the_ids_are_shown():
    row = {**ROW, "subject_kind": "secret", "after": {"id": "x", "org_id": ORG_ID, "password": "y"}}
    assert wire_event(row, "owner")["data"] == {"id": "x", "org_id": ORG_ID}


@pytest.mark.parametrize("code", ["events_gone", "position_unknown"])
def test_a_position_from_which_nobody_can_go_on_is_410(client, upstream, signed_in, code):
    upstream.answer({"code": "PT410", "message": code, "details": "Start anew."}, 410)
    answer = client.get(f"/v1/events?after={AFTER.encode()}", headers=signed_in)
    assert (answer.status_code, answer.json["code"], answer.json["detail"]) == (410, code, "Start anew.")


@pytest.mark.parametrize("query", ["after=", "after=5", "after=x%00", "limit=0", "limit=201", "limit=1e9", "order=asc"])
def test_what_is_no_position_or_no_limit_is_422(client, upstream, signed_in, query):
    answer = client.get(f"/v1/events?{query}", headers=signed_in)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"] == query.partition("=")[0]
    assert upstream.requests == []


def test_an_organisation_of_others_is_answered_like_none(client, upstream, signed_in):
    upstream.answer(page(roles={}))
    assert client.get(f"/v1/events?org_id={ORG_ID}", headers=signed_in).status_code == 404


@pytest.mark.parametrize("broken", [[], {}, page({}), page({**ROW, "occurred_at": 5}), {**page(), "position": None}])
def test_an_answer_of_another_shape_is_a_failure_that_shows_nothing(client, upstream, signed_in, broken):
    upstream.answer(broken)
    answer = client.get("/v1/events", headers=signed_in)
    assert (answer.status_code, answer.json["code"]) == (500, "internal_error")


def test_the_stream_is_elsewhere_and_the_way_to_it_keeps_what_was_asked(client):
    answer = client.get(f"/v1/events/stream?after={AFTER.encode()}&org_id={ORG_ID}")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (307, "no-store")
    there = urlsplit(answer.headers["Location"])
    assert f"{there.scheme}://{there.netloc}{there.path}" == "http://127.0.0.1:8001/v1/events/stream"
    assert parse_qs(there.query) == {"after": [AFTER.encode()], "org_id": [ORG_ID]}
    assert client.get("/v1/events/stream?access_token=x").status_code == 400


@pytest.mark.parametrize("kind", MODELS)
def test_data_has_the_fields_and_times_of_the_resource(kind):
    model, shape = MODELS[kind], SHAPES[kind]
    assert set(shape.fields) == set(model.model_fields) | BEYOND.get(kind, set())
    assert set(shape.times) == set(time_fields(model))


def test_every_kind_of_subject_that_the_database_writes_of_has_a_shape():
    migrations = "".join(path.read_text() for path in sorted((ROOT / "supabase" / "migrations").glob("*.sql")))
    written = set(re.findall(r"append_event\('(\w+)'\)", migrations)) | {"delivery"}
    assert written == set(SHAPES)
    assert set(MODELS) | WITHOUT_MODEL == set(SHAPES)

"""What supabase-py's builder makes of the queries that our stores write, and that a statement knows nobody."""

import json
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import pytest

from server.data.clients import Supabase
from server.data.queries import Statement, call, compiled, table
from server.features.monitors import store as monitors
from server.features.monitors.schemas import MonitorQuery
from server.http.pagination import PageQuery, Position, paged
from tests.http.conftest import ORG_ID, SUPABASE_URL, FakeUpstream

ID = UUID("a7470079-8fd5-40eb-8b1d-c790840bc8b3")
POSITION = Position("-opened_at", "2026-01-02T03:04:05.600000Z", ID)
AT = "2026-01-02T03%3A04%3A05.600000Z"

# The schema, as the builder names it on everything; PostgREST heeds the one that fits the method.
PROFILE = {"accept-profile": "public", "content-profile": "public"}
WRITING = {**PROFILE, "content-type": "application/json"}
GIVING_BACK = {**WRITING, "prefer": "return=representation"}


def headers_of(statement: Statement) -> dict[str, str]:
    assert len(dict(statement.headers)) == len(statement.headers), "a header came twice"
    return dict(statement.headers)


@pytest.mark.parametrize(
    ("query", "target"),
    [
        (table("monitors").select("id,name").limit(1), "/monitors?select=id%2Cname&limit=1"),
        (table("monitors").select("id", "name"), "/monitors?select=id%2Cname"),
        (table("monitors").select("id").eq("id", ID), f"/monitors?select=id&id=eq.{ID}"),
        (table("monitors").select("id").eq("paused", True), "/monitors?select=id&paused=eq.true"),
        (table("memberships").select("role").order("created_at"), "/memberships?select=role&order=created_at.asc"),
        (
            table("memberships").select("org_id", "organisations(name)"),
            "/memberships?select=org_id%2Corganisations%28name%29",
        ),
        (
            table("channels").select("version", "...organisations!channels_org_id_fkey(my_role)"),
            "/channels?select=version%2C...organisations%21channels_org_id_fkey%28my_role%29",
        ),
        (
            table("incidents")
            .select("id", "comments:incident_comments(id)")
            .order("created_at", foreign_table="comments")
            .limit(200, foreign_table="comments")
            .limit(1),
            "/incidents?select=id%2Ccomments%3Aincident_comments%28id%29&comments.order=created_at.asc"
            "&comments.limit=200&limit=1",
        ),
        (
            paged(table("monitors").select("id"), PageQuery()),
            "/monitors?select=id&order=created_at.desc%2Cid.desc&limit=51",
        ),
        (
            paged(table("incidents").select("id"), PageQuery(limit=2, cursor=POSITION.encode()), by="opened_at"),
            f"/incidents?select=id&opened_at=lte.{AT}&or=%28opened_at.lt.{AT}%2Cid.lt.{ID}%29"
            "&order=opened_at.desc%2Cid.desc&limit=3",
        ),
    ],
)
def test_a_select_is_a_get_with_its_filters_and_order_in_the_url(query, target):
    statement = compiled(query)
    assert (statement.method, statement.target, statement.content) == ("GET", target, None)
    assert headers_of(statement) == PROFILE


def test_an_insert_sends_the_row_and_asks_for_it_back():
    statement = compiled(table("incident_comments").insert({"org_id": ORG_ID, "body": "é"}).select("id,body"))
    assert (statement.method, statement.target) == ("POST", "/incident_comments?select=id%2Cbody")
    assert json.loads(statement.content or b"") == {"org_id": ORG_ID, "body": "é"}
    assert headers_of(statement) == GIVING_BACK


def test_an_update_changes_what_its_filters_match_and_asks_for_it_back():
    statement = compiled(table("monitors").update({"paused": True}).eq("id", ID).eq("version", 3).select("id"))
    assert (statement.method, statement.target) == ("PATCH", f"/monitors?id=eq.{ID}&version=eq.3&select=id")
    assert json.loads(statement.content or b"") == {"paused": True}
    assert headers_of(statement) == GIVING_BACK


def test_a_delete_deletes_what_its_filters_match_and_says_what_that_was():
    statement = compiled(table("channels").delete().eq("id", ID).select("id"))
    assert (statement.method, statement.target) == ("DELETE", f"/channels?id=eq.{ID}&select=id")
    assert statement.content == b"{}", "the builder's own; PostgREST reads no body of a DELETE"
    assert headers_of(statement) == GIVING_BACK


def test_a_call_posts_its_arguments_to_the_function():
    statement = call("delete_organisation", {"org_id": ORG_ID, "expected_version": None})
    assert (statement.method, statement.target) == ("POST", "/rpc/delete_organisation")
    assert json.loads(statement.content or b"") == {"org_id": ORG_ID, "expected_version": None}
    assert headers_of(statement) == WRITING


@pytest.mark.parametrize(
    "text", ["a,b", "a.b", "(a)", 'say "x"', "a&b=c", "x%y", "ü 🚨", "null", "*", "a\0b", "a+b", "\\", "\n"]
)
def test_text_in_a_filter_stays_text(text):
    statement = compiled(table("monitors").select("id").eq("name", text))
    assert parse_qsl(statement.target.partition("?")[2], strict_parsing=True) == [
        ("select", "id"),
        ("name", f"eq.{text}"),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        compiled(table("monitors").select("id")),
        compiled(table("monitors").insert({"name": "x"}).select("id")),
        call("record", {"batch": []}),
    ],
)
def test_a_statement_carries_no_identity_and_cannot_be_changed(statement: Statement):
    names = {name.lower() for name, _ in statement.headers}
    assert names <= {"accept-profile", "content-profile", "content-type", "prefer"}
    assert isinstance(statement.headers, tuple)
    with pytest.raises(AttributeError):
        statement.target = "/secrets"  # type: ignore[misc]


def test_building_one_query_leaves_nothing_in_the_next():
    compiled(table("monitors").insert({"name": "x"}).select("id"))
    compiled(table("monitors").select("id").eq("id", ID).limit(1))
    assert compiled(table("monitors").select("*")).target == "/monitors?select=%2A"


def test_a_nul_and_a_quote_in_a_body_are_escaped_by_json():
    statement = call("create_organisation", {"name": 'a\0b "c" \\ ü 🚨'})
    assert b"\0" not in (statement.content or b"")
    assert json.loads(statement.content or b"") == {"name": 'a\0b "c" \\ ü 🚨'}


def test_the_same_query_makes_equal_statements():
    def build() -> Statement:
        return compiled(table("monitors").update({"paused": True}).eq("id", ID).select("id"))

    assert build() == build()
    query = table("monitors").select("id").eq("id", ID).limit(1)
    assert compiled(query) == compiled(query), "to compile a query leaves it as it was"


def database(upstream: FakeUpstream, token: str, request_id: str = "r") -> Any:
    return Supabase(upstream, SUPABASE_URL, "sb_publishable_x").as_user(token, request_id)  # type: ignore[arg-type]


def test_a_remembered_statement_goes_out_in_the_name_of_whoever_asks_next():
    upstream = FakeUpstream()
    for token, request_id in [("adas", "1"), ("bobs", "2"), ("adas", "3")]:
        monitors.list_page(
            database(upstream, token, request_id),
            PageQuery(),
            org_id=None,
            states=(),
            kinds=(),
            paused=None,
            name_holds=None,
        )
    sent = [(asked.headers["Authorization"], asked.headers["X-Request-ID"]) for asked in upstream.requests]
    assert sent == [("Bearer adas", "1"), ("Bearer bobs", "2"), ("Bearer adas", "3")]
    assert len({(asked.method, asked.url, asked.content) for asked in upstream.requests}) == 1
    assert monitors._page(*ANY) is monitors._page(*ANY)


ANY: tuple[Any, ...] = (PageQuery(), None, (), (), None, None, ())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((*ANY[:4], True, None, ()), (*ANY[:4], False, None, ())),
        ((*ANY[:4], False, None, ()), ANY),
        ((PageQuery(limit=1), *ANY[1:]), (PageQuery(limit=2), *ANY[1:])),
        ((MonitorQuery(order="name"), *ANY[1:]), (MonitorQuery(order="-name"), *ANY[1:])),
        ((PageQuery(), ID, *ANY[2:]), (PageQuery(), UUID(ORG_ID), *ANY[2:])),
        ((PageQuery(), None, ("up",), *ANY[3:]), (PageQuery(), None, ("down",), *ANY[3:])),
        ((PageQuery(), None, (), ("tcp",), *ANY[4:]), (PageQuery(), None, (), ("tls",), *ANY[4:])),
        ((*ANY[:5], "a", ()), (*ANY[:5], "b", ())),
        ((*ANY[:6], ("latest_check",)), ANY),
        ((PageQuery(cursor=POSITION.encode()), *ANY[1:]), ANY),
    ],
)
def test_what_is_remembered_of_one_question_answers_no_other(one, other):
    assert monitors._page(*one) != monitors._page(*other)

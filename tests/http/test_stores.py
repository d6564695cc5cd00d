"""What each function of each store asks of the database, and that none is left out."""

import importlib.util
import inspect
import json
import pkgutil
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import pytest

from server import features
from server.data.memberships import read_memberships
from server.features.channels import store as channels
from server.features.checks import store as checks
from server.features.deliveries import store as deliveries
from server.features.events import store as events
from server.features.events.rules import Position
from server.features.incidents import store as incidents
from server.features.incidents.rules import IncidentState
from server.features.me import store as me
from server.features.monitors import store as monitors
from server.features.monitors.rules import State
from server.features.orgs import store as orgs
from server.features.uptime import store as uptime
from server.http.pagination import PageQuery
from tests.http.conftest import ORG_ID, FakeUpstream
from tests.http.test_queries import ID, POSITION, database

ORG = UUID(ORG_ID)
PAGE = PageQuery()
NEWEST = {"order": "created_at.desc,id.desc", "limit": "51"}
ONE = {"id": f"eq.{ID}", "limit": "1"}
ROLE = "...organisations!{}_org_id_fkey(my_role)"
ROW = {"name": "x"}

# What each function of each store is called with, and what leaves: method, table or function, parameters, body.
STORES: dict[Any, tuple[tuple[Any, ...], dict[str, Any], str, str, dict[str, str], Any]] = {
    channels.create: ((ROW,), {}, "POST", "rpc/create_channel", {}, ROW),
    channels.list_page: (
        (PAGE, ORG),
        {},
        "GET",
        "channels",
        {"select": channels.COLUMNS, "org_id": f"eq.{ORG}", **NEWEST},
        None,
    ),
    channels.read_for_writing: (
        (ID,),
        {},
        "GET",
        "channels",
        {"select": f"version,{ROLE.format('channels')}", **ONE},
        None,
    ),
    channels.delete: (
        (ID, 3),
        {},
        "DELETE",
        "channels",
        {"id": f"eq.{ID}", "version": "eq.3", "select": "id"},
        {},
    ),
    checks.list_page: (
        (ID, PageQuery(limit=2, cursor=POSITION.encode()), "failed"),
        {},
        "POST",
        "rpc/monitor_checks",
        {},
        {
            "monitor_id": str(ID),
            "before_at": "2026-01-02T03:04:05.600000+00:00",
            "before_id": str(ID),
            "with_outcome": "failed",
            "max_rows": 3,
        },
    ),
    deliveries.list_page: (
        (PAGE, {"state": "dead", "channel_id": ID, "org_id": None}),
        {},
        "GET",
        "deliveries",
        {"select": deliveries.COLUMNS, "state": "eq.dead", "channel_id": f"eq.{ID}", **NEWEST},
        None,
    ),
    deliveries.retry: ((ID,), {}, "POST", "rpc/retry_delivery", {}, {"delivery_id": str(ID)}),
    deliveries.test_channel: ((ID,), {}, "POST", "rpc/test_channel", {}, {"channel_id": str(ID)}),
    events.read_page: (
        (Position(2**63 - 1, 5), 50, ORG),
        {},
        "POST",
        "rpc/read_events",
        {},
        {"after_xid": "9223372036854775807", "after_seq": 5, "max_events": 50, "of_org": ORG_ID},
    ),
    incidents.list_page: (
        (PAGE,),
        {"org_id": ORG, "monitor_id": ID, "state": IncidentState.OPEN},
        "GET",
        "incidents",
        {
            "select": incidents.COLUMNS,
            "org_id": f"eq.{ORG}",
            "monitor_id": f"eq.{ID}",
            "state": "eq.open",
            "order": "opened_at.desc,id.desc",
            "limit": "51",
        },
        None,
    ),
    incidents.read: (
        (ID,),
        {},
        "GET",
        "incidents",
        {
            "select": f"{incidents.COLUMNS},comments:incident_comments({incidents.COMMENT_COLUMNS})",
            "comments.order": "created_at.asc",
            "comments.limit": "200",
            **ONE,
        },
        None,
    ),
    incidents.read_for_writing: (
        (ID,),
        {},
        "GET",
        "incidents",
        {"select": f"{incidents.COLUMNS},{ROLE.format('incidents')}", **ONE},
        None,
    ),
    incidents.move: (
        (ID, IncidentState.OPEN, IncidentState.RESOLVED, 3),
        {},
        "PATCH",
        "incidents",
        {"id": f"eq.{ID}", "state": "eq.open", "version": "eq.3", "select": incidents.COLUMNS},
        {"state": "resolved"},
    ),
    incidents.comment: (
        (ID, ORG, "x"),
        {},
        "POST",
        "incident_comments",
        {"select": incidents.COMMENT_COLUMNS},
        {"incident_id": str(ID), "org_id": ORG_ID, "body": "x"},
    ),
    me.memberships: (
        (str(ID),),
        {},
        "GET",
        "memberships",
        {
            "select": "org_id,role,organisations(name)",
            "user_id": f"eq.{ID}",
            "order": "created_at.asc",
            "limit": "1000",
        },
        None,
    ),
    monitors.create: ((ROW,), {}, "POST", "monitors", {"select": monitors.COLUMNS}, ROW),
    monitors.list_page: (
        (PAGE,),
        {"org_id": ORG, "state": State.DOWN, "paused": False},
        "GET",
        "monitors",
        {"select": monitors.COLUMNS, "org_id": f"eq.{ORG}", "state": "eq.down", "paused": "eq.false", **NEWEST},
        None,
    ),
    monitors.read: ((ID,), {}, "GET", "monitors", {"select": monitors.COLUMNS, **ONE}, None),
    monitors.read_for_writing: (
        (ID,),
        {},
        "GET",
        "monitors",
        {"select": f"{monitors.COLUMNS},{ROLE.format('monitors')}", **ONE},
        None,
    ),
    monitors.update: (
        (ID, ROW, 3),
        {},
        "PATCH",
        "monitors",
        {"id": f"eq.{ID}", "version": "eq.3", "select": monitors.COLUMNS},
        ROW,
    ),
    monitors.delete: (
        (ID, None),
        {},
        "DELETE",
        "monitors",
        {"id": f"eq.{ID}", "select": "id"},
        {},
    ),
    orgs.create: (("x",), {}, "POST", "rpc/create_organisation", {}, {"name": "x"}),
    orgs.list_page: ((PAGE,), {}, "GET", "organisations", {"select": ",".join(orgs.COLUMNS), **NEWEST}, None),
    orgs.read: ((ID,), {}, "GET", "organisations", {"select": ",".join(orgs.COLUMNS), **ONE}, None),
    orgs.rename: (
        (ORG, "x", 3),
        {},
        "POST",
        "rpc/rename_organisation",
        {},
        {"org_id": ORG_ID, "name": "x", "expected_version": 3},
    ),
    orgs.delete: ((ORG, None), {}, "POST", "rpc/delete_organisation", {}, {"org_id": ORG_ID, "expected_version": None}),
    uptime.read_history: (
        (ID, POSITION.at, POSITION.at),
        {},
        "POST",
        "rpc/monitor_history",
        {},
        {
            "monitor_id": str(ID),
            "from_at": "2026-01-02T03:04:05.600000+00:00",
            "to_at": "2026-01-02T03:04:05.600000+00:00",
        },
    ),
    read_memberships: (
        (str(ID),),
        {},
        "GET",
        "memberships",
        {"select": "org_id,role", "user_id": f"eq.{ID}", "limit": "1000"},
        None,
    ),
}


@pytest.mark.parametrize("function", STORES, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_what_each_function_of_the_stores_asks(function):
    arguments, named, method, target, parameters, body = STORES[function]
    upstream = FakeUpstream()
    upstream.answer(b"null" if function is uptime.read_history else b"[]" if function is read_memberships else b"[{}]")
    function(database(upstream, "adas"), *arguments, **named)
    (asked,) = upstream.requests
    path, _, query = asked.path.partition("?")
    sent = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    content = None if asked.content is None else json.loads(asked.content)
    assert (asked.method, path, sent, content) == (method, f"/{target}", parameters, body)
    assert asked.headers["Authorization"] == "Bearer adas"


def test_every_function_of_every_store_is_in_that_table():
    found = set()
    for feature in pkgutil.iter_modules(features.__path__):
        name = f"{features.__name__}.{feature.name}.store"
        if importlib.util.find_spec(name):
            module = importlib.import_module(name)
            found |= {
                function
                for function in vars(module).values()
                if inspect.isfunction(function)
                and function.__module__ == name
                and not function.__name__.startswith("_")
            }
    assert found == set(STORES) - {read_memberships}

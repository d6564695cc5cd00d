"""What each function of each store asks of the database, and that none is left out."""

import hashlib
import importlib.util
import inspect
import json
import pkgutil
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

import pytest

from server import features
from server.data.memberships import read_memberships
from server.features.audit import store as audit
from server.features.audit.rules import Position as AuditPosition
from server.features.channels import store as channels
from server.features.checks import store as checks
from server.features.deliveries import store as deliveries
from server.features.events import store as events
from server.features.events.rules import Position
from server.features.incidents import store as incidents
from server.features.incidents.rules import IncidentState
from server.features.incidents.schemas import IncidentQuery
from server.features.intervals import store as intervals
from server.features.invitations import store as invitations
from server.features.keys import store as keys
from server.features.keys.routes import spell_secret
from server.features.keys.rules import Scope
from server.features.maintenance import store as maintenance
from server.features.me import store as me
from server.features.members import store as members
from server.features.monitors import store as monitors
from server.features.orgs import store as orgs
from server.features.overview import store as overview
from server.features.pings import store as pings
from server.features.reports import store as reports
from server.features.series import store as series
from server.features.series.rules import Lengths
from server.features.uptime import store as uptime
from server.features.usage import store as usage
from server.http.pagination import PageQuery
from server.recurrence import Occurrence, Written
from tests.http.conftest import ORG_ID, FakeUpstream
from tests.http.test_queries import ID, POSITION, database

ORG = UUID(ORG_ID)
PAGE = PageQuery()
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
COMMENTS = f"comments:incident_comments({incidents.COMMENT_COLUMNS})"
MONITOR_OF_INCIDENT = "monitor:monitors!incidents_monitor_id_fkey(id,name,kind,target,state,paused)"
NEWEST = {"order": "created_at.desc,id.desc", "limit": "51"}
ONE = {"id": f"eq.{ID}", "limit": "1"}
ROLE = "...organisations!{}_org_id_fkey(my_role)"
ROW = {"name": "x"}
KEY = spell_secret(bytes(32))
KEY_STORED = {"prefix": KEY[:15], "secret_hash": hashlib.sha256(KEY.encode()).hexdigest()}
FIRST_PAGE = {"org_id": ORG_ID, "before_at": None, "before_id": None, "max_rows": 51}
WRITTEN = Written([Occurrence(MOMENT, POSITION.at)], None)
WRITTEN_OUT = {
    "occurrences": [{"starts_at": MOMENT.isoformat(), "ends_at": POSITION.at.isoformat()}],
    "written_until": None,
}

AUDIT_PAGE = {
    "org_id": ORG_ID,
    "type": None,
    "before_at": "2026-01-02T03:04:05.600000+00:00",
    "before_seq": 7,
    "below_xid": "9",
    "max_rows": 3,
}

# What each function of each store is called with, and what leaves: method, table or function, parameters, body.
STORES: dict[Any, tuple[tuple[Any, ...], dict[str, Any], str, str, dict[str, str], Any]] = {
    audit.read_page: (
        ({"org_id": ORG_ID, "type": None},),
        {"after": AuditPosition(POSITION.at, 7), "max_rows": 3, "below_xid": "9"},
        "POST",
        "rpc/audit_page",
        {},
        AUDIT_PAGE,
    ),
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
        (ID, PageQuery(limit=2, cursor=POSITION.encode()), "down", MOMENT, None),
        {},
        "POST",
        "rpc/list_checks",
        {},
        {
            "monitor_id": str(ID),
            "ascending": False,
            "after_at": "2026-01-02T03:04:05.600000Z",
            "after_id": str(ID),
            "with_outcome": "down",
            "from_at": "2026-01-01T00:00:00+00:00",
            "to_at": None,
            "max_rows": 3,
        },
    ),
    deliveries.list_page: (
        (
            PAGE,
            {"channel_id": ID, "org_id": None},
            ("pending", "dead"),
            ("channel.test",),
            ("channel", "incident"),
        ),
        {},
        "GET",
        "deliveries",
        {
            "select": f"{deliveries.COLUMNS},channel:channels!deliveries_channel_id_fkey(id,name,kind,url),"
            "incident:incidents!deliveries_incident_id_fkey"
            "(id,monitor_id,state,cause,summary,started_at,opened_at,resolved_at)",
            "channel_id": f"eq.{ID}",
            "state": "in.(pending,dead)",
            "type": "eq.channel.test",
            **NEWEST,
        },
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
        (IncidentQuery(),),
        {
            "org_id": ORG,
            "monitor_id": ID,
            "states": ("open", "acknowledged"),
            "opened_after": MOMENT,
            "opened_before": None,
            "include": ("monitor", "comments"),
        },
        "GET",
        "incidents",
        {
            "select": f"{incidents.COLUMNS},{MONITOR_OF_INCIDENT},{COMMENTS}",
            "org_id": f"eq.{ORG}",
            "monitor_id": f"eq.{ID}",
            "state": "in.(open,acknowledged)",
            "opened_at": "gte.2026-01-01T00:00:00+00:00",
            "comments.order": "created_at.asc,id.asc",
            "comments.limit": "20",
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
            "comments.order": "created_at.asc,id.asc",
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
        "POST",
        "rpc/move_incident",
        {},
        {"incident_id": str(ID), "from_state": "open", "to_state": "resolved", "expected_version": 3},
    ),
    incidents.comment: (
        (ID, ORG, "x"),
        {},
        "POST",
        "rpc/comment_on_incident",
        {},
        {"incident_id": str(ID), "org_id": ORG_ID, "body": "x"},
    ),
    intervals.list_page: (
        (ID, PageQuery(limit=2, cursor=POSITION.encode()), ("up", "down"), MOMENT, None),
        {},
        "POST",
        "rpc/list_intervals",
        {},
        {
            "monitor_id": str(ID),
            "before_at": "2026-01-02T03:04:05.600000+00:00",
            "before_id": str(ID),
            "with_states": ["up", "down"],
            "from_at": "2026-01-01T00:00:00+00:00",
            "to_at": None,
            "max_rows": 3,
        },
    ),
    reports.read_sla: (
        (None, MOMENT, POSITION.at, 7),
        {},
        "POST",
        "rpc/sla_report",
        {},
        {
            "org_id": None,
            "from_at": "2026-01-01T00:00:00+00:00",
            "to_at": "2026-01-02T03:04:05.600000+00:00",
            "max_monitors": 7,
        },
    ),
    series.read_series: (
        (ID, "eu", MOMENT, POSITION.at, Lengths(None, 3600, 86400)),
        {},
        "POST",
        "rpc/read_series",
        {},
        {
            "monitor_id": str(ID),
            "in_region": "eu",
            "from_at": "2026-01-01T00:00:00+00:00",
            "to_at": "2026-01-02T03:04:05.600000+00:00",
            "raw_seconds": None,
            "hour_seconds": 3600,
            "day_seconds": 86400,
        },
    ),
    pings.ping: (({"ping_id": str(ID)},), {}, "POST", "rpc/ping", {}, {"ping_id": str(ID)}),
    pings.read_heartbeat: ((ID,), {}, "POST", "rpc/read_heartbeat", {}, {"monitor_id": str(ID)}),
    pings.list_page: (
        (ID, PAGE),
        {},
        "POST",
        "rpc/list_pings",
        {},
        {"monitor_id": str(ID), "before_at": None, "before_id": None, "max_rows": 51},
    ),
    pings.read_body: (
        (ID, ID),
        {},
        "GET",
        "pings",
        {"select": "body", "id": f"eq.{ID}", "monitor_id": f"eq.{ID}", "body": "not.is.null", "limit": "1"},
        None,
    ),
    maintenance.create: (
        (ROW, WRITTEN),
        {},
        "POST",
        "rpc/create_maintenance_window",
        {},
        {"draft": ROW, **WRITTEN_OUT},
    ),
    maintenance.list_page: (
        (PAGE, ORG, True),
        {},
        "GET",
        "maintenance_schedule",
        {"select": maintenance.COLUMNS_NOW, "org_id": f"eq.{ORG}", "active": "eq.true", **NEWEST},
        None,
    ),
    maintenance.read: ((ID,), {}, "GET", "maintenance_schedule", {"select": maintenance.COLUMNS_NOW, **ONE}, None),
    maintenance.read_for_writing: (
        (ID,),
        {},
        "GET",
        "maintenance_windows",
        {"select": f"{maintenance.COLUMNS},{ROLE.format('maintenance_windows')}", **ONE},
        None,
    ),
    maintenance.update: (
        (ID, ROW, 3, WRITTEN),
        {},
        "POST",
        "rpc/change_maintenance_window",
        {},
        {"window_id": str(ID), "changes": ROW, "expected_version": 3, **WRITTEN_OUT},
    ),
    maintenance.end: (
        (ID, 3),
        {},
        "POST",
        "rpc/end_maintenance_window",
        {},
        {"window_id": str(ID), "expected_version": 3},
    ),
    maintenance.delete: (
        (ID, 3),
        {},
        "DELETE",
        "maintenance_windows",
        {"id": f"eq.{ID}", "version": "eq.3", "select": "id"},
        {},
    ),
    me.memberships: (
        (),
        {},
        "GET",
        "organisations",
        {"select": "id,name,my_role", "order": "created_at.asc", "limit": "1000"},
        None,
    ),
    keys.create: (
        (ORG, "CI", KEY, [Scope.READ], None),
        {},
        "POST",
        "rpc/create_api_key",
        {},
        {"org_id": ORG_ID, "name": "CI", **KEY_STORED, "scopes": ["read"], "expires_at": None},
    ),
    keys.list_page: (
        (PAGE, ORG),
        {},
        "GET",
        "api_keys",
        {"select": keys.COLUMNS, "org_id": f"eq.{ORG}", **NEWEST},
        None,
    ),
    keys.read: ((ID,), {}, "GET", "api_keys", {"select": keys.COLUMNS, **ONE}, None),
    keys.rotate: (
        (ID, KEY, 60),
        {},
        "POST",
        "rpc/rotate_api_key",
        {},
        {"key_id": str(ID), **KEY_STORED, "overlap_seconds": 60},
    ),
    keys.revoke: ((ID, 3), {}, "POST", "rpc/revoke_api_key", {}, {"key_id": str(ID), "expected_version": 3}),
    monitors.create: ((ROW,), {}, "POST", "rpc/create_monitor", {}, {"draft": ROW}),
    monitors.create_all: (
        ([ROW],),
        {"each_by_itself": True},
        "POST",
        "rpc/create_monitors",
        {},
        {"drafts": [ROW], "each_by_itself": True},
    ),
    monitors.keep_preview: ((ROW,), {}, "POST", "rpc/keep", {}, {"answer": ROW}),
    monitors.set_paused: (
        (ID, True, 3),
        {},
        "POST",
        "rpc/set_monitor_paused",
        {},
        {"monitor_id": str(ID), "paused": True, "expected_version": 3},
    ),
    invitations.create: (
        (ORG, "grace@example.com", "viewer", "hash"),
        {},
        "POST",
        "rpc/create_invitation",
        {},
        {"org_id": ORG_ID, "email": "grace@example.com", "role": "viewer", "token_hash": "hash"},
    ),
    invitations.list_page: ((ORG, PAGE), {}, "POST", "rpc/list_invitations", {}, FIRST_PAGE),
    invitations.resend: (
        (ORG, ID, "hash"),
        {},
        "POST",
        "rpc/resend_invitation",
        {},
        {"org_id": ORG_ID, "invitation_id": str(ID), "token_hash": "hash"},
    ),
    invitations.revoke: (
        (ORG, ID, 3),
        {},
        "POST",
        "rpc/revoke_invitation",
        {},
        {"org_id": ORG_ID, "invitation_id": str(ID), "expected_version": 3},
    ),
    invitations.accept: (("token",), {}, "POST", "rpc/accept_invitation", {}, {"token": "token"}),
    members.list_page: (
        (ORG, PageQuery(limit=2, cursor=POSITION.encode())),
        {},
        "POST",
        "rpc/list_members",
        {},
        {
            "org_id": ORG_ID,
            "before_at": "2026-01-02T03:04:05.600000+00:00",
            "before_id": str(ID),
            "max_rows": 3,
        },
    ),
    members.read: ((ORG, ID), {}, "POST", "rpc/read_member", {}, {"org_id": ORG_ID, "user_id": str(ID)}),
    members.read_for_writing: (
        (ORG, ID),
        {},
        "GET",
        "memberships",
        {
            "select": "role,version,...organisations!memberships_org_id_fkey(my_role,require_aal2)",
            "org_id": f"eq.{ORG}",
            "user_id": f"eq.{ID}",
            "limit": "1",
        },
        None,
    ),
    members.change_role: (
        (ORG, ID, "admin", 3),
        {},
        "POST",
        "rpc/change_member_role",
        {},
        {"org_id": ORG_ID, "user_id": str(ID), "role": "admin", "expected_version": 3},
    ),
    members.remove: (
        (ORG, ID, None),
        {},
        "POST",
        "rpc/remove_member",
        {},
        {"org_id": ORG_ID, "user_id": str(ID), "expected_version": None},
    ),
    members.leave: ((ORG,), {}, "POST", "rpc/leave_organisation", {}, {"org_id": ORG_ID}),
    monitors.list_page: (
        (PAGE,),
        {
            "org_id": ORG,
            "states": ("down",),
            "kinds": ("tcp", "heartbeat"),
            "paused": False,
            "name_holds": "50% (*)",
            "include": ("open_incident", "latest_check"),
        },
        "GET",
        "monitors",
        {
            "select": f"{monitors.COLUMNS},open_incident:incidents!incidents_monitor_id_fkey"
            "(id,state,cause,summary,started_at,opened_at,acknowledged_at),latest_check:check_results"
            "(id,started_at,region,outcome,status_code,error_kind,error_detail,total_ms)",
            "open_incident.resolved_at": "is.null",
            "open_incident.limit": "1",
            "latest_check.order": "started_at.desc,id.desc",
            "latest_check.limit": "1",
            "org_id": f"eq.{ORG}",
            "state": "eq.down",
            "kind": "in.(tcp,heartbeat)",
            "paused": "eq.false",
            "name": r"imatch.()50\% \(\*\)()",
            **NEWEST,
        },
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
    orgs.update: (
        (ORG, {"name": "x", "require_aal2": True}, 3),
        {},
        "POST",
        "rpc/update_organisation",
        {},
        {"org_id": ORG_ID, "changes": {"name": "x", "require_aal2": True}, "expected_version": 3},
    ),
    orgs.transfer: (
        (ORG, ID),
        {},
        "POST",
        "rpc/transfer_organisation",
        {},
        {"org_id": ORG_ID, "user_id": str(ID)},
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
    usage.read: ((ORG,), {}, "POST", "rpc/organisation_usage", {}, {"org_id": ORG_ID}),
    overview.read_overview: ((ORG,), {}, "POST", "rpc/overview", {}, {"org_id": ORG_ID}),
    read_memberships: (
        (str(ID),),
        {},
        "GET",
        "memberships",
        {"select": "org_id,role", "user_id": f"eq.{ID}", "limit": "1000"},
        None,
    ),
}
# What the database answers to those that look at it.
ANSWERS: dict[Any, object] = {
    uptime.read_history: b"null",
    read_memberships: b"[]",
    audit.read_page: {"entries": []},
    pings.ping: b"200",
    pings.read_heartbeat: b"null",
    series.read_series: b"null",
    reports.read_sla: {"org_id": ORG_ID, "monitors": []},
}
# They ask nothing themselves: one calls read_page, the other looks at a row.
SILENT = {audit.walk, audit.position_of}


@pytest.mark.parametrize("function", STORES, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_what_each_function_of_the_stores_asks(function):
    arguments, named, method, target, parameters, body = STORES[function]
    upstream = FakeUpstream()
    upstream.answer(ANSWERS.get(function, b"[{}]"))
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
    assert found == (set(STORES) - {read_memberships}) | SILENT

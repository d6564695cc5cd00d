"""A stranger learns nothing: on every route, a foreign id is answered exactly like one that does not exist.

The routes come from the inventory (`server.app.all_operations`): one without a case here fails.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import jwt
import psycopg
import pytest
import requests

from server.app import all_operations
from server.http.routing import Operation
from tests.stack.conftest import EmbeddedSupabase, User, sign_up_at
from tests.stack.heartbeats import make_heartbeat
from tests.stack.product import Api
from tests.stack.sql import value

CLOSED = {operation.name: operation for operation in all_operations() if not operation.is_public}
# What two answers may differ in although they tell the same.
OF_THE_MOMENT = {"date", "x-request-id", "ratelimit"}


@dataclass(frozen=True, slots=True)
class Case:
    """How a route is tried. `names` are the parameters of its path, query or body that hold ids, and of what."""

    names: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    editors_only: bool = True
    admins_only: bool = False  # for reading, too
    refused_to_all: int | None = None  # with this status


MONITOR, INCIDENT = {"monitor_id": "monitor"}, {"incident_id": "incident"}
CHANNEL, ORG, KEY = {"channel_id": "channel"}, {"org_id": "org"}, {"key_id": "key"}
AUDIT = {"org_id": "org", "actor_id": "member", "subject_id": "monitor"}
DRAFT = {"name": "mine", "target": "http://127.0.0.1:1/"}
WINDOW = {"window_id": "window"}
WINDOW_DRAFT = {
    "name": "mine",
    "all_monitors": True,
    "starts_at": "2026-01-01T00:00:00Z",
    "ends_at": "2026-01-01T01:00:00Z",
    "recurrence": "FREQ=DAILY",
}
CASES = {
    "create_monitor": Case(ORG, DRAFT),
    "create_monitors": Case(ORG, {"monitors": [DRAFT]}),
    "create_api_key": Case(ORG, {"name": "mine", "scopes": ["read"]}),
    "list_api_keys": Case(ORG, admins_only=True),
    "read_api_key": Case(KEY, admins_only=True),
    "rotate_api_key": Case(KEY, {}),
    "revoke_api_key": Case(KEY),
    "list_monitors": Case(ORG),
    "read_monitor": Case(MONITOR),
    "update_monitor": Case(MONITOR, {"name": "taken over"}),
    "delete_monitor": Case(MONITOR),
    "pause_monitor": Case(MONITOR),
    "resume_monitor": Case(MONITOR),
    "preview_monitor": Case(body={"target": "http://127.0.0.1:1/"}, editors_only=False),
    "list_checks": Case(MONITOR),
    "read_uptime": Case(MONITOR),
    "list_intervals": Case(MONITOR),
    "read_series": Case(MONITOR),
    "read_sla_report": Case(ORG),
    "read_heartbeat": Case({"monitor_id": "heartbeat"}),
    "list_pings": Case({"monitor_id": "heartbeat"}),
    "read_ping_body": Case({"monitor_id": "heartbeat", "ping_id": "ping"}),
    "read_overview": Case(ORG),
    "list_incidents": Case(ORG | MONITOR),
    "read_incident": Case(INCIDENT),
    "acknowledge_incident": Case(INCIDENT),
    "resolve_incident": Case(INCIDENT),
    "comment_on_incident": Case(INCIDENT, {"body": "hello"}),
    "create_maintenance_window": Case(ORG, WINDOW_DRAFT),
    "list_maintenance_windows": Case(ORG),
    "read_maintenance_window": Case(WINDOW),
    "update_maintenance_window": Case(WINDOW, {"name": "taken over"}),
    "end_maintenance_window": Case(WINDOW),
    "delete_maintenance_window": Case(WINDOW),
    "create_channel": Case(ORG, {"name": "mine", "url": "http://127.0.0.1:1/"}),
    "list_channels": Case(ORG),
    "delete_channel": Case(CHANNEL),
    "test_channel": Case(CHANNEL),
    "list_deliveries": Case(ORG | CHANNEL | INCIDENT),
    "retry_delivery": Case({"delivery_id": "delivery"}),
    "list_events": Case(ORG),
    "create_org": Case(body={"name": "New"}, editors_only=False),
    "list_orgs": Case(),
    "read_org": Case(ORG),
    "update_org": Case(ORG, {"name": "taken over"}),
    "transfer_org": Case(ORG | {"user_id": "member"}, {}),
    "delete_org": Case(ORG),
    "read_me": Case(),
    "read_usage": Case(ORG),
    "list_members": Case(ORG),
    "read_member": Case(ORG | {"user_id": "member"}),
    "change_member": Case(ORG | {"user_id": "member"}, {"role": "editor"}),
    "remove_member": Case(ORG | {"user_id": "member"}),
    "list_invitations": Case(ORG, admins_only=True),
    "create_invitation": Case(ORG, {"email": "grace@example.com", "role": "viewer"}),
    "resend_invitation": Case(ORG | {"invitation_id": "invitation"}),
    "revoke_invitation": Case(ORG | {"invitation_id": "invitation"}),
    "accept_invitation": Case(body={"token": "nobody has made this one"}, refused_to_all=404),
    "list_audit": Case(AUDIT, admins_only=True),
    "export_audit": Case(AUDIT, admins_only=True),
    "leave_org": Case(ORG, editors_only=False),  # the last one: nobody's viewer any more
}
FILES = {"export_audit"}  # of what is found: where that is nothing, a file of nothing
LISTS = [name for name, operation in CLOSED.items() if operation.list_of and "<" not in operation.path]


@dataclass(frozen=True, slots=True)
class Scene:
    """Somebody's organisation with one of each thing in it, a viewer of it, and a stranger with one of their own."""

    owner: Api
    viewer: Api
    stranger: Api
    ids: Mapping[str, str]


@pytest.fixture(scope="module")
def scene(quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection) -> Scene:
    people = [sign_up_at(own_supabase) for _ in range(3)]
    owner, viewer, stranger = (quiet_api.as_user(each.access_token) for each in people)
    ids = furnish(owner, connection)
    furnish(stranger, connection)
    connection.execute(
        "insert into memberships (org_id, user_id, role) values (%s, %s, 'viewer')", [ids["org"], people[1].id]
    )
    return Scene(owner, viewer, stranger, ids)


def test_every_closed_route_has_a_case_and_names_each_id_that_it_takes():
    assert set(CASES) == set(CLOSED)
    for name, operation in CLOSED.items():
        takes = set(re.findall(r"<uuid:(\w+)>", operation.path))
        for model in (operation.query, operation.body):
            takes |= {field for field in model.model_fields if field.endswith("_id")} if model else set()
        assert set(CASES[name].names) == takes, name


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].names])
@pytest.mark.parametrize(
    "headers", [{}, {"If-Match": '"1.x"'}, {"If-None-Match": "*"}], ids=["", "if match", "if none"]
)
def test_a_foreign_id_is_answered_like_an_absent_one(scene: Scene, name: str, headers: dict[str, str]):
    absent = {thing: str(uuid4()) for thing in scene.ids}
    for parameter in CASES[name].names:
        foreign = send(scene.stranger, name, scene.ids, only=parameter, headers=headers)
        nothing = send(scene.stranger, name, absent, only=parameter, headers=headers)
        assert seen(foreign) == seen(nothing), parameter
        assert "my_role" not in foreign.text
        if not (CLOSED[name].list_of or name in FILES) or "<" in CLOSED[name].path:
            assert foreign.status_code in {404, 422}, foreign.text


@pytest.mark.parametrize("name", LISTS)
def test_a_list_shows_nothing_of_anybody_else(scene: Scene, name: str):
    listed = scene.stranger.ask("GET", CLOSED[name].path)["data"]
    assert listed, "the stranger has things of their own"
    for parameter in CASES[name].names:
        filtered = send(scene.stranger, name, scene.ids, only=parameter)
        assert filtered.status_code == 404 or filtered.json() == {"data": [], "next_cursor": None}
    for thing in scene.ids.values():
        assert thing not in str(listed)


def test_a_stranger_reads_of_themselves_alone(scene: Scene):
    me = scene.stranger.ask("GET", "/v1/me")
    assert scene.ids["org"] not in str(me)
    assert [membership["role"] for membership in me["memberships"]] == ["owner"]


@pytest.mark.parametrize("name", CASES)
def test_a_viewer_reads_everything_and_writes_nothing(scene: Scene, name: str):
    answer = send(scene.viewer, name, scene.ids)
    case = CASES[name]
    if case.refused_to_all:
        assert answer.status_code == case.refused_to_all, answer.text
    elif CLOSED[name].method == "GET" and case.admins_only:
        assert answer.status_code in {403, 404} or answer.json()["data"] == [], answer.text
    elif CLOSED[name].method == "GET":
        assert answer.status_code == 200, answer.text
        if name in LISTS:
            assert answer.json()["data"], "a viewer sees what there is"
    elif case.editors_only:
        assert answer.status_code == 403, answer.text
        assert answer.json()["code"] == "forbidden"
    else:
        assert answer.ok, answer.text


def test_nothing_of_all_this_has_changed_anything(scene: Scene):
    assert scene.owner.ask("GET", f"/v1/orgs/{scene.ids['org']}")["version"] == 1
    assert scene.owner.ask("GET", f"/v1/monitors/{scene.ids['monitor']}")["version"] == 1
    incident = scene.owner.ask("GET", f"/v1/incidents/{scene.ids['incident']}")
    assert (incident["state"], len(incident["comments"])) == ("open", 1)
    assert len(scene.owner.ask("GET", "/v1/channels")["data"]) == 1
    assert [window["version"] for window in scene.owner.ask("GET", "/v1/maintenance-windows")["data"]] == [1]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("role", ["service_role", "anon", "postgres", None])
def test_only_a_signed_in_users_token_opens_a_route(
    scene: Scene, quiet_api: Api, own_supabase: EmbeddedSupabase, name: str, role: str | None
):
    wrong = quiet_api.as_user(mint(own_supabase, sub=str(uuid4()), role=role)) if role else quiet_api
    refused = send(wrong, name, scene.ids)
    assert refused.status_code == 401, refused.text
    assert refused.json()["code"] == "unauthenticated"
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_keys_of_the_project_are_no_users(quiet_api: Api, own_supabase: EmbeddedSupabase):
    for key in (own_supabase.secret_key, own_supabase.publishable_key):
        assert quiet_api.as_user(key).send("GET", "/v1/me").status_code == 401


def test_an_anonymous_user_founds_nothing_and_runs_no_checks(quiet_api: Api, own_supabase: EmbeddedSupabase):
    user: User = sign_up_at(own_supabase)
    anonymous = quiet_api.as_user(mint(own_supabase, sub=str(user.id), role="authenticated", is_anonymous=True))
    assert anonymous.ask("GET", "/v1/me")["is_anonymous"] is True
    refused = anonymous.send("POST", "/v1/orgs", json={"name": "Mine"})
    assert (refused.status_code, refused.json()["code"]) == (403, "anonymous_users_create_nothing")
    assert anonymous.send("POST", "/v1/monitors/preview", json={"target": "http://127.0.0.1:1/"}).status_code == 403
    assert anonymous.ask("GET", "/v1/orgs")["data"] == []


def furnish(owner: Api, connection: psycopg.Connection) -> dict[str, str]:
    """Put one of each thing into an organisation of their own; return the ids."""
    org = owner.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"]
    monitor = owner.ask("POST", "/v1/monitors", json=DRAFT)["id"]
    channel = owner.ask("POST", "/v1/channels", json={"name": "hook", "url": "http://127.0.0.1:1/"})["id"]
    incident = open_incident(connection, org, monitor)
    owner.ask("POST", f"/v1/incidents/{incident}/comments", json={"body": "I look at it"})
    key = owner.ask("POST", "/v1/api-keys", json={"name": "CI", "scopes": ["read"]})["id"]
    (delivery,) = owner.ask("GET", f"/v1/deliveries?incident_id={incident}")["data"]
    invitation = owner.ask("POST", f"/v1/orgs/{org}/invitations", json={"email": "x@y.zz", "role": "viewer"})["id"]
    window = owner.ask("POST", "/v1/maintenance-windows", json=WINDOW_DRAFT)["id"]
    member = owner.ask("GET", "/v1/me")["id"]
    heart = make_heartbeat(connection, org)
    Api(owner.url).send("POST", heart.url, data="done")
    ((ping,),) = heart.pings("id::text")
    return {
        "org": org,
        "invitation": invitation,
        "member": member,
        "monitor": monitor,
        "channel": channel,
        "incident": incident,
        "key": key,
        "delivery": delivery["id"],
        "heartbeat": str(heart.monitor_id),
        "ping": ping,
        "window": window,
    }


def open_incident(connection: psycopg.Connection, org: str, monitor: str) -> str:
    """Open an incident, as a worker would; return its id."""
    incident: str = value(
        connection,
        "insert into incidents (org_id, monitor_id, cause, summary, evidence, started_at)"
        " values (%s, %s, 'connect', 'could not connect', '{}', now()) returning id::text",
        [org, monitor],
    )
    return incident


def send(
    api: Api, name: str, ids: Mapping[str, str], *, only: str | None = None, headers: Mapping[str, str] | None = None
) -> requests.Response:
    """Try a route with these ids: those in its path always, in its query or body all of them or `only` one."""
    operation, case = CLOSED[name], CASES[name]
    path, more = operation.path, {}
    body = dict(case.body) if case.body is not None else None
    for parameter, thing in case.names.items():
        if f"<uuid:{parameter}>" in path:
            path = path.replace(f"<uuid:{parameter}>", ids[thing])
        elif only in (None, parameter):
            if is_in_query(operation, parameter):
                more[parameter] = ids[thing]
            else:
                body = (body or {}) | {parameter: ids[thing]}
    return api.send(operation.method, path, params=more, json=body, headers=dict(headers or {}))


def is_in_query(operation: Operation, parameter: str) -> bool:
    return operation.query is not None and parameter in operation.query.model_fields


def seen(answer: requests.Response) -> tuple[int, dict[str, str], Any]:
    """Return what somebody can tell two answers apart by; ids that they sent themselves are none of it."""
    headers = {key.lower(): text for key, text in answer.headers.items() if key.lower() not in OF_THE_MOMENT}
    body = answer.json() if "json" in headers.get("content-type", "") else answer.text
    if isinstance(body, dict):
        body.pop("request_id", None)
    return answer.status_code, headers, body


def mint(supabase: EmbeddedSupabase, **claims: Any) -> str:
    """Sign claims as the stack's Auth would."""
    now = int(time.time())
    return jwt.encode({"aud": "authenticated", "iat": now, "exp": now + 600, **claims}, supabase.jwt_secret, "HS256")

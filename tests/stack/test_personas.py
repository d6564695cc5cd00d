"""Who may do what, as one table: every route by every kind of caller, with the status that it answers.

The routes come from the inventory (`server.app.all_operations`): a new one fails here until its row is written. Each
caller acts on an organisation with one of each thing in it, and whoever changed something leaves a fresh one behind.
"""

import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from server.app import all_operations
from server.features.keys.routes import spell_secret
from server.features.keys.rules import Scope
from server.http.routing import Operation
from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.heartbeats import make_heartbeat
from tests.stack.product import Api, running_api
from tests.stack.sql import value
from tests.stack.test_isolation import WINDOW_DRAFT, mint

MEMBERS = ("owner", "admin", "editor", "viewer")
# A member of another organisation; a Supabase user without an account; nobody at all; a key of each scope.
KEYS = {f"key for {scope}": scope for scope in Scope}
CALLERS = (*MEMBERS, "stranger", "anonymous", "nobody", *KEYS)
# From the weakest on, so that as few as can be find changed what they are about to change.
FROM_THE_WEAKEST = ("nobody", *KEYS, "anonymous", "stranger", *reversed(MEMBERS))
TARGET = "http://127.0.0.1:1/"
DRAFT = {"name": "mine", "target": TARGET}
BODIES: dict[str, Any] = {
    "create_org": {"name": "New"},
    "update_org": {"name": "New"},
    "transfer_org": {"user_id": "member"},
    "create_monitor": {**DRAFT, "org_id": "org"},
    "create_monitors": {"monitors": [DRAFT], "org_id": "org"},
    "update_monitor": {"name": "New"},
    "preview_monitor": {"target": TARGET, "timeout_seconds": 1},
    "comment_on_incident": {"body": "I look at it"},
    "create_maintenance_window": {**WINDOW_DRAFT, "org_id": "org"},
    "update_maintenance_window": {"name": "New"},
    "create_channel": {"name": "hook", "url": TARGET, "org_id": "org"},
    "create_invitation": {"email": "new@example.com", "role": "viewer"},
    "accept_invitation": {"token": "nobody has made this one"},
    "change_member": {"role": "editor"},
    "create_api_key": {"name": "CI", "scopes": ["read"], "org_id": "org"},
    "rotate_api_key": {},
}
QUERIES = {name: {"org_id": "org"} for name in ("read_usage", "read_sla_report", "list_audit", "export_audit")}

# What each answers: members of the organisation; a member of another one, an anonymous user, nobody; keys by scope.
TABLE = """
                     owner admin editor viewer | stranger anon nobody | read write admin metrics pings
accept_invitation      404  404  404  404  |  404  403  401  |  403  403  403  403  403
acknowledge_incident   200  200  200  403  |  404  404  401  |  403  200  200  403  403
change_member          200  200  403  403  |  404  404  401  |  403  403  403  403  403
comment_on_incident    201  201  201  403  |  404  404  401  |  403  201  201  403  403
create_api_key         201  201  403  403  |  422  422  401  |  403  403  403  403  403
create_channel         201  201  201  403  |  422  422  401  |  403  201  201  403  403
create_invitation      201  201  403  403  |  404  403  401  |  403  403  403  403  403
create_maintenance_window  201  201  201  403  |  422  422  401  |  403  201  201  403  403
create_monitor         201  201  201  403  |  422  422  401  |  403  201  201  403  403
create_monitors        200  200  200  403  |  422  422  401  |  403  200  200  403  403
create_org             201  201  201  201  |  201  403  401  |  403  403  403  403  403
delete_channel         204  204  204  403  |  404  404  401  |  403  204  204  403  403
delete_maintenance_window  204  204  204  403  |  404  404  401  |  403  204  204  403  403
delete_monitor         204  204  204  403  |  404  404  401  |  403  204  204  403  403
delete_org             204  403  403  403  |  404  404  401  |  403  403  403  403  403
end_maintenance_window     200  200  200  403  |  404  404  401  |  403  200  200  403  403
export_audit           200  200  403  403  |  404  404  401  |  403  403  200  403  403
leave_org              409  204  204  204  |  404  404  401  |  403  403  403  403  403
list_api_keys          200  200  200  200  |  200  200  401  |  403  403  403  403  403
list_audit             200  200  403  403  |  404  404  401  |  403  403  200  403  403
list_channels          200  200  200  200  |  200  200  401  |  200  200  200  403  403
list_checks            200  200  200  200  |  404  404  401  |  200  200  200  403  403
list_deliveries        200  200  200  200  |  200  200  401  |  200  200  200  403  403
list_events            200  200  200  200  |  200  200  401  |  200  200  200  403  403
list_incidents         200  200  200  200  |  200  200  401  |  200  200  200  403  403
list_intervals         200  200  200  200  |  404  404  401  |  200  200  200  403  403
list_invitations       200  200  403  403  |  404  404  401  |  403  403  403  403  403
list_maintenance_windows   200  200  200  200  |  200  200  401  |  200  200  200  403  403
list_members           200  200  200  200  |  404  404  401  |  200  200  200  403  403
list_monitors          200  200  200  200  |  200  200  401  |  200  200  200  403  403
list_orgs              200  200  200  200  |  200  200  401  |  200  200  200  403  403
list_pings             200  200  200  200  |  404  404  401  |  200  200  200  403  403
pause_monitor          200  200  200  403  |  404  404  401  |  403  200  200  403  403
preview_monitor        200  200  200  200  |  200  403  401  |  403  200  200  403  403
read_api_key           200  200  404  404  |  404  404  401  |  403  403  403  403  403
read_heartbeat         200  200  200  200  |  404  404  401  |  200  200  200  403  403
read_incident          200  200  200  200  |  404  404  401  |  200  200  200  403  403
read_maintenance_window    200  200  200  200  |  404  404  401  |  200  200  200  403  403
read_me                200  200  200  200  |  200  200  401  |  200  200  200  403  403
read_member            200  200  200  200  |  404  404  401  |  200  200  200  403  403
read_monitor           200  200  200  200  |  404  404  401  |  200  200  200  403  403
read_org               200  200  200  200  |  404  404  401  |  200  200  200  403  403
read_overview          200  200  200  200  |  200  200  401  |  200  200  200  403  403
read_ping_body         200  200  200  200  |  404  404  401  |  200  200  200  403  403
read_series            200  200  200  200  |  404  404  401  |  200  200  200  403  403
read_sla_report        200  200  200  200  |  404  404  401  |  200  200  200  403  403
read_uptime            200  200  200  200  |  404  404  401  |  200  200  200  403  403
read_usage             200  200  200  200  |  404  404  401  |  200  200  200  403  403
remove_member          204  204  403  403  |  404  404  401  |  403  403  403  403  403
resend_invitation      200  200  403  403  |  404  403  401  |  403  403  403  403  403
resolve_incident       200  200  200  403  |  404  404  401  |  403  200  200  403  403
resume_monitor         200  200  200  403  |  404  404  401  |  403  200  200  403  403
retry_delivery         202  202  202  403  |  404  404  401  |  403  202  202  403  403
revoke_api_key         204  204  403  403  |  404  404  401  |  403  403  403  403  403
revoke_invitation      204  204  403  403  |  404  404  401  |  403  403  403  403  403
rotate_api_key         201  201  403  403  |  404  404  401  |  403  403  403  403  403
test_channel           202  202  202  403  |  404  404  401  |  403  202  202  403  403
transfer_org           200  403  403  403  |  404  404  401  |  403  403  403  403  403
update_maintenance_window  200  200  200  403  |  404  404  401  |  403  200  200  403  403
update_monitor         200  200  200  403  |  404  404  401  |  403  200  200  403  403
update_org             200  200  403  403  |  404  404  401  |  403  403  200  403  403
"""


def going_on() -> dict[str, Any]:
    """Return what announces maintenance that goes on, so that it can be ended."""
    now = datetime.now(UTC)
    times = {"starts_at": now.isoformat(), "ends_at": (now + timedelta(hours=1)).isoformat()}
    return {"name": "mine", "all_monitors": True, **times}


def read_table() -> dict[str, dict[str, int]]:
    """Return the expected statuses by route and caller."""
    rows = (line.replace("|", "").split() for line in TABLE.strip().splitlines()[1:])
    return {name: dict(zip(CALLERS, map(int, statuses), strict=True)) for name, *statuses in rows}


EXPECTED = read_table()
CLOSED = {operation.name: operation for operation in all_operations() if not operation.is_public}


class Place:
    """Where the callers meet: makes organisations for them, with one of each thing in each."""

    def __init__(self, api: Api, supabase: EmbeddedSupabase, connection: psycopg.Connection) -> None:
        self._api = api
        self._connection = connection
        self._people = {name: sign_up_at(supabase) for name in (*MEMBERS, "member", "stranger", "guest")}
        self._tokens = {name: person.access_token for name, person in self._people.items()}
        guest = self._people["guest"].id
        self._tokens["anonymous"] = mint(supabase, sub=str(guest), role="authenticated", is_anonymous=True)
        api.as_user(self._tokens["stranger"]).ask("POST", "/v1/orgs", json={"name": "Elsewhere"})
        self.refurnish()

    def refurnish(self) -> None:
        """Make a new organisation, and leave the old one as it is."""
        owner = self._api.as_user(self._tokens["owner"])
        org = owner.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"]
        for role in ("admin", "editor", "viewer", "member"):
            self._insert(
                "memberships", org_id=org, user_id=self._people[role].id, role=role.replace("member", "viewer")
            )
        monitor = owner.ask("POST", "/v1/monitors", json={**DRAFT, "org_id": org})["id"]
        channel = owner.ask("POST", "/v1/channels", json={"name": "hook", "url": TARGET, "org_id": org})["id"]
        incident = self._insert(
            "incidents", org_id=org, monitor_id=monitor, cause="connect", summary="s", evidence="{}", started_at="now"
        )
        delivery = value(self._connection, "select id::text from deliveries where incident_id = %s", [incident])
        path = f"/v1/orgs/{org}/invitations"
        invitation = owner.ask("POST", path, json={"email": "x@example.com", "role": "viewer"})["id"]
        window = owner.ask("POST", "/v1/maintenance-windows", json={**going_on(), "org_id": org})["id"]
        for caller, scope in KEYS.items():
            secret = self._tokens[caller] = spell_secret(hashlib.sha256(f"{org} {scope}".encode()).digest())
            key = self._insert("api_keys", **self._key(org, scope, secret))
        self.ids = {
            "org_id": org,
            "monitor_id": monitor,
            "channel_id": channel,
            "incident_id": incident,
            "delivery_id": delivery,
            "invitation_id": invitation,
            "window_id": window,
            "key_id": key,
            "user_id": str(self._people["member"].id),
        }
        heart = make_heartbeat(self._connection, org)
        self._api.send("POST", heart.url, data="done")
        self.of_heartbeats = {"monitor_id": str(heart.monitor_id), "ping_id": str(heart.pings("id")[0][0])}

    def send(self, caller: str, operation: Operation) -> int:
        """Let a caller try a route; return the status."""
        path = operation.path
        for name, thing in (self.ids | (self.of_heartbeats if operation.tag == "Heartbeats" else {})).items():
            path = path.replace(f"<uuid:{name}>", thing)
        body, query = (self._filled(more.get(operation.name)) for more in (BODIES, QUERIES))
        api = self._api.as_user(self._tokens[caller]) if caller != "nobody" else self._api
        return api.send(operation.method, path, params=query, json=body).status_code

    def _filled(self, template: Mapping[str, Any] | None) -> dict[str, Any] | None:
        placeholders = {"org": self.ids["org_id"], "member": self.ids["user_id"]}
        if template is None:
            return None
        return {
            name: placeholders.get(part, part) if isinstance(part, str) else part for name, part in template.items()
        }

    def _key(self, org: str, scope: Scope, secret: str) -> dict[str, Any]:
        return {
            "org_id": org,
            "name": scope,
            "prefix": secret[:15],
            "secret_hash": hashlib.sha256(secret.encode()).hexdigest(),
            "scopes": [scope],
            "created_by": self._people["owner"].id,
        }

    def _insert(self, table: str, **columns: Any) -> str:
        names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
        returning = "user_id" if table == "memberships" else "id"
        statement = f"insert into {table} ({names}) values ({places}) returning {returning}::text"
        made: str = value(self._connection, statement, list(columns.values()))
        return made


@pytest.fixture(scope="module")
def place(
    own_supabase: EmbeddedSupabase, connection: psycopg.Connection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with running_api(own_supabase, tmp_path_factory.mktemp("api")) as api:
        yield Place(api, own_supabase, connection)


def test_every_closed_route_has_its_row():
    assert list(EXPECTED) == sorted(CLOSED)


@pytest.mark.parametrize("name", sorted(CLOSED))
def test_a_route_answers_each_caller_as_the_table_says(place: Place, name: str):
    found: dict[str, int] = {}
    for caller in FROM_THE_WEAKEST:
        found[caller] = place.send(caller, CLOSED[name])
        if CLOSED[name].method != "GET" and found[caller] < 300:
            place.refurnish()
    assert {caller: found[caller] for caller in CALLERS} == EXPECTED[name]

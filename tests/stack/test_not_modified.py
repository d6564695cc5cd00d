"""304: every GET is answered so to whoever holds it, and whole once it has changed."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from server.app import all_operations
from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.heartbeats import make_heartbeat
from tests.stack.place import START, Place, insert_check, insert_incident, insert_line
from tests.stack.product import Api
from tests.stack.test_isolation import WINDOW_DRAFT

# What a GET answers of the moment itself, so that no two answers are the same.
OF_HEARTBEATS = re.compile("/heartbeat$|/pings")
NEVER_THE_SAME = {"readyz", "metrics", "list_events"}


@pytest.fixture(scope="module")
def furnished(
    quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection
) -> tuple[Place, dict[str, str]]:
    user = sign_up_at(own_supabase)
    api = quiet_api.as_user(user.access_token)
    here = Place(api, UUID(api.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"]), connection, user.id)
    monitor = here.insert_monitor("m")
    api.ask("POST", "/v1/channels", json={"name": "hook", "url": "http://127.0.0.1:1/"})
    incident = insert_incident(here, monitor)
    api.ask("POST", f"/v1/incidents/{incident}/comments", json={"body": "I look at it"})
    window = api.ask("POST", "/v1/maintenance-windows", json=WINDOW_DRAFT)["id"]
    insert_check(here, monitor, datetime.now(UTC), "up")
    insert_line(here, monitor, "up", START + timedelta(hours=1), START + timedelta(hours=2))
    api.ask("POST", f"/v1/orgs/{here.org_id}/invitations", json={"email": "x@y.zz", "role": "viewer"})
    heart = make_heartbeat(connection, here.org_id)
    Api(api.url).send("POST", heart.url, data="done")
    key = api.ask("POST", "/v1/api-keys", json={"name": "CI", "scopes": ["read"]})["id"]
    return here, {
        "org_id": str(here.org_id),
        "monitor_id": str(monitor),
        "incident_id": str(incident),
        "key_id": key,
        "heartbeat_id": str(heart.monitor_id),
        "ping_id": str(heart.pings("id")[0][0]),
        "window_id": window,
        "user_id": str(user.id),
    }


def path_of(path: str, ids: dict[str, str]) -> str:
    path = path.replace("<string:asset>", "swagger-ui.css")
    if OF_HEARTBEATS.search(path):
        ids = {**ids, "monitor_id": ids["heartbeat_id"]}
    path = re.sub(r"<uuid:(\w+)>", lambda found: ids[found[1]], path)
    is_window = path.endswith(("/uptime", "/series"))
    return f"{path}?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z" if is_window else path


# A file to download has no validator, and neither has a stream, which another process serves, nor an answer of the
# protocol of others.
GETS = [
    each
    for each in all_operations()
    if each.method == "GET" and not each.files and not each.is_elsewhere and not each.says
]


@pytest.mark.parametrize("operation", GETS, ids=lambda operation: operation.name)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_get_is_304_to_whoever_holds_it(furnished: tuple[Place, dict[str, str]], operation: Any, method: str):
    place, ids = furnished
    path = path_of(operation.path, ids)
    whole = place.api.send("GET", path)
    assert whole.status_code == 200, whole.text
    again = place.api.send(method, path, headers={"If-None-Match": whole.headers["ETag"]})
    if operation.name in NEVER_THE_SAME:
        # Where the event log stands moves with every transaction, and else not; two latencies may be the same.
        assert again.status_code in ({200} if operation.name == "metrics" else {200, 304})
        return
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", whole.headers["ETag"])
    other = place.api.send(method, path, headers={"If-None-Match": '"0123456789abcdef01"'})
    assert (other.status_code, other.headers["ETag"]) == (200, whole.headers["ETag"])
    assert other.content == (whole.content if method == "GET" else b"")
    assert other.headers["Content-Length"] == whole.headers["Content-Length"]


ORG_CHANGED = "update organisations set name = name || '!' where id = %(org_id)s"
MONITOR_CHANGED = "update monitors set name = name || '!' where id = %(monitor_id)s"
ONE_MORE = (
    "insert into {0} (monitor_id, region, started_at, org_id, up, down, unknown, timed, sum_ms, bins, counts)"
    " values (%(monitor_id)s, 'test', '2026-01-01T00:00:00Z', %(org_id)s, 1, 0, 0, 0, 0,"
    " array[]::int[], array[]::int[])"
    " on conflict (monitor_id, started_at, region) do update set up = {0}.up + 1"
)
CHANGES = {
    "list_orgs": ORG_CHANGED,
    "read_org": ORG_CHANGED,
    "read_me": ORG_CHANGED,
    "list_monitors": MONITOR_CHANGED,
    "read_monitor": MONITOR_CHANGED,
    "list_checks": "update check_results set total_ms = total_ms + 1 where monitor_id = %(monitor_id)s",
    "read_uptime": "update intervals set ended_at = ended_at + interval '1 minute' where monitor_id = %(monitor_id)s",
    "list_intervals": "update intervals set cause = cause || '!' where monitor_id = %(monitor_id)s",
    # Of the hour and of the day: by the plan of that moment, one or the other answers.
    "read_series": f"with hours as ({ONE_MORE.format('check_hours')}) {ONE_MORE.format('check_days')}",
    "read_sla_report": MONITOR_CHANGED,
    "read_heartbeat": "update private.heartbeats set n = n + 1 where monitor_id = %(heartbeat_id)s",
    "list_pings": "update pings set exit_status = coalesce(exit_status, 0) + 1 where monitor_id = %(heartbeat_id)s",
    "read_ping_body": "update pings set body = body || '!' where monitor_id = %(heartbeat_id)s",
    "read_overview": "update incidents set summary = summary || '!' where id = %(incident_id)s",
    "list_incidents": "update incidents set summary = summary || '!' where id = %(incident_id)s",
    "read_incident": "update incident_comments set body = body || '!' where incident_id = %(incident_id)s",
    "list_maintenance_windows": "update maintenance_windows set name = name || '!' where org_id = %(org_id)s",
    "read_maintenance_window": "update maintenance_windows set name = name || '!' where org_id = %(org_id)s",
    "list_channels": "update channels set name = name || '!' where org_id = %(org_id)s",
    "list_api_keys": "update api_keys set name = name || '!' where org_id = %(org_id)s",
    "read_api_key": "update api_keys set name = name || '!' where org_id = %(org_id)s",
    "read_usage": (
        "update organisations set plan = case plan when 'free' then 'standard' else 'free' end where id = %(org_id)s"
    ),
    "list_members": "update auth.users set email = 'x' || email where id::text = %(user_id)s",
    "read_member": "update auth.users set email = 'x' || email where id::text = %(user_id)s",
    "list_invitations": "update invitations set expires_at = expires_at + interval '1 hour' where org_id = %(org_id)s",
    "list_audit": ORG_CHANGED,
    "list_deliveries": "update deliveries set attempts = attempts + 1 where org_id = %(org_id)s",
}


def test_every_closed_get_has_a_change():
    closed = {operation.name for operation in GETS if not operation.is_public}
    assert set(CHANGES) == closed - NEVER_THE_SAME


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_has_changed_is_answered_whole_under_another_etag(
    furnished: tuple[Place, dict[str, str]], name: str, method: str
):
    place, ids = furnished
    path = path_of(next(operation.path for operation in GETS if operation.name == name), ids)
    tag = place.api.send("GET", path).headers["ETag"]
    place.connection.execute(CHANGES[name], ids)
    after = place.api.send(method, path, headers={"If-None-Match": tag})
    assert after.status_code == 200
    assert after.headers["ETag"] != tag
    assert place.api.send(method, path, headers={"If-None-Match": after.headers["ETag"]}).status_code == 304

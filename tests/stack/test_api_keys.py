"""API keys against the real stack: what one sees and may is what a member of its rank sees and may, and no more."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import requests

from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.product import Api, eventually
from tests.stack.sql import rows, value

DRAFT = {"name": "mine", "target": "http://127.0.0.1:1/"}


@dataclass(frozen=True, slots=True)
class Scene:
    """Two organisations, and a key of the first with each scope."""

    owner: Api
    org_id: str
    monitor_id: str
    other_monitor_id: str
    keys: dict[str, Api]


@pytest.fixture(scope="module")
def scene(quiet_api: Api, own_supabase: EmbeddedSupabase) -> Scene:
    owner, other = (quiet_api.as_user(sign_up_at(own_supabase).access_token) for _ in range(2))
    orgs = [each.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"] for each in (owner, other)]
    monitors = [each.ask("POST", "/v1/monitors", json=DRAFT)["id"] for each in (owner, other)]
    keys = {
        scope: quiet_api.as_user(make_key(owner, scope)["secret"])
        for scope in ("read", "write", "admin", "metrics:write", "pings:write")
    }
    return Scene(owner, orgs[0], monitors[0], monitors[1], keys)


def make_key(owner: Api, *scopes: str, **more: object) -> dict[str, str]:
    made: dict[str, str] = owner.ask("POST", "/v1/api-keys", json={"name": "CI", "scopes": list(scopes), **more})
    return made


def test_a_secret_is_shown_once_and_stored_nowhere(scene: Scene, connection: psycopg.Connection):
    made = make_key(scene.owner, "read")
    assert made["secret"].startswith(made["prefix"] + "_")
    shown = scene.owner.ask("GET", f"/v1/api-keys/{made['id']}")
    assert shown == {name: text for name, text in made.items() if name != "secret"}
    random_part = made["secret"].rsplit("_", 1)[1]
    for table in ("api_keys", "events", "private.idempotent_answers"):
        assert value(connection, f"select count(*) from {table} t where t::text like %s", [f"%{random_part}%"]) == 0
    hashes = rows(connection, "select secret_hash from api_keys")
    assert hashes
    for (secret_hash,) in hashes:
        assert value(connection, "select count(*) from events e where e::text like %s", [f"%{secret_hash}%"]) == 0


def test_a_key_says_what_it_is(scene: Scene):
    me = scene.keys["write"].ask("GET", "/v1/me")
    assert (me["kind"], me["scopes"], me["email"]) == ("key", ["write"], None)
    assert me["memberships"] == [{"org_id": scene.org_id, "org_name": "Acme", "role": "editor"}]


def test_a_key_lives_in_its_organisation_alone(scene: Scene):
    for scope in ("read", "write", "admin"):
        key = scene.keys[scope]
        assert [row["id"] for row in key.ask("GET", "/v1/orgs")["data"]] == [scene.org_id]
        assert {row["org_id"] for row in key.ask("GET", "/v1/monitors")["data"]} == {scene.org_id}
        foreign = key.send("GET", f"/v1/monitors/{scene.other_monitor_id}")
        absent = key.send("GET", f"/v1/monitors/{uuid4()}")
        assert (foreign.status_code, foreign.json()["code"]) == (absent.status_code, absent.json()["code"])
        assert foreign.status_code == 404


def test_each_scope_may_what_the_member_of_its_rank_may(scene: Scene):
    expected = {"read": (200, 403, 403), "write": (200, 200, 403), "admin": (200, 200, 200)}
    for scope, statuses in expected.items():
        key = scene.keys[scope]
        found = (
            key.send("GET", f"/v1/monitors/{scene.monitor_id}").status_code,
            key.send("PATCH", f"/v1/monitors/{scene.monitor_id}", json={"name": scope}).status_code,
            key.send("PATCH", f"/v1/orgs/{scene.org_id}", json={"name": "Acme"}).status_code,
        )
        assert found == statuses, scope


def test_what_a_key_does_is_told_of_the_key(scene: Scene, connection: psycopg.Connection):
    key_id = scene.keys["write"].ask("GET", "/v1/me")["id"]
    monitor = scene.keys["write"].ask("POST", "/v1/monitors", json=DRAFT)["id"]
    assert rows(connection, "select actor_kind, actor_id::text from events where subject_id = %s", [monitor]) == [
        ("key", key_id)
    ]


def test_a_revoked_key_is_refused_everywhere_within_five_seconds(
    scene: Scene, quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection
):
    made = make_key(scene.owner, "write")
    key = quiet_api.as_user(made["secret"])
    key.ask("GET", "/v1/monitors")
    scene.owner.ask("DELETE", f"/v1/api-keys/{made['id']}")
    assert key.send("GET", "/v1/monitors").json().get("data", []) == [], "the database knows at once"
    eventually(lambda: key.send("GET", "/v1/me").status_code == 401, "it is not refused", within_seconds=5)
    assert scene.owner.ask("GET", f"/v1/api-keys/{made['id']}")["revoked_at"]
    kinds = rows(connection, "select type from events where subject_id = %s order by seq", [made["id"]])
    assert kinds == [("api_key.created",), ("api_key.revoked",)]


def test_a_key_ends_when_it_said_it_would(scene: Scene, quiet_api: Api, connection: psycopg.Connection):
    made = make_key(scene.owner, "read", expires_at="2099-01-01T00:00:00Z")
    key = quiet_api.as_user(made["secret"])
    connection.execute("update api_keys set expires_at = now() - interval '1 second' where id = %s", [made["id"]])
    assert key.send("GET", "/v1/me").status_code == 401
    late = scene.owner.send("POST", f"/v1/api-keys/{made['id']}/rotate", json={})
    assert (late.status_code, late.json()["code"]) == (409, "api_key_ended")
    past = scene.owner.send(
        "POST", "/v1/api-keys", json={"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}
    )
    assert (past.status_code, past.json()["errors"][0]["pointer"]) == (422, "/expires_at")


def test_a_rotated_key_goes_on_beside_its_successor_for_a_while(
    scene: Scene, quiet_api: Api, connection: psycopg.Connection
):
    old = make_key(scene.owner, "read", "pings:write", expires_at="2099-01-01T00:00:00Z")
    new = scene.owner.ask("POST", f"/v1/api-keys/{old['id']}/rotate", json={"overlap_seconds": 3600})
    assert (new["name"], new["scopes"]) == (old["name"], old["scopes"])
    for secret in (old["secret"], new["secret"]):
        quiet_api.as_user(secret).ask("GET", "/v1/me")
    shown = scene.owner.ask("GET", f"/v1/api-keys/{old['id']}")
    assert shown["replaced_by"] == new["id"]
    remaining = value(
        connection, "select extract(epoch from expires_at - now())::integer from api_keys where id = %s", [old["id"]]
    )
    assert 3500 < remaining <= 3600
    twice = scene.owner.send("POST", f"/v1/api-keys/{old['id']}/rotate", json={})
    assert (twice.status_code, twice.json()["code"]) == (409, "api_key_ended")


def test_keys_are_made_by_admins_and_never_by_keys(
    scene: Scene, quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection
):
    for role, status in (("viewer", 403), ("editor", 403), ("admin", 201)):
        user = sign_up_at(own_supabase)
        connection.execute(
            "insert into memberships (org_id, user_id, role) values (%s, %s, %s)", [scene.org_id, user.id, role]
        )
        body = {"name": "x", "scopes": ["read"]}
        answer = quiet_api.as_user(user.access_token).send("POST", "/v1/api-keys", json=body)
        assert answer.status_code == status, role
    refused = scene.keys["admin"].send("POST", "/v1/api-keys", json={"name": "x", "scopes": ["read"]})
    assert (refused.status_code, refused.json()["code"]) == (403, "users_only")


def test_the_last_use_of_a_key_is_noted(scene: Scene, quiet_api: Api):
    made = make_key(scene.owner, "read")
    assert not made["last_used_at"]
    quiet_api.as_user(made["secret"]).ask("GET", "/v1/me")
    assert scene.owner.ask("GET", f"/v1/api-keys/{made['id']}")["last_used_at"]


def test_past_the_api_a_key_is_worth_no_more(scene: Scene, own_supabase: EmbeddedSupabase):
    def ask(method: str, path: str, secret: str, **more: Any) -> requests.Response:
        headers = {"apikey": own_supabase.publishable_key, "X-Tocsin-Key": secret, "Prefer": "return=representation"}
        return requests.request(method, f"{own_supabase.url}/rest/v1/{path}", headers=headers, timeout=30, **more)

    keys = {scope: key.token or "" for scope, key in scene.keys.items()}
    assert ask("GET", "organisations?select=id", keys["read"]).json() == [{"id": scene.org_id}]
    for scope, changed in (("read", []), ("write", [{"id": scene.monitor_id}]), ("pings:write", [])):
        renaming = f"monitors?id=eq.{scene.monitor_id}&select=id"
        assert ask("PATCH", renaming, keys[scope], json={"name": "past the API"}).json() == changed, scope
    assert ask("GET", "api_keys?select=id", keys["admin"]).status_code in {401, 403}
    assert ask("GET", "organisations?select=id", "tocsin_ABCDEFGH_" + "x" * 43).json() == []


def test_a_users_token_beside_a_key_is_the_user(scene: Scene, own_supabase: EmbeddedSupabase):
    headers = {
        "apikey": own_supabase.publishable_key,
        "Authorization": f"Bearer {sign_up_at(own_supabase).access_token}",
        "X-Tocsin-Key": scene.keys["admin"].token or "",
    }
    url = f"{own_supabase.url}/rest/v1/organisations?select=id"
    assert requests.get(url, headers=headers, timeout=30).json() == []


def test_a_plan_limits_keys_and_a_rotation_takes_no_further_place(
    quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection
):
    owner = quiet_api.as_user(sign_up_at(own_supabase).access_token)
    org_id = owner.ask("POST", "/v1/orgs", json={"name": "Small"})["id"]
    connection.execute("update organisations set plan = 'free' where id = %s", [org_id])
    first, second = make_key(owner, "read"), make_key(owner, "read")
    refused = owner.send("POST", "/v1/api-keys", json={"name": "CI", "scopes": ["read"]})
    assert (refused.status_code, refused.json()["quota"]) == (403, {"name": "api_keys", "limit": 2, "used": 2})
    owner.ask("POST", f"/v1/api-keys/{first['id']}/rotate", json={})
    owner.ask("DELETE", f"/v1/api-keys/{second['id']}")
    make_key(owner, "read")
    (used,) = [each for each in owner.ask("GET", "/v1/usage")["quotas"] if each["name"] == "api_keys"]
    assert used == {"name": "api_keys", "limit": 2, "used": 2}


def test_a_key_is_not_rotated_on_while_the_one_before_it_lives(
    scene: Scene, own_supabase: EmbeddedSupabase, connection: psycopg.Connection
):
    first = make_key(scene.owner, "read")
    second = scene.owner.ask("POST", f"/v1/api-keys/{first['id']}/rotate", json={"overlap_seconds": 3600})
    early = scene.owner.send("POST", f"/v1/api-keys/{second['id']}/rotate", json={})
    assert (early.status_code, early.json()["code"]) == (409, "rotation_running"), "or a quota of 2 is any number"
    scene.owner.ask("DELETE", f"/v1/api-keys/{first['id']}")
    third = scene.owner.ask("POST", f"/v1/api-keys/{second['id']}/rotate", json={"overlap_seconds": 0})
    scene.owner.ask("POST", f"/v1/api-keys/{third['id']}/rotate", json={})


@pytest.mark.parametrize("overlap_seconds", [-1, 604_801, 2_147_483_647])
def test_past_the_api_a_rotated_key_lives_no_longer_either(
    scene: Scene, own_supabase: EmbeddedSupabase, overlap_seconds: int
):
    made = make_key(scene.owner, "read")
    answer = requests.post(
        f"{own_supabase.url}/rest/v1/rpc/rotate_api_key",
        headers={"apikey": own_supabase.publishable_key, "Authorization": f"Bearer {scene.owner.token}"},
        json={
            "key_id": made["id"],
            "prefix": "tocsin_ABCDEFGH",
            "secret_hash": hashlib.sha256(str(overlap_seconds).encode()).hexdigest(),
            "overlap_seconds": overlap_seconds,
        },
        timeout=30,
    )
    assert (answer.status_code, answer.json()["message"]) == (422, "overlap_out_of_range")
    assert scene.owner.ask("GET", f"/v1/api-keys/{made['id']}")["expires_at"] is None


def test_of_many_who_rotate_and_create_at_once_as_many_keys_stand_as_the_plan_allows(
    quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection
):
    owner = quiet_api.as_user(sign_up_at(own_supabase).access_token)
    org_id = owner.ask("POST", "/v1/orgs", json={"name": "Small"})["id"]
    connection.execute("update organisations set plan = 'free' where id = %s", [org_id])
    first = make_key(owner, "read")
    rotating: tuple[str, str, Any] = ("POST", f"/v1/api-keys/{first['id']}/rotate", {})
    creating: tuple[str, str, Any] = ("POST", "/v1/api-keys", {"name": "CI", "scopes": ["read"]})
    with ThreadPoolExecutor(12) as at_once:
        answers = list(at_once.map(lambda each: owner.send(*each[:2], json=each[2]), [rotating, creating] * 6))
    rotated, created = (sorted(answer.status_code for answer in answers[start::2]) for start in (0, 1))
    assert (rotated, created) == ([201] + [409] * 5, [201] + [403] * 5)
    assert value(connection, "select private.count_used(%s, 'api_keys')", [org_id]) == 2

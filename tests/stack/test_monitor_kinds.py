"""A monitor of each kind through the API against the real database, and the secrets that never come out of it."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests

from tests.stack.conftest import EmbeddedSupabase, User, sign_up_at
from tests.stack.product import Api, Target
from tests.stack.sql import claim, rows

DRAFTS: dict[str, dict[str, Any]] = {
    "http": {
        "target": "http://127.0.0.1:1/",
        "options": {"method": "POST", "headers": {"X-Old": "1"}, "body": "{}", "expected_status": ["200-204", "404"]},
        "assertions": ["json $.queue.depth < 100", 'header content-type contains "json"'],
        "regions": ["eu", "us"],
    },
    "tcp": {"target": "127.0.0.1:1", "options": {"send": "PING\r\n"}, "assertions": ['received contains "PONG"']},
    "tls": {"target": "127.0.0.1:443", "options": {"server_name": "example.com"}, "assertions": ["tls_days_left > 14"]},
    "dns": {"target": "example.com", "options": {"record_type": "MX", "resolver": "127.0.0.1:53"}},
    "icmp": {"target": "127.0.0.1", "options": {"packets": 5}, "assertions": ["loss_percent < 50"]},
    "heartbeat": {"options": {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "grace_seconds": 900}},
}
CHANGES: dict[str, dict[str, Any]] = {
    "http": {"headers": {"X-Old": None, "X-New": "2"}},
    "tcp": {"send": "QUIT\r\n"},
    "tls": {"server_name": "example.org"},
    "dns": {"record_type": "AAAA"},
    "icmp": {"packets": 1},
    "heartbeat": {"cron": None, "period_seconds": 60},
}
SECRETS = {
    "basic": {"username": "ci", "password": "hush-basic"},
    "bearer": {"token": "hush-bearer"},
    "header": {"name": "X-Key", "value": "hush-header"},
}
HTTP = {"name": "site", "target": "http://127.0.0.1:1/", "paused": True}


def create(owner: Api, **settings: Any) -> dict[str, Any]:
    created: dict[str, Any] = owner.ask("POST", "/v1/monitors", json=HTTP | settings)
    return created


def here(monitor: dict[str, Any]) -> str:
    return f"/v1/monitors/{monitor['id']}"


@pytest.mark.parametrize("kind", DRAFTS)
def test_a_monitor_of_each_kind_is_created_read_listed_changed_and_told_of(owner: Api, kind: str):
    begun = owner.ask("GET", "/v1/events")["next_after"]
    draft = {"name": f"A {kind}", "kind": kind, **DRAFTS[kind]}
    created = owner.ask("POST", "/v1/monitors", json=draft)
    assert {name: created[name] for name in draft if name != "options"} == {
        name: value for name, value in draft.items() if name != "options"
    }
    assert created["options"].items() >= draft["options"].items()
    assert (created["state"], created["flapping"]) == ("new", False)
    is_heartbeat = kind == "heartbeat"
    assert (created["slug"], created["ping_id"] is not None) == ("a-heartbeat" if is_heartbeat else None, is_heartbeat)
    assert owner.ask("GET", here(created)) == created

    others = [other for other in DRAFTS if other != kind]
    assert owner.ask("GET", f"/v1/monitors?kind={kind}&include=latest_check,open_incident")["data"] == [
        created | {"latest_check": None, "open_incident": None}
    ]
    assert owner.ask("GET", f"/v1/monitors?kind={','.join(others)}")["data"] == []

    changed = owner.ask("PATCH", here(created), json={"options": CHANGES[kind]})
    assert changed["version"] == 2
    expected = created["options"] | CHANGES[kind]
    assert changed["options"] == (expected | {"headers": {"X-New": "2"}} if kind == "http" else expected)
    told = owner.ask("GET", f"/v1/events?after={begun}")["data"]
    assert [event["data"] for event in told if event["subject"]["kind"] == "monitor"] == [created, changed]
    assert owner.ask("POST", f"{here(created)}/pause")["paused"] is True


def test_a_batch_makes_one_of_each_kind(owner: Api):
    drafts = [{"name": kind, "kind": kind, **settings} for kind, settings in DRAFTS.items()]
    outcome = owner.ask("POST", "/v1/monitors:batch", json={"monitors": drafts})
    assert [result["monitor"]["kind"] for result in outcome["results"]] == list(DRAFTS)


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_the_worker_s_and_never_comes_out_again(
    owner: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection, kind: str
):
    begun = owner.ask("GET", "/v1/events")["next_after"]
    auth = {"type": kind, **SECRETS[kind]}
    answers = [owner.send("POST", "/v1/monitors", json=HTTP | {"paused": False, "options": {"auth": auth}})]
    monitor = answers[0].json()
    shown = monitor["options"]["auth"]
    assert shown.items() >= {key: value for key, value in auth.items() if not value.startswith("hush")}.items()
    assert shown.keys() - auth.keys() == {"set_at"}
    kept = {"options": {"headers": {"X-Other": "1"}}}
    answers += [owner.send("PATCH", here(monitor), json=kept), owner.send("PATCH", here(monitor), json={"name": "new"})]
    assert [answer.json()["options"]["auth"] for answer in answers] == [shown] * 3, "it is kept where it is left out"
    assert claim(connection, monitor["id"])["options"]["auth"] == auth
    batch = {"monitors": [HTTP | {"options": {"auth": auth}}]}
    answers += [owner.send("POST", "/v1/monitors:batch", json=batch)]
    answers += [
        owner.send("GET", path)
        for path in (here(monitor), "/v1/monitors?order=name", f"/v1/events?after={begun}", "/v1/audit", "/v1/overview")
    ]
    for table in ("monitors", "named_monitors", "events?select=seq,type,subject_id"):
        headers = {"apikey": own_supabase.publishable_key, "Authorization": f"Bearer {owner.token}"}
        answers.append(requests.get(f"{own_supabase.url}/rest/v1/{table}", headers=headers, timeout=30))
    for answer in answers:
        assert answer.ok, answer.text
        assert "hush" not in answer.text
    everything = "select to_jsonb(m)::text from monitors m union all select to_jsonb(e)::text from events e"
    assert not [text for (text,) in rows(connection, everything) if "hush" in text]


def test_who_sends_auth_sends_its_secret_with_it(owner: Api, connection: psycopg.Connection):
    basic = {"type": "basic", "username": "ci", "password": "hush"}
    monitor = create(owner, options={"auth": basic}, paused=False)
    changed = owner.send("PATCH", here(monitor), json={"options": {"auth": {"type": "basic", "username": "other"}}})
    assert changed.status_code == 422
    assert [fault["pointer"] for fault in changed.json()["errors"]] == ["/options/auth/password"]
    sent_back = owner.ask("PATCH", here(monitor), json={"options": monitor["options"]})
    assert sent_back["version"] == monitor["version"], "what was read may be sent back, and changes nothing"
    bearer = {"type": "bearer", "token": "hush-2"}
    assert owner.ask("PATCH", here(monitor), json={"options": {"auth": bearer}})["options"]["auth"]["type"] == "bearer"
    assert claim(connection, monitor["id"])["options"]["auth"] == bearer
    assert owner.ask("PATCH", here(monitor), json={"options": {"auth": None}})["options"]["auth"] is None
    assert claim(connection, monitor["id"])["options"]["auth"] is None


def test_the_audit_trail_tells_a_new_header_or_body_from_the_old_and_not_what_it_is(owner: Api):
    monitor = create(owner, options={"method": "POST", "headers": {"X-Key": "hush-1"}, "body": "hush-2"})
    owner.ask("PATCH", here(monitor), json={"options": {"headers": {"X-Key": "hush-3"}}})
    answer = owner.send("GET", "/v1/audit?type=monitor.updated")
    (entry,) = answer.json()["data"]
    before, after = entry["before"]["options"], entry["after"]["options"]
    assert "hush" not in answer.text
    assert before["headers"].keys() == after["headers"].keys() == {"X-Key"}
    assert before["headers"] != after["headers"]
    assert before["body"] == after["body"] is not None
    assert before["method"] == "POST"


def test_parents_are_monitors_of_one_s_own_and_go_in_no_circle(
    owner: Api, quiet_api: Api, own_supabase: EmbeddedSupabase
):
    stranger = quiet_api.as_user(sign_up_at(own_supabase).access_token)
    stranger.ask("POST", "/v1/orgs", json={"name": "Other"})
    foreign, absent = create(stranger)["id"], "00000000-0000-4000-8000-000000000000"
    parent = create(owner)
    child = create(owner, depends_on=[parent["id"]])

    def fault_of(answer: requests.Response) -> tuple[str, str, str]:
        assert answer.status_code == 422, answer.text
        (fault,) = answer.json()["errors"]
        return fault["pointer"], fault["code"], fault["detail"]

    for parents, place in (([foreign], 0), ([absent], 0), ([parent["id"], foreign], 1)):
        for answer in (
            owner.send("POST", "/v1/monitors", json=HTTP | {"depends_on": parents}),
            owner.send("PATCH", here(child), json={"depends_on": parents}),
        ):
            pointer, code, detail = fault_of(answer)
            assert (pointer, code) == (f"/depends_on/{place}", "unknown_dependency")
            assert detail == f"There is no monitor {parents[place]} in this organisation."
    for monitor, other in ((parent, child), (parent, parent)):
        pointer, code, _ = fault_of(owner.send("PATCH", here(monitor), json={"depends_on": [other["id"]]}))
        assert (pointer, code) == ("/depends_on/0", "dependency_cycle")
    drafts = [HTTP, HTTP | {"depends_on": [foreign]}]
    refused = owner.send("POST", "/v1/monitors:batch", json={"monitors": drafts})
    assert fault_of(refused)[:2] == ("/monitors/1/depends_on/0", "unknown_dependency")
    outcome = owner.ask("POST", "/v1/monitors:batch", json={"monitors": drafts, "each_by_itself": True})
    assert [error["pointer"] for error in outcome["results"][1]["refused"]["errors"]] == ["/monitors/1/depends_on/0"]
    owner.send("DELETE", here(parent))
    assert owner.ask("GET", here(child))["depends_on"] == []


def test_no_change_of_options_that_was_answered_is_lost_to_another_at_the_same_moment(owner: Api):
    monitor = create(owner)

    def add(number: int) -> tuple[str, int]:
        name = f"X-{number}"
        return name, owner.send("PATCH", here(monitor), json={"options": {"headers": {name: "1"}}}).status_code

    with ThreadPoolExecutor(6) as pool:
        outcomes = dict(pool.map(add, range(24)))
    assert set(outcomes.values()) <= {200, 409}
    done = {name for name, status in outcomes.items() if status == 200}
    assert owner.ask("GET", here(monitor))["options"]["headers"].keys() == done != set()


@pytest.fixture
def parrot() -> Iterator[str]:
    """A server that answers PONG to whatever it is told."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(100)
                    peer.sendall(b"PONG\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def test_a_preview_of_any_kind_says_what_became_of_each_assertion(owner: Api, target: Target, parrot: str):
    def preview(**body: Any) -> dict[str, Any]:
        seen: dict[str, Any] = owner.ask("POST", "/v1/monitors/preview", json={"timeout_seconds": 5, **body})
        return seen

    assert preview(target=target.url)["assertions"] is None
    seen = preview(target=target.url, assertions=["status == 200", "status in [201, 204]"])
    assert (seen["outcome"], seen["error_kind"]) == ("down", "assertion")
    assert seen["assertions"] == [
        {"assertion": "status == 200", "observed": "200", "holds": True},
        {"assertion": "status in [201, 204]", "observed": "200", "holds": False},
    ]
    said = 'received contains "PONG"'
    seen = preview(kind="tcp", target=parrot, options={"send": "PING\r\n"}, assertions=[said])
    assert (seen["outcome"], seen["assertions"][0]["holds"]) == ("up", True)
    seen = preview(kind="dns", target="example.com", options={"resolver": "127.0.0.1:1"})
    assert seen["outcome"] == "down"
    assert preview(kind="icmp", target="127.0.0.1")["outcome"] in {"up", "unknown"}, "unknown: where ICMP is forbidden"


def test_a_viewer_sees_what_a_monitor_is_told_and_changes_nothing(
    owner: Api, quiet_api: Api, user: User, own_supabase: EmbeddedSupabase, connection: psycopg.Connection
):
    monitor, viewer = create(owner), sign_up_at(own_supabase)
    statement = "insert into memberships (org_id, user_id, role) values (%s, %s, 'viewer')"
    connection.execute(statement, [monitor["org_id"], viewer.id])
    reader = quiet_api.as_user(viewer.access_token)
    assert reader.ask("GET", here(monitor)) == monitor
    assert reader.send("PATCH", here(monitor), json={"options": {"max_redirects": 1}}).status_code == 403

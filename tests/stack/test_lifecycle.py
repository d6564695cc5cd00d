"""Each thing from its beginning to its end, through the API, with everything real."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from standardwebhooks.webhooks import Webhook

from tests.stack.conftest import EmbeddedSupabase, SignUp
from tests.stack.product import Api, Receiver, Target, eventually, running_api


@pytest.fixture
def mine(api: Api, sign_up: SignUp) -> Api:
    """Somebody with one organisation."""
    mine = api.as_user(sign_up().access_token)
    mine.ask("POST", "/v1/orgs", json={"name": "Acme"})
    return mine


@pytest.fixture
def database(supabase: EmbeddedSupabase) -> Iterator[psycopg.Connection]:
    """A superuser's connection to the database behind the API."""
    assert supabase.database_url is not None, "the stack stands on a real Postgres"
    with psycopg.connect(supabase.database_url, autocommit=True) as connection:
        yield connection


def test_a_monitor_is_created_with_sensible_defaults_read_changed_and_deleted(mine: Api):
    answer = mine.send("POST", "/v1/monitors", json={"name": " Home ", "target": "http://127.0.0.1:1/", "paused": True})
    assert answer.status_code == 201
    created = answer.json()
    here = answer.headers["Location"]
    assert here == f"/v1/monitors/{created['id']}"
    assert {name: created[name] for name in ("name", "kind", "state", "paused", "version", "interval_seconds")} == {
        "name": "Home",
        "kind": "http",
        "state": "new",
        "paused": True,
        "version": 1,
        "interval_seconds": 60,
    }
    assert (created["timeout_seconds"], created["retry_interval_seconds"]) == (10, 15)
    assert (created["options"]["expected_status"], created["degraded_after_ms"]) == (["200-299"], None)
    assert mine.ask("GET", here) == created

    changed = mine.ask("PATCH", here, json={"degraded_after_ms": 500, "options": {"expected_status": ["200-204"]}})
    assert changed["version"] == 2
    assert changed | {"version": 1, "updated_at": created["updated_at"]} == created | {
        "degraded_after_ms": 500,
        "options": created["options"] | {"expected_status": ["200-204"]},
    }
    assert mine.ask("PATCH", here, json={"degraded_after_ms": None})["degraded_after_ms"] is None, "null takes away"

    assert mine.send("DELETE", here).status_code == 204
    for method in ("GET", "DELETE"):
        assert mine.send(method, here).status_code == 404


def test_what_does_not_fit_together_is_refused_also_when_it_comes_in_two_parts(mine: Api):
    draft = {"name": "m", "target": "http://127.0.0.1:1/", "interval_seconds": 5, "paused": True}
    refused = mine.send("POST", "/v1/monitors", json=draft | {"timeout_seconds": 6, "retry_interval_seconds": 7})
    assert refused.status_code == 422
    assert {fault["pointer"] for fault in refused.json()["errors"]} == {"/timeout_seconds", "/retry_interval_seconds"}
    created = mine.ask("POST", "/v1/monitors", json=draft)
    refused = mine.send("PATCH", f"/v1/monitors/{created['id']}", json={"timeout_seconds": 30})
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/timeout_seconds"]


def test_an_etag_saves_a_reader_the_body_and_a_writer_the_overwriting(mine: Api):
    here = make_monitor(mine)
    read = mine.send("GET", here)
    etag = read.headers["ETag"]
    assert re.fullmatch(r'"1\..+"', etag)
    again = mine.send("GET", here, headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)

    first = mine.send("PATCH", here, json={"name": "first"}, headers={"If-Match": etag})
    assert first.status_code == 200
    assert first.headers["ETag"] != etag
    for method, path, body in (
        ("PATCH", here, {"name": "second"}),
        ("POST", here + "/pause", None),
        ("POST", here + "/resume", None),
        ("DELETE", here, None),
    ):
        late = mine.send(method, path, json=body, headers={"If-Match": etag})
        assert (late.status_code, late.json()["code"]) == (412, "precondition_failed"), (method, path)
    assert mine.ask("GET", here)["name"] == "first"
    assert mine.send("GET", here, headers={"If-None-Match": etag}).status_code == 200
    assert mine.send("DELETE", here, headers={"If-Match": first.headers["ETag"]}).status_code == 204


def test_a_change_of_state_by_the_worker_refuses_nobodys_change(mine: Api, worker: object, target: Target):
    here = make_monitor(mine, target=target.url, interval_seconds=5)
    etag = mine.send("GET", here).headers["ETag"]
    eventually(lambda: mine.ask("GET", here)["state"] == "up", "the monitor is not up")
    assert mine.send("GET", here, headers={"If-None-Match": etag}).status_code == 200, "it looks different now"
    assert mine.send("PATCH", here, json={"name": "x"}, headers={"If-Match": etag}).status_code == 200


def test_a_paused_monitor_is_not_watched_and_the_time_counts_as_paused(mine: Api, worker: object, target: Target):
    here = make_monitor(mine, target=target.url, interval_seconds=5)
    eventually(lambda: mine.ask("GET", here)["state"] == "up", "the monitor is not up")
    paused = mine.ask("POST", here + "/pause")
    assert (paused["paused"], paused["state"]) == (True, "unknown")
    assert mine.ask("POST", here + "/pause")["version"] == paused["version"], "twice is once"
    eventually(lambda: mine.ask("GET", here + "/uptime")["paused_ms"] > 0, "the pause does not count")
    uptime = mine.ask("GET", here + "/uptime")
    assert (uptime["down_ms"], uptime["unknown_ms"], uptime["uptime_ratio"]) == (0, 0, 1)
    seen_before = mine.ask("GET", here + "/checks")["data"]
    resumed = mine.ask("POST", here + "/resume")
    assert (resumed["paused"], resumed["state"]) == (False, "new")
    eventually(lambda: mine.ask("GET", here)["state"] == "up", "it is not watched again")
    assert len(mine.ask("GET", here + "/checks")["data"]) > len(seen_before)
    uptime = mine.ask("GET", here + "/uptime")
    assert uptime["paused_ms"] > 0
    assert uptime["uptime_ratio"] == 1
    assert mine.ask("GET", "/v1/incidents")["data"] == [], "coming back from a pause is silent"


def test_an_uptime_window_says_what_is_wrong_with_it(mine: Api):
    here = make_monitor(mine)
    backwards = "?from=2026-02-02T00:00:00Z&to=2026-02-01T00:00:00Z"
    for window, pointer in ((backwards, "from"), ("?from=yesterday", "from"), ("?to=2026-01-01T00:00:00", "to")):
        refused = mine.send("GET", f"{here}/uptime{window}")
        assert refused.status_code == 422, window
        assert [fault["pointer"] for fault in refused.json()["errors"]] == [pointer]
    nothing = mine.ask("GET", here + "/uptime")
    assert (nothing["uptime_ratio"], nothing["coverage_ratio"]) == (None, None)


def test_a_preview_checks_once_and_saves_nothing(mine: Api, target: Target):
    up = mine.ask("POST", "/v1/monitors/preview", json={"target": target.url})
    assert (up["outcome"], up["status_code"], up["error_kind"]) == ("up", 200, None)
    assert 0 < up["connect_ms"] <= up["total_ms"]
    other = mine.ask(
        "POST", "/v1/monitors/preview", json={"target": target.url, "options": {"expected_status": ["404"]}}
    )
    assert (other["outcome"], other["status_code"], other["error_kind"]) == ("down", 200, "status")
    target.stop()
    down = mine.ask("POST", "/v1/monitors/preview", json={"target": target.url})
    assert (down["outcome"], down["status_code"], down["error_kind"]) == ("down", None, "connect")
    assert mine.ask("GET", "/v1/monitors")["data"] == []


def test_where_no_private_target_is_allowed_none_is_reached(
    supabase: EmbeddedSupabase, sign_up: SignUp, target: Target, tmp_path
):
    with running_api(supabase, tmp_path, PRIVATE_TARGETS="") as strict_api:
        mine = strict_api.as_user(sign_up().access_token)
        mine.ask("POST", "/v1/orgs", json={"name": "Acme"})
        for url in (target.url, f"http://localhost:{target.port}/", "http://[::ffff:127.0.0.1]/", "http://2130706433/"):
            refused = mine.send("POST", "/v1/monitors/preview", json={"target": url})
            assert refused.status_code == 422, url
            (fault,) = refused.json()["errors"]
            assert (fault["pointer"], fault["code"]) == ("/target", "url_private")
        channel = mine.send("POST", "/v1/channels", json={"name": "x", "url": target.url})
        assert [fault["pointer"] for fault in channel.json()["errors"]] == ["/url"]


def test_monitors_are_filtered_by_organisation_state_and_pause(mine: Api, database: psycopg.Connection):
    second_org = mine.ask("POST", "/v1/orgs", json={"name": "Second"})["id"]
    first_org = next(org["id"] for org in mine.ask("GET", "/v1/orgs")["data"] if org["id"] != second_org)
    running, paused, elsewhere = (
        make_monitor(mine, org_id=org_id, paused=is_paused)
        for org_id, is_paused in ((first_org, False), (first_org, True), (second_org, True))
    )

    def listed(query: str) -> set[str]:
        return {f"/v1/monitors/{each['id']}" for each in mine.ask("GET", f"/v1/monitors?{query}")["data"]}

    assert listed("") == {running, paused, elsewhere}
    assert listed(f"org_id={first_org}") == {running, paused}
    assert listed("paused=true") == {paused, elsewhere}
    assert listed(f"paused=true&org_id={second_org}") == {elsewhere}
    assert listed("state=down") == set()
    assert listed(f"org_id={uuid4()}") == set()
    for wrong in ("state=happy", "paused=perhaps", "org_id=1", "limit=0", "limit=201", "cursor=abc", "colour=red"):
        assert mine.send("GET", f"/v1/monitors?{wrong}").status_code == 422, wrong


@pytest.mark.parametrize("limit", [7, 50, 119, 120, 121, 200])
def test_pages_neither_skip_nor_repeat_a_row_although_all_were_made_at_one_moment(
    mine: Api, database: psycopg.Connection, limit: int
):
    org_id = mine.ask("GET", "/v1/orgs")["data"][0]["id"]
    database.execute(
        "insert into monitors (org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds,"
        " fail_threshold, recover_threshold, paused)"
        " select %s, 'm', 'http', 'http://127.0.0.1:1/', 60, 10, 15, 2, 1, true"
        " from generate_series(1, 120)",
        [org_id],
    )
    pages = list(pages_of(mine, "/v1/monitors", limit))
    ids = [row["id"] for page in pages for row in page]
    assert len(ids) == len(set(ids)) == 120
    assert len({row["created_at"] for page in pages for row in page}) == 1
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)


def test_a_list_that_grows_while_it_is_read_shows_every_old_row_once(mine: Api):
    old = {make_monitor(mine, paused=True) for _ in range(6)}
    seen = []
    for page in pages_of(mine, "/v1/monitors", 2):
        seen += [f"/v1/monitors/{row['id']}" for row in page]
        make_monitor(mine, paused=True)
    assert len(seen) == len(set(seen))
    assert set(seen) == old


def test_checks_are_paged_newest_first_and_filtered_by_outcome(mine: Api, database: psycopg.Connection):
    here = make_monitor(mine, paused=True)
    monitor_id = here.rsplit("/", 1)[1]
    database.execute(
        "insert into check_results (id, org_id, monitor_id, started_at, region, outcome, counted)"
        " select gen_random_uuid(), org_id, id, now() - make_interval(secs => n / 3), 'test',"
        " case when n %% 4 = 0 then 'down' else 'up' end, true from monitors, generate_series(1, 130) n where id = %s",
        [monitor_id],
    )
    rows = [row for page in pages_of(mine, here + "/checks", 9) for row in page]
    assert len({row["id"] for row in rows}) == len(rows) == 130
    assert rows == sorted(rows, key=lambda row: (row["started_at"], row["id"]), reverse=True)
    down = [row for page in pages_of(mine, here + "/checks", 10, outcome="down") for row in page]
    assert len(down) == 32
    assert {row["outcome"] for row in down} == {"down"}


def test_an_incident_is_acknowledged_commented_on_and_resolved_and_never_goes_back(
    mine: Api, worker: object, receiver: Receiver
):
    mine.ask("POST", "/v1/channels", json={"name": "hook", "url": receiver.url})
    make_monitor(mine, interval_seconds=86400, fail_threshold=1)
    me = mine.ask("GET", "/v1/me")["id"]
    incident = eventually(lambda: mine.ask("GET", "/v1/incidents")["data"], "there is no incident")[0]
    here = f"/v1/incidents/{incident['id']}"
    assert (incident["state"], incident["version"], incident["evidence"]["failures_in_a_row"]) == ("open", 1, 1)
    etag = mine.send("GET", here).headers["ETag"]

    acknowledged = mine.ask("POST", here + "/acknowledge", headers={"If-Match": etag})
    assert (acknowledged["state"], acknowledged["acknowledged_by"], acknowledged["version"]) == ("acknowledged", me, 2)
    assert mine.ask("POST", here + "/acknowledge") == acknowledged, "twice is once"
    assert mine.send("POST", here + "/resolve", headers={"If-Match": etag}).status_code == 412

    for text in ("The disk is full.", "I empty it."):
        assert mine.send("POST", here + "/comments", json={"body": text}).status_code == 201
    comments = mine.ask("GET", here)["comments"]
    assert [(each["body"], each["author_id"]) for each in comments] == [
        ("The disk is full.", me),
        ("I empty it.", me),
    ]
    for body in ({"body": "  "}, {"body": "x" * 4001}, {}, {"body": "x", "author_id": me}):
        assert mine.send("POST", here + "/comments", json=body).status_code == 422

    resolved = mine.ask("POST", here + "/resolve")
    assert (resolved["state"], resolved["resolution"], resolved["resolved_by"]) == ("resolved", "by_hand", me)
    assert mine.ask("POST", here + "/resolve") == resolved, "twice is once"
    refused = mine.send("POST", here + "/acknowledge")
    assert (refused.status_code, refused.json()["code"]) == (409, "incident_resolved")
    assert mine.send("POST", here + "/comments", json={"body": "A word afterwards."}).status_code == 201
    assert mine.ask("GET", "/v1/incidents?state=open")["data"] == []
    assert [each["id"] for each in mine.ask("GET", "/v1/incidents?state=resolved")["data"]] == [incident["id"]]

    eventually(lambda: receiver.of_type("incident.resolved"), "nobody was told")
    told = [each.message["type"] for each in receiver.received]
    assert told == ["incident.opened", "incident.acknowledged", "incident.resolved"]


def test_a_channel_shows_its_secret_once_and_its_test_is_delivered(mine: Api, worker: object, receiver: Receiver):
    channel = mine.ask("POST", "/v1/channels", json={"name": "hook", "url": receiver.url})
    assert channel["secret"].startswith("whsec_")
    assert "secret" not in mine.ask("GET", "/v1/channels")["data"][0]
    answer = mine.send("POST", f"/v1/channels/{channel['id']}/test")
    assert (answer.status_code, answer.json()["state"], answer.json()["type"]) == (202, "pending", "channel.test")
    (received,) = eventually(lambda: receiver.of_type("channel.test"), "the test was not delivered")
    Webhook(channel["secret"]).verify(received.body, received.headers)
    assert received.headers["webhook-id"] == answer.json()["id"]
    delivered = eventually(lambda: deliveries_in(mine, "delivered"), "it is not settled")
    assert (delivered[0]["attempts"], delivered[0]["last_status_code"]) == (1, 200)
    assert mine.send("DELETE", f"/v1/channels/{channel['id']}").status_code == 204
    assert mine.send("POST", f"/v1/channels/{channel['id']}/test").status_code == 404
    assert mine.ask("GET", "/v1/deliveries")["data"] == []


def test_a_delivery_that_fails_is_tried_again_under_its_id_and_not_given_up(mine: Api, worker: object):
    receiver = Receiver([500])
    try:
        channel = mine.ask("POST", "/v1/channels", json={"name": "hook", "url": receiver.url})
        delivery = mine.ask("POST", f"/v1/channels/{channel['id']}/test")
        waiting = eventually(
            lambda: [each for each in deliveries_in(mine, "pending") if each["last_error"]], "it did not fail"
        )[0]
        assert (waiting["attempts"], waiting["last_status_code"]) == (1, 500)
        assert waiting["next_attempt_at"] > waiting["created_at"]
        eventually(lambda: deliveries_in(mine, "delivered"), "it was not tried again", within_seconds=30)
        assert {each.headers["webhook-id"] for each in receiver.received} == {delivery["id"]}
        assert len(receiver.received) == 2
    finally:
        receiver.close()


def test_a_receiver_that_is_gone_for_good_ends_a_delivery_until_somebody_retries_it(mine: Api, worker: object):
    receiver = Receiver([410])
    try:
        channel = mine.ask("POST", "/v1/channels", json={"name": "hook", "url": receiver.url})
        mine.ask("POST", f"/v1/channels/{channel['id']}/test")
        dead = eventually(lambda: deliveries_in(mine, "dead"), "it was not given up")[0]
        assert (dead["last_status_code"], dead["next_attempt_at"]) == (410, None)
        answer = mine.send("POST", f"/v1/deliveries/{dead['id']}/retry")
        assert (answer.status_code, answer.json()["state"], answer.json()["attempts"]) == (202, "pending", 0)
        delivered = eventually(lambda: deliveries_in(mine, "delivered"), "it was not sent again")[0]
        assert (delivered["id"], delivered["attempts"]) == (dead["id"], 1)
        first, second = receiver.received
        assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    finally:
        receiver.close()


def test_an_organisation_is_founded_renamed_and_deleted_with_everything_in_it(mine: Api):
    (first,) = mine.ask("GET", "/v1/orgs")["data"]
    answer = mine.send("POST", "/v1/orgs", json={"name": "  Second  "})
    assert answer.status_code == 201
    here, created = answer.headers["Location"], answer.json()
    assert (created["name"], created["my_role"], created["version"]) == ("Second", "owner", 1)
    assert mine.ask("GET", here) == created

    ambiguous = mine.send("POST", "/v1/monitors", json={"name": "m", "target": "http://127.0.0.1:1/"})
    assert [fault["pointer"] for fault in ambiguous.json()["errors"]] == ["/org_id"], "which of the two?"
    monitor = make_monitor(mine, org_id=created["id"], paused=True)

    etag = mine.send("GET", here).headers["ETag"]
    renamed = mine.ask("PATCH", here, json={"name": "Renamed"}, headers={"If-Match": etag})
    assert (renamed["name"], renamed["version"]) == ("Renamed", 2)
    for method, body in (("PATCH", {"name": "Late"}), ("DELETE", None)):
        assert mine.send(method, here, json=body, headers={"If-Match": etag}).status_code == 412
    assert {each["org_name"] for each in mine.ask("GET", "/v1/me")["memberships"]} == {"Acme", "Renamed"}

    assert mine.send("DELETE", here).status_code == 204
    for gone in (here, monitor):
        assert mine.send("GET", gone).status_code == 404
    assert [org["id"] for org in mine.ask("GET", "/v1/orgs")["data"]] == [first["id"]]


def test_me_says_who_the_token_says_and_where_they_belong(api: Api, sign_up: SignUp):
    user = sign_up()
    mine = api.as_user(user.access_token)
    me = mine.ask("GET", "/v1/me")
    assert (me["id"], me["email"], me["is_anonymous"], me["memberships"]) == (str(user.id), user.email, False, [])
    org = mine.ask("POST", "/v1/orgs", json={"name": "Acme"})
    assert mine.ask("GET", "/v1/me")["memberships"] == [{"org_id": org["id"], "org_name": "Acme", "role": "owner"}]


def make_monitor(mine: Api, **more: Any) -> str:
    """Create a monitor, of a port where nobody answers; return its path."""
    draft = {"name": "m", "target": "http://127.0.0.1:1/", **more}
    return f"/v1/monitors/{mine.ask('POST', '/v1/monitors', json=draft)['id']}"


def deliveries_in(mine: Api, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = mine.ask("GET", f"/v1/deliveries?state={state}")["data"]
    return found


def pages_of(mine: Api, path: str, limit: int, **filters: str) -> Iterator[list[dict[str, Any]]]:
    """Follow `next_cursor` to the end."""
    cursor: dict[str, str] = {}
    while True:
        page = mine.ask("GET", path, params={"limit": str(limit), **filters, **cursor})
        yield page["data"]
        if page["next_cursor"] is None:
            return
        cursor = {"cursor": page["next_cursor"]}

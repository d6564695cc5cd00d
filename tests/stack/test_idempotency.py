"""A POST sent again is answered as it was the first time, and makes nothing twice: whatever dies in between."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import requests
from ports import free_port

from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.product import Api, Target, environment, eventually, process
from tests.stack.sql import rows, value
from tests.stack.upstream import WITHHELD, Between, through

TWINS = 50
KILLS = 4
DRAFT = {"name": "mine", "target": "http://127.0.0.1:1/"}


def under(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def test_a_repetition_gets_the_first_answer_whatever_became_of_the_thing(owner: Api):
    first = owner.send("POST", "/v1/monitors", json=DRAFT, headers=under("a"))
    assert first.status_code == 201, first.text
    owner.ask("PATCH", f"/v1/monitors/{first.json()['id']}", json={"name": "renamed since"})
    again = owner.send(
        "POST",
        "/v1/monitors",
        data='{"target":"http://127.0.0.1:1/",  "name":"mine"}',
        headers=under("a") | {"Content-Type": "application/json"},
    )
    assert (again.status_code, again.json()) == (201, first.json()), "the same body, however it is spelled"
    assert again.headers["Location"] == first.headers["Location"]
    owner.ask("DELETE", f"/v1/monitors/{first.json()['id']}")
    assert owner.send("POST", "/v1/monitors", json=DRAFT, headers=under("a")).json() == first.json()
    assert owner.ask("GET", "/v1/monitors")["data"] == []


def test_another_request_under_the_same_key_is_refused(owner: Api):
    owner.ask("POST", "/v1/monitors", json=DRAFT, headers=under("b"))
    for path, body in [
        ("/v1/monitors", DRAFT | {"name": "other"}),
        ("/v1/monitors", DRAFT | {"paused": True}),
        ("/v1/channels", {"name": "mine", "url": "http://127.0.0.1:1/"}),
    ]:
        refused = owner.send("POST", path, json=body, headers=under("b"))
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert len(owner.ask("GET", "/v1/monitors")["data"]) == 1


def test_everybody_has_keys_of_their_own(owner: Api, quiet_api: Api, own_supabase: EmbeddedSupabase):
    first = owner.ask("POST", "/v1/monitors", json=DRAFT, headers=under("c"))
    stranger = quiet_api.as_user(sign_up_at(own_supabase).access_token)
    stranger.ask("POST", "/v1/orgs", json={"name": "Theirs"})
    theirs = stranger.ask("POST", "/v1/monitors", json=DRAFT, headers=under("c"))
    assert theirs["id"] != first["id"]


def test_what_was_refused_is_judged_anew(owner: Api):
    wrong = owner.send("POST", "/v1/monitors", json=DRAFT | {"interval_seconds": 1}, headers=under("d"))
    assert wrong.status_code == 422
    assert owner.send("POST", "/v1/monitors", json=DRAFT, headers=under("d")).status_code == 201


def test_a_repetition_is_answered_where_the_first_try_stands_in_its_own_way(owner: Api, connection: psycopg.Connection):
    org = owner.ask("GET", "/v1/orgs")["data"][0]["id"]
    monitor = owner.ask("POST", "/v1/monitors", json=DRAFT)
    incident = value(
        connection,
        "insert into incidents (org_id, monitor_id, cause, summary, evidence, started_at)"
        " values (%s, %s, 'connect', 'could not connect', '{}', now()) returning id::text",
        [org, monitor["id"]],
    )
    path = f"/v1/incidents/{incident}/acknowledge"
    first = owner.ask("POST", path, headers=under("e"))
    owner.ask("POST", f"/v1/incidents/{incident}/resolve")
    assert owner.send("POST", path).json()["code"] == "incident_resolved", "without the key it is a request of its own"
    assert owner.ask("POST", path, headers=under("e")) == first
    owner.ask("DELETE", f"/v1/monitors/{monitor['id']}")
    assert owner.ask("POST", path, headers=under("e")) == first, "even when nothing of it is left"


def test_a_secret_that_is_shown_once_is_shown_again_to_a_repetition(owner: Api):
    body = {"name": "hook", "url": "http://127.0.0.1:1/"}
    first, again = (owner.ask("POST", "/v1/channels", json=body, headers=under("f")) for _ in range(2))
    assert first == again
    assert owner.ask("POST", "/v1/channels", json=body)["secret"] != first["secret"]
    draft = {"name": "CI", "scopes": ["read"]}
    first, again = (owner.ask("POST", "/v1/api-keys", json=draft, headers=under("g")) for _ in range(2))
    assert first == again
    assert owner.ask("POST", "/v1/api-keys", json=draft, headers=under("h"))["secret"] != first["secret"]


def test_a_preview_that_is_sent_again_does_not_look_again(owner: Api, target: Target):
    body = {"target": target.url, "timeout_seconds": 1}
    first = owner.ask("POST", "/v1/monitors/preview", json=body, headers=under("preview"))
    target.stop()
    assert first["outcome"] == "up"
    assert owner.ask("POST", "/v1/monitors/preview", json=body, headers=under("preview")) == first
    assert owner.ask("POST", "/v1/monitors/preview", json=body)["outcome"] == "down"
    other = owner.send("POST", "/v1/monitors/preview", json={**body, "timeout_seconds": 2}, headers=under("preview"))
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_a_repetition_by_who_may_not_any_more_shows_no_secret_again(owner: Api, connection: psycopg.Connection):
    requests_made = {
        "/v1/monitors": DRAFT,
        "/v1/monitors:batch": {"monitors": [DRAFT]},
        "/v1/channels": {"name": "hook", "url": "http://127.0.0.1:1/"},
        "/v1/api-keys": {"name": "CI", "scopes": ["read"]},
    }
    firsts = {path: owner.ask("POST", path, json=body, headers=under(path)) for path, body in requests_made.items()}
    org_id = firsts["/v1/monitors"]["org_id"]
    connection.execute("update memberships set role = 'viewer' where org_id = %s", [org_id])
    again = {path: owner.send("POST", path, json=body, headers=under(path)) for path, body in requests_made.items()}
    assert {path: answer.status_code for path, answer in again.items()} == {
        "/v1/monitors": 201,
        "/v1/monitors:batch": 403,
        "/v1/channels": 403,
        "/v1/api-keys": 403,
    }
    assert again["/v1/monitors"].json() == firsts["/v1/monitors"], "what they wrote, as it was then"


def test_past_the_api_nothing_but_writes_of_one_document_is_kept(owner: Api, own_supabase: EmbeddedSupabase):
    def once(function: str, arguments: dict[str, Any], key: str = "past") -> tuple[int, str]:
        answer = requests.post(
            f"{own_supabase.url}/rest/v1/rpc/once",
            headers={"apikey": own_supabase.publishable_key, "Authorization": f"Bearer {owner.token}"},
            json={"key": key, "fingerprint": "0" * 64, "function": function, "arguments": arguments},
            timeout=30,
        )
        return answer.status_code, answer.json().get("message", "")

    inner = {"key": "x", "fingerprint": "0" * 64, "function": "create_organisation", "arguments": {"name": "x"}}
    refused: list[tuple[str, dict[str, Any]]] = [
        ("overview", {}),  # reads
        ("recall_answer", {"key": "x", "fingerprint": "0" * 64}),
        ("once", inner),
        ("delete_organisation", {"org_id": str(uuid4())}),  # answers nothing
        ("set_config", {}),
        ("create_organisation(null); drop table events; --", {}),
    ]
    for function, arguments in refused:
        assert once(function, arguments) == (404, "not_found"), function
    name = {"name": "Theirs"}
    assert once("create_organisation", name | {"name) => 'x', (name": "y"}) == (200, ""), "what it does not take"
    for key in ("", "x" * 256):
        assert once("create_organisation", name, key)[0] == 400, key
    assert once("claim_due", {"region": "x", "max_checks": 1, "lease_seconds": 1}, "worker")[0] == 403, "not theirs"


def test_a_key_is_forgotten_after_a_day(owner: Api, connection: psycopg.Connection):
    first = owner.ask("POST", "/v1/monitors", json=DRAFT, headers=under("i"))
    connection.execute(
        "update private.idempotent_answers set created_at = created_at - interval '24 hours' where key = 'i'"
    )
    second = owner.ask("POST", "/v1/monitors", json=DRAFT, headers=under("i"))
    assert second["id"] != first["id"]
    connection.execute(
        "update private.idempotent_answers set created_at = created_at - interval '24 hours' where key = 'i'"
    )
    assert value(connection, "select forget_answers(1000)") == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é".encode().decode("latin-1")])
def test_a_key_that_cannot_be_used_is_named(owner: Api, key: str):
    refused = owner.send("POST", "/v1/monitors", json=DRAFT, headers=under(key))
    assert refused.status_code == 400, refused.text
    assert refused.json()["errors"][0]["pointer"] == "Idempotency-Key"


def test_fifty_twins_at_once_make_one(owner: Api):
    gate = threading.Barrier(TWINS)

    def send(_: int) -> requests.Response:
        gate.wait()
        return owner.send("POST", "/v1/monitors", json=DRAFT, headers=under("twins"))

    with ThreadPoolExecutor(TWINS) as crowd:
        answers = list(crowd.map(send, range(TWINS)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_key_in_use"}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert len(owner.ask("GET", "/v1/monitors")["data"]) == 1


def test_a_write_whose_answer_was_lost_to_kill_nine_is_not_made_again(
    own_supabase: EmbeddedSupabase, connection: psycopg.Connection, tmp_path: Path
):
    between, key = Between(own_supabase.url), under(str(uuid4()))
    token = sign_up_at(own_supabase).access_token
    try:
        with Mortal(through(between, own_supabase), tmp_path) as api:
            owner = api.client.as_user(token)
            between.become(WITHHELD)
            with ThreadPoolExecutor(1) as other:
                lost = other.submit(owner.send, "POST", "/v1/orgs", json={"name": "Once"}, headers=key)
                eventually(lambda: between.waiting, "the write does not reach the database")
                assert value(connection, "select count(*) from organisations where name = 'Once'") == 1
                api.die()
                with pytest.raises(requests.ConnectionError):
                    lost.result()
            between.become(None)
            api.live()
            again = owner.ask("POST", "/v1/orgs", json={"name": "Once"}, headers=key)
        assert rows(connection, "select id::text from organisations where name = 'Once'") == [(again["id"],)]
    finally:
        between.close()


def test_fifty_twins_make_one_while_the_api_is_killed(
    own_supabase: EmbeddedSupabase, connection: psycopg.Connection, tmp_path: Path
):
    token, key = sign_up_at(own_supabase).access_token, under(str(uuid4()))
    body = {"name": "Twins"}

    def insist(owner: Api) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                answer = owner.send("POST", "/v1/orgs", json=body, headers=key)
            except requests.ConnectionError:
                continue
            if answer.status_code == 201:
                made: dict[str, Any] = answer.json()
                return made
            assert answer.status_code in {409, 429, 503}, answer.text
        raise AssertionError("no answer in a minute")

    with Mortal(own_supabase, tmp_path) as api, ThreadPoolExecutor(TWINS) as crowd:
        owner = api.client.as_user(token)
        api.die()
        twins = [crowd.submit(insist, owner) for _ in range(TWINS)]
        for number in range(KILLS):
            api.live()
            time.sleep(0.05 * number)
            api.die()
        api.live()
        made = [twin.result() for twin in twins]
    assert all(each == made[0] for each in made)
    assert rows(connection, "select id::text from organisations where name = 'Twins'") == [(made[0]["id"],)]


class Mortal:
    """An API that can be killed with kill -9 and started again, at one address."""

    def __init__(self, supabase: EmbeddedSupabase, folder: Path) -> None:
        self._port = free_port()
        self._environment = environment(supabase, PORT=str(self._port))
        self._log_path = folder / "api.log"
        self._life = ExitStack()
        self.client = Api(f"http://127.0.0.1:{self._port}")

    def __enter__(self) -> "Mortal":
        self.live()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._life.close()

    def live(self) -> None:
        """Start it, and wait until it answers."""
        self._running = self._life.enter_context(process("server", self._environment, self._log_path))

        def is_up() -> bool:
            try:
                return requests.get(f"{self.client.url}/healthz", timeout=5).ok
            except requests.ConnectionError:
                return False

        eventually(is_up, "the API does not get up")

    def die(self) -> None:
        """Kill it, every process of it, at once."""
        os.killpg(self._running.pid, signal.SIGKILL)
        self._running.wait()

"""Supabase goes away: refused, stalled, reset, cut off, replaced by a proxy's page. And it comes back."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.product import Api, Website, eventually, running_api, running_worker
from tests.stack.sql import value
from tests.stack.upstream import FAULTS, Between, through

# Well beyond the API's own limits (a second in the queue, five for the answer), so that only a hang fails.
DEADLINE_SECONDS = 20
PROBLEM_STATUS = {503, 504}


@pytest.fixture
def between(own_supabase: EmbeddedSupabase) -> Iterator[Between]:
    between = Between(own_supabase.url)
    yield between
    between.close()


@pytest.fixture(scope="module")
def remote(own_supabase: EmbeddedSupabase) -> Iterator[Between]:
    """One that the module's API stands behind."""
    between = Between(own_supabase.url)
    yield between
    between.close()


@pytest.fixture(scope="module")
def nervous_api(
    own_supabase: EmbeddedSupabase, remote: Between, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """An API that reaches Supabase through something that can break."""
    with running_api(through(remote, own_supabase), tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture(scope="module")
def mine(nervous_api: Api, own_supabase: EmbeddedSupabase) -> Api:
    mine = nervous_api.as_user(sign_up_at(own_supabase).access_token)
    mine.ask("POST", "/v1/orgs", json={"name": "Acme"})
    return mine


@pytest.mark.parametrize("fault", FAULTS)
def test_requests_are_refused_in_time_and_served_as_soon_as_it_is_back(mine: Api, remote: Between, fault: str):
    remote.become(fault)
    try:
        for method, path, body in (("GET", "/v1/orgs", None), ("POST", "/v1/orgs", {"name": "New"})):
            began = time.monotonic()
            answer = mine.send(method, path, json=body)
            assert time.monotonic() - began < DEADLINE_SECONDS
            assert answer.status_code in PROBLEM_STATUS, answer.text
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert int(answer.headers["Retry-After"]) >= 1
            assert "nginx" not in answer.text
        assert mine.send("GET", "/healthz").status_code == 200
        readiness = mine.send("GET", "/readyz")
        assert readiness.status_code == 503
        assert readiness.json()["status"] == "unready"
        assert not readiness.json()["dependencies"]["database"]["ok"]
    finally:
        remote.become(None)
    assert mine.send("GET", "/v1/orgs").status_code == 200, "the very next request"
    assert mine.send("GET", "/readyz").status_code == 200


@pytest.mark.parametrize(("fault", "slow_seconds"), [("stall", 0), (None, 0.5)])
def test_a_hundred_requests_to_a_slow_upstream_are_all_answered_and_the_process_lives(
    mine: Api, remote: Between, fault: str | None, slow_seconds: float
):
    remote.slow_seconds = slow_seconds
    remote.become(fault)
    try:
        with ThreadPoolExecutor(100) as crowd:
            began = time.monotonic()
            answers = [crowd.submit(mine.send, "GET", "/v1/orgs") for _ in range(100)]
            eventually(lambda: remote.waiting >= 10, "nobody waits for the upstream")
            assert mine.send("GET", "/healthz").status_code == 200
            still_waiting = sum(not answer.done() for answer in answers)
            statuses = {answer.result().status_code for answer in answers}
            assert time.monotonic() - began < DEADLINE_SECONDS
    finally:
        remote.slow_seconds = 0
        remote.become(None)
    assert still_waiting > 0, "/healthz was asked while others waited"
    assert statuses <= {200} | PROBLEM_STATUS
    assert (200 in statuses) == (fault is None)
    assert mine.send("GET", "/v1/orgs").status_code == 200


def test_what_the_worker_sees_while_supabase_is_away_is_recorded_when_it_is_back(
    own_supabase: EmbeddedSupabase, between: Between, connection: psycopg.Connection, nervous_api: Api, tmp_path
):
    site, log = Website(), tmp_path / "worker.log"
    mine = nervous_api.as_user(sign_up_at(own_supabase).access_token)
    mine.ask("POST", "/v1/orgs", json={"name": "Acme"})

    def look_while_it_is_away(fault: str) -> None:
        page = f"/{fault.replace(' ', '-')}"
        draft = {"name": fault, "target": site.url + page, "interval_seconds": 3600, "timeout_seconds": 60}
        site.hold()
        ids = [mine.ask("POST", "/v1/monitors", json=draft)["id"] for _ in range(3)]
        eventually(lambda: site.visits[page] == 3, "the checks do not begin")
        logged = log.stat().st_size
        between.become(fault)
        site.release()
        eventually(lambda: b"cannot record" in log.read_bytes()[logged:], "the worker notices nothing")
        between.become(None)
        recorded = "select count(*) from check_results where monitor_id = any (%s::uuid[]) and counted"
        eventually(lambda: value(connection, recorded, [ids]) == 3, f"{fault}: a result was lost")
        assert site.visits[page] == 3, "nothing had to be looked at twice"

    try:
        with running_worker(through(between, own_supabase), tmp_path) as worker:
            for fault in FAULTS:
                look_while_it_is_away(fault)
            assert worker.poll() is None, "it crashed"
    finally:
        site.close()
    assert b"Traceback" not in log.read_bytes()

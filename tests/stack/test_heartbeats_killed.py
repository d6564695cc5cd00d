"""kill -9 of the worker at any moment loses no ping, and the history is what the rules make of the pings."""

import random
import time
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
import requests

from server.features.pings.rules import Ping, PingKind, Schedule, Standing, judge
from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.heartbeats import Heart, make_heartbeat
from tests.stack.product import eventually, running_api, running_worker
from tests.stack.sql import rows, value
from tests.stack.test_kill_nine import let_leases_run_out

KILLS, HEARTS = 8, 12
GRACE_SECONDS = 2
SIGNALS = ("", "/start", "/fail", "/0", "/1", "/log")


@pytest.fixture(scope="module")
def hearts(
    own_supabase: EmbeddedSupabase, connection: psycopg.Connection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Heart]]:
    """What is left when workers were killed while jobs pinged, and the last one was left alone."""
    folder, chance = tmp_path_factory.mktemp("killed"), random.Random(9)  # seeded: the same moments each time
    with running_api(own_supabase, folder) as api:
        mine = api.as_user(sign_up_at(own_supabase).access_token)
        org_id = mine.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"]
        hearts = [make_heartbeat(connection, org_id, grace_seconds=GRACE_SECONDS) for _ in range(HEARTS)]
        for _ in range(KILLS):
            with running_worker(own_supabase, folder) as worker:
                ends_at = time.monotonic() + chance.uniform(0.8, 2.0)
                while time.monotonic() < ends_at:  # the moment of death is what is tried
                    heart = chance.choice(hearts)
                    assert requests.get(api.url + heart.url + chance.choice(SIGNALS), timeout=10).text == "OK"
                worker.kill()
                worker.wait(5)
            let_leases_run_out(connection)
        time.sleep(GRACE_SECONDS)  # so that runs that nobody has ended are over
        with running_worker(own_supabase, folder):
            eventually(lambda: are_judged(connection), "pings are left that nobody has judged", within_seconds=40)
            eventually(lambda: not due(connection), "something is due", within_seconds=40)
        yield hearts


def are_judged(connection: psycopg.Connection) -> bool:
    return bool(value(connection, "select bool_and(judged_n = n) from private.heartbeats"))


def due(connection: psycopg.Connection) -> list[tuple[object, ...]]:
    return rows(connection, "select monitor_id from private.monitor_schedules where due_at <= now()")


def test_every_ping_that_was_answered_is_there_and_numbered_without_a_gap(hearts: list[Heart]):
    for heart in hearts:
        numbers = [n for (n,) in heart.pings("n")]
        assert len(numbers) > 5
        assert numbers == list(range(1, len(numbers) + 1))


def test_the_history_is_what_the_rules_make_of_the_pings_whoever_died_in_between(hearts: list[Heart]):
    for heart in hearts:
        schedule = Schedule(
            lambda success_at: success_at + timedelta(days=1),
            timedelta(seconds=GRACE_SECONDS),
            None,
            heart.ask("select schedule_since from private.heartbeats where monitor_id = %s"),
        )
        pings = [Ping(n, at, PingKind(kind), rid=rid) for n, at, kind, rid in heart.pings("n, received_at, kind, rid")]
        now = heart.ask("select now() from monitors where id = %s")
        changes = judge(schedule, Standing(), pings, now).changes
        assert heart.ledger() == [(each.state, each.at, each.cause) for each in changes]
        incidents = [(each.cause, each.at) for each in changes if each.opens_incident]
        assert [(cause, started_at) for cause, _, started_at, _ in heart.incidents()] == incidents
        assert heart.state == changes[-1].state

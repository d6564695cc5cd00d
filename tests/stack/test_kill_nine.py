"""kill -9 of the worker at any moment: nothing that was acknowledged is lost, and nothing stays held."""

import json
import random
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.product import Api, Receiver, Website, eventually, running_api, running_worker
from tests.stack.sql import rows, value
from tests.stack.upstream import Between, through

KILLS = 16
MONITORS = 24
INTERVAL_SECONDS = 5
# What a check that was claimed by a worker that died may wait for: its own timeout, and the lease beyond it.
TIMEOUT_SECONDS, LEASE_SECONDS, DELIVERY_LEASE_SECONDS = 2, 20, 45


@pytest.fixture(scope="module")
def wreckage(
    own_supabase: EmbeddedSupabase, connection: psycopg.Connection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator["Wreckage"]:
    """What is left when workers were killed while sites flapped, and the last one was left alone."""
    folder, chance = tmp_path_factory.mktemp("kill-nine"), random.Random(9)  # seeded: the same moments each time
    site, receiver, between = Website(), Receiver(), Between(own_supabase.url)
    site.seconds = 0.05
    try:
        with running_api(own_supabase, folder) as api:
            mine = api.as_user(sign_up_at(own_supabase).access_token)
            mine.ask("POST", "/v1/orgs", json={"name": "Acme"})
            mine.ask("POST", "/v1/channels", json={"name": "hook", "url": receiver.url})
            monitors = watch(mine, site)
            left = Wreckage(mine, connection, receiver, between, monitors)
            for _ in range(KILLS):
                for page in chance.sample(list(monitors.values()), MONITORS // 2):
                    site.statuses[page] = 500 if site.statuses.get(page, 200) == 200 else 200
                left.worked += live_and_die(through(between, own_supabase), folder, left, chance.uniform(0.2, 1.5))
                let_leases_run_out(connection)
            site.statuses = dict.fromkeys(monitors.values(), 200)
            with running_worker(through(between, own_supabase), folder):
                eventually(left.is_calm, "it does not come to rest", within_seconds=40)
            yield left
    finally:
        site.close()
        receiver.close()
        between.close()


class Wreckage:
    """The database, the receiver and the line between, afterwards."""

    def __init__(
        self,
        mine: Api,
        connection: psycopg.Connection,
        receiver: Receiver,
        between: Between,
        monitors: dict[UUID, str],
    ) -> None:
        self.mine = mine
        self.connection = connection
        self.receiver = receiver
        self.between = between
        self.monitors = monitors
        self.worked = 0

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Return all rows."""
        return rows(self.connection, statement)

    def is_calm(self) -> bool:
        """Tell whether every monitor is up, every incident closed, and every message delivered."""
        return all(
            value(self.connection, question) == 0
            for question in (
                "select count(*) from monitors where state <> 'up'",
                "select count(*) from incidents where resolved_at is null",
                "select count(*) from deliveries where state <> 'delivered'",
            )
        )

    def acknowledged(self, function: str) -> list[tuple[Any, Any]]:
        """Return the batches of one function that Supabase took, each with its answer."""
        return [
            (json.loads(each.body)["batch"], json.loads(each.answer))
            for each in self.between.exchanges
            if each.path.endswith(f"/rpc/{function}") and each.status == 200
        ]


def test_the_workers_were_really_killed_at_work(wreckage: Wreckage):
    assert wreckage.worked >= KILLS * 3 // 4, "most of them had begun to record"
    assert len(wreckage.ask("select id from incidents")) >= 10
    assert len(wreckage.acknowledged("record")) >= KILLS


def test_every_result_that_was_acknowledged_is_there_and_was_counted_once(wreckage: Wreckage):
    kept = dict(wreckage.ask("select id::text, counted from check_results"))
    counted = 0
    for batch, answer in wreckage.acknowledged("record"):
        assert {item["result_id"] for item in batch} <= kept.keys()
        counted += answer["counted"]
    assert sum(kept.values()) >= counted


def test_every_monitor_was_looked_at_again_before_lease_and_interval_had_passed(wreckage: Wreckage):
    gaps = wreckage.ask(
        "select monitor_id, max(gap) from (select monitor_id, started_at - lag(started_at)"
        " over (partition by monitor_id order by started_at) as gap from check_results) t group by monitor_id"
    )
    assert {monitor_id for monitor_id, _ in gaps} == set(wreckage.monitors)
    longest = timedelta(seconds=INTERVAL_SECONDS + TIMEOUT_SECONDS + LEASE_SECONDS)
    assert [(monitor_id, gap) for monitor_id, gap in gaps if gap is None or gap > longest] == []


def test_every_incident_has_told_the_channel_that_it_opened_and_that_it_ended(wreckage: Wreckage):
    told = wreckage.ask(
        "select i.id, array_agg(d.type order by d.created_at) from incidents i"
        " left join deliveries d on d.incident_id = i.id group by i.id"
    )
    assert {tuple(types) for _, types in told} == {("incident.opened", "incident.resolved")}


def test_every_delivery_was_received_under_its_id_and_with_one_body(wreckage: Wreckage):
    received: dict[str, set[bytes]] = {}
    for each in wreckage.receiver.received:
        received.setdefault(each.headers["webhook-id"], set()).add(each.body)
    deliveries = wreckage.ask("select id::text, state from deliveries")
    assert {state for _, state in deliveries} == {"delivered"}
    assert received.keys() == {delivery_id for delivery_id, _ in deliveries}
    assert {len(bodies) for bodies in received.values()} == {1}, "a repetition is the same message"


def test_a_receiver_hears_of_each_incident_in_order(wreckage: Wreckage):
    heard: dict[str, list[str]] = {}
    for each in wreckage.receiver.received:
        types = heard.setdefault(each.message["incident"]["id"], [])
        if each.message["type"] not in types:  # a repetition
            types.append(each.message["type"])
    assert {tuple(types) for types in heard.values()} == {("incident.opened", "incident.resolved")}


def test_every_delivery_that_was_acknowledged_as_made_stays_made(wreckage: Wreckage):
    delivered = {row[0] for row in wreckage.ask("select id::text from deliveries where state = 'delivered'")}
    for batch, _ in wreckage.acknowledged("settle_deliveries"):
        assert {item["id"] for item in batch if item["outcome"] == "delivered"} <= delivered


def test_the_ledger_has_no_overlap_no_hole_and_agrees_with_the_monitors(wreckage: Wreckage):
    lines = wreckage.ask(
        "select monitor_id, state, started_at, ended_at from intervals order by monitor_id, started_at"
    )
    for (monitor_id, before, _, ended_at), (next_id, after, started_at, _) in pairwise(lines):
        if monitor_id == next_id:
            assert ended_at == started_at, "one line ends where the next begins"
            assert before != after, "a line that changes nothing is none"
    open_lines = wreckage.ask("select monitor_id, state from intervals where ended_at is null")
    assert sorted(open_lines) == sorted((monitor_id, "up") for monitor_id in wreckage.monitors)


def test_no_monitor_had_two_incidents_at_once_and_each_matches_a_down_line(wreckage: Wreckage):
    overlapping = wreckage.ask(
        "select a.id from incidents a join incidents b on a.monitor_id = b.monitor_id and a.id < b.id"
        " where tstzrange(a.started_at, a.resolved_at) && tstzrange(b.started_at, b.resolved_at)"
    )
    assert overlapping == []
    assert (
        wreckage.ask(
            "select i.id from incidents i left join intervals l on l.monitor_id = i.monitor_id and l.state = 'down'"
            " and l.started_at = i.started_at and l.ended_at = i.resolved_at where l.id is null"
        )
        == []
    )


def test_nothing_is_held_for_longer_than_a_lease(wreckage: Wreckage):
    held = (
        "select lease_until - now() from private.monitor_schedules where lease_until is not null"
        " union all select lease_until - now() from deliveries where lease_until is not null"
    )
    longest = timedelta(seconds=max(TIMEOUT_SECONDS + LEASE_SECONDS, DELIVERY_LEASE_SECONDS))
    assert [lease for (lease,) in wreckage.ask(held) if lease > longest] == []


def watch(mine: Api, site: Website) -> dict[UUID, str]:
    """Create the monitors; return the page that each one watches."""
    monitors = {}
    for number in range(MONITORS):
        page = f"/{number}"
        draft = {
            "name": page,
            "target": site.url + page,
            "interval_seconds": INTERVAL_SECONDS,
            "timeout_seconds": TIMEOUT_SECONDS,
            "retry_interval_seconds": 1,
            "fail_threshold": 1 + number % 2,
        }
        monitors[UUID(mine.ask("POST", "/v1/monitors", json=draft)["id"])] = page
    return monitors


def live_and_die(supabase: EmbeddedSupabase, folder: Path, left: Wreckage, seconds: float) -> bool:
    """Run a worker, kill it so long after its first claim, and tell whether it had begun to record by then."""
    claimed, recorded = calls_of(left.between, "claim_due"), calls_of(left.between, "record")
    with running_worker(supabase, folder) as worker:
        eventually(lambda: calls_of(left.between, "claim_due") > claimed, "the worker does not begin")
        time.sleep(seconds)  # not a wait for anything: the moment of death is what is tried
        worker.kill()
        worker.wait(5)
    return calls_of(left.between, "record") > recorded


def calls_of(between: Between, function: str) -> int:
    return sum(each.path.endswith(f"/rpc/{function}") for each in between.exchanges)


def let_leases_run_out(connection: psycopg.Connection) -> None:
    """Let the time pass that the dead one's leases last; nobody living holds any. Keeps the test short."""
    for table in ("private.monitor_schedules", "public.deliveries"):
        connection.execute(
            f"update {table} set lease_until = now() - interval '1 second' where lease_until is not null"
        )

"""The calls of the worker in straight SQL: leases, results, the outbox, partitions, and two workers at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.stack.sql import (
    World,
    acting_as,
    claim,
    incident_since,
    make_channel,
    make_monitor,
    make_world,
    open_incident,
    record,
    result,
    roll_up,
    rows,
    value,
)


@pytest.fixture
def world(connection: psycopg.Connection) -> Iterator[World]:
    world = make_world(connection)
    yield world
    connection.execute("delete from organisations where id = %s", [world.org_id])


@pytest.fixture
def now(connection: psycopg.Connection) -> datetime:
    moment: datetime = value(connection, "select now()")
    return moment


@contextmanager
def second(connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Open another connection, each of its statements a transaction of its own."""
    with psycopg.connect(connection.info.dsn, autocommit=True) as other:
        yield other


def test_a_claim_says_what_to_check_how_to_judge_it_and_where_it_stands(connection: psycopg.Connection, world: World):
    claimed = claim(connection, world.monitor_id)
    assert claimed.keys() == {
        *("monitor_id", "lease_token", "due_at", "kind", "target", "interval_seconds", "timeout_seconds"),
        *("retry_interval_seconds", "fail_threshold", "recover_threshold", "degraded_after_ms", "options"),
        *("assertions", "state", "flapping", "ledger_state", "recent_downs", "region_state", "failures", "successes"),
        *("streak_since", "last_observed_at", "last_interval_seconds", "judged_from"),
    }
    assert (claimed["state"], claimed["ledger_state"], claimed["judged_from"]) == ("new", None, None)


def test_a_claimed_monitor_is_leased_for_its_timeout_and_a_little(connection: psycopg.Connection, world: World):
    claim(connection, world.monitor_id)
    lease = "select lease_until - now() from private.monitor_schedules where monitor_id = %s"
    assert timedelta(seconds=20) < value(connection, lease, [world.monitor_id]) <= timedelta(seconds=10 + 20)
    again = value(connection, "select claim_due('test', 1000, 20)")["checks"]
    assert str(world.monitor_id) not in {each["monitor_id"] for each in again}


def test_a_lease_that_ran_out_is_taken_over(connection: psycopg.Connection, world: World):
    first = claim(connection, world.monitor_id)
    let_leases_run_out(connection)
    second_claim = value(connection, "select claim_due('test', 1000, 20)")["checks"]
    (taken_over,) = [each for each in second_claim if each["monitor_id"] == str(world.monitor_id)]
    assert taken_over["lease_token"] != first["lease_token"]


def test_claims_never_exceed_what_was_asked_for_and_begin_with_the_most_overdue(
    connection: psycopg.Connection, world: World
):
    late = [make_monitor(connection, world.org_id, f"late {number}") for number in range(4)]
    for minutes, monitor_id in enumerate(late, 1):
        connection.execute(
            "update private.monitor_schedules set due_at = now() - make_interval(mins => %s) where monitor_id = %s",
            [100 * minutes, monitor_id],
        )
    claimed = value(connection, "select claim_due('test', 3, 20)")["checks"]
    assert [each["monitor_id"] for each in claimed] == [str(monitor_id) for monitor_id in reversed(late[1:])]


def test_two_claimers_at_once_never_get_the_same_monitor(connection: psycopg.Connection, world: World):
    mine = {str(make_monitor(connection, world.org_id, f"m {number}")) for number in range(60)} | {
        str(world.monitor_id)
    }
    with psycopg.connect(connection.info.dsn) as one, psycopg.connect(connection.info.dsn) as two:
        # Both transactions are open at once, and neither waits for the other.
        claims = [
            {each["monitor_id"] for each in value(worker, "select claim_due('test', 40, 20)")["checks"]}
            for worker in (one, two)
        ]
    assert claims[0] & claims[1] == set()
    assert len(claims[0]) == 40
    assert claims[0] | claims[1] >= mine


def test_claimers_in_a_hurry_share_every_monitor_out_once(connection: psycopg.Connection, world: World):
    mine = {str(make_monitor(connection, world.org_id, f"m {number}")) for number in range(100)}
    claimed: list[str] = []

    def take() -> None:
        with second(connection) as worker:
            while batch := value(worker, "select claim_due('test', 7, 20)")["checks"]:
                claimed.extend(each["monitor_id"] for each in batch)

    at_once(take, take, take, take)
    assert len(claimed) == len(set(claimed))
    assert mine <= set(claimed)


def test_recording_twice_changes_nothing_the_second_time(connection: psycopg.Connection, world: World, now: datetime):
    item = result(claim(connection, world.monitor_id), at=now, state="down", incident=incident_since(now))
    assert record(connection, item) == 1
    before = everything_of(connection, world)
    assert record(connection, item) == 0
    assert everything_of(connection, world) == before


def test_a_result_whose_lease_was_lost_is_kept_and_decides_nothing(
    connection: psycopg.Connection, world: World, now: datetime
):
    lost = claim(connection, world.monitor_id)
    let_leases_run_out(connection)
    held = claim(connection, world.monitor_id)
    assert record(connection, result(lost, at=now, state="down", incident=incident_since(now))) == 0
    assert rows(connection, "select outcome, counted from check_results where monitor_id = %s", [world.monitor_id]) == [
        ("down", False)
    ]
    assert value(connection, "select state from monitors where id = %s", [world.monitor_id]) == "new"
    assert rows(connection, "select id from incidents where org_id = %s", [world.org_id]) == []
    assert rows(connection, "select id from intervals where org_id = %s", [world.org_id]) == []
    assert record(connection, result(held, at=now + timedelta(seconds=1))) == 1, "who holds the lease still may"


def test_a_recorded_monitor_is_given_back_with_its_next_due_time(
    connection: psycopg.Connection, world: World, now: datetime
):
    record(connection, result(claim(connection, world.monitor_id), at=now))
    schedule = "select due_at, lease_token, lease_until, successes, last_observed_at from private.monitor_schedules"
    assert rows(connection, f"{schedule} where monitor_id = %s", [world.monitor_id]) == [
        (now + timedelta(seconds=60), None, None, 1, now)
    ]


def test_the_interval_of_the_last_check_outlives_a_change_and_ends_with_a_pause(
    connection: psycopg.Connection, world: World, now: datetime
):
    record(connection, result(claim(connection, world.monitor_id), at=now, last_interval_seconds=3600))
    connection.execute("update monitors set interval_seconds = 60 where id = %s", [world.monitor_id])
    assert claim(connection, world.monitor_id)["last_interval_seconds"] == 3600
    with acting_as(connection, world.people["viewer"]):
        history = value(connection, "select monitor_history(%s, now() - interval '1 day', now())", [world.monitor_id])
    assert history["last_interval_seconds"] == 3600
    connection.execute("update monitors set paused = true where id = %s", [world.monitor_id])
    connection.execute("update monitors set paused = false where id = %s", [world.monitor_id])
    assert claim(connection, world.monitor_id)["last_interval_seconds"] is None


def test_one_batch_may_hold_what_counts_what_was_lost_and_what_is_gone(
    connection: psycopg.Connection, world: World, now: datetime
):
    gone, other = make_monitor(connection, world.org_id), make_monitor(connection, world.org_id)
    claims = [claim(connection, each) for each in (gone, other, world.monitor_id)]
    connection.execute("delete from monitors where id = %s", [gone])
    batch = [result(each, at=now) for each in claims]
    batch[1]["lease_token"] = str(uuid4())
    assert record(connection, *batch) == 1
    kept = rows(connection, "select monitor_id, counted from check_results where org_id = %s", [world.org_id])
    assert set(kept) == {(other, False), (world.monitor_id, True)}


def test_an_incident_opens_once_and_ends_with_the_recovery(connection: psycopg.Connection, world: World, now: datetime):
    began = now - timedelta(minutes=3)
    for minute in range(2):
        at = began + timedelta(minutes=minute)
        down = result(claim(connection, world.monitor_id), at=at, state="down", incident=incident_since(at))
        record(connection, down)
    back = began + timedelta(minutes=2)
    record(connection, result(claim(connection, world.monitor_id), at=back, recovered_at=back.isoformat()))
    assert rows(
        connection,
        "select state, resolution, started_at, resolved_at, resolved_by from incidents where monitor_id = %s",
        [world.monitor_id],
    ) == [("resolved", "recovered", began, back, None)]
    actors = rows(
        connection,
        "select distinct actor_kind from events where org_id = %s and type like 'incident.%%'",
        [world.org_id],
    )
    assert actors == [("system",)]


def test_people_and_workers_change_the_same_monitors_without_deadlock(
    connection: psycopg.Connection, world: World, now: datetime
):
    monitors = [world.monitor_id, *(make_monitor(connection, world.org_id) for _ in range(5))]
    before = deadlocks(connection)

    def work() -> None:
        with second(connection) as worker:
            for turn in range(60):
                worker.execute("update private.monitor_schedules set due_at = now() where due_at is not null")
                claims = value(worker, "select claim_due('test', 100, 20)")["checks"]
                state = "down" if turn % 2 else "up"
                at = now + timedelta(seconds=turn)
                record(worker, *(result(each, at=at, state=state, incident=incident_since(at)) for each in claims))

    def interfere() -> None:
        with second(connection) as person:
            for turn in range(120):
                with acting_as(person, world.people["editor"]):
                    monitor_id = monitors[turn % len(monitors)]
                    person.execute("update monitors set paused = not paused where id = %s", [monitor_id])

    at_once(work, interfere)
    assert deadlocks(connection) == before


def test_one_channel_hears_of_one_incident_in_order(connection: psycopg.Connection, world: World):
    another_channel, other_monitor = make_channel(connection, world.org_id), make_monitor(connection, world.org_id)
    first, second_incident = open_incident(connection, world), open_incident(connection, world, other_monitor)
    for incident_id in (first, second_incident):
        connection.execute("update incidents set state = 'resolved' where id = %s", [incident_id])
    claimed = claim_deliveries(connection, world)
    assert sorted((each["payload"]["type"], each["payload"]["incident"]["id"]) for each in claimed) == sorted(
        2 * [("incident.opened", str(first)), ("incident.opened", str(second_incident))]
    ), "each channel hears of each incident first that it opened"
    assert claim_deliveries(connection, world) == [], "the rest waits"
    settle(connection, claimed[0], "delivered")
    (following,) = claim_deliveries(connection, world)
    assert following["payload"]["type"] == "incident.resolved"
    assert following["payload"]["incident"]["id"] == claimed[0]["payload"]["incident"]["id"]
    settle(connection, claimed[1], "dead", error="gone")
    assert len(claim_deliveries(connection, world)) == 1, "what is dead holds nothing up"
    assert another_channel is not None


def test_two_senders_at_once_never_get_the_same_delivery(connection: psycopg.Connection, world: World):
    for _ in range(20):
        with acting_as(connection, world.people["editor"]):
            connection.execute("select test_channel(%s)", [world.channel_id])
    with psycopg.connect(connection.info.dsn) as one, psycopg.connect(connection.info.dsn) as two:
        claims = [
            {each["id"] for each in value(worker, "select claim_deliveries(12, 45)")["deliveries"]}
            for worker in (one, two)
        ]
    assert claims[0] & claims[1] == set()
    assert len(claims[0] | claims[1]) >= 20


@pytest.mark.parametrize(
    ("outcome", "more", "expected"),
    [
        ("delivered", {"status_code": 204}, ("delivered", 204, None, False)),
        (
            "failed",
            {"status_code": 500, "error": "answered 500", "retry_in_seconds": 7},
            ("pending", 500, "answered 500", True),
        ),
        ("dead", {"error": "refused for good"}, ("dead", None, "refused for good", False)),
    ],
)
def test_a_settled_delivery_says_how_it_ended(
    connection: psycopg.Connection, world: World, outcome: str, more: dict[str, Any], expected: tuple[Any, ...]
):
    delivery = claimed_test_message(connection, world)
    assert settle(connection, delivery, outcome, **more) == 1
    row = rows(
        connection,
        "select state, last_status_code, last_error, next_attempt_at is not null from deliveries where id = %s",
        [delivery["id"]],
    )
    assert row == [expected]
    assert value(connection, "select lease_token from deliveries where id = %s", [delivery["id"]]) is None


def test_without_the_lease_only_a_delivery_that_was_made_counts(connection: psycopg.Connection, world: World):
    lost = claimed_test_message(connection, world)
    let_leases_run_out(connection)
    (held,) = claim_deliveries(connection, world)
    assert (held["id"], held["attempts"]) == (lost["id"], 2)
    assert settle(connection, lost, "failed", retry_in_seconds=1) == 0
    assert settle(connection, lost, "dead") == 0
    assert settle(connection, held, "dead", error="no") == 1
    assert settle(connection, lost, "delivered", status_code=200) == 1, "it had been received after all"
    assert settle(connection, lost, "delivered", status_code=200) == 0
    assert value(connection, "select state from deliveries where id = %s", [lost["id"]]) == "delivered"


def test_a_retry_by_hand_brings_a_dead_delivery_back_under_its_id(connection: psycopg.Connection, world: World):
    delivery = claimed_test_message(connection, world)
    settle(connection, delivery, "dead", error="no")
    with acting_as(connection, world.people["editor"]):
        retried = value(connection, "select retry_delivery(%s)", [delivery["id"]])
    assert (retried["id"], retried["state"], retried["attempts"]) == (delivery["id"], "pending", 0)
    (again,) = claim_deliveries(connection, world)
    assert (again["id"], again["payload"], again["attempts"]) == (delivery["id"], delivery["payload"], 1)


def test_days_are_made_ahead_missing_ones_by_record_and_old_ones_dropped(
    connection: psycopg.Connection, world: World, now: datetime
):
    today = now.date()
    connection.execute("select maintain_check_results(9, 30)")
    assert {day_name(today + timedelta(days=ahead)) for ahead in range(10)} <= days(connection)
    long_ago = now - timedelta(days=33)
    assert day_name(long_ago) not in days(connection)
    record(connection, result(claim(connection, world.monitor_id), at=long_ago))
    assert day_name(long_ago) in days(connection)
    connection.execute("select private.ensure_check_results_day(%s)", [today - timedelta(days=30)])
    assert value(connection, "select maintain_check_results(7, 30)") == 0, "it is not rolled up yet"
    roll_up(connection)
    assert value(connection, "select maintain_check_results(7, 30)") == 1
    assert day_name(long_ago) not in days(connection)
    assert day_name(today - timedelta(days=30)) in days(connection), "the last day of the retention is kept"


def test_two_workers_that_miss_the_same_day_both_write_into_it(connection: psycopg.Connection, world: World):
    day = datetime.fromisoformat("2033-03-03T12:00:00+00:00")
    items = [result(claim(connection, make_monitor(connection, world.org_id)), at=day) for _ in range(2)]

    def write(item: dict[str, Any]) -> Callable[[], None]:
        def run() -> None:
            with second(connection) as worker:
                assert record(worker, item) == 1

        return run

    at_once(*(write(item) for item in items))
    assert value(connection, "select count(*) from check_results where org_id = %s", [world.org_id]) == 2


def claimed_test_message(connection: psycopg.Connection, world: World) -> dict[str, Any]:
    with acting_as(connection, world.people["editor"]):
        connection.execute("select test_channel(%s)", [world.channel_id])
    (delivery,) = claim_deliveries(connection, world)
    return delivery


def claim_deliveries(connection: psycopg.Connection, world: World) -> list[dict[str, Any]]:
    claimed = value(connection, "select claim_deliveries(1000, 45)")["deliveries"]
    return [each for each in claimed if each["payload"]["organisation"]["id"] == str(world.org_id)]


def settle(connection: psycopg.Connection, delivery: dict[str, Any], outcome: str, **more: Any) -> int:
    item = {"id": delivery["id"], "lease_token": delivery["lease_token"], "outcome": outcome, **more}
    settled: int = value(connection, "select settle_deliveries(%s)", [Jsonb([item])])["settled"]
    return settled


def let_leases_run_out(connection: psycopg.Connection) -> None:
    connection.execute(
        "update private.monitor_schedules set lease_until = now() - interval '1 second' where lease_until is not null"
    )
    connection.execute("update deliveries set lease_until = now() - interval '1 second' where lease_until is not null")


def everything_of(connection: psycopg.Connection, world: World) -> list[list[tuple[Any, ...]]]:
    tables = ("monitors", "check_results", "intervals", "incidents", "deliveries", "events")
    return [
        sorted(rows(connection, f"select t::text from {name} t where org_id = %s", [world.org_id])) for name in tables
    ]


def deadlocks(connection: psycopg.Connection) -> int:
    connection.execute("select pg_stat_clear_snapshot()")
    found: int = value(connection, "select deadlocks from pg_stat_database where datname = current_database()")
    return found


def days(connection: psycopg.Connection) -> set[str]:
    partitions = "select inhrelid::regclass::text from pg_inherits where inhparent = 'check_results'::regclass"
    return {name for (name,) in rows(connection, partitions)}


def day_name(day: Any) -> str:
    return f"private.check_results_{day:%Y%m%d}"


def at_once(*work: Callable[[], None]) -> None:
    """Run everything at the same time, and raise what went wrong in any of it."""
    failures: list[BaseException] = []

    def run(each: Callable[[], None]) -> None:
        try:
            each()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "it hangs"
    if failures:
        raise failures[0]

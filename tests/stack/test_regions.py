"""Several regions watching one monitor, as the database keeps them apart and brings them together."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.stack.sql import World, claim, make_monitor, make_world, result, rows, value

REGIONS = ["ap", "eu", "us"]


@pytest.fixture
def world(connection: psycopg.Connection) -> Iterator[World]:
    world = make_world(connection)
    yield world
    connection.execute("delete from organisations where id = %s", [world.org_id])


@pytest.fixture
def watched(connection: psycopg.Connection, world: World) -> UUID:
    """A monitor that three regions watch."""
    monitor_id = make_monitor(connection, world.org_id, "watched from three places")
    connection.execute("update monitors set regions = %s where id = %s", [REGIONS, monitor_id])
    return monitor_id


def claim_in(connection: psycopg.Connection, region: str, monitor_id: UUID) -> dict[str, Any] | None:
    claimed = value(connection, "select claim_due(%s, 1000, 20)", [region])["checks"]
    return next((each for each in claimed if each["monitor_id"] == str(monitor_id)), None)


def record(connection: psycopg.Connection, item: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = value(connection, "select record(%s)", [json.dumps([item])])
    return answer


def now(connection: psycopg.Connection) -> datetime:
    at: datetime = value(connection, "select clock_timestamp()")
    return at


def test_each_region_has_its_own_turn_and_nobody_else_has_one(connection: psycopg.Connection, watched: UUID):
    assert claim_in(connection, "elsewhere", watched) is None
    claims = {region: claim_in(connection, region, watched) for region in REGIONS}
    assert all(claims.values())
    assert len({each["lease_token"] for each in claims.values() if each}) == 3
    assert claim_in(connection, "eu", watched) is None, "it is leased"


def test_a_claim_says_what_the_other_regions_think(connection: psycopg.Connection, watched: UUID):
    first = claim_in(connection, "eu", watched)
    assert first is not None
    at = now(connection)
    record(
        connection,
        result(first, at=at, region_state="down", last_interval_seconds=60, judged_from=first["judged_from"]),
    )
    second = claim_in(connection, "us", watched)
    assert second is not None
    peers = {peer["region"]: peer for peer in second["judged_from"]["peers"]}
    assert peers.keys() == {"ap", "eu"}
    assert (peers["eu"]["state"], peers["ap"]["state"]) == ("down", "new")
    assert second["judged_from"]["ledger_state"] == "up"


def test_a_verdict_that_another_region_has_overtaken_is_refused_and_told_what_is_so_now(
    connection: psycopg.Connection, watched: UUID
):
    eu, us = claim_in(connection, "eu", watched), claim_in(connection, "us", watched)
    assert eu is not None
    assert us is not None
    at = now(connection)
    eu_says = result(eu, at=at, state="down", region_state="down", judged_from=eu["judged_from"])
    assert record(connection, eu_says)["stale"] == []
    us_says = result(us, at=at, state="up", region_state="up", judged_from=us["judged_from"])
    answer = record(connection, us_says)
    (stale,) = answer["stale"]
    assert answer["counted"] == 0
    assert stale["lease_token"] == us["lease_token"]
    assert stale["judged_from"]["state"] == "down"
    assert value(connection, "select state from monitors where id = %s", [watched]) == "down"
    again = us_says | {"judged_from": stale["judged_from"]}
    assert record(connection, again) | {"now": None} == {"counted": 1, "stale": [], "now": None}
    assert value(connection, "select state from monitors where id = %s", [watched]) == "up"
    kept = rows(connection, "select region, counted from check_results where monitor_id = %s", [watched])
    assert kept == [("test", True), ("test", True)], "the result was kept once, whenever its verdict was applied"


def test_regions_that_are_taken_away_have_no_voice_any_more(connection: psycopg.Connection, watched: UUID):
    connection.execute("update monitors set regions = '{eu}' where id = %s", [watched])
    assert rows(connection, "select region from private.monitor_schedules where monitor_id = %s", [watched]) == [
        ("eu",)
    ]
    connection.execute("update monitors set regions = '{}' where id = %s", [watched])
    assert claim(connection, watched)["judged_from"] is None, "whichever worker comes first decides alone"


def test_a_pause_is_a_pause_in_every_region(connection: psycopg.Connection, watched: UUID):
    connection.execute("update monitors set paused = true where id = %s", [watched])
    assert [claim_in(connection, region, watched) for region in REGIONS] == [None] * 3
    connection.execute("update monitors set paused = false where id = %s", [watched])
    assert all(claim_in(connection, region, watched) for region in REGIONS)


def test_a_clock_that_was_set_back_makes_everything_due_once(connection: psycopg.Connection, world: World):
    """An hour ahead is where a clock that ran fast has put the due times and leases, and the time it told."""
    connection.execute(
        "update private.monitor_schedules set due_at = now() + interval '1 hour', lease_token = gen_random_uuid(),"
        " lease_until = now() + interval '1 hour' where monitor_id = %s",
        [world.monitor_id],
    )
    connection.execute("update private.told_time set told_at = now() + interval '1 hour'")
    claimed = claim_in(connection, "test", world.monitor_id)
    assert claimed is not None
    assert value(connection, "select now() - told_at from private.told_time") < timedelta(seconds=10)
    assert claim_in(connection, "test", world.monitor_id) is None


def test_a_clock_that_was_set_back_leaves_no_look_in_a_time_to_come_and_no_lease_from_one(
    connection: psycopg.Connection, watched: UUID
):
    """Else a region that has died is connected for an hour, and a time in which nobody looks is watched."""
    connection.execute(
        "update private.monitor_schedules set lease_token = gen_random_uuid(), lease_until = now() + interval '1 hour',"
        " due_at = now() - interval '1 minute', last_observed_at = now() + interval '1 hour',"
        " streak_since = now() + interval '59 minutes' where monitor_id = %s",
        [watched],
    )
    connection.execute("update private.told_time set told_at = now() + interval '1 hour'")
    claimed = claim_in(connection, "eu", watched)
    assert claimed is not None
    at = now(connection)
    for seen in (claimed, *claimed["judged_from"]["peers"]):
        assert datetime.fromisoformat(seen["last_observed_at"]) <= at
        assert datetime.fromisoformat(seen["streak_since"]) <= at


def test_what_is_paused_stays_so_when_the_clock_is_set_back(connection: psycopg.Connection, watched: UUID):
    connection.execute("update monitors set paused = true where id = %s", [watched])
    connection.execute("update private.told_time set told_at = now() + interval '1 hour'")
    assert claim_in(connection, "eu", watched) is None
    kept = rows(
        connection,
        "select due_at, last_observed_at, streak_since from private.monitor_schedules where monitor_id = %s",
        [watched],
    )
    assert kept == [(None, None, None)] * len(REGIONS)


def test_a_clock_that_goes_on_as_it_should_changes_nothing(connection: psycopg.Connection, world: World):
    connection.execute(
        "update private.monitor_schedules set due_at = now() + interval '1 hour' where monitor_id = %s",
        [world.monitor_id],
    )
    connection.execute("update private.told_time set told_at = now() - interval '1 hour'")
    assert claim_in(connection, "test", world.monitor_id) is None
    assert value(connection, "select now() - told_at from private.told_time") < timedelta(seconds=10)

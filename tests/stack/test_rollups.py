"""Rollups hold every result once, whenever it came and whoever was away; series and retention stand on that."""

import math
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import psycopg
import pytest

from server.features.series.rules import GAMMA, RELATIVE_ERROR
from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.place import Place
from tests.stack.product import Api, eventually, running_worker
from tests.stack.sql import roll_up, rows, value

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Result(NamedTuple):
    at: datetime
    outcome: str = "up"
    total_ms: float | None = 10.0
    region: str = "test"


@pytest.fixture
def place(quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection) -> Iterator[Place]:
    """An organisation of its own; what there was before is rolled up."""
    roll_up(connection)
    user = sign_up_at(own_supabase)
    api = quiet_api.as_user(user.access_token)
    org_id = UUID(api.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"])
    yield Place(api, org_id, connection, user.id)
    connection.execute("delete from organisations where id = %s", [org_id])


@pytest.fixture
def monitor(place: Place) -> UUID:
    return place.insert_monitor("m")


@pytest.fixture
def today(connection: psycopg.Connection) -> datetime:
    found: datetime = value(connection, "select private.day_of(now())")
    return found


def insert(place: Place, monitor: UUID, results: Sequence[Result]) -> None:
    """Write results past `record`, each on a day that stands."""
    connection = place.connection
    for day in {result.at.date() for result in results}:
        connection.execute("select private.ensure_check_results_day(%s)", [day])
    connection.cursor().executemany(
        "insert into check_results (id, org_id, monitor_id, started_at, region, outcome, counted, total_ms)"
        " values (%s, %s, %s, %s, %s, %s, true, %s)",
        [
            (uuid4(), place.org_id, monitor, result.at, result.region, result.outcome, result.total_ms)
            for result in results
        ],
    )


def come_back_to(connection: psycopg.Connection, rolled_until: datetime) -> None:
    """Let rolling up stand where it would after the worker was away since then: with nothing noted as late."""
    connection.execute("truncate private.late_hours")
    connection.execute("update private.rollup_progress set rolled_until = %s, last_monitor = null", [rolled_until])


def rollups(connection: psycopg.Connection, table: str, monitor: UUID) -> list[dict[str, Any]]:
    found = rows(
        connection,
        f"select to_jsonb(r) from {table} r where monitor_id = %s order by started_at, region",
        [monitor],
    )
    return [row for (row,) in found]


def counts(connection: psycopg.Connection, monitor: UUID, table: str = "check_hours") -> list[int]:
    return [row["up"] + row["down"] + row["unknown"] for row in rollups(connection, table, monitor)]


def bin_of(ms: float) -> int:
    return math.ceil(math.log(max(ms, 0.001)) / math.log(GAMMA))


# --- rolling up -------------------------------------------------------------------------------------------------------


def test_an_hour_holds_what_its_results_come_to(place: Place, monitor: UUID, today: datetime):
    hour = today - 2 * DAY + 3 * HOUR
    insert(
        place,
        monitor,
        [
            Result(hour, "up", 10.0),
            Result(hour + timedelta(minutes=59, seconds=59.999999), "up", 10.1),
            Result(hour + timedelta(minutes=1), "down", 500.0),
            Result(hour + timedelta(minutes=2), "unknown", None),
            Result(hour + timedelta(minutes=3), "up", 0.0, "eu"),
            Result(hour + HOUR, "up", 7.0),
        ],
    )
    roll_up(place.connection)
    eu, first, second = rollups(place.connection, "check_hours", monitor)
    assert (eu["region"], eu["bins"], eu["counts"]) == ("eu", [bin_of(0)], [1])
    assert (first["up"], first["down"], first["unknown"], first["timed"]) == (2, 1, 1, 3)
    assert (first["sum_ms"], first["min_ms"], first["max_ms"]) == (pytest.approx(520.1), 10.0, 500.0)
    assert (first["bins"], first["counts"]) == ([bin_of(10), bin_of(500)], [2, 1]), "10.1 is in the bin of 10"
    assert (second["up"], second["sum_ms"]) == (1, 7.0)
    assert sorted(counts(place.connection, monitor, "check_days")) == [1, 5], "by region"


@pytest.mark.parametrize("ms", [0.0, 0.0005, 0.001, 0.5, 1.0, 1.04, 12.345, 999.99, 60_000.0, 600_000.0])
def test_a_value_falls_into_the_bin_that_the_rule_means(place: Place, monitor: UUID, today: datetime, ms: float):
    insert(place, monitor, [Result(today - DAY, total_ms=ms)])
    roll_up(place.connection)
    assert rollups(place.connection, "check_hours", monitor)[0]["bins"] == [bin_of(ms)]


@pytest.mark.parametrize("max_rows", [1, 100_000])
def test_a_worker_that_was_away_catches_up_and_nothing_is_counted_twice(
    place: Place, monitor: UUID, today: datetime, max_rows: int
):
    begins = today - 3 * DAY
    insert(place, monitor, [Result(begins + number * timedelta(minutes=30)) for number in range(144)])
    come_back_to(place.connection, begins)
    assert roll_up(place.connection, max_rows) >= 144
    expected = [2] * 72, [48] * 3
    assert (counts(place.connection, monitor), counts(place.connection, monitor, "check_days")) == expected
    come_back_to(place.connection, begins + 5 * HOUR)
    roll_up(place.connection, max_rows)
    assert (counts(place.connection, monitor), counts(place.connection, monitor, "check_days")) == expected


def test_what_goes_on_now_is_not_rolled_up_yet(place: Place, monitor: UUID):
    now: datetime = value(place.connection, "select now()")
    insert(place, monitor, [Result(now)])
    roll_up(place.connection)
    hours = [datetime.fromisoformat(row["started_at"]) for row in rollups(place.connection, "check_hours", monitor)]
    assert [hour for hour in hours if hour + HOUR > value(place.connection, "select now()")] == []


def test_a_late_result_is_counted_once_in_its_hour_and_in_its_day(place: Place, monitor: UUID, today: datetime):
    connection, hour = place.connection, today - DAY + 5 * HOUR
    insert(place, monitor, [Result(hour), Result(hour + HOUR)])
    roll_up(connection)
    assert (counts(connection, monitor), counts(connection, monitor, "check_days")) == ([1, 1], [2])
    insert(place, monitor, [Result(hour + timedelta(minutes=59), "down", 99.0)])
    assert counts(connection, monitor) == [1, 1], "until the next round"
    for _ in range(2):
        roll_up(connection)
        assert (counts(connection, monitor), counts(connection, monitor, "check_days")) == ([2, 1], [3])
    assert rollups(connection, "check_days", monitor)[0]["max_ms"] == 99.0
    assert value(connection, "select count(*) from private.late_hours") == 0


def test_an_hour_waits_for_who_wrote_before_its_end_and_has_not_committed(place: Place, monitor: UUID):
    """Such a writer notes nothing: when it wrote, the hour had not ended."""
    connection = place.connection
    hour: datetime = value(connection, "select private.hour_of(now()) - interval '1 hour'")
    with psycopg.connect(connection.info.dsn) as writer:
        insert(Place(place.api, place.org_id, writer, place.user_id), monitor, [Result(hour)])
        writer.execute("truncate private.late_hours")
        connection.execute(
            "update private.rollup_progress set rolled_until = %s, last_monitor = null, ended_until = null,"
            " settled_until = null",
            [hour],
        )
        for _ in range(3):
            assert value(connection, "select roll_up(1000)") == {"rolled_up": 0, "done": True}
        assert value(connection, "select rolled_until from private.rollup_progress") == hour
        writer.commit()
    roll_up(connection)
    assert counts(connection, monitor) == [1]
    assert value(connection, "select rolled_until > %s from private.rollup_progress", [hour])


def test_of_two_workers_one_rolls_up_and_a_recording_one_waits_for_neither(
    place: Place, monitor: UUID, today: datetime
):
    connection = place.connection
    insert(place, monitor, [Result(today - DAY)])
    with psycopg.connect(connection.info.dsn) as other:
        assert value(other, "select roll_up(1000)")["rolled_up"] == 1
        assert value(connection, "select roll_up(1000)") == {"rolled_up": 0, "done": True}
        connection.execute("set statement_timeout = '2s'")
        insert(place, monitor, [Result(today - DAY, "down")])
        connection.execute("reset statement_timeout")
        other.commit()
    roll_up(connection)
    assert counts(connection, monitor) == [2]


def test_a_deleted_monitor_takes_its_rollups_with_it(place: Place, monitor: UUID, today: datetime):
    insert(place, monitor, [Result(today - DAY)])
    roll_up(place.connection)
    assert counts(place.connection, monitor) == [1]
    place.connection.execute("delete from monitors where id = %s", [monitor])
    assert counts(place.connection, monitor) == counts(place.connection, monitor, "check_days") == []


def test_a_running_worker_rolls_up(
    place: Place, monitor: UUID, today: datetime, own_supabase: EmbeddedSupabase, tmp_path: Path
):
    insert(place, monitor, [Result(today - DAY)])
    with running_worker(own_supabase, tmp_path):
        eventually(lambda: counts(place.connection, monitor) == [1], "nothing is rolled up")


# --- retention --------------------------------------------------------------------------------------------------------


def days_of_results(connection: psycopg.Connection) -> set[str]:
    found = rows(
        connection,
        "select right(inhrelid::regclass::text, 8) from pg_inherits where inhparent = 'check_results'::regclass",
    )
    return {name for (name,) in found}


def test_a_day_is_dropped_once_it_is_rolled_up_and_not_before(place: Place, monitor: UUID, today: datetime):
    connection, day = place.connection, today - 50 * DAY
    insert(place, monitor, [Result(day + 4 * HOUR), Result(day + 5 * HOUR)])
    come_back_to(connection, day)
    name = f"{day:%Y%m%d}"
    connection.execute("select maintain_check_results(1)")
    assert name in days_of_results(connection)
    roll_up(connection)
    connection.execute("select maintain_check_results(1)")
    assert name not in days_of_results(connection)
    assert (counts(connection, monitor), counts(connection, monitor, "check_days")) == ([1, 1], [2])
    insert(place, monitor, [Result(day + 4 * HOUR)])
    roll_up(connection)
    assert counts(connection, monitor) == [1, 1], "what came too late for its results replaces nothing"
    connection.execute("select maintain_check_results(1)")
    assert name not in days_of_results(connection)


def test_a_day_with_a_late_result_stays_until_that_is_counted(place: Place, monitor: UUID, today: datetime):
    connection, day = place.connection, today - 40 * DAY
    insert(place, monitor, [Result(day)])
    connection.execute("update private.rollup_progress set dropped_before = null")
    connection.execute("select maintain_check_results(1)")
    assert f"{day:%Y%m%d}" in days_of_results(connection)
    roll_up(connection)
    connection.execute("select maintain_check_results(1)")
    assert f"{day:%Y%m%d}" not in days_of_results(connection)
    assert counts(connection, monitor) == [1]


def test_a_shorter_retention_deletes_no_result_that_is_not_rolled_up(place: Place, monitor: UUID, today: datetime):
    connection, day = place.connection, today - 10 * DAY
    connection.execute("update organisations set plan = 'free' where id = %s", [place.org_id])
    other = value(connection, "insert into organisations (name) values ('keeps for longer') returning id")
    insert(place, monitor, [Result(day)])
    come_back_to(connection, day)
    connection.execute("select apply_retention(1000)")
    assert value(connection, "select count(*) from check_results where monitor_id = %s", [monitor]) == 1
    roll_up(connection)
    connection.execute("select apply_retention(1000)")
    assert value(connection, "select count(*) from check_results where monitor_id = %s", [monitor]) == 0
    assert counts(connection, monitor) == [1]
    insert(place, monitor, [Result(day, "down"), Result(day, "down")])
    roll_up(connection)
    assert counts(connection, monitor) == [1]
    connection.execute("delete from organisations where id = %s", [other])


def test_hours_are_kept_as_long_as_the_plan_says_and_days_for_ever(place: Place, monitor: UUID, today: datetime):
    connection = place.connection
    connection.execute("update organisations set plan = 'free' where id = %s", [place.org_id])
    connection.execute("update private.rollup_progress set dropped_before = null")
    insert(place, monitor, [Result(today - DAY * number) for number in (1, 90, 91, 100)])
    roll_up(connection)
    assert value(connection, "select prune_hours(1)") == 1
    assert value(connection, "select prune_hours(1000)") == 1
    assert len(counts(connection, monitor)) == 2
    assert counts(connection, monitor, "check_days") == [1] * 4


# --- series -----------------------------------------------------------------------------------------------------------


def series(place: Place, monitor: UUID, from_at: datetime, to_at: datetime, **query: Any) -> dict[str, Any]:
    window = {"from": from_at.isoformat(), "to": to_at.isoformat()}
    found: dict[str, Any] = place.api.ask("GET", f"/v1/monitors/{monitor}/series", params={**window, **query})
    return found


def at_random(begins: datetime, ends: datetime, count: int, seed: int) -> list[Result]:
    chance = random.Random(seed)
    span = (ends - begins).total_seconds()
    return [
        Result(
            begins + timedelta(seconds=chance.random() * span),
            chance.choice(["up", "up", "up", "down"]),
            chance.choice([None, *[math.exp(chance.gauss(4, 1.5)) for _ in range(9)]]),
            chance.choice(["eu", "us"]),
        )
        for _ in range(count)
    ]


def exact(results: Sequence[Result], percent: float) -> float | None:
    timed = sorted(result.total_ms for result in results if result.total_ms is not None)
    return timed[max(1, math.ceil(percent * len(timed) / 100)) - 1] if timed else None


def hold_against(found: dict[str, Any], results: Sequence[Result], error: float) -> None:
    """Hold each bucket against the results that lie in it."""
    length = timedelta(seconds=found["resolution_seconds"])
    assert sum(bucket["count"] for bucket in found["buckets"]) == len(results)
    for bucket in found["buckets"]:
        begins = datetime.fromisoformat(bucket["started_at"])
        within = [result for result in results if begins <= result.at < begins + length]
        timed = [result.total_ms for result in within if result.total_ms is not None]
        assert bucket["count"] == len(within)
        assert bucket["failed"] == sum(result.outcome == "down" for result in within)
        assert bucket["min_ms"] == (min(timed) if timed else None)
        assert bucket["avg_ms"] == (pytest.approx(sum(timed) / len(timed)) if timed else None)
        for percent in (50, 95, 99):
            wanted = exact(within, percent)
            assert bucket[f"p{percent}_ms"] == (None if wanted is None else pytest.approx(wanted, rel=error)), percent


def test_a_day_is_told_from_the_results_themselves(place: Place, monitor: UUID, today: datetime):
    results = at_random(today - DAY, today, 400, seed=1)
    insert(place, monitor, results)
    found = series(place, monitor, today - DAY, today, points=48)
    assert (found["source"], found["resolution_seconds"], len(found["buckets"])) == ("raw", 1800, 48)
    hold_against(found, results, 1e-9)
    eu = series(place, monitor, today - DAY, today, points=48, region="eu")
    hold_against(eu, [result for result in results if result.region == "eu"], 1e-9)
    inner = [result for result in results if today - 20 * HOUR - timedelta(minutes=7) <= result.at < today - HOUR]
    cut = series(place, monitor, today - 20 * HOUR - timedelta(minutes=7), today - HOUR, points=11)
    assert cut["resolution_seconds"] == 7200
    hold_against(cut, inner, 1e-9)


@pytest.mark.parametrize(
    ("days", "points", "resolution"), [(3, 200, 3600), (3, 7, 43_200), (3, 3, 86_400), (6, 3, 172_800)]
)
@pytest.mark.parametrize("hours_away", [0, 30, 72])
def test_more_is_told_from_rollups_and_from_what_is_not_rolled_up_yet(
    place: Place, monitor: UUID, today: datetime, days: int, points: int, resolution: int, hours_away: int
):
    results = at_random(today - 3 * DAY, today, 500, seed=days * points)
    insert(place, monitor, results)
    roll_up(place.connection)
    come_back_to(place.connection, today - hours_away * HOUR)
    if hours_away == 72:
        for table in ("check_hours", "check_days"):
            place.connection.execute(f"delete from {table} where monitor_id = %s", [monitor])
    found = series(place, monitor, today - days * DAY, today, points=points)
    assert (found["source"], found["resolution_seconds"]) == ("hours" if resolution < 86_400 else "days", resolution)
    assert len(found["buckets"]) <= points
    hold_against(found, results, RELATIVE_ERROR)


def test_a_hole_stays_a_hole(place: Place, monitor: UUID, today: datetime):
    insert(place, monitor, [Result(today - 20 * HOUR), Result(today - 2 * HOUR, "down", None)])
    roll_up(place.connection)
    for window in (DAY, 2 * DAY):
        found = series(place, monitor, today - window, today, points=48)
        assert len(found["buckets"]) == 48
        empty = [bucket for bucket in found["buckets"] if bucket["count"] == 0]
        assert len(empty) == 46
        assert {(bucket["min_ms"], bucket["p50_ms"], bucket["p99_ms"]) for bucket in empty} == {(None,) * 3}
        (failed,) = [bucket for bucket in found["buckets"] if bucket["failed"]]
        assert (failed["count"], failed["avg_ms"]) == (1, None)


def test_what_has_passed_a_retention_is_told_from_what_is_kept(place: Place, monitor: UUID, today: datetime):
    connection = place.connection
    connection.execute("update organisations set plan = 'free' where id = %s", [place.org_id])  # 7 and 90 days
    connection.execute("update private.rollup_progress set dropped_before = null")
    insert(place, monitor, [Result(today - DAY * number + HOUR / 2) for number in (2, 20, 200)])
    roll_up(connection)
    sources = {}
    for number in (2, 20, 200):
        found = series(place, monitor, today - DAY * number, today - DAY * number + HOUR, points=1)
        assert [bucket["count"] for bucket in found["buckets"]] == [1]
        sources[number] = found["source"], found["resolution_seconds"]
    assert sources == {2: ("raw", 3600), 20: ("hours", 3600), 200: ("days", 86_400)}


def test_a_longer_plan_brings_back_no_results_so_that_rollups_go_on_to_answer(
    place: Place, monitor: UUID, today: datetime
):
    connection, at = place.connection, today - 10 * DAY
    other = value(connection, "insert into organisations (name) values ('keeps for longer') returning id")
    insert(place, monitor, [Result(at)])
    roll_up(connection)
    for plan in ("free", "standard"):
        connection.execute("update organisations set plan = %s where id = %s", [plan, place.org_id])
        connection.execute("select apply_retention(1000)")
    found = series(place, monitor, at, at + HOUR, points=1)
    assert (found["source"], found["buckets"][0]["count"]) == ("hours", 1)
    connection.execute("delete from organisations where id = %s", [other])


@pytest.mark.parametrize("points", [0, 1001])
def test_points_are_one_to_a_thousand(place: Place, monitor: UUID, points: int):
    refused = place.api.send("GET", f"/v1/monitors/{monitor}/series", params={"points": points})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "points")

"""What history costs in Postgres: `python -m benchmarks.history` prints every figure with its target.

A real Postgres 17 with our migrations, a monitor with 130,000 results and 2,000 changes of state in 90 days, others
around it. Each read is the one call that the API makes of it, as the user who asks, under row-level
security; figures are medians. The plan is that of the function's own body, since `explain` does not look into one.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from ports import free_port
from psycopg import sql
from stack import Keys, PostgresUrl, running_stack
from throwaway_postgres import PostgresError, open_database, open_server

from benchmarks.report import Verdict, print_verdicts
from server.features.series.rules import lengths_for

DAYS = 90
RESULTS = 130_000
LINES = 2_000  # of the ledger: 22 changes of state a day
NEIGHBOURS = 1_000  # other monitors of the organisation, checked every minute in the last hour
UPTIME_TARGET_MS = 20.0
ROUNDS = 21

FURNISH = """
with someone as (
  insert into auth.users (id, email) values (gen_random_uuid(), 'bench@example.com') returning id
), org as (
  insert into organisations (name) values ('Bench') returning id
), member as (
  insert into memberships (org_id, user_id, role) select org.id, someone.id, 'owner' from org, someone
), made as (
  insert into monitors (org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds,
    fail_threshold, recover_threshold)
  select org.id, 'm' || n, 'http', 'http://127.0.0.1:1/', 60, 10, 15, 2, 1
  from org, generate_series(0, %(neighbours)s) n
  returning id, name
)
select someone.id, org.id, made.id from someone, org, made where made.name = 'm0'
"""
RESULTS_OF_ONE = """
insert into check_results (id, org_id, monitor_id, started_at, region, outcome, counted, total_ms)
select gen_random_uuid(), %(org)s, %(monitor)s, %(begins)s::timestamptz + n * %(step)s::interval, 'default',
  case when random() < 0.01 then 'down' else 'up' end, true, exp(4 + random() * 2)
from generate_series(0, %(results)s - 1) n
"""
RESULTS_OF_THE_NEIGHBOURS = """
insert into check_results (id, org_id, monitor_id, started_at, region, outcome, counted, total_ms)
select gen_random_uuid(), m.org_id, m.id, %(hour)s::timestamptz + n * interval '1 minute', 'default', 'up', true,
  exp(4 + random() * 2)
from generate_series(0, 59) n, monitors m
where m.id <> %(monitor)s
"""
LEDGER = """
insert into intervals (org_id, monitor_id, state, started_at, ended_at, cause)
select %(org)s, %(monitor)s, (array['up', 'down', 'degraded', 'unknown'])[1 + n %% 4],
  %(begins)s::timestamptz + n * %(step)s::interval,
  case when n < %(lines)s - 1 then %(begins)s::timestamptz + (n + 1) * %(step)s::interval end, 'bench'
from generate_series(0, %(lines)s - 1) n
"""
EVERY_NIGHT = """
insert into maintenance_occurrences (org_id, starts_at, ends_at, all_monitors, monitor_ids)
select %(org)s, night, night + interval '1 hour', true, '{}'
from generate_series(private.day_of(%(begins)s) + interval '1 day', %(ends)s - interval '1 hour', interval '1 day')
  as night
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Somebody's organisation, and the window that is asked for."""

    user_id: Any
    org_id: Any
    monitor_id: Any
    begins: datetime
    ends: datetime


@contextmanager
def open_migrated() -> Iterator[psycopg.Connection]:
    """Yield a superuser's connection to a database with our migrations, and nobody else on it."""
    with open_server(None) as server_url, open_database(server_url) as url:
        keys = Keys("sb_publishable_bench", "sb_secret_bench", "a secret of the benchmark, and of no one else")
        log_path = Path(tempfile.mkdtemp(prefix="bench-")) / "supabase.log"
        with running_stack(PostgresUrl(url), keys, port=free_port(), log_path=log_path):
            pass  # it has brought the migrations in
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection


def furnish(connection: psycopg.Connection) -> Scene:
    """Fill the database: the last result lies at the end of the last hour that has ended."""
    row = connection.execute("select private.hour_of(now())").fetchone()
    assert row is not None
    ends: datetime = row[0]
    begins = ends - timedelta(days=DAYS)
    for number in range(DAYS + 1):
        connection.execute("select private.ensure_check_results_day(%s)", [(begins + timedelta(days=number)).date()])
    row = connection.execute(FURNISH, {"neighbours": NEIGHBOURS}).fetchone()
    assert row is not None
    user_id, org_id, monitor_id = row
    scene = Scene(user_id, org_id, monitor_id, begins, ends)
    span = timedelta(days=DAYS)
    known = {"org": scene.org_id, "monitor": scene.monitor_id, "begins": begins, "lines": LINES, "results": RESULTS}
    connection.execute(RESULTS_OF_ONE, {**known, "step": span / RESULTS})
    connection.execute(RESULTS_OF_THE_NEIGHBOURS, {**known, "hour": ends - timedelta(hours=1)})
    connection.execute(LEDGER, {**known, "step": span / LINES})
    connection.execute(
        "update private.monitor_schedules set last_observed_at = now(), last_interval_seconds = 60"
        " where monitor_id = %s",
        [scene.monitor_id],
    )
    connection.execute("vacuum analyze")
    return scene


def measure_rolling_up(connection: psycopg.Connection, scene: Scene) -> None:
    """Print how fast a worker catches up that was away for the whole time, a long ledger first and a wide hour last."""
    connection.execute("truncate private.late_hours")
    connection.execute("update private.rollup_progress set rolled_until = %s", [scene.begins])
    connection.execute("select roll_up(1)")  # sees which hours have ended
    calls, results, longest = 0, 0, 0.0
    began = time.perf_counter()
    done = False
    while not done:
        call_began = time.perf_counter()
        row = connection.execute("select roll_up(50000)").fetchone()
        assert row is not None
        longest = max(longest, time.perf_counter() - call_began)
        calls, results, done = calls + 1, results + row[0]["rolled_up"], row[0]["done"]
    seconds = time.perf_counter() - began
    print(
        f"\nroll_up: {results:,} results of {DAYS * 24:,} hours in {seconds:.1f} s, {results / seconds:,.0f} a second;"
        f" {calls} calls, the longest {longest:.2f} s"
    )
    hour = scene.ends - timedelta(hours=1)
    connection.execute("update private.rollup_progress set rolled_until = %s", [hour])
    began = time.perf_counter()
    row = connection.execute("select roll_up(1000000)").fetchone()
    assert row is not None
    seconds = time.perf_counter() - began
    results = row[0]["rolled_up"]
    print(f"roll_up: one hour of {NEIGHBOURS + 1:,} monitors, {results:,} results: {results / seconds:,.0f} a second")
    connection.execute("vacuum analyze check_hours, check_days")


@contextmanager
def as_user(connection: psycopg.Connection, scene: Scene) -> Iterator[None]:
    """Be the user for one transaction, as PostgREST makes it so."""
    with connection.transaction():
        claims = json.dumps({"role": "authenticated", "sub": str(scene.user_id)})
        connection.execute("select set_config('request.jwt.claims', %s, true)", [claims])
        connection.execute("set local role authenticated")
        yield


def time_call(connection: psycopg.Connection, scene: Scene, call: str, arguments: Mapping[str, Any]) -> float:
    """Return how long Postgres takes for a call, in ms: the median of many, each in a transaction of its own."""
    took: list[float] = []
    for _ in range(ROUNDS):
        with as_user(connection, scene):
            row = connection.execute(f"explain (analyze, format json) select {call}", arguments).fetchone()
            assert row is not None
            took.append(row[0][0]["Planning Time"] + row[0][0]["Execution Time"])
    return statistics.median(took)


def print_plan(connection: psycopg.Connection, scene: Scene, function: str, arguments: Mapping[str, Any]) -> None:
    """Print the plan of a function's own body, its parameters replaced by what they stand for."""
    row = connection.execute("select prosrc from pg_proc where proname = %s", [function]).fetchone()
    assert row is not None
    body = row[0]
    for name, value in arguments.items():
        body = re.sub(rf"\b{name}\b", sql.Literal(value).as_string(connection), body)
    with as_user(connection, scene):
        for (line,) in connection.execute("explain (analyze, buffers, timing off) " + body):
            print(f"    {line}")


def measure_reads(connection: psycopg.Connection, scene: Scene) -> list[Verdict]:
    """Time each read, print the plan of the one with a target, and return the verdict."""
    window = {"monitor": scene.monitor_id, "from_at": scene.begins, "to_at": scene.ends}
    uptime_ms = time_call(connection, scene, "monitor_history(%(monitor)s, %(from_at)s, %(to_at)s)", window)
    print(f"\nUptime over {DAYS} days: {RESULTS:,} results, {LINES:,} lines of the ledger, one call of monitor_history")
    named = {"of_monitor": scene.monitor_id, "from_at": scene.begins, "to_at": scene.ends}
    print_plan(connection, scene, "history_of", named)
    connection.execute(EVERY_NIGHT, {"org": scene.org_id, "begins": scene.begins, "ends": scene.ends})
    took = time_call(connection, scene, "monitor_history(%(monitor)s, %(from_at)s, %(to_at)s)", window)
    print(f"The same with a maintenance window every night: {took:.1f} ms")
    series = "read_series(%(monitor)s, null, %(from_at)s, %(to_at)s, %(raw)s, %(hours)s, %(days)s)"
    for days, points in ((1, 200), (DAYS, 200), (DAYS, 1000), (DAYS, 90)):
        begins = scene.ends - timedelta(days=days)
        lengths = lengths_for(begins, scene.ends, points)._asdict()
        took = time_call(connection, scene, series, {**window, "from_at": begins, **lengths})
        print(f"Series over {days} days, up to {points} points: {took:.1f} ms, one call of read_series")
    report = {"org": scene.org_id, "from_at": scene.ends - timedelta(days=30), "to_at": scene.ends}
    took = time_call(connection, scene, "sla_report(%(org)s, %(from_at)s, %(to_at)s, 1001)", report)
    print(f"Report of {NEIGHBOURS + 1:,} monitors over 30 days: {took:.0f} ms, one call of sla_report")
    what = f"uptime over {DAYS} days with {RESULTS:,} results, in Postgres"
    figure, target = f"{uptime_ms:.1f} ms", f"< {UPTIME_TARGET_MS:g} ms"
    return [Verdict(what, figure, target, uptime_ms < UPTIME_TARGET_MS)]


def run() -> list[Verdict]:
    """Furnish a database, measure, and return the verdicts."""
    with open_migrated() as connection:
        scene = furnish(connection)
        measure_rolling_up(connection, scene)
        return measure_reads(connection, scene)


def main() -> None:
    """Run from the command line; exits 1 where the target was missed, 2 where no Postgres can be had."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    try:
        verdicts = run()
    except PostgresError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print("\nTarget")
    print_verdicts(verdicts)
    sys.exit(any(not verdict.met for verdict in verdicts))


if __name__ == "__main__":
    main()

"""What checks cost: `python -m benchmarks.checker` prints every figure with its target.

1. At pace: 10,000 http monitors at 60 s on one worker process on one core, from claim to recorded result, against a
   real Postgres and a local target on the other core. A check's due time is the point of its monitor's own grid; how
   late it starts is read off the results in the database, its CPU off the kernel's clock.
2. At saturation: how many checks a second one core makes with 50 in flight, ours beside undici (Node) and
   blackbox_exporter, all against the same target, in turn, round by round; figures are medians.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from benchmarks import lab, report
from benchmarks.contestants import find_node, install_node_packages
from benchmarks.report import Verdict
from server.features.monitors.rules import Policy, State, next_due_at

sys.path.insert(0, str(lab.ROOT / "supabase" / "local"))

from ports import free_port
from stack import Keys, PostgresUrl, running_stack
from throwaway_postgres import open_database, open_server

MONITORS = 10_000
INTERVAL_SECONDS = 60
WARM_UP_SECONDS = 20
LATENESS_TARGET_SECONDS = 1.0
CORE_TARGET = 0.6
MEMORY_TARGET_MB = 400
IN_FLIGHT = 50
PEERS = Path(__file__).parent / "peers"


@contextmanager
def run_target() -> Iterator[str]:
    """Run what is checked on the load core; yield its URL."""
    nginx = lab.find_program("nginx", "apt-get install nginx-light")
    port = lab.choose_port()
    with tempfile.TemporaryDirectory(prefix="bench-target-") as name:
        text = (PEERS / "nginx_target.conf").read_text().replace("@DIRECTORY@", name).replace("@PORT@", str(port))
        configuration = Path(name) / "nginx.conf"
        configuration.write_text(text)
        command = [nginx, "-p", name, "-e", f"{name}/error.log", "-c", str(configuration)]
        process = lab.start(command, lab.LOAD_CORE, {}, Path(name), subprocess.DEVNULL)
        try:
            lab.wait_until_listening(process, port)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.stop()


# ---------------------------------------------------------------- at pace


@dataclass(frozen=True, slots=True)
class Pace:
    """What one worker did in the window. Lateness in seconds, of every check that fell due in it."""

    checks: int
    failed: int
    late_p50: float
    late_p99: float
    late_max: float
    core_share: float
    memory_mb: float


def add_monitors(connection: psycopg.Connection, url: str) -> None:
    """Add the monitors, each due at the next point of its grid, as though they had been watched for long."""
    connection.execute(
        "with org as (insert into organisations (name) values ('Bench') returning id)"
        " insert into monitors (org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds,"
        " fail_threshold, recover_threshold)"
        " select org.id, 'm', 'http', %s, %s, 10, 15, 2, 1 from org, generate_series(1, %s)",
        [url, INTERVAL_SECONDS, MONITORS],
    )
    connection.execute("vacuum analyze")
    ids = [monitor_id for (monitor_id,) in connection.execute("select id from monitors").fetchall()]
    policy, now = Policy(INTERVAL_SECONDS, retry_interval_seconds=15), datetime.now(UTC)
    connection.execute(
        "update private.monitor_schedules s set due_at = due.at"
        " from unnest(%s::uuid[], %s::timestamptz[]) as due (id, at) where s.monitor_id = due.id",
        [ids, [next_due_at(monitor_id, policy, State.UP, now) for monitor_id in ids]],
    )


def measure_pace(url: str, seconds: int) -> Pace:
    """Run one worker for the warm-up and `seconds`, and read what it did in those."""
    keys = Keys(*(secrets.token_urlsafe(32) for _ in range(3)))
    os.sched_setaffinity(0, {lab.LOAD_CORE})  # the database and its door, which inherit it, have the other core
    with (
        tempfile.TemporaryDirectory(prefix="bench-worker-") as name,
        open_server(os.environ.get("TEST_DATABASE_URL")) as server,
        open_database(server) as database_url,
        running_stack(PostgresUrl(database_url), keys, port=free_port(), log_path=Path(name) / "stack.log") as stack,
        psycopg.connect(database_url, autocommit=True) as connection,
        (Path(name) / "worker.log").open("wb") as log,
    ):
        add_monitors(connection, url)
        environment = {
            "SUPABASE_URL": stack.url,
            "SUPABASE_PUBLISHABLE_KEY": keys.publishable_key,
            "SUPABASE_SECRET_KEY": keys.secret_key,
            "PRIVATE_TARGETS": "127.0.0.1/32",
            "WORKER_REFERENCES": "none",
            "LOG_LEVEL": "WARNING",
        }
        worker = lab.start([sys.executable, "-m", "server.worker"], lab.TEST_CORE, environment, Path(name), log)
        try:
            time.sleep(WARM_UP_SECONDS)
            began_at, cpu_before, clock = datetime.now(UTC), worker.cpu_seconds(), time.monotonic()
            time.sleep(seconds)
            ended_at, cpu_seconds = datetime.now(UTC), worker.cpu_seconds() - cpu_before
            core_share = cpu_seconds / (time.monotonic() - clock)
            memory_mb = read_peak_memory_mb(worker.popen.pid)
            time.sleep(2)  # for the last results to be written
            return read_pace(connection, (began_at, ended_at), core_share, memory_mb)
        finally:
            worker.stop()


def read_peak_memory_mb(pid: int) -> float:
    """Return the most memory that a process has had resident so far."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def read_pace(
    connection: psycopg.Connection, window: tuple[datetime, datetime], core_share: float, memory_mb: float
) -> Pace:
    """Read the results of the window, and how late each one is after the point of its grid."""
    rows: list[tuple[UUID, datetime, str]] = connection.execute(
        "select monitor_id, started_at, outcome from check_results where started_at >= %s and started_at < %s", window
    ).fetchall()
    policy = Policy(INTERVAL_SECONDS, retry_interval_seconds=15)
    interval = timedelta(seconds=INTERVAL_SECONDS)
    late = sorted(
        (at - (next_due_at(monitor_id, policy, State.UP, at) - interval)).total_seconds() for monitor_id, at, _ in rows
    )
    return Pace(
        checks=len(rows),
        failed=sum(outcome != "up" for _, _, outcome in rows),
        late_p50=late[len(late) // 2],
        late_p99=late[int(len(late) * 0.99)],
        late_max=late[-1],
        core_share=core_share,
        memory_mb=memory_mb,
    )


def judge_pace(pace: Pace, seconds: int) -> list[Verdict]:
    """Print the figures, and hold them to their targets."""
    due = MONITORS * seconds / INTERVAL_SECONDS
    print(f"  {pace.checks} checks in {seconds} s, {due:.0f} were due; {pace.failed} failed")
    print(
        f"  start after the due time: p50 {pace.late_p50:.2f} s, p99 {pace.late_p99:.2f} s, most {pace.late_max:.2f} s"
    )
    print(f"  {pace.core_share:.1%} of the core, {1e6 * pace.core_share * seconds / pace.checks:.0f} us of CPU a check")
    print(f"  {pace.memory_mb:.0f} MB at most")
    return [
        Verdict("checks made / due", f"{pace.checks / due:.3f}", ">= 0.99", pace.checks >= 0.99 * due),
        Verdict("failed checks", str(pace.failed), "0", pace.failed == 0),
        Verdict(
            "start after due, p99", f"{pace.late_p99:.2f} s", f"<= {LATENESS_TARGET_SECONDS:g} s",
            pace.late_p99 <= LATENESS_TARGET_SECONDS,
        ),
        Verdict("of the core", f"{pace.core_share:.0%}", f"< {CORE_TARGET:.0%}", pace.core_share < CORE_TARGET),
        Verdict("memory", f"{pace.memory_mb:.0f} MB", f"< {MEMORY_TARGET_MB} MB", pace.memory_mb < MEMORY_TARGET_MB),
    ]  # fmt: skip


# ---------------------------------------------------------------- at saturation


@dataclass(frozen=True, slots=True)
class Rate:
    """Checks a second, and CPU a check in microseconds."""

    per_second: float
    cpu_us: float


def saturate(command: Sequence[str], seconds: int) -> Rate:
    """Run a program that checks for `seconds` and prints {checks, failed}, on the test core."""
    process = lab.start(command, lab.TEST_CORE, {}, lab.ROOT, subprocess.PIPE)
    usage = os.wait4(process.popen.pid, 0)[2]
    assert process.popen.stdout is not None
    counts: dict[str, int] = json.loads(process.popen.stdout.read().splitlines()[-1])
    if counts["failed"] or not counts["checks"]:
        raise RuntimeError(f"{command[0]}: {counts}")
    return Rate(counts["checks"] / seconds, 1e6 * (usage.ru_utime + usage.ru_stime) / counts["checks"])


@contextmanager
def run_blackbox() -> Iterator[tuple[lab.Process, int]]:
    """Run blackbox_exporter on the test core."""
    program = lab.find_program("prometheus-blackbox-exporter", "apt-get install prometheus-blackbox-exporter")
    port = lab.choose_port()
    command = [
        *(program, f"--config.file={PEERS / 'blackbox.yml'}", f"--web.listen-address=127.0.0.1:{port}"),
        "--log.level=error",
    ]
    process = lab.start(command, lab.TEST_CORE, {"GOMAXPROCS": "1"}, lab.ROOT, subprocess.DEVNULL)
    try:
        lab.wait_until_listening(process, port)
        yield process, port
    finally:
        process.stop()


def saturate_blackbox(process: lab.Process, port: int, url: str, seconds: int) -> Rate:
    """Ask blackbox_exporter's handler for checks, as Prometheus does."""
    cpu_before = process.cpu_seconds()
    seen = lab.load(f"http://127.0.0.1:{port}/probe?module=http_2xx&target={url}", IN_FLIGHT, seconds, ["none"])
    if seen.failed or not seen.answered:
        raise RuntimeError(f"blackbox_exporter: {seen.failed} of its answers failed")
    return Rate(seen.answered / seen.seconds, 1e6 * (process.cpu_seconds() - cpu_before) / seen.answered)


def measure_saturation(url: str, rounds: int, seconds: int) -> dict[str, list[Rate]]:
    """Let each contestant check at full speed, in turn."""
    node_folder = PEERS / "node"
    if not (node_folder / "node_modules").exists():
        install_node_packages(node_folder)
    arguments = [url, str(IN_FLIGHT), str(seconds)]
    commands = {
        "tocsin": [sys.executable, "-m", "benchmarks.peers.prober", *arguments],
        "undici": [find_node(), str(node_folder / "checker.mjs"), *arguments],
    }
    rates: dict[str, list[Rate]] = {"tocsin": [], "undici": [], "blackbox_exporter": []}
    with run_blackbox() as (blackbox, port):
        for _ in range(rounds):
            for name, command in commands.items():
                rates[name].append(saturate(command, seconds))
            rates["blackbox_exporter"].append(saturate_blackbox(blackbox, port, url, seconds))
    return rates


def print_saturation(rates: dict[str, list[Rate]]) -> None:
    """Print checks a second and CPU a check, and each peer's ratio to ours."""
    ours = rates["tocsin"]
    for name, found in rates.items():
        per_second, cpu_us = (
            statistics.median(getattr(rate, what) for rate in found) for what in ("per_second", "cpu_us")
        )
        ratio = statistics.median(theirs.cpu_us / mine.cpu_us for theirs, mine in zip(found, ours, strict=True))
        print(f"  {name:18} {per_second:8,.0f} checks/s  {cpu_us:7.0f} us of CPU each  {ratio:5.2f}x ours")


def run(options: argparse.Namespace) -> list[Verdict]:
    """Measure both, and return the verdicts."""
    everything: set[int] = set(os.sched_getaffinity(0))
    with run_target() as url:
        print(f"\nAt saturation, {IN_FLIGHT} in flight, one core, a fresh connection each")
        print_saturation(measure_saturation(url, options.rounds, options.seconds))
        print(f"\nAt pace: {MONITORS:,} http monitors at {INTERVAL_SECONDS} s, one worker process on one core")
        verdicts = judge_pace(measure_pace(url, options.window), options.window)
    os.sched_setaffinity(0, everything)
    return verdicts


def main() -> None:
    """Run from the command line; exits 1 where a target was missed, 2 where something is not installed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--window", type=int, default=120, help="seconds at pace (default 120, two intervals)")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement at saturation (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="of measurements at saturation (default 5)")
    options: Any = parser.parse_args()
    try:
        verdicts = run(options)
    except lab.Missing as missing:
        print(missing, file=sys.stderr)
        sys.exit(2)
    print("\nTargets")
    report.print_verdicts(verdicts)
    sys.exit(any(not verdict.met for verdict in verdicts))


if __name__ == "__main__":
    main()

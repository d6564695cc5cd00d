"""What a request costs us, beside its peers: `python -m benchmarks.api` prints every figure with its target.

The server under test has one core to itself; the load generator (wrk) and a stub of Supabase share the other. All
contestants do the same work: verify an ES256 token by JWKS, forward it, select through the Supabase client's query
builder, answer 2 KB of JSON. They take turns, round by round; figures are medians, ratios medians of each round's own
ratio. Ratios travel, absolute figures don't. Ours runs as it ships, with one log line a request; the peers log nothing.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import identity, lab, measuring, report
from benchmarks.contestants import CONTESTANTS, OURS, Contestant
from benchmarks.measuring import Sample, Setting
from benchmarks.report import Verdict

DELAYS_MS = (0, 5, 50)
CONNECTIONS = (16, 64)
COLD_TARGET_MICROSECONDS = 100.0
CACHED_TARGET_MICROSECONDS = 2.0


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [contestant.name for contestant in CONTESTANTS]
    sections = ["verification", "identity"]
    parser.add_argument(
        "--only", nargs="+", choices=[*names, *sections], metavar="NAME", help=", ".join(names + sections)
    )
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each figure (default 3)")
    parser.add_argument("--delays", type=int, nargs="+", help="of the upstream, in ms (default 0 5 50)")
    parser.add_argument("--connections", type=int, nargs="+", default=CONNECTIONS)
    parser.add_argument(
        "--quick", action="store_true", help="one short round without 50 ms, about a minute: a look, no measurement"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there too")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.rounds = 1, 1
    if options.delays is None:
        options.delays = DELAYS_MS[:2] if options.quick else DELAYS_MS
    return options


def measure_rounds(
    running: Sequence[measuring.Running], stub: lab.Stub, settings: Sequence[Setting], options: argparse.Namespace
) -> dict[tuple[str, Setting], list[Sample]]:
    """Measure each contestant under each load, all taking turns, `rounds` times."""
    samples: dict[tuple[str, Setting], list[Sample]] = defaultdict(list)
    user_tokens = measuring.mint_tokens(measuring.issuer_of(stub))
    for number in range(options.rounds):
        for setting in settings:
            show_progress(
                f"round {number + 1} of {options.rounds}: {setting.delay_ms} ms, {setting.connections} connections"
            )
            for contestant in running:
                sample = measuring.measure(contestant, stub, setting, options.seconds, user_tokens)
                samples[contestant.contestant.name, setting].append(sample)
    show_progress("")
    return samples


def judge_verification() -> list[Verdict]:
    """Run benchmarks/verification.py on the test core and hold its two figures to their targets."""
    command = [sys.executable, "-m", "benchmarks.verification"]
    done = subprocess.run(
        command,
        cwd=lab.ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {lab.TEST_CORE}),
    )
    print(f"\nVerifying a token\n{(done.stdout or done.stderr).rstrip()}")
    verdicts = []
    for row, most in (("ES256 cold", COLD_TARGET_MICROSECONDS), ("ES256 cached", CACHED_TARGET_MICROSECONDS)):
        found = re.search(rf"^\s*{row}\s+([\d.]+)", done.stdout, re.MULTILINE)
        if found is None:
            verdicts.append(Verdict(f"verification, {row}", "no figure", f"<= {most:g} µs", met=False))
            continue
        figure = float(found.group(1))
        verdicts.append(Verdict(f"verification, {row}", f"{figure:.1f} µs", f"<= {most:g} µs", figure <= most))
    return verdicts


def judge_identity(ours: measuring.Running, stub: lab.Stub, requests: int) -> Verdict:
    """Count the answers under a foreign identity."""
    show_progress(f"identity: {requests} requests")
    tally = identity.tally_identities(ours, stub, requests)
    show_progress("")
    what = f"answers under a foreign identity ({tally.own} own, {tally.refused} refused)"
    return Verdict(what, str(tally.foreign), "0", tally.foreign == 0 and tally.refused == 0)


def show_progress(line: str) -> None:
    """Show where the run is, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def write_json(path: Path, samples: report.Samples, verdicts: Sequence[Verdict]) -> None:
    """Write every sample and verdict."""
    rows = [
        {"contestant": name, **asdict(setting), "samples": [asdict(sample) for sample in found]}
        for (name, setting), found in samples.items()
    ]
    path.write_text(
        json.dumps({"samples": rows, "verdicts": [asdict(verdict) for verdict in verdicts]}, indent=1) + "\n"
    )


def choose(only: Sequence[str] | None) -> tuple[list[Contestant], bool, bool]:
    """Return who takes part, and whether verification and identity are shown."""
    if not only:
        return list(CONTESTANTS), True, True
    return [c for c in CONTESTANTS if c.name in only], "verification" in only, "identity" in only


def run(options: argparse.Namespace) -> list[Verdict]:
    """Measure what was asked for, print it, and return the verdicts."""
    lab.find_program("wrk", "apt-get install wrk")
    contestants, with_verification, with_identity = choose(options.only)
    settings = [Setting(delay, count) for delay in options.delays for count in options.connections]
    verdicts = judge_verification() if with_verification else []
    samples: dict[tuple[str, Setting], list[Sample]] = {}
    with lab.run_stub() as stub:
        with measuring.run_contestants(contestants, stub) as running:
            if running:
                samples = measure_rounds(running, stub, settings, options)
                report.print_loads(samples, {c.name: c.label for c in contestants}, settings)
                report.print_disturbance(samples)
        names = [contestant.name for contestant in contestants]
        if OURS in names:
            verdicts += report.judge_ratios(samples, names, settings)
            verdicts += report.judge_scaling(samples, settings)
        if with_identity:
            with measuring.run_contestant(identity.find_contestant(OURS), stub) as ours:
                verdicts.append(judge_identity(ours, stub, 2_000 if options.quick else identity.REQUESTS))
    if options.json:
        write_json(options.json, samples, verdicts)
    return verdicts


def main() -> None:
    """Run from the command line; exits 1 where a target was missed, 2 where something is not installed."""
    options = read_options(sys.argv[1:])
    started = time.monotonic()
    try:
        verdicts = run(options)
    except lab.Missing as missing:
        print(missing, file=sys.stderr)
        sys.exit(2)
    if verdicts:
        print("\nTargets (a ratio of CPU per request is the ratio of what a full core answers in a second)")
        report.print_verdicts(verdicts)
    took_seconds = time.monotonic() - started
    print(f"\n{took_seconds:.0f} s; servers on core {lab.TEST_CORE}, load and upstream on core {lab.LOAD_CORE}")
    sys.exit(any(not verdict.met for verdict in verdicts))


if __name__ == "__main__":
    main()

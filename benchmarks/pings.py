"""What a ping costs, beside FastAPI doing the least that one can do: `python -m benchmarks.pings`.

Both make the same one call of the stub upstream. The peer is not Healthchecks' own handler (Django, reported at about
250 pings a second): that one writes to its database by itself, and a stub of that would measure the stub.
They take turns, round by round; figures are medians, the ratio the median of each round's own.
"""

import argparse
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import lab, measuring, report
from benchmarks.contestants import OURS, Contestant, Site, run_tocsin, run_uvicorn
from benchmarks.measuring import Running, Sample, Setting
from benchmarks.report import Verdict

TARGET_PER_SECOND = 1_000
SETTINGS = (Setting(0, 16), Setting(5, 64))
PATH = "/ping/5bf66975-d4c7-4bf5-bcc8-b8d8a82ea278"
# Counted, and never reached: all of them are of one heartbeat.
UNLIMITED = {"RATE_LIMITS": "pings=1000000000/day,heartbeat=1000000000/day"}
CONTESTANTS = (
    Contestant(
        OURS, "Tocsin: python -m server, one INFO line a ping", run_tocsin, {"WEB_CONCURRENCY": "1", **UNLIMITED}
    ),
    Contestant("fastapi", "FastAPI, one shared supabase async client, no log", run_uvicorn("fastapi_ping")),
)


@contextmanager
def run_pinged(contestant: Contestant, stub: lab.Stub) -> Iterator[Running]:
    """Start one contestant on the test core, see that it takes a ping, warm it up. Raises WrongAnswer."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        site = Site(lab.choose_port(), stub.url, Path(folder))
        environment = {**site.environment(), **contestant.environment}
        with (site.directory / "output.log").open("wb") as log:
            process = lab.start(contestant.command(site), lab.TEST_CORE, environment, site.directory, log)
        try:
            lab.wait_until_listening(process, site.port)
            url = f"http://127.0.0.1:{site.port}{PATH}"
            taken = stub.listed()
            with urllib.request.urlopen(url, timeout=20) as answer:
                if answer.read() != b"OK" or stub.listed() != taken + 1:
                    raise measuring.WrongAnswer(f"{contestant.name} took no ping")
            lab.load(url, 64, 1, ["nobody"])
            measuring.drain(process, stub)
            yield Running(contestant, process, url, 2)
        finally:
            process.stop()


def measure_rounds(running: Sequence[Running], stub: lab.Stub, options: argparse.Namespace) -> report.Samples:
    """Measure all, in turn, under each load."""
    samples: dict[tuple[str, Setting], list[Sample]] = {
        (each.contestant.name, setting): [] for each in running for setting in SETTINGS
    }
    for _ in range(options.rounds):
        for setting in SETTINGS:
            for each in running:
                found = measuring.measure(each, stub, setting, options.seconds, ["nobody"])
                if found.failed:
                    raise measuring.WrongAnswer(f"{each.contestant.name}: {found.failed} pings were not taken")
                samples[each.contestant.name, setting].append(found)
    return samples


def judge(samples: report.Samples) -> list[Verdict]:
    """Hold what a process on a core of its own takes to the target, and say how much more the peer needs.

    By CPU, as the table's `a core does`: what was measured is less where the load or other programs set the pace.
    """
    verdicts = []
    for setting in SETTINGS:
        where = f"{setting.delay_ms} ms, {setting.connections} connections"
        taken = report.summarise(samples[OURS, setting]).capacity
        ratio = statistics.median(report.pair_ratios(samples, "fastapi", setting))
        print(f"  fastapi / ours, CPU per ping, {where}: {ratio:.1f}x")
        verdicts.append(
            Verdict(
                f"pings per process, {where}",
                f"{taken:.0f}/s",
                f">= {TARGET_PER_SECOND}/s",
                taken >= TARGET_PER_SECOND,
            )
        )
    return verdicts


def run(options: argparse.Namespace) -> list[Verdict]:
    """Measure, print, and return the verdicts."""
    lab.find_program("wrk", "apt-get install wrk")
    print("\nPings")
    with lab.run_stub() as stub, run_pinged(CONTESTANTS[0], stub) as ours, run_pinged(CONTESTANTS[1], stub) as peer:
        samples = measure_rounds((ours, peer), stub, options)
    report.print_loads(samples, {each.name: each.label for each in CONTESTANTS}, SETTINGS)
    report.print_disturbance(samples)
    print()
    return judge(samples)


def main() -> None:
    """Run from the command line; exits 1 where the target was missed, 2 where something is not installed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each figure (default 5)")
    options = parser.parse_args()
    try:
        verdicts = run(options)
    except lab.Missing as missing:
        print(missing, file=sys.stderr)
        sys.exit(2)
    print("\nTarget")
    report.print_verdicts(verdicts)
    sys.exit(any(not verdict.met for verdict in verdicts))


if __name__ == "__main__":
    main()

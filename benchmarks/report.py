"""The figures of a run as tables, each beside what it is held to."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.contestants import FLOOR, OURS
from benchmarks.measuring import Sample, Setting

# How many times as much CPU as ours a peer needs at least, by name; and how much of the floor's we need at most.
PEER_TARGETS = {"flask-tutorial": 120.0, "fastapi": 8.0, "hono": 1.8}
FLOOR_TARGET = 15.0
SCALING_TARGET = 1.2  # CPU per request at the most connections over that at the fewest
QUIET_CORE_SHARE = 0.05  # what other programs may take of the test core before the figures are doubtful
BUSY_CORE_SHARE = 0.9  # below it the contestant waited for the load generator, the stub, or the upstream's delay

Samples = Mapping[tuple[str, Setting], Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Cell:
    """The medians of one contestant under one load; `failed` is the sum."""

    cpu_ms: float
    per_second: float
    core_share: float
    p50_ms: float
    p99_ms: float
    failed: int

    @property
    def capacity(self) -> float:
        """Requests a second that one whole core could answer at this cost."""
        return 1000 / self.cpu_ms


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure beside its target."""

    what: str
    figure: str
    target: str
    met: bool


def summarise(samples: Sequence[Sample]) -> Cell:
    """Return the medians."""
    return Cell(
        cpu_ms=statistics.median(sample.cpu_ms for sample in samples),
        per_second=statistics.median(sample.per_second for sample in samples),
        core_share=statistics.median(sample.core_share for sample in samples),
        p50_ms=statistics.median(sample.p50_ms for sample in samples),
        p99_ms=statistics.median(sample.p99_ms for sample in samples),
        failed=sum(sample.failed for sample in samples),
    )


def pair_ratios(samples: Samples, name: str, setting: Setting) -> list[float]:
    """Return the CPU of `name` over ours, round by round: a busy moment of the machine slows both of a pair alike."""
    pairs = zip(samples[name, setting], samples[OURS, setting], strict=True)
    return [theirs.cpu_ms / ours.cpu_ms for theirs, ours in pairs]


def judge_ratios(samples: Samples, names: Iterable[str], settings: Iterable[Setting]) -> list[Verdict]:
    """Hold each peer's ratio, under each load, to its target."""
    verdicts = []
    for name in names:
        for setting in settings:
            ratio = statistics.median(pair_ratios(samples, name, setting))
            where = f"{setting.delay_ms} ms, {setting.connections} connections"
            if name in PEER_TARGETS:
                least = PEER_TARGETS[name]
                verdicts.append(Verdict(f"{name} / ours, {where}", f"{ratio:.1f}x", f">= {least:g}x", ratio >= least))
            elif name == FLOOR:
                most = FLOOR_TARGET
                verdict = Verdict(f"ours / nginx, {where}", f"{1 / ratio:.1f}x", f"<= {most:g}x", 1 / ratio <= most)
                verdicts.append(verdict)
    return verdicts


def judge_scaling(samples: Samples, settings: Sequence[Setting]) -> list[Verdict]:
    """Hold our CPU per request at the most connections to that at the fewest, for each delay."""
    fewest = min(setting.connections for setting in settings)
    most = max(setting.connections for setting in settings)
    verdicts = []
    for delay_ms in sorted({setting.delay_ms for setting in settings}):
        few = summarise(samples[OURS, Setting(delay_ms, fewest)])
        many = summarise(samples[OURS, Setting(delay_ms, most)])
        ratio = many.cpu_ms / few.cpu_ms
        what = f"ours at {most} / at {fewest} connections, {delay_ms} ms"
        verdicts.append(Verdict(what, f"{ratio:.2f}x", f"<= {SCALING_TARGET:g}x", ratio <= SCALING_TARGET))
    return verdicts


def print_loads(samples: Samples, labels: Mapping[str, str], settings: Sequence[Setting]) -> None:
    """Print what each contestant did under each load."""
    width = max(map(len, labels.values()))
    for setting in settings:
        print(f"\nUpstream {setting.delay_ms} ms, {setting.connections} connections")
        head = f"  {'':<{width}}  {'CPU ms':>8} {'a core does':>11} {'measured':>9} {'core':>5}"
        print(f"{head} {'p50 ms':>8} {'p99 ms':>8} {'x ours':>7} {'non-2xx':>8}")
        ours = summarise(samples[OURS, setting]) if (OURS, setting) in samples else None
        for name, label in labels.items():
            cell = summarise(samples[name, setting])
            mark = " " if cell.core_share >= BUSY_CORE_SHARE else "*"
            ratio = f"{statistics.median(pair_ratios(samples, name, setting)):.2f}" if ours else "-"
            print(
                f"  {label:<{width}}  {cell.cpu_ms:8.3f} {cell.capacity:9.0f}/s {cell.per_second:7.0f}/s"
                f"{mark}{cell.core_share:4.0%} {cell.p50_ms:8.1f} {cell.p99_ms:8.1f} {ratio:>7} {cell.failed:8}"
            )
    print(
        "\nCPU ms: user and system time of the whole process tree over the requests it served. a core does: 1 / CPU ms."
        "\n* the contestant did not fill its core (the load's core, or the upstream's delay, set the pace):"
        "\n  there `measured` says nothing about capacity and `a core does` is the figure to compare."
    )


def print_disturbance(samples: Samples) -> None:
    """Say how much of the test core other programs took meanwhile: the measure of how far to trust the run."""
    shares = [sample.others_share for found in samples.values() for sample in found]
    disturbed = sum(share > QUIET_CORE_SHARE for share in shares)
    print(
        f"Other programs took {statistics.median(shares):.0%} of the test core (median; {max(shares):.0%} at worst)"
        + (f": {disturbed} of {len(shares)} samples were disturbed, repeat on a quiet machine." if disturbed else ".")
    )


def print_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print each figure beside its target."""
    width = max((len(verdict.what) for verdict in verdicts), default=0)
    for verdict in verdicts:
        word = "ok" if verdict.met else "MISSED"
        print(f"  {verdict.what:<{width}}  {verdict.figure:>9}  {verdict.target:>9}  {word}")

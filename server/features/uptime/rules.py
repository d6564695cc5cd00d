"""How uptime is counted from the ledger: floored, and beside its coverage. Pure; whole milliseconds throughout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from server.features.monitors.rules import Standing, State, missing_since

_MILLISECOND = timedelta(milliseconds=1)
_STATES = ("up", "degraded", "down", "unknown", "paused")
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Accounting:
    """By which rules time was counted. A pause is always outside the fraction."""

    degraded: Literal["up", "down"] = "up"
    unknown: Literal["exclude", "down"] = "exclude"
    maintenance: Literal["exclude", "include"] = "exclude"


DEFAULT_ACCOUNTING = Accounting()


@dataclass(frozen=True, slots=True)
class OpenLine:
    """The ledger's last line, which has not ended. `maintenance` are the spans within it, apart and in their order."""

    state: State
    is_pause: bool
    started_at: datetime
    maintenance: Sequence[Span] = ()


@dataclass(frozen=True, slots=True)
class History:
    """A monitor's ledger within a window.

    `ended_ms` is what has ended outside maintenance, `maintained_ms` what has within, both by state, a pause under
    `paused`. `longest_down_ms` is of one stretch of `down` that has ended, maintenance taken out.
    """

    now: datetime
    first_started_at: datetime | None
    last_observed_at: datetime | None
    last_interval_seconds: int | None
    ended_ms: Mapping[str, int]
    open_line: OpenLine | None
    maintained_ms: Mapping[str, int] = field(default_factory=dict)
    longest_down_ms: int = 0


def read_history(document: Mapping[str, Any]) -> History:
    """Read what `private.history_of` tells of a monitor. Raises KeyError, TypeError, ValueError for anything else."""
    line = document["open"]
    return History(
        datetime.fromisoformat(document["now"]),
        _moment(document["first_started_at"]),
        _moment(document["last_observed_at"]),
        document["last_interval_seconds"],
        {state: int(ms) for state, ms in document["ended_ms"].items()},
        line
        and OpenLine(
            State(line["state"]),
            line["cause"] == "paused",
            datetime.fromisoformat(line["started_at"]),
            tuple(_span(*each) for each in line["maintenance"]),
        ),
        {state: int(ms) for state, ms in document["maintained_ms"].items()},
        int(document["longest_down_ms"]),
    )


def _span(begins: str, ends: str) -> Span:
    return datetime.fromisoformat(begins), datetime.fromisoformat(ends)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Uptime:
    """Milliseconds in each state, and what they come to. Ratios are None where there is nothing to divide by.

    `uptime_ratio` is (up + degraded) / (up + degraded + down) unless the accounting says otherwise: slow is not down.
    `coverage_ratio` is the part of the window, without pauses, in which somebody looked. Both are floored at six
    digits: 99.9999 % never reads 100 %. Excluded maintenance is in `maintenance_ms` and in no state's time, included
    it is in both. `down_in_all_ms` is all that the accounting calls down.
    """

    from_at: datetime
    to_at: datetime
    policy: Accounting
    up_ms: int
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    paused_ms: int
    maintenance_ms: int
    down_in_all_ms: int
    longest_down_ms: int
    uptime_ratio: float | None
    coverage_ratio: float | None


def count_uptime(
    history: History, from_at: datetime, to_at: datetime, policy: Accounting = DEFAULT_ACCOUNTING
) -> Uptime:
    """Count a window, which is cut to what has been: not before the first observation, not after now.

    The open line counts up to now, but only as far as somebody looked: the rest is unknown, though no line says so yet.
    """
    start = max(from_at, history.first_started_at) if history.first_started_at else from_at
    end = max(start, min(to_at, history.now))
    outside = dict.fromkeys(_STATES, 0) | dict(history.ended_ms)
    within = dict.fromkeys(_STATES, 0) | dict(history.maintained_ms)
    longest_down_ms = history.longest_down_ms
    maintenance = history.open_line.maintenance if history.open_line else ()
    for state, span in _open_spans(history, start, end):
        maintained = sum(_ms(_overlap(span, each)) for each in maintenance)
        outside[state] += _ms(span) - maintained
        within[state] += maintained
        if state == "down":
            longest_down_ms = max(longest_down_ms, _ms(span) - maintained)
    is_excluded = policy.maintenance == "exclude"
    ms = {state: outside[state] + (0 if is_excluded else within[state]) for state in _STATES}
    uptime_ratio, coverage_ratio = ratios_of(ms["up"], ms["degraded"], ms["down"], ms["unknown"], policy=policy)
    return Uptime(
        from_at=start,
        to_at=end,
        policy=policy,
        up_ms=ms["up"],
        degraded_ms=ms["degraded"],
        down_ms=ms["down"],
        unknown_ms=ms["unknown"],
        paused_ms=ms["paused"],
        maintenance_ms=sum(within.values()),
        down_in_all_ms=_down_of(ms["degraded"], ms["down"], ms["unknown"], policy),
        longest_down_ms=longest_down_ms,
        uptime_ratio=uptime_ratio,
        coverage_ratio=coverage_ratio,
    )


def ratios_of(
    up: int, degraded: int, down: int, unknown: int, *, policy: Accounting = DEFAULT_ACCOUNTING
) -> tuple[float | None, float | None]:
    """Return (uptime_ratio, coverage_ratio) of the time spent in each state, in any unit."""
    good = up + (degraded if policy.degraded == "up" else 0)
    looked = up + degraded + down
    return (
        floored_ratio(good, good + _down_of(degraded, down, unknown, policy)),
        floored_ratio(looked, looked + unknown),
    )


def _down_of(degraded: int, down: int, unknown: int, policy: Accounting) -> int:
    return down + (degraded if policy.degraded == "down" else 0) + (unknown if policy.unknown == "down" else 0)


def floored_ratio(part: int, whole: int) -> float | None:
    """Return part / whole rounded down to six digits; None where whole is 0."""
    return part * 1_000_000 // whole / 1_000_000 if whole else None


def _open_spans(history: History, start: datetime, end: datetime) -> list[tuple[str, Span]]:
    """Share the open line's time in a window out to states."""
    line = history.open_line
    if line is None:
        return []
    begins = max(line.started_at, start)
    if line.is_pause:
        return [("paused", (begins, end))]
    if line.state is State.UNKNOWN:
        return [("unknown", (begins, end))]
    looked_until = _looked_until(history)
    return [
        (line.state.value, (begins, min(end, looked_until))),
        ("unknown", (max(begins, looked_until), end)),
    ]


def _looked_until(history: History) -> datetime:
    """Return until when the last observation speaks: now, unless checks have gone missing since."""
    last = Standing(last_observed_at=history.last_observed_at, last_interval_seconds=history.last_interval_seconds)
    return missing_since(last, history.now) or history.now


def _overlap(one: Span, other: Span) -> Span:
    return max(one[0], other[0]), min(one[1], other[1])


def _ms(span: Span) -> int:
    begins, ends = span
    return max(0, (ends - begins) // _MILLISECOND)

"""How uptime is counted from the ledger: floored, and beside its coverage. Pure; whole milliseconds throughout."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from server.features.monitors.rules import Standing, State, missing_since

_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class OpenLine:
    """The ledger's last line, which has not ended."""

    state: State
    is_pause: bool
    started_at: datetime


@dataclass(frozen=True, slots=True)
class History:
    """A monitor's ledger within a window. `ended_ms` is by state, a pause under `paused`."""

    now: datetime
    first_started_at: datetime | None
    last_observed_at: datetime | None
    last_interval_seconds: int | None
    ended_ms: Mapping[str, int]
    open_line: OpenLine | None


@dataclass(frozen=True, slots=True)
class Uptime:
    """Milliseconds in each state, and what they come to. Ratios are None where there is nothing to divide by.

    `uptime_ratio` is (up + degraded) / (up + degraded + down): slow is not down. `coverage_ratio` is the part of the
    window, without pauses, in which somebody looked. Both are floored at six digits: 99.9999 % never reads 100 %.
    """

    from_at: datetime
    to_at: datetime
    up_ms: int
    degraded_ms: int
    down_ms: int
    unknown_ms: int
    paused_ms: int
    uptime_ratio: float | None
    coverage_ratio: float | None


def count_uptime(history: History, from_at: datetime, to_at: datetime) -> Uptime:
    """Count a window, which is cut to what has been: not before the first observation, not after now.

    The open line counts up to now, but only as far as somebody looked: the rest is unknown, though no line says so yet.
    """
    start = max(from_at, history.first_started_at) if history.first_started_at else from_at
    end = max(start, min(to_at, history.now))
    ms = {"up": 0, "degraded": 0, "down": 0, "unknown": 0, "paused": 0} | dict(history.ended_ms)
    for name, spent in _open_ms(history, start, end).items():
        ms[name] += spent
    uptime_ratio, coverage_ratio = ratios_of(ms["up"], ms["degraded"], ms["down"], ms["unknown"])
    return Uptime(
        from_at=start,
        to_at=end,
        up_ms=ms["up"],
        degraded_ms=ms["degraded"],
        down_ms=ms["down"],
        unknown_ms=ms["unknown"],
        paused_ms=ms["paused"],
        uptime_ratio=uptime_ratio,
        coverage_ratio=coverage_ratio,
    )


def ratios_of(up: int, degraded: int, down: int, unknown: int) -> tuple[float | None, float | None]:
    """Return (uptime_ratio, coverage_ratio) of the time spent in each state, in any unit."""
    judged = up + degraded + down
    return floored_ratio(up + degraded, judged), floored_ratio(judged, judged + unknown)


def floored_ratio(part: int, whole: int) -> float | None:
    """Return part / whole rounded down to six digits; None where whole is 0."""
    return part * 1_000_000 // whole / 1_000_000 if whole else None


def _open_ms(history: History, start: datetime, end: datetime) -> dict[str, int]:
    line = history.open_line
    if line is None:
        return {}
    begins = max(line.started_at, start)
    if line.is_pause:
        return {"paused": _ms(begins, end)}
    if line.state is State.UNKNOWN:
        return {"unknown": _ms(begins, end)}
    looked_until = _looked_until(history)
    return {line.state.value: _ms(begins, min(end, looked_until)), "unknown": _ms(max(begins, looked_until), end)}


def _looked_until(history: History) -> datetime:
    """Return until when the last observation speaks: now, unless checks have gone missing since."""
    last = Standing(last_observed_at=history.last_observed_at, last_interval_seconds=history.last_interval_seconds)
    return missing_since(last, history.now) or history.now


def _ms(begins: datetime, ends: datetime) -> int:
    return max(0, (ends - begins) // _MILLISECOND)

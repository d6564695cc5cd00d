"""How uptime is counted: rounded down, beside its coverage, and of no time in which nobody looked."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.features.monitors.rules import State
from server.features.uptime.rules import History, OpenLine, count_uptime, floored_ratio

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
DAY_MS = 86_400_000


def history(**changes: object) -> History:
    """A monitor that has been watched every minute for a hundred days."""
    known: dict[str, object] = {
        "now": NOW,
        "first_started_at": NOW - 100 * DAY,
        "last_observed_at": NOW - timedelta(seconds=30),
        "last_interval_seconds": 60,
        "ended_ms": {},
        "open_line": None,
        **changes,
    }
    return History(**known)  # type: ignore[arg-type]  # a test names fields by hand


def test_uptime_is_up_and_degraded_over_up_degraded_and_down():
    counted = count_uptime(history(ended_ms={"up": 60, "degraded": 20, "down": 20}), NOW - DAY, NOW)
    assert (counted.uptime_ratio, counted.coverage_ratio) == (0.8, 1.0)


def test_it_is_rounded_down_and_never_up_to_a_whole():
    almost = history(ended_ms={"up": 90 * DAY_MS - 1, "down": 1})
    assert count_uptime(almost, NOW - 90 * DAY, NOW).uptime_ratio == 0.999999
    assert floored_ratio(2, 3) == 0.666666
    assert floored_ratio(0, 0) is None


def test_where_nothing_was_observed_there_is_no_ratio():
    counted = count_uptime(history(ended_ms={"unknown": DAY_MS}), NOW - DAY, NOW)
    assert (counted.uptime_ratio, counted.coverage_ratio) == (None, 0.0)
    never = count_uptime(history(first_started_at=None, last_observed_at=None), NOW - DAY, NOW)
    assert (never.uptime_ratio, never.coverage_ratio) == (None, None)


def test_unknown_is_outside_the_fraction_and_lowers_the_coverage():
    counted = count_uptime(history(ended_ms={"up": 300, "down": 100, "unknown": 600}), NOW - DAY, NOW)
    assert (counted.uptime_ratio, counted.coverage_ratio) == (0.75, 0.4)


def test_a_pause_is_outside_the_fraction_and_outside_the_coverage():
    counted = count_uptime(history(ended_ms={"up": 100, "paused": 900}), NOW - DAY, NOW)
    assert (counted.uptime_ratio, counted.coverage_ratio, counted.paused_ms) == (1.0, 1.0, 900)


def test_the_open_line_counts_up_to_now():
    line = OpenLine(State.UP, is_pause=False, started_at=NOW - timedelta(hours=1))
    counted = count_uptime(history(open_line=line), NOW - DAY, NOW)
    assert (counted.up_ms, counted.unknown_ms) == (3_600_000, 0)


def test_the_open_line_counts_only_as_far_as_somebody_looked():
    line = OpenLine(State.UP, is_pause=False, started_at=NOW - timedelta(hours=3))
    away = history(open_line=line, last_observed_at=NOW - timedelta(hours=2))
    counted = count_uptime(away, NOW - DAY, NOW)
    assert counted.up_ms == 3_600_000 + 60_000, "the last check stands for its interval"
    assert counted.unknown_ms == 2 * 3_600_000 - 60_000
    assert counted.uptime_ratio == 1.0
    assert counted.coverage_ratio == 0.338888


def test_how_far_somebody_looked_is_told_by_the_interval_of_then():
    line = OpenLine(State.UP, is_pause=False, started_at=NOW - timedelta(hours=3))
    hourly = history(open_line=line, last_observed_at=NOW - timedelta(hours=2), last_interval_seconds=3600)
    assert count_uptime(hourly, NOW - DAY, NOW).unknown_ms == 0


def test_an_open_pause_is_a_pause_and_an_open_hole_is_unknown():
    started = NOW - timedelta(hours=1)
    paused = count_uptime(history(open_line=OpenLine(State.UNKNOWN, is_pause=True, started_at=started)), NOW - DAY, NOW)
    assert (paused.paused_ms, paused.unknown_ms) == (3_600_000, 0)
    hole = count_uptime(history(open_line=OpenLine(State.UNKNOWN, is_pause=False, started_at=started)), NOW - DAY, NOW)
    assert (hole.paused_ms, hole.unknown_ms) == (0, 3_600_000)


def test_the_window_of_a_young_monitor_starts_at_its_first_observation_and_none_ends_after_now():
    young = history(first_started_at=NOW - timedelta(hours=1))
    counted = count_uptime(young, NOW - 30 * DAY, NOW + DAY)
    assert (counted.from_at, counted.to_at) == (NOW - timedelta(hours=1), NOW)


@pytest.mark.parametrize("window", [(NOW + DAY, NOW + 2 * DAY), (NOW - 200 * DAY, NOW - 150 * DAY)])
def test_a_window_in_which_nothing_can_have_been_counts_nothing(window):
    line = OpenLine(State.UP, is_pause=False, started_at=NOW - timedelta(hours=1))
    counted = count_uptime(history(open_line=line), *window)
    assert counted.from_at == counted.to_at
    assert counted.up_ms == counted.unknown_ms == 0
    assert counted.uptime_ratio is None


@given(
    state=st.sampled_from([State.UP, State.DEGRADED, State.DOWN, State.UNKNOWN]),
    began=st.integers(0, 7200),
    looked=st.integers(0, 7200),
    window=st.tuples(st.integers(0, 7200), st.integers(0, 7200)),
)
def test_the_open_lines_time_in_the_window_is_shared_out_whole(state, began, looked, window):
    def ago(seconds: int) -> datetime:
        return NOW - timedelta(seconds=seconds)

    line = OpenLine(state, is_pause=False, started_at=ago(began))
    start, end = ago(max(window)), ago(min(window))
    counted = count_uptime(history(open_line=line, last_observed_at=ago(min(looked, began))), start, end)
    parts = (counted.up_ms, counted.degraded_ms, counted.down_ms, counted.unknown_ms, counted.paused_ms)
    assert all(part >= 0 for part in parts)
    assert sum(parts) == max(timedelta(0), end - max(start, line.started_at)) // timedelta(milliseconds=1)
    assert counted.uptime_ratio is None or 0 <= counted.uptime_ratio <= 1

"""How uptime is counted: rounded down, beside its coverage, and of no time in which nobody looked."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.features.monitors.rules import State
from server.features.uptime.rules import Accounting, History, OpenLine, count_uptime, floored_ratio

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


# Of 1,000 seconds: 600 up, 100 degraded, 100 down, 200 unknown.
SPENT = {"up": 600_000, "degraded": 100_000, "down": 100_000, "unknown": 200_000, "paused": 50_000}


@pytest.mark.parametrize(
    ("policy", "ratio", "down_ms"),
    [
        (Accounting(), 0.875, 100_000),
        (Accounting(degraded="down"), 0.75, 200_000),
        (Accounting(unknown="down"), 0.7, 300_000),
        (Accounting(degraded="down", unknown="down"), 0.6, 400_000),
    ],
)
def test_the_accounting_says_what_counts_as_down_and_never_touches_the_coverage(policy, ratio, down_ms):
    counted = count_uptime(history(ended_ms=SPENT), NOW - DAY, NOW, policy)
    assert (counted.uptime_ratio, counted.down_in_all_ms, counted.coverage_ratio) == (ratio, down_ms, 0.8)
    assert counted.policy == policy


def test_maintenance_is_left_out_whatever_state_it_was_in_unless_it_is_included():
    kept = history(ended_ms={"up": 300, "down": 100}, maintained_ms={"down": 400, "unknown": 200})
    left_out = count_uptime(kept, NOW - DAY, NOW)
    assert (left_out.uptime_ratio, left_out.coverage_ratio) == (0.75, 1.0)
    assert (left_out.down_ms, left_out.unknown_ms, left_out.maintenance_ms) == (100, 0, 600)
    included = count_uptime(kept, NOW - DAY, NOW, Accounting(maintenance="include"))
    assert (included.uptime_ratio, included.coverage_ratio) == (0.375, 0.8)
    assert (included.down_ms, included.unknown_ms, included.maintenance_ms) == (500, 200, 600)


def test_the_longest_outage_is_that_of_the_open_line_where_it_lasts_longer_already():
    line = OpenLine(State.DOWN, is_pause=False, started_at=NOW - timedelta(seconds=100))
    assert count_uptime(history(open_line=line, longest_down_ms=99_000), NOW - DAY, NOW).longest_down_ms == 100_000
    assert count_uptime(history(open_line=line, longest_down_ms=101_000), NOW - DAY, NOW).longest_down_ms == 101_000
    kept = OpenLine(line.state, line.is_pause, line.started_at, [(NOW - timedelta(seconds=60), NOW + DAY)])
    assert count_uptime(history(open_line=kept), NOW - DAY, NOW).longest_down_ms == 40_000


# --- against a plain model: a walk over every second ------------------------------------------------------------------

LENGTH = 600
SECOND = timedelta(seconds=1)
BEGIN = NOW - LENGTH * SECOND
states = st.sampled_from(["up", "degraded", "down", "unknown", "paused"])


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[list[str], set[int], int]:
    """A state for each second (the last run is the open line), the seconds in maintenance, the last second seen."""
    cuts = sorted(draw(st.sets(st.integers(1, LENGTH - 1), max_size=6)))
    by_second: list[str] = []
    for begins, ends in zip([0, *cuts], [*cuts, LENGTH], strict=True):
        by_second += [draw(states)] * (ends - begins)
    edges = sorted(draw(st.sets(st.integers(0, LENGTH), max_size=6)))
    maintained = {at for begins, ends in zip(edges[::2], edges[1::2], strict=False) for at in range(begins, ends)}
    return by_second, maintained, draw(st.integers(cuts[-1] if cuts else 0, LENGTH - 1))


def runs(seconds: list[Any]) -> list[tuple[Any, int, int]]:
    """Return (value, first, past the last) of each run of equal values."""
    starts = [at for at in range(len(seconds)) if at == 0 or seconds[at] != seconds[at - 1]]
    return [(seconds[at], at, end) for at, end in zip(starts, [*starts[1:], len(seconds)], strict=True)]


def as_history(by_second: list[str], maintained: set[int], last_seen: int) -> tuple[History, list[str]]:
    """Return the ledger as the database tells it, and what each second was, the unseen end included."""
    *ended, (state, opened, _) = runs(by_second)
    spans = [
        (BEGIN + a * SECOND, BEGIN + b * SECOND) for on, a, b in runs([at in maintained for at in range(LENGTH)]) if on
    ]
    outside, within = dict.fromkeys(SPENT, 0), dict.fromkeys(SPENT, 0)
    for name, begins, ends in ended:
        for at in range(begins, ends):
            (within if at in maintained else outside)[name] += 1000
    line = OpenLine(
        State("unknown" if state == "paused" else state),
        is_pause=state == "paused",
        started_at=BEGIN + opened * SECOND,
        maintenance=[span for span in spans if span[1] > BEGIN + opened * SECOND],
    )
    truth = list(by_second)
    if state not in ("unknown", "paused") and LENGTH - last_seen > 3 * 10 + 60:
        truth[last_seen + 10 :] = ["unknown"] * (LENGTH - last_seen - 10)
    told = history(
        first_started_at=BEGIN,
        last_observed_at=BEGIN + last_seen * SECOND,
        last_interval_seconds=10,
        ended_ms=outside,
        maintained_ms=within,
        open_line=line,
    )
    return told, truth


@given(
    ledger=ledgers(),
    degraded=st.sampled_from(["up", "down"]),
    unknown=st.sampled_from(["exclude", "down"]),
    maintenance=st.sampled_from(["exclude", "include"]),
)
def test_uptime_is_what_a_walk_over_every_second_counts(ledger, degraded, unknown, maintenance):
    told, truth = as_history(*ledger)
    good = bad = looked = unlooked = 0
    for at, state in enumerate(truth):
        if state == "paused" or (maintenance == "exclude" and at in ledger[1]):
            continue
        looked += state != "unknown"
        unlooked += state == "unknown"
        if state == "up" or (state == "degraded" and degraded == "up"):
            good += 1
        elif state != "unknown" or unknown == "down":
            bad += 1
    counted = count_uptime(told, BEGIN, NOW, Accounting(degraded, unknown, maintenance))
    assert counted.uptime_ratio == floored_ratio(good, good + bad)
    assert counted.coverage_ratio == floored_ratio(looked, looked + unlooked)
    assert (counted.down_in_all_ms, counted.maintenance_ms) == (bad * 1000, len(ledger[1]) * 1000)

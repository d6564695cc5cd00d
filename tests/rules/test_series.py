"""Buckets have edges that stay, a window never has more of them than asked for, and percentiles keep their promise."""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.features.series.rules import (
    GAMMA,
    LADDER,
    ORIGIN,
    RELATIVE_ERROR,
    Lengths,
    edges,
    floor_to,
    lay_out,
    lengths_for,
    middle_of,
    percentile,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MIDNIGHT = datetime(2026, 3, 29, tzinfo=UTC)
moments = st.integers(0, 73_000 * 86_400).map(lambda seconds: ORIGIN + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("window", "points", "lengths"),
    [
        ((MIDNIGHT, MIDNIGHT + HOUR), 720, (5, 3600, 86400)),
        ((MIDNIGHT, MIDNIGHT + HOUR), 719, (10, 3600, 86400)),
        ((MIDNIGHT, MIDNIGHT + DAY), 200, (600, 3600, 86400)),
        ((MIDNIGHT, MIDNIGHT + DAY), 144, (600, 3600, 86400)),
        ((MIDNIGHT + timedelta(seconds=1), MIDNIGHT + DAY + timedelta(seconds=1)), 144, (900, 3600, 86400)),
        ((MIDNIGHT, MIDNIGHT + DAY), 1, (86400, 86400, 86400)),
        ((MIDNIGHT, MIDNIGHT + DAY + HOUR), 200, (None, 3600, 86400)),
        ((MIDNIGHT, MIDNIGHT + 90 * DAY), 200, (None, 43200, 86400)),
        ((MIDNIGHT, MIDNIGHT + 90 * DAY), 1000, (None, 10800, 86400)),
        ((MIDNIGHT, MIDNIGHT + 400 * DAY), 200, (None, 2 * 86400, 2 * 86400)),
    ],
)
def test_buckets_are_the_shortest_of_which_no_more_than_asked_for_touch_the_window(window, points, lengths):
    assert lengths_for(window[0], window[1], points) == lengths


@given(
    moment=moments, points=st.integers(1, 1000), length=st.timedeltas(timedelta(microseconds=1), timedelta(days=70_000))
)
def test_there_are_never_more_buckets_than_asked_for_and_they_cover_the_window_whole(moment, points, length):
    to_at = min(moment + length, datetime(2200, 1, 1, tzinfo=UTC))
    raw, hours, days = lengths_for(moment, to_at, points)
    assert (raw is None) == (to_at - moment > DAY)
    for seconds in {each for each in (raw, hours, days) if each is not None}:
        found = list(edges(moment, to_at, seconds))
        assert 1 <= len(found) <= points
        assert found[0] <= moment < found[0] + timedelta(seconds=seconds)
        assert found[-1] < to_at <= found[-1] + timedelta(seconds=seconds)
    assert hours % 3600 == 0 and days % 86400 == 0


@given(moment=moments, length=st.sampled_from(LADDER))
def test_an_edge_depends_on_no_window(moment, length):
    edge = floor_to(moment, length)
    assert edge <= moment < edge + timedelta(seconds=length)
    assert (edge - ORIGIN) % timedelta(seconds=length) == timedelta(0)


def bin_of(ms: float) -> int:
    """Return the bin that the database puts a value into (private.summarise_results)."""
    return math.ceil(math.log(max(ms, 0.001)) / math.log(GAMMA))


@given(st.lists(st.floats(0.001, 600_000), min_size=1, max_size=60), st.sampled_from([1, 50, 95, 99, 100]))
def test_a_percentile_is_within_the_stated_error_of_the_exact_one(values, percent):
    counted = sorted(Counter(map(bin_of, values)).items())
    exact = sorted(values)[max(1, math.ceil(percent * len(values) / 100)) - 1]
    found = percentile([k for k, _ in counted], [n for _, n in counted], percent)
    assert found == pytest.approx(exact, rel=RELATIVE_ERROR * (1 + 1e-9))


@given(st.lists(st.lists(st.floats(0.001, 60_000), max_size=20), min_size=1, max_size=5))
def test_histograms_put_together_tell_what_one_of_all_would(parts):
    together: Counter[int] = Counter()
    for part in parts:
        together += Counter(map(bin_of, part))
    assert together == Counter(bin_of(value) for part in parts for value in part)
    assert percentile(sorted(together), [together[k] for k in sorted(together)], 50) is None or any(parts)


@pytest.mark.parametrize(
    ("counts", "percent", "which"),
    [([1, 1], 50, 0), ([1, 1, 1], 50, 1), ([99, 1], 99, 0), ([98, 2], 99, 1), ([1, 1], 0, 0), ([1, 0, 1], 100, 2)],
)
def test_a_percentile_is_taken_by_nearest_rank(counts, percent, which):
    assert percentile(range(len(counts)), counts, percent) == middle_of(which)


def test_of_nothing_there_is_no_percentile():
    assert percentile([], [], 50) is None


ROW = {"count": 2, "failed": 1, "timed": 2, "sum_ms": 30.0, "min_ms": 10.0, "max_ms": 20.0}


def test_what_was_not_seen_is_a_hole_and_not_left_out():
    row = {**ROW, "started_at": "2026-03-29T01:00:00+00:00", "percentiles": [10.0, 20.0, 20.0]}
    found = {"source": "raw", "buckets": [row]}
    series = lay_out(found, MIDNIGHT, MIDNIGHT + 3 * HOUR, Lengths(3600, 3600, 86400))
    hole, seen, _ = series.buckets
    assert (hole.started_at, hole.count, hole.avg_ms, hole.p50_ms) == (MIDNIGHT, 0, None, None)
    assert (seen.count, seen.failed, seen.avg_ms, seen.p95_ms) == (2, 1, 15.0, 20.0)
    assert (series.from_at, series.to_at, series.resolution_seconds) == (MIDNIGHT, MIDNIGHT + 3 * HOUR, 3600)


@pytest.mark.parametrize(
    ("source", "window"),
    [("hours", (MIDNIGHT + HOUR, MIDNIGHT + 6 * HOUR)), ("days", (MIDNIGHT, MIDNIGHT + DAY))],
)
def test_rollups_widen_a_window_to_whole_hours_or_days(source, window):
    lengths = Lengths(None, 3600, 86400)
    series = lay_out({"source": source, "buckets": []}, MIDNIGHT + 1.5 * HOUR, MIDNIGHT + 5.5 * HOUR, lengths)
    assert (series.from_at, series.to_at) == window
    exact = lay_out({"source": source, "buckets": []}, window[0], window[1], lengths)
    assert (exact.from_at, exact.to_at) == window


def test_an_estimate_never_lies_beyond_what_was_seen():
    row = {**ROW, "started_at": "2026-03-29T00:00:00+00:00", "bins": [bin_of(10), bin_of(20)], "counts": [1, 1]}
    series = lay_out({"source": "hours", "buckets": [row]}, MIDNIGHT, MIDNIGHT + HOUR, Lengths(None, 3600, 86400))
    assert 10 <= (series.buckets[0].p50_ms or 0) <= 10.2
    assert 19.6 <= (series.buckets[0].p99_ms or 0) <= 20


def test_results_that_tell_no_time_leave_the_times_out():
    row = {**ROW, "started_at": "2026-03-29T00:00:00+00:00", "timed": 0, "sum_ms": 0, "min_ms": None, "max_ms": None}
    shapes: list[dict[str, Any]] = [{"percentiles": None}, {"bins": [], "counts": []}]
    for more in shapes:
        found = {"source": "hours", "buckets": [{**row, **more}]}
        (bucket,) = lay_out(found, MIDNIGHT, MIDNIGHT + HOUR, Lengths(None, 3600, 86400)).buckets
        assert (bucket.count, bucket.avg_ms, bucket.p99_ms) == (2, None, None)

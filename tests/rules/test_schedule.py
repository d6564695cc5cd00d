"""When a monitor is looked at next, and which numbers go together."""

import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.features.monitors.rules import (
    Policy,
    State,
    default_timeout,
    inconsistencies,
    next_due_at,
    retry_interval,
    status_ranges,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MONITOR = uuid.UUID("a7470079-8fd5-40eb-8b1d-c790840bc8b3")


@given(
    monitor_id=st.uuids(),
    interval=st.integers(5, 86_400),
    now=st.integers(0, 80 * 365 * 86_400_000).map(lambda ms: NOW + timedelta(milliseconds=ms)),
)
def test_the_next_check_lies_on_the_monitors_own_grid_and_in_the_future(monitor_id, interval, now):
    policy = Policy(interval, 5)
    due = next_due_at(monitor_id, policy, State.UP, now)
    assert timedelta(0) < due - now <= timedelta(seconds=interval, milliseconds=1)
    following = next_due_at(monitor_id, policy, State.UP, due)
    assert following - due == timedelta(seconds=interval), "late or early, the grid stays"


def test_a_suspicion_is_checked_again_soon():
    policy = Policy(interval_seconds=300, retry_interval_seconds=15)
    assert next_due_at(MONITOR, policy, State.PENDING, NOW) == NOW + timedelta(seconds=15)


def test_many_monitors_of_one_interval_spread_evenly_over_it():
    policy = Policy(interval_seconds=60, retry_interval_seconds=15)
    ids = (uuid.uuid5(MONITOR, str(number)) for number in range(10_000))
    seconds = Counter(int((next_due_at(monitor_id, policy, State.UP, NOW) - NOW).total_seconds()) for monitor_id in ids)
    assert max(seconds.values()) < 2 * 10_000 / 60


def test_defaults_fit_the_interval():
    assert (default_timeout(5), default_timeout(60)) == (5, 10)
    assert (retry_interval(5), retry_interval(60)) == (5, 15)
    for interval in (5, 10, 15, 60, 86_400):
        assert inconsistencies(interval, default_timeout(interval), retry_interval(interval)) == {}


@pytest.mark.parametrize(
    ("interval", "timeout", "retry", "wrong"),
    [
        (60, 10, 15, set()),
        (60, 60, 60, set()),
        (5, 6, 5, {"timeout_seconds"}),
        (5, 5, 6, {"retry_interval_seconds"}),
        (5, 60, 60, {"timeout_seconds", "retry_interval_seconds"}),
    ],
)
def test_what_does_not_go_together_is_named(interval, timeout, retry, wrong):
    assert set(inconsistencies(interval, timeout, retry)) == wrong


def test_statuses_are_read_singly_and_in_ranges():
    assert status_ranges(["200-299", "404", "301-301"]) == ((200, 299), (404, 404), (301, 301))


@pytest.mark.parametrize(
    "text", ["", "2xx", "200-", "-299", "299-200", "99", "600", "0200", "200-299-300", "\uff12\uff10\uff10", "200 "]
)
def test_what_is_no_status_is_refused(text):
    with pytest.raises(ValueError, match="status"):
        status_ranges([text])

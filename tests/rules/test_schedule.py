"""When a monitor is looked at next, and which numbers go together."""

import uuid
from collections import Counter
from collections.abc import Iterator
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


def some_ids(count: int) -> Iterator[uuid.UUID]:
    return (uuid.uuid5(MONITOR, str(number)) for number in range(count))


@given(
    monitor_id=st.uuids(),
    interval=st.integers(5, 86_400),
    now=st.datetimes(datetime(2026, 1, 1), datetime(2106, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001  # the strategy adds the zone
)
def test_the_next_check_lies_on_the_monitors_own_grid_and_in_the_future(monitor_id, interval, now):
    policy = Policy(interval, 5)
    due = next_due_at(monitor_id, policy, State.UP, now)
    assert now < due <= now + timedelta(seconds=interval)
    assert (due - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) % (interval * 1000) == (
        monitor_id.int % (interval * 1000)
    ), "the phase is the id's"


@pytest.mark.parametrize("year", [2026, 2038, 2039, 2100])
def test_a_check_on_its_point_of_the_grid_is_next_due_an_interval_later(year):
    policy = Policy(interval_seconds=60, retry_interval_seconds=15)
    for monitor_id in some_ids(1000):
        due = next_due_at(monitor_id, policy, State.UP, datetime(year, 6, 1, tzinfo=UTC))
        following = next_due_at(monitor_id, policy, State.UP, due)
        assert following - due == timedelta(seconds=60), "late or early, the grid stays"


def test_a_suspicion_is_checked_again_soon():
    policy = Policy(interval_seconds=300, retry_interval_seconds=15)
    assert next_due_at(MONITOR, policy, State.PENDING, NOW) == NOW + timedelta(seconds=15)


def test_many_monitors_of_one_interval_spread_evenly_over_it():
    policy = Policy(interval_seconds=60, retry_interval_seconds=15)
    waits = (next_due_at(monitor_id, policy, State.UP, NOW) - NOW for monitor_id in some_ids(10_000))
    seconds = Counter((wait - timedelta(milliseconds=1)) // timedelta(seconds=1) for wait in waits)
    assert len(seconds) == 60
    assert 10_000 / 60 * 0.7 < min(seconds.values()) <= max(seconds.values()) < 10_000 / 60 * 1.3


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

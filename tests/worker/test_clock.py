"""The worker's time: told by the database, carried on by elapsed time alone."""

from datetime import UTC, datetime, timedelta

import pytest

from server.worker.clock import DatabaseClock, leapt

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Stopwatch:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_it_goes_on_from_what_the_database_said():
    stopwatch = Stopwatch()
    clock = DatabaseClock(stopwatch)
    clock.tell(NOON)
    assert clock.now() == NOON
    stopwatch.seconds += 2.5
    assert clock.now() == NOON + timedelta(seconds=2.5)


def test_each_word_of_the_database_replaces_the_one_before():
    stopwatch = Stopwatch()
    clock = DatabaseClock(stopwatch)
    clock.tell(NOON)
    stopwatch.seconds += 60
    clock.tell(NOON + timedelta(seconds=59))
    assert clock.now() == NOON + timedelta(seconds=59)


@pytest.mark.parametrize(
    ("seconds", "elapsed", "leap"),
    [
        (0.5, 0.5, None),
        (3600.5, 0.5, 3600),
        (3600, 3600, None),  # nobody could ask for an hour
        (7205, 3605, 3600),
        (20.5, 0.5, None),  # a slow answer may make so much
        (20.6, 0.5, 20.1),
        (-3599.5, 0.5, None),  # set back, which the database sees by itself
        (0.1, 30, None),
    ],
)
def test_a_clock_has_leapt_that_went_on_further_than_time(seconds: float, elapsed: float, leap: float | None):
    found = leapt(NOON, NOON + timedelta(seconds=seconds), timedelta(seconds=elapsed))
    assert found == (None if leap is None else timedelta(seconds=leap))


def test_there_is_no_time_before_the_first_claim():
    with pytest.raises(AssertionError, match="has not told its time"):
        DatabaseClock(Stopwatch()).now()

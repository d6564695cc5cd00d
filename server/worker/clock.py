"""The worker's time: the database's clock, carried on by a monotonic one.

Workers' own clocks may differ and jump; the database's is the one that leases and due times are written by. Each claim
brings its `now`, and between two claims only elapsed time is added. Where the database's clock itself was set forward,
the two do not agree: whoever was there before and after knows of the leap.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

# What is less may be an answer that was slow; private.notice_clock has the same limit.
LEAST_LEAP = timedelta(seconds=20)


def leapt(before: datetime, now: datetime, elapsed: timedelta) -> timedelta | None:
    """Return how far a clock was set forward that said `before` and, within `elapsed`, `now`; None: it was not."""
    leap = now - before - elapsed
    return leap if leap > LEAST_LEAP else None


class DatabaseClock:
    """`monotonic` gives seconds that never run backwards."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._told: datetime | None = None
        self._told_at = 0.0

    def tell(self, now: datetime) -> None:
        """Take over the database's time."""
        self._told, self._told_at = now, self._monotonic()

    def now(self) -> datetime:
        """Return the time. There is none before the first claim."""
        assert self._told is not None, "the database has not told its time yet"
        return self._told + timedelta(seconds=self._monotonic() - self._told_at)

"""What came of one attempt to deliver, and when to try again."""

from dataclasses import dataclass
from datetime import timedelta

# With `backoff` about six hours on average: long enough for a receiver's bad night, short enough to be news.
MAX_ATTEMPTS = 16

_FIRST = timedelta(seconds=10)
_LONGEST = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver accepted it."""

    status_code: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The receiver did not accept it, or was not reached (`status_code` None).

    `permanent`: trying again cannot help. `detail` is for people, at most 300 characters. `retry_after_seconds` is
    what the receiver asked for, at most a day.
    """

    permanent: bool
    status_code: int | None
    detail: str
    retry_after_seconds: int | None = None


def backoff(attempt: int, jitter: float) -> timedelta:
    """Return the pause after the failed `attempt` (from 1): 5 to 10 s, doubling, up to 30 to 60 min.

    `jitter` in 0..1 picks the point in the range, so that deliveries that failed together do not return together.
    """
    doublings = min(attempt - 1, 16)
    longest = min(_LONGEST, _FIRST * (1 << doublings))
    return longest * (0.5 + 0.5 * jitter)

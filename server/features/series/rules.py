"""How response times are put into buckets, and percentiles read from a histogram. Pure."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from math import ceil
from typing import Any, Literal, NamedTuple

# Everything begins here, so that the same bucket has the same edges in whichever window it is asked for. The rollups of
# the database (history.sql) begin their hours and days here too.
ORIGIN = datetime(2000, 1, 1, tzinfo=UTC)
DAY_SECONDS = 86_400
_SECONDS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
_HOURS = tuple(3600 * hours for hours in (1, 2, 3, 4, 6, 8, 12))
_DAYS = tuple(DAY_SECONDS * 2**power for power in range(18))  # the last is longer than any window may be
LADDER = (*_SECONDS, *_HOURS, *_DAYS)
# A bin holds what lies in (GAMMA^(k-1), GAMMA^k]: what is told by the bin's middle is off by RELATIVE_ERROR at most
# (Masson, Rim and Lee: DDSketch, 2019).
RELATIVE_ERROR = 0.02
GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
PERCENTILES = (50, 95, 99)

Source = Literal["raw", "hours", "days"]


class Lengths(NamedTuple):
    """How long buckets are, in seconds, for each source that may answer. `raw` None: the window is too long for it."""

    raw: int | None
    hours: int
    days: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """What the checks come to that began within `length_seconds` of `started_at`. None where there was none to tell."""

    started_at: datetime
    count: int = 0
    failed: int = 0
    min_ms: float | None = None
    avg_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Buckets without a gap, in their order. The window is as wide as what answered, which has whole hours or days."""

    from_at: datetime
    to_at: datetime
    source: Source
    resolution_seconds: int
    buckets: Sequence[Bucket]


def lengths_for(from_at: datetime, to_at: datetime, points: int) -> Lengths:
    """Choose the shortest buckets of which no more than `points` touch a window, for each source."""
    is_short = to_at - from_at <= timedelta(seconds=DAY_SECONDS)
    fitting = [length for length in LADDER if _touched(from_at, to_at, length) <= points]
    return Lengths(
        fitting[0] if is_short else None,
        next(length for length in fitting if length >= _HOURS[0]),
        next(length for length in fitting if length >= DAY_SECONDS),
    )


def edges(from_at: datetime, to_at: datetime, length_seconds: int) -> Iterator[datetime]:
    """Yield the beginnings of all buckets that touch a window: whole multiples of their length since ORIGIN."""
    first, length = floor_to(from_at, length_seconds), timedelta(seconds=length_seconds)
    for number in range(_touched(from_at, to_at, length_seconds)):
        yield first + number * length


def floor_to(moment: datetime, length_seconds: int) -> datetime:
    """Return the last whole multiple of a length since ORIGIN that is not after a moment."""
    return moment - (moment - ORIGIN) % timedelta(seconds=length_seconds)


def _touched(from_at: datetime, to_at: datetime, length_seconds: int) -> int:
    first, length = floor_to(from_at, length_seconds), timedelta(seconds=length_seconds)
    return -((first - to_at) // length)


def percentile(bins: Sequence[int], counts: Sequence[int], percent: float) -> float | None:
    """Return a percentile by nearest rank: the middle of the bin in which it lies. None where nothing was counted.

    `bins` ascend. The answer is within RELATIVE_ERROR of the value that has this rank.
    """
    reached = list(accumulate(counts))
    if not reached or not reached[-1]:
        return None
    rank = max(1, ceil(percent * reached[-1] / 100))
    return middle_of(bins[bisect_left(reached, rank)])


def middle_of(bin_number: int) -> float:
    """Return the value of a bin that is off by RELATIVE_ERROR at most of any in it."""
    return 2 * GAMMA**bin_number / (GAMMA + 1)


def lay_out(found: Mapping[str, Any], from_at: datetime, to_at: datetime, lengths: Lengths) -> Series:
    """Lay out what `read_series` of the database found. Raises KeyError, TypeError, ValueError for anything else."""
    source: Source = found["source"]
    length_seconds = {"raw": lengths.raw, "hours": lengths.hours, "days": lengths.days}[source]
    if length_seconds is None:
        raise ValueError("raw results for a window of more than a day")
    grain = {"raw": None, "hours": 3600, "days": DAY_SECONDS}[source]
    if grain is not None:
        from_at, to_at = floor_to(from_at, grain), _ceil_to(to_at, grain)
    seen = {bucket.started_at: bucket for bucket in map(_read_bucket, found["buckets"])}
    laid_out = [seen.get(at) or Bucket(at) for at in edges(from_at, to_at, length_seconds)]
    return Series(from_at, to_at, source, length_seconds, laid_out)


def _ceil_to(moment: datetime, length_seconds: int) -> datetime:
    return moment + (ORIGIN - moment) % timedelta(seconds=length_seconds)


def _read_bucket(row: Mapping[str, Any]) -> Bucket:
    timed, lowest, highest = row["timed"], row["min_ms"], row["max_ms"]
    if "percentiles" in row:
        found = row["percentiles"] or (None, None, None)
    else:
        # What lies beyond the extremes is the middle of a bin at whose edge they lie.
        found = (percentile(row["bins"], row["counts"], percent) for percent in PERCENTILES)
        found = [None if each is None else min(max(each, lowest), highest) for each in found]
    p50, p95, p99 = found
    return Bucket(
        datetime.fromisoformat(row["started_at"]),
        int(row["count"]),
        int(row["failed"]),
        lowest,
        row["sum_ms"] / timed if timed else None,
        p50,
        p95,
        p99,
    )

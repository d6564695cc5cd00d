"""When a monitor goes down, when it comes back, and when it is looked at next.

`judge` is the rule. Everything here is pure: the standard library only, no clock, no I/O. Times are
timezone-aware UTC datetimes, read off the database's clock by the caller.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Literal, get_args
from uuid import UUID

from server.features.checks.rules import Observation, Outcome

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

# How a monitor watches. A heartbeat waits for pings; the others go and look.
CheckKind = Literal["http", "tcp", "tls", "dns", "icmp"]
Kind = Literal[CheckKind, "heartbeat"]
KINDS: tuple[str, ...] = get_args(Kind)
LONGEST_SLUG = 100
DEFAULT_INTERVAL_SECONDS = 60
DEFAULT_FAIL_THRESHOLD = 2
DEFAULT_RECOVER_THRESHOLD = 1


class State(StrEnum):
    """What is known of a monitor now. `pending` is a suspicion that the ledger does not know."""

    NEW = "new"
    UP = "up"
    DEGRADED = "degraded"
    PENDING = "pending"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Policy:
    """How a monitor wants to be judged. Thresholds count consecutive checks; `degraded_after_ms` None: never."""

    interval_seconds: int
    retry_interval_seconds: int
    fail_threshold: int = 2
    recover_threshold: int = 1
    degraded_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a monitor, or one region of it, stands between two checks.

    `ledger_state` is the state of its open interval (None: no interval yet). A streak is a run of checks with
    the same outcome: one of `failures` and `successes` is 0, and `streak_since` is when the run's first check began.
    `last_interval_seconds` is the interval that was asked for when it was last observed: a promise of then cannot be
    broken by a change since. Both `last_` are None where it has not been observed, or was paused meanwhile.
    `recent_downs` is when it went down, each time of the last hour.
    """

    state: State = State.NEW
    ledger_state: State | None = None
    failures: int = 0
    successes: int = 0
    streak_since: datetime | None = None
    last_observed_at: datetime | None = None
    last_interval_seconds: int | None = None
    recent_downs: tuple[datetime, ...] = ()


@dataclass(frozen=True, slots=True)
class Transition:
    """One line of the ledger: from `at` on, the monitor was `state`."""

    state: State
    at: datetime
    cause: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from one observation: where the monitor stands, and what is to be written.

    `state_since` dates the standing's state where this observation has changed it, and means nothing where not.
    """

    standing: Standing
    state_since: datetime
    transitions: tuple[Transition, ...] = ()
    opens_incident_since: datetime | None = None
    closes_incident_at: datetime | None = None
    flapping: bool = False


# Three times down within an hour is flapping: from then on it takes five successes in a row to come back, so that one
# incident stays open instead of many that open and close.
FLAPPING_DOWNS = 3
FLAPPING_WINDOW = timedelta(hours=1)
FLAPPING_RECOVER_THRESHOLD = 5


def judge(policy: Policy, standing: Standing, observation: Observation) -> Verdict:
    """Decide what one observation means.

    1. A hole in the record is `unknown`, never `down`, and breaks a streak; so does a check that failed through our own
       fault.
    2. `fail_threshold` failures in a row make it `down`, since the first of them; fewer make it `pending`.
    3. A monitor that is down comes back after `recover_threshold` successes in a row, since the first of them; after
       more of them while it flaps.
    4. Any other success is `up`, or `degraded` where it was slower than `degraded_after_ms`.
    """
    at = observation.started_at
    before, hole = _after_hole(standing, at)
    now = replace(_continued(before, observation), last_observed_at=at, last_interval_seconds=policy.interval_seconds)
    if observation.outcome is Outcome.UNKNOWN:
        return _nothing_seen(now, at, str(observation.error_kind), hole)
    since = now.streak_since
    assert since is not None, "a check with an outcome has a streak"
    if observation.outcome is Outcome.DOWN:
        if now.state is not State.DOWN and now.failures < policy.fail_threshold:
            return _verdict(replace(now, state=State.PENDING), since, at, hole)
        return _down(now, since, at, "fail_threshold_reached", hole)
    if now.state is State.DOWN and now.successes < _successes_to_recover(policy, now, at):
        back = () if now.ledger_state is State.DOWN else (Transition(State.DOWN, at, "recovering"),)
        return _verdict(replace(now, ledger_state=State.DOWN), at, at, hole + back)
    recovers = now.state is State.DOWN
    state = State.DEGRADED if _is_slow(policy, observation) else State.UP
    cause = "recover_threshold_reached" if recovers else "slow" if state is State.DEGRADED else "answered"
    return _up(now, state, since if recovers else at, at, cause, hole)


def agree(whole: Standing, regions: Sequence[Standing], at: datetime) -> Verdict:
    """Decide what several regions mean together, one of which has just looked (at `at`) and was judged by itself.

    `whole` is the monitor as it stood: its state, its ledger, and when any region last looked before. A region is
    connected that has looked within three intervals of its own, and has seen something. A look that comes in after
    another region's later one is judged as of that.
    1. A strict majority of the connected regions that say `down` makes it `down`, since so many of them have failed.
    2. A strict majority that say `up` or `degraded` makes it so, likewise, and ends an incident.
    3. Without a majority it stays down where it was; else a region that fails makes it `pending`.
    4. No connected region: `unknown`.
    After a time of which nothing is known, the first region that looks is the only connected one: until the others have
    had three intervals to look as well, less than most of all regions neither open an incident nor end one.
    """
    at = max(at, whole.last_observed_at or at)
    whole, hole = _after_hole(whole, at)
    votes = [region for region in regions if _is_connected(region, at)]
    if not votes:
        return _nothing_seen(whole, at, "no_region", hole)
    most_of_all = len(regions) // 2 + 1 if whole.ledger_state in (None, State.UNKNOWN) else 0
    down_since = _majority_since(votes, {State.DOWN}, most_of_all, at)
    if down_since is not None:
        return _down(whole, down_since, at, "majority_down", hole)
    is_down = whole.state is State.DOWN
    up_since = _majority_since(votes, {State.UP, State.DEGRADED}, most_of_all if is_down else 0, at)
    if up_since is not None:
        slow = 2 * sum(vote.state is State.DEGRADED for vote in votes) > len(votes)
        since = up_since if is_down else at
        return _up(whole, State.DEGRADED if slow else State.UP, since, at, "majority_up", hole)
    return _verdict(replace(whole, state=State.DOWN if is_down else State.PENDING), at, at, hole)


def missing_since(standing: Standing, at: datetime) -> datetime | None:
    """Return since when nobody has looked, where that is so long before `at` that the time is unknown; else None.

    Up to three intervals and a minute may pass: a restart, or a lease that had to run out, is no hole. A hole begins
    where the first missing check should have been.
    """
    if standing.last_observed_at is None or standing.last_interval_seconds is None:
        return None
    interval = timedelta(seconds=standing.last_interval_seconds)
    if at - standing.last_observed_at <= 3 * interval + timedelta(seconds=60):
        return None
    return standing.last_observed_at + interval


def is_flapping(recent_downs: Sequence[datetime], at: datetime) -> bool:
    """Tell whether a monitor that went down at these times goes up and down too often at `at` to believe in it."""
    return sum(at - down < FLAPPING_WINDOW for down in recent_downs) >= FLAPPING_DOWNS


def _after_hole(standing: Standing, at: datetime) -> tuple[Standing, tuple[Transition, ...]]:
    """Return the standing with the hole before `at`, if there is one, and the line that the ledger gets for it."""
    missed_since = missing_since(standing, at)
    if missed_since is None:
        return standing, ()
    broken = replace(standing, failures=0, successes=0, streak_since=None)
    if standing.ledger_state in (None, State.UNKNOWN):
        return broken, ()
    return replace(broken, ledger_state=State.UNKNOWN), (Transition(State.UNKNOWN, missed_since, "not_observed"),)


def _continued(standing: Standing, observation: Observation) -> Standing:
    """Return the standing with its streak carried on, or begun anew, by what was observed."""
    if observation.outcome is Outcome.UNKNOWN:
        return replace(standing, failures=0, successes=0, streak_since=None)
    failures = 0 if observation.ok else standing.failures + 1
    successes = standing.successes + 1 if observation.ok else 0
    starts = failures + successes == 1
    since = observation.started_at if starts or standing.streak_since is None else standing.streak_since
    return replace(standing, failures=failures, successes=successes, streak_since=since)


def _successes_to_recover(policy: Policy, now: Standing, at: datetime) -> int:
    if is_flapping(now.recent_downs, at):
        return max(policy.recover_threshold, FLAPPING_RECOVER_THRESHOLD)
    return policy.recover_threshold


def _down(now: Standing, since: datetime, at: datetime, cause: str, hole: tuple[Transition, ...]) -> Verdict:
    if now.state is State.DOWN:
        back = () if now.ledger_state is State.DOWN else (Transition(State.DOWN, since, "still_failing"),)
        return _verdict(replace(now, ledger_state=State.DOWN), since, at, hole + back)
    after = replace(now, state=State.DOWN, ledger_state=State.DOWN, recent_downs=(*now.recent_downs, since))
    line = Transition(State.DOWN, since, cause)
    return replace(_verdict(after, since, at, (*hole, line)), opens_incident_since=since)


def _up(
    now: Standing, state: State, since: datetime, at: datetime, cause: str, hole: tuple[Transition, ...]
) -> Verdict:
    line = () if now.ledger_state is state else (Transition(state, since, cause),)
    verdict = _verdict(replace(now, state=state, ledger_state=state), since, at, hole + line)
    return replace(verdict, closes_incident_at=since) if now.state is State.DOWN else verdict


def _nothing_seen(now: Standing, at: datetime, cause: str, hole: tuple[Transition, ...]) -> Verdict:
    """What is down stays down until somebody sees otherwise, but the ledger does not say it of a time unseen."""
    state = State.DOWN if now.state is State.DOWN else State.UNKNOWN
    line = () if now.ledger_state is State.UNKNOWN else (Transition(State.UNKNOWN, at, cause),)
    return _verdict(replace(now, state=state, ledger_state=State.UNKNOWN), at, at, hole + line)


def _verdict(after: Standing, since: datetime, at: datetime, lines: tuple[Transition, ...]) -> Verdict:
    return Verdict(after, since, lines, flapping=is_flapping(after.recent_downs, at))


def _is_slow(policy: Policy, observation: Observation) -> bool:
    total_ms = observation.timings.total_ms
    return policy.degraded_after_ms is not None and total_ms is not None and total_ms > policy.degraded_after_ms


def _is_connected(region: Standing, at: datetime) -> bool:
    if region.last_observed_at is None or region.last_interval_seconds is None:
        return False
    if region.state in (State.NEW, State.UNKNOWN):
        return False
    return at - region.last_observed_at <= 3 * timedelta(seconds=region.last_interval_seconds)


def _majority_since(votes: Sequence[Standing], states: set[State], at_once: int, at: datetime) -> datetime | None:
    """Return since when most of the votes are in one of these states; None where they are not.

    Fewer than `at_once` of them count only when they have been so for three intervals.
    """
    begun = sorted(vote.streak_since for vote in votes if vote.state in states and vote.streak_since is not None)
    if 2 * len(begun) <= len(votes):
        return None
    since = begun[len(votes) // 2]
    longest_seconds = max(vote.last_interval_seconds or 0 for vote in votes)
    is_old = at - since >= 3 * timedelta(seconds=longest_seconds)
    return since if is_old or len(begun) >= at_once else None


def next_due_at(monitor_id: UUID, policy: Policy, state: State, now: datetime) -> datetime:
    """Return when to check next: soon while there is a suspicion or nothing was seen, else by the monitor's own grid.

    The grid's phase comes from the id, so that many monitors with one interval spread evenly over it.
    """
    if state in (State.PENDING, State.UNKNOWN):
        return now + timedelta(seconds=policy.retry_interval_seconds)
    interval_ms = policy.interval_seconds * 1000
    phase_ms = monitor_id.int % interval_ms
    # Whole numbers: as floats, some points of the grid lie a hair before themselves, and would be due again at once.
    now_ms = (now - _EPOCH) // _MILLISECOND
    due_ms = now_ms - (now_ms - phase_ms) % interval_ms + interval_ms
    return _EPOCH + due_ms * _MILLISECOND


def retry_interval(interval_seconds: int) -> int:
    """Return the default pause before a suspicion is checked again, in seconds."""
    return min(interval_seconds, 15)


def default_timeout(interval_seconds: int) -> int:
    """Return the default time a check may take, in seconds."""
    return min(interval_seconds, 10)


def slug_of(name: str) -> str | None:
    """Return what a heartbeat of this name is called in its ping URL; None where the name has nothing to make it of."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_]+", "-", letters)[:LONGEST_SLUG].strip("-") or None


def inconsistencies(interval_seconds: int, timeout_seconds: int, retry_interval_seconds: int) -> dict[str, str]:
    """Return what does not fit together: field name to what is right. Empty where all is well."""
    found = {}
    if timeout_seconds > interval_seconds:
        found["timeout_seconds"] = f"A check may not take longer than the interval of {interval_seconds} s."
    if retry_interval_seconds > interval_seconds:
        found["retry_interval_seconds"] = f"The retry interval may not exceed the interval of {interval_seconds} s."
    return found


def status_ranges(expected_status: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Read `200-299` and `404` as inclusive ranges. Raises ValueError with what is right."""
    ranges = []
    for text in expected_status:
        first, dash, last = text.partition("-")
        low, high = _status(first), _status(last if dash else first)
        if low > high:
            raise ValueError(f"{text}: the lower status comes first")
        ranges.append((low, high))
    return tuple(ranges)


def _status(text: str) -> int:
    if len(text) != 3 or not text.isascii() or not text.isdigit() or not 100 <= int(text) <= 599:
        raise ValueError("Write a status as 404, or a range of them as 200-299.")
    return int(text)

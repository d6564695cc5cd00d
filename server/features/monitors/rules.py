"""When a monitor goes down, when it comes back, and when it is looked at next.

`judge` is the rule. Everything here is pure: the standard library only, no clock, no I/O. Times are
timezone-aware UTC datetimes, read off the database's clock by the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from uuid import UUID

from server.features.checks.rules import Observation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class State(StrEnum):
    """What is known of a monitor now. `pending` is a suspicion that the ledger does not know."""

    NEW = "new"
    UP = "up"
    DEGRADED = "degraded"
    PENDING = "pending"
    DOWN = "down"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """What an http check does. `expected_status` holds inclusive ranges; `max_redirects` 0 follows none."""

    url: str
    timeout_seconds: float
    expected_status: Sequence[tuple[int, int]] = ((200, 299),)
    max_redirects: int = 5


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
    """Where a monitor stands between two checks.

    `ledger_state` is the state of its open interval (None: no interval yet). A streak is a run of checks with
    the same outcome: one of `failures` and `successes` is 0, and `streak_since` is when the run's first check began.
    `last_interval_seconds` is the interval that was asked for when it was last observed: a promise of then cannot be
    broken by a change since. Both `last_` are None where it has not been observed, or was paused meanwhile.
    """

    state: State = State.NEW
    ledger_state: State | None = None
    failures: int = 0
    successes: int = 0
    streak_since: datetime | None = None
    last_observed_at: datetime | None = None
    last_interval_seconds: int | None = None


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


def judge(policy: Policy, standing: Standing, observation: Observation) -> Verdict:
    """Decide what one observation means.

    1. A hole in the record is `unknown`, never `down`, and breaks a streak.
    2. `fail_threshold` failures in a row make it `down`, since the first of them; fewer make it `pending`.
    3. A monitor that is down comes back after `recover_threshold` successes in a row, since the first of them.
    4. Any other success is `up`, or `degraded` where it was slower than `degraded_after_ms`.
    """
    missed_since = missing_since(standing, observation.started_at)
    before = replace(
        _continued(standing, observation, broken=missed_since is not None),
        last_observed_at=observation.started_at,
        last_interval_seconds=policy.interval_seconds,
    )
    hole: tuple[Transition, ...] = ()
    if missed_since is not None and standing.ledger_state not in (None, State.UNKNOWN):
        hole = (Transition(State.UNKNOWN, missed_since, "not_observed"),)
        before = replace(before, ledger_state=State.UNKNOWN)
    if observation.ok:
        return _after_success(policy, before, observation, hole)
    return _after_failure(policy, before, hole)


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


def _continued(standing: Standing, observation: Observation, *, broken: bool) -> Standing:
    failures = 0 if observation.ok else (0 if broken else standing.failures) + 1
    successes = ((0 if broken else standing.successes) + 1) if observation.ok else 0
    starts = failures + successes == 1
    since = observation.started_at if starts or standing.streak_since is None else standing.streak_since
    return replace(standing, failures=failures, successes=successes, streak_since=since)


def _after_failure(policy: Policy, now: Standing, hole: tuple[Transition, ...]) -> Verdict:
    since = now.streak_since
    assert since is not None, "a failure has a streak"
    if now.state is State.DOWN:
        back = () if now.ledger_state is State.DOWN else (Transition(State.DOWN, since, "still_failing"),)
        return Verdict(replace(now, ledger_state=State.DOWN), since, hole + back)
    if now.failures < policy.fail_threshold:
        return Verdict(replace(now, state=State.PENDING), since, hole)
    down = Transition(State.DOWN, since, "fail_threshold_reached")
    after = replace(now, state=State.DOWN, ledger_state=State.DOWN)
    return Verdict(after, since, (*hole, down), opens_incident_since=since)


def _after_success(policy: Policy, now: Standing, observation: Observation, hole: tuple[Transition, ...]) -> Verdict:
    if now.state is State.DOWN and now.successes < policy.recover_threshold:
        back = () if now.ledger_state is State.DOWN else (Transition(State.DOWN, observation.started_at, "recovering"),)
        return Verdict(replace(now, ledger_state=State.DOWN), observation.started_at, hole + back)
    recovered = now.state is State.DOWN
    since = now.streak_since if recovered and now.streak_since is not None else observation.started_at
    state = State.DEGRADED if _is_slow(policy, observation) else State.UP
    after = replace(now, state=state, ledger_state=state)
    cause = "recover_threshold_reached" if recovered else "slow" if state is State.DEGRADED else "answered"
    change = () if now.ledger_state is state else (Transition(state, since, cause),)
    return Verdict(after, since, hole + change, closes_incident_at=since if recovered else None)


def _is_slow(policy: Policy, observation: Observation) -> bool:
    total_ms = observation.timings.total_ms
    return policy.degraded_after_ms is not None and total_ms is not None and total_ms > policy.degraded_after_ms


def next_due_at(monitor_id: UUID, policy: Policy, state: State, now: datetime) -> datetime:
    """Return when to check next: soon while there is a suspicion, else the next point of the monitor's own grid.

    The grid's phase comes from the id, so that many monitors with one interval spread evenly over it.
    """
    if state is State.PENDING:
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

"""When a heartbeat is down, and when it is up again: by what its job says, and by its silence.

`judge` is the rule. Pure: the standard library only, no clock, no I/O; the arithmetic of cron is handed in. Times are
timezone-aware UTC datetimes, stamped by the database as pings came in. The protocol is that of Healthchecks
(healthchecks.io/docs: http_api, measuring_script_run_time, monitoring_cron_jobs).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from server.features.monitors.rules import State


class PingKind(StrEnum):
    """What a ping says. A log says nothing of how the job does; an ignored one came while nobody was to listen."""

    SUCCESS = "success"
    START = "start"
    FAIL = "fail"
    LOG = "log"
    IGNORED = "ignored"


class Cause(StrEnum):
    """Why a heartbeat went down, or came up."""

    MISSED = "missed"
    RAN_TOO_LONG = "ran_too_long"
    FAILED = "failed"
    PINGED = "pinged"


class Status(StrEnum):
    """How a heartbeat does at this moment: its state, and what only the clock tells. `late`: due, and within grace."""

    NEW = "new"
    UP = "up"
    LATE = "late"
    STARTED = "started"
    DOWN = "down"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a job is to be heard of. `next_expected` tells when the next success is due after one.

    `max_runtime` None: a run may take `grace`, and has to end in time, as the protocol has it. With it, the two limits
    are apart: who starts in time is not late while it runs. `since` is when the schedule was last changed.
    """

    next_expected: Callable[[datetime], datetime]
    grace: timedelta
    max_runtime: timedelta | None
    since: datetime

    @property
    def longest_run(self) -> timedelta:
        """How long a run may take from its start ping."""
        return self.grace if self.max_runtime is None else self.max_runtime


@dataclass(frozen=True, slots=True)
class Ping:
    """One ping, the `n`-th of its heartbeat. `duration_ms` is of the run that it ends, where that is known."""

    n: int
    at: datetime
    kind: PingKind
    exit_status: int | None = None
    rid: UUID | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a heartbeat stands after the pings up to number `judged_n`.

    `state` is new, up, down, or unknown while it is paused. `last_ping_at` is of the last success or failure. `leapt`
    is by how much the clock was set since the last success: nobody is silent for an hour that never was. `started_at`
    and `started_rid` are of the run that goes on, None where none does: of the latest start alone, as the protocol has
    it.
    """

    state: State = State.NEW
    judged_n: int = 0
    last_ping_at: datetime | None = None
    last_success_at: datetime | None = None
    leapt: timedelta = timedelta(0)
    last_duration_ms: int | None = None
    started_at: datetime | None = None
    started_rid: UUID | None = None


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a heartbeat goes down unless it is heard of, and why. `expected_at`: by when it should have been."""

    at: datetime
    cause: Cause
    expected_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """A heartbeat is `state` from `at` on. `ping` is the one that says so; where it was silence, `deadline` is."""

    state: State
    at: datetime
    cause: Cause
    opens_incident: bool = False
    closes_incident: bool = False
    ping: Ping | None = None
    deadline: Deadline | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What follows from some pings and the time: where it stands, what has changed on the way, when to look again."""

    standing: Standing
    changes: tuple[Change, ...]
    due_at: datetime | None


def judge(schedule: Schedule, standing: Standing, pings: Sequence[Ping], now: datetime) -> Judgement:
    """Decide what pings and silence mean, in their order; `now` is later than all of them.

    1. A deadline that passed before a ping, or before now, took the heartbeat down when it passed: not when that was
       noticed, and whatever came after it.
    2. A failure takes it down at once. Any success brings it up again.
    3. A start sets a limit to the run. It says nothing of the state.
    """
    changes: list[Change] = []
    for ping in pings:
        standing = _expire(schedule, standing, ping.at, changes)
        standing = replace(_hear(standing, ping, changes), judged_n=ping.n)
    standing = _expire(schedule, standing, now, changes)
    upcoming = deadline(schedule, standing)
    return Judgement(standing, tuple(changes), upcoming.at if upcoming else None)


def deadline(schedule: Schedule, standing: Standing) -> Deadline | None:
    """Return when it goes down if nothing is heard until then; None where nothing is expected, or it is down already.

    A schedule that was changed asks for nothing that lies before the change.
    """
    if standing.state is State.DOWN:
        return None
    limits = []
    if standing.started_at is not None:
        ends_at = standing.started_at + schedule.longest_run
        limits.append(Deadline(ends_at, Cause.RAN_TOO_LONG, ends_at))
    is_running_in_time = standing.started_at is not None and schedule.max_runtime is not None
    expected_at = next_expected(schedule, standing)
    if expected_at is not None and not is_running_in_time:
        limits.append(Deadline(expected_at + schedule.grace, Cause.MISSED, expected_at))
    if not limits:
        return None
    first = min(limits, key=lambda limit: limit.at)
    return replace(first, at=max(first.at, schedule.since))


def next_expected(schedule: Schedule, standing: Standing) -> datetime | None:
    """Return when the next success is due; None before the first one."""
    if standing.last_success_at is None:
        return None
    # Asked of the clock of then: a cron line's time that was leapt over is not one that has passed.
    return schedule.next_expected(standing.last_success_at) + standing.leapt


def status(schedule: Schedule, standing: Standing, is_paused: bool, now: datetime) -> Status:
    """Return how a heartbeat does, whose pings and deadlines up to `now` have been judged."""
    if is_paused:
        return Status.PAUSED
    if standing.started_at is not None:
        return Status.STARTED
    if standing.state is State.DOWN:
        return Status.DOWN
    expected_at = next_expected(schedule, standing)
    if expected_at is None:
        return Status.NEW
    return Status.LATE if expected_at < now else Status.UP


def _expire(schedule: Schedule, standing: Standing, moment: datetime, changes: list[Change]) -> Standing:
    """Return the standing at a moment before which a deadline may have passed.

    A run that takes too long while it is down alerts nobody again, and is given up all the same: else the success of
    another run would bring it up, only to be taken down by what was over before.
    """
    if standing.state is State.DOWN and _has_run_too_long(schedule, standing, moment):
        return replace(standing, started_at=None, started_rid=None)
    passed = deadline(schedule, standing)
    if passed is None or passed.at >= moment:
        return standing
    changes.append(Change(State.DOWN, passed.at, passed.cause, opens_incident=True, deadline=passed))
    return replace(standing, state=State.DOWN, started_at=None, started_rid=None)


def _has_run_too_long(schedule: Schedule, standing: Standing, moment: datetime) -> bool:
    return standing.started_at is not None and standing.started_at + schedule.longest_run < moment


def _hear(standing: Standing, ping: Ping, changes: list[Change]) -> Standing:
    if ping.kind is PingKind.START:
        return replace(standing, started_at=ping.at, started_rid=ping.rid)
    if ping.kind not in (PingKind.SUCCESS, PingKind.FAIL):
        return standing
    heard = replace(standing, last_ping_at=ping.at, last_duration_ms=ping.duration_ms)
    if ping.kind is PingKind.FAIL or ping.rid is None or ping.rid == standing.started_rid:
        # Any other success is of a run that began before the one whose time is taken.
        heard = replace(heard, started_at=None, started_rid=None)
    state = State.DOWN if ping.kind is PingKind.FAIL else State.UP
    if standing.state is not state:
        is_down = state is State.DOWN
        changes.append(
            Change(
                state,
                ping.at,
                Cause.FAILED if is_down else Cause.PINGED,
                opens_incident=is_down,
                closes_incident=standing.state is State.DOWN,
                ping=ping,
            )
        )
    if ping.kind is PingKind.FAIL:
        return replace(heard, state=state)
    return replace(heard, state=state, last_success_at=ping.at, leapt=timedelta(0))

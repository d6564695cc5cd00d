"""Heartbeats: pings and silence in, changes out. A minute is the unit: 0 is noon."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.features.monitors.rules import State
from server.features.pings.rules import (
    Cause,
    Change,
    Ping,
    PingKind,
    Schedule,
    Standing,
    Status,
    deadline,
    judge,
    status,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUN, OTHER_RUN = UUID(int=1), UUID(int=2)
PERIOD, GRACE = 60, 10


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def minute_of(moment: datetime | None) -> float | None:
    return None if moment is None else (moment - NOON) / timedelta(minutes=1)


def schedule(*, max_runtime: float | None = None, period: float = PERIOD, since: float = -10_000) -> Schedule:
    longest = None if max_runtime is None else timedelta(minutes=max_runtime)
    return Schedule(
        lambda success_at: success_at + timedelta(minutes=period), timedelta(minutes=GRACE), longest, at(since)
    )


def pings(*said: tuple[float, str] | tuple[float, str, UUID]) -> list[Ping]:
    return [
        Ping(n, at(each[0]), PingKind(each[1]), rid=each[2] if len(each) > 2 else None)
        for n, each in enumerate(said, 1)
    ]


# What was said and when, until when it is looked at; then what changed and when, and when it is looked at next.
STORIES: dict[str, tuple[Any, float, Any, float | None]] = {
    "a new one is silent for ever": ([], 10_000, [], None),
    "the first success": ([(0, "success")], 1, [(0, "up", "pinged")], 70),
    "in time, again": ([(0, "success"), (65, "success")], 66, [(0, "up", "pinged")], 135),
    "late is no change": ([(0, "success")], 69, [(0, "up", "pinged")], 70),
    "at the deadline itself it is still in time": ([(0, "success"), (70, "success")], 71, [(0, "up", "pinged")], 140),
    "silence": ([(0, "success")], 71, [(0, "up", "pinged"), (70, "down", "missed")], None),
    "silence that nobody noticed for a day": (
        [(0, "success")],
        1_500,
        [(0, "up", "pinged"), (70, "down", "missed")],
        None,
    ),
    "a ping after the deadline, noticed later than both": (
        [(0, "success"), (90, "success")],
        91,
        [(0, "up", "pinged"), (70, "down", "missed"), (90, "up", "pinged")],
        160,
    ),
    "a failure": ([(0, "success"), (5, "fail")], 6, [(0, "up", "pinged"), (5, "down", "failed")], None),
    "a failure at first": ([(0, "fail")], 1, [(0, "down", "failed")], None),
    "fails on, and is down once": ([(0, "fail"), (5, "fail")], 6, [(0, "down", "failed")], None),
    "back after a failure": (
        [(0, "fail"), (5, "success")],
        6,
        [(0, "down", "failed"), (5, "up", "pinged")],
        75,
    ),
    "a log says nothing": ([(0, "log")], 10_000, [], None),
    "a log puts nothing off": ([(0, "success"), (65, "log")], 71, [(0, "up", "pinged"), (70, "down", "missed")], None),
    "what is ignored says nothing": ([(0, "ignored")], 1, [], None),
    "a start alone says nothing of the state": ([(0, "start")], 9, [], 10),
    "a run of a new one that does not end": ([(0, "start")], 11, [(10, "down", "ran_too_long")], None),
    "a run that ends": ([(0, "start"), (8, "success")], 9, [(8, "up", "pinged")], 78),
    "a run has to end in time": (
        [(0, "success"), (65, "start")],
        71,
        [(0, "up", "pinged"), (70, "down", "missed")],
        None,
    ),
    "a run that takes longer than grace, long before it is due": (
        [(0, "success"), (5, "start")],
        16,
        [(0, "up", "pinged"), (15, "down", "ran_too_long")],
        None,
    ),
    "a run that fails": ([(0, "start"), (8, "fail")], 100, [(8, "down", "failed")], None),
    "started anew, the limit is the latest start's": ([(0, "start"), (8, "start")], 9, [], 18),
    "a start while it is down alerts nobody again": ([(0, "fail"), (5, "start")], 100, [(0, "down", "failed")], None),
    "a run that was given up while it was down takes nothing down": (
        [(0, "fail"), (1, "start", RUN), (20, "success", OTHER_RUN)],
        21,
        [(0, "down", "failed"), (20, "up", "pinged")],
        90,
    ),
    "the end of another run leaves the limit": (
        [(0, "start", RUN), (1, "start", OTHER_RUN), (2, "success", RUN)],
        12,
        [(2, "up", "pinged"), (11, "down", "ran_too_long")],
        None,
    ),
    "the end of this run takes it away": (
        [(0, "start", RUN), (1, "start", OTHER_RUN), (2, "success", OTHER_RUN)],
        12,
        [(2, "up", "pinged")],
        72,
    ),
    "an end without a run id ends whatever runs": ([(0, "start", RUN), (2, "success")], 12, [(2, "up", "pinged")], 72),
}
TOLD_APART: dict[str, tuple[Any, float, Any, float | None]] = {
    "who starts in time is not late while it runs": (
        [(0, "success"), (65, "start")],
        90,
        [(0, "up", "pinged")],
        95,
    ),
    "too long": ([(0, "success"), (65, "start")], 96, [(0, "up", "pinged"), (95, "down", "ran_too_long")], None),
    "who does not start is missed": ([(0, "success")], 71, [(0, "up", "pinged"), (70, "down", "missed")], None),
    "the next success is due after the last": ([(0, "start"), (25, "success")], 26, [(25, "up", "pinged")], 95),
}


@pytest.mark.parametrize(("max_runtime", "story"), [(None, s) for s in STORIES] + [(30, s) for s in TOLD_APART])
def test_a_heartbeat_goes_the_way_that_its_story_says(max_runtime, story):
    said, now, changes, due = (STORIES if max_runtime is None else TOLD_APART)[story]

    found = judge(schedule(max_runtime=max_runtime), Standing(), pings(*said), at(now))

    assert [(minute_of(each.at), each.state, each.cause) for each in found.changes] == changes
    assert minute_of(found.due_at) == due


def test_each_outage_opens_an_incident_and_each_recovery_closes_one():
    found = judge(schedule(), Standing(), pings((0, "success"), (90, "success"), (95, "fail")), at(96))

    assert [(each.opens_incident, each.closes_incident) for each in found.changes] == [
        (False, False),  # from new to up is nobody's news
        (True, False),
        (False, True),
        (True, False),
    ]


def test_a_change_tells_what_it_was_decided_from():
    up, down = judge(schedule(), Standing(), pings((0, "success")), at(71)).changes

    assert up.ping is not None and up.ping.n == 1
    assert down.deadline is not None
    assert (minute_of(down.deadline.expected_at), minute_of(down.deadline.at)) == (60, 70)


@pytest.mark.parametrize(("since", "down_at"), [(30, 70), (200, 200)])
def test_a_schedule_that_was_changed_asks_for_nothing_before_the_change(since, down_at):
    standing = Standing(State.UP, last_success_at=at(0))

    found = deadline(schedule(since=since), standing)

    assert found is not None and minute_of(found.at) == down_at


@pytest.mark.parametrize("leapt", [-30, 0, 60])
def test_nobody_is_silent_for_the_time_by_which_a_clock_was_set(leapt):
    standing = Standing(State.UP, last_success_at=at(0), leapt=timedelta(minutes=leapt))

    assert judge(schedule(), standing, [], at(70 + leapt)).standing.state is State.UP
    late = judge(schedule(), standing, [], at(71 + leapt))
    assert [(minute_of(each.at), each.state) for each in late.changes] == [(70 + leapt, "down")]
    again = judge(schedule(), standing, pings((65 + leapt, "success")), at(66 + leapt))
    assert minute_of(again.due_at) == 65 + leapt + 70, "it is of the last success alone"


@pytest.mark.parametrize(
    ("standing", "is_paused", "now", "expected"),
    [
        (Standing(), False, 0, Status.NEW),
        (Standing(State.UP, last_success_at=at(0)), False, 60, Status.UP),
        (Standing(State.UP, last_success_at=at(0)), False, 61, Status.LATE),
        (Standing(State.DOWN, last_success_at=at(0)), False, 71, Status.DOWN),
        (Standing(State.UP, last_success_at=at(0), started_at=at(61)), False, 62, Status.STARTED),
        (Standing(State.NEW, started_at=at(0)), False, 5, Status.STARTED),
        (Standing(State.DOWN, started_at=at(0)), False, 5, Status.STARTED),
        (Standing(State.UNKNOWN), True, 0, Status.PAUSED),
    ],
)
def test_late_and_started_are_told_by_the_clock(standing, is_paused, now, expected):
    assert status(schedule(), standing, is_paused, at(now)) is expected


SAID = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from(list(PingKind)), st.sampled_from([None, RUN, OTHER_RUN])),
    max_size=12,
)
LIMITS = st.sampled_from([None, 5, 30])


def plain_states(said: list[tuple[int, PingKind, UUID | None]], limit: int | None, until: int) -> list[str]:
    """The model: go through the time minute by minute and look what has been said by then."""
    state, success, start, states = "new", None, None, []
    for minute in range(until + 1):
        # What is due at a minute is noticed after it.
        ran = start is not None and minute > start[0] + (GRACE if limit is None else limit)
        is_excused = start is not None and limit is not None
        missed = success is not None and not is_excused and minute > success + PERIOD + GRACE
        if ran or (missed and state != "down"):
            state, start = "down", None
        for spoken_at, kind, rid in said:
            if spoken_at != minute:
                continue
            if kind is PingKind.START:
                start = (minute, rid)
            elif kind is PingKind.SUCCESS:
                state, success = "up", minute
                if start is not None and (rid is None or rid == start[1]):
                    start = None
            elif kind is PingKind.FAIL:
                state, start = "down", None
        states.append(state)
    return states


def states_by_minute(said, limit, until, looks):
    """The same by the rules, judged at each of `looks` by a worker that may have been away between them."""
    standing, heard = Standing(), 0
    changes: list[Change] = []
    timed = pings(*[(minute, kind.value, *([rid] if rid else [])) for minute, kind, rid in said])
    for look in [*looks, until]:
        # Judged half a minute after, so that each ping is either before or after it.
        come = [ping for ping in timed[heard:] if ping.at < at(look + 0.5)]
        heard += len(come)
        found = judge(schedule(max_runtime=limit), standing, come, at(look + 0.5))
        standing, changes = found.standing, [*changes, *found.changes]
    # A change by silence holds after its minute, one by a ping from it on.
    lines = [(each.at if each.ping else each.at + timedelta(seconds=1), each.state) for each in changes]
    return [
        next((state.value for moment, state in reversed(lines) if moment <= at(minute)), "new")
        for minute in range(until + 1)
    ]


@given(said=SAID, limit=LIMITS, looks=st.lists(st.integers(0, 399), max_size=6))
def test_whenever_a_worker_looks_it_comes_to_what_a_plain_model_says(said, limit, looks):
    said = sorted(said, key=lambda each: each[0])

    assert states_by_minute(said, limit, 500, sorted(looks)) == plain_states(said, limit, 500)


@given(said=SAID, limit=LIMITS, now=st.integers(0, 600))
def test_what_a_heartbeat_is_due_for_comes_true_and_not_before(said, limit, now):
    said = sorted(said, key=lambda each: each[0])
    timed = pings(*[(minute, kind.value) for minute, kind, _ in said if minute < now])
    rules = schedule(max_runtime=limit)
    found = judge(rules, Standing(), timed, at(now))
    if found.due_at is None:
        assert judge(rules, found.standing, [], at(10_000)).changes == ()
        return
    assert found.due_at >= at(now)
    assert judge(rules, found.standing, [], found.due_at).changes == ()
    (down,) = judge(rules, found.standing, [], found.due_at + timedelta(microseconds=1)).changes
    assert (down.state, down.at) == (State.DOWN, found.due_at)
    assert down.cause in (Cause.MISSED, Cause.RAN_TOO_LONG)

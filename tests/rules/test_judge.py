"""When a monitor goes down and when it comes back, told as stories.

A story is a line of checks, ten seconds apart unless it says otherwise: `.` success, `s` slow success, `x` failure,
`?` a check that saw nothing for want of a network of our own, and `_` ten minutes in which nobody looked. Beneath it
stands what follows.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from server.features.checks.rules import ErrorKind, Observation, Timings
from server.features.monitors.rules import Policy, Standing, State, Transition, Verdict, judge

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STEP = timedelta(seconds=10)
POLICY = Policy(interval_seconds=10, retry_interval_seconds=10, fail_threshold=2, recover_threshold=1)
NEW, UP, DEGRADED, PENDING, DOWN, UNKNOWN = State


@dataclass
class Told:
    """What a story came to. `states` holds one state a check; offsets are in seconds from the start."""

    states: list[State] = field(default_factory=list)
    ledger: list[tuple[State, int]] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    closed: list[int] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)


def tell(story: str, policy: Policy = POLICY, standing: Standing | None = None) -> Told:
    told, now, standing = Told(), START, standing or Standing()
    for letter in story:
        if letter == "_":
            now += timedelta(minutes=10)
            continue
        verdict = judge(policy, standing, seen(letter, now))
        standing = verdict.standing
        told.states.append(standing.state)
        told.ledger += [(line.state, offset(line.at)) for line in verdict.transitions]
        told.opened += [offset(verdict.opens_incident_since)] if verdict.opens_incident_since else []
        told.closed += [offset(verdict.closes_incident_at)] if verdict.closes_incident_at else []
        told.verdicts.append(verdict)
        now += STEP
    return told


def seen(letter: str, at: datetime) -> Observation:
    if letter == "?":
        return Observation(at, error_kind=ErrorKind.NO_NETWORK, error_detail="no network here")
    if letter == "x":
        return Observation(at, error_kind=ErrorKind.CONNECT, error_detail="refused")
    return Observation(at, Timings(total_ms=900 if letter == "s" else 20), status_code=200)


def offset(at: datetime | None) -> int:
    assert at is not None
    return int((at - START).total_seconds())


@pytest.mark.parametrize(
    ("story", "states", "ledger", "opened", "closed"),
    [
        # the first success is up, and silent
        (".", [UP], [(UP, 0)], [], []),
        # up stays up, and writes nothing more
        ("...", [UP, UP, UP], [(UP, 0)], [], []),
        # one failure is a suspicion that the ledger never hears of
        (".x.", [UP, PENDING, UP], [(UP, 0)], [], []),
        # two in a row are down, since the first of them
        (".xx", [UP, PENDING, DOWN], [(UP, 0), (DOWN, 10)], [10], []),
        # down stays down and opens no second incident
        (".xxxx", [UP, PENDING, DOWN, DOWN, DOWN], [(UP, 0), (DOWN, 10)], [10], []),
        # the first success brings it back, and closes the incident
        (".xx.", [UP, PENDING, DOWN, UP], [(UP, 0), (DOWN, 10), (UP, 30)], [10], [30]),
        # failures count only in a row
        (".x.x.x", [UP, PENDING, UP, PENDING, UP, PENDING], [(UP, 0)], [], []),
        # a monitor that never worked goes down as well, since its first check
        ("xx", [PENDING, DOWN], [(DOWN, 0)], [0], []),
        ("x.", [PENDING, UP], [(UP, 10)], [], []),
        # a check that saw nothing is unknown at once, and no failure, however often
        (".????.", [UP, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UP], [(UP, 0), (UNKNOWN, 10), (UP, 50)], [], []),
        # ... and breaks a suspicion
        (".x?x.", [UP, PENDING, UNKNOWN, PENDING, UP], [(UP, 0), (UNKNOWN, 20), (UP, 40)], [], []),
        # what is down stays down until somebody sees otherwise, though the ledger does not say it of a time unseen
        (
            ".xx?x.",
            [UP, PENDING, DOWN, DOWN, DOWN, UP],
            [(UP, 0), (DOWN, 10), (UNKNOWN, 30), (DOWN, 40), (UP, 50)],
            [10],
            [50],
        ),
        (".xx?.", [UP, PENDING, DOWN, DOWN, UP], [(UP, 0), (DOWN, 10), (UNKNOWN, 30), (UP, 40)], [10], [40]),
        ("?.", [UNKNOWN, UP], [(UNKNOWN, 0), (UP, 10)], [], []),
        # and down again is a new incident
        (".xx.xx", [UP, PENDING, DOWN, UP, PENDING, DOWN], [(UP, 0), (DOWN, 10), (UP, 30), (DOWN, 40)], [10, 40], [30]),
    ],
)
def test_the_life_of_a_monitor(story, states, ledger, opened, closed):
    told = tell(story)
    assert told.states == states
    assert told.ledger == ledger
    assert (told.opened, told.closed) == (opened, closed)


@pytest.mark.parametrize("threshold", [1, 2, 3, 5])
def test_it_takes_fail_threshold_failures_in_a_row(threshold):
    told = tell("." + "x" * threshold, Policy(10, 10, fail_threshold=threshold))
    assert told.states[threshold] is DOWN
    assert DOWN not in told.states[:threshold]
    assert told.opened == [10], "since the first failure, however many it took"


def test_it_takes_recover_threshold_successes_in_a_row_and_counts_from_the_first():
    told = tell(".xx.x...", Policy(10, 10, fail_threshold=2, recover_threshold=3))
    assert told.states == [UP, PENDING, DOWN, DOWN, DOWN, DOWN, DOWN, UP]
    assert told.ledger == [(UP, 0), (DOWN, 10), (UP, 50)]
    assert told.closed == [50]


def test_slow_is_degraded_where_it_was_asked_for():
    careful = Policy(10, 10, degraded_after_ms=500)
    told = tell("..ss.", careful)
    assert told.states == [UP, UP, DEGRADED, DEGRADED, UP]
    assert told.ledger == [(UP, 0), (DEGRADED, 20), (UP, 40)]
    assert told.opened == [], "slow is not down"
    assert tell("..ss.").states == [UP] * 5, "nobody asked"


@pytest.mark.parametrize(("total_ms", "state"), [(499.9, UP), (500, UP), (500.1, DEGRADED), (None, UP)])
def test_slow_is_slower_than_the_limit(total_ms, state):
    answer = Observation(START, Timings(total_ms=total_ms), status_code=200)
    assert judge(Policy(10, 10, degraded_after_ms=500), Standing(), answer).standing.state is state


def test_a_suspicion_while_degraded_comes_back_as_what_the_answer_is():
    careful = Policy(10, 10, degraded_after_ms=500)
    assert tell("sxs", careful).ledger == [(DEGRADED, 0)]
    assert tell("sx.", careful).ledger == [(DEGRADED, 0), (UP, 20)]
    assert tell("xxs", careful).ledger == [(DOWN, 0), (DEGRADED, 20)]


def test_a_time_in_which_nobody_looked_is_unknown_and_never_down():
    told = tell("._.")
    assert told.ledger == [(UP, 0), (UNKNOWN, 10), (UP, 610)]
    assert told.states == [UP, UP]


@pytest.mark.parametrize(("interval", "longest"), [(5, 75), (10, 90), (3600, 10_860)])
def test_a_hole_is_longer_than_three_intervals_and_a_minute(interval, longest):
    policy = Policy(interval, 5)
    standing = tell(".", policy).verdicts[-1].standing
    late = START + timedelta(seconds=longest)
    assert judge(policy, standing, seen(".", late)).transitions == (), "a missing check or two is none"
    lines = judge(policy, standing, seen(".", late + timedelta(milliseconds=1))).transitions
    assert [(line.state, offset(line.at)) for line in lines] == [(UNKNOWN, interval), (UP, longest)]


HOURLY = Policy(interval_seconds=3600, retry_interval_seconds=10)


def test_a_shorter_interval_makes_no_hole_of_the_time_before_it():
    hourly = tell(".", HOURLY).verdicts[-1].standing
    half_an_hour_later = judge(POLICY, hourly, seen(".", START + timedelta(minutes=30)))
    assert half_an_hour_later.transitions == (), "it was watched as it was asked for"


def test_a_longer_interval_hides_no_hole_from_before_it():
    every_ten_seconds = tell(".").verdicts[-1].standing
    half_an_hour_later = judge(HOURLY, every_ten_seconds, seen(".", START + timedelta(minutes=30)))
    assert [(line.state, offset(line.at)) for line in half_an_hour_later.transitions] == [(UNKNOWN, 10), (UP, 1800)]


def test_a_hole_breaks_a_streak_of_failures():
    told = tell(".x_x")
    assert told.states == [UP, PENDING, PENDING], "a failure of ten minutes ago confirms nothing"
    assert told.opened == []
    assert tell(".x_xx").opened == [620]


def test_a_hole_breaks_a_streak_even_of_a_monitor_that_has_no_history():
    assert tell("x_x").states == [PENDING, PENDING]


def test_down_before_a_hole_and_down_after_it_is_one_incident():
    told = tell(".xx_x.")
    assert told.ledger == [(UP, 0), (DOWN, 10), (UNKNOWN, 30), (DOWN, 630), (UP, 640)]
    assert (told.opened, told.closed) == ([10], [640])


def test_down_before_a_hole_and_up_after_it_closes_the_incident():
    told = tell(".xx_.")
    assert told.ledger == [(UP, 0), (DOWN, 10), (UNKNOWN, 30), (UP, 630)]
    assert told.closed == [630]


def test_recovering_across_a_hole_stays_down_until_the_threshold():
    told = tell(".xx_..", Policy(10, 10, recover_threshold=2))
    assert told.states[-2:] == [DOWN, UP]
    assert told.ledger == [(UP, 0), (DOWN, 10), (UNKNOWN, 30), (DOWN, 630), (UP, 630)]
    assert told.closed == [630]


def test_coming_up_from_a_pause_is_silent():
    resumed = Standing(state=NEW, ledger_state=UNKNOWN)
    told = tell(".", standing=resumed)
    assert told.ledger == [(UP, 0)]
    assert (told.opened, told.closed) == ([], [])


def test_the_state_is_dated_as_the_ledger_is():
    told = tell(".x.xx.")
    since = [offset(verdict.state_since) for verdict in told.verdicts]
    assert since == [0, 10, 20, 30, 30, 50]


def test_transitions_say_why():
    causes = [line.cause for verdict in tell(".xx._.").verdicts for line in verdict.transitions]
    assert causes == ["answered", "fail_threshold_reached", "recover_threshold_reached", "not_observed", "answered"]
    assert all(isinstance(line, Transition) for verdict in tell(".xx.").verdicts for line in verdict.transitions)
    slow = tell("s", Policy(10, 10, degraded_after_ms=500)).verdicts[0].transitions
    assert [line.cause for line in slow] == ["slow"]
    returning = tell("xx_xx_..", Policy(10, 10, recover_threshold=2))
    assert [line.cause for verdict in returning.verdicts for line in verdict.transitions] == [
        "fail_threshold_reached",
        "not_observed",
        "still_failing",
        "not_observed",
        "recovering",
        "recover_threshold_reached",
    ]


def test_the_third_time_down_within_an_hour_is_flapping_and_then_it_takes_five_successes_to_come_back():
    told = tell(".xx.xx.xx....x.....", Policy(10, 10))
    assert told.opened == [10, 40, 70]
    assert told.closed == [30, 60, 140], "one incident stays open through the wobble"
    assert [verdict.flapping for verdict in told.verdicts[7:9]] == [False, True]
    assert told.states[9:13] == [DOWN] * 4


def test_what_flapped_an_hour_ago_flaps_no_more():
    hour_ago = tuple(START - timedelta(minutes=60 + n) for n in range(3))
    lately = tuple(START - timedelta(minutes=50 + n) for n in range(3))
    for recent_downs, expected in ((hour_ago, UP), (lately, DOWN)):
        standing = Standing(DOWN, DOWN, failures=2, streak_since=START - STEP, recent_downs=recent_downs)
        assert tell(".", POLICY, standing).states == [expected]


def test_a_threshold_that_asks_for_more_is_not_lowered_by_flapping():
    downs = tuple(START - timedelta(minutes=n) for n in (1, 2, 3))
    standing = Standing(DOWN, DOWN, failures=2, streak_since=START - STEP, recent_downs=downs)
    told = tell("......" + ".", Policy(10, 10, recover_threshold=7), standing)
    assert told.states == [DOWN] * 6 + [UP]

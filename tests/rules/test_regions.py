"""What several regions mean together, told as tables and held against a plain model.

A region is written as a letter: `u` up, `s` slow (degraded), `d` down, `p` pending, `n` never looked, `?` saw nothing,
`-` not connected any more (it was up, and has not looked for more than three intervals).
"""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.features.monitors.rules import Standing, State, agree

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
INTERVAL_SECONDS = 60
STATES = {
    "u": State.UP,
    "s": State.DEGRADED,
    "d": State.DOWN,
    "p": State.PENDING,
    "n": State.NEW,
    "?": State.UNKNOWN,
    "-": State.UP,
}


def regions(letters: str, streak_minutes: int = 4) -> list[Standing]:
    """Let each region have looked a second after the one before it, and its streak have begun so long before that."""
    standings = []
    for place, letter in enumerate(letters):
        looked_at = AT - timedelta(seconds=len(letters) - 1 - place)
        if letter == "-":
            looked_at = AT - timedelta(seconds=3 * INTERVAL_SECONDS + 1)
        standings.append(
            Standing(
                STATES[letter],
                streak_since=looked_at - timedelta(minutes=streak_minutes),
                last_observed_at=None if letter == "n" else looked_at,
                last_interval_seconds=None if letter == "n" else INTERVAL_SECONDS,
            )
        )
    return standings


def whole(state: State, ledger_state: State | None = None) -> Standing:
    known = state if state in (State.UP, State.DEGRADED, State.DOWN, State.UNKNOWN) else None
    return Standing(state, ledger_state or known, last_observed_at=AT - timedelta(seconds=30), last_interval_seconds=60)


@pytest.mark.parametrize(
    ("letters", "was", "becomes"),
    [
        ("uuu", State.NEW, State.UP),
        ("ddd", State.UP, State.DOWN),
        ("ddu", State.UP, State.DOWN),  # most say so
        ("duu", State.UP, State.UP),  # one region's trouble is its own
        ("du", State.UP, State.PENDING),  # a tie is no majority
        ("du", State.DOWN, State.DOWN),  # ... in neither direction
        ("duu", State.DOWN, State.UP),
        ("dduu", State.UP, State.PENDING),
        ("ssu", State.UP, State.DEGRADED),
        ("suu", State.DEGRADED, State.UP),
        ("sud", State.UP, State.UP),
        ("dpu", State.UP, State.PENDING),  # two of three fail, one of them for the first time
        ("d", State.UP, State.DOWN),
        ("d--", State.UP, State.DOWN),  # who has not looked for three intervals has no voice
        ("d-u", State.UP, State.PENDING),
        ("dnn", State.UP, State.DOWN),  # nor has who never looked
        ("d??", State.UP, State.DOWN),  # nor who had no network of its own
        ("?", State.UP, State.UNKNOWN),
        ("?-n", State.UP, State.UNKNOWN),  # nobody is connected
        ("?-n", State.DOWN, State.DOWN),  # what is down stays so until somebody sees otherwise
    ],
)
def test_a_strict_majority_of_the_connected_regions_decides(letters: str, was: State, becomes: State):
    assert agree(whole(was), regions(letters), AT).standing.state is becomes


@pytest.mark.parametrize(
    ("letters", "was", "becomes"),
    [
        ("d--", State.UP, State.PENDING),  # it may be that region's own trouble: the others are asked first
        ("dnn", State.NEW, State.PENDING),
        ("dd-", State.UP, State.DOWN),  # most of all say so
        ("u--", State.DOWN, State.DOWN),  # it may be the only region that reaches it
        ("uu-", State.DOWN, State.UP),
        ("u--", State.UP, State.UP),  # nobody is told of that
    ],
)
def test_after_a_time_unknown_nobody_is_told_by_one_region_before_the_others_had_their_turn(
    letters: str, was: State, becomes: State
):
    fresh = regions(letters, streak_minutes=2)
    assert agree(whole(was, State.UNKNOWN), fresh, AT).standing.state is becomes


@pytest.mark.parametrize(("letters", "was", "becomes"), [("d--", State.UP, State.DOWN), ("u--", State.DOWN, State.UP)])
def test_who_has_not_looked_for_three_intervals_is_waited_for_no_longer(letters: str, was: State, becomes: State):
    assert agree(whole(was, State.UNKNOWN), regions(letters, streak_minutes=4), AT).standing.state is becomes


def test_it_is_down_since_so_many_regions_fail_that_they_are_most():
    verdict = agree(whole(State.UP), regions("uddd"), AT)
    second_streak = regions("uddd")[2].streak_since
    third_streak = regions("uddd")[3].streak_since
    assert third_streak is not None
    assert second_streak is not None
    assert verdict.opens_incident_since == third_streak
    assert [(line.state, line.at, line.cause) for line in verdict.transitions] == [
        (State.DOWN, third_streak, "majority_down")
    ]


def test_it_comes_back_since_so_many_regions_see_it_that_they_are_most():
    verdict = agree(whole(State.DOWN), regions("duu"), AT)
    assert verdict.closes_incident_at == regions("duu")[2].streak_since
    assert verdict.opens_incident_since is None


def test_nobody_connected_is_unknown_in_the_ledger_and_opens_nothing():
    verdict = agree(whole(State.UP), regions("?"), AT)
    assert [(line.state, line.cause) for line in verdict.transitions] == [(State.UNKNOWN, "no_region")]
    assert verdict.opens_incident_since is None


def test_a_time_in_which_no_region_looked_is_a_hole():
    long_ago = Standing(State.UP, State.UP, last_observed_at=AT - timedelta(hours=1), last_interval_seconds=60)
    lines = agree(long_ago, regions("u"), AT).transitions
    assert [(line.state, line.at) for line in lines] == [
        (State.UNKNOWN, AT - timedelta(minutes=59)),
        (State.UP, AT),
    ]


def test_a_look_from_before_a_hole_that_arrives_after_it_does_not_fill_the_hole():
    """Nobody looked for ten minutes; one region has just looked again, and now an old look of another comes in."""
    before, begun = AT - timedelta(minutes=10), AT - timedelta(minutes=30)
    slow, silent = (Standing(State.DOWN, None, 9, 0, begun, before, INTERVAL_SECONDS) for _ in range(2))
    back = Standing(State.DOWN, None, 1, 0, AT, AT, INTERVAL_SECONDS)
    is_down = Standing(State.DOWN, State.UNKNOWN, last_observed_at=AT, last_interval_seconds=INTERVAL_SECONDS)
    verdict = agree(is_down, [slow, silent, back], before)
    assert (verdict.standing.state, verdict.transitions) == (State.DOWN, ())


@given(
    letters=st.text("usdpn?-", min_size=1, max_size=7),
    was=st.sampled_from(list(State)),
    after_unknown=st.booleans(),
    streak_minutes=st.sampled_from([1, 4]),
)
def test_it_is_what_counting_voices_says(letters: str, was: State, after_unknown: bool, streak_minutes: int):
    before = whole(was, State.UNKNOWN if after_unknown else None)
    voices = [letter for letter in letters if letter in "usdp"]
    downs, ups = voices.count("d"), voices.count("u") + voices.count("s")
    must_be_most_of_all = before.ledger_state in (None, State.UNKNOWN) and streak_minutes == 1

    def tells(count: int) -> bool:
        return 2 * count > (len(letters) if must_be_most_of_all else len(voices))

    is_up = State.DEGRADED if 2 * voices.count("s") > len(voices) else State.UP
    if not voices:
        expected = State.DOWN if was is State.DOWN else State.UNKNOWN
    elif tells(downs):
        expected = State.DOWN
    elif tells(ups) or (2 * ups > len(voices) and was is not State.DOWN):
        expected = is_up
    else:
        expected = State.DOWN if was is State.DOWN else State.PENDING
    verdict = agree(before, regions(letters, streak_minutes), AT)
    assert verdict.standing.state is expected
    assert (verdict.opens_incident_since is not None) == (expected is State.DOWN and was is not State.DOWN)
    assert (verdict.closes_incident_at is not None) == (was is State.DOWN and expected in (State.UP, State.DEGRADED))
    assert all(line.at <= AT for line in verdict.transitions)

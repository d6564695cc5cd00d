"""`judge` against a plain model, over any story: what it writes is whole, and it says `down` exactly when it should."""

from datetime import datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server.features.monitors.rules import Policy, Standing, State, judge
from tests.rules.test_judge import START, seen

POLICIES = st.builds(
    Policy,
    interval_seconds=st.sampled_from([5, 10, 60, 3600]),
    retry_interval_seconds=st.just(5),
    fail_threshold=st.integers(1, 4),
    recover_threshold=st.integers(1, 4),
    degraded_after_ms=st.sampled_from([None, 500]),
)
# Each check: what was seen, and how many intervals after the one before; a hundred of them is a hole for any policy.
STORIES = st.lists(st.tuples(st.sampled_from(".sx"), st.sampled_from([1, 1, 1, 2, 100])), max_size=40)


def at_each(policy: Policy, story: list[tuple[str, int]]) -> list[tuple[str, bool, datetime]]:
    now, checks = START, []
    for letter, intervals in story:
        now += timedelta(seconds=policy.interval_seconds * intervals)
        checks.append((letter, intervals == 100, now))
    return checks


@given(policy=POLICIES, story=STORIES)
def test_what_is_written_is_a_ledger_and_a_row_of_incidents(policy: Policy, story: list[tuple[str, int]]):
    standing, ledger, incidents = Standing(), [], []
    for letter, _, now in at_each(policy, story):
        verdict = judge(policy, standing, seen(letter, now))
        standing = verdict.standing
        ledger += list(verdict.transitions)
        if verdict.opens_incident_since:
            incidents.append(("open", verdict.opens_incident_since))
        if verdict.closes_incident_at:
            incidents.append(("close", verdict.closes_incident_at))
        assert verdict.state_since <= now
        assert all(line.at <= now for line in verdict.transitions)
    assert all(before.at <= after.at for before, after in pairwise(ledger)), "time runs forwards"
    assert all(before.state is not after.state for before, after in pairwise(ledger)), "a line is a change"
    assert {line.state for line in ledger} <= {State.UP, State.DEGRADED, State.DOWN, State.UNKNOWN}
    kinds = [kind for kind, _ in incidents]
    assert kinds == ["open", "close"] * (len(incidents) // 2) + ["open"] * (len(incidents) % 2)
    assert all(before <= after for (_, before), (_, after) in pairwise(incidents))
    assert (standing.state is State.DOWN) == (len(incidents) % 2 == 1)
    if ledger:
        assert standing.ledger_state is ledger[-1].state


@given(policy=POLICIES, story=STORIES)
def test_it_is_down_exactly_after_enough_failures_in_a_row_until_enough_successes(policy: Policy, story):
    standing, down, failures, successes = Standing(), False, 0, 0
    since, downs = START, list[datetime]()
    for letter, after_hole, now in at_each(policy, story):
        if after_hole and standing.last_observed_at is not None:
            failures = successes = 0
        failures, successes = (failures + 1, 0) if letter == "x" else (0, successes + 1)
        since = now if failures + successes == 1 else since
        flaps = sum(now - went_down < timedelta(hours=1) for went_down in downs) >= 3
        if not down and failures >= policy.fail_threshold:
            down = True
            downs.append(since)
        elif down and successes >= (max(5, policy.recover_threshold) if flaps else policy.recover_threshold):
            down = False
        standing = judge(policy, standing, seen(letter, now)).standing
        assert (standing.state is State.DOWN) == down
        assert (standing.state is State.PENDING) == (not down and letter == "x")
        assert (standing.failures, standing.successes) == (failures, successes)

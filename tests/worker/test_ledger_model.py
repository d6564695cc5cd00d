"""What workers decide, over any story of looks, deaths, late verdicts and clocks that jump: the ledger that results.

`Books` is the database as far as the rules need it: leases, the open line, and a clock that may be set. What it holds
of SQL is tried in tests/stack/test_regions.py and test_ledger.py.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from server.features.checks.rules import ErrorKind, Observation, Timings
from server.features.monitors.rules import State
from server.worker.claims import ClaimedCheck, Seen
from tests.worker.fakes import NOW, make_check

INTERVAL = timedelta(seconds=10)
HOLE = 3 * INTERVAL + timedelta(seconds=60)
LEASE = timedelta(seconds=30)
HOUR = timedelta(hours=1)


@dataclass
class Line:
    """A line of the ledger; `ended_at` None: the open one."""

    state: State
    started_at: datetime
    cause: str
    ended_at: datetime | None = None

    def overlaps(self, since: datetime, until: datetime) -> bool:
        """Tell whether it says something of a time from `since` to before `until`."""
        return self.started_at < until and (self.ended_at is None or self.ended_at > since)


@dataclass
class Region:
    """One region's schedule."""

    known: dict[str, Any]
    lease: UUID | None = None
    lease_until: datetime = NOW


@dataclass
class Books:
    """One monitor, and what is written of it."""

    regions: dict[str, Region]
    fail_threshold: int
    now: datetime = NOW
    told_at: datetime = NOW
    state: State = State.NEW
    ledger: list[Line] = field(default_factory=list)
    incidents: list[datetime | None] = field(default_factory=list)  # when each began; the last one is open or None
    looks: list[tuple[datetime, str]] = field(default_factory=list)

    def claim(self, name: str) -> ClaimedCheck | None:
        """Lend a check of one region; None where it is lent already."""
        self._notice_clock()
        region = self.regions[name]
        if region.lease is not None and region.lease_until >= self.now:
            return None
        region.lease, region.lease_until = uuid4(), self.now + LEASE
        return make_check(
            lease_token=region.lease,
            interval_seconds=INTERVAL.seconds,
            retry_interval_seconds=5,
            fail_threshold=self.fail_threshold,
            state=self.state,
            ledger_state=self._ledger_state(),
            recent_downs=[],
            judged_from=self._judged_from(name),
            **region.known,
        )

    def record(self, name: str, claimed: ClaimedCheck, letter: str, started_at: datetime) -> None:
        """Write what was seen, unless the lease is another's by now; judged anew from what the others say by now."""
        region = self.regions[name]
        if region.lease != claimed.lease_token:
            return
        judged_from = self._judged_from(name)
        decision = Seen(
            claimed.model_copy(update={"judged_from": judged_from}), seen(letter, started_at), uuid4(), self.now
        ).decide()
        for line in decision.whole.transitions:
            self._write(line.state, line.at, line.cause)
        self.state = decision.whole.standing.state
        if decision.whole.opens_incident_since:
            assert not self.is_down(), "there is one already"
            self.incidents.append(decision.whole.opens_incident_since)
        if decision.whole.closes_incident_at:
            assert self.is_down(), "there is none"
            self.incidents.append(None)
        after = decision.region
        region.lease = None
        region.known = {
            "region_state": after.state,
            "failures": after.failures,
            "successes": after.successes,
            "streak_since": after.streak_since,
            "last_observed_at": started_at,
            "last_interval_seconds": after.last_interval_seconds,
        }
        self.looks.append((started_at, letter))

    def is_down(self) -> bool:
        """Tell whether an incident is open."""
        return bool(self.incidents) and self.incidents[-1] is not None

    def _write(self, state: State, at: datetime, cause: str) -> None:
        assert at <= max(self.now, self.told_at), "no line begins in a time that is yet to come"
        if self.ledger and at > self.ledger[-1].started_at:
            self.ledger[-1].ended_at = at
        elif self.ledger:
            at = self.ledger.pop().started_at
            if self.ledger and self.ledger[-1].state is state:
                self.ledger[-1].ended_at = None
                return
        self.ledger.append(Line(state, at, cause))

    def _ledger_state(self) -> State | None:
        return self.ledger[-1].state if self.ledger else None

    def _judged_from(self, name: str) -> dict[str, Any] | None:
        if len(self.regions) == 1:
            return None
        peers = [
            {
                "region": other,
                "state": peer.known.get("region_state", State.NEW),
                **{
                    what: peer.known.get(what) for what in ("streak_since", "last_observed_at", "last_interval_seconds")
                },
            }
            for other, peer in self.regions.items()
            if other != name
        ]
        return {"state": self.state, "ledger_state": self._ledger_state(), "peers": peers}

    def _notice_clock(self) -> None:
        if self.now < self.told_at - timedelta(seconds=20):
            for region in self.regions.values():
                region.lease = None
                for what in ("last_observed_at", "streak_since"):
                    if region.known.get(what):
                        region.known[what] = min(region.known[what], self.now)
        self.told_at = self.now


def seen(letter: str, at: datetime) -> Observation:
    if letter == ".":
        return Observation(at, Timings(total_ms=20), status_code=200)
    return Observation(at, error_kind=ErrorKind.CONNECT if letter == "x" else ErrorKind.NO_NETWORK)


NAMES = ("ap", "eu", "us")
LETTERS = st.sampled_from("..xx?")
STEPS = st.one_of(
    st.tuples(st.just("look"), st.sampled_from(NAMES), LETTERS),
    st.tuples(st.just("look"), st.sampled_from(NAMES), LETTERS),
    st.tuples(st.just("look slowly"), st.sampled_from(NAMES), LETTERS),
    st.tuples(st.just("die"), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.just("arrive"), st.just(""), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from((1, 5, 10, 31, 200)), st.just("")),
    st.tuples(st.just("jump"), st.sampled_from((-1, 1)), st.just("")),
)


def tell(books: Books, story: list[tuple[str, Any, str]]) -> None:
    """Let a story happen; with one region every name is that one's."""
    under_way: list[tuple[str, ClaimedCheck, str, datetime]] = []
    for what, which, letter in story:
        books.now += timedelta(seconds=1)
        if what == "wait":
            books.now += timedelta(seconds=which)
        elif what == "jump":
            books.now += which * HOUR
        elif what == "arrive":
            for late in under_way:
                books.record(*late)
            under_way = []
        else:
            name = which if which in books.regions else next(iter(books.regions))
            claimed = books.claim(name)
            if claimed is None or what == "die":
                continue
            if what == "look":
                books.record(name, claimed, letter, books.now)
            else:
                under_way.append((name, claimed, letter, books.now))


@given(names=st.sampled_from([("",), NAMES]), fail_threshold=st.integers(1, 3), story=st.lists(STEPS, max_size=60))
def test_the_ledger_is_whole_and_says_nothing_of_a_time_unseen(
    names: tuple[str, ...], fail_threshold: int, story: list[tuple[str, Any, str]]
):
    books = Books({name: Region({}) for name in names}, fail_threshold)
    tell(books, story)
    for before, after in pairwise(books.ledger):
        assert before.ended_at == after.started_at, "no line overlaps the next, and none leaves a hole"
        assert before.started_at < after.started_at
        assert before.state is not after.state
    if not books.looks:
        return
    last_look_at, looks = books.looks[-1][0], sorted(books.looks)
    for (before_at, _), (after_at, _) in pairwise(looks):
        if after_at - before_at > HOLE and after_at <= last_look_at:
            said = {line.state for line in books.ledger if line.overlaps(before_at + INTERVAL, after_at)}
            assert said <= {State.UNKNOWN}, f"nobody looked from {before_at} to {after_at}"
    for line in books.ledger:
        if line.state is State.DOWN and line.cause != "recovering" and line.started_at <= last_look_at:
            assert any(letter == "x" and line.overlaps(at, at + HOLE) for at, letter in looks)


@given(
    rounds=st.lists(
        st.tuples(st.permutations(NAMES), st.sampled_from((None, None, 0, 1, 2)), st.sampled_from((-1, 1))),
        max_size=20,
    ),
    fail_threshold=st.integers(1, 2),
)
def test_what_one_region_alone_cannot_reach_is_never_down_whenever_the_clock_jumps(rounds, fail_threshold: int):
    """In each round every region looks once, in any order, and the clock jumps before the one of that place."""
    books = Books({name: Region({}) for name in NAMES}, fail_threshold)
    for order, jumps_before, hours in rounds:
        for place, name in enumerate(order):
            books.now += timedelta(seconds=2) + (hours * HOUR if place == jumps_before else timedelta())
            claimed = books.claim(name)
            assert claimed is not None
            books.record(name, claimed, "x" if name == "ap" else ".", books.now)
        assert books.incidents == []
        assert State.DOWN not in {line.state for line in books.ledger}

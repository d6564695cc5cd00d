"""What a worker was lent, and what it makes of it: documents of the database in the rules' types."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from server.features.checks.rules import Observation
from server.features.monitors.rules import Policy, Standing, State, Verdict, agree, judge
from server.probes.check import Check
from server.probes.kinds import read_check


class Peer(BaseModel, frozen=True):
    """What another region thinks of a monitor."""

    region: str
    state: State
    streak_since: AwareDatetime | None
    last_observed_at: AwareDatetime | None
    last_interval_seconds: int | None

    @property
    def standing(self) -> Standing:
        """The same for the rules."""
        return Standing(
            self.state,
            streak_since=self.streak_since,
            last_observed_at=self.last_observed_at,
            last_interval_seconds=self.last_interval_seconds,
        )


class _JudgedFrom(BaseModel):
    state: State
    ledger_state: State | None
    peers: list[Peer]


class ClaimedCheck(BaseModel, frozen=True):
    """A check that is due, leased to this worker. `judged_from` is None where no other region takes part."""

    monitor_id: UUID
    lease_token: UUID
    due_at: AwareDatetime
    kind: str
    target: str
    options: dict[str, Any] = Field(repr=False)  # may hold a password
    assertions: list[str]
    interval_seconds: int
    timeout_seconds: int
    retry_interval_seconds: int
    fail_threshold: int
    recover_threshold: int
    degraded_after_ms: int | None
    state: State
    flapping: bool
    ledger_state: State | None
    recent_downs: tuple[AwareDatetime, ...]
    region_state: State
    failures: int
    successes: int
    streak_since: AwareDatetime | None
    last_observed_at: AwareDatetime | None
    last_interval_seconds: int | None
    judged_from: dict[str, Any] | None

    @property
    def check(self) -> Check:
        """What to do. Raises ValueError where this worker cannot make sense of it."""
        return read_check(self.kind, self.target, self.timeout_seconds, self.options, self.assertions)

    @property
    def policy(self) -> Policy:
        """How to judge it."""
        return Policy(
            self.interval_seconds,
            self.retry_interval_seconds,
            self.fail_threshold,
            self.recover_threshold,
            self.degraded_after_ms,
        )

    @property
    def standing(self) -> Standing:
        """Where it stands before this check; where several regions decide, where this one of them does."""
        alone = self.judged_from is None
        return Standing(
            self.state if alone else self.region_state,
            self.ledger_state if alone else None,
            self.failures,
            self.successes,
            self.streak_since,
            self.last_observed_at,
            self.last_interval_seconds,
            self.recent_downs,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """What a check came to: where this region stands now, what is said of the monitor, and what the others think."""

    region: Standing
    whole: Verdict
    peers: tuple[Peer, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """A check that has been made. `result_id` stays the same however often it is written; `ended_at` is when."""

    claimed: ClaimedCheck
    observation: Observation
    result_id: UUID
    ended_at: datetime

    def decide(self) -> Decision:
        """Judge it, with what the other regions think where they take part."""
        claimed = self.claimed
        verdict = judge(claimed.policy, claimed.standing, self.observation)
        if claimed.judged_from is None:
            return Decision(verdict.standing, verdict)
        shared = _JudgedFrom.model_validate(claimed.judged_from)
        peers = [peer.standing for peer in shared.peers]
        looks = [
            (region.last_observed_at, region.last_interval_seconds)
            for region in (claimed.standing, *peers)
            if region.last_observed_at is not None
        ]
        last_observed_at, last_interval_seconds = max(looks, key=lambda look: look[0], default=(None, None))
        whole = Standing(
            shared.state,
            shared.ledger_state,
            last_observed_at=last_observed_at,
            last_interval_seconds=last_interval_seconds,
            recent_downs=claimed.recent_downs,
        )
        agreed = agree(whole, [verdict.standing, *peers], self.observation.started_at)
        return Decision(verdict.standing, agreed, tuple(shared.peers))


class ClaimedDelivery(BaseModel, frozen=True):
    """A message that is due, leased to this worker at the database's `claimed_at`. `attempts` counts this one."""

    id: UUID
    lease_token: UUID
    kind: Literal["webhook"]
    url: str
    secret: str = Field(repr=False)
    payload: dict[str, Any]
    attempts: int
    claimed_at: AwareDatetime

"""A heartbeat as the database tells of it, in the rules' types: for the worker, and for readers, who do not wait.

The document is that of private.heartbeat_documents.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel

from server.features.monitors.rules import State
from server.features.pings.rules import Judgement, Ping, PingKind, Schedule, Standing, judge
from server.probes.heartbeat import HeartbeatOptions, next_expected


class UnjudgedPing(BaseModel, frozen=True):
    """A ping that came since the heartbeat was judged."""

    n: int
    received_at: AwareDatetime
    kind: PingKind
    exit_status: int | None
    rid: UUID | None
    duration_ms: int | None

    @property
    def ping(self) -> Ping:
        """The same for the rules."""
        return Ping(self.n, self.received_at, self.kind, self.exit_status, self.rid, self.duration_ms)


class Heartbeat(BaseModel, frozen=True):
    """A heartbeat, where it stood when it was judged, and its next pings. `n` is the number of the last that came."""

    monitor_id: UUID
    options: dict[str, Any]
    paused: bool
    state: State
    state_since: AwareDatetime
    n: int
    judged_n: int
    last_ping_at: AwareDatetime | None
    last_success_at: AwareDatetime | None
    leapt_seconds: float
    last_duration_ms: int | None
    started_at: AwareDatetime | None
    started_rid: UUID | None
    schedule_since: AwareDatetime
    pings: Sequence[UnjudgedPing]

    @property
    def schedule(self) -> Schedule:
        """How often it is to be heard of. Raises ValueError where its options make no sense."""
        options = HeartbeatOptions.model_validate(self.options)
        longest = options.max_runtime_seconds
        return Schedule(
            next_expected(options),
            timedelta(seconds=options.grace_seconds),
            None if longest is None else timedelta(seconds=longest),
            self.schedule_since,
        )

    @property
    def standing(self) -> Standing:
        """Where it stood when it was judged."""
        return Standing(
            self.state,
            self.judged_n,
            self.last_ping_at,
            self.last_success_at,
            timedelta(seconds=self.leapt_seconds),
            self.last_duration_ms,
            self.started_at,
            self.started_rid,
        )

    def judge(self, now: AwareDatetime) -> Judgement:
        """Judge its pings, and its silence until `now`; where more came than it holds, until the last of them."""
        pings = [each.ping for each in self.pings]
        if pings and pings[-1].n < self.n:
            now = pings[-1].at
        return judge(self.schedule, self.standing, pings, now)

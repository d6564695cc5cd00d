"""The worker's two calls for heartbeats: what is due, and what was judged of it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel

from server.data.privileged import Privileged
from server.features.pings.rules import Cause, Change, Judgement
from server.probes.heartbeat_standing import Heartbeat
from server.worker.store import read_answer, read_claims, spell

RULE_VERSION = "heartbeat/1"


class ClaimedHeartbeat(Heartbeat, frozen=True):
    """A heartbeat of which something was heard, or nothing for too long, leased to this worker."""

    lease_token: UUID


class _Claimed(BaseModel):
    now: AwareDatetime
    heartbeats: list[dict[str, Any]]


class _Recorded(BaseModel):
    counted: int


class _Moved(BaseModel):
    moved: bool


@dataclass(frozen=True, slots=True)
class Beats:
    """What was claimed, and the database's time: every ping that is not among them came later."""

    now: datetime
    heartbeats: list[ClaimedHeartbeat]


class HeartbeatStore:
    """Blocking calls, as the WorkerStore's are."""

    def __init__(self, privileged: Privileged) -> None:
        self._privileged = privileged

    def claim(self, max_heartbeats: int, lease_seconds: int, hesitate_seconds: int) -> Beats:
        """Lease up to `max_heartbeats` that are due; none until so long after a time in which nobody asked."""
        answer = self._privileged.claim_heartbeats(max_heartbeats, lease_seconds, hesitate_seconds)
        claimed = read_answer(_Claimed, answer)
        return Beats(claimed.now, read_claims(ClaimedHeartbeat, claimed.heartbeats))

    def move(self, noticed_at: datetime, leap: timedelta) -> bool:
        """Say how far the database's clock had leapt at a moment; return whether nobody had said so before."""
        answer = self._privileged.move_heartbeats(noticed_at.isoformat(), leap.total_seconds())
        return read_answer(_Moved, answer).moved

    def record(self, judged: list[tuple[ClaimedHeartbeat, Judgement]]) -> None:
        """Write what was judged."""
        items = [judgement_item(claimed, judgement) for claimed, judgement in judged]
        read_answer(_Recorded, self._privileged.record_heartbeats(items))


def judgement_item(claimed: ClaimedHeartbeat, judgement: Judgement) -> dict[str, Any]:
    """Return what `record_heartbeats` writes for one heartbeat."""
    standing = judgement.standing
    return {
        "monitor_id": str(claimed.monitor_id),
        "lease_token": str(claimed.lease_token),
        "judged_n": standing.judged_n,
        "last_ping_at": spell(standing.last_ping_at),
        "last_success_at": spell(standing.last_success_at),
        "leapt_seconds": standing.leapt.total_seconds(),
        "last_duration_ms": standing.last_duration_ms,
        "started_at": spell(standing.started_at),
        "started_rid": str(standing.started_rid) if standing.started_rid else None,
        "next_due_at": spell(judgement.due_at),
        "verdicts": [_verdict(change) for change in judgement.changes],
    }


def _verdict(change: Change) -> dict[str, Any]:
    at = spell(change.at)
    return {
        "state": change.state,
        "state_since": at,
        "transitions": [{"state": change.state, "at": at, "cause": change.cause}],
        "incident": _incident(change) if change.opens_incident else None,
        "recovered_at": at if change.closes_incident else None,
    }


def _incident(change: Change) -> dict[str, Any]:
    evidence: dict[str, Any] = {"decided_by": RULE_VERSION}
    if change.deadline is not None:
        evidence["expected_at"] = spell(change.deadline.expected_at)
    if change.ping is not None:
        evidence["ping"] = {
            "n": change.ping.n,
            "received_at": spell(change.ping.at),
            "exit_status": change.ping.exit_status,
            "rid": str(change.ping.rid) if change.ping.rid else None,
        }
    return {"started_at": spell(change.at), "cause": change.cause, "summary": _summary(change), "evidence": evidence}


def _summary(change: Change) -> str:
    if change.cause is Cause.FAILED:
        code = change.ping.exit_status if change.ping else None
        return "the job says that it failed" if code is None else f"the job ended with exit status {code}"
    assert change.deadline is not None, "silence has a deadline"
    expected_at = change.deadline.expected_at.astimezone(UTC)
    if change.cause is Cause.RAN_TOO_LONG:
        return f"the job was to end by {expected_at:%Y-%m-%d %H:%M:%S} UTC and did not"
    return f"a ping was expected by {expected_at:%Y-%m-%d %H:%M:%S} UTC and did not come"

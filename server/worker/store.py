"""The worker's calls in the rules' types: documents of the database in and out, checked at the border."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, RootModel, ValidationError

from server.data.privileged import Privileged
from server.errors import Unavailable
from server.features.checks.rules import Observation
from server.features.monitors.rules import next_due_at
from server.recurrence import DAYS_AHEAD, InvalidSchedule, Schedule, Written, write_out
from server.worker.claims import ClaimedCheck, ClaimedDelivery, Decision, Seen

log = logging.getLogger("tocsin.worker")

RULE_VERSION = "judge/2"
MAX_FORGOTTEN = 1_000  # answers of idempotency keys at a time
PRUNED_AT_ONCE = 10_000
# So that each window is written out further about once a month.
DAYS_WRITTEN = DAYS_AHEAD - 30
WINDOWS_AT_ONCE = 100
Row = TypeVar("Row", bound=BaseModel)


class _ClaimedChecks(BaseModel):
    now: AwareDatetime
    checks: list[dict[str, Any]]


class _ClaimedDeliveries(BaseModel):
    now: AwareDatetime
    deliveries: list[dict[str, Any]]


class _Stale(BaseModel):
    lease_token: UUID
    judged_from: dict[str, Any]


class _Recorded(BaseModel):
    counted: int
    stale: list[_Stale]


class _Settled(BaseModel):
    settled: int


class _Applied(BaseModel):
    done: bool


class _Pruned(RootModel[int]):
    pass


class _Released(BaseModel):
    released: int


class _WindowToExtend(BaseModel):
    id: UUID
    version: int
    starts_at: AwareDatetime
    ends_at: AwareDatetime
    time_zone: str
    recurrence: str
    written_until: AwareDatetime
    now: AwareDatetime  # the database's

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.starts_at, self.ends_at, self.time_zone, self.recurrence)


class _WindowsToExtend(RootModel[list[_WindowToExtend]]):
    pass


@dataclass(frozen=True, slots=True)
class Claims:
    """What was claimed, and the database's time."""

    now: datetime
    checks: list[ClaimedCheck]


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one attempt to deliver ended."""

    delivery: ClaimedDelivery
    outcome: Literal["delivered", "failed", "dead"]
    status_code: int | None = None
    error: str | None = None
    retry_in_seconds: float | None = None


class WorkerStore:
    """Blocking calls; the worker makes them in threads. Each raises an AppError where the database does not take it."""

    def __init__(self, privileged: Privileged, region: str) -> None:
        self._privileged = privileged
        self._region = region

    def claim_checks(self, max_checks: int, lease_seconds: int) -> Claims:
        """Lease up to `max_checks` monitors that are due, for their timeout and `lease_seconds` more."""
        claimed = read_answer(_ClaimedChecks, self._privileged.claim_due(self._region, max_checks, lease_seconds))
        return Claims(claimed.now, read_claims(ClaimedCheck, claimed.checks))

    def record(self, batch: Sequence[Seen]) -> list[Seen]:
        """Judge and write a batch. Returns what is to be judged anew, since another region has spoken meanwhile."""
        recorded = read_answer(_Recorded, self._privileged.record([self._item(seen) for seen in batch]))
        now_from = {stale.lease_token: stale.judged_from for stale in recorded.stale}
        return [
            replace(seen, claimed=seen.claimed.model_copy(update={"judged_from": now_from[seen.claimed.lease_token]}))
            for seen in batch
            if seen.claimed.lease_token in now_from
        ]

    def claim_deliveries(self, max_deliveries: int, lease_seconds: int) -> list[ClaimedDelivery]:
        """Lease up to `max_deliveries` messages that are due."""
        claimed = read_answer(_ClaimedDeliveries, self._privileged.claim_deliveries(max_deliveries, lease_seconds))
        return read_claims(ClaimedDelivery, [{**row, "claimed_at": claimed.now} for row in claimed.deliveries])

    def settle(self, settlements: list[Settlement]) -> None:
        """Say how attempts ended."""
        items = [
            {
                "id": str(each.delivery.id),
                "lease_token": str(each.delivery.lease_token),
                "outcome": each.outcome,
                "status_code": each.status_code,
                "error": each.error,
                "retry_in_seconds": each.retry_in_seconds,
            }
            for each in settlements
        ]
        read_answer(_Settled, self._privileged.settle_deliveries(items))

    def maintain(self, days_ahead: int) -> None:
        """Make the partitions of the days to come, drop those that no plan keeps any longer, forget old answers."""
        self._privileged.maintain_check_results(days_ahead)
        while int(self._privileged.forget_answers(MAX_FORGOTTEN)) == MAX_FORGOTTEN:
            pass

    def apply_retention(self, max_rows: int) -> bool:
        """Delete some of the results that have passed their own plan's retention; return whether that was all."""
        return read_answer(_Applied, self._privileged.apply_retention(max_rows)).done

    def roll_up(self, max_rows: int) -> bool:
        """Roll up some of the results whose hour has ended; return whether that was all."""
        return read_answer(_Applied, self._privileged.roll_up(max_rows)).done

    def prune_hours(self) -> None:
        """Delete the hourly rollups past their retention, so many at a time that no statement takes long."""
        while read_answer(_Pruned, self._privileged.prune_hours(PRUNED_AT_ONCE)).root == PRUNED_AT_ONCE:
            pass

    def prune_events(self, keep_days: int) -> None:
        """Drop the events past their retention, so many at a time that no statement takes long."""
        while read_answer(_Pruned, self._privileged.prune_events(keep_days, PRUNED_AT_ONCE)).root == PRUNED_AT_ONCE:
            pass

    def release_alerts(self) -> int:
        """Tell of the incidents that nothing holds any longer; return how many they were."""
        return read_answer(_Released, self._privileged.release_alerts()).released

    def extend_windows(self) -> None:
        """Write out recurring maintenance windows further, whose occurrences do not reach far enough ahead any more."""
        while True:
            found = read_answer(
                _WindowsToExtend, self._privileged.windows_to_extend(DAYS_WRITTEN, WINDOWS_AT_ONCE)
            ).root
            for window in found:
                self._extend(window)
            if len(found) < WINDOWS_AT_ONCE:
                return

    def _extend(self, window: _WindowToExtend) -> None:
        try:
            written = write_out(window.schedule, window.now, after=window.written_until)
        except InvalidSchedule as wrong:  # the time zone is none any more, or its clock has made the window too long
            log.error("a maintenance window cannot go on", extra={"window_id": str(window.id), "reason": wrong.detail})  # noqa: TRY400
            written = Written([], None)
        self._privileged.extend_window(str(window.id), window.version, written.documents(), spell(written.until))

    def _item(self, seen: Seen) -> dict[str, Any]:
        """Return what `record` writes for one check: the result, the verdict, and when to look again."""
        claimed, decision = seen.claimed, seen.decide()
        region, whole = decision.region, decision.whole
        due_at = next_due_at(claimed.monitor_id, claimed.policy, region.state, seen.ended_at)
        if whole.standing.state is not claimed.state:
            change = {"monitor_id": str(claimed.monitor_id), "before": claimed.state, "after": whole.standing.state}
            log.info("state changed", extra=change | {"detail": seen.observation.error_detail})
        return {
            **_result(seen.observation),
            "result_id": str(seen.result_id),
            "monitor_id": str(claimed.monitor_id),
            "lease_token": str(claimed.lease_token),
            "region": self._region,
            "region_state": region.state,
            "failures": region.failures,
            "successes": region.successes,
            "streak_since": spell(region.streak_since),
            "last_interval_seconds": region.last_interval_seconds,
            "next_due_at": spell(due_at),
            "state": whole.standing.state,
            "state_since": spell(whole.state_since),
            "flapping": whole.flapping,
            "transitions": [
                {"state": line.state, "at": spell(line.at), "cause": line.cause} for line in whole.transitions
            ],
            "incident": self._incident(seen, decision),
            "recovered_at": spell(whole.closes_incident_at),
            "judged_from": claimed.judged_from,
        }

    def _incident(self, seen: Seen, decision: Decision) -> dict[str, Any] | None:
        if decision.whole.opens_incident_since is None:
            return None
        observation = seen.observation
        evidence: dict[str, Any] = {
            "decided_by": RULE_VERSION,
            "region": self._region,
            "failures_in_a_row": decision.region.failures,
            "fail_threshold": seen.claimed.fail_threshold,
            "last_check": _result(observation),
        }
        if decision.whole.flapping:
            evidence["flapping"] = [spell(at) for at in decision.whole.standing.recent_downs]
        if decision.peers:
            evidence["regions"] = {
                self._region: decision.region.state,
                **{peer.region: peer.state for peer in decision.peers},
            }
        return {
            "started_at": spell(decision.whole.opens_incident_since),
            "cause": observation.error_kind or "regions",
            "summary": observation.error_detail or "most regions say that it is down",
            "evidence": evidence,
        }


def read_answer(model: type[Row], answer: bytes) -> Row:
    """Read an answer of ours. A 200 that is none (a proxy's page, a body cut off) is no answer: raises Unavailable."""
    try:
        return model.model_validate_json(answer)
    except ValidationError:
        raise Unavailable(reason="upstream_answered_no_json") from None


def read_claims(model: type[Row], rows: list[dict[str, Any]]) -> list[Row]:
    """Read what was claimed. A row that makes no sense costs nobody but itself: it is left to its lease."""
    read = []
    for row in rows:
        try:
            read.append(model.model_validate(row))
        except ValidationError as error:
            about = row.get("monitor_id") or row.get("id")
            log.error("a claim cannot be read", extra={"claim": about, "reason": error.errors()[0]["msg"]})  # noqa: TRY400
    return read


def _result(seen: Observation) -> dict[str, Any]:
    timings = seen.timings
    return {
        "started_at": spell(seen.started_at),
        "outcome": seen.outcome,
        "status_code": seen.status_code,
        "error_kind": seen.error_kind,
        "error_detail": seen.error_detail,
        "dns_ms": timings.dns_ms,
        "connect_ms": timings.connect_ms,
        "tls_ms": timings.tls_ms,
        "first_byte_ms": timings.first_byte_ms,
        "total_ms": timings.total_ms,
        "remote_ip": seen.remote_ip,
        "tls_expires_at": spell(seen.tls_expires_at),
        "findings": [asdict(finding) for finding in seen.findings] or None,
    }


def spell(moment: datetime | None) -> str | None:
    """Spell a time as it is to be read in evidence and webhooks: RFC 3339, UTC, `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None

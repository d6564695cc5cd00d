"""The worker's calls in the rules' types: documents of the database in and out, checked at the border."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from uuid import UUID, uuid4

from pydantic import AwareDatetime, BaseModel, Field, RootModel, ValidationError

from server.data.privileged import Privileged
from server.errors import Unavailable
from server.features.checks.rules import Observation
from server.features.monitors.rules import HttpCheck, Policy, Standing, State, Verdict, next_due_at, status_ranges

log = logging.getLogger("tocsin.worker")

RULE_VERSION = "judge/1"
MAX_FORGOTTEN = 1_000  # answers of idempotency keys at a time
PRUNED_AT_ONCE = 10_000
Row = TypeVar("Row", bound=BaseModel)


class ClaimedCheck(BaseModel, frozen=True):
    """A monitor that is due, leased to this worker."""

    monitor_id: UUID
    lease_token: UUID
    due_at: AwareDatetime
    kind: Literal["http"]
    target: str
    interval_seconds: int
    timeout_seconds: int
    retry_interval_seconds: int
    fail_threshold: int
    recover_threshold: int
    degraded_after_ms: int | None
    expected_status: list[str]
    max_redirects: int
    state: State
    ledger_state: State | None
    failures: int
    successes: int
    streak_since: AwareDatetime | None
    last_observed_at: AwareDatetime | None
    last_interval_seconds: int | None

    @property
    def check(self) -> HttpCheck:
        """What to do."""
        return HttpCheck(self.target, self.timeout_seconds, status_ranges(self.expected_status), self.max_redirects)

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
        """Where it stands before this check."""
        return Standing(
            self.state,
            self.ledger_state,
            self.failures,
            self.successes,
            self.streak_since,
            self.last_observed_at,
            self.last_interval_seconds,
        )


class ClaimedDelivery(BaseModel, frozen=True):
    """A message that is due, leased to this worker. `attempts` counts this one."""

    id: UUID
    lease_token: UUID
    kind: Literal["webhook"]
    url: str
    secret: str = Field(repr=False)
    payload: dict[str, Any]
    attempts: int


class _ClaimedChecks(BaseModel):
    now: AwareDatetime
    checks: list[dict[str, Any]]


class _ClaimedDeliveries(BaseModel):
    now: AwareDatetime
    deliveries: list[dict[str, Any]]


class _Recorded(BaseModel):
    counted: int


class _Settled(BaseModel):
    settled: int


class _Applied(BaseModel):
    done: bool


class _Pruned(RootModel[int]):
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
        claimed = _read(_ClaimedChecks, self._privileged.claim_due(self._region, max_checks, lease_seconds))
        return Claims(claimed.now, _readable(ClaimedCheck, claimed.checks))

    def record(self, items: list[dict[str, Any]]) -> None:
        """Write a batch of `result_item`s."""
        _read(_Recorded, self._privileged.record(items))

    def claim_deliveries(self, max_deliveries: int, lease_seconds: int) -> list[ClaimedDelivery]:
        """Lease up to `max_deliveries` messages that are due."""
        claimed = _read(_ClaimedDeliveries, self._privileged.claim_deliveries(max_deliveries, lease_seconds))
        return _readable(ClaimedDelivery, claimed.deliveries)

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
        _read(_Settled, self._privileged.settle_deliveries(items))

    def maintain(self, days_ahead: int) -> None:
        """Make the partitions of the days to come, drop those that no plan keeps any longer, forget old answers."""
        self._privileged.maintain_check_results(days_ahead)
        while int(self._privileged.forget_answers(MAX_FORGOTTEN)) == MAX_FORGOTTEN:
            pass

    def apply_retention(self, max_rows: int) -> bool:
        """Delete some of the results that have passed their own plan's retention; return whether that was all."""
        return _read(_Applied, self._privileged.apply_retention(max_rows)).done

    def prune_events(self, keep_days: int) -> None:
        """Drop the events past their retention, so many at a time that no statement takes long."""
        while _read(_Pruned, self._privileged.prune_events(keep_days, PRUNED_AT_ONCE)).root == PRUNED_AT_ONCE:
            pass

    def result_item(self, claimed: ClaimedCheck, seen: Observation, verdict: Verdict, now: datetime) -> dict[str, Any]:
        """Return what `record` writes for one check: the result, the verdict, and when to look again after `now`."""
        standing = verdict.standing
        due_at = next_due_at(claimed.monitor_id, claimed.policy, standing.state, now)
        return {
            **_result(seen),
            "result_id": str(uuid4()),
            "monitor_id": str(claimed.monitor_id),
            "lease_token": str(claimed.lease_token),
            "region": self._region,
            "state": standing.state,
            "state_since": _text(verdict.state_since),
            "failures": standing.failures,
            "successes": standing.successes,
            "streak_since": _text(standing.streak_since),
            "last_interval_seconds": standing.last_interval_seconds,
            "next_due_at": _text(due_at),
            "transitions": [
                {"state": line.state, "at": _text(line.at), "cause": line.cause} for line in verdict.transitions
            ],
            "incident": self._incident(claimed, seen, verdict),
            "recovered_at": _text(verdict.closes_incident_at),
        }

    def _incident(self, claimed: ClaimedCheck, seen: Observation, verdict: Verdict) -> dict[str, Any] | None:
        if verdict.opens_incident_since is None:
            return None
        return {
            "started_at": _text(verdict.opens_incident_since),
            "cause": seen.error_kind,
            "summary": seen.error_detail or str(seen.error_kind),
            "evidence": {
                "decided_by": RULE_VERSION,
                "region": self._region,
                "failures_in_a_row": verdict.standing.failures,
                "fail_threshold": claimed.fail_threshold,
                "last_check": _result(seen),
            },
        }


def _read(model: type[Row], answer: bytes) -> Row:
    """Read an answer of ours. A 200 that is none (a proxy's page, a body cut off) is no answer: raises Unavailable."""
    try:
        return model.model_validate_json(answer)
    except ValidationError:
        raise Unavailable(reason="upstream_answered_no_json") from None


def _readable(model: type[Row], rows: list[dict[str, Any]]) -> list[Row]:
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
        "started_at": _text(seen.started_at),
        "outcome": "up" if seen.ok else "down",
        "status_code": seen.status_code,
        "error_kind": seen.error_kind,
        "error_detail": seen.error_detail,
        "dns_ms": timings.dns_ms,
        "connect_ms": timings.connect_ms,
        "tls_ms": timings.tls_ms,
        "first_byte_ms": timings.first_byte_ms,
        "total_ms": timings.total_ms,
        "remote_ip": seen.remote_ip,
        "tls_expires_at": _text(seen.tls_expires_at),
    }


def _text(moment: datetime | None) -> str | None:
    """Spell a time as it is to be read in evidence and webhooks: RFC 3339, UTC, `Z`."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None

"""A database, a prober and a sender that do as they are told, for the worker's loops."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

from server.data.privileged import Privileged
from server.errors import AppError
from server.features.checks.rules import ErrorKind, Observation, Timings
from server.probes.check import Check
from server.worker.claims import ClaimedCheck, ClaimedDelivery, Seen
from server.worker.delivery.outcome import Delivered, Failed
from server.worker.store import Claims, Settlement, WorkerStore

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a call of a fake where it stands; the loop gets its turn, as it would while a thread works."""
    await asyncio.sleep(0)
    return function(*arguments)


async def until(ask: Callable[[], bool]) -> None:
    """Let the loops run until something is so."""
    async with asyncio.timeout(20):
        while not ask():
            await asyncio.sleep(0.005)


class FakeStore(WorkerStore):
    """Holds what is due, keeps what was written. `refusals` are raised by writes, in turn; `poison` always is."""

    def __init__(self, *, due: int = 0, messages: int = 0) -> None:
        super().__init__(cast("Privileged", None), "test")
        self.due = [make_check() for _ in range(due)]
        self.messages = [make_delivery() for _ in range(messages)]
        self.refusals: list[AppError] = []
        self.claim_refusals: list[AppError] = []
        self.poison: dict[UUID, AppError] = {}
        self.asked_for: list[int] = []
        self.recorded: list[UUID] = []
        self.seen: list[Seen] = []
        self.stale: dict[UUID, bool] = {}
        self.batches: list[int] = []
        self.attempts = 0
        self.settled: list[Settlement] = []

    def claim_checks(self, max_checks: int, lease_seconds: int) -> Claims:
        if self.claim_refusals:
            raise self.claim_refusals.pop(0)
        self.asked_for.append(max_checks)
        claimed, self.due = self.due[:max_checks], self.due[max_checks:]
        return Claims(NOW, claimed)

    def record(self, batch: Sequence[Seen]) -> list[Seen]:
        self.attempts += 1
        if self.refusals:
            raise self.refusals.pop(0)
        for seen in batch:
            if seen.claimed.monitor_id in self.poison:
                raise self.poison[seen.claimed.monitor_id]
        stale = [seen for seen in batch if self.stale.pop(seen.claimed.monitor_id, None)]
        self.recorded += [seen.claimed.monitor_id for seen in batch if seen not in stale]
        self.seen += [seen for seen in batch if seen not in stale]
        self.batches.append(len(batch))
        return stale

    def written(self, seen: Seen) -> dict[str, Any]:
        """Return what the database would be sent of it."""
        return self._item(seen)

    def claim_deliveries(self, max_deliveries: int, lease_seconds: int) -> list[ClaimedDelivery]:
        if self.claim_refusals:
            raise self.claim_refusals.pop(0)
        self.asked_for.append(max_deliveries)
        claimed, self.messages = self.messages[:max_deliveries], self.messages[max_deliveries:]
        return claimed

    def settle(self, settlements: list[Settlement]) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.settled += settlements


class FakeProber:
    """Answers up, once it is let; counts how many checks run at once."""

    def __init__(self, *, held: bool = False) -> None:
        self.let_go = asyncio.Event()
        if not held:
            self.let_go.set()
        self.running = 0
        self.most_running = 0
        self.breaks_at: set[str] = set()

    async def check(self, check: Check, started_at: datetime) -> Observation:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self.let_go.wait()
        self.running -= 1
        if check.target in self.breaks_at:
            raise ZeroDivisionError
        if check.target.endswith("/down"):
            return Observation(started_at, error_kind=ErrorKind.CONNECT, error_detail="could not connect")
        return Observation(started_at, Timings(total_ms=5), status_code=200)


class FakeSender:
    """Gives its outcomes in turn, then Delivered."""

    def __init__(self, *outcomes: Delivered | Failed) -> None:
        self.outcomes = list(outcomes)
        self.sent: list[tuple[str, bytes]] = []
        self.signed_at: list[datetime] = []

    def send(self, url: str, *, secret: str, delivery_id: str, body: bytes, now: datetime) -> Delivered | Failed:
        self.sent.append((delivery_id, body))
        self.signed_at.append(now)
        return self.outcomes.pop(0) if self.outcomes else Delivered(200)


def make_check(**more: Any) -> ClaimedCheck:
    """Return the claim of a new monitor."""
    return ClaimedCheck.model_validate(
        {
            "monitor_id": uuid4(),
            "lease_token": uuid4(),
            "due_at": NOW,
            "kind": "http",
            "target": "http://example.com/",
            "interval_seconds": 60,
            "timeout_seconds": 10,
            "retry_interval_seconds": 15,
            "fail_threshold": 2,
            "recover_threshold": 1,
            "degraded_after_ms": None,
            "options": {},
            "assertions": [],
            "state": "new",
            "flapping": False,
            "recent_downs": [],
            "region_state": "new",
            "judged_from": None,
            "ledger_state": None,
            "failures": 0,
            "successes": 0,
            "streak_since": None,
            "last_observed_at": None,
            "last_interval_seconds": None,
            **more,
        }
    )


def make_delivery(**more: Any) -> ClaimedDelivery:
    """Return the claim of a message."""
    return ClaimedDelivery.model_validate(
        {
            "id": uuid4(),
            "lease_token": uuid4(),
            "kind": "webhook",
            "url": "http://example.com/hook",
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw8J2nKcVGPQ8=",
            "payload": {"type": "channel.test"},
            "attempts": 1,
            "claimed_at": NOW,
            **more,
        }
    )

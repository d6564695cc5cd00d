"""Deliveries, from the outbox to the receiver: lease, send, then say how it ended.

In that order a worker that dies anywhere loses nothing: the lease runs out, and the message is sent again under the
same id. (The other order, claim by deleting and then send, lost 6 of 2,500 under kill -9.)
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import orjson

from server.errors import AppError
from server.worker.checking import InThread, wait_for
from server.worker.claims import ClaimedDelivery
from server.worker.delivery.outcome import MAX_ATTEMPTS, Delivered, Failed, backoff
from server.worker.store import Settlement, WorkerStore

log = logging.getLogger("tocsin.worker")

MAX_SENDS = 16
# A send takes at most 15 s (WebhookSender), and settling it must fit in as well.
LEASE_SECONDS = 45
POLL_SECONDS = 0.5
RETRY_SECONDS = 1.0


class Sender(Protocol):
    """Whatever can send a message."""

    def send(self, url: str, *, secret: str, delivery_id: str, body: bytes, now: datetime) -> Delivered | Failed:
        """Send it once; never raises for what the receiver does."""


class Delivering:
    """Sends what is due until it is told to stop. `jitter` gives numbers from 0 to 1."""

    def __init__(
        self,
        store: WorkerStore,
        sender: Sender,
        jitter: Callable[[], float],
        in_thread: InThread,
    ) -> None:
        self._store = store
        self._sender = sender
        self._jitter = jitter
        self._in_thread = in_thread
        self._in_flight: set[asyncio.Task[None]] = set()

    async def claim_and_send(self, stopping: asyncio.Event) -> None:
        """Claim and send until `stopping`; then wait for the sends that run."""
        while not stopping.is_set():
            room = MAX_SENDS - len(self._in_flight)
            claimed = await self._claim(room) if room else []
            for delivery in claimed:
                task = asyncio.create_task(self._send(delivery))
                self._in_flight.add(task)
                task.add_done_callback(self._in_flight.discard)
            if len(claimed) < room or not room:
                await wait_for(stopping, POLL_SECONDS)
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def _claim(self, room: int) -> list[ClaimedDelivery]:
        try:
            claimed: list[ClaimedDelivery] = await self._in_thread(self._store.claim_deliveries, room, LEASE_SECONDS)
        except AppError as error:
            log.warning("cannot claim deliveries", extra={"reason": error.reason})
            await asyncio.sleep(RETRY_SECONDS)
            return []
        return claimed

    async def _send(self, delivery: ClaimedDelivery) -> None:
        outcome = await self._in_thread(
            lambda: self._sender.send(
                delivery.url,
                secret=delivery.secret,
                delivery_id=str(delivery.id),
                body=orjson.dumps(delivery.payload),
                # Never by this machine's own clock: where that is wrong, receivers refuse what it signs.
                now=delivery.claimed_at,
            )
        )
        settlement = settle(delivery, outcome, self._jitter())
        log.info(
            "delivery " + settlement.outcome,
            extra={
                "delivery_id": str(delivery.id),
                "attempt": delivery.attempts,
                "status_code": settlement.status_code,
                "error": settlement.error,
            },
        )
        try:
            await self._in_thread(self._store.settle, [settlement])
        except AppError as error:
            # The lease runs out and it is sent again, under the same id.
            log.warning("cannot settle a delivery", extra={"delivery_id": str(delivery.id), "reason": error.reason})


def settle(delivery: ClaimedDelivery, outcome: Delivered | Failed, jitter: float) -> Settlement:
    """Decide what one attempt means: delivered, to be tried again after a pause, or dead."""
    if isinstance(outcome, Delivered):
        return Settlement(delivery, "delivered", outcome.status_code)
    if outcome.permanent or delivery.attempts >= MAX_ATTEMPTS:
        return Settlement(delivery, "dead", outcome.status_code, outcome.detail)
    pause = max(backoff(delivery.attempts, jitter).total_seconds(), outcome.retry_after_seconds or 0)
    return Settlement(delivery, "failed", outcome.status_code, outcome.detail, retry_in_seconds=pause)

"""Heartbeats, from what their jobs said to what it means: lease, judge, record.

There is nothing to wait for between the two calls, so each batch is claimed, judged and recorded in one go. What a
worker that dies had claimed is judged by another when the lease runs out, from the same pings, to the same end.
A clock that leaps forward makes everything overdue at once. The database leases nothing for a moment then, and takes it
for a leap, and not for an absence of all workers, when one says so that was there before.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from server.errors import AppError
from server.features.pings.rules import Judgement
from server.worker.checking import InThread, wait_for
from server.worker.clock import leapt
from server.worker.heartbeats import Beats, ClaimedHeartbeat, HeartbeatStore

log = logging.getLogger("tocsin.worker")

MAX_HEARTBEATS = 200
LEASE_SECONDS = 20
# Within it, whoever was there before a leap asks again and says so, also on a busy machine.
HESITATE_SECONDS = 5
POLL_SECONDS = 0.5
RETRY_SECONDS = 1.0


class Beating:
    """Judges what is due until it is told to stop. `elapsed_seconds` gives seconds that never run backwards."""

    def __init__(self, store: HeartbeatStore, in_thread: InThread, elapsed_seconds: Callable[[], float]) -> None:
        self._store = store
        self._in_thread = in_thread
        self._elapsed_seconds = elapsed_seconds
        # What the database said its time was, and when it was asked at the earliest.
        self._told: tuple[datetime, float] | None = None

    async def claim_and_judge(self, stopping: asyncio.Event) -> None:
        """Claim, judge and record until `stopping`."""
        while not stopping.is_set():
            try:
                claimed = await self._claim()
                judged = [each for heartbeat in claimed.heartbeats if (each := _judge(heartbeat, claimed))]
                if judged:
                    await self._in_thread(self._store.record, judged)
            except AppError as error:
                # What was claimed is claimed again when its lease runs out.
                log.warning("cannot judge heartbeats", extra={"reason": error.reason})
                await wait_for(stopping, RETRY_SECONDS)
                continue
            if len(claimed.heartbeats) < MAX_HEARTBEATS:
                await wait_for(stopping, POLL_SECONDS)

    async def _claim(self) -> Beats:
        """Claim. Where the clock has leapt meanwhile, say so, and leave what was claimed to be claimed again."""
        asked_at = self._elapsed_seconds()
        claimed: Beats = await self._in_thread(self._store.claim, MAX_HEARTBEATS, LEASE_SECONDS, HESITATE_SECONDS)
        if self._told is not None:
            before, before_at = self._told
            leap = leapt(before, claimed.now, timedelta(seconds=self._elapsed_seconds() - before_at))
            if leap is not None:
                moved = await self._in_thread(self._store.move, claimed.now, leap)
                log.warning("the database's clock leapt forward", extra={"detail": str(leap), "moved": moved})
                claimed = Beats(claimed.now, [])
        self._told = claimed.now, asked_at
        return claimed


def _judge(heartbeat: ClaimedHeartbeat, claimed: Beats) -> tuple[ClaimedHeartbeat, Judgement] | None:
    """Judge one. One that makes no sense costs nobody but itself: it is left to its lease."""
    try:
        judgement = heartbeat.judge(claimed.now)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        log.error("a heartbeat cannot be judged", extra={"monitor_id": str(heartbeat.monitor_id), "reason": reason})  # noqa: TRY400
        return None
    for change in judgement.changes:
        log.info(
            "state changed",
            extra={"monitor_id": str(heartbeat.monitor_id), "after": change.state, "detail": change.cause},
        )
    return heartbeat, judgement

"""Heartbeats, from what their jobs said to what it means: lease, judge, record.

There is nothing to wait for between the two calls, so each batch is claimed, judged and recorded in one go. What a
worker that dies had claimed is judged by another when the lease runs out, from the same pings, to the same end.
"""

import asyncio
import logging

from server.errors import AppError
from server.features.pings.rules import Judgement
from server.worker.checking import InThread, wait_for
from server.worker.heartbeats import Beats, ClaimedHeartbeat, HeartbeatStore

log = logging.getLogger("tocsin.worker")

MAX_HEARTBEATS = 200
LEASE_SECONDS = 20
POLL_SECONDS = 0.5
RETRY_SECONDS = 1.0


class Beating:
    """Judges what is due until it is told to stop."""

    def __init__(self, store: HeartbeatStore, in_thread: InThread) -> None:
        self._store = store
        self._in_thread = in_thread

    async def claim_and_judge(self, stopping: asyncio.Event) -> None:
        """Claim, judge and record until `stopping`."""
        while not stopping.is_set():
            try:
                claimed: Beats = await self._in_thread(self._store.claim, MAX_HEARTBEATS, LEASE_SECONDS)
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

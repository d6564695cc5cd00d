"""Checks, from due to recorded: claim, probe, judge, record.

1. Claim no more than can start at once: a claimed check that waits is a check that is late, and under lease.
2. Probe, and judge what was seen by the pure rule.
3. Record in batches. A batch that could not be written is written again until it is: repeating one changes nothing.
A worker that dies between any two steps loses nothing that was recorded; its leases run out and another takes over.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol
from uuid import uuid4

from server.details import clean_detail
from server.errors import AppError, Forbidden, InvalidInput, NotFound, Unauthenticated, Unavailable
from server.features.checks.rules import ErrorKind, Observation
from server.probes.check import Check
from server.worker.claims import ClaimedCheck, Seen
from server.worker.clock import DatabaseClock
from server.worker.references import References
from server.worker.store import WorkerStore

log = logging.getLogger("tocsin.worker")

MAX_IN_FLIGHT = 200
MAX_CLAIM = 100
# Beyond the check's own timeout: for judging, waiting for the batch, and a database that is slow to take it.
LEASE_SECONDS = 20
POLL_SECONDS = 0.5
MAX_BATCH = 200
BATCH_WINDOW_SECONDS = 0.1
RETRY_SECONDS = 1.0
# How often a single result is tried that the database refuses for its own sake, before the others go on without it.
MAX_TRIES_OF_ONE = 5

# The database is away, or the key or the migrations are not right: no fault of the results, which wait.
_NO_FAULT_OF_THE_RESULTS = (Unavailable, Unauthenticated, Forbidden, NotFound)

# What a check says that could as well be said of our own network.
_OF_THE_NETWORK = frozenset({ErrorKind.DNS, ErrorKind.CONNECT, ErrorKind.TIMEOUT, ErrorKind.TLS, ErrorKind.LOSS})

InThread = Callable[..., Awaitable[Any]]


class Prober(Protocol):
    """Whatever can run a check."""

    async def check(self, check: Check, started_at: datetime) -> Observation:
        """Run it; never raises for what the target does."""


class Checking:
    """Runs due checks until it is told to stop. `in_thread` runs a blocking call elsewhere."""

    def __init__(
        self,
        store: WorkerStore,
        prober: Prober,
        references: References,
        clock: DatabaseClock,
        in_thread: InThread,
    ) -> None:
        self._store = store
        self._prober = prober
        self._references = references
        self._clock = clock
        self._in_thread = in_thread
        self._in_flight: set[asyncio.Task[None]] = set()
        self._results: asyncio.Queue[Seen] = asyncio.Queue()

    async def claim_and_probe(self, stopping: asyncio.Event) -> None:
        """Claim and start checks until `stopping`; then wait for those that run."""
        while not stopping.is_set():
            room = min(MAX_CLAIM, MAX_IN_FLIGHT - len(self._in_flight) - self._results.qsize())
            claimed = await self._claim(room) if room > 0 else []
            for check in claimed:
                task = asyncio.create_task(self._probe_safely(check))
                self._in_flight.add(task)
                task.add_done_callback(self._in_flight.discard)
            if len(claimed) < room or room <= 0:
                await wait_for(stopping, POLL_SECONDS)
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def record_results(self, stopped_probing: asyncio.Event) -> None:
        """Write results in batches, until no more can come and every one is written."""
        while not (stopped_probing.is_set() and self._results.empty()):
            batch = await self._next_batch()
            if batch:
                await self._write(batch)

    async def _claim(self, room: int) -> list[ClaimedCheck]:
        try:
            claims = await self._in_thread(self._store.claim_checks, room, LEASE_SECONDS)
        except AppError as error:
            log.warning("cannot claim checks", extra={"reason": error.reason})
            await asyncio.sleep(RETRY_SECONDS)
            return []
        self._clock.tell(claims.now)
        checks: list[ClaimedCheck] = claims.checks
        return checks

    async def _probe_safely(self, claimed: ClaimedCheck) -> None:
        try:
            await self._probe(claimed)
        except Exception:
            # Its lease runs out, and it is tried again.
            log.exception("a check could not be run", extra={"monitor_id": str(claimed.monitor_id)})

    async def _probe(self, claimed: ClaimedCheck) -> None:
        started_at = self._clock.now()
        try:
            check = claimed.check
        except ValueError as error:
            # Written past the API, or by a newer one: nobody is down because we cannot read what to do.
            log.error("a check cannot be read", extra={"monitor_id": str(claimed.monitor_id), "reason": str(error)})  # noqa: TRY400
            seen = Observation(
                started_at,
                error_kind=ErrorKind.UNSUPPORTED,
                error_detail=clean_detail(f"this worker cannot read the check: {error}"),
            )
        else:
            seen = await self._prober.check(check, started_at)
            if seen.error_kind in _OF_THE_NETWORK and not await self._references.is_any_reachable():
                detail = "this worker has no network: none of its references answered either"
                seen = replace(seen, error_kind=ErrorKind.NO_NETWORK, error_detail=detail)
        self._results.put_nowait(Seen(claimed, seen, uuid4(), self._clock.now()))

    async def _next_batch(self) -> list[Seen]:
        """Wait for a first result, then a moment for others to come with it."""
        try:
            batch = [await asyncio.wait_for(self._results.get(), POLL_SECONDS)]
        except TimeoutError:
            return []
        await asyncio.sleep(BATCH_WINDOW_SECONDS)
        while len(batch) < MAX_BATCH and not self._results.empty():
            batch.append(self._results.get_nowait())
        return batch

    async def _write(self, batch: list[Seen]) -> None:
        tries = 0
        while True:
            try:
                stale: list[Seen] = await self._in_thread(self._store.record, batch)
            except _NO_FAULT_OF_THE_RESULTS as error:
                log.warning("cannot record results yet", extra={"count": len(batch), "reason": error.reason})
            except AppError as error:
                if len(batch) > 1:
                    # One of them is not acceptable to the database: write the others without it.
                    for seen in batch:
                        await self._write([seen])
                    return
                tries += 1
                if isinstance(error, InvalidInput) or tries == MAX_TRIES_OF_ONE:
                    refused = {"monitor_id": str(batch[0].claimed.monitor_id), "reason": error.reason}
                    log.error("a result was refused", extra=refused)  # noqa: TRY400
                    return
            else:
                if not stale:
                    return
                batch = stale  # with what the other regions say by now; each region speaks once a check, so this ends
                continue
            await asyncio.sleep(RETRY_SECONDS)


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, at most so long."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return

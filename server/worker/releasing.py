"""Alerts that were held, told as soon as nothing holds them any longer."""

import asyncio
import logging

from server.errors import AppError
from server.worker.checking import InThread, wait_for
from server.worker.store import WorkerStore

log = logging.getLogger("tocsin.worker")

POLL_SECONDS = 1.0


class Releasing:
    """Asks the database to release what it may, until it is told to stop. Which that is, Postgres alone decides."""

    def __init__(self, store: WorkerStore, in_thread: InThread) -> None:
        self._store = store
        self._in_thread = in_thread

    async def release(self, stopping: asyncio.Event) -> None:
        """Release again and again until `stopping`."""
        while not stopping.is_set():
            try:
                released = await self._in_thread(self._store.release_alerts)
                if released:
                    log.info("alerts released", extra={"released": released})
            except AppError as error:
                log.warning("cannot release alerts", extra={"reason": error.reason})
            await wait_for(stopping, POLL_SECONDS)

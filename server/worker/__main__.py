"""Watch and tell: `python -m server.worker`. Any number of workers may run; Postgres is what they agree by."""

import asyncio
import logging
import random
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvloop

from server.data.privileged import Privileged
from server.data.transport import UpstreamSession
from server.egress import Egress
from server.logs import configure_logs
from server.probes.prober import Prober
from server.settings import Settings, SettingsError, load_settings
from server.worker.beating import Beating
from server.worker.checking import Checking
from server.worker.clock import DatabaseClock
from server.worker.delivering import MAX_SENDS, Delivering
from server.worker.delivery.webhook import WebhookSender
from server.worker.heartbeats import HeartbeatStore
from server.worker.references import References
from server.worker.releasing import Releasing
from server.worker.store import WorkerStore
from server.worker.upkeep import Chores, Upkeep

log = logging.getLogger("tocsin.worker")

# A check may take 60 s; whoever stops us waits less. What is cut off here is taken over when its lease runs out.
SHUTDOWN_SECONDS = 8
STORE_THREADS = 4


async def run(settings: Settings, stopping: asyncio.Event) -> None:
    """Work until `stopping`, then finish what runs, for at most SHUTDOWN_SECONDS."""
    egress = Egress(settings.private_targets)
    clock = DatabaseClock(time.monotonic)
    threads = ThreadPoolExecutor(MAX_SENDS + STORE_THREADS)

    def in_thread(function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(threads, function, *arguments)

    with UpstreamSession(max_in_flight=MAX_SENDS + STORE_THREADS) as session:
        privileged = Privileged(session, settings.supabase_url, settings.supabase_secret_key)
        store = WorkerStore(privileged, settings.worker_region)
        async with Prober(egress) as prober:
            references = References(settings.worker_references, time.monotonic)
            checking = Checking(store, prober, references, clock, in_thread)
            # No security by this randomness: it spreads retries.
            delivering = Delivering(store, WebhookSender(egress), random.random, in_thread)
            beating = Beating(HeartbeatStore(privileged), in_thread, _seconds_since_boot)
            releasing = Releasing(store, in_thread)
            upkeep = Upkeep(Chores(privileged).all(), in_thread)
            others = [
                beating.claim_and_judge(stopping),
                delivering.claim_and_send(stopping),
                releasing.release(stopping),
                upkeep.keep(stopping),
            ]
            await _work(checking, others, stopping)
    threads.shutdown(wait=False, cancel_futures=True)


async def _work(checking: Checking, others: Sequence[Coroutine[Any, Any, None]], stopping: asyncio.Event) -> None:
    stopped_probing = asyncio.Event()

    async def probe() -> None:
        try:
            await checking.claim_and_probe(stopping)
        finally:
            stopped_probing.set()

    async def bound_the_end(group: asyncio.Task[None]) -> None:
        await stopping.wait()
        await asyncio.sleep(SHUTDOWN_SECONDS)
        group.cancel()

    async def everything() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(probe())
            group.create_task(checking.record_results(stopped_probing))
            for other in others:
                group.create_task(other)

    work = asyncio.create_task(everything())
    bound = asyncio.create_task(bound_the_end(work))
    try:
        await work
    except asyncio.CancelledError:
        log.warning("stopped with work unfinished; its leases run out")
    finally:
        bound.cancel()


def _seconds_since_boot() -> float:
    """Return seconds that never run backwards, those among them in which the machine slept, where it tells (Linux)."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


async def _main(settings: Settings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    log.info("worker started", extra={"region": settings.worker_region})
    await run(settings, stopping)
    log.info("worker stopped")


def main() -> None:
    """Check the settings, then work until told to stop."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(str(error))
    configure_logs(settings.log_level)
    uvloop.run(_main(settings))


if __name__ == "__main__":
    main()

"""Whether this worker has a network at all: where it has none, a failed check says nothing of its target."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

TIMEOUT_SECONDS = 2.0
# So many failures at once share one answer; a network that has just gone is noticed at the next check.
GOOD_FOR_SECONDS = 1.0


class References:
    """Hosts that are always there, each for itself: one that can be connected to is proof of a network.

    `addresses` are (host, port); with none, nothing is asked and every failure is taken as it comes. `monotonic` gives
    seconds that never run backwards.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], monotonic: Callable[[], float]) -> None:
        self._addresses = addresses
        self._monotonic = monotonic
        self._asking: asyncio.Task[bool] | None = None
        self._asked_at = float("-inf")

    async def is_any_reachable(self) -> bool:
        """Tell whether at least one of them answers, now or a second ago."""
        if not self._addresses:
            return True
        if self._asking is None or self._monotonic() - self._asked_at > GOOD_FOR_SECONDS:
            self._asked_at = self._monotonic()
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def _ask(self) -> bool:
        tries = [asyncio.create_task(_connect(host, port)) for host, port in self._addresses]
        try:
            for answered in asyncio.as_completed(tries):
                if await answered:
                    return True
            return False
        finally:
            for each in tries:
                each.cancel()
            await asyncio.gather(*tries, return_exceptions=True)


async def _connect(host: str, port: int) -> bool:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
        return True
    return False

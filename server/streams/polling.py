"""The one reader of the database in this process: it feeds the hub, however many listen."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from server.errors import AppError, Gone
from server.features.events.rules import Position
from server.streams.hub import FeedPage, Hub

POLL_SECONDS: Final = 0.5
IDLE_SECONDS: Final = 10.0  # nobody listens: the ring is kept from growing old, and the database from being asked
LONGEST_PAUSE_SECONDS: Final = 5.0
log = logging.getLogger("tocsin.streams")

Poll = Callable[[Position | None], Awaitable[FeedPage]]


async def feed(hub: Hub, poll: Poll, jitter: Callable[[], float], *, pause_seconds: float = POLL_SECONDS) -> None:
    """Feed the hub until cancelled.

    1. Ask for what followed the hub's position; first of all for the present one.
    2. More to be had: ask again at once. Else pause: for long where nobody listens, until somebody does.
    3. The database is away: streams stay open, and the pause grows, by a share that `jitter` (0 to 1) chooses.
    4. It cannot go on from there (pruned, restored): every reader resumes by themselves, and is told what they missed.
    """
    failures = 0
    while True:
        has_more = False
        try:
            page = await poll(hub.position)
        except Gone as error:
            log.error("the feed is lost", extra={"code": error.code})  # noqa: TRY400  the code says all
            hub.lose()
            continue
        except AppError as error:
            failures += 1
            log.warning("the feed cannot be read", extra={"reason": error.reason, "failures": failures})
        except Exception:
            failures += 1
            log.exception("the feed cannot be read")
        else:
            failures, has_more = 0, page.has_more
            if hub.position is None:
                hub.start_at(page.position)
            else:
                hub.take(page)
        if failures:
            longest = min(LONGEST_PAUSE_SECONDS, pause_seconds * 2 ** min(failures, 10))
            await asyncio.sleep(longest * (0.5 + jitter() / 2))
        elif has_more:
            await asyncio.sleep(0)  # whoever is to be told is told between two pages
        else:
            await _pause(hub, pause_seconds)


async def _pause(hub: Hub, seconds: float) -> None:
    if hub.readers:
        await asyncio.sleep(seconds)
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(hub.wanted.wait(), IDLE_SECONDS)

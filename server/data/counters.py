"""Counting, for limits: how often a key came in a window of time. In memory, or in Redis for all processes together.

It lies beside the door to Supabase because it is the other thing outside of the process that requests wait for. Fixed
windows: a counter belongs to one window, and the caller says which. Why not the `limits` library's own memory, and the
figures: docs/decisions.md.
"""

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

# A first call takes four of these at most (connect, AUTH, SELECT, the count), so a request loses 100 ms at most, once.
STEP_SECONDS: Final = 0.025
LOOK_AGAIN_SECONDS: Final = 2
log = logging.getLogger("tocsin.limits")


class Counters(Protocol):
    """Where it is counted."""

    def add(self, key: str, window: int, window_seconds: int) -> int:
        """Count one more for `key` in its window of this number, and return how many that makes."""


class MemoryCounters:
    """Counts for this process, exactly, under any number of threads, in bounded memory.

    Holds at most `size` counters in two generations: a full young one becomes the old one, and the old one is dropped.
    Who comes again is in the young one; who loses a counter that way starts afresh, and must have been pushed out by
    half of `size` others first.
    """

    def __init__(self, size: int = 50_000) -> None:
        self._generation_size = size // 2
        self._lock = threading.Lock()
        self._young: dict[str, list[int]] = {}
        self._old: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def add(self, key: str, window: int, window_seconds: int) -> int:
        """Count one more."""
        with self._lock:
            counter = self._young.get(key)
            if counter is None:
                counter = self._young[key] = self._old.pop(key, [window, 0])
                if len(self._young) >= self._generation_size:
                    self._old, self._young = self._young, {}
            # A thread that looked at the clock just before the window ended may come after one that looked after it:
            # it counts in the new window. Any other number is another window, even an earlier one: clocks are set back.
            if counter[0] - window not in {0, 1}:
                counter[:] = window, 0
            counter[1] += 1
            return counter[1]


class SharedCounters:
    """Counts in Redis; in memory while Redis is away, which it finds out by itself, as it does that it is back.

    A step of a call may take STEP_SECONDS; `?socket_timeout=` in the URL says otherwise. Nobody waits for a Redis that
    has failed: after a failure a thread of its own looks every LOOK_AGAIN_SECONDS whether it counts again. It starts in
    memory, so that no start waits for it either. `clock` is monotonic, in seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        # Not above: the two libraries take 0.13 s of each start and 7 MB of each process, Redis or not.
        from limits.storage import RedisStorage
        from redis import ConnectionPool, RedisError
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._connections = ConnectionPool.from_url(
            url,
            socket_timeout=STEP_SECONDS,
            socket_connect_timeout=STEP_SECONDS,
            retry=Retry(NoBackoff(), 0),  # or it would be tried three times, with pauses
            protocol=2,  # and no driver's name: a connection that opens asks nothing that nobody needs
            driver_info=None,
        )
        self._redis = RedisStorage(url, connection_pool=self._connections, key_prefix="tocsin:limits")
        self._away = (RedisError, OSError, ValueError)  # the last: something answers, and not with a number
        self._memory = MemoryCounters()
        self._clock = clock
        self._lock = threading.Lock()
        self._is_up: bool | None = None  # until it was looked at
        self._look_at = clock()
        self._is_looking = False

    @property
    def is_up(self) -> bool:
        """True while it counts in Redis."""
        return bool(self._is_up)

    def add(self, key: str, window: int, window_seconds: int) -> int:
        """Count one more; never fails."""
        if self._is_up:
            try:
                return self._redis.incr(f"{key}:{window}", window_seconds)
            except self._away as error:
                self._fall_back(error)
        else:
            self._look_when_due()
        return self._memory.add(key, window, window_seconds)

    def look(self) -> bool:
        """Ask Redis now for what requests will ask of it, and go by the answer; return whether it counted."""
        try:
            self._redis.incr("look", 60)
        except self._away as error:
            self._fall_back(error)
            return False
        if not self._is_up:
            log.info("limits are counted in redis")
        self._is_up = True
        return True

    def _fall_back(self, error: Exception) -> None:
        with self._lock:
            was_up, self._is_up = self._is_up, False
            self._look_at = self._clock() + LOOK_AGAIN_SECONDS
        # The others may be as dead, and each would cost a request its patience, and Redis two more seconds.
        self._connections.disconnect(inuse_connections=False)
        if was_up is not False:  # the class alone: the message may hold the address
            log.warning("redis is away, limits are counted in memory", extra={"error": type(error).__name__})

    def _look_when_due(self) -> None:
        if self._clock() < self._look_at:
            return
        with self._lock:
            if self._is_looking:
                return
            self._is_looking = True
        threading.Thread(target=self._look_once, name="look-for-redis", daemon=True).start()

    def _look_once(self) -> None:
        try:
            self.look()
        finally:
            self._is_looking = False

"""What counting a request costs: our counters beside those of the `limits` library, in memory and in Redis.

    python -m benchmarks.limits [redis://127.0.0.1:6379/0]

Prints µs of CPU per request, headers included: the median of many short batches, all rows taking turns. `exact` says
whether 64 threads at a limit of 500 let exactly 500 through, in each of 20 rounds; `crowd` is what a request costs at
1,000 a second while 100,000 addresses are remembered.
"""

import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import STRATEGIES, RateLimiter

from server.data.counters import MemoryCounters, SharedCounters
from server.http.limits import Limiter
from server.settings import RATE_LIMITS, Rate

ROUNDS = 40
CALLS_PER_BATCH = 500
THREADS = 64
QUOTA = 500
ADDRESSES = 100_000
Ask = Callable[[str], bool]


def ours(counters: MemoryCounters | SharedCounters, quota: int) -> Ask:
    """Return what counts as a request does, and says whether it passed."""
    limiter = Limiter({name: Rate(quota, 60) for name in RATE_LIMITS}, counters, time.time, 0)

    def ask(key: str) -> bool:
        standing = limiter.take("ordinary", key)
        standing.headers()
        return standing.remaining >= 0

    return ask


def theirs(strategy: type[RateLimiter], quota: int) -> Ask:
    """Return the same by one of the library's strategies, as it is documented: hit, then ask for the headers' sake."""
    limiter, item = strategy(MemoryStorage()), RateLimitItemPerMinute(quota)

    def ask(key: str) -> bool:
        passed = limiter.hit(item, key)
        say(limiter, item, key)
        return passed

    return ask


def say(limiter: RateLimiter, item: RateLimitItem, key: str) -> str:
    """Return the RateLimit header by the library's figures."""
    stats = limiter.get_window_stats(item, key)
    return f'"ordinary";r={stats.remaining};t={int(stats.reset_time - time.time())}'


def cost_us(ask: Ask) -> float:
    """Return the CPU of one batch, per request."""
    began = time.process_time()
    for _ in range(CALLS_PER_BATCH):
        ask("somebody")
    return (time.process_time() - began) / CALLS_PER_BATCH * 1e6


def is_exact(make: Callable[[int], Ask]) -> bool:
    """Tell whether exactly as many pass as may, however they come: threads take turns 500 times as often as usual."""
    sys.setswitchinterval(1e-5)
    for _ in range(20):
        ask, passed, together = make(QUOTA), [0] * THREADS, threading.Barrier(THREADS)

        def run(
            number: int, ask: Ask = ask, passed: list[int] = passed, together: threading.Barrier = together
        ) -> None:
            together.wait()
            passed[number] = sum(ask("somebody") for _ in range(20))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if sum(passed) != QUOTA:
            return False
    return True


def crowd_us(ask: Ask) -> float:
    """Return the CPU per request at 1,000 a second, with a crowd in memory; background threads count too."""
    for number in range(ADDRESSES):
        ask(f"10.{number}")
    began = time.process_time()
    for number in range(1_000):
        ask(f"10.{number}")
        time.sleep(0.001)
    return (time.process_time() - began) / 1_000 * 1e6


def main(*redis_url: str) -> None:
    """Print the table."""
    makers: dict[str, Callable[[int], Ask]] = {"ours": lambda quota: ours(MemoryCounters(), quota)}
    for name, strategy in STRATEGIES.items():
        makers[f"limits, {name}"] = partial(theirs, strategy)
    asks = {name: make(10_000 if "moving" in name else 1_000_000) for name, make in makers.items()}
    for url in redis_url:
        shared = SharedCounters(url, time.monotonic)
        assert shared.look(), "Redis does not answer"
        asks["ours, in Redis"] = ours(shared, 1_000_000)
    batches: dict[str, list[float]] = {name: [] for name in asks}
    for _ in range(ROUNDS):
        for name, ask in asks.items():
            batches[name].append(cost_us(ask))
    print(f"{'':34}{'µs':>8}{'exact':>8}{'crowd µs':>10}")
    for name, taken in batches.items():
        line = f"{name:34}{statistics.median(taken):8.1f}"
        if name in makers:
            line += f"{'yes' if is_exact(makers[name]) else 'no':>8}{crowd_us(makers[name](1_000_000)):10.0f}"
        print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

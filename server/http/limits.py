"""How many requests somebody may make in a while, and what their headers say of it.

Each route counts under one policy, a tier: `ordinary`, `write` and `costly` for each principal, `public` for each
client address. Requests that fail to say who they are count as `attempts` of their address, and `connect` is for
streams that open. Pings count as `pings` of their address, and each for its `heartbeat`. Windows are fixed and begin at
another second for each key, so that not everybody who waits comes back at once. The headers are those of
draft-ietf-httpapi-ratelimit-headers-11.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any, Literal, NamedTuple
from zlib import crc32

from server.data.counters import Counters
from server.errors import RateLimited
from server.settings import Rate

Tier = Literal["ordinary", "write", "costly", "public", "attempts", "connect", "pings", "heartbeat"]
ENVIRON_KEY = "tocsin.rate_limit"
_MOST_SPENT = 10_000  # addresses; when there are more, all are forgotten, and each may try once more


@dataclass(frozen=True, slots=True)
class Policy:
    """A tier with its numbers. `header` is what RateLimit-Policy says of it."""

    name: str
    quota: int
    window_seconds: int
    header: str


class Standing(NamedTuple):
    """How somebody stands under a policy after one more request. `remaining` below 0: that one was too many."""

    policy: Policy
    remaining: int
    reset_seconds: int

    def headers(self) -> list[tuple[str, str]]:
        """Return the headers that tell it."""
        policy, remaining, reset_seconds = self
        return [
            ("RateLimit-Policy", policy.header),
            ("RateLimit", f'"{policy.name}";r={remaining if remaining > 0 else 0};t={reset_seconds}'),
        ]


class Limiter:
    """Counts requests and refuses those that are too many. `clock` gives Unix seconds, the same to all processes."""

    def __init__(
        self, rates: Mapping[str, Rate], counters: Counters, clock: Callable[[], float], trusted_proxies: int
    ) -> None:
        self._policies = {
            name: Policy(name, rate.quota, rate.window_seconds, f'"{name}";q={rate.quota};w={rate.window_seconds}')
            for name, rate in rates.items()
        }
        self._add = counters.add
        self._clock = clock
        self._trusted_proxies = trusted_proxies
        self._spent: dict[str, float] = {}  # addresses that have used up their attempts, and until when

    def take(self, tier: Tier, key: str) -> Standing:
        """Count one request of `key` and return how it stands then."""
        policy = self._policies[tier]
        window_seconds, counted_as = policy.window_seconds, f"{tier}:{key}"
        # Whole seconds, so that what is left of the window, rounded up, ends exactly where the next one begins.
        window, elapsed = divmod(int(self._clock()) + crc32(counted_as.encode()) % window_seconds, window_seconds)
        count = self._add(counted_as, window, window_seconds)
        return Standing(policy, policy.quota - count, window_seconds - elapsed)

    def admit(self, environ: dict[str, Any], tier: Tier | None, key: str) -> None:
        """Count one request and note how its sender stands, for the answer's headers; a tier of None has no limit.

        Raises RateLimited.
        """
        if tier is None:
            return
        standing = environ[ENVIRON_KEY] = self.take(tier, key)
        if standing.remaining < 0:
            raise refusal(standing)

    def admit_address(self, environ: dict[str, Any], tier: Tier | None) -> None:
        """Count one request of a client address that nobody stands behind. Raises RateLimited."""
        self.admit(environ, tier, client_address(environ, self._trusted_proxies))

    def admit_attempt(self, environ: dict[str, Any]) -> None:
        """Count one request of a client address that failed to say who it is. Raises RateLimited."""
        address = client_address(environ, self._trusted_proxies)
        standing = environ[ENVIRON_KEY] = self.take("attempts", address)
        if standing.remaining <= 0:
            if len(self._spent) >= _MOST_SPENT:
                self._spent.clear()
            self._spent[address] = self._clock() + standing.reset_seconds
        if standing.remaining < 0:
            raise refusal(standing)

    def refuse_spent(self, environ: dict[str, Any]) -> None:
        """Refuse an address that has used up its attempts, as far as this process has seen; counts nothing.

        For what one more attempt would cost others. Raises RateLimited.
        """
        address = client_address(environ, self._trusted_proxies)
        until = self._spent.get(address)
        if until is None:
            return
        policy, seconds = self._policies["attempts"], ceil(until - self._clock())
        if not 0 < seconds <= policy.window_seconds:  # it has ended, or the clock was set
            self._spent.pop(address, None)
            return
        standing = environ[ENVIRON_KEY] = Standing(policy, -1, seconds)
        raise refusal(standing)


def refusal(standing: Standing) -> RateLimited:
    """Return the refusal of somebody who has used up a policy."""
    policy = standing.policy
    return RateLimited(
        f"The limit {policy.name!r} allows {policy.quota} requests in {policy.window_seconds} seconds. "
        f"It allows more in {standing.reset_seconds} seconds.",
        retry_after_seconds=standing.reset_seconds,
        members={"policy": policy.name},
    )


def client_address(environ: Mapping[str, Any], trusted_proxies: int) -> str:
    """Return the network that a request comes from: an IPv4 address, or the /64 that a household has of IPv6.

    Each proxy appends to X-Forwarded-For whom it heard; what stands left of our own proxies' entries is the client's
    invention. So with n proxies the n-th entry from the right counts, and with none the header says nothing. Whatever
    is no address there leaves the peer's.
    """
    peer: str = environ.get("REMOTE_ADDR") or "unknown"
    if trusted_proxies and "HTTP_X_FORWARDED_FOR" in environ:
        heard = environ["HTTP_X_FORWARDED_FOR"].split(",")[-trusted_proxies:][0]
        return _network(heard.strip()) or _network(peer) or peer
    return _network(peer) or peer


@lru_cache(maxsize=4096)
def _network(text: str) -> str | None:
    if text.startswith("["):  # [2001:db8::1]:443, as some proxies have it
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:  # 192.0.2.1:443
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"

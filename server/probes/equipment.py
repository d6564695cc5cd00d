"""What all probes of a process share: the guard, the look-ups, libcurl, the roots, and threads for long work."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pycurl

from server.egress import Egress
from server.features.checks.rules import ErrorKind, Finding, Observation
from server.probes.assertions import Assertion
from server.probes.check import Check
from server.probes.findings import Evidence, estimate_cost, find_failure, weigh
from server.probes.names import Lookup, Names
from server.probes.trouble import Trouble, fail

# Up to here, assertions are weighed where they stand: 2 ms at the very worst. RE2 lets other threads run meanwhile,
# so that what is more than that keeps nobody else waiting.
INLINE_COST = 250_000
WEIGHING_THREADS = 2
WEIGHING_SECONDS = 5.0


class Equipment:
    """Made once for any number of checks on one event loop, and closed after them."""

    def __init__(self, egress: Egress, names: Names, ca_path: str) -> None:
        self.egress = egress
        self.ca_path = ca_path
        self.multi = pycurl.AsyncCurlMulti()
        self._names = names
        self._weighers = ThreadPoolExecutor(WEIGHING_THREADS, thread_name_prefix="weighing")

    async def close(self) -> None:
        """End what is under way."""
        self._weighers.shutdown(wait=False, cancel_futures=True)
        await self.multi.aclose()

    async def look_up(self, host: str, timeout_seconds: float, is_address: bool) -> Lookup:
        """Return a host's addresses; an address is its own, without asking anybody."""
        if is_address:
            return Lookup((host,), 0.0)
        return await self._names.look_up(host, timeout_seconds)

    async def conclude(self, check: Check, evidence: Evidence, seen: Observation) -> Observation:
        """Return what was seen with what its assertions found; one that does not hold fails it, if nothing else has."""
        if not check.assertions:
            return seen
        try:
            findings = await self.weigh(check.assertions, evidence)
        except TimeoutError:
            return fail(seen, Trouble(ErrorKind.INTERNAL, "the assertions took too long to be held against the answer"))
        seen = replace(seen, findings=findings)
        failure = find_failure(findings)
        return seen if failure is None or not seen.ok else fail(seen, failure)

    async def weigh(self, assertions: Sequence[Assertion], evidence: Evidence) -> tuple[Finding, ...]:
        """Hold assertions against what was seen. Raises TimeoutError where that takes too long."""
        if estimate_cost(assertions, evidence) <= INLINE_COST:
            return weigh(assertions, evidence)
        given_up = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(WEIGHING_SECONDS):
                return await loop.run_in_executor(self._weighers, weigh, assertions, evidence, given_up.is_set)
        finally:
            given_up.set()

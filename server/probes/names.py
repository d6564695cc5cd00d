"""Names to addresses, for many checks at once, of which some name servers never answer.

libcurl's own resolver is not used: a stuck look-up outlives its check's timeout by the resolver's own (10 s and more),
holds one of the 20 threads that all checks share, and blocks whoever closes the handle. Measured: a check with a
timeout of 1 s took 10 s, and ten stuck names kept every other name from being looked up.
"""

import asyncio
import contextlib
import socket
import threading
from typing import NamedTuple

from server.egress import Resolve
from server.probes.timing import Watch, to_ms

MOST_AT_ONCE = 256


class Lookup(NamedTuple):
    """The addresses of a host, in the order to try them, and how long it took to learn them; none for no such name."""

    addresses: tuple[str, ...]
    seconds: float
    timed_out: bool = False

    @property
    def ms(self) -> float | None:
        """How long it took; None where nobody was asked, or nobody answered."""
        return None if self.timed_out or not self.seconds else to_ms(self.seconds)


class Names:
    """Looks names up with the system's resolver, afresh each time, in a thread for each that may be left behind.

    At most `MOST_AT_ONCE` threads, those left behind included. The threads are daemons, so that a stuck one does not
    hold up the end of the process.
    """

    def __init__(self, resolve: Resolve = socket.getaddrinfo) -> None:
        self._resolve = resolve
        self._free = asyncio.Semaphore(MOST_AT_ONCE)

    async def look_up(self, host: str, timeout_seconds: float) -> Lookup:
        """Return the addresses of an ASCII `host`, or that they were not known in time."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Lookup | Exception] = loop.create_future()

        def finish(result: Lookup | Exception) -> None:
            self._free.release()
            if not found.done():
                found.set_result(result)

        def work() -> None:
            result = self._ask(host)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish, result)

        try:
            async with asyncio.timeout(timeout_seconds):
                await self._free.acquire()
                threading.Thread(target=work, daemon=True, name="look-up").start()
                result = await found
        except TimeoutError:
            return Lookup((), timeout_seconds, timed_out=True)
        if isinstance(result, Exception):
            raise result
        return result

    def _ask(self, host: str) -> Lookup | Exception:
        watch = Watch()
        try:
            found = self._resolve(host.encode("ascii"), None, type=socket.SOCK_STREAM)
        except socket.gaierror:
            return Lookup((), watch.seconds())
        except Exception as error:
            return error
        # libcurl takes no zones (`fe80::1%2`); they are link-local, and not for a public name to hold.
        addresses = dict.fromkeys(address[0] for *_, address in found if not (len(address) == 4 and address[3]))
        return Lookup(tuple(addresses), watch.seconds())

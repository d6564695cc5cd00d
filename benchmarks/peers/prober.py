"""Our prober by itself: `python -m benchmarks.peers.prober URL IN_FLIGHT SECONDS` prints {checks, failed}.

At full speed, and else as the worker runs it: every check on a connection of its own, with status, body, phases, and
the guard at the socket.
"""

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from ipaddress import ip_network

import uvloop

from server.egress import Egress
from server.probes.kinds import read_check
from server.probes.prober import Prober


async def run(url: str, in_flight: int, seconds: float) -> dict[str, int]:
    """Check again and again, so many at once, for so long."""
    counts = {"checks": 0, "failed": 0}
    ends_at = time.monotonic() + seconds
    async with Prober(Egress((ip_network("127.0.0.1/32"),))) as prober:

        async def keep_checking() -> None:
            while time.monotonic() < ends_at:
                seen = await prober.check(read_check("http", url, 10), datetime.now(UTC))
                counts["checks" if seen.ok else "failed"] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(keep_checking())
    return counts


if __name__ == "__main__":
    target, places, duration = sys.argv[1:]
    print(json.dumps(uvloop.run(run(target, int(places), float(duration)))))

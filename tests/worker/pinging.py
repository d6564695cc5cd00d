"""Icmp checks in a network of their own, where pings are permitted or not as told: `unshare` of util-linux makes it.

Run as a program, it makes the checks that stand on its standard input, all at once, and prints what was seen, as JSON.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import uvloop

from server.egress import Egress
from server.features.checks.rules import Observation
from server.probes.check import Check
from server.probes.kinds import read_check
from server.probes.prober import Prober
from tests.worker.probing import STARTED_AT, resolve

# 192.0.2.0/24 leads to the loopback device, where nobody has those addresses: what is sent there is lost.
_SETUP = 'ip link set lo up && ip route add 192.0.2.0/24 dev lo && {permit} && exec "$0" -m tests.worker.pinging'
_PERMIT = 'echo "0 0" > /proc/sys/net/ipv4/ping_group_range'  # a new network permits nobody


def ping(*checks: dict[str, Any], permitted: bool = True) -> list[dict[str, Any]]:
    """Make icmp checks: `target`, and what else `read_check` takes."""
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("ip") is None:
        pytest.skip("needs unshare (util-linux) and ip (iproute2)")
    if subprocess.run([unshare, "-rn", "ip", "link", "set", "lo", "up"], capture_output=True).returncode:
        pytest.skip("this system does not let us make a network of our own (unshare -rn)")
    done = subprocess.run(
        [unshare, "-rn", "sh", "-c", _SETUP.format(permit=_PERMIT if permitted else "true"), sys.executable],
        input=json.dumps(checks),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen


async def _check_all(checks: Sequence[Check]) -> list[Observation]:
    egress = Egress((ip_network("127.0.0.0/8"), ip_network("192.0.0.0/16")))
    async with Prober(egress, resolve=resolve) as prober:
        return await asyncio.gather(*(prober.check(check, STARTED_AT) for check in checks))


if __name__ == "__main__":
    to_make = [read_check("icmp", **check) for check in json.load(sys.stdin)]
    json.dump([asdict(seen) for seen in uvloop.run(_check_all(to_make))], sys.stdout, default=str)

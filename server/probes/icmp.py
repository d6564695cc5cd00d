"""The icmp check: echo requests, how many were answered, and how fast."""

import asyncio
import os
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from typing import Annotated

from icmplib import AsyncSocket, ICMPLibError, ICMPRequest, ICMPv4Socket, ICMPv6Socket, SocketPermissionError
from icmplib.utils import unique_identifier
from pydantic import BaseModel, ConfigDict, Field

from server.egress import read_literal
from server.features.checks.rules import ErrorKind, Observation, Timings
from server.fields import WHOLE
from server.probes.check import Check
from server.probes.equipment import Equipment
from server.probes.findings import Evidence
from server.probes.timing import Watch, to_ms
from server.probes.trouble import Trouble, describe_block, fail, find_lookup_trouble

_SPACING_SECONDS = 0.2
# icmplib counts by the clock on the wall, which somebody may set: the check's own time is kept outside of it.
_FOREVER_SECONDS = 86_400.0 * 365
_NOT_PERMITTED = "this worker may not send pings: let the sysctl net.ipv4.ping_group_range include its group"


class IcmpOptions(BaseModel):
    """How an icmp check goes."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"packets": 3}]})

    packets: Annotated[
        int, Field(ge=1, le=10, description="How many echo requests to send. Down is where none is answered."), WHOLE
    ] = 3


async def probe_icmp(equipment: Equipment, check: Check, host: str, seen: Observation) -> Observation:
    """Send the packets, spread over a part of the time, and wait for each until the time is over.

    `total_ms` is the round trip's average over those that came back.
    """
    assert isinstance(check.options, IcmpOptions)
    watch, packets = Watch(), check.options.packets
    lookup = await equipment.look_up(host, check.timeout_seconds, read_literal(host) is not None)
    seen = replace(seen, timings=Timings(dns_ms=lookup.ms, total_ms=watch.ms()))
    if trouble := find_lookup_trouble(host, lookup):
        return fail(seen, trouble)
    address = next((each for each in lookup.addresses if equipment.egress.permits(each)), None)
    if address is None:
        return fail(seen, describe_block(host, lookup.addresses))
    try:
        sent = await _ping(address, packets, check.timeout_seconds - watch.seconds())
    except SocketPermissionError:
        return fail(seen, Trouble(ErrorKind.UNSUPPORTED, _NOT_PERMITTED))
    seconds = [each for each in sent if isinstance(each, float)]
    loss_percent = round(100 * (packets - len(seconds)) / packets, 1)
    seen = replace(seen, remote_ip=address, timings=replace(seen.timings, total_ms=watch.ms()))
    if not seconds:
        reason = next((f": {each}" for each in sent if isinstance(each, str)), "")
        seen = fail(seen, Trouble(ErrorKind.LOSS, f"none of {packets} packets came back{reason}"))
    else:
        seen = replace(seen, timings=replace(seen.timings, total_ms=to_ms(sum(seconds) / len(seconds))))
    response_ms = seen.timings.total_ms if seconds else None
    return await equipment.conclude(check, Evidence(response_ms=response_ms, loss_percent=loss_percent), seen)


async def _ping(address: str, packets: int, timeout_seconds: float) -> list[float | str | None]:
    """Return each packet's round trip in seconds, or what the system said, or None where nothing came in time.

    Raises SocketPermissionError.
    """
    spacing = min(_SPACING_SECONDS, max(0.0, timeout_seconds) / (2 * packets))
    socket_class = ICMPv6Socket if ip_address(address).version == 6 else ICMPv4Socket
    with ExitStack() as opened:
        sockets = [opened.enter_context(AsyncSocket(socket_class(privileged=False))) for _ in range(packets)]
        pings = [
            _ping_once(each, address, number, number * spacing, timeout_seconds) for number, each in enumerate(sockets)
        ]
        return await asyncio.gather(*pings)


async def _ping_once(
    opened: AsyncSocket, address: str, number: int, delay_seconds: float, timeout_seconds: float
) -> float | str | None:
    """Send one packet over a socket of its own, to that very address, and wait for its echo."""
    await asyncio.sleep(delay_seconds)
    request = ICMPRequest(destination=address, id=unique_identifier(), sequence=number)
    try:
        async with asyncio.timeout(timeout_seconds - delay_seconds):
            watch = Watch()
            opened.send(request)
            reply = await opened.receive(request, _FOREVER_SECONDS)
            seconds = watch.seconds()
            reply.raise_for_status()
            return seconds
    except TimeoutError:
        return None
    except ICMPLibError as error:
        cause = error.__context__
        return os.strerror(cause.errno).lower() if isinstance(cause, OSError) and cause.errno else str(error).lower()

"""A TCP connection to the first of a host's addresses that takes one, none of them beside the guard."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from ipaddress import ip_address

from server.egress import Egress
from server.probes.timing import Watch
from server.probes.trouble import Trouble, describe_block, describe_error

# RFC 8305: how long one address may keep the next one waiting.
_HEAD_START_SECONDS = 0.25


async def connect(host: str, addresses: Sequence[str], port: int, egress: Egress) -> socket.socket | Trouble:
    """Return a connected, non-blocking socket, which the caller closes, or why there is none.

    Each address is tried a quarter of a second after the one before it, or when that one has failed; the first to
    connect wins. The guard is asked about the very address that the socket connects to: nothing is resolved again.
    """
    permitted = [address for address in addresses if egress.permits(address)]
    if not permitted:
        return describe_block(host, addresses)
    attempts: list[asyncio.Task[socket.socket]] = []
    winner: socket.socket | None = None
    try:
        for address in permitted:
            attempts.append(asyncio.create_task(_open(address, port)))
            winner = await _wait_for_one(attempts, _HEAD_START_SECONDS)
            if winner is not None:
                return winner
        winner = await _wait_for_one(attempts, None)
        return winner if winner is not None else _explain(attempts)
    finally:
        await _drop(attempts, winner)


async def _wait_for_one(attempts: Sequence[asyncio.Task[socket.socket]], seconds: float | None) -> socket.socket | None:
    """Return the first socket to connect, or None where all have failed, or the time is over."""
    watch = Watch()
    while pending := [attempt for attempt in attempts if not attempt.done()]:
        left = None if seconds is None else max(0.0, seconds - watch.seconds())
        done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for attempt in done:
            if attempt.exception() is None:
                return attempt.result()
        if not done:
            return None
    return None


async def _open(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, (address, port))
    except BaseException:
        opened.close()
        raise
    return opened


def _explain(attempts: Sequence[asyncio.Task[socket.socket]]) -> Trouble:
    """Say why the last of them failed."""
    error = attempts[-1].exception()
    if not isinstance(error, OSError):
        raise error or AssertionError("an attempt that failed has an exception")
    return describe_error(error, "could not connect")


async def _drop(attempts: Sequence[asyncio.Task[socket.socket]], winner: socket.socket | None) -> None:
    for attempt in attempts:
        attempt.cancel()
    for result in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(result, socket.socket) and result is not winner:
            with contextlib.suppress(OSError):
                result.close()

"""The tcp check: a connection, something to say, and what comes back."""

import asyncio
import socket
from dataclasses import replace
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from server.features.checks.rules import ErrorKind, Observation, Timings
from server.fields import WITHOUT_NUL
from server.probes.assertions import Subject
from server.probes.check import Check
from server.probes.connecting import connect
from server.probes.equipment import Equipment
from server.probes.findings import Evidence
from server.probes.places import HostPort
from server.probes.timing import Watch
from server.probes.trouble import Trouble, describe_error, fail, find_lookup_trouble

MAX_RECEIVED_BYTES = 65_536
# What comes is looked at when it has doubled, or when it pauses: however it drips, it is not read again for each byte.
_PAUSE_SECONDS = 0.05


class TcpOptions(BaseModel):
    """How a tcp check goes."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"send": "PING\r\n"}]})

    send: Annotated[
        Annotated[str, Field(max_length=4096), WITHOUT_NUL] | None,
        Field(description="What to send once it is connected, as UTF-8. Null: nothing; many servers speak first."),
    ] = None


async def probe_tcp(equipment: Equipment, check: Check, place: HostPort, seen: Observation) -> Observation:
    """Connect, send, and read until the assertions hold, the peer is done, it is enough, or the time is over."""
    watch = Watch()
    lookup = await equipment.look_up(place.host, check.timeout_seconds, place.is_address)
    seen = replace(seen, timings=Timings(dns_ms=lookup.ms, total_ms=watch.ms()))
    if trouble := find_lookup_trouble(place.host, lookup):
        return fail(seen, trouble)
    connecting = Watch()
    try:
        async with asyncio.timeout(check.timeout_seconds - watch.seconds()):
            opened = await connect(place.host, lookup.addresses, place.port, equipment.egress)
    except TimeoutError:
        opened = Trouble(ErrorKind.TIMEOUT, "timed out while connecting")
    seen = _timed(seen, watch)
    if isinstance(opened, Trouble):
        return fail(seen, opened)
    with opened:
        seen = replace(_timed(seen, watch, connect_ms=connecting.ms()), remote_ip=opened.getpeername()[0])
        talk = _Talk(equipment, check, opened)
        trouble = await talk.run(check.timeout_seconds - watch.seconds())
    seen = _timed(seen, watch, first_byte_ms=talk.first_byte_ms)
    evidence = Evidence(response_ms=seen.timings.total_ms, received=talk.received or None)
    return await equipment.conclude(check, evidence, fail(seen, trouble) if trouble else seen)


def _timed(seen: Observation, watch: Watch, **phases: float | None) -> Observation:
    return replace(seen, timings=replace(seen.timings, **phases, total_ms=watch.ms()))


class _Talk:
    """What is said and heard over a connection that stands."""

    def __init__(self, equipment: Equipment, check: Check, connection: socket.socket) -> None:
        assert isinstance(check.options, TcpOptions)
        self._equipment = equipment
        self._connection = connection
        self._says = (check.options.send or "").encode()
        self._awaited = [each for each in check.assertions if each.subject is Subject.RECEIVED]
        self._received = bytearray()
        self._watch = Watch()
        self.first_byte_ms: float | None = None

    @property
    def received(self) -> bytes:
        """What was heard."""
        return bytes(self._received)

    async def run(self, timeout_seconds: float) -> Trouble | None:
        """Send and listen; return what broke. Whether what was heard is right is for the assertions to say."""
        doing = "sending"
        try:
            async with asyncio.timeout(timeout_seconds):
                if self._says:
                    await asyncio.get_running_loop().sock_sendall(self._connection, self._says)
                doing = "waiting for an answer"
                if self._awaited:
                    await self._listen()
        except OSError as error:
            if not isinstance(error, TimeoutError) or error.errno is not None:
                return describe_error(error, f"the connection broke while {doing}")
            return None if self._received else Trouble(ErrorKind.TIMEOUT, f"timed out while {doing}")
        return None

    async def _listen(self) -> None:
        looked_at = 0
        receiving: asyncio.Task[bytes] | None = None
        try:
            while len(self._received) < MAX_RECEIVED_BYTES:
                # A read is not cut off at a pause: what it has just taken from the socket would be lost.
                receiving = receiving or asyncio.create_task(self._receive())
                pause = _PAUSE_SECONDS if looked_at < len(self._received) else None
                if (await asyncio.wait({receiving}, timeout=pause))[0]:
                    chunk, receiving = receiving.result(), None
                    if not chunk:
                        return
                    self._received += chunk
                if receiving is not None or len(self._received) >= 2 * looked_at:
                    if await self._is_enough():
                        return
                    looked_at = len(self._received)
        finally:
            if receiving is not None:
                receiving.cancel()
                await asyncio.wait({receiving})

    async def _receive(self) -> bytes:
        left = MAX_RECEIVED_BYTES - len(self._received)
        chunk = await asyncio.get_running_loop().sock_recv(self._connection, left)
        if self.first_byte_ms is None and chunk:
            self.first_byte_ms = self._watch.ms()
        return chunk

    async def _is_enough(self) -> bool:
        findings = await self._equipment.weigh(self._awaited, Evidence(received=self.received))
        return all(finding.holds for finding in findings)

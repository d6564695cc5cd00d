"""Runs checks, whichever kind they are of."""

import logging
import socket
from datetime import datetime
from types import TracebackType
from typing import Self

import certifi
import uvloop

from server.egress import Egress, Resolve
from server.features.checks.rules import ErrorKind, Observation
from server.probes.check import Check
from server.probes.equipment import Equipment
from server.probes.kinds import KINDS
from server.probes.names import Names
from server.probes.trouble import Trouble, fail

logger = logging.getLogger(__name__)


class Prober:
    """Runs any number of checks at once on one event loop.

    Use as `async with Prober(egress) as prober`. `ca_path` is a PEM file of the roots that are trusted.
    """

    def __init__(self, egress: Egress, *, ca_path: str | None = None, resolve: Resolve = socket.getaddrinfo) -> None:
        self._egress = egress
        self._ca_path = ca_path or certifi.where()
        self._names = Names(resolve)
        self._equipment: Equipment | None = None

    async def __aenter__(self) -> Self:
        self._equipment = Equipment(self._egress, self._names, self._ca_path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        equipment, self._equipment = self._equipment, None
        if equipment is not None:
            await equipment.close()

    async def check(self, check: Check, started_at: datetime) -> Observation:
        """Run one check; whatever the target does is in the observation, never an exception."""
        assert self._equipment is not None, "a Prober is used inside `async with`"
        kind, seen = KINDS[check.kind], Observation(started_at)
        try:
            place = kind.read_target(check.target)
        except ValueError as error:
            return fail(seen, Trouble(ErrorKind.PROTOCOL, f"cannot check {check.target[:120]}: {error}"))
        try:
            return await kind.probe(self._equipment, check, place, seen)
        except Exception as error:
            # Without the query: it may hold a secret of the user's.
            about = {"kind": check.kind, "target": check.target.partition("?")[0]}
            logger.exception("a check failed in an unforeseen way", extra=about)
            return fail(seen, Trouble(ErrorKind.INTERNAL, f"the probe itself failed: {type(error).__name__}"))


def check_once(
    check: Check,
    egress: Egress,
    started_at: datetime,
    *,
    ca_path: str | None = None,
    resolve: Resolve = socket.getaddrinfo,
) -> Observation:
    """Run one check and wait for it, in a thread that has no event loop: for a preview."""

    async def run() -> Observation:
        async with Prober(egress, ca_path=ca_path, resolve=resolve) as prober:
            return await prober.check(check, started_at)

    return uvloop.run(run())  # the worker's kind of loop: what a preview says is what will be

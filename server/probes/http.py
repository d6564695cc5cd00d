"""The http check: one GET, its redirects, and what was seen of it.

libcurl does the work (docs/decisions.md has the figures): it reports each phase, and shows every address before it
connects. Redirects are followed here and not by libcurl, so that each hop has a fresh look-up and connection, timings
of its own, and a scheme that was looked at.
"""

import asyncio
import logging
import socket
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import certifi
import pycurl

from server.details import clean_detail
from server.egress import Egress, Resolve
from server.features.checks.rules import ErrorKind, Observation, Timings
from server.features.monitors.rules import HttpCheck
from server.probes.faults import Fault, find_lookup_trouble, find_trouble
from server.probes.hop import Hop, Place, Stop, locate, to_ms
from server.probes.names import Lookup, Names

logger = logging.getLogger(__name__)


class HttpProber:
    """Runs any number of http checks at once on one event loop.

    Use as `async with HttpProber(egress) as prober`. `ca_path` is a PEM file of the roots that are trusted.
    """

    def __init__(self, egress: Egress, *, ca_path: str | None = None, resolve: Resolve = socket.getaddrinfo) -> None:
        self._egress = egress
        self._ca_path = ca_path or certifi.where()
        self._names = Names(resolve)
        self._multi: pycurl.AsyncCurlMulti | None = None

    async def __aenter__(self) -> Self:
        self._multi = pycurl.AsyncCurlMulti()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        multi, self._multi = self._multi, None
        if multi is not None:
            await multi.aclose()

    async def check(self, check: HttpCheck, started_at: datetime) -> Observation:
        """Run one check; whatever the target does is in the observation, never an exception."""
        assert self._multi is not None, "an HttpProber is used inside `async with`"
        try:
            return await self._visit(self._multi, check, Observation(started_at))
        except Exception as error:
            # Without the query: it may hold a secret of the user's.
            logger.exception("http check failed in an unforeseen way", extra={"target": check.url.partition("?")[0]})
            detail = f"the probe itself failed: {type(error).__name__}"
            return _fail(Observation(started_at), ErrorKind.INTERNAL, detail)

    async def _visit(self, multi: pycurl.AsyncCurlMulti, check: HttpCheck, seen: Observation) -> Observation:
        """Look up, ask and follow redirects, until there is something to judge or the time is over."""
        target, spent_seconds = check.url, 0.0
        for followed in range(check.max_redirects + 1):
            try:
                place = locate(target)
            except ValueError as error:
                kind, verb = (ErrorKind.REDIRECTS, "redirects to") if followed else (ErrorKind.PROTOCOL, "cannot check")
                return _fail(seen, kind, f"{verb} {target[:120]}: {error}")
            lookup = await self._look_up(place, check.timeout_seconds - spent_seconds)
            if trouble := find_lookup_trouble(place, lookup):
                return _fail(_add_lookup(seen, lookup, spent_seconds), *trouble)
            left_seconds = check.timeout_seconds - spent_seconds - lookup.seconds
            follows = check.max_redirects > 0
            with Hop(
                place, lookup, egress=self._egress, ca_path=self._ca_path, timeout_seconds=left_seconds, follows=follows
            ) as hop:
                fault = await _transfer(multi, hop.curl)
                spent_seconds += hop.total_seconds
                seen = _add_hop(seen, hop, spent_seconds)
                if hop.stop is not Stop.REDIRECT:
                    trouble = find_trouble(hop, fault, check.expected_status)
                    return seen if trouble is None else _fail(seen, *trouble)
                target = _join(place.url, hop.location or "")
        return _fail(seen, ErrorKind.REDIRECTS, f"more than {check.max_redirects} redirects")

    async def _look_up(self, place: Place, timeout_seconds: float) -> Lookup:
        if place.is_address:
            return Lookup((place.host,), 0.0)
        return await self._names.look_up(place.host, timeout_seconds)


def check_once(
    check: HttpCheck,
    egress: Egress,
    started_at: datetime,
    *,
    ca_path: str | None = None,
    resolve: Resolve = socket.getaddrinfo,
) -> Observation:
    """Run one check and wait for it, in a thread that has no event loop: for a preview."""

    async def run() -> Observation:
        async with HttpProber(egress, ca_path=ca_path, resolve=resolve) as prober:
            return await prober.check(check, started_at)

    return asyncio.run(run())


async def _transfer(multi: pycurl.AsyncCurlMulti, curl: pycurl.Curl) -> Fault | None:
    try:
        await multi.perform(curl)
    except pycurl.error as error:
        code, message = error.args
        return Fault(int(code), str(message))
    return None


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return location  # which `locate` then refuses


def _add_lookup(seen: Observation, lookup: Lookup, spent_seconds: float) -> Observation:
    dns_ms = None if lookup.timed_out else to_ms(lookup.seconds)
    timings = Timings(dns_ms=dns_ms, total_ms=to_ms(spent_seconds + lookup.seconds))
    return replace(seen, timings=timings, status_code=None, remote_ip=None)


def _add_hop(seen: Observation, hop: Hop, spent_seconds: float) -> Observation:
    expiries = [expiry for expiry in (seen.tls_expires_at, hop.tls_expires_at) if expiry is not None]
    return replace(
        seen,
        timings=hop.timings(spent_seconds),
        status_code=hop.status_code,
        remote_ip=hop.remote_ip,
        tls_expires_at=min(expiries, default=None),  # whichever runs out first breaks the check
    )


def _fail(seen: Observation, kind: ErrorKind, detail: str) -> Observation:
    return replace(seen, error_kind=kind, error_detail=clean_detail(detail))

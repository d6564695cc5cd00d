"""The http check: one GET, its redirects, and what was seen of it.

libcurl does the work (docs/decisions.md has the figures): it reports each phase, and shows every resolved address
before it connects. Redirects are followed here and not by libcurl, so that each hop has a fresh connection, timings
of its own, and a scheme that was looked at.
"""

import logging
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import certifi
import pycurl

from server.details import clean_detail
from server.egress import Egress
from server.features.monitors.rules import ErrorKind, HttpCheck, Observation
from server.probes.faults import Fault, find_trouble
from server.probes.hop import Hop, Stop, to_ascii

logger = logging.getLogger(__name__)


class HttpProber:
    """Runs any number of http checks at once on one event loop.

    Use as `async with HttpProber(egress) as prober`. `ca_path` is a PEM file of the roots that are trusted.
    """

    def __init__(self, egress: Egress, *, ca_path: str | None = None) -> None:
        self._egress = egress
        self._ca_path = ca_path or certifi.where()
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
            with closing(_visit(check, self._egress, self._ca_path, started_at)) as visit:
                curl = next(visit)
                while True:
                    curl = visit.send(await _transfer(self._multi, curl))
        except StopIteration as end:
            return _seen(end)
        except Exception as error:
            return _unforeseen(error, check, started_at)


def check_once(check: HttpCheck, egress: Egress, started_at: datetime, *, ca_path: str | None = None) -> Observation:
    """Run one check in the calling thread and wait for it: for a preview, outside of any event loop."""
    try:
        with closing(_visit(check, egress, ca_path or certifi.where(), started_at)) as visit:
            curl = next(visit)
            while True:
                curl = visit.send(_perform(curl))
    except StopIteration as end:
        return _seen(end)
    except Exception as error:
        return _unforeseen(error, check, started_at)


def _visit(
    check: HttpCheck, egress: Egress, ca_path: str, started_at: datetime
) -> Generator[pycurl.Curl, Fault | None, Observation]:
    """Yield one transfer after another, be sent each one's fault, and return what the whole check saw.

    Knows nothing of how a transfer is driven, so that the event loop and a plain thread share it.
    """
    seen = Observation(started_at)
    target, spent_seconds = check.url, 0.0
    for followed in range(check.max_redirects + 1):
        try:
            url = to_ascii(target)
        except ValueError as error:
            kind, verb = (ErrorKind.REDIRECTS, "redirects to") if followed else (ErrorKind.PROTOCOL, "cannot check")
            return _fail(seen, kind, f"{verb} {target[:120]}: {error}")
        left_seconds = check.timeout_seconds - spent_seconds
        if left_seconds <= 0:
            return _fail(seen, ErrorKind.TIMEOUT, "timed out while following redirects")
        follows = check.max_redirects > 0
        with Hop(url, egress=egress, ca_path=ca_path, timeout_seconds=left_seconds, follows=follows) as hop:
            fault = yield hop.curl
            spent_seconds += hop.total_seconds
            seen = _add_hop(seen, hop, spent_seconds)
            if hop.stop is not Stop.REDIRECT:
                trouble = find_trouble(hop, fault, check.expected_status)
                return seen if trouble is None else _fail(seen, *trouble)
            target = _join(url, hop.location or "")
    return _fail(seen, ErrorKind.REDIRECTS, f"more than {check.max_redirects} redirects")


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return location  # which `to_ascii` then refuses


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


def _seen(end: StopIteration) -> Observation:
    observation: Observation = end.value
    return observation


def _unforeseen(error: Exception, check: HttpCheck, started_at: datetime) -> Observation:
    # Without the query: it may hold a secret of the user's.
    logger.exception("http check failed in an unforeseen way", extra={"target": check.url.partition("?")[0]})
    return _fail(Observation(started_at), ErrorKind.INTERNAL, f"the probe itself failed: {type(error).__name__}")


async def _transfer(multi: pycurl.AsyncCurlMulti, curl: pycurl.Curl) -> Fault | None:
    try:
        await multi.perform(curl)
    except pycurl.error as error:
        return _fault(error)
    return None


def _perform(curl: pycurl.Curl) -> Fault | None:
    try:
        curl.perform()
    except pycurl.error as error:
        return _fault(error)
    return None


def _fault(error: pycurl.error) -> Fault:
    code, message = error.args
    return Fault(int(code), str(message))

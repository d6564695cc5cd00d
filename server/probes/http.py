"""The http check: one request, its redirects, and what was seen of them.

libcurl does the work (docs/decisions.md has the figures): it reports each phase, and shows every address before it
connects. Redirects are followed here and not by libcurl, so that each hop has a fresh look-up and connection, timings
of its own, and a scheme that was looked at.
"""

from dataclasses import replace
from urllib.parse import urljoin

import pycurl

from server.features.checks.rules import ErrorKind, Observation, Timings
from server.features.monitors.rules import status_ranges
from server.probes.assertions import Subject
from server.probes.check import Check
from server.probes.equipment import Equipment
from server.probes.faults import Fault, find_trouble
from server.probes.findings import Evidence, count_days
from server.probes.hop import Hop, Stop
from server.probes.http_options import HttpOptions
from server.probes.names import Lookup
from server.probes.places import Place, locate
from server.probes.request import make_request, redirect
from server.probes.timing import to_ms
from server.probes.trouble import Trouble, fail, find_lookup_trouble


async def probe_http(equipment: Equipment, check: Check, place: Place, seen: Observation) -> Observation:
    """Look up, ask and follow redirects, until there is something to judge or the time is over."""
    options = check.options
    assert isinstance(options, HttpOptions)
    request = make_request(
        options, keeps_headers=check.reads(Subject.HEADER), keeps_body=check.reads(Subject.BODY, Subject.JSON)
    )
    spent_seconds = 0.0
    for _ in range(options.max_redirects + 1):
        lookup = await equipment.look_up(place.host, check.timeout_seconds - spent_seconds, place.is_address)
        if trouble := find_lookup_trouble(place.host, lookup):
            return fail(_add_lookup(seen, lookup, spent_seconds), trouble)
        left_seconds = check.timeout_seconds - spent_seconds - lookup.seconds
        with Hop(
            place,
            lookup,
            request,
            egress=equipment.egress,
            ca_path=equipment.ca_path,
            timeout_seconds=left_seconds,
            follows=options.max_redirects > 0,
        ) as hop:
            fault = await transfer(equipment.multi, hop.curl)
            spent_seconds += hop.total_seconds
            seen = add_hop(seen, hop, spent_seconds)
            if hop.stop is not Stop.REDIRECT:
                return await _conclude(equipment, check, seen, hop, fault)
            origin, target = place, _join(place.url, hop.location or "")
            try:
                place = locate(target)
            except ValueError as error:
                return fail(seen, Trouble(ErrorKind.REDIRECTS, f"redirects to {target[:120]}: {error}"))
            request = redirect(request, hop.status_code, origin, place)
    return fail(seen, Trouble(ErrorKind.REDIRECTS, f"more than {options.max_redirects} redirects"))


async def _conclude(
    equipment: Equipment, check: Check, seen: Observation, hop: Hop, fault: Fault | None
) -> Observation:
    """Judge the last answer: by its status and what broke, and, where it is whole, by the assertions."""
    assert isinstance(check.options, HttpOptions)
    trouble = find_trouble(hop, fault, status_ranges(check.options.expected_status))
    if trouble is not None:
        seen = fail(seen, trouble)
    if not check.assertions or not (fault is None or hop.stop is Stop.BODY_READ):
        return seen
    evidence = Evidence(
        status=seen.status_code,
        response_ms=seen.timings.total_ms,
        body=bytes(hop.body),
        headers=hop.headers,
        tls_days_left=count_days(seen.tls_expires_at, seen.started_at),
    )
    return await equipment.conclude(check, evidence, seen)


async def transfer(multi: pycurl.AsyncCurlMulti, curl: pycurl.Curl) -> Fault | None:
    """Perform a transfer; return what libcurl says went wrong."""
    try:
        await multi.perform(curl)
    except pycurl.error as error:
        code, message = error.args
        return Fault(int(code), str(message))
    return None


def add_hop(seen: Observation, hop: Hop, spent_seconds: float) -> Observation:
    """Return what was seen, with a hop more."""
    expiries = [expiry for expiry in (seen.tls_expires_at, hop.tls_expires_at) if expiry is not None]
    return replace(
        seen,
        timings=hop.timings(spent_seconds),
        status_code=hop.status_code,
        remote_ip=hop.remote_ip,
        tls_expires_at=min(expiries, default=None),  # whichever runs out first breaks the check
    )


def _add_lookup(seen: Observation, lookup: Lookup, spent_seconds: float) -> Observation:
    timings = Timings(dns_ms=lookup.ms, total_ms=to_ms(spent_seconds + lookup.seconds))
    return replace(seen, timings=timings, status_code=None, remote_ip=None)


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return location  # which `locate` then refuses

"""The tls check: a handshake, its certificates, and how long they are good for."""

from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from server.egress import read_literal
from server.features.checks.rules import Observation, Timings
from server.probes.check import Check
from server.probes.equipment import Equipment
from server.probes.faults import find_trouble
from server.probes.findings import Evidence, count_days
from server.probes.hop import Hop
from server.probes.http import add_hop, transfer
from server.probes.places import HostPort, Place, read_host
from server.probes.request import Request
from server.probes.timing import to_ms
from server.probes.trouble import describe_block, fail, find_lookup_trouble


def _check_server_name(name: str) -> str:
    try:
        read = read_host(name)
    except ValueError as error:
        raise PydanticCustomError("server_name_invalid", "{what}", {"what": str(error)}) from None
    if read_literal(read) is not None:
        raise PydanticCustomError("server_name_invalid", "A server name is a host name and no address (RFC 6066).")
    return name


ServerName = Annotated[str, StringConstraints(min_length=1, max_length=253), AfterValidator(_check_server_name)]


class TlsOptions(BaseModel):
    """How a tls check goes. The chain and the host name are always verified."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"server_name": None}]})

    server_name: Annotated[
        ServerName | None,
        Field(description="The name to ask for (SNI), and that the certificate must be for. Null: the target's host."),
    ] = None


async def probe_tls(equipment: Equipment, check: Check, target: HostPort, seen: Observation) -> Observation:
    """Shake hands as https does, by the same libcurl, and say nothing further."""
    assert isinstance(check.options, TlsOptions)
    lookup = await equipment.look_up(target.host, check.timeout_seconds, target.is_address)
    if trouble := find_lookup_trouble(target.host, lookup):
        return fail(_timed(seen, lookup.ms, lookup.seconds), trouble)
    # The guard at the socket would refuse them as well, but in the name of `server_name`.
    if not any(map(equipment.egress.permits, lookup.addresses)):
        return fail(_timed(seen, lookup.ms, lookup.seconds), describe_block(target.host, lookup.addresses))
    name = target.host if check.options.server_name is None else read_host(check.options.server_name)
    with Hop(
        _locate(name, target.port),
        lookup,
        Request(connects_only=True),
        egress=equipment.egress,
        ca_path=equipment.ca_path,
        timeout_seconds=check.timeout_seconds - lookup.seconds,
        follows=False,
    ) as hop:
        fault = await transfer(equipment.multi, hop.curl)
        seen = add_hop(seen, hop, hop.total_seconds)
        if trouble := find_trouble(hop, fault, ()):
            return fail(seen, trouble)
    evidence = Evidence(
        response_ms=seen.timings.total_ms, tls_days_left=count_days(seen.tls_expires_at, seen.started_at)
    )
    return await equipment.conclude(check, evidence, seen)


def _locate(host: str, port: int) -> Place:
    literal = f"[{host}]" if ":" in host else host
    return Place(f"https://{literal}:{port}/", "https", host, port, is_address=read_literal(host) is not None)


def _timed(seen: Observation, dns_ms: float | None, seconds: float) -> Observation:
    return replace(seen, timings=Timings(dns_ms=dns_ms, total_ms=to_ms(seconds)))

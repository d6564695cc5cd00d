"""The dns check: one question to one resolver, and its answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rcode
import dns.resolver
import dns.reversename
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo
from pydantic_core import PydanticCustomError

from server.egress import read_literal
from server.features.checks.rules import ErrorKind, Observation, Timings
from server.probes.assertions import Operator, Subject
from server.probes.check import Check
from server.probes.equipment import Equipment
from server.probes.findings import Evidence
from server.probes.places import HostPort, read_resolver
from server.probes.timing import Watch
from server.probes.trouble import Trouble, describe_block, fail

# dnspython counts by the clock on the wall, which somebody may set: the check's own time is kept outside of it.
_LIFETIME_SECONDS = 86_400.0
_TRY_SECONDS = 2.0


class RecordType(StrEnum):
    """What is asked for."""

    A = "A"
    AAAA = "AAAA"
    CAA = "CAA"
    CNAME = "CNAME"
    MX = "MX"
    NS = "NS"
    PTR = "PTR"
    SOA = "SOA"
    SRV = "SRV"
    TXT = "TXT"


def _check_resolver(resolver: str, info: ValidationInfo) -> str:
    try:
        address, _ = read_resolver(resolver)
    except ValueError as error:
        raise PydanticCustomError("resolver_invalid", "{what}", {"what": str(error)}) from None
    # The early word to whoever types it. The guard that counts is where the question is sent.
    egress = (info.context or {}).get("egress")
    if egress is not None and not egress.permits(address):
        raise PydanticCustomError(
            "resolver_private", "The resolver is in a private network, which this installation does not reach."
        )
    return resolver


Resolver = Annotated[str, StringConstraints(min_length=2, max_length=64), AfterValidator(_check_resolver)]


class DnsOptions(BaseModel):
    """How a dns check goes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"record_type": "MX", "resolver": "9.9.9.9"}]}
    )

    record_type: Annotated[RecordType, Field(description="Which records to ask for.")] = RecordType.A
    resolver: Annotated[
        Resolver | None,
        Field(description="Whom to ask: an IP address, with a port where it is not 53. Null: the worker's own."),
    ] = None


async def probe_dns(equipment: Equipment, check: Check, name: str, seen: Observation) -> Observation:
    """Ask, over UDP and, where an answer does not fit, over TCP; hold the answers against the assertions."""
    options = check.options
    assert isinstance(options, DnsOptions)
    asked = None if options.resolver is None else read_resolver(options.resolver)
    # The worker's own resolver is the operator's choice, wherever it is; another one is a target as any.
    if asked is not None and not equipment.egress.permits(asked.host):
        return fail(seen, describe_block(asked.host, [asked.host]))
    watch = Watch()
    try:
        async with asyncio.timeout(check.timeout_seconds):
            found = await _ask(name, options.record_type, asked, check.timeout_seconds)
    except TimeoutError:
        found = Trouble(ErrorKind.TIMEOUT, "timed out while waiting for the resolver")
    seen = replace(seen, timings=Timings(total_ms=watch.ms()), remote_ip=asked.host if asked is not None else None)
    answers: Sequence[str] = ()
    if not isinstance(found, Trouble):
        answers = sorted(map(_spell, found))
        seen = replace(seen, remote_ip=found.nameserver, timings=replace(seen.timings, dns_ms=seen.timings.total_ms))
    elif not (isinstance(found, _Nothing) and _expects_nothing(check)):
        return fail(seen, found)
    return await equipment.conclude(check, Evidence(response_ms=seen.timings.total_ms, answers=answers), seen)


class _Nothing(Trouble):
    """There is no such name, or it has no such records: which is an answer, and may be the one that is wanted."""


def _expects_nothing(check: Check) -> bool:
    return any(each.subject is Subject.ANSWERS and each.operator is Operator.NOT_EXISTS for each in check.assertions)


async def _ask(
    name: str, record_type: RecordType, asked: HostPort | None, timeout_seconds: float
) -> dns.resolver.Answer | Trouble:
    """Ask a resolver, or the system's own; return its answer, or what it said instead of one."""
    try:
        resolver = dns.asyncresolver.Resolver(configure=asked is None)
    except dns.resolver.NoResolverConfiguration:
        return Trouble(ErrorKind.UNSUPPORTED, "this worker has no resolver: name one in options.resolver")
    if asked is not None:
        resolver.nameservers, resolver.port = [asked.host], asked.port
    resolver.timeout = min(_TRY_SECONDS, timeout_seconds / 2)
    try:
        return await resolver.resolve(_question(name, record_type), record_type, lifetime=_LIFETIME_SECONDS)
    except dns.resolver.NXDOMAIN:
        return _Nothing(ErrorKind.DNS, "NXDOMAIN: there is no such name")
    except dns.resolver.NoAnswer:
        return _Nothing(ErrorKind.DNS, f"the name has no {record_type} records")
    except dns.resolver.NoNameservers as error:
        return _explain(error.kwargs["errors"])
    except dns.resolver.LifetimeTimeout:
        return Trouble(ErrorKind.INTERNAL, "this machine's clock was set back during the check")
    except dns.exception.DNSException as error:
        return Trouble(ErrorKind.DNS, f"the answer leads nowhere: {error}")


def _question(name: str, record_type: RecordType) -> dns.name.Name:
    address = read_literal(name) if record_type is RecordType.PTR else None
    return dns.name.from_text(name) if address is None else dns.reversename.from_address(str(address))


def _explain(errors: Sequence[Any]) -> Trouble:
    """Say what the last resolver said that was asked: (address, over TCP, port, error, response or None)."""
    *_, error, response = errors[-1]
    if response is not None:
        return Trouble(ErrorKind.DNS, f"the resolver answered {dns.rcode.to_text(response.rcode())}")
    if isinstance(error, EOFError):
        return Trouble(ErrorKind.PROTOCOL, "the resolver closed the connection without an answer")
    if isinstance(error, OSError) and error.strerror:
        return Trouble(ErrorKind.CONNECT, f"the resolver could not be asked: {error.strerror.lower()}")
    return Trouble(ErrorKind.DNS, f"the resolver's answer could not be read: {type(error).__name__}")


def _spell(record: Any) -> str:
    """Return a record as people write it: names in lower case and without the last dot, texts without quotes."""
    kind = RecordType(record.rdtype.name)
    if kind is RecordType.TXT:
        return b"".join(record.strings).decode("utf-8", "replace")
    if kind in (RecordType.CNAME, RecordType.NS, RecordType.PTR):
        return _spell_name(record.target)
    if kind is RecordType.MX:
        return f"{record.preference} {_spell_name(record.exchange)}"
    if kind is RecordType.SRV:
        return f"{record.priority} {record.weight} {record.port} {_spell_name(record.target)}"
    if kind is RecordType.SOA:
        numbers = f"{record.serial} {record.refresh} {record.retry} {record.expire} {record.minimum}"
        return f"{_spell_name(record.mname)} {_spell_name(record.rname)} {numbers}"
    return str(record.to_text())


def _spell_name(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()

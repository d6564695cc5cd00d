"""The kinds of check: what each may be told, and what its target looks like."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from server.features.checks.rules import Observation
from server.probes.assertions import MAX_ASSERTIONS, parse
from server.probes.check import Check
from server.probes.dns import DnsOptions, probe_dns
from server.probes.equipment import Equipment
from server.probes.http import probe_http
from server.probes.http_options import HttpOptions
from server.probes.icmp import IcmpOptions, probe_icmp
from server.probes.places import locate, read_host, read_host_port, read_name
from server.probes.tcp import TcpOptions, probe_tcp
from server.probes.tls import TlsOptions, probe_tls


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of check. `read_target` raises ValueError with what is right; what it returns is what `probe` gets."""

    options: type[BaseModel]
    read_target: Callable[[str], Any]
    probe: Callable[[Equipment, Check, Any, Observation], Awaitable[Observation]]


KINDS = {
    "http": Kind(HttpOptions, locate, probe_http),
    "tcp": Kind(TcpOptions, read_host_port, probe_tcp),
    "tls": Kind(TlsOptions, read_host_port, probe_tls),
    "dns": Kind(DnsOptions, read_name, probe_dns),
    "icmp": Kind(IcmpOptions, read_host, probe_icmp),
}


def read_check(
    kind: str,
    target: str,
    timeout_seconds: float,
    options: dict[str, Any] | None = None,
    assertions: Sequence[str] = (),
) -> Check:
    """Read a check from plain values, as the database keeps them. Raises ValueError with what is right."""
    if kind not in KINDS:
        raise ValueError(f"There is no check of the kind {kind}; there are {', '.join(KINDS)}.")
    if len(assertions) > MAX_ASSERTIONS:
        raise ValueError(f"A check has at most {MAX_ASSERTIONS} assertions.")
    try:
        read = KINDS[kind].options.model_validate(options or {})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, ('options', *first['loc'])))}: {first['msg']}") from None
    return Check(kind, target, timeout_seconds, read, tuple(parse(text, kind) for text in assertions))

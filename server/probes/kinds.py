"""The kinds of check: what each may be told, and what its target looks like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from server.probes.assertions import MAX_ASSERTIONS, Assertion, parse
from server.probes.dns import DnsOptions
from server.probes.hop import locate
from server.probes.http_options import HttpOptions
from server.probes.icmp import IcmpOptions
from server.probes.places import read_host, read_host_port, read_name
from server.probes.tcp import TcpOptions
from server.probes.tls import TlsOptions


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of check. `read_target` raises ValueError with what is right; what it returns is the probe's own."""

    options: type[BaseModel]
    read_target: Callable[[str], Any]


KINDS = {
    "http": Kind(HttpOptions, locate),
    "tcp": Kind(TcpOptions, read_host_port),
    "tls": Kind(TlsOptions, read_host_port),
    "dns": Kind(DnsOptions, read_name),
    "icmp": Kind(IcmpOptions, read_host),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One check to be made: `options` is the kind's own model, `timeout_seconds` is for all of it."""

    kind: str
    target: str
    timeout_seconds: float
    options: BaseModel
    assertions: tuple[Assertion, ...] = ()


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

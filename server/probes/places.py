"""Targets as people write them, read: `host:port`, a host, a name, a resolver. All ASCII afterwards."""

import re
from ipaddress import ip_address
from typing import NamedTuple

import idna

from server.egress import read_literal

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
_LONGEST_NAME = 253  # RFC 1035: 255 octets with the lengths of its labels
_LONGEST_LABEL = 63
_DNS_PORT = 53
_HOST_EXAMPLE = "Write a host name or an IP address, as db.example.com or 203.0.113.7."
_HOST_PORT_EXAMPLE = "Write host:port, as db.example.com:5432 or [2001:db8::7]:5432."
_NAME_EXAMPLE = "Write a name to look up, as example.com."
_RESOLVER_EXAMPLE = "Write the resolver's IP address, as 9.9.9.9, 9.9.9.9:5353 or [2620:fe::fe]:53."


class HostPort(NamedTuple):
    """Where a connection goes. `host` is an ASCII name, or an address without brackets."""

    host: str
    port: int


def read_host_port(text: str) -> HostPort:
    """Read `host:port`; IPv6 stands in brackets. Raises ValueError with what is right."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise ValueError(_HOST_PORT_EXAMPLE)
    if bracketed and ":" not in host:
        raise ValueError(_HOST_PORT_EXAMPLE)
    return HostPort(read_host(host[1:-1] if bracketed else host), _read_port(port))


def read_host(text: str) -> str:
    """Read a host name or an IP address. Raises ValueError with what is right."""
    if ":" in text:
        try:
            return str(ip_address(text.removeprefix("[").removesuffix("]")))
        except ValueError:
            raise ValueError(_HOST_EXAMPLE) from None
    # `127.1` and `0x7f.1` are addresses to a resolver: they are spelled out, so that nobody is deceived.
    literal = read_literal(text) if text.strip() == text else None
    return str(literal) if literal is not None else _read_name(text, _HOST_EXAMPLE)


def read_name(text: str) -> str:
    """Read a name to look up in the DNS. Raises ValueError with what is right."""
    return _read_name(text, _NAME_EXAMPLE)


def read_resolver(text: str) -> HostPort:
    """Read a resolver's address, with or without a port. Raises ValueError with what is right."""
    for address, port in ((text, str(_DNS_PORT)), text.rpartition(":")[::2]):
        bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
        try:
            parsed = ip_address(bare)
        except ValueError:
            continue
        if parsed.version == 4 and bare != address:
            break
        if parsed.version == 6 and bare == address and address != text:
            break
        return HostPort(str(parsed), _read_port(port))
    raise ValueError(_RESOLVER_EXAMPLE)


def _read_name(text: str, example: str) -> str:
    name = text.lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode()
        except (idna.IDNAError, UnicodeError):
            raise ValueError(example) from None
    labels = name.removesuffix(".").split(".")
    if not _HOST.fullmatch(name) or len(name) > _LONGEST_NAME or max(map(len, labels)) > _LONGEST_LABEL:
        raise ValueError(example)
    return name


def _read_port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError("A port is a number from 1 to 65535.")
    return int(text)

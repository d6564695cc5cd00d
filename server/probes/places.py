"""Targets as people write them, read: a URL, `host:port`, a host, a name, a resolver. All ASCII afterwards."""

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

import idna

from server.egress import read_literal

_DEFAULT_PORTS = {"http": 80, "https": 443}
_URL_HOST = re.compile(r"[0-9a-z._~-]+|[0-9a-f:.]+(%[0-9a-z._~-]+)?")
_URL_SAFE = "/%:;=&?~+!$,'@()*[]|"
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
_LONGEST_NAME = 253  # RFC 1035: 255 octets with the lengths of its labels
_LONGEST_LABEL = 63
_DNS_PORT = 53
_HOST_EXAMPLE = "Write a host name or an IP address, as db.example.com or 203.0.113.7."
_HOST_PORT_EXAMPLE = "Write host:port, as db.example.com:5432 or [2001:db8::7]:5432."
_NAME_EXAMPLE = "Write a name to look up, as example.com."
_RESOLVER_EXAMPLE = "Write the resolver's IP address, as 9.9.9.9, 9.9.9.9:5353 or [2620:fe::fe]:53."


class Place(NamedTuple):
    """Where an http or https URL points, all ASCII."""

    url: str
    scheme: str
    host: str
    port: int
    is_address: bool


def locate(url: str) -> Place:
    """Return a URL's place: IDNA for the host, percent-encoded UTF-8 for the rest, no fragment.

    Raises ValueError where it is not an http or https URL. libcurl in pycurl's wheels is built without IDN support.
    """
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("only http and https are followed")
    host = unquote(parts.hostname or "").lower()
    if not host:
        raise ValueError("it names no host")
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode()
    if not _URL_HOST.fullmatch(host):
        raise ValueError("its host is malformed")
    port = parts.port if parts.port is not None else _DEFAULT_PORTS[parts.scheme]
    user, at, _ = parts.netloc.rpartition("@")
    literal = f"[{host}]" if ":" in host else host
    path = quote(parts.path or "/", safe=_URL_SAFE)
    query = f"?{quote(parts.query, safe=_URL_SAFE)}" if parts.query else ""
    explicit_port = "" if parts.port is None else f":{port}"
    ascii_url = f"{parts.scheme}://{quote(user, safe='%:')}{at}{literal}{explicit_port}{path}{query}"
    return Place(ascii_url, parts.scheme, host, port, is_address=read_literal(host) is not None)


class HostPort(NamedTuple):
    """Where a connection goes. `host` is an ASCII name, or an address without brackets."""

    host: str
    port: int

    @property
    def is_address(self) -> bool:
        """Tell whether nothing is to be looked up."""
        return read_literal(self.host) is not None


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
        return _read_address(text.removeprefix("[").removesuffix("]"), _HOST_EXAMPLE)
    # `127.1` and `0x7f.1` are addresses to a resolver: they are spelled out, so that nobody is deceived.
    literal = read_literal(text) if text.strip() == text else None
    return str(literal) if literal is not None else _read_name(text, _HOST_EXAMPLE)


def read_name(text: str) -> str:
    """Read a name to look up in the DNS, or an address to ask for its name. Raises ValueError with what is right."""
    if ":" in text:
        return _read_address(text, _NAME_EXAMPLE)
    return _read_name(text, _NAME_EXAMPLE)


def read_resolver(text: str) -> HostPort:
    """Read a resolver's address, with or without a port. Raises ValueError with what is right."""
    host, port = text, str(_DNS_PORT)
    if text.startswith("["):
        host, _, after = text[1:].partition("]")
        port = after.removeprefix(":") if after else port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    return HostPort(_read_address(host, _RESOLVER_EXAMPLE), _read_port(port))


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


def _read_address(text: str, example: str) -> str:
    """Read an IP address, without a zone: that names an interface of this very machine."""
    try:
        address = ip_address(text)
    except ValueError:
        raise ValueError(example) from None
    if "%" in text:
        raise ValueError(example)
    return str(address)


def _read_port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError("A port is a number from 1 to 65535.")
    return int(text)

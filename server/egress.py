"""Which addresses the probes and webhooks may connect to.

Users choose the targets, so a target may point into the operator's own network: by an address, by a name that
resolves to one, by a redirect. `Egress.permits` is asked **when the socket opens**, about the address that the
socket will really connect to; nothing is resolved twice. `Egress.refuses_literal` only lets the API say so earlier.

Sources: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890), the clouds' metadata addresses.
`ipaddress.is_global` is not used: what it answers differs between Python releases, and it trusts translators
(NAT64, 6to4, Teredo) whose far end may be private.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import unquote

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# As socket.getaddrinfo: a host and a port in; tuples of family, kind, protocol, name and socket address out.
Resolve = Callable[..., Sequence[tuple[int, int, int, str, Any]]]

_REFUSED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this network"; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata at 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # a registered address that inside Azure is the host's own agent
        "169.254.0.0/16",  # link-local; nearly every cloud's metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

# The one block of global unicast. Everything else is refused by lying outside of it: loopback, IPv4-compatible,
# NAT64 (64:ff9b::/96, 64:ff9b:1::/48), discard-only, 5f00::/16, unique local, link- and site-local, multicast.
_GLOBAL_V6 = IPv6Network("2000::/3")

_REFUSED_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: the far end is an embedded IPv4 address
        "3fff::/20",  # documentation
    )
)

# What strtoul(3) with base 0 reads whole; bounded, because hosts come from users.
_C_NUMBER = re.compile(r"0x[0-9a-f]{0,32}|0[0-7]{0,32}|[1-9][0-9]{0,31}")

_LOOPBACKS = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


@dataclass(frozen=True, slots=True)
class Egress:
    """The addresses that user-supplied targets may reach: the public ones, and `allowed` networks of the operator.

    A network in `allowed` is a promise about every address in it. Allowing a NAT64 prefix, say, allows whatever its
    translator can reach.
    """

    allowed: tuple[Network, ...] = ()

    def permits(self, address: str | Address) -> bool:
        """Tell whether a socket may connect to a resolved `address`; text that is no address may not.

        An IPv4-mapped IPv6 address is judged as the IPv4 address it stands for, against `allowed` too. An address
        with a zone (`fe80::1%eth0`) names a local interface and is never public.
        """
        try:
            given = ip_address(address)
        except ValueError:
            return False
        if isinstance(given, IPv4Address):
            return is_public(given) or self._allows(given)
        without_zone = IPv6Address(int(given))
        judged = without_zone.ipv4_mapped or without_zone
        return (given.scope_id is None and is_public(judged)) or self._allows(judged)

    def refuses_literal(self, host: str) -> bool:
        """Tell whether a URL's `host` is, as written, an address or a localhost name that `permits` would refuse.

        An early answer for whoever enters a target. False says nothing about what a name resolves to.
        """
        name = _normalise(host)
        if name == "localhost" or name.endswith(".localhost"):
            return not any(self._allows(loopback) for loopback in _LOOPBACKS)
        literal = read_literal(host)
        return literal is not None and not self.permits(literal)

    def _allows(self, address: Address) -> bool:
        return any(address in network for network in self.allowed)


def is_public(address: Address) -> bool:
    """Tell whether an address is globally reachable unicast and stands for no other address."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _REFUSED_V6)


def read_literal(host: str) -> Address | None:
    """Return the address that a URL's host spells out, or None for a name.

    Reads what resolvers and URL parsers read: dotted, short (`127.1`), decimal, octal and hexadecimal IPv4 as
    inet_aton(3) does, IPv6 with or without brackets and zone, full-width digits and dots, a trailing dot.
    """
    name = _normalise(host)
    if ":" in name:
        try:
            return IPv6Address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return None
    return _read_inet_aton(name)


def _normalise(host: str) -> str:
    # NFKC is the part of IDNA's mapping that turns full-width and circled digits into digits.
    mapped = unicodedata.normalize("NFKC", unquote(host)).replace("\u3002", ".").replace("\u00ad", "")
    return mapped.strip().lower().removesuffix(".")


def _read_inet_aton(text: str) -> IPv4Address | None:
    parts = [_read_c_number(part) for part in text.split(".")]
    numbers = [part for part in parts if part is not None]
    if len(numbers) != len(parts) or len(parts) > 4:
        return None
    *leading, last = numbers
    if any(number > 0xFF for number in leading) or last >= 1 << 8 * (4 - len(leading)):
        return None
    value = last
    for place, number in enumerate(leading):
        value |= number << 8 * (3 - place)
    return IPv4Address(value)


def _read_c_number(text: str) -> int | None:
    if not _C_NUMBER.fullmatch(text):
        return None
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)

"""What all tests share: the way to the embedded stack's modules, and no network but loopback."""

import ipaddress
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "supabase" / "local"))


class BlockedNetworkError(RuntimeError):
    """A test reached for something that is not this machine."""


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> Iterator[None]:
    """Refuse each connection and each name look-up that would leave this machine."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self, address):
        _refuse_outside(self.family, address)
        return connect(self, address)

    def guarded_connect_ex(self, address):
        _refuse_outside(self.family, address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host, *args, **kwargs):
        # A literal address is resolved without asking anybody.
        if host not in (None, "", b"", "localhost") and not _is_literal(host):
            raise BlockedNetworkError(f"a test looked up {host!r}")
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        yield


def _refuse_outside(family: int, address: Any) -> None:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = address[0]
    if host not in ("", "localhost") and not (_is_literal(host) and ipaddress.ip_address(host).is_loopback):
        raise BlockedNetworkError(f"a test connected to {host!r}")


def _is_literal(host: str | bytes) -> bool:
    try:
        ipaddress.ip_address(host.decode() if isinstance(host, bytes) else host)
    except ValueError:
        return False
    return True


def pytest_addoption(parser: pytest.Parser) -> None:
    """How far tests/stack/test_schemathesis.py goes: `make fuzz` goes farther."""
    parser.addoption("--fuzz-examples", type=int, default=5, help="examples of each operation, for Schemathesis")
    parser.addoption("--fuzz-seed", type=int, default=1, help="the seed of Schemathesis")

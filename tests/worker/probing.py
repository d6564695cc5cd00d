"""What the tests of probes share: names that no name server knows, and times."""

import socket
from datetime import UTC, datetime
from typing import Any

from server.features.checks.rules import ErrorKind, Observation

STARTED_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SHORT_SECONDS = 0.3
LONG_SECONDS = 20.0  # never waited for: a test that reaches it fails by its kind


def resolve(host: bytes, port: None, **_: object) -> list[tuple[int, int, int, str, Any]]:
    """Know the names of these tests: no name server is asked."""
    known = {
        b"localhost": ["::1", "127.0.0.1"],
        b"only-inside.example": ["10.0.0.1"],
        b"xn--bcher-kva.example": ["127.0.0.1"],
        b"dotted.example.": ["127.0.0.1"],
    }
    if host not in known:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")
    return [(socket.AF_UNSPEC, socket.SOCK_STREAM, 6, "", (address, 0)) for address in known[host]]


def failed(seen: Observation) -> tuple[ErrorKind | None, str | None]:
    return seen.error_kind, seen.error_detail

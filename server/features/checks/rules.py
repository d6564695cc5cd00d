"""What one check saw, whichever kind it is of. Pure: the standard library only."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """What a check says of its target. `unknown`: it says something of us, and nothing of the target."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


class ErrorKind(StrEnum):
    """Why a check did not succeed: the first thing that went wrong."""

    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    STATUS = "status"
    REDIRECTS = "redirects"
    PROTOCOL = "protocol"
    BLOCKED = "blocked"
    ASSERTION = "assertion"
    LOSS = "loss"
    NO_NETWORK = "no_network"
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"


# Nobody is down because we could not look.
_OUR_OWN = frozenset({ErrorKind.NO_NETWORK, ErrorKind.UNSUPPORTED, ErrorKind.INTERNAL})


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds each phase took by itself; None where the phase was not reached or did not happen.

    After redirects `dns_ms` to `first_byte_ms` are those of the last hop; `total_ms` is the whole check.
    """

    dns_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    first_byte_ms: float | None = None
    total_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one assertion. `observed` is the value it was held against, as text of at most 200 characters."""

    assertion: str
    observed: str | None
    holds: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """What one check saw. `error_kind` None means success; `error_detail` is for people, at most 300 characters."""

    started_at: datetime
    timings: Timings = Timings()
    status_code: int | None = None
    error_kind: ErrorKind | None = None
    error_detail: str | None = None
    remote_ip: str | None = None
    tls_expires_at: datetime | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """Whether the target answered as expected; unknown where the fault was our own."""
        if self.error_kind is None:
            return Outcome.UP
        return Outcome.UNKNOWN if self.error_kind in _OUR_OWN else Outcome.DOWN

    @property
    def ok(self) -> bool:
        """True where the target answered as expected."""
        return self.error_kind is None

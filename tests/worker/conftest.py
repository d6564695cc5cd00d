"""What the tests of probes and deliveries share: an egress that reaches loopback, and a certificate authority."""

import ssl
from collections.abc import Callable
from ipaddress import ip_network

import pytest
import trustme

from server.egress import Egress
from server.features.checks.rules import Observation
from server.probes.kinds import read_check
from server.probes.prober import check_once
from tests.worker.probing import LONG_SECONDS, STARTED_AT, resolve

MakeTls = Callable[..., ssl.SSLContext]
Probe = Callable[..., Observation]


@pytest.fixture
def loopback() -> Egress:
    return Egress((ip_network("127.0.0.0/8"),))


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_path(authority, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def make_tls(authority) -> MakeTls:
    """Make a server's TLS context for a certificate: `make_tls("localhost", not_after=…, issuer=…)`."""

    def make(host="localhost", *, issuer=authority, **dates):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert(host, **dates).configure_cert(context)
        return context

    return make


@pytest.fixture
def probe(loopback, ca_path) -> Probe:
    """Run one check in this thread: `probe("tcp", "127.0.0.1:25", assertions=[…], send="…")`."""

    def run_check(kind, target, *, egress=loopback, timeout_seconds=LONG_SECONDS, assertions=(), **options):
        check = read_check(kind, target, timeout_seconds, options, assertions)
        return check_once(check, egress, STARTED_AT, ca_path=ca_path, resolve=resolve)

    return run_check

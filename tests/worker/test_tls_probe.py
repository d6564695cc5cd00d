import ssl
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from server.egress import Egress
from server.features.checks.rules import ErrorKind
from tests.worker.probing import SHORT_SECONDS, STARTED_AT, failed
from tests.worker.targets import find_free_port, head, send_at_once, serve, stay_silent


@pytest.fixture
def run(probe):
    """Run one tls check in this thread; `server_name` is its option."""

    def run_check(place, **more):
        return probe("tls", place, **more)

    return run_check


# --- up


def test_a_good_certificate_is_up_and_its_expiry_noted(run, make_tls):
    expires_at = datetime(2030, 5, 6, 7, 8, 9, tzinfo=UTC)
    with serve(stay_silent, tls=make_tls(not_after=expires_at)) as target:
        seen = run(target.place("localhost"))
    assert (seen.ok, seen.tls_expires_at, seen.remote_ip) == (True, expires_at, "127.0.0.1")
    timings = seen.timings
    assert None not in (timings.dns_ms, timings.connect_ms, timings.tls_ms, timings.total_ms)
    assert (timings.first_byte_ms, seen.status_code) == (None, None)
    assert target.requests == [], "nothing is asked"


def test_a_certificate_for_an_address_is_good_too(run, make_tls):
    with serve(stay_silent, tls=make_tls("127.0.0.1")) as target:
        assert run(target.place()).ok


def test_the_days_left_are_asserted(run, make_tls):
    with serve(stay_silent, tls=make_tls(not_after=STARTED_AT + timedelta(days=3650, hours=23))) as target:
        assert run(target.place("localhost"), assertions=["tls_days_left == 3650", "response_ms < 20000"]).ok
        seen = run(target.place("localhost"), assertions=["tls_days_left > 3650"])
    assert failed(seen) == (ErrorKind.ASSERTION, "tls_days_left > 3650: was 3650")


def test_the_name_that_was_chosen_is_the_one_asked_for_and_verified(run, make_tls):
    asked = []
    tls = make_tls("Mail.example.com")
    tls.sni_callback = lambda _connection, name, _context: asked.append(name)
    with serve(stay_silent, tls=tls) as target:
        assert run(target.place(), server_name="mail.example.com").ok
        assert run(target.place("localhost"), server_name="mail.example.com").ok
        seen = run(target.place("localhost"))
    assert asked == ["mail.example.com", "mail.example.com", "localhost"]
    assert failed(seen) == (ErrorKind.TLS, "the certificate is not for localhost")


def test_no_protocol_is_claimed(run, make_tls):
    """Postgres, say, refuses a client that offers http."""
    agreed = []

    def note(client):
        agreed.append(client.connection.selected_alpn_protocol())
        client.wait_for_end()

    tls = make_tls()
    tls.set_alpn_protocols(["http/1.1", "h2"])
    with serve(note, tls=tls) as target:
        assert run(target.place("localhost")).ok
    assert agreed == [None]


def test_a_server_that_wants_a_client_certificate_has_shown_its_own(run, make_tls):
    tls = make_tls()
    tls.verify_mode = ssl.CERT_OPTIONAL
    with serve(stay_silent, tls=tls) as target:
        assert run(target.place("localhost")).ok


# --- lying


def test_a_certificate_that_has_expired_is_told_with_its_date(run, make_tls):
    expired_at = (datetime.now(UTC) - timedelta(days=1)).replace(microsecond=0)
    with serve(stay_silent, tls=make_tls(not_after=expired_at)) as target:
        seen = run(target.place("localhost"), assertions=["tls_days_left > 0"])
    assert failed(seen) == (ErrorKind.TLS, "the certificate has expired")
    assert (seen.tls_expires_at, seen.findings) == (expired_at, ())


def test_a_certificate_that_is_not_valid_yet_is_told(run, make_tls):
    tls = make_tls(not_before=datetime.now(UTC) + timedelta(days=1), not_after=datetime.now(UTC) + timedelta(days=2))
    with serve(stay_silent, tls=tls) as target:
        assert failed(run(target.place("localhost"))) == (ErrorKind.TLS, "the certificate is not valid yet")


def test_a_certificate_of_an_unknown_authority_is_told(run, make_tls):
    with serve(stay_silent, tls=make_tls(issuer=trustme.CA())) as target:
        seen = run(target.place("localhost"))
    assert seen.error_kind is ErrorKind.TLS
    assert seen.error_detail.startswith("the certificate's issuer is unknown")


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.9\r\n", head("400 Bad Request"), b"\x00" * 64, b"\x16\x03"])
def test_what_is_not_tls_is_told(run, greeting):
    def greet_and_close(client):
        client.send(greeting)
        client.wait_for_acknowledgement()

    with serve(greet_and_close) as target:
        seen = run(target.place("localhost"))
    assert seen.error_kind in (ErrorKind.TLS, ErrorKind.CONNECT, ErrorKind.PROTOCOL)
    assert seen.error_detail


# --- slow


@pytest.mark.parametrize("script", [stay_silent, send_at_once(b"\x16\x03\x03\x00\x7a\x02")])
def test_a_handshake_that_stalls_times_out_in_the_handshake(run, script):
    with serve(script) as target:
        seen = run(target.place(), timeout_seconds=SHORT_SECONDS)
    assert failed(seen) == (ErrorKind.TIMEOUT, "timed out while in the TLS handshake")
    assert (seen.remote_ip, seen.timings.tls_ms) == ("127.0.0.1", None)


# --- down


def test_a_refused_connection_is_told(run):
    seen = run(f"127.0.0.1:{find_free_port()}")
    assert failed(seen) == (ErrorKind.CONNECT, "could not connect: connection refused")


def test_a_name_that_does_not_exist_is_told(run):
    seen = run("name.invalid:443", server_name="localhost")
    assert failed(seen) == (ErrorKind.DNS, "the name name.invalid could not be resolved")


# --- the guard


@pytest.mark.parametrize("options", [{}, {"server_name": "public.example"}])
def test_an_address_that_is_not_public_is_refused_before_anything_connects(run, make_tls, options):
    with serve(stay_silent, tls=make_tls()) as target:
        seen = [run(target.place(host), egress=Egress(()), **options) for host in ("localhost", "127.0.0.1")]
    assert [failed(one) for one in seen] == [
        (ErrorKind.BLOCKED, f"{host} is not a public address, or resolves to none that is")
        for host in ("localhost", "127.0.0.1")
    ]
    assert target.connections == 0

import asyncio
import socket
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any, NoReturn

import pytest
import trustme

from server.egress import Egress
from server.features.checks.rules import ErrorKind, Observation, Timings
from server.probes.check import Check
from server.probes.faults import describe_ranges
from server.probes.hop import MAX_BODY_BYTES
from server.probes.kinds import read_check
from server.probes.places import locate
from server.probes.prober import Prober, check_once
from tests.worker.probing import LONG_SECONDS, SHORT_SECONDS, STARTED_AT, failed, resolve
from tests.worker.targets import (
    answer,
    by_path,
    drip,
    find_free_port,
    head,
    redirect,
    reset_after,
    send,
    send_and_close,
    send_at_once,
    send_forever,
    serve,
    stay_silent,
)


@pytest.fixture
def run(probe):
    """Run one http check in this thread."""

    def run_check(url, **more):
        return probe("http", url, **more)

    return run_check


def make_check(url: str, timeout_seconds: float) -> Check:
    return read_check("http", url, timeout_seconds)


# --- a target that answers


def test_a_target_that_answers_is_ok(run):
    with serve(answer()) as target:
        seen = run(target.url("/health?full=1"))
    assert (seen.ok, seen.status_code, seen.remote_ip, seen.started_at) == (True, 200, "127.0.0.1", STARTED_AT)
    assert seen.error_detail is None
    assert seen.tls_expires_at is None
    request = target.requests[0]
    assert request.startswith(b"GET /health?full=1 HTTP/1.1\r\n")
    assert b"\r\nUser-Agent: Tocsin/" in request


def test_each_phase_is_timed_by_itself(run):
    with serve(answer()) as target:
        timings = run(target.url()).timings
    assert timings.dns_ms is None, "an address is not looked up"
    assert timings.tls_ms is None
    assert_phases_fit(timings, "connect_ms", "first_byte_ms")


def test_a_name_and_a_handshake_have_timings_too(run, make_tls):
    with serve(answer(), tls=make_tls()) as target:
        timings = run(target.url(host="localhost")).timings
    assert_phases_fit(timings, "dns_ms", "connect_ms", "tls_ms", "first_byte_ms")


def assert_phases_fit(timings: Timings, *names: str) -> None:
    phases = [getattr(timings, name) for name in names]
    assert all(phase is not None and phase >= 0 for phase in phases)
    assert timings.total_ms is not None
    assert sum(phases) <= timings.total_ms + 0.01  # each is rounded to a microsecond


@pytest.mark.parametrize(
    ("status", "expected", "detail"),
    [
        ("503 Service Unavailable", ["200-299"], "503, expected 200-299"),
        ("200 OK", ["201", "301-399"], "200, expected 201, 301-399"),
        ("404 Not Found", ["200-403"], "404, expected 200-403"),
        ("999 Odd", ["200-299"], "999, expected 200-299"),
    ],
)
def test_a_status_that_was_not_expected_fails(run, status, expected, detail):
    with serve(answer(status)) as target:
        seen = run(target.url(), expected_status=expected)
    assert failed(seen) == (ErrorKind.STATUS, detail)
    assert seen.status_code == int(status[:3])


def test_a_status_that_was_expected_is_ok_whatever_it_is(run):
    with serve(answer("418 I'm a teapot")) as target:
        assert run(target.url(), expected_status=["200-299", "418"]).ok


def test_an_unexpected_status_comes_before_a_body_that_breaks(run):
    with serve(reset_after(head("500 Oops", Content_Length="10"))) as target:
        assert run(target.url()).error_kind is ErrorKind.STATUS


def test_interim_answers_are_not_the_answer(run):
    early = head("103 Early Hints", Link="</a.css>") + head("200 OK", Content_Length="0")
    with serve(send(early)) as target:
        seen = run(target.url())
    assert (seen.ok, seen.status_code) == (True, 200)


def test_each_check_has_a_connection_of_its_own_and_nothing_of_an_earlier_one(loopback, ca_path, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{find_free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{find_free_port()}")

    async def check_twice(url: str) -> list[Observation]:
        async with Prober(loopback, ca_path=ca_path, resolve=resolve) as prober:
            return [await prober.check(make_check(url, LONG_SECONDS), STARTED_AT) for _ in range(2)]

    with serve(answer(Set_Cookie="a=b", Connection="keep-alive")) as target:
        assert all(seen.ok for seen in asyncio.run(check_twice(target.url())))
    assert target.connections == 2
    assert not any(b"cookie" in request.lower() for request in target.requests)


# --- a target that is slow


@pytest.mark.parametrize(
    ("script", "phase", "status"),
    [
        (stay_silent, "waiting for the first byte", None),
        (send(b"HTTP/1.1 200 OK\r\nX-Half: "), "reading the headers", 200),
        (drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), "reading the headers", 200),
        (send(head(Content_Length="100") + b"half"), "reading the body", 200),
        (drip(head(), b"."), "reading the body", 200),
    ],
)
def test_a_target_that_takes_too_long_is_told_by_the_phase(run, script, phase, status):
    with serve(script) as target:
        seen = run(target.url(), timeout_seconds=SHORT_SECONDS)
    assert failed(seen) == (ErrorKind.TIMEOUT, f"timed out while {phase}")
    assert seen.status_code == status
    assert seen.timings.connect_ms is not None
    assert (seen.timings.first_byte_ms is None) is (status is None)


def test_a_connection_that_is_never_accepted_times_out_while_connecting(run):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as waiting:
        for _ in range(4):  # fill the queue; nobody accepts
            stuck = waiting.enter_context(socket.socket())
            stuck.setblocking(False)
            stuck.connect_ex(full.getsockname())
        seen = run(f"http://127.0.0.1:{full.getsockname()[1]}/", timeout_seconds=SHORT_SECONDS)
    assert failed(seen) == (ErrorKind.TIMEOUT, "timed out while connecting")
    assert (seen.remote_ip, seen.timings.connect_ms) == (None, None)


def test_a_handshake_that_stalls_times_out_in_the_handshake(run):
    with serve(stay_silent) as target:
        seen = run(target.url().replace("http:", "https:"), timeout_seconds=SHORT_SECONDS)
    assert failed(seen) == (ErrorKind.TIMEOUT, "timed out while in the TLS handshake")
    assert seen.remote_ip == "127.0.0.1"


def test_the_time_is_for_the_whole_check_and_not_for_each_hop(run):
    with serve(by_path({"/": redirect("/slow"), "/slow": stay_silent})) as target:
        seen = run(target.url(), timeout_seconds=SHORT_SECONDS)
    assert seen.error_kind is ErrorKind.TIMEOUT
    assert seen.timings.total_ms is not None
    assert seen.timings.total_ms > 0.9 * SHORT_SECONDS * 1000  # a timer may fire a hair early


# --- a target that breaks


def test_a_refused_connection_is_told(run):
    seen = run(f"http://127.0.0.1:{find_free_port()}/")
    assert failed(seen) == (ErrorKind.CONNECT, "could not connect: connection refused")


def test_a_connection_that_is_reset_in_the_body_is_told(run):
    with serve(reset_after(head(Content_Length="100") + b"half")) as target:
        seen = run(target.url())
    assert failed(seen) == (ErrorKind.CONNECT, "connection reset by peer while reading the body")
    assert seen.status_code == 200


def test_a_name_that_does_not_exist_is_told(run):
    seen = run("http://name.invalid/")
    assert failed(seen) == (ErrorKind.DNS, "the name name.invalid could not be resolved")


@pytest.mark.parametrize("host", ["b\u00fccher.example", "dotted.example.", "DOTTED.example.", "dotte%64.example."])
def test_a_name_in_any_writing_is_looked_up_by_us_and_never_by_libcurl(run, host):
    with serve(answer()) as target:
        seen = run(target.url(host=host))
    assert seen.ok
    assert seen.timings.dns_ms is not None


def test_a_look_up_that_fails_in_an_unforeseen_way_is_internal(loopback):
    def broken(*_: object, **__: object) -> NoReturn:
        raise MemoryError

    seen = check_once(make_check("http://some.example/", LONG_SECONDS), loopback, STARTED_AT, resolve=broken)
    assert failed(seen) == (ErrorKind.INTERNAL, "the probe itself failed: MemoryError")


def test_name_servers_that_never_answer_hold_up_nobody_else(loopback):
    over = threading.Event()

    def resolve_or_hang(host: bytes, port: None, **options: object) -> list[tuple[int, int, int, str, Any]]:
        if host.startswith(b"stuck"):
            over.wait()
        return resolve(host, port, **options)

    async def check_beside_stuck(url: str) -> tuple[list[Observation], Observation]:
        async with Prober(loopback, resolve=resolve_or_hang) as prober:
            stuck = [make_check(f"http://stuck{number}.example/", SHORT_SECONDS) for number in range(100)]
            tasks = [asyncio.create_task(prober.check(check, STARTED_AT)) for check in stuck]
            beside = await prober.check(make_check(url, LONG_SECONDS), STARTED_AT)
            return await asyncio.gather(*tasks), beside

    with serve(answer()) as target:
        try:
            stuck, beside = asyncio.run(check_beside_stuck(target.url(host="localhost")))
            assert not over.is_set(), "leaving the prober does not wait for them either"
        finally:
            over.set()
            for thread in threading.enumerate():
                if thread.name == "look-up":
                    thread.join(LONG_SECONDS)
    assert beside.ok
    assert {failed(seen) for seen in stuck} == {(ErrorKind.TIMEOUT, "timed out while looking up the name")}


@pytest.mark.parametrize(
    "script",
    [
        send_and_close(b""),
        send_and_close(b"hello\r\n\r\n"),
        send_and_close(b"HTTP/1.1 abc OK\r\n\r\n"),
        send_and_close(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"),
        send_and_close(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
        send_and_close(b"\x00" * 64),
        send_and_close(b"SSH-2.0-OpenSSH_9.9\r\n"),
        send_and_close(head(Content_Length="100") + b"half"),
        send_and_close(head(Transfer_Encoding="chunked") + b"zz\r\n"),
        send_forever(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n"),
        send_forever(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 1000),
        send_forever(b"", head("100 Continue")),
    ],
)
def test_what_is_not_http_is_a_protocol_failure(run, script):
    with serve(script) as target:
        seen = run(target.url())
    assert seen.error_kind is ErrorKind.PROTOCOL
    assert seen.error_detail
    assert seen.error_detail.isprintable()
    assert len(seen.error_detail) <= 300


def test_an_endless_body_is_read_to_its_bound_and_taken_as_it_is(run):
    with serve(send_forever(head(), b"x" * 65536)) as target:
        seen = run(target.url())
    assert (seen.ok, seen.status_code) == (True, 200)


def test_a_body_of_exactly_the_bound_is_read_whole(run):
    with serve(answer(body=b"x" * MAX_BODY_BYTES)) as target:
        assert run(target.url()).ok


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://a b/",
        "http://127.0.0.1:99999/",
        "",
        "x",
        "http://127.0.0.1\x00.example.com/",
        "http://\ud800.example.com/",
        "http://" + "a" * 64 + "\u00e9.example/",
    ],
)
def test_an_address_that_cannot_be_checked_is_an_observation_too(run, url):
    seen = run(url)
    assert seen.error_kind is ErrorKind.PROTOCOL
    assert seen.error_detail.isprintable()


@pytest.mark.parametrize(
    ("url", "ascii_url"),
    [
        ("http://b\u00fccher.example/stra\u00dfe?q=\u00fc#top", "http://xn--bcher-kva.example/stra%C3%9Fe?q=%C3%BC"),
        ("https://EXAMPLE.com", "https://example.com/"),
        ("http://[::1]:8080/a%20b c", "http://[::1]:8080/a%20b%20c"),
        ("http://\u4f8b\u3048.\u30c6\u30b9\u30c8/", "http://xn--r8jz45g.xn--zckzah/"),
    ],
)
def test_addresses_of_all_scripts_become_ascii(url, ascii_url):
    assert locate(url).url == ascii_url


def test_a_failure_nobody_foresaw_is_internal(loopback):
    seen = check_once(make_check("http://127.0.0.1/", float("nan")), loopback, STARTED_AT)
    assert failed(seen) == (ErrorKind.INTERNAL, "the probe itself failed: ValueError")


# --- redirects


def test_redirects_are_followed_up_to_the_limit(run):
    hops = {"/0": redirect("/1"), "/1": redirect("2", "301 Moved"), "/2": redirect("?q", "308 Moved"), "/2?q": answer()}
    with serve(by_path(hops)) as target:
        assert run(target.url("/0"), max_redirects=3).ok
        seen = run(target.url("/0"), max_redirects=2)
    assert failed(seen) == (ErrorKind.REDIRECTS, "more than 2 redirects")
    assert seen.status_code == 308


def test_a_circle_of_redirects_ends(run):
    with serve(redirect("/")) as target:
        assert run(target.url()).error_kind is ErrorKind.REDIRECTS
    assert target.connections == 6, "one and five redirects, each over a connection of its own"


def test_without_redirects_the_redirect_itself_is_judged(run):
    with serve(redirect("/elsewhere")) as target:
        seen = run(target.url(), max_redirects=0, expected_status=["301-302"])
        assert (seen.ok, seen.status_code) == (True, 302)
        assert failed(run(target.url(), max_redirects=0)) == (ErrorKind.STATUS, "302, expected 200-299")


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/_x", "http://[bad"])
def test_a_redirect_to_what_is_not_http_is_not_followed(run, location):
    with serve(redirect(location)) as target:
        seen = run(target.url())
    assert seen.error_kind is ErrorKind.REDIRECTS
    assert seen.error_detail.startswith(f"redirects to {location}: ")
    assert seen.status_code == 302


def test_a_redirect_with_an_endless_body_is_followed_at_once(run):
    endless = send_forever(head("302 Found", Location="/end"), b"x" * 65536)
    with serve(by_path({"/": endless, "/end": answer()})) as target:
        assert run(target.url()).ok


def test_the_phases_after_a_redirect_are_those_of_the_last_hop(run, make_tls):
    with serve(answer()) as last, serve(redirect(last.url()), tls=make_tls()) as first:
        seen = run(first.url(host="localhost"))
    assert seen.ok
    assert seen.timings.tls_ms is None
    assert seen.tls_expires_at is not None, "the certificate on the way is worth knowing"
    assert_phases_fit(seen.timings, "connect_ms", "first_byte_ms")


# --- the guard


def test_an_address_that_is_not_public_is_refused_before_anything_connects(run):
    with serve(answer()) as target:
        seen = run(target.url(), egress=Egress(()))
        named = run(target.url(host="localhost"), egress=Egress(()))
        written_otherwise = run(target.url(host="0x7f.1"), egress=Egress(()))
    assert seen.error_kind is named.error_kind is written_otherwise.error_kind is ErrorKind.BLOCKED
    assert seen.error_detail == "127.0.0.1 is not a public address, or resolves to none that is"
    assert (seen.remote_ip, target.connections) == (None, 0)


def test_a_redirect_to_an_address_that_is_not_public_is_refused(run):
    only_one = Egress((ip_network("127.0.0.1/32"),))
    with serve(answer(), host="127.0.0.2") as inner, serve(redirect(inner.url())) as outer:
        seen = run(outer.url(), egress=only_one)
    assert seen.error_kind is ErrorKind.BLOCKED
    assert (seen.status_code, inner.connections) == (None, 0)


# --- certificates


def test_a_good_certificate_is_accepted_and_its_expiry_noted(run, make_tls):
    expires_at = datetime(2030, 5, 6, 7, 8, 9, tzinfo=UTC)
    with serve(answer(), tls=make_tls(not_after=expires_at)) as target:
        seen = run(target.url(host="localhost"))
    assert (seen.ok, seen.tls_expires_at) == (True, expires_at)


def test_a_certificate_that_has_expired_is_told_with_its_date(run, make_tls):
    expired_at = (datetime.now(UTC) - timedelta(days=1)).replace(microsecond=0)
    with serve(answer(), tls=make_tls(not_after=expired_at)) as target:
        seen = run(target.url(host="localhost"))
    assert failed(seen) == (ErrorKind.TLS, "the certificate has expired")
    assert seen.tls_expires_at == expired_at
    assert target.requests == [], "nothing is sent to a server that is not trusted"


@pytest.mark.parametrize("host", ["other.example", "localhost.example"])
def test_a_certificate_for_another_host_is_told(run, make_tls, host):
    with serve(answer(), tls=make_tls(host)) as target:
        seen = run(target.url(host="localhost"))
    assert failed(seen) == (ErrorKind.TLS, "the certificate is not for localhost")


def test_a_certificate_of_an_unknown_authority_is_told(run, make_tls):
    with serve(answer(), tls=make_tls(issuer=trustme.CA())) as target:
        seen = run(target.url(host="localhost"))
    assert seen.error_kind is ErrorKind.TLS
    assert seen.error_detail.startswith("the certificate's issuer is unknown")


def test_certificates_are_checked_against_public_roots_unless_told_otherwise(loopback, make_tls):
    with serve(answer(), tls=make_tls()) as target:
        seen = check_once(make_check(target.url(host="localhost"), LONG_SECONDS), loopback, STARTED_AT, resolve=resolve)
    assert seen.error_kind is ErrorKind.TLS


def test_a_server_without_tls_is_a_tls_failure(run):
    with serve(send_at_once(head("400 Bad Request"))) as target:
        seen = run(target.url().replace("http:", "https:"))
    assert seen.error_kind is ErrorKind.TLS
    assert seen.error_detail


# --- many at once


def test_a_hundred_checks_at_once_do_not_affect_each_other(loopback, ca_path, make_tls):
    async def check_all(targets: list[tuple[str, float, ErrorKind | None]]) -> list[Observation]:
        async with Prober(loopback, ca_path=ca_path, resolve=resolve) as prober:
            checks = [prober.check(make_check(url, seconds), STARTED_AT) for url, seconds, _ in targets]
            return await asyncio.gather(*checks)

    with (
        serve(answer()) as up,
        serve(answer(), tls=make_tls()) as secure,
        serve(answer("500 Oops")) as broken,
        serve(stay_silent) as silent,
        serve(send_forever(head(), b"x" * 65536)) as endless,
    ):
        kinds = [
            (up.url(), LONG_SECONDS, None),
            (secure.url(host="localhost"), LONG_SECONDS, None),
            (broken.url(), LONG_SECONDS, ErrorKind.STATUS),
            (silent.url(), SHORT_SECONDS, ErrorKind.TIMEOUT),
            (endless.url(), LONG_SECONDS, None),
            (f"http://127.0.0.1:{find_free_port()}/", LONG_SECONDS, ErrorKind.CONNECT),
            ("http://10.0.0.1/", LONG_SECONDS, ErrorKind.BLOCKED),
            ("http://name.invalid/", LONG_SECONDS, ErrorKind.DNS),
            (up.url("/other"), LONG_SECONDS, None),
            ("nonsense", LONG_SECONDS, ErrorKind.PROTOCOL),
        ]
        targets = kinds * 10
        seen = asyncio.run(check_all(targets))
    assert [one.error_kind for one in seen] == [kind for _, _, kind in targets]
    assert up.connections == 20


def test_a_check_that_is_cancelled_leaves_the_prober_usable(loopback, ca_path):
    async def cancel_one(silent_url: str, url: str) -> tuple[Observation, Observation]:
        async with Prober(loopback, ca_path=ca_path, resolve=resolve) as prober:
            slow = asyncio.create_task(prober.check(make_check(silent_url, LONG_SECONDS), STARTED_AT))
            beside = await prober.check(make_check(url, LONG_SECONDS), STARTED_AT)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            return beside, await prober.check(make_check(url, LONG_SECONDS), STARTED_AT)

    with serve(stay_silent) as silent, serve(answer()) as up:
        assert all(seen.ok for seen in asyncio.run(cancel_one(silent.url(), up.url())))


def test_leaving_the_prober_ends_the_checks_that_are_under_way(loopback, ca_path):
    async def leave(url: str) -> None:
        async with Prober(loopback, ca_path=ca_path, resolve=resolve) as prober:
            slow = asyncio.create_task(prober.check(make_check(url, LONG_SECONDS), STARTED_AT))
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await slow

    with serve(stay_silent) as silent:
        asyncio.run(leave(silent.url()))


def test_ranges_are_written_as_people_write_them():
    assert describe_ranges(((200, 299), (301, 301))) == "200-299, 301"

import base64
import hashlib
import hmac
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
import standardwebhooks
import trustme

from server.egress import Egress, Resolve
from server.worker.delivery.outcome import MAX_ATTEMPTS, Delivered, Failed, backoff
from server.worker.delivery.webhook import WebhookSender, judge, read_retry_after, sign
from tests.worker.targets import (
    answer,
    drip,
    find_free_port,
    head,
    redirect,
    reset_after,
    send,
    send_and_close,
    send_forever,
    serve,
    stay_silent,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes len").decode()
BODY = '{"type":"incident.opened","monitor":"Bücher & Söhne"}'.encode()
SHORT_SECONDS = 0.3


@pytest.fixture
def deliver(loopback, ca_path):
    """Send one webhook; `settings` are the sender's."""

    def send_one(url, *, egress=loopback, secret=SECRET, now=NOW, **settings):
        sender = WebhookSender(egress, **{"ca_path": ca_path, **settings})
        return sender.send(url, secret=secret, delivery_id="msg_1", body=BODY, now=now)

    return send_one


def resolve_to(*addresses: list[str]) -> Resolve:
    """Resolve every name to these addresses, one answer for each look-up, the last one for ever."""
    left = [list(answers) for answers in addresses]

    def resolve(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, Any]]:
        answers = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers]

    return resolve


# --- what is sent


def test_a_webhook_is_signed_so_that_any_standard_library_verifies_it(deliver):
    now = datetime.now(UTC)  # the library refuses what is older than five minutes
    with serve(answer("202 Accepted")) as target:
        assert deliver(target.url("/hook?x=1"), now=now) == Delivered(202)
    start, _, body = target.requests[0].partition(b"\r\n\r\n")
    request_line, *lines = start.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert request_line == "POST /hook?x=1 HTTP/1.1"
    assert (headers["content-type"], headers["webhook-id"]) == ("application/json", "msg_1")
    assert headers["user-agent"].startswith("Tocsin/")
    assert standardwebhooks.Webhook(SECRET).verify(body, headers) == json.loads(BODY)


def test_a_signature_is_the_hmac_of_id_timestamp_and_body():
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    expected = hmac.new(key, b"msg_1.1700000000." + BODY, hashlib.sha256).digest()
    assert sign(SECRET, "msg_1", 1_700_000_000, BODY) == "v1," + base64.b64encode(expected).decode()


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!", "c2VjcmV0", "whsec_abc", "whsec_\u00fc"])
def test_a_malformed_secret_is_a_failure_for_good_and_nothing_is_sent(deliver, secret):
    with serve(answer()) as target:
        outcome = deliver(target.url(), secret=secret)
    assert outcome == Failed(True, None, "the channel's signing secret is malformed")
    assert target.connections == 0


def test_the_environment_sends_no_webhook_elsewhere(deliver, monkeypatch):
    for name in ("http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{find_free_port()}")
    with serve(answer()) as target:
        assert deliver(target.url()) == Delivered(200)


# --- what came of it


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "204 No Content", "299 Odd"])
def test_any_2xx_is_delivered(deliver, status):
    with serve(answer(status, body=b"")) as target:
        assert deliver(target.url()) == Delivered(int(status[:3]))


@pytest.mark.parametrize(
    ("status", "permanent"),
    [
        ("400 Bad Request", False),
        ("401 Unauthorized", False),
        ("404 Not Found", False),
        ("408 Request Timeout", False),
        ("410 Gone", True),
        ("425 Too Early", False),
        ("429 Too Many Requests", False),
        ("500 Internal Server Error", False),
        ("503 Service Unavailable", False),
    ],
)
def test_only_410_is_a_refusal_for_good(deliver, status, permanent):
    with serve(answer(status, body=b"because\x00 of\n reasons")) as target:
        outcome = deliver(target.url())
    assert outcome == Failed(permanent, int(status[:3]), f"answered {status[:3]}: because  of reasons")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("99999999999999", 86_400),
        ("Sun, 01 Mar 2026 12:02:00 GMT", 120),
        ("Sunday, 01-Mar-26 12:02:00 GMT", 120),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Sun, 01 Mar 2126 12:00:00 GMT", 86_400),
        ("Sun, 01 Mar 2026 12:02:00 -0000", 120),
        ("soon", None),
        ("-5", None),
        ("\u0661", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(value, seconds):
    assert read_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(("value", "seconds"), [("30", 30), ("Sun, 01 Mar 2026 12:00:30 GMT", 30)])
def test_a_receiver_that_asks_to_wait_is_heard(deliver, value, seconds):
    with serve(answer("429 Too Many Requests", Retry_After=value)) as target:
        outcome = deliver(target.url())
    assert (outcome.status_code, outcome.retry_after_seconds) == (429, seconds)


def test_redirects_are_not_followed(deliver):
    with serve(answer()) as elsewhere, serve(redirect(elsewhere.url())) as target:
        outcome = deliver(target.url())
    assert outcome == Failed(False, 302, "answered 302, and redirects are not followed: enter the final address")
    assert elsewhere.connections == 0


def test_a_detail_is_printable_and_short():
    outcome = judge(500, None, "\u202e" + "x" * 1000, NOW)
    assert isinstance(outcome, Failed)
    assert outcome.detail.isprintable()
    assert len(outcome.detail) == 300


# --- the guard


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433"])
def test_a_private_address_is_refused_before_a_byte_is_sent(deliver, host):
    with serve(answer()) as target:
        outcome = deliver(target.url(host=host), egress=Egress(()), resolve=resolve_to(["127.0.0.1"]))
    assert outcome == Failed(True, None, "the address is not public")
    assert target.connections == 0


def test_a_name_is_resolved_once_and_the_judged_address_is_the_connected_one(deliver):
    rebinding = resolve_to(["127.0.0.1"], ["127.0.0.2"])
    with serve(answer()) as target:
        outcome = deliver(target.url(host="rebinding.example"), resolve=rebinding)
    assert outcome == Delivered(200)


def test_each_address_is_tried_and_the_private_ones_are_left_out(deliver):
    only = Egress((ip_network("127.0.0.2/31"),))
    with serve(answer(), host="127.0.0.3") as target:
        outcome = deliver(
            target.url(host="many.example"), egress=only, resolve=resolve_to(["127.0.0.1", "127.0.0.2", "127.0.0.3"])
        )
    assert outcome == Delivered(200)


def test_every_connection_of_a_tls_receiver_is_judged_too(deliver, make_tls):
    with serve(answer(), tls=make_tls()) as target:
        outcome = deliver(target.url(host="localhost"), egress=Egress(()))
    assert outcome == Failed(True, None, "the address is not public")
    assert target.connections == 0


# --- receivers that are slow or broken


@pytest.mark.parametrize(
    "script",
    [
        stay_silent,
        send(b"HTTP/1.1 200 OK\r\nX-Half: "),
        drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        drip(b"", head("100 Continue")),
    ],
)
@pytest.mark.parametrize("with_tls", [False, True])
def test_a_delivery_ends_at_its_deadline_whatever_trickles_in(deliver, make_tls, script, with_tls):
    with serve(script, tls=make_tls() if with_tls else None) as target:
        outcome = deliver(target.url(host="localhost"), total_seconds=SHORT_SECONDS)
    assert outcome == Failed(False, None, "no answer within 0.3 s")


def test_a_stalled_handshake_ends_at_the_deadline(deliver):
    with serve(stay_silent) as target:
        outcome = deliver(target.url().replace("http:", "https:"), total_seconds=SHORT_SECONDS)
    # Which of the two deadlines, ours or the socket's, is met first depends on how busy the machine is.
    assert outcome in (Failed(False, None, "no answer within 0.3 s"), Failed(False, None, "no answer in time"))


def test_a_receiver_that_is_silent_is_left_after_the_read_timeout(deliver):
    with serve(stay_silent) as target:
        outcome = deliver(target.url(), read_seconds=SHORT_SECONDS, total_seconds=60)
    assert outcome == Failed(False, None, "no answer in time")


@pytest.mark.parametrize(
    "script",
    [
        drip(head(), b"."),
        send(head(Content_Length="100") + b"half"),
        send_forever(head(), b"x" * 65536),
        send_forever(head(Content_Encoding="gzip"), b"x" * 65536),
        reset_after(head(Content_Length="100") + b"half"),
        send_and_close(head(Transfer_Encoding="chunked") + b"zz\r\n"),
    ],
)
def test_the_status_counts_however_the_body_ends(deliver, script):
    with serve(script) as target:
        assert deliver(target.url(), total_seconds=SHORT_SECONDS) == Delivered(200)


def test_the_endless_body_of_a_redirect_is_not_read(deliver):
    with serve(send_forever(head("307 Moved", Location="/"), b"x" * 65536)) as target:
        assert deliver(target.url()).status_code == 307


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        (reset_after(b"HTTP/1.1 200"), "the connection broke: Connection reset by peer"),
        (send_and_close(b""), "the connection broke: Remote end closed connection without response"),
        (send_and_close(b"SSH-2.0-OpenSSH_9.9\r\n"), "the connection broke: SSH-2.0-OpenSSH_9.9"),
    ],
)
def test_a_receiver_that_breaks_is_tried_again(deliver, script, detail):
    with serve(script) as target:
        outcome = deliver(target.url())
    assert isinstance(outcome, Failed)
    assert (outcome.permanent, outcome.status_code) == (False, None)
    assert outcome.detail.startswith(detail)


def test_a_refused_connection_is_tried_again(deliver):
    outcome = deliver(f"http://127.0.0.1:{find_free_port()}/")
    assert outcome == Failed(False, None, "could not connect: connection refused")


def test_a_name_that_does_not_resolve_is_tried_again(deliver):
    def resolve(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    assert deliver("http://gone.example/", resolve=resolve) == Failed(
        False, None, "the host's name could not be resolved"
    )


def test_a_name_server_that_never_answers_does_not_outlast_the_deadline(deliver):
    over = threading.Event()

    def hang(*_: object, **__: object) -> list[tuple[int, int, int, str, Any]]:
        over.wait()
        return []

    try:
        outcome = deliver("http://stuck.example/", resolve=hang, total_seconds=SHORT_SECONDS)
    finally:
        over.set()
    assert outcome == Failed(False, None, "the host's name could not be resolved")


@pytest.mark.parametrize(
    "url", ["", "nonsense", "ftp://127.0.0.1/", "http://", "http://[::1", "http://a..b/", "http://127.0.0.1:99999/"]
)
def test_a_malformed_url_is_a_failure_and_never_an_exception(deliver, url):
    assert isinstance(deliver(url, resolve=resolve_to(["10.0.0.1"])), Failed)


# --- certificates


def test_a_receiver_with_a_good_certificate_is_trusted(deliver, make_tls):
    with serve(answer(), tls=make_tls()) as target:
        assert deliver(target.url(host="localhost")) == Delivered(200)


@pytest.mark.parametrize("fault", ["expired", "other host", "unknown authority", "public roots only"])
def test_a_receiver_with_a_bad_certificate_gets_nothing(deliver, make_tls, fault):
    settings = {"ca_path": None} if fault == "public roots only" else {}
    tls = {
        "expired": lambda: make_tls(not_after=datetime.now(UTC) - timedelta(days=1)),
        "other host": lambda: make_tls("other.example"),
        "unknown authority": lambda: make_tls(issuer=trustme.CA()),
        "public roots only": make_tls,
    }[fault]()
    with serve(answer(), tls=tls) as target:
        outcome = deliver(target.url(host="localhost"), **settings)
    assert isinstance(outcome, Failed)
    assert not outcome.permanent
    assert outcome.detail.startswith("TLS failed: ")
    assert target.requests == []


# --- many, and again


def test_many_threads_share_one_sender(loopback):
    sender = WebhookSender(loopback)
    before = threading.active_count()
    with serve(answer()) as target, ThreadPoolExecutor(16) as threads:
        outcomes = list(
            threads.map(
                lambda number: sender.send(
                    target.url(), secret=SECRET, delivery_id=f"msg_{number}", body=BODY, now=NOW
                ),
                range(64),
            )
        )
    assert outcomes == [Delivered(200)] * 64
    assert sum(f"webhook-id: msg_{n}\r\n".encode() in one for n in range(64) for one in target.requests) == 64
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5)
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("attempt", "least_seconds", "most_seconds"),
    [
        (1, 5, 10),
        (2, 10, 20),
        (3, 20, 40),
        (9, 1280, 2560),
        (10, 1800, 3600),
        (MAX_ATTEMPTS, 1800, 3600),
        (999, 1800, 3600),
    ],
)
def test_the_pause_doubles_from_seconds_to_an_hour(attempt, least_seconds, most_seconds):
    assert backoff(attempt, 0.0) == timedelta(seconds=least_seconds)
    assert backoff(attempt, 1.0) == timedelta(seconds=most_seconds)
    assert backoff(attempt, 0.0) < backoff(attempt, 0.5) < backoff(attempt, 1.0)

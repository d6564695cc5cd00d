"""What an http check asks, what a redirect makes of it, and what its assertions see of the answer."""

import asyncio
import base64
import json
import random
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from server.features.checks.rules import ErrorKind
from server.probes.equipment import Equipment
from server.probes.hop import MAX_BODY_BYTES
from server.probes.kinds import read_check
from server.probes.prober import Prober
from tests.worker.probing import LONG_SECONDS, SHORT_SECONDS, STARTED_AT, failed, resolve
from tests.worker.targets import (
    answer,
    by_path,
    drip,
    head,
    redirect,
    reset_after,
    send,
    send_forever,
    serve,
)

JSON = {"Content_Type": "application/json"}


@pytest.fixture
def ask(probe):
    """Run one check of a server that answers; return what was seen and what the server was asked."""

    def ask_server(script=None, path="/", **more):
        with serve(script or answer()) as target:
            seen = probe("http", target.url(path), **more)
        return seen, target.requests

    return ask_server


# --- the request


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_the_method_is_the_one_that_was_chosen(ask, method):
    seen, (request,) = ask(method=method)
    assert seen.ok
    assert request.startswith(f"{method} / HTTP/1.1\r\n".encode())


def test_a_head_request_does_not_wait_for_a_body(ask):
    seen, (request,) = ask(send(head(Content_Length="1000")), method="HEAD", assertions=["status == 200"])
    assert seen.ok
    assert request.startswith(b"HEAD / HTTP/1.1\r\n")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_body_is_sent_as_it_is_and_at_once(ask, method):
    body = '{"a": "\u00fc\\n"}'
    _, (request,) = ask(method=method, body=body, headers={"content-type": "application/json"})
    start, _, sent = request.partition(b"\r\n\r\n")
    assert sent == body.encode()
    assert start.lower().count(b"\r\ncontent-type: application/json") == 1
    assert b"expect:" not in start.lower()


def test_a_large_body_arrives_whole(ask):
    seen, (request,) = ask(method="POST", body="x" * 100_000)
    assert seen.ok
    assert request.endswith(b"\r\n\r\n" + b"x" * 100_000)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_a_post_without_a_body_says_that_it_is_empty(ask, method):
    _, (request,) = ask(method=method)
    assert b"\r\nContent-Length: 0\r\n" in request
    assert b"content-type" not in request.lower()


def test_headers_are_sent_as_they_are_and_may_replace_our_own(ask):
    headers = {
        "X-Trace": "a: b; c",
        "X-Empty": "",
        "X-Blank": " ",
        "User-Agent": "me/1",
        "Accept": "text/plain",
        "Host": "other",
    }
    _, (request,) = ask(headers=headers)
    lines = request.decode().split("\r\n")[1:-2]
    assert sorted(lines) == [
        "Accept: text/plain",
        "Host: other",
        "User-Agent: me/1",
        "X-Blank:",
        "X-Empty:",
        "X-Trace: a: b; c",
    ]


@pytest.mark.parametrize(
    ("auth", "line"),
    [
        (
            {"type": "basic", "username": "zo\u00eb", "password": "pass:word"},
            "Authorization: Basic " + base64.b64encode("zo\u00eb:pass:word".encode()).decode(),
        ),
        ({"type": "bearer", "token": "t0ken"}, "Authorization: Bearer t0ken"),
        ({"type": "header", "name": "X-Api-Key", "value": "k3y"}, "X-Api-Key: k3y"),
    ],
)
def test_credentials_are_presented(ask, auth, line):
    _, (request,) = ask(auth=auth, headers={"x-api-key": "a lesser one"} if auth["type"] == "header" else {})
    assert line in request.decode().split("\r\n")
    assert b"a lesser one" not in request


# --- redirects


@pytest.mark.parametrize(
    ("method", "status", "then"),
    [
        ("POST", "301 Moved", "GET"),
        ("POST", "302 Found", "GET"),
        ("POST", "303 See Other", "GET"),
        ("POST", "307 Temporary", "POST"),
        ("POST", "308 Permanent", "POST"),
        ("PUT", "302 Found", "PUT"),
        ("PUT", "303 See Other", "GET"),
        ("DELETE", "301 Moved", "DELETE"),
        ("HEAD", "303 See Other", "HEAD"),
        ("GET", "302 Found", "GET"),
    ],
)
def test_a_redirect_changes_the_method_as_the_protocol_says(ask, method, status, then):
    body = None if method in ("HEAD", "GET", "DELETE") else "{}"
    scripts = by_path({"/": redirect("/end", status), "/end": answer(body=b"")})
    seen, (_, request) = ask(scripts, method=method, body=body, headers={"Content-Type": "text/x", "X-Trace": "1"})
    assert seen.ok
    assert request.startswith(f"{then} /end HTTP/1.1\r\n".encode())
    goes_along = then == method
    assert request.endswith(b"\r\n\r\n{}") is (goes_along and body is not None)
    assert (b"Content-Type: text/x" in request) is goes_along
    assert b"X-Trace: 1" in request


SECRETS = [
    {"type": "basic", "username": "u", "password": "s3cret"},
    {"type": "bearer", "token": "s3cret"},
    {"type": "header", "name": "X-Api-Key", "value": "s3cret"},
]


@pytest.mark.parametrize("auth", SECRETS)
def test_credentials_go_along_within_an_origin_and_not_to_another(probe, auth):
    headers = {"Cookie": "session=1", "Host": "name.example", "X-Trace": "1"}
    with serve(answer()) as foreign:
        scripts = {"/": redirect("/within"), "/within": redirect(foreign.url("/abroad"))}
        with serve(by_path(scripts)) as own:
            assert probe("http", own.url(), auth=auth, headers=headers).ok
    first, within = own.requests
    (abroad,) = foreign.requests
    for kept in (first, within):
        assert b"session=1" in kept
        assert b"Host: name.example\r\n" in kept
        assert b"Authorization" in kept or b"X-Api-Key" in kept
    assert b"session=1" not in abroad
    assert b"name.example" not in abroad
    assert b"Authorization" not in abroad
    assert b"X-Api-Key" not in abroad
    assert b"X-Trace: 1" in abroad


def test_credentials_do_not_come_back_after_a_detour(probe):
    with serve(answer()) as last, serve(redirect(last.url("/back"))) as foreign, serve(redirect(foreign.url())) as own:
        probe("http", own.url(), auth=SECRETS[1])
    assert b"s3cret" in own.requests[0]
    assert b"s3cret" not in foreign.requests[0] + last.requests[0]


# --- certificates


def test_a_certificate_is_not_verified_where_that_was_switched_off(probe, make_tls):
    expires_at = (datetime.now(UTC) - timedelta(days=3)).replace(microsecond=0)
    tls = make_tls("other.example", issuer=trustme.CA(), not_after=expires_at)
    with serve(answer(), tls=tls) as target:
        url = target.url(host="localhost")
        assert probe("http", url).error_kind is ErrorKind.TLS
        seen = probe("http", url, verify_tls=False)
        assert (seen.ok, seen.tls_expires_at) == (True, expires_at)


def test_the_days_a_certificate_is_good_for_can_be_asserted(probe, make_tls):
    tls = make_tls(not_after=STARTED_AT + timedelta(days=3650, hours=5))
    with serve(answer(), tls=tls) as target:
        url = target.url(host="localhost")
        assert probe("http", url, assertions=["tls_days_left == 3650"]).ok
        seen = probe("http", url, assertions=["tls_days_left > 3650"])
    assert failed(seen) == (ErrorKind.ASSERTION, "tls_days_left > 3650: was 3650")


# --- assertions about the answer


def test_what_holds_is_success_and_what_was_observed_is_kept(ask):
    body = json.dumps({"queue": {"depth": 12}}).encode()
    texts = [
        "status == 200",
        "response_ms < 20000",
        "json $.queue.depth < 100",
        'header content-type contains "json"',
        'body contains "depth"',
    ]
    seen, _ = ask(answer(body=body, **JSON), assertions=texts)
    assert seen.ok
    assert [(finding.assertion, finding.holds) for finding in seen.findings] == [(text, True) for text in texts]
    assert [finding.observed for finding in seen.findings][2:] == ["12", "application/json", body.decode()]


def test_the_first_that_does_not_hold_is_the_failure(ask):
    body = json.dumps({"queue": {"depth": 250}}).encode()
    texts = ["status == 200", "json $.queue.depth < 100", 'body contains "nothing"']
    seen, _ = ask(answer(body=body, **JSON), assertions=texts)
    assert failed(seen) == (ErrorKind.ASSERTION, "json $.queue.depth < 100: was 250")
    assert [finding.holds for finding in seen.findings] == [True, False, False]


def test_an_unexpected_status_comes_first_and_the_evidence_is_kept(ask):
    seen, _ = ask(answer("503 Oops", body=b"under repair"), assertions=['body contains "ok"'])
    assert failed(seen) == (ErrorKind.STATUS, "503, expected 200-299")
    assert [finding.observed for finding in seen.findings] == ["under repair"]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (reset_after(head(Content_Length="100") + b"half"), ErrorKind.CONNECT),
        (drip(head(), b"."), ErrorKind.TIMEOUT),
    ],
)
def test_an_answer_that_breaks_off_is_not_held_against_anything(ask, script, kind):
    seconds = SHORT_SECONDS if kind is ErrorKind.TIMEOUT else LONG_SECONDS
    seen, _ = ask(script, assertions=['body not contains "error"'], timeout_seconds=seconds)
    assert (seen.error_kind, seen.findings) == (kind, ())


def test_assertions_are_about_the_last_answer(ask):
    scripts = {
        "/": send(head("302 Found", Location="/end", X_Which="first", Content_Length="0")),
        "/end": answer(body=b"second"),
    }
    seen, _ = ask(by_path(scripts), assertions=["header x-which not exists", 'body == "second"', "status == 200"])
    assert seen.ok, seen.findings


def test_headers_of_interim_answers_and_trailers_are_not_the_answers(ask):
    early = head("103 Early Hints", X_Early="1")
    chunked = head(Transfer_Encoding="chunked") + b"2\r\nok\r\n0\r\nX-Late: 1\r\n\r\n"
    texts = ["header x-early not exists", "header x-late not exists", 'body == "ok"']
    seen, _ = ask(send(early + chunked), assertions=texts)
    assert seen.ok, seen.findings


def test_headers_that_are_repeated_are_one_list(ask):
    raw = b"HTTP/1.1 200 OK\r\nVia: a\r\nvia:  b \r\nContent-Length: 0\r\n\r\n"
    assert ask(send(raw), assertions=['header Via == "a, b"'])[0].ok


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"not json", "there is none"),
        (b'{"a": "5"}', 'was "5"'),
        (b'{"a": null}', "was null"),
        (b'{"a": [5]}', "was [5]"),
        (b"[5]", "there is none"),
    ],
)
def test_a_lying_body_is_told_by_what_was_observed(ask, body, detail):
    seen, _ = ask(answer(body=body, **JSON), assertions=["json $.a <= 5"])
    assert failed(seen) == (ErrorKind.ASSERTION, f"json $.a <= 5: {detail}")


def test_a_body_is_read_up_to_its_bound_and_no_further(ask):
    endless = send_forever(head(), b"x" * 65536)
    seen, _ = ask(endless, assertions=['body matches "^x+$"', 'body not contains "y"', "json $ not exists"])
    assert seen.ok, seen.findings
    exact = b"x" * (MAX_BODY_BYTES - 1) + b"y"
    assert ask(answer(body=exact), assertions=['body matches "y$"'])[0].ok
    assert ask(answer(body=exact + b"z"), assertions=['body not contains "z"'])[0].ok


# --- work that is long


def test_an_automaton_of_the_worst_kind_holds_up_nobody_else(loopback, monkeypatch):
    """While one answer is weighed in a thread, others are checked, and leaving does not wait for it."""
    monkeypatch.setattr("server.probes.equipment.WEIGHING_SECONDS", SHORT_SECONDS)
    text = 'body matches "(?:[ab](?:.?){20}[yz]){5}Q"'
    # Without a pattern in the text, its states do not repeat, and RE2 falls back to its slow automaton.
    body = bytes(random.Random(1).choices(b"abcxyz ", k=250_000))

    async def check_beside(heavy_url, url):
        async with Prober(loopback, resolve=resolve) as prober:
            heavy = asyncio.create_task(
                prober.check(read_check("http", heavy_url, LONG_SECONDS, {}, [text] * 5), STARTED_AT)
            )
            while not heavy.done():
                beside = await prober.check(read_check("http", url, LONG_SECONDS), STARTED_AT)
                assert beside.ok
            return heavy.result()

    with serve(answer(body=body)) as large, serve(answer()) as target:
        seen = asyncio.run(check_beside(large.url(), target.url()))
    assert failed(seen) == (ErrorKind.INTERNAL, "the assertions took too long to be held against the answer")
    assert seen.outcome == "unknown", "it says nothing of the target"


def test_what_is_quick_is_weighed_where_it_stands(loopback, monkeypatch):
    def refuse(*_):
        raise AssertionError("no thread is needed")

    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", refuse)

    async def check(url):
        async with Prober(loopback, resolve=resolve) as prober:
            return await prober.check(read_check("http", url, LONG_SECONDS, {}, ['body matches "o+"']), STARTED_AT)

    with serve(answer(body=b"o" * 10_000)) as target:
        assert asyncio.run(check(target.url())).ok


def test_a_body_that_no_assertion_reads_is_not_kept(loopback, monkeypatch):
    kept = []

    async def conclude(self, check, evidence, seen):
        kept.append((evidence.body, dict(evidence.headers)))
        return seen

    monkeypatch.setattr(Equipment, "conclude", conclude)

    async def check(url, texts):
        async with Prober(loopback, resolve=resolve) as prober:
            await prober.check(read_check("http", url, LONG_SECONDS, {}, texts), STARTED_AT)

    with serve(answer(body=b"much")) as target:
        asyncio.run(check(target.url(), ["status == 200"]))
        asyncio.run(check(target.url(), ["header content-length exists"]))
        asyncio.run(check(target.url(), ['body == "much"']))
    assert kept == [(b"", {}), (b"", {"content-length": "4"}), (b"much", {"content-length": "4"})]

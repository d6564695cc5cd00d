"""What only the served process can show: bytes that no client library would send, and what stands in the log then."""

import json
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from ports import free_port

from server.http.parsing import MAX_BODY_BYTES
from tests.http.conftest import ENVIRONMENT, SUPABASE_URL
from tests.http.minting import SECRET, mint_hs256, user_claims
from tests.stack.product import environment, eventually, process

# Nobody answers there, and nobody has to: tokens are checked with the secret, and these requests are refused before.
NO_SUPABASE = SimpleNamespace(
    url=SUPABASE_URL,
    publishable_key=ENVIRONMENT["SUPABASE_PUBLISHABLE_KEY"],
    secret_key=ENVIRONMENT["SUPABASE_SECRET_KEY"],
    jwt_secret=SECRET.decode(),
)
CHUNK = 0x40000


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Served:
    """A running API, spoken to in bytes. `token` is one that it accepts."""

    port: int
    log_path: Path
    token: str
    running: subprocess.Popen[bytes]

    def say(self, request_line: bytes, *headers: bytes, body: bytes = b"") -> Answered:
        """Send one request as it is, and read until the server closes the connection."""
        head = b"\r\n".join([request_line, b"Host: localhost", b"Connection: close", *headers])
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(head + b"\r\n\r\n" + body)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        head, _, rest = answer.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        named = (line.partition(": ") for line in lines)
        return Answered(int(status_line.split()[1]), {name.lower(): value for name, _, value in named}, rest)

    @property
    def authorization(self) -> bytes:
        """The header of somebody who has signed in."""
        return b"Authorization: Bearer " + self.token.encode()

    def post(self, *headers: bytes, body: bytes) -> Answered:
        """Send a body that is called JSON."""
        return self.say(
            b"POST /v1/orgs HTTP/1.1", b"Content-Type: application/json", self.authorization, *headers, body=body
        )


@contextmanager
def serve(folder: Path, **more: str) -> Iterator[Served]:
    """Serve until the end of a `with` block, and survive it."""
    port, log_path, now = free_port(), folder / "api.log", int(time.time())
    token = mint_hs256(user_claims(iat=now, exp=now + 3600, sub=str(uuid.uuid4())))
    with process("server", environment(NO_SUPABASE, PORT=str(port), **more), log_path) as running:

        def is_up() -> bool:
            assert running.poll() is None, log_path.read_text()
            try:
                return requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
            except requests.ConnectionError:
                return False

        eventually(is_up, "the API does not answer", within_seconds=30)
        yield Served(port, log_path, token, running)
        assert running.poll() in {None, 0}, "it did not survive"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("served")) as served:
        yield served


def is_problem(answer: Answered, status: int, code: str) -> None:
    problem = json.loads(answer.body)
    assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == problem["request_id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def chunked(body: bytes) -> bytes:
    pieces = [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def test_a_body_over_1_mb_is_413_however_its_length_is_told(served: Served):
    too_large = b" " * (MAX_BODY_BYTES + 1)
    told = served.post(b"Content-Length: %d" % len(too_large), body=too_large)
    is_problem(told, 413, "body_too_large")
    is_problem(served.post(b"Transfer-Encoding: chunked", body=chunked(too_large)), 413, "body_too_large")


def test_a_body_of_exactly_1_mb_is_read_however_its_length_is_told(served: Served):
    largest = b'{"name": 1}'.ljust(MAX_BODY_BYTES)
    is_problem(served.post(b"Content-Length: %d" % len(largest), body=largest), 422, "invalid_input")
    is_problem(served.post(b"Transfer-Encoding: chunked", body=chunked(largest)), 422, "invalid_input")


def test_a_length_that_nobody_will_send_is_413_before_anything_is_read(served: Served):
    is_problem(served.post(b"Content-Length: 999999999999", body=b""), 413, "body_too_large")


def test_a_chunked_body_that_breaks_off_is_400(served: Served):
    is_problem(served.post(b"Transfer-Encoding: chunked", body=b'8\r\n{"name":\r\nZZ\r\n'), 400, "malformed_request")


@pytest.mark.parametrize("header", [b"Content-Length: +5", b"Content-Length: 1e3", b"X-Broken : 1", b": 1"])
def test_what_is_no_http_is_400(served: Served, header: bytes):
    assert served.post(header, body=b"{}").status == 400


OTHER = [b"Authorization: Bearer x.y.z", b"authorization: Basic eDp5", b"Authorization:", b"AUTHORIZATION: Bearer"]


@pytest.mark.parametrize("other", [None, *OTHER])
def test_two_authorization_headers_are_none_whichever_comes_first(served: Served, other: bytes | None):
    pair = (served.authorization, other or served.authorization)
    for headers in (pair, pair[::-1], (pair[0], b"Accept: */*", pair[1])):
        answer = served.say(b"GET /v1/orgs HTTP/1.1", *headers)
        is_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "headers",
    [
        [b"X-Filler: " + b"x" * 2_000_000],
        [b"Authorization: Bearer " + b"x" * 2_000_000],
        [b"X-Filler-%d: x" % number for number in range(5_000)],
    ],
    ids=["one that is long", "a long credential", "many"],
)
def test_headers_beyond_measure_are_refused_and_the_next_request_is_served(served: Served, headers: list[bytes]):
    assert served.say(b"GET /v1/orgs HTTP/1.1", *headers).status in {400, 431}
    is_problem(served.say(b"GET /v1/monitors?limit=x HTTP/1.1", served.authorization), 422, "invalid_input")


def test_a_long_header_that_the_server_still_takes_is_refused_by_us(served: Served):
    is_problem(served.say(b"GET /v1/orgs HTTP/1.1", b"Authorization: Bearer " + b"x." * 10_000), 401, "unauthenticated")


@pytest.mark.parametrize("name", [b"access_token", b"apikey", b"api_key", b"token", b"key"])
def test_a_credential_in_the_query_is_400_and_stands_in_no_log(served: Served, name: bytes):
    answer = served.say(b"GET /v1/monitors?" + name + b"=in-the-query HTTP/1.1", served.authorization)
    is_problem(answer, 400, "credentials_in_query")
    assert b"Authorization: Bearer" in answer.body
    text = served.log_path.read_text()
    assert answer.headers["x-request-id"] in text
    assert "in-the-query" not in text


def test_a_foreign_page_with_credentials_gets_the_ordinary_answer_and_may_not_read_it(served: Served):
    request = (b"GET /v1/monitors?limit=x HTTP/1.1", served.authorization, b"Cookie: session=x")
    foreign = served.say(*request, b"Origin: https://evil.example.com")
    ours = served.say(*request, b"Origin: https://app.example.com")
    for answer in (foreign, ours):
        is_problem(answer, 422, "invalid_input")
    assert [name for name in foreign.headers if name.startswith("access-control-")] == []
    assert ours.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "access-control-allow-credentials" not in ours.headers


@pytest.mark.parametrize(
    ("request_line", "status", "code"),
    [
        (b"GET /v1/%ff%00%ed%a0%80%0a HTTP/1.1", 404, "not_found"),
        (b"GET /v1/monitors?%ff=%ed%a0%80&a%00=%0a HTTP/1.1", 422, "invalid_input"),
        (b"GET //evil.example/%2e%2e/v1/monitors HTTP/1.1", 404, "not_found"),
        (b"BREW /v1/monitors HTTP/1.1", 405, "method_not_allowed"),
        (b"OPTIONS * HTTP/1.1", 404, "not_found"),
    ],
)
def test_a_strange_request_line_is_a_refusal_of_ours(served: Served, request_line: bytes, status: int, code: str):
    is_problem(served.say(request_line, served.authorization), status, code)


def test_headers_in_no_alphabet_are_refused_or_replaced(served: Served):
    is_problem(served.say(b"GET /v1/orgs HTTP/1.1", b"Authorization: Bearer \xff.\xfe.\xfd"), 401, "unauthenticated")
    answer = served.say(b"GET /healthz HTTP/1.1", b"X-Request-ID: \xff\xfe\xff\xfe\xff\xfe\xff\xfe", b"Accept: */*")
    assert answer.status == 200
    assert answer.headers["x-request-id"].isalnum()


def test_head_has_the_headers_of_get_and_no_body(served: Served):
    whole, head = (served.say(method + b" /healthz HTTP/1.1") for method in (b"GET", b"HEAD"))
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))
    assert head.headers["etag"] == whole.headers["etag"]


def test_each_request_is_one_line_of_json_in_the_log_and_no_secret_is_in_any(served: Served):
    marks = [f"of-the-log-{number}" for number in range(5)]
    for mark, request_line in zip(
        marks,
        [
            b"GET /v1/nothing%0a{%22level%22:1}?token=in-the-query HTTP/1.1",
            b"GET /v1/monitors?sort=in-the-query HTTP/1.1",
            b"M" * 5000 + b" /" + b"x" * 20_000 + b" HTTP/1.1",
            b"GET /" + b"%00" * 5000 + b" HTTP/1.1",
            b"GET /v1/orgs HTTP/1.1",  # nobody answers in Supabase's place
        ],
        strict=True,
    ):
        served.say(request_line, served.authorization, b"X-Request-ID: " + mark.encode())
    text = served.log_path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    noted = [line for line in lines if line["logger"] == "tocsin.access" and line["request_id"] in marks]
    statuses = [404, 422, 404, 404, 503]
    assert [(line["request_id"], line["status"]) for line in noted] == list(zip(marks, statuses, strict=True))
    assert max(map(len, text.encode().splitlines())) < 4096, "a pipe takes a line in one piece"
    for secret in (served.token, served.token.split(".")[2], SECRET.decode(), NO_SUPABASE.secret_key, "in-the-query"):
        assert secret not in text


def test_several_processes_count_together(tmp_path: Path):
    with serve(tmp_path, WEB_CONCURRENCY="2", TMPDIR=str(tmp_path)) as served:
        for _ in range(40):
            assert served.say(b"GET /openapi.json HTTP/1.1").status == 200
        for _ in range(4):  # whichever process answers
            text = served.say(b"GET /metrics HTTP/1.1").body.decode()
            counted = re.search(r'tocsin_http_requests_total{[^}]*route="/openapi.json"[^}]*} (\d+)', text)
            assert counted, text
            assert int(counted[1]) == 40
        assert list(tmp_path.glob("tocsin-metrics-*"))
    assert not list(tmp_path.glob("tocsin-metrics-*")), "what processes share goes when they do"


def test_whom_the_last_proxy_heard_counts_in_whichever_line_it_wrote_it(tmp_path: Path):
    with serve(tmp_path, TRUSTED_PROXIES="1", RATE_LIMITS="public=1/day") as served:

        def ask(*forwarded_for: bytes) -> int:
            lines = (b"X-Forwarded-For: " + line for line in forwarded_for)
            return served.say(b"GET /openapi.json HTTP/1.1", *lines).status

        assert [ask(b"192.0.2.1"), ask(b"192.0.2.1")] == [200, 429]
        assert [ask(b"198.51.100.1", b"192.0.2.1"), ask(b"192.0.2.1", b"192.0.2.2")] == [429, 200]


@pytest.mark.parametrize("attempt", range(4))
def test_told_to_stop_while_a_process_still_starts_it_stops(tmp_path: Path, attempt: int):
    with serve(tmp_path, WEB_CONCURRENCY="2") as served:  # as soon as the first of them answers
        served.running.send_signal(signal.SIGTERM)
        assert served.running.wait(10) == 0

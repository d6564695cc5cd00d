"""The snapshot of signing keys: rotation, outages, floods, and documents that are not what they should be."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import requests
import urllib3
from cryptography.hazmat.primitives.asymmetric import ec

from server.data.jwks import JWKS_PATH, MAX_BODY_BYTES, JwksError, JwksSnapshot, fetch_jwks, read_jwks
from server.errors import Unauthenticated, Unavailable
from server.http.tokens import Reason, TokenPolicy, Verifier
from tests.http.minting import (
    ABSENT,
    ISSUER,
    NOW,
    USER_ID,
    JwksServer,
    SigningKey,
    b64,
    changed,
    es256_key,
    jwks,
    rs256_key,
    serve_jwks,
    user_claims,
)

OLD, NEW = es256_key("old"), es256_key("new")
DEADLINE_SECONDS = 10


class Clock:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with serve_jwks([OLD]) as endpoint:
        yield endpoint


@pytest.fixture
def snapshot(server: JwksServer, clock: Clock) -> JwksSnapshot:
    return JwksSnapshot(partial(fetch_jwks, server.url), clock, wait_seconds=DEADLINE_SECONDS)


@pytest.fixture
def verifier(snapshot: JwksSnapshot) -> Verifier:
    return Verifier(TokenPolicy(issuer=ISSUER), snapshot)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


def settle(snapshot: JwksSnapshot) -> None:
    wait_until(lambda: snapshot._flight is None)


def mint(key: SigningKey, **claims: object) -> str:
    return key.mint(user_claims(**claims))


# --- rotation --------------------------------------------------------------------------------------------------------


def test_the_keys_come_from_supabase_auths_well_known_address(server: JwksServer, snapshot: JwksSnapshot) -> None:
    assert snapshot.find("old") is not None
    assert server.paths == ["/auth/v1/.well-known/jwks.json"] == [JWKS_PATH]


def test_a_known_kid_is_answered_from_memory_for_ten_minutes(
    server: JwksServer, snapshot: JwksSnapshot, clock: Clock
) -> None:
    snapshot.find("old")
    for _ in range(100):
        clock.now += 5.99
        assert snapshot.find("old") is not None
    assert server.fetches == 1


def test_after_ten_minutes_one_refresh_runs_behind_while_known_kids_are_answered(
    server: JwksServer, snapshot: JwksSnapshot, clock: Clock
) -> None:
    first = snapshot.find("old")
    clock.now += 600
    server.hold()  # every answer below is given while the fetch hangs; waiting for it would time the test out
    for _ in range(100):
        assert snapshot.find("old") is first
    wait_until(lambda: server.fetches == 2)
    server.release()
    settle(snapshot)
    assert snapshot.find("old") is first, "the same key again is the same object"
    assert server.fetches == 2


def test_a_new_kid_is_found_by_the_request_that_brings_it(server: JwksServer, verifier: Verifier, clock: Clock) -> None:
    verifier.verify(mint(OLD), NOW)
    server.publish(OLD, NEW)
    clock.now += 30
    assert verifier.verify(mint(NEW), NOW).user_id == USER_ID
    assert server.fetches == 2


def test_a_remembered_token_dies_when_its_kid_leaves_the_jwks(
    server: JwksServer, verifier: Verifier, snapshot: JwksSnapshot, clock: Clock
) -> None:
    token = mint(OLD)
    verifier.verify(token, NOW)
    server.publish(NEW)
    clock.now += 600
    verifier.verify(token, NOW)  # still answered from memory; the refresh starts behind
    settle(snapshot)
    with pytest.raises(Unauthenticated) as refused:
        verifier.verify(token, NOW)
    assert refused.value.reason == Reason.UNKNOWN_KID
    assert verifier.verify(mint(NEW), NOW).user_id == USER_ID


def test_a_kid_that_means_another_key_now_is_another_key(
    server: JwksServer, snapshot: JwksSnapshot, clock: Clock
) -> None:
    first = snapshot.find("old")
    server.publish(SigningKey("old", "ES256", ec.generate_private_key(ec.SECP256R1())))
    clock.now += 600
    snapshot.known("old")
    settle(snapshot)
    assert snapshot.known("old") not in (first, None)


def test_an_empty_key_set_is_believed(server: JwksServer, snapshot: JwksSnapshot, clock: Clock) -> None:
    snapshot.find("old")
    server.publish()
    clock.now += 600
    snapshot.known("old")
    settle(snapshot)
    assert snapshot.find("old") is None
    assert snapshot.status().usable


def test_warming_fetches_before_the_first_request(server: JwksServer, snapshot: JwksSnapshot) -> None:
    snapshot.warm()
    wait_until(lambda: snapshot.known("old") is not None)
    assert server.fetches == 1


# --- outages ---------------------------------------------------------------------------------------------------------


def answer_503(server: JwksServer) -> None:
    server.status = 503


def answer_html(server: JwksServer) -> None:
    server.body, server.headers = b"<html>Bad gateway</html>", {"Content-Type": "text/html"}


def answer_nothing(server: JwksServer) -> None:
    server.body = b""


def answer_a_redirect(server: JwksServer) -> None:
    server.status, server.headers = 302, {"Location": server.url}


def answer_never(server: JwksServer) -> None:
    server.hold()


def refuse_connections(server: JwksServer) -> None:
    server.close()


OUTAGES = [answer_503, answer_html, answer_nothing, answer_a_redirect, answer_never]


@pytest.mark.parametrize("break_it", OUTAGES)
def test_while_the_endpoint_fails_no_valid_token_is_refused_and_one_fetch_is_made(
    server: JwksServer, verifier: Verifier, snapshot: JwksSnapshot, clock: Clock, break_it: Callable[[JwksServer], None]
) -> None:
    verifier.verify(mint(OLD), NOW)
    break_it(server)
    clock.now += 3600
    accepted = [verifier.verify(mint(OLD, number=number), NOW) for number in range(100)]
    assert len(accepted) == 100
    wait_until(lambda: server.fetches == 2)
    server.release()
    settle(snapshot)
    assert server.fetches == 2


def test_a_closed_endpoint_refuses_no_valid_token_either(
    verifier: Verifier, snapshot: JwksSnapshot, clock: Clock
) -> None:
    with serve_jwks([OLD]) as gone:
        url = gone.url
    calls: list[int] = []

    def fetch() -> bytes:
        calls.append(1)
        return jwks(OLD) if len(calls) == 1 else fetch_jwks(url)

    standing = JwksSnapshot(fetch, clock)
    checks = Verifier(TokenPolicy(issuer=ISSUER), standing)
    checks.verify(mint(OLD), NOW)
    clock.now += 3600
    assert len([checks.verify(mint(OLD, number=number), NOW) for number in range(100)]) == 100
    settle(standing)
    assert len(calls) == 2
    assert standing.status().last_error == "ConnectionError"


def test_a_failed_refresh_is_tried_again_after_30_seconds_and_heals(
    server: JwksServer, snapshot: JwksSnapshot, clock: Clock
) -> None:
    snapshot.find("old")
    server.status = 503
    clock.now += 600
    snapshot.known("old")
    settle(snapshot)
    clock.now += 29.9
    snapshot.known("old")
    assert server.fetches == 2
    server.publish(OLD, NEW)
    clock.now += 0.1
    snapshot.known("old")
    settle(snapshot)
    assert server.fetches == 3
    assert snapshot.known("new") is not None


def test_stale_keys_serve_for_a_day_and_then_nobody_is_believed_until_the_endpoint_is_back(
    server: JwksServer, verifier: Verifier, snapshot: JwksSnapshot, clock: Clock
) -> None:
    token = mint(OLD)
    verifier.verify(token, NOW)
    server.status = 503
    clock.now += 24 * 3600
    verifier.verify(token, NOW)
    settle(snapshot)
    clock.now += 30
    with pytest.raises(Unavailable):
        verifier.verify(token, NOW)  # remembered or not
    server.status = 200
    clock.now += 1
    assert verifier.verify(token, NOW).user_id == USER_ID


def test_without_any_keys_the_answer_is_503_and_the_next_request_works_once_the_endpoint_is_back(
    server: JwksServer, verifier: Verifier, clock: Clock
) -> None:
    server.status = 503
    for _ in range(50):
        with pytest.raises(Unavailable) as refused:
            verifier.verify(mint(OLD), NOW)
    assert (refused.value.status, refused.value.retry_after_seconds) == (503, 1)
    assert server.fetches == 1
    server.status = 200
    clock.now += 1
    assert verifier.verify(mint(OLD), NOW).user_id == USER_ID


def test_without_a_free_thread_the_old_keys_serve_on(
    snapshot: JwksSnapshot, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    snapshot.find("old")
    clock.now += 600
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert snapshot.find("old") is not None
    assert snapshot.find("new") is None
    assert snapshot.status().last_error == "RuntimeError"


def test_a_fetch_that_hangs_for_good_is_given_up_and_its_late_answer_dropped(clock: Clock) -> None:
    answers = [threading.Event(), threading.Event()]
    bodies = [jwks(OLD), jwks(NEW)]
    done: list[int] = []
    order = iter(range(2))

    def fetch() -> bytes:
        number = next(order)
        answers[number].wait(DEADLINE_SECONDS)
        done.append(number)
        return bodies[number]

    snapshot = JwksSnapshot(fetch, clock, wait_seconds=0)
    snapshot.warm()
    clock.now += 30
    snapshot.warm()
    answers[1].set()
    wait_until(lambda: snapshot.known("new") is not None)
    answers[0].set()
    wait_until(lambda: len(done) == 2 and not any(t.name == "jwks-refresh" for t in threading.enumerate()))
    assert snapshot.known("old") is None


def test_the_status_says_how_old_the_keys_are_and_what_went_wrong_without_the_address(
    server: JwksServer, snapshot: JwksSnapshot, clock: Clock
) -> None:
    before = snapshot.status()
    assert (before.usable, before.key_count, before.last_success_age_seconds, before.last_error) == (
        False,
        0,
        None,
        None,
    )
    snapshot.find("old")
    clock.now += 600
    server.status = 500
    snapshot.known("old")
    settle(snapshot)
    after = snapshot.status()
    assert (after.usable, after.key_count, after.last_success_age_seconds) == (True, 1, 600.0)
    assert after.last_error == "JwksError"
    server.status = 200
    clock.now += 30
    snapshot.known("old")
    settle(snapshot)
    assert snapshot.status().last_error is None


# --- floods and crowds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 503], ids=["the endpoint answers", "the endpoint fails"])
def test_a_flood_of_unknown_kids_makes_one_fetch_in_30_seconds(
    server: JwksServer, verifier: Verifier, clock: Clock, status: int
) -> None:
    verifier.verify(mint(OLD), NOW)
    server.status = status
    flood = [mint(NEW, number=number) for number in range(50)]
    refused = 0
    for second in range(0, 90, 10):
        clock.now = 1000.0 + second
        for token in flood:
            with pytest.raises(Unauthenticated):
                verifier.verify(token, NOW)
            refused += 1
    assert refused == 450
    assert server.fetches == 3, "at 0 s for the first token, at 30 s and at 60 s"


@pytest.mark.parametrize("warm", [True, False], ids=["with keys in hand", "cold"])
def test_32_threads_with_an_unknown_kid_share_one_fetch(
    server: JwksServer, snapshot: JwksSnapshot, clock: Clock, warm: bool
) -> None:
    if warm:
        snapshot.find("old")
        clock.now += 30
    before = server.fetches
    server.publish(OLD, NEW)
    server.hold()
    start = threading.Barrier(33)

    def ask() -> bool:
        start.wait()
        return snapshot.find("new") is not None

    with ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(ask) for _ in range(32)]
        start.wait()
        wait_until(lambda: server.fetches == before + 1)
        assert snapshot.known("old") is None or warm
        server.release()
        assert all(answer.result() for answer in asked)
    assert server.fetches == before + 1


def test_an_unknown_kid_waits_no_longer_than_the_timeout(server: JwksServer, clock: Clock) -> None:
    snapshot = JwksSnapshot(partial(fetch_jwks, server.url), clock, wait_seconds=0.05)
    snapshot.warm()
    settle(snapshot)
    server.hold()
    clock.now += 30
    assert snapshot.find("new") is None
    assert snapshot._flight is not None, "it went on while the fetch still hangs"


# --- the fetch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 400, 404, 500, 503])
def test_any_status_but_200_is_a_failure_and_no_redirect_is_followed(server: JwksServer, status: int) -> None:
    server.status, server.headers = status, {"Location": server.url}
    with pytest.raises(JwksError):
        fetch_jwks(server.url)
    assert server.fetches == 1


def test_a_body_over_256_kb_is_a_failure(server: JwksServer) -> None:
    server.body = b" " * (MAX_BODY_BYTES + 1)
    with pytest.raises(JwksError):
        fetch_jwks(server.url)


def test_an_endpoint_that_does_not_answer_is_a_failure(server: JwksServer) -> None:
    server.hold()
    with pytest.raises(requests.ReadTimeout):
        fetch_jwks(server.url, timeout_seconds=0.05)


def test_a_body_that_drips_is_cut_off_at_the_timeout_though_each_byte_is_in_time(server: JwksServer) -> None:
    server.drip = True
    with pytest.raises(requests.ReadTimeout):
        fetch_jwks(server.url, timeout_seconds=0.3)


def test_a_body_in_chunks_is_read_whole(server: JwksServer) -> None:
    body = server.body
    server.headers = {"Transfer-Encoding": "chunked"}
    server.body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:9], body[9:])) + b"0\r\n\r\n"
    assert fetch_jwks(server.url) == body


def test_a_body_that_breaks_off_is_a_failure(server: JwksServer) -> None:
    server.body, server.promised_bytes = server.body[:-20], len(server.body)
    with pytest.raises((urllib3.exceptions.HTTPError, requests.RequestException, JwksError)):
        read_jwks(fetch_jwks(server.url))


def test_a_proxy_in_the_environment_is_not_used(server: JwksServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    assert fetch_jwks(server.url) == server.body


# --- the document ----------------------------------------------------------------------------------------------------

MALFORMED = [
    b"",
    b"null",
    b"[]",
    b'"keys"',
    b"<html></html>",
    b"{}",
    b'{"keys":null}',
    b'{"keys":{}}',
    b'{"keys":[',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"keys":[NaN]}',
]


@pytest.mark.parametrize("document", MALFORMED, ids=lambda document: document[:16].decode("latin-1") or "empty")
def test_a_malformed_document_is_a_failure(document: bytes) -> None:
    with pytest.raises(JwksError):
        read_jwks(document)


PRIVATE = b64(OLD.private.private_numbers().private_value.to_bytes(32, "big"))  # type: ignore[union-attr]
IGNORED: list[tuple[str, Any]] = [
    ("not an object", "old"),
    ("nothing in it", {}),
    ("a shared secret", {"kty": "oct", "k": b64(b"x" * 32), "kid": "odd", "alg": "HS256"}),
    ("an Ed25519 key", {"kty": "OKP", "crv": "Ed25519", "x": b64(b"x" * 32), "kid": "odd"}),
    ("an EC key that says RSA", NEW.jwk(kty="RSA")),
    ("no kty", NEW.jwk(kty=ABSENT)),
    ("kty is a list", NEW.jwk(kty=["EC"])),
    ("another curve", NEW.jwk(crv="P-384")),
    ("no curve", NEW.jwk(crv=ABSENT)),
    ("secp256k1", NEW.jwk(crv="secp256k1")),
    ("an RSA key with a curve", rs256_key().jwk(crv="P-256")),
    ("another algorithm", NEW.jwk(alg="ES384")),
    ("an EC key for RS256", NEW.jwk(alg="RS256")),
    ("an RSA key for PS256", rs256_key().jwk(alg="PS256")),
    ("an RSA key for HS256", rs256_key().jwk(alg="HS256")),
    ("alg null", NEW.jwk(alg=None)),
    ("for encryption", NEW.jwk(use="enc")),
    ("for signing only", NEW.jwk(key_ops=["sign"])),
    ("key_ops is text", NEW.jwk(key_ops="verify")),
    ("no kid", NEW.jwk(kid=ABSENT)),
    ("an empty kid", NEW.jwk(kid="")),
    ("kid is a number", NEW.jwk(kid=1)),
    ("kid is endless", NEW.jwk(kid="x" * 257)),
    ("a private EC key", NEW.jwk(d=PRIVATE)),
    ("a private RSA key", rs256_key().jwk(d=b64(b"\x01" * 256))),
    ("an RSA key of 1024 bit", rs256_key("short", 1024).jwk()),
    ("an RSA key of 65,536 bit", rs256_key().jwk(n=b64(b"\xff" * 8192))),
    ("an RSA exponent of 1", rs256_key().jwk(e=b64(b"\x01"))),
    ("no modulus", rs256_key().jwk(n=ABSENT)),
    ("the modulus is a number", rs256_key().jwk(n=5)),
    ("a point off the curve", NEW.jwk(x=b64(b"\x01" * 32))),
    ("a short coordinate", NEW.jwk(x=b64(b"\x01" * 31))),
    ("no coordinate", NEW.jwk(y=ABSENT)),
    ("the coordinate is null", NEW.jwk(y=None)),
    ("the coordinate is no base64", NEW.jwk(y="é" * 43)),
]


@pytest.mark.parametrize("jwk", [row[1] for row in IGNORED], ids=[row[0] for row in IGNORED])
def test_a_key_that_is_not_for_us_is_left_out_and_the_others_stand(jwk: object) -> None:
    assert list(read_jwks(json.dumps({"keys": [jwk, OLD.jwk()]}).encode())) == ["old"]


BARE = ("alg", "use", "key_ops", "ext")


@pytest.mark.parametrize("key", [NEW, rs256_key()], ids=["EC", "RSA"])
def test_a_key_that_says_no_more_than_it_must_is_used(key: SigningKey) -> None:
    document = {"keys": [changed(key.jwk(), dict.fromkeys(BARE, ABSENT))]}
    (found,) = read_jwks(json.dumps(document).encode()).values()
    assert (found.kid, found.algorithm) == (key.kid, key.algorithm)


def test_of_a_kid_that_occurs_twice_the_first_counts() -> None:
    twin = SigningKey("old", "ES256", ec.generate_private_key(ec.SECP256R1()))
    (found,) = read_jwks(jwks(OLD, twin)).values()
    assert found.public_key == OLD.private.public_key()


def test_a_key_does_not_show_its_numbers_in_its_repr() -> None:
    (found,) = read_jwks(jwks(OLD)).values()
    assert repr(found) == "Es256Key(kid='old')"

"""API keys at the door: looked up seldom, believed for seconds, explained when they may not."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import pytest

from server.app import all_operations
from server.data.api_keys import MAX_REMEMBERED, REMEMBERED_SECONDS, ApiKey, KeyRing
from server.data.clients import Supabase
from server.errors import RateLimited, Unauthenticated, Unavailable
from server.features.keys.routes import spell_secret
from server.features.keys.rules import Scope, may, role_of
from server.features.orgs.rules import Role
from tests.http.conftest import MONITOR, ORG_ID, SUPABASE_URL, FakeUpstream
from tests.http.test_parsing import path_of

SECRET = spell_secret(bytes(range(32)))
KNOWN = {"id": MONITOR["id"], "org_id": ORG_ID, "scopes": ["read"], "expires_at": None}


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def let_guess() -> None:
    """Let anybody guess keys."""


def let_nobody_guess() -> None:
    raise RateLimited


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ring(upstream: FakeUpstream, clock: Clock) -> KeyRing:
    return KeyRing(Supabase(upstream, SUPABASE_URL, "sb_publishable_x"), clock)  # type: ignore[arg-type]  # the fake


def test_a_key_is_looked_up_once_in_a_few_seconds(ring: KeyRing, upstream: FakeUpstream, clock: Clock):
    upstream.answer({**KNOWN, "expires_at": "2026-12-01T00:00:00.000000Z"})
    found = [ring.find(SECRET, "r", let_guess) for _ in range(3)]
    assert found[0] == ApiKey(str(MONITOR["id"]), UUID(ORG_ID), frozenset({"read"}), datetime(2026, 12, 1, tzinfo=UTC))
    assert found[0] is found[1] is found[2]
    (asked,) = upstream.requests
    assert (asked.path, asked.headers["X-Tocsin-Key"]) == ("/rpc/my_key", SECRET)
    assert "Authorization" not in asked.headers


def test_a_revoked_key_is_refused_within_five_seconds(ring: KeyRing, upstream: FakeUpstream, clock: Clock):
    upstream.answer(KNOWN)
    ring.find(SECRET, "r", let_guess)
    clock.seconds += REMEMBERED_SECONDS + 0.1
    assert REMEMBERED_SECONDS + 0.1 < 5
    upstream.answer(b"null")
    with pytest.raises(Unauthenticated):
        ring.find(SECRET, "r", let_guess)
    with pytest.raises(Unauthenticated):
        ring.find(SECRET, "r", let_guess)
    assert len(upstream.requests) == 2, "that it is no key is remembered too"


def test_what_cannot_be_looked_up_is_not_remembered(ring: KeyRing, upstream: FakeUpstream):
    upstream.fail(Unavailable())
    with pytest.raises(Unavailable):
        ring.find(SECRET, "r", let_guess)
    upstream.answer(KNOWN)
    assert ring.find(SECRET, "r", let_guess).scopes == {"read"}


@pytest.mark.parametrize("secret", ["tocsin_", "tocsin_ABCDEFGH_short", SECRET + "x", SECRET.replace("_", "-", 1), "x"])
def test_what_has_not_the_form_of_a_key_is_never_looked_up(ring: KeyRing, upstream: FakeUpstream, secret: str):
    with pytest.raises(Unauthenticated):
        ring.find(secret, "r", let_guess)
    assert upstream.requests == []


def test_a_crowd_waits_for_one_look_up(ring: KeyRing, upstream: FakeUpstream):
    upstream.answer(KNOWN)
    gate = threading.Barrier(16)

    def find(_: int) -> ApiKey:
        gate.wait()
        return ring.find(SECRET, "r", let_guess)

    with ThreadPoolExecutor(16) as crowd:
        assert len({id(key) for key in crowd.map(find, range(16))}) == 1
    assert len(upstream.requests) == 1


def test_who_may_not_guess_any_more_costs_no_look_up_and_a_key_that_was_good_here_is_no_guess(
    ring: KeyRing, upstream: FakeUpstream, clock: Clock
):
    with pytest.raises(RateLimited):
        ring.find(SECRET, "r", let_nobody_guess)
    assert upstream.requests == []
    for _ in range(2):
        upstream.answer(KNOWN)
        ring.find(SECRET, "r", let_guess)
        ring.find(SECRET, "r", let_nobody_guess)
        clock.seconds += REMEMBERED_SECONDS + 0.1
    upstream.answer(KNOWN)
    assert ring.find(SECRET, "r", let_nobody_guess).scopes == {"read"}, "it is looked up again"
    clock.seconds += REMEMBERED_SECONDS + 0.1
    upstream.answer(b"null")
    with pytest.raises(Unauthenticated):
        ring.find(SECRET, "r", let_nobody_guess)
    with pytest.raises(RateLimited):
        ring.find(SECRET, "r", let_nobody_guess)


def test_the_ring_stays_small_whoever_guesses(ring: KeyRing, upstream: FakeUpstream):
    for number in range(MAX_REMEMBERED + 50):
        upstream.answer(b"null")
        with pytest.raises(Unauthenticated):
            ring.find(spell_secret(number.to_bytes(32, "big")), "r", let_guess)
    assert len(ring._entries) == MAX_REMEMBERED


@pytest.mark.parametrize(
    ("scopes", "reads", "writes", "role"),
    [
        ({"read"}, True, False, Role.VIEWER),
        ({"write"}, True, True, Role.EDITOR),
        ({"admin"}, True, True, Role.ADMIN),
        ({"metrics:write"}, False, False, None),
        ({"pings:write", "metrics:write"}, False, False, None),
        ({"read", "metrics:write"}, True, False, Role.VIEWER),
    ],
)
def test_scopes_include_each_other_as_roles_do(scopes: set[str], reads: bool, writes: bool, role: Role | None):
    assert (may(scopes, Scope.READ), may(scopes, Scope.WRITE), role_of(scopes)) == (reads, writes, role)
    assert may(scopes, Scope.METRICS_WRITE) == ("metrics:write" in scopes)


CLOSED = [operation for operation in all_operations() if not operation.is_public]


@pytest.mark.parametrize("operation", CLOSED, ids=lambda operation: operation.name)
def test_a_key_without_the_scope_is_told_which_it_needs(operation, client, upstream: FakeUpstream):
    secret = spell_secret(hash(operation.name).to_bytes(32, "big", signed=True))
    upstream.answer({**KNOWN, "scopes": ["pings:write"]})
    headers = {"Authorization": f"Bearer {secret}"}
    refused = client.open(path_of(operation), method=operation.method, headers=headers)
    assert refused.status_code == 403, refused.text
    assert refused.json["code"] == ("users_only" if operation.users_only else "scope_missing")
    assert len(upstream.requests) == 1, "nothing is asked but who it is"


def test_a_key_asks_in_its_own_name_and_belongs_where_it_was_made(client, upstream: FakeUpstream):
    upstream.answer({**KNOWN, "scopes": ["write"]})
    upstream.answer(MONITOR)
    secret = spell_secret(b"w" * 32)
    body = {"name": "x", "target": "https://example.com/"}
    made = client.post("/v1/monitors", json=body, headers={"Authorization": f"Bearer {secret}"})
    assert made.status_code == 201, made.text
    _, write = upstream.requests
    assert write.headers["X-Tocsin-Key"] == secret
    assert "Authorization" not in write.headers
    assert ORG_ID.encode() in (write.content or b"")
    elsewhere = client.post(
        "/v1/monitors", json=body | {"org_id": str(MONITOR["id"])}, headers={"Authorization": f"Bearer {secret}"}
    )
    assert (elsewhere.status_code, elsewhere.json["errors"][0]["pointer"]) == (422, "/org_id")

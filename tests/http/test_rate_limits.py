"""How many requests somebody may make, and what the answers say of it: the same in memory and in Redis."""

import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from server.app import all_operations
from server.data.counters import Counters, MemoryCounters, SharedCounters
from server.features.keys.routes import spell_secret
from server.http.limits import Limiter, Standing, Tier, client_address
from server.http.parsing import CREDENTIAL_PARAMETERS
from server.settings import RATE_LIMITS, Rate
from tests.architecture.test_routes import DELIVERY, ROUTES
from tests.http.conftest import MONITOR, MONITOR_FOR_WRITING
from tests.http.limiting import Clock, limited, redis_url
from tests.http.test_errors import is_problem
from tests.http.test_parsing import path_of
from tests.stack.redis import redis_server

__all__ = ["limited", "redis_server", "redis_url"]

THREADS = 64
RATES = {name: Rate(500, 60) for name in RATE_LIMITS}


@pytest.fixture
def counters(redis_url) -> Counters:
    if redis_url is None:
        return MemoryCounters()
    shared = SharedCounters(redis_url, time.monotonic)
    assert shared.look()
    return shared


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(counters, clock) -> Limiter:
    return Limiter(RATES, counters, clock, 0)


def passed(standing: Standing) -> bool:
    return standing.remaining >= 0


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless_threads")
def test_of_many_at_once_exactly_as_many_pass_as_may(counters, clock):
    limiter = Limiter({"ordinary": Rate(20, 60)}, counters, clock, 0)
    together, users = threading.Barrier(THREADS), range(100)
    let_through = [[0] * THREADS for _ in users]

    def ask(number: int) -> None:
        for user in users:
            together.wait()
            let_through[user][number] = passed(limiter.take("ordinary", f"user {user}"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(each) for each in let_through] == [20] * len(users)


def test_a_window_ends_when_it_says_so_and_not_a_second_before(limiter, clock):
    last = [limiter.take("ordinary", "somebody") for _ in range(501)][-1]
    assert not passed(last)
    assert 1 <= last.reset_seconds <= 60
    clock.now += last.reset_seconds - 1
    assert not passed(limiter.take("ordinary", "somebody"))
    clock.now += 1
    fresh = limiter.take("ordinary", "somebody")
    assert (fresh.remaining, fresh.reset_seconds) == (499, 60)


def test_each_tier_and_each_key_counts_for_itself(limiter):
    for _ in range(501):
        limiter.take("ordinary", "somebody")
    assert limiter.take("write", "somebody").remaining == 499
    assert limiter.take("ordinary", "somebody else").remaining == 499


def test_windows_begin_at_another_second_for_each_key(limiter):
    resets = Counter(limiter.take("ordinary", f"user {number}").reset_seconds for number in range(600))
    assert len(resets) > 50, "or everybody who waits would come back at once"


def test_100_000_addresses_take_bounded_memory_and_nobody_who_keeps_coming_is_forgotten():
    counters = MemoryCounters(size=50_000)
    for number in range(100_000):
        counters.add(f"public:10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 7, 60)
        if number % 10_000 == 0:
            counted = counters.add("busy", 7, 60)
    assert counted == 10
    assert len(counters) <= 50_000


def test_a_thread_that_comes_late_counts_in_the_window_that_has_begun():
    counters = MemoryCounters()
    assert [counters.add("x", window, 60) for window in (7, 8, 7, 8)] == [1, 1, 2, 3]


def test_a_clock_that_is_set_back_locks_nobody_out():
    counters = MemoryCounters()
    assert [counters.add("x", window, 60) for window in (900, 900, 7, 7)] == [1, 2, 1, 2]


def test_every_tier_has_a_rate():
    assert set(get_args(Tier)) == set(RATE_LIMITS)


def test_every_route_counts_under_the_tier_that_is_written_here():
    tiers = {(operation.method, operation.path): operation.limit for operation in all_operations()}
    special = {
        ("GET", "/healthz"): None,
        ("POST", "/v1/monitors/preview"): "costly",
        ("GET", "/v1/audit/export"): "costly",
        ("GET", "/v1/reports/sla"): "costly",
        ("POST", "/v1/channels/<uuid:channel_id>/test"): "costly",
        ("POST", "/v1/orgs/<uuid:org_id>/invitations"): "costly",
        ("POST", "/v1/orgs/<uuid:org_id>/invitations/<uuid:invitation_id>/resend"): "costly",
    }
    for route, tier in tiers.items():
        who, method = ROUTES[route][0], route[0]
        usual = (
            "pings"
            if route[1].startswith("/ping/")
            else "public"
            if who == "public"
            else "ordinary"
            if method == "GET"
            else "write"
        )
        assert tier == special.get(route, usual), route


def header_fields(answer: Any) -> tuple[str, int, int, int, int]:
    """Return policy, quota, window, what is left, and for how long, as the headers say them."""
    policy = re.fullmatch(r'"([a-z]+)";q=(\d+);w=(\d+)', answer.headers["RateLimit-Policy"])
    limit = re.fullmatch(r'"([a-z]+)";r=(\d+);t=(\d+)', answer.headers["RateLimit"])
    assert policy, answer.headers
    assert limit, answer.headers
    assert policy[1] == limit[1]
    return policy[1], int(policy[2]), int(policy[3]), int(limit[2]), int(limit[3])


def test_the_headers_are_written_as_the_draft_has_them(limited, signed_in):
    headers = limited("ordinary=600/minute").client.get("/v1/monitors", headers=signed_in).headers
    assert headers["RateLimit-Policy"] == '"ordinary";q=600;w=60'
    assert re.fullmatch(r'"ordinary";r=599;t=[1-9]\d?', headers["RateLimit"])


@pytest.mark.parametrize("operation", list(all_operations()), ids=lambda operation: operation.name)
def test_every_limited_answer_says_how_its_reader_stands(operation, client, upstream, signed_in):
    for headers in (signed_in, {}, {"Authorization": "Bearer x"}, {**signed_in, "Accept": "text/x-none"}):
        answer = client.open(path_of(operation), method=operation.method, headers=headers, data=b"{")
        if operation.limit is None:
            assert "RateLimit" not in answer.headers
            continue
        policy = "attempts" if answer.status_code == 401 else operation.limit
        assert header_fields(answer)[:3] == (policy, 1_000_000_000, 86_400), answer.status


def test_errors_304_and_head_count_and_say_so_too(limited, signed_in):
    api = limited("ordinary=9/minute,write=9/minute")
    here = f"/v1/monitors/{MONITOR['id']}"
    for _ in range(2):
        api.upstream.answer([MONITOR])
    tag = api.client.get(here, headers=signed_in).headers["ETag"]
    asking: list[tuple[int, str, str, dict[str, str]]] = [
        (304, "GET", here, {"If-None-Match": tag}),
        (404, "HEAD", here, {}),
        (422, "GET", "/v1/monitors?limit=0", {}),
        (406, "GET", "/v1/monitors", {"Accept": "text/html"}),
        (503, "GET", here, {}),
        (412, "DELETE", here, {"If-Match": "x"}),
    ]
    for count, (status, method, path, headers) in enumerate(asking, start=2):
        if status == 503:
            api.upstream.answer(b"<html>")
        answer = api.client.open(path, method=method, headers={**signed_in, **headers})
        assert answer.status_code == status
        left = header_fields(answer)[3]
        assert left == (8 if method == "DELETE" else 9 - count), status


def test_one_too_many_is_429_names_the_limit_and_asks_nobody(limited, signed_in, token):
    api = limited("ordinary=2/minute")
    for _ in range(2):
        assert api.client.get("/v1/monitors", headers=signed_in).status_code == 200
    refused = api.client.get("/v1/monitors", headers={**signed_in, "Origin": "https://app.example.com"})
    is_problem(refused, 429, "rate_limited")
    name, quota, window, left, reset = header_fields(refused)
    assert (name, quota, window, left) == ("ordinary", 2, 60, 0)
    assert refused.headers["Retry-After"] == str(reset)
    assert refused.json["policy"] == "ordinary"
    assert "'ordinary' allows 2 requests in 60 seconds" in refused.json["detail"]
    exposed = refused.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(exposed)
    assert len(api.upstream.requests) == 2
    other = api.client.get("/v1/monitors", headers={"Authorization": f"Bearer {token()}"})
    assert other.status_code == 200, "one user's haste is not another's"
    api.clock.now += reset
    assert api.client.get("/v1/monitors", headers=signed_in).status_code == 200


def test_a_user_has_one_limit_with_all_tokens_and_from_everywhere(limited, token):
    api = limited("write=2/minute")
    user_id = MONITOR["id"]
    for number in range(3):
        api.upstream.answer(MONITOR_FOR_WRITING)
        answer = api.client.post(
            "/v1/orgs",
            json={"name": "Acme"},
            headers={"Authorization": f"Bearer {token(sub=user_id, session_id=str(number))}"},
            environ_overrides={"REMOTE_ADDR": f"192.0.2.{number}"},
        )
    assert answer.status_code == 429
    assert answer.json["policy"] == "write"


def test_costly_routes_have_a_limit_of_their_own(limited, signed_in):
    api = limited("costly=1/minute,write=9/minute")
    test = f"/v1/channels/{MONITOR['id']}/test"
    api.upstream.answer(DELIVERY)
    answers = [api.client.post(test, headers=signed_in) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 429]
    assert header_fields(answers[1])[:2] == ("costly", 1)
    assert api.client.delete(f"/v1/channels/{MONITOR['id']}", headers=signed_in).status_code == 404


def test_public_routes_are_limited_for_each_address_but_whether_it_lives_may_always_be_asked(limited):
    api = limited("public=2/minute")

    def ask(path, address):
        return api.client.get(path, environ_overrides={"REMOTE_ADDR": address}).status_code

    assert [ask("/openapi.json", "192.0.2.1") for _ in range(3)] == [200, 200, 429]
    assert ask("/openapi.json", "192.0.2.2") == 200
    assert [ask("/healthz", "192.0.2.1") for _ in range(5)] == [200] * 5


def test_a_flood_of_bad_tokens_is_429_and_the_neighbours_good_ones_still_count(limited, signed_in):
    api = limited("attempts=3/minute")
    bad = [
        api.client.get("/v1/monitors", headers={"Authorization": f"Bearer {number}.x.x"}).status_code
        for number in range(5)
    ]
    assert bad == [401, 401, 401, 429, 429]
    assert api.client.get("/v1/monitors").json["policy"] == "attempts"
    assert api.client.get("/v1/monitors", headers=signed_in).status_code == 200


def test_a_flood_of_guessed_keys_costs_the_database_no_more_than_the_attempts(limited, signed_in):
    api = limited("attempts=3/minute")

    def guess(number: int):
        guessed = spell_secret(number.to_bytes(32, "big"))
        return api.client.get("/v1/monitors", headers={"Authorization": f"Bearer {guessed}"}).status_code

    for _ in range(3):
        api.upstream.answer(b"null")
    assert [guess(number) for number in range(9)] == [401] * 3 + [429] * 6
    assert len(api.upstream.requests) == 3
    assert api.client.get("/v1/monitors", headers=signed_in).status_code == 200, "no guess"
    api.clock.now += 60
    api.upstream.answer(b"null")
    assert guess(9) == 401, "until the window ends"


def test_forwarded_for_is_believed_only_as_far_as_our_own_proxies_wrote_it(limited):
    api = limited("public=1/minute", TRUSTED_PROXIES="1")

    def ask(forwarded_for):
        return api.client.get("/openapi.json", headers={"X-Forwarded-For": forwarded_for}).status_code

    assert ask("192.0.2.1") == 200
    assert ask("198.51.100.7, 192.0.2.1") == 429, "the left part is the client's invention"
    assert ask("192.0.2.2") == 200


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "trusted_proxies", "expected"),
    [
        ("10.0.0.1", "192.0.2.1", 0, "10.0.0.1"),
        ("10.0.0.1", None, 1, "10.0.0.1"),
        ("10.0.0.1", "192.0.2.1", 1, "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9,192.0.2.1", 1, "192.0.2.1"),
        ("10.0.0.1", "203.0.113.9, 192.0.2.1 , 10.0.0.2", 2, "192.0.2.1"),
        ("10.0.0.1", "192.0.2.1", 2, "192.0.2.1"),  # it came past the outer proxy
        ("10.0.0.1", "192.0.2.1:4711", 1, "192.0.2.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", 1, "2001:db8::/64"),
        ("10.0.0.1", "unknown", 1, "10.0.0.1"),
        ("10.0.0.1", "", 1, "10.0.0.1"),
        ("10.0.0.1", "192.0.2.1,", 1, "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", None, 0, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", None, 0, "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", None, 0, "192.0.2.1"),
        ("", None, 0, "unknown"),
        ("fe80::1%eth0", None, 0, "fe80::/64"),
    ],
)
def test_a_client_address_is_read_from_where_nobody_can_forge_it(peer, forwarded_for, trusted_proxies, expected):
    environ = {"REMOTE_ADDR": peer}
    if forwarded_for is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded_for
    assert client_address(environ, trusted_proxies) == expected


@pytest.mark.parametrize("path", ["/v1/monitors", "/openapi.json", "/healthz"])
@pytest.mark.parametrize("name", [*sorted(CREDENTIAL_PARAMETERS), "Access_Token", "%61pikey", "limit=1&token"])
def test_a_credential_in_the_query_is_400_with_a_word_on_headers(client, upstream, signed_in, token, path, name):
    anonymous: dict[str, str] = {}
    for headers in (anonymous, signed_in):
        answer = client.get(f"{path}?{name}={token()}", headers=headers)
        is_problem(answer, 400, "credentials_in_query")
        assert "Authorization: Bearer" in answer.json["detail"]
    assert upstream.requests == []


def test_no_route_takes_a_parameter_of_such_a_name():
    taken = {name for operation in all_operations() if operation.query for name in operation.query.model_fields}
    assert "limit" in taken
    assert taken.isdisjoint(CREDENTIAL_PARAMETERS)

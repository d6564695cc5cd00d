"""What the connections to Supabase do and, above all, what they don't, against a real HTTP server."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from server.__main__ import THREADS
from server.data import transport
from server.data.clients import Database, Supabase
from server.data.queries import call, table
from server.data.transport import MAX_CALLS_IN_FLIGHT, UpstreamSession
from server.errors import Conflict, TimedOut, Unavailable
from tests.http.upstream_server import FINE, RawUpstream, dripping, raw_upstream, saying
from tests.http.upstreams import Arrived, RealUpstream, Told, echo, real_upstream

QUERY = table("monitors").select("id").limit(1)
WRITE = call("create_organisation", {"name": "x"})
CHANGE = table("monitors").update({"paused": True}).eq("version", 3).select("id")
REMOVAL = table("monitors").delete().eq("version", 3).select("id")
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def upstream() -> Iterator[RealUpstream]:
    with real_upstream() as upstream:
        yield upstream


@pytest.fixture
def session() -> Iterator[UpstreamSession]:
    with UpstreamSession() as session:
        yield session


def database(session: UpstreamSession, upstream: RealUpstream | RawUpstream, token: str = "token") -> Database:
    return Supabase(session, upstream.url, "sb_publishable_x").as_user(token, "request-1")


def hang_up(upstream: RealUpstream) -> None:
    """Close every connection from the server's side, and go on listening."""
    with upstream.changed:
        for connection in upstream.open:
            connection.shutdown(socket.SHUT_RDWR)


def test_a_request_arrives_with_its_callers_identity_and_nothing_that_nobody_asked_for(session, upstream):
    database(session, upstream).execute(QUERY)
    (arrived,) = upstream.arrived
    assert (arrived.method, arrived.target, arrived.body) == ("GET", "/rest/v1/monitors?select=id&limit=1", b"")
    headers = {name.lower(): value for name, value in arrived.headers}
    assert headers.pop("host") == f"127.0.0.1:{upstream.port}"
    assert headers.pop("accept") == "*/*"
    assert headers.pop("user-agent").startswith("python-pyreqwest/")
    assert headers == {
        "apikey": "sb_publishable_x",
        "authorization": "Bearer token",
        "x-request-id": "request-1",
        "accept-profile": "public",  # the schema, as the builder names it
        "content-profile": "public",
    }


def test_a_body_arrives_byte_for_byte_as_json(session, upstream):
    upstream.answer = lambda arrived: Told(201, b"{}")
    arguments = {"name": "Größe 🚨 \" \\ ' \u2028", "ratio": 0.1, "none": None}
    assert database(session, upstream).execute(call("create_organisation", arguments)) == b"{}"
    (arrived,) = upstream.arrived
    assert (arrived.method, arrived.target) == ("POST", "/rest/v1/rpc/create_organisation")
    assert arrived.header("Content-Type") == "application/json"
    assert json.loads(arrived.body) == arguments


def test_connections_are_kept_and_shared(session, upstream):
    for user in ("ada", "bob", "ada"):
        database(session, upstream, user).execute(QUERY)
    assert upstream.connections == 1
    assert [arrived.header("Authorization") for arrived in upstream.arrived] == [
        "Bearer ada",
        "Bearer bob",
        "Bearer ada",
    ]


def test_a_cookie_of_one_answer_comes_back_in_no_request(session, upstream):
    upstream.answer = lambda arrived: Told(headers={"Set-Cookie": "session=adas; Path=/"})
    for user in ("ada", "bob"):
        database(session, upstream, user).execute(QUERY)
    assert [arrived.header("Cookie") for arrived in upstream.arrived] == [None, None]


def test_a_redirect_is_not_followed(session, upstream):
    with real_upstream() as elsewhere:
        upstream.answer = lambda arrived: Told(307, b"", {"Location": elsewhere.url})
        with pytest.raises(Unavailable):
            database(session, upstream).execute(QUERY)
        assert elsewhere.arrived == []
    assert len(upstream.arrived) == 1


def test_proxies_of_the_environment_are_ignored(upstream, monkeypatch):
    with real_upstream() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        with UpstreamSession() as session:
            database(session, upstream).execute(QUERY)
        assert proxy.arrived == []
    assert len(upstream.arrived) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 520])
def test_an_answer_that_says_no_is_not_asked_for_again(session, upstream, status):
    upstream.answer = lambda arrived: Told(status, b"<html>no</html>", {"Retry-After": "0"})
    with pytest.raises(Unavailable):
        database(session, upstream).execute(QUERY)
    assert len(upstream.arrived) == 1
    assert upstream.arrived[0].header("X-Retry-Count") is None


@pytest.mark.parametrize(("failures", "calls"), [(1, 2), (2, 2)])
def test_a_lost_race_inside_postgres_is_run_once_more_and_then_it_is_a_conflict(session, upstream, failures, calls):
    lost = Told(500, b'{"code":"40001","message":"could not serialize access"}')
    upstream.answer = lambda arrived: lost if len(upstream.arrived) <= failures else Told(body=b"[1]")
    if failures < calls:
        assert database(session, upstream).execute(QUERY) == b"[1]"
    else:
        with pytest.raises(Conflict):
            database(session, upstream).execute(QUERY)
    assert len(upstream.arrived) == calls


def test_an_upstream_that_has_gone_is_503(session):
    with real_upstream() as upstream:
        caller = database(session, upstream)
        caller.execute(QUERY)
    for _ in range(2):  # once on the connection that was kept, once on a new one
        with pytest.raises(Unavailable) as refused:
            caller.execute(QUERY)
        assert (refused.value.status, refused.value.retry_after_seconds) == (503, 1)


def test_a_refused_call_spoils_nothing_for_the_next_as_soon_as_somebody_listens(session):
    with socket.socket() as door, ThreadPoolExecutor(1) as other:
        door.bind(("127.0.0.1", 0))  # bound but deaf: connections are refused, and nobody else takes the port
        caller = Supabase(session, f"http://127.0.0.1:{door.getsockname()[1]}", "sb_publishable_x").as_user("t", "r")
        for statement in (QUERY, WRITE):
            with pytest.raises(Unavailable) as refused:
                caller.execute(statement)
            assert (refused.value.status, refused.value.retry_after_seconds) == (503, 1)
        door.listen()
        answered = other.submit(caller.execute, WRITE)
        connection, _ = door.accept()
        with connection:
            assert connection.recv(65536).startswith(b"POST /rest/v1/rpc/create_organisation HTTP/1.1\r\n")
            connection.sendall(FINE)
            assert answered.result(10) == b"[]"


def test_a_reset_or_an_answer_cut_off_is_503_and_the_next_call_works(session, upstream):
    caller = database(session, upstream)
    for trouble in (None, Told(body=b'[{"id":', length=1000)):
        upstream.answer = lambda arrived, trouble=trouble: trouble
        with pytest.raises(Unavailable):
            caller.execute(QUERY)
        upstream.answer = lambda arrived: Told()
        assert caller.execute(QUERY) == b"[]"


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 20",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        HEAD + b"Content-Length: 9\r\n\r\n[]",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n[]",
        HEAD + b"Content-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    ],
)
def test_what_is_no_whole_answer_is_503_and_the_next_call_works(session, broken):
    with raw_upstream(saying(broken)) as upstream:
        caller = database(session, upstream)
        with pytest.raises(Unavailable) as refused:
            caller.execute(WRITE)
        assert (refused.value.status, refused.value.retry_after_seconds) == (503, 1)
        assert len(upstream.request_lines) == 1
        upstream.behave = saying(FINE)
        assert caller.execute(QUERY) == b"[]"


def test_an_answer_without_a_body_is_an_empty_one(session, upstream):
    upstream.answer = lambda arrived: Told(204, b"")
    assert database(session, upstream).execute(WRITE) == b""
    assert database(session, upstream).execute(WRITE) == b""
    assert upstream.connections == 1


def test_a_read_that_meets_a_closing_connection_succeeds_on_a_new_one(session):
    # The client may keep the connection, but the server closes it right after the answer: the next request races.
    with raw_upstream(saying(FINE)) as upstream:
        caller = database(session, upstream)
        assert [caller.execute(QUERY) for _ in range(200)] == [b"[]"] * 200


def test_a_write_that_meets_a_closing_connection_is_sent_once_at_most(session):
    with raw_upstream(saying(FINE)) as upstream:
        caller = database(session, upstream)
        done = 0
        for number in range(200):
            try:
                caller.execute(call(f"write_{number}", {}))
                done += 1
            except Unavailable:
                pass  # nobody can tell whether it arrived
        lines = upstream.request_lines
        assert len(set(lines)) == len(lines) >= done > 0


@pytest.mark.parametrize("statement", [WRITE, CHANGE, REMOVAL])
def test_a_write_on_an_idle_connection_that_was_closed_is_sent_once_at_most(session, upstream, statement):
    caller = database(session, upstream)
    caller.execute(QUERY)
    hang_up(upstream)
    try:
        caller.execute(statement)
    except Unavailable:
        done = 0  # it met the end of the connection before the client had noticed
    else:
        done = 1
    assert len(upstream.arrived) - 1 == done
    assert caller.execute(statement) == b"[]"


@pytest.mark.parametrize(("statement", "times"), [(QUERY, 2), (WRITE, 1), (CHANGE, 1), (REMOVAL, 1)])
def test_only_a_read_is_sent_again_and_only_once_where_a_connection_broke(session, upstream, statement, times):
    upstream.answer = lambda arrived: None
    with pytest.raises(Unavailable):
        database(session, upstream).execute(statement)
    assert len(upstream.arrived) == times


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (HEAD + b"X-Slow: ", b"x"),
        (HEAD + b"Content-Length: 100000\r\n\r\n[", b" "),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"2710\r\n" + b" " * 10_000 + b"\r\n"),
    ],
    ids=["slow head", "slow body", "body without end"],
)
def test_an_answer_that_goes_on_and_on_is_504_when_time_is_up_and_is_hung_up_on(head, drop):
    with UpstreamSession(answer_timeout=timedelta(milliseconds=200)) as session, raw_upstream(saying(FINE)) as upstream:
        hung_up = threading.Event()
        upstream.behave = dripping(head, drop, hung_up)
        caller = database(session, upstream)
        with pytest.raises(TimedOut):
            caller.execute(QUERY)
        assert hung_up.wait(10), "the connection is still open"
        assert len(upstream.request_lines) == 1
        upstream.behave = saying(FINE)
        assert caller.execute(QUERY) == b"[]"


def test_a_large_answer_arrives_whole_and_its_connection_is_kept(session, upstream):
    body = b'["' + b"x" * 5_000_000 + b'"]'
    upstream.answer = lambda arrived: Told(body=body)
    caller = database(session, upstream)
    assert [caller.execute(QUERY) == body for _ in range(10)] == [True] * 10
    # A connection goes back to the pool a moment after its answer was read; a busy machine may open another meanwhile.
    assert upstream.connections < 10


def test_an_answer_that_is_too_slow_is_504_and_the_next_call_works(upstream):
    with UpstreamSession(answer_timeout=timedelta(milliseconds=100)) as session:
        caller = database(session, upstream)
        upstream.hold()
        with pytest.raises(TimedOut):
            caller.execute(QUERY)
        upstream.release()
        assert caller.execute(QUERY) == b"[]"


def test_a_call_beyond_the_bound_is_told_so_instead_of_waiting_for_the_others(upstream, monkeypatch):
    monkeypatch.setattr(transport, "QUEUE_TIMEOUT", timedelta(milliseconds=100))
    with UpstreamSession(max_in_flight=2) as session, ThreadPoolExecutor(2) as others:
        upstream.hold()
        waiting = [others.submit(database(session, upstream).execute, QUERY) for _ in range(2)]
        upstream.wait_for_waiting(2)
        with pytest.raises(Unavailable) as refused:
            database(session, upstream).execute(QUERY)
        assert (refused.value.status, refused.value.reason) == (503, "upstream_queue_full")
        upstream.release()
        assert [each.result() for each in waiting] == [b"[]", b"[]"]
        assert database(session, upstream).execute(QUERY) == b"[]"


def test_fewer_calls_may_be_in_flight_than_the_server_has_threads():
    assert MAX_CALLS_IN_FLIGHT < THREADS


def test_no_answer_arrives_under_a_foreign_identity(session, upstream):
    upstream.answer = echo
    supabase = Supabase(session, upstream.url, "sb_publishable_x")
    start = threading.Barrier(32)

    def ask(thread: int) -> int:
        start.wait()
        foreign = 0
        for turn in range(50):
            token = f"user-{thread}-{turn}"
            answer = json.loads(supabase.as_user(token, "r").execute(QUERY))
            foreign += answer != [f"Bearer {token}"]
        return foreign

    with ThreadPoolExecutor(32) as threads:
        assert sum(threads.map(ask, range(32))) == 0
    assert len(upstream.arrived) == 32 * 50


def test_a_session_holds_no_more_connections_than_calls_in_flight(upstream):
    with UpstreamSession(max_in_flight=4) as session, ThreadPoolExecutor(4) as threads:
        caller = database(session, upstream)
        assert set(threads.map(caller.execute, [QUERY] * 100)) == {b"[]"}
    assert upstream.connections <= 4


def test_what_arrived_can_be_told_apart():
    twice = Arrived("GET", "/", [("A", "1"), ("a", "2")], b"")
    with pytest.raises(AssertionError):
        twice.header("a")

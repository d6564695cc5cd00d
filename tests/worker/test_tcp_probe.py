import asyncio
import select
import socket
from contextlib import ExitStack
from ipaddress import ip_network

import pytest

from server.egress import Egress
from server.features.checks.rules import ErrorKind, Observation
from server.probes.connecting import connect
from server.probes.kinds import read_check
from server.probes.prober import Prober
from tests.worker.probing import LONG_SECONDS, SHORT_SECONDS, STARTED_AT, failed, resolve
from tests.worker.targets import DRIP_SECONDS, Script, find_free_port, send_at_once, serve, stay_silent


@pytest.fixture
def run(probe):
    """Run one tcp check in this thread; `send` is its option."""

    def run_check(place, **more):
        return probe("tcp", place, **more)

    return run_check


def reply(data: bytes) -> Script:
    """Answer what comes, and hold the connection."""

    def script(client):
        client.receive()
        client.send(data)
        client.wait_for_end()

    return script


def say_in_parts(*parts: bytes) -> Script:
    """Say something, each part for itself once the one before it has arrived."""

    def script(client):
        for part in parts:
            client.send(part)
            client.wait_for_acknowledgement()
        client.wait_for_end()

    return script


def hang_up(client) -> None:
    """Take what comes, and close."""
    client.receive()


def babble(data: bytes, pause_seconds: float) -> Script:
    """Say something again and again, until the client goes."""

    def script(client):
        while not select.select([client.connection], [], [], pause_seconds)[0]:
            client.send(data)

    return script


# --- up


def test_a_port_that_takes_connections_is_up(run):
    with serve(stay_silent) as target:
        seen = run(target.place())
    assert (seen.ok, seen.remote_ip, seen.started_at) == (True, "127.0.0.1", STARTED_AT)
    assert seen.timings.dns_ms is None, "an address is not looked up"
    assert 0 < seen.timings.connect_ms <= seen.timings.total_ms
    assert (seen.timings.first_byte_ms, seen.status_code, seen.findings) == (None, None, ())


def test_a_name_is_looked_up_and_each_of_its_addresses_is_tried(run):
    with serve(stay_silent) as target:
        seen = run(target.place("localhost"), egress=Egress((ip_network("127.0.0.0/8"), ip_network("::1/128"))))
    assert (seen.ok, seen.remote_ip) == (True, "127.0.0.1"), "nobody listens at ::1, which comes first"
    assert seen.timings.dns_ms > 0


def test_what_is_sent_arrives_and_what_comes_back_is_asserted(run):
    with serve(reply(b"+PONG\r\n")) as target:
        seen = run(target.place(), send="PING\r\n", assertions=['received == "+PONG\\r\\n"', "response_ms < 20000"])
    assert seen.ok, seen.findings
    assert target.requests == [b"PING\r\n"]
    assert seen.findings[0].observed == "+PONG  "
    assert 0 < seen.timings.first_byte_ms <= seen.timings.total_ms


def test_a_server_that_speaks_first_is_listened_to(run):
    with serve(send_at_once(b"220 mail ESMTP\r\n")) as target:
        assert run(target.place(), assertions=['received matches "^220 "']).ok


def test_what_comes_in_parts_is_one_text(run):
    with serve(say_in_parts(b"220-we", b"lcome\r\n", b"220 ready\r\n")) as target:
        assert run(target.place(), assertions=['received contains "welcome"', 'received contains "220 ready"']).ok


def test_without_an_assertion_nothing_is_waited_for(run):
    with serve(stay_silent) as target:
        assert run(target.place(), send="QUIT\r\n").ok


# --- down


def test_a_refused_connection_is_told(run):
    seen = run(f"127.0.0.1:{find_free_port()}")
    assert failed(seen) == (ErrorKind.CONNECT, "could not connect: connection refused")
    assert (seen.remote_ip, seen.timings.connect_ms) == (None, None)


def test_a_name_that_does_not_exist_is_told(run):
    assert failed(run("name.invalid:80")) == (ErrorKind.DNS, "the name name.invalid could not be resolved")


def test_a_target_that_cannot_be_read_is_an_observation_too(run):
    seen = run("nonsense")
    assert seen.error_kind is ErrorKind.PROTOCOL
    assert seen.error_detail.startswith("cannot check nonsense: Write host:port")


def test_a_connection_that_is_reset_is_told(run):
    def reset(client):
        client.receive()
        client.reset_at_end()

    with serve(reset) as target:
        seen = run(target.place(), send="PING\r\n", assertions=['received contains "PONG"'])
    assert failed(seen) == (
        ErrorKind.CONNECT,
        "the connection broke while waiting for an answer: connection reset by peer",
    )


def test_an_end_without_an_answer_is_not_an_answer(run):
    with serve(hang_up) as target:
        seen = run(target.place(), send="PING\r\n", assertions=['received contains "PONG"'])
    assert failed(seen) == (ErrorKind.ASSERTION, 'received contains "PONG": there is none')


# --- slow


def test_a_connection_that_is_never_accepted_times_out_while_connecting(run):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as waiting:
        for _ in range(4):  # fill the queue; nobody accepts
            stuck = waiting.enter_context(socket.socket())
            stuck.setblocking(False)
            stuck.connect_ex(full.getsockname())
        seen = run(f"127.0.0.1:{full.getsockname()[1]}", timeout_seconds=SHORT_SECONDS)
    assert failed(seen) == (ErrorKind.TIMEOUT, "timed out while connecting")


def test_an_address_that_does_not_answer_does_not_keep_the_next_one_waiting():
    """127.0.0.2's queue is full, so that it looks like an address that nobody is at."""

    async def connect_to_both(port):
        opened = await connect("both.example", ["127.0.0.2", "127.0.0.1"], port, Egress((ip_network("127.0.0.0/8"),)))
        assert isinstance(opened, socket.socket)
        with opened:
            return opened.getpeername()[0]

    with serve(stay_silent) as target, ExitStack() as waiting:
        full = waiting.enter_context(socket.create_server(("127.0.0.2", target.port), backlog=0))
        for _ in range(4):
            stuck = waiting.enter_context(socket.socket())
            stuck.setblocking(False)
            stuck.connect_ex(full.getsockname())
        assert asyncio.run(connect_to_both(target.port)) == "127.0.0.1"


def test_a_silent_peer_times_out_while_it_is_waited_for(run):
    with serve(stay_silent) as target:
        seen = run(target.place(), timeout_seconds=SHORT_SECONDS, assertions=['received contains "x"'])
    assert failed(seen) == (ErrorKind.TIMEOUT, "timed out while waiting for an answer")
    assert seen.remote_ip == "127.0.0.1"


# --- lying


def test_an_answer_that_is_wrong_is_told_by_what_it_was(run):
    with serve(reply(b"-LOADING\r\n")) as target:
        seen = run(
            target.place(), send="PING\r\n", timeout_seconds=SHORT_SECONDS, assertions=['received contains "PONG"']
        )
    assert failed(seen) == (ErrorKind.ASSERTION, 'received contains "PONG": was -LOADING  ')


def test_an_answer_that_drips_without_end_is_held_against_what_came_in_time(run):
    with serve(babble(b".", DRIP_SECONDS)) as target:
        seen = run(target.place(), timeout_seconds=SHORT_SECONDS, assertions=['received contains "x"'])
    assert seen.error_kind is ErrorKind.ASSERTION
    assert seen.error_detail.startswith('received contains "x": was ....')


def test_an_endless_answer_is_read_to_its_bound(run):
    with serve(babble(b"." * 10_000, 0)) as target:
        seen = run(target.place(), assertions=['received matches "^[.]{20}"', 'received contains "x"'])
    assert seen.error_kind is ErrorKind.ASSERTION
    assert [finding.holds for finding in seen.findings] == [True, False]


def test_what_is_not_text_is_an_answer_too(run):
    with serve(send_at_once(b"\x00\xff\xfe")) as target:
        seen = run(target.place(), assertions=['received contains "\\u0000"'])
    assert seen.ok
    assert seen.findings[0].observed == " \ufffd\ufffd"


# --- the guard


def test_an_address_that_is_not_public_is_refused_before_anything_connects(run):
    with serve(stay_silent) as target:
        places = [target.place(), target.place("localhost"), f"0x7f.1:{target.port}"]
        seen = [run(place, egress=Egress(())) for place in places]
    assert {one.error_kind for one in seen} == {ErrorKind.BLOCKED}
    assert seen[1].error_detail == "localhost is not a public address, or resolves to none that is"
    assert target.connections == 0


def test_only_the_permitted_addresses_of_a_name_are_tried(run):
    with serve(stay_silent, host="127.0.0.1") as target:
        seen = run(target.place("localhost"), egress=Egress((ip_network("::1/128"),)))
    assert seen.error_kind is ErrorKind.CONNECT
    assert target.connections == 0


# --- many at once


def test_many_checks_at_once_do_not_affect_each_other(loopback):
    async def check_all(checks) -> list[Observation]:
        async with Prober(loopback, resolve=resolve) as prober:
            return await asyncio.gather(*(prober.check(check, STARTED_AT) for check in checks))

    with serve(send_at_once(b"hello")) as up, serve(stay_silent) as silent:
        kinds = [
            (read_check("tcp", up.place(), LONG_SECONDS), None),
            (read_check("tcp", up.place(), LONG_SECONDS, {}, ['received == "hello"']), None),
            (read_check("tcp", silent.place(), SHORT_SECONDS, {}, ['received == "x"']), ErrorKind.TIMEOUT),
            (read_check("tcp", f"127.0.0.1:{find_free_port()}", LONG_SECONDS), ErrorKind.CONNECT),
            (read_check("tcp", "10.0.0.1:80", LONG_SECONDS), ErrorKind.BLOCKED),
        ]
        seen = asyncio.run(check_all([check for check, _ in kinds] * 10))
    assert [one.error_kind for one in seen] == [kind for _, kind in kinds] * 10

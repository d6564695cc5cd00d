"""Limits over a Redis as it is in the world: shared by processes, killed, paused, resetting, answering nonsense, back.

That what passes is the same in memory and in Redis: tests/http/test_rate_limits.py.
"""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from server.app import create_app
from server.data.counters import LOOK_AGAIN_SECONDS, SharedCounters
from server.settings import read_settings
from tests.http.conftest import ENVIRONMENT, FakeUpstream, auth_says_yes
from tests.http.limiting import Clock
from tests.http.test_served import Served, serve
from tests.stack.product import eventually
from tests.stack.redis import RedisServer, own_redis, redis_server

__all__ = ["auth_says_yes", "own_redis", "redis_server"]

OPENAPI = b"GET /openapi.json HTTP/1.1"


class Impostor:
    """Something in Redis's place that counts well, until a test makes it do something else with what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.treat: Callable[[socket.socket], None] = count_well
        self.open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while connection.recv(4096):
                self.asked += 1
                self.treat(connection)

    def close(self) -> None:
        """Stop."""
        for each in (self._listener, *self.open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def count_well(connection: socket.socket) -> None:
    connection.sendall(b":1\r\n")


def say_nothing(connection: socket.socket) -> None:
    pass


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def talk_http(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def say_ok(connection: socket.socket) -> None:
    connection.sendall(b"+OK\r\n")


def say_it_may_not_write(connection: socket.socket) -> None:
    connection.sendall(b"-READONLY You can't write against a read only replica.\r\n")


@pytest.fixture
def impostor() -> Iterator[Impostor]:
    impostor = Impostor()
    yield impostor
    impostor.close()


def nobody_looks() -> bool:
    return all(thread.name != "look-for-redis" for thread in threading.enumerate())


@pytest.mark.parametrize("treat", [say_nothing, hang_up, reset, talk_http, say_ok, say_it_may_not_write])
def test_a_redis_that_fails_is_asked_once_and_not_again_by_any_request(impostor: Impostor, treat):
    clock = Clock()
    counters = SharedCounters(impostor.url, clock)
    eventually(counters.look, "it does not count")

    def count_often() -> None:
        for _ in range(200):
            counters.add("x", 7, 60)

    impostor.treat = treat
    impostor.asked = 0
    count_often()
    assert counters.add("x", 7, 60) == 201, "each was counted in memory"
    assert not counters.is_up
    clock.now += LOOK_AGAIN_SECONDS
    before = impostor.asked
    count_often()
    eventually(lambda: impostor.asked > before, "nobody looks whether it is back")
    eventually(nobody_looks, "the look does not end")
    count_often()
    assert impostor.asked <= 4, "one call and one look, each on two connections at most"
    impostor.treat = count_well
    clock.now += LOOK_AGAIN_SECONDS
    eventually(lambda: counters.add("x", 7, 60) == 1, "it does not come back")


def test_connections_that_died_in_silence_are_all_given_up_at_once(impostor: Impostor):
    clock, together = Clock(), threading.Barrier(8)
    counters = SharedCounters(f"{impostor.url}?socket_timeout=1", clock)
    eventually(counters.look, "it does not count")

    def count_together(connection: socket.socket) -> None:
        together.wait(10)
        count_well(connection)

    def add_from_eight_threads() -> None:
        threads = [threading.Thread(target=counters.add, args=("x", 7, 60)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    impostor.treat = count_together
    add_from_eight_threads()
    dead = set(impostor.open)
    assert len(dead) == 8
    impostor.treat = lambda connection: None if connection in dead else count_well(connection)
    assert counters.look() is False
    assert counters.look()
    impostor.treat = lambda connection: None if connection in dead else count_together(connection)
    add_from_eight_threads()
    assert counters.is_up


def test_a_redis_that_never_answered_is_said_once_to_be_away_and_its_address_is_not(caplog):
    clock = Clock()
    counters = SharedCounters("redis://:hush@127.0.0.1:1/0", clock)
    assert [counters.look() for _ in range(3)] == [False] * 3
    assert [record.getMessage() for record in caplog.records] == ["redis is away, limits are counted in memory"]
    assert "hush" not in caplog.text


def test_two_processes_count_together(redis_server: RedisServer, tmp_path: Path):
    redis_server.flush()
    limits = {"RATE_LIMITS": "ordinary=40/day,public=1000000/day", "REDIS_URL": redis_server.url}
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with serve(folders[0], **limits) as one, serve(folders[1], **limits) as two:
        eventually(lambda: redis_of(one)["state"] == redis_of(two)["state"] == "up", "Redis is not used")
        # Nobody answers in Supabase's place, so whoever is let through gets 503.
        statuses = [
            served.say(b"GET /v1/orgs HTTP/1.1", one.authorization).status for _ in range(30) for served in (one, two)
        ]
    assert statuses == [503] * 40 + [429] * 20


def redis_of(served: Served) -> dict[str, object]:
    """Return what /readyz says of Redis."""
    found: dict[str, object] = json.loads(served.say(b"GET /readyz HTTP/1.1").body)["dependencies"]["redis"]
    return found


def keys_in(redis: RedisServer) -> set[str]:
    with redis.client() as client:
        return {key.decode().rsplit(":", 1)[0] for key in client.keys("tocsin:limits:*")}


def test_requests_are_served_while_redis_is_away_and_counted_in_it_when_it_is_back(
    own_redis: RedisServer, tmp_path: Path
):
    public = "tocsin:limits:public:127.0.0.1"

    def ask_often() -> None:
        assert {served.say(OPENAPI).status for _ in range(50)} == {200}

    with serve(tmp_path, REDIS_URL=own_redis.url) as served:
        eventually(lambda: redis_of(served)["state"] == "up", "Redis is not used")
        ask_often()
        assert public in keys_in(own_redis)
        own_redis.kill()
        ask_often()
        fallen_back = redis_of(served)
        assert (fallen_back["state"], fallen_back["ok"]) == ("fallback", False)
        own_redis.start()
        eventually(lambda: redis_of(served)["state"] == "up", "it does not come back")
        own_redis.flush()
        ask_often()
        assert public in keys_in(own_redis)


def test_requests_are_served_while_redis_hangs(own_redis: RedisServer, tmp_path: Path):
    with serve(tmp_path, REDIS_URL=own_redis.impatient_url) as served:
        eventually(lambda: redis_of(served)["state"] == "up", "Redis is not used")
        own_redis.pause()
        assert {served.say(OPENAPI).status for _ in range(50)} == {200}
        assert redis_of(served)["state"] == "fallback"
        own_redis.resume()
        eventually(lambda: redis_of(served)["state"] == "up", "it does not come back")


def test_a_process_without_its_redis_is_still_ready_and_says_what_it_does_without(
    own_redis: RedisServer, auth_says_yes
):
    upstream = FakeUpstream()
    app = create_app(read_settings({**ENVIRONMENT, "REDIS_URL": own_redis.url}), upstream)  # type: ignore[arg-type]

    def readiness():
        upstream.answer([])
        answer = app.test_client().get("/readyz")
        body = json.loads(answer.data)
        assert (answer.status_code, body["status"]) == (200, "ready")
        return body["dependencies"]["redis"]

    up = eventually(lambda: (found := readiness())["ok"] and found, "Redis is not used")
    assert up["state"] == "up"
    assert up["latency_ms"] >= 0
    own_redis.kill()
    away = readiness()
    assert (away["state"], away["ok"]) == ("fallback", False)
    assert "counts limits for itself" in away["detail"]


def test_without_redis_url_nothing_is_said_of_redis(tmp_path: Path):
    with serve(tmp_path) as served:
        assert set(json.loads(served.say(b"GET /readyz HTTP/1.1").body)["dependencies"]) == {
            "database",
            "auth",
            "signing_keys",
        }

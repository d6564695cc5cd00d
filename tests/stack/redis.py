"""A redis-server for tests, on a port of its own; nothing of it stays on the disk."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from ports import free_port

from tests.stack.product import eventually

# A test asks what Redis answers, not how fast a busy machine lets it: so its steps may take longer than in production.
PATIENCE = "?socket_timeout=20&socket_connect_timeout=20"


@dataclass(slots=True)
class RedisServer:
    """A redis-server that can be killed, paused and started again at the same address."""

    folder: Path
    port: int = field(default_factory=free_port)
    _running: subprocess.Popen[bytes] | None = None

    @property
    def impatient_url(self) -> str:
        """Its address as an operator would write it."""
        return f"redis://127.0.0.1:{self.port}/1"

    @property
    def url(self) -> str:
        """Its address, with patience."""
        return self.impatient_url + PATIENCE

    def start(self) -> None:
        """Serve, and return when it answers."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(self.folder)]
        self._running = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
        eventually(self._answers, "redis-server does not answer")

    def kill(self) -> None:
        """End it without a word."""
        if self._running:
            self._running.kill()
            self._running.wait()
            self._running = None

    def pause(self) -> None:
        """Let it take connections and answer none, until `resume`."""
        assert self._running
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        assert self._running
        self._running.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    def client(self) -> redis.Redis:
        """Return a client of it, to be closed."""
        return redis.Redis.from_url(self.url)

    def _answers(self) -> bool:
        assert self._running
        assert self._running.poll() is None, "redis-server ended"
        with suppress(redis.ConnectionError), self.client() as client:
            return bool(client.ping())
        return False


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Run one until the end of a `with` block; skips the test where redis-server is not installed."""
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that tests share; flush it, and leave it running."""
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """One that a test may kill."""
    with running_redis(tmp_path) as server:
        yield server

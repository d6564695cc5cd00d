"""The API with limits that a test can reach, by a clock that stands still, over either store."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from flask.testing import FlaskClient

from server.app import create_app
from server.settings import read_settings
from tests.http.conftest import ENVIRONMENT, FakeUpstream
from tests.stack.product import eventually

NOW = 1_800_000_000.25


@dataclass(slots=True)
class Clock:
    """A clock that a test moves."""

    now: float = NOW

    def __call__(self) -> float:
        """Return what it shows."""
        return self.now


@dataclass(frozen=True, slots=True)
class Limited:
    """An API with limits of its own."""

    client: FlaskClient
    upstream: FakeUpstream
    clock: Clock


@pytest.fixture(params=["memory", "redis"])
def redis_url(request: pytest.FixtureRequest) -> str | None:
    """Where limits are counted: None is in memory. Each test runs over both, and skips Redis where there is none."""
    if request.param == "memory":
        return None
    server = request.getfixturevalue("redis_server")
    server.flush()
    return str(server.url)


@pytest.fixture
def limited(redis_url: str | None, request: pytest.FixtureRequest) -> Iterator[Callable[..., Limited]]:
    """Build an API: `limited("ordinary=3/minute", TRUSTED_PROXIES="1")`."""

    def build(rates: str, **more: str) -> Limited:
        environment = {**ENVIRONMENT, "RATE_LIMITS": rates, "REDIS_URL": redis_url or "", **more}
        upstream, clock = FakeUpstream(), Clock()
        client = create_app(read_settings(environment), upstream, clock).test_client()  # type: ignore[arg-type]
        if redis_url:
            eventually(lambda: redis_state(client) == "up", "Redis is not used")
            request.getfixturevalue("redis_server").flush()
            upstream.requests.clear()
        return Limited(client, upstream, clock)

    yield build


def redis_state(client: FlaskClient) -> str:
    """Return what /readyz says of Redis."""
    answer = client.get("/readyz", environ_overrides={"REMOTE_ADDR": "198.51.100.99"})
    return str(json.loads(answer.data)["dependencies"]["redis"]["state"])

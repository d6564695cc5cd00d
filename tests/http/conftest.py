"""The API in memory: the real app, over an upstream that answers from a script and remembers what it was asked."""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import orjson
import pytest
import responses
from flask.testing import FlaskClient

from server.app import create_app
from server.data.transport import UpstreamAnswer
from server.http.wsgi import Api
from server.settings import Settings, read_settings
from tests.http.minting import SECRET, mint_hs256, user_claims
from tests.stack.product import UNLIMITED

SUPABASE_URL = "http://127.0.0.1:1"  # nobody listens there: what reaches for Supabase past the fake is refused
ORG_ID = "6c1a0f5e-6b1e-4b6e-9d5a-0c3a0f5e6b1e"
ENVIRONMENT = {
    "SUPABASE_URL": SUPABASE_URL,
    "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_of_the_tests",
    "SUPABASE_SECRET_KEY": "sb_secret_of_the_tests",
    "SUPABASE_JWT_SECRET": SECRET.decode(),
    "SUPABASE_JWT_ISSUER": "unchecked",
    "CORS_ORIGINS": "https://app.example.com",
    "RATE_LIMITS": UNLIMITED,
}
MONITOR = {
    "id": "a7470079-8fd5-40eb-8b1d-c790840bc8b3",
    "org_id": ORG_ID,
    "name": "Home page",
    "kind": "http",
    "target": "https://example.com/",
    "interval_seconds": 60,
    "timeout_seconds": 10,
    "retry_interval_seconds": 15,
    "fail_threshold": 2,
    "recover_threshold": 1,
    "degraded_after_ms": None,
    "options": {
        "method": "GET",
        "headers": {},
        "body": None,
        "auth": None,
        "expected_status": ["200-299"],
        "max_redirects": 5,
        "verify_tls": True,
    },
    "assertions": [],
    "depends_on": [],
    "regions": [],
    "slug": None,
    "ping_id": None,
    "state": "up",
    "state_since": "2026-01-01T00:00:00.5+00:00",
    "flapping": False,
    "paused": False,
    "created_at": "2026-01-01T00:00:00.512345+00:00",
    "updated_at": "2026-01-01T00:00:00+00:00",
    "version": 3,
}
MONITOR_FOR_WRITING = {**MONITOR, "my_role": "owner"}
EVENTS = {
    "events": [],
    "has_more": False,
    "position": {"xid": "7", "seq": 0},
    "horizon": {"xid": "0", "seq": 0},
    "roles": {},
    "snapshot": "7:7:",
}
MEMBERSHIPS = [{"org_id": ORG_ID, "role": "owner"}]


@dataclass(slots=True)
class Asked:
    """One call of the upstream."""

    method: str
    url: str
    headers: dict[str, str]
    content: bytes | None

    @property
    def path(self) -> str:
        """What follows Supabase's address."""
        return self.url.removeprefix(f"{SUPABASE_URL}/rest/v1")


@dataclass(slots=True)
class FakeUpstream:
    """Stands in for UpstreamSession. Answers what was scripted, in turn; then `[]`."""

    requests: list[Asked] = field(default_factory=list)
    _script: list[UpstreamAnswer | Exception] = field(default_factory=list)

    def answer(self, body: object = None, status: int = 200) -> None:
        """Script one answer; `body` is bytes as they are, or what becomes JSON."""
        content = body if isinstance(body, bytes) else orjson.dumps([] if body is None else body)
        self._script.append(UpstreamAnswer(status, content))

    def fail(self, error: Exception) -> None:
        """Script one failure."""
        self._script.append(error)

    def send(self, method: str, url: str, headers: object, content: bytes | None = None) -> UpstreamAnswer:
        """Take one call, as UpstreamSession.send does."""
        self.requests.append(Asked(method, url, dict(headers), content))  # type: ignore[call-overload]
        scripted = self._script.pop(0) if self._script else UpstreamAnswer(200, b"[]")
        if isinstance(scripted, Exception):
            raise scripted
        return scripted


@pytest.fixture(scope="session")
def settings() -> Settings:
    return read_settings(ENVIRONMENT)


@pytest.fixture(scope="session")
def _app_and_upstream(settings: Settings) -> tuple[Api, FakeUpstream]:
    upstream = FakeUpstream()
    return create_app(settings, upstream), upstream  # type: ignore[arg-type]


@pytest.fixture
def upstream(_app_and_upstream: tuple[Api, FakeUpstream]) -> FakeUpstream:
    """The upstream of `client`, with nothing scripted and nothing asked yet."""
    upstream = _app_and_upstream[1]
    upstream.requests.clear()
    upstream._script.clear()
    return upstream


@pytest.fixture
def app(_app_and_upstream: tuple[Api, FakeUpstream], upstream: FakeUpstream) -> Api:
    return _app_and_upstream[0]


@pytest.fixture
def client(app: Api) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="session")
def token() -> Callable[..., str]:
    """Mint an access token that is good now: `token(is_anonymous=True)` changes claims."""

    def mint(**claims: object) -> str:
        now = int(time.time())
        return mint_hs256(user_claims(**{"iat": now, "exp": now + 3600, "sub": str(uuid.uuid4()), **claims}))

    return mint


@pytest.fixture
def signed_in(token: Callable[..., str]) -> dict[str, str]:
    """The headers of somebody who has signed in."""
    return {"Authorization": f"Bearer {token()}"}


@pytest.fixture
def auth_says_yes() -> Iterator[Callable[[], int]]:
    """Supabase Auth confirms every session; gives the number of times that it was asked."""
    with responses.RequestsMock(assert_all_requests_are_fired=False) as auth:
        auth.get(f"{SUPABASE_URL}/auth/v1/user", json={})
        auth.get(f"{SUPABASE_URL}/auth/v1/health", json={})
        yield lambda: len(auth.calls)

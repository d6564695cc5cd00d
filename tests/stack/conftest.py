"""The embedded Supabase for tests: one per session over a real Postgres, and one on PGlite for a short smoke."""

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest
import requests
from ports import free_port
from stack import Keys, PgliteDir, PostgresUrl, Stack, running_stack
from throwaway_postgres import open_database, open_server

from tests.stack.product import Api, Receiver, Target, running_api, running_worker

PASSWORD = "correct horse battery"


@dataclass(frozen=True, slots=True)
class EmbeddedSupabase:
    """A running stack. `database_url` is a superuser's, for psycopg; None on PGlite, which only its server can open."""

    url: str
    publishable_key: str
    secret_key: str
    jwt_secret: str
    database_url: str | None


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who has signed up and holds an access token."""

    id: UUID
    email: str
    access_token: str


SignUp = Callable[..., User]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A superuser's URL of a real Postgres: a throwaway one, unless `TEST_DATABASE_URL` names another."""
    with open_server(os.environ.get("TEST_DATABASE_URL")) as url:
        yield url


@pytest.fixture(scope="session")
def supabase(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSupabase]:
    """The stack over a real Postgres, our migrations applied."""
    log_path = tmp_path_factory.mktemp("supabase") / "supabase.log"
    with (
        open_database(postgres_server) as database_url,
        running_stack(PostgresUrl(database_url), make_keys(), port=free_port(), log_path=log_path) as stack,
    ):
        yield embed(stack, database_url)


@pytest.fixture(scope="session")
def embedded_pglite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSupabase]:
    """The stack as `make run` has it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("pglite")
    database = PgliteDir(folder / "pgdata")
    with running_stack(database, make_keys(), port=free_port(), log_path=folder / "supabase.log") as stack:
        yield embed(stack, None)


@pytest.fixture(scope="session")
def sign_up(supabase: EmbeddedSupabase) -> SignUp:
    """Sign somebody up through Auth's HTTP API: `sign_up(email=None) -> User`."""

    def sign_up(email: str | None = None) -> User:
        return sign_up_at(supabase, email)

    return sign_up


def sign_up_at(supabase: EmbeddedSupabase, email: str | None = None) -> User:
    """Sign up at a given stack; an email of None is made up."""
    email = email or f"user-{secrets.token_hex(6)}@example.com"
    answer = requests.post(
        f"{supabase.url}/auth/v1/signup",
        headers={"apikey": supabase.publishable_key},
        json={"email": email, "password": PASSWORD},
        timeout=30,
    )
    answer.raise_for_status()
    body = answer.json()
    return User(UUID(body["user"]["id"]), email, body["access_token"])


def make_keys() -> Keys:
    """Make random keys, as `make run` does."""
    return Keys(
        publishable_key=f"sb_publishable_{secrets.token_urlsafe(24)}",
        secret_key=f"sb_secret_{secrets.token_urlsafe(24)}",
        jwt_secret=secrets.token_urlsafe(48),
    )


def embed(stack: Stack, database_url: str | None) -> EmbeddedSupabase:
    """Describe a running stack to a test."""
    keys = stack.keys
    return EmbeddedSupabase(stack.url, keys.publishable_key, keys.secret_key, keys.jwt_secret, database_url)


@pytest.fixture(scope="session")
def api(supabase: EmbeddedSupabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API in a process of its own."""
    with running_api(supabase, tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture(scope="session")
def worker(supabase: EmbeddedSupabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """A worker in a process of its own."""
    with running_worker(supabase, tmp_path_factory.mktemp("worker")) as running:
        yield running


@pytest.fixture(scope="module")
def own_supabase(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedSupabase]:
    """A stack of the module's own: no worker touches it but those that the module starts."""
    log_path = tmp_path_factory.mktemp("own-supabase") / "supabase.log"
    with (
        open_database(postgres_server) as database_url,
        running_stack(PostgresUrl(database_url), make_keys(), port=free_port(), log_path=log_path) as stack,
    ):
        yield embed(stack, database_url)


@pytest.fixture(scope="module")
def quiet_api(own_supabase: EmbeddedSupabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API over a stack without a worker: nothing changes between two answers."""
    with running_api(own_supabase, tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture
def user(own_supabase: EmbeddedSupabase) -> User:
    """Somebody who has just signed up there."""
    return sign_up_at(own_supabase)


@pytest.fixture
def owner(quiet_api: Api, user: User) -> Api:
    """That API as this user, with an organisation of their own."""
    owner = quiet_api.as_user(user.access_token)
    owner.ask("POST", "/v1/orgs", json={"name": "Acme"})
    return owner


@pytest.fixture(scope="module")
def connection(own_supabase: EmbeddedSupabase) -> Iterator[psycopg.Connection]:
    """A superuser's connection to it, each statement a transaction of its own."""
    assert own_supabase.database_url is not None, "the stack stands on a real Postgres"
    with psycopg.connect(own_supabase.database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def target() -> Iterator[Target]:
    """A website that answers, until a test stops it."""
    target = Target()
    target.start()
    yield target
    target.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Somebody's webhook endpoint."""
    receiver = Receiver()
    yield receiver
    receiver.close()

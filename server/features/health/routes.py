"""How the service itself does: alive, ready, measured. Open to everybody, and telling nobody anything of users."""

import time
from collections.abc import Callable

from server.data.counters import SharedCounters
from server.errors import AppError
from server.features.health.schemas import Dependency, Health, Readiness, State
from server.http import replies
from server.http.metrics import exposition
from server.http.replies import Reply
from server.http.routing import Feature, Services, public

feature = Feature("Service")
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@feature.route("GET", "/healthz", answers=Health, limit=None)
@public
def healthz(services: Services) -> Reply:
    """Say that the process answers. Asks nobody else and refuses nobody: a platform restarts what does not answer."""
    return replies.shaped(Health(status="ok"))


@feature.route("GET", "/readyz", answers=Readiness)
@public
def readyz(services: Services) -> Reply:
    """Say whether each thing that we use answers, and how fast. 503 where one does not that we cannot do without."""
    dependencies = {
        "database": _ask(services.supabase.is_reachable),
        "auth": _ask(services.auth_api.is_healthy),
        "signing_keys": _ask(lambda: _has_keys(services)),
    }
    if services.redis is not None:
        dependencies["redis"] = _ask_redis(services.redis)
    ready = all(dependency.state != "down" for dependency in dependencies.values())
    readiness = Readiness(status="ready" if ready else "unready", dependencies=dependencies)
    return replies.shaped(readiness, status=200 if ready else 503)


@feature.route("GET", "/metrics", content_type=PROMETHEUS_TEXT)
@public
def metrics(services: Services) -> Reply:
    """Say how many requests were answered and how long they took, in Prometheus' text format."""
    return Reply(exposition(services.metrics), content_type=PROMETHEUS_TEXT)


def _ask(question: Callable[[], bool]) -> Dependency:
    began = time.perf_counter()
    detail = None
    try:
        if not question():
            detail = "answers, but not well"
    except AppError as error:
        detail = error.detail
    return _dependency("up" if detail is None else "down", began, detail)


def _ask_redis(redis: SharedCounters) -> Dependency:
    began = time.perf_counter()
    # One that is known to be away is not asked: each of these answers would wait for it.
    if redis.is_up and redis.look():
        return _dependency("up", began, None)
    return _dependency("fallback", began, "Each process counts limits for itself until Redis is back.")


def _dependency(state: State, began: float, detail: str | None) -> Dependency:
    taken_ms = round((time.perf_counter() - began) * 1000, 1)
    return Dependency(state=state, ok=state == "up", latency_ms=taken_ms, detail=detail)


def _has_keys(services: Services) -> bool:
    if services.settings.supabase_jwt_secret:
        return True
    return services.jwks is not None and services.jwks.status().usable

"""How the service itself does: alive, ready, measured. Open to everybody, and telling nobody anything of users."""

import time
from collections.abc import Callable

from server.errors import AppError
from server.features.health.schemas import Dependency, Health, Readiness
from server.http import replies
from server.http.metrics import exposition
from server.http.replies import Reply
from server.http.routing import Feature, Services, public

feature = Feature("Service")
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


@feature.route("GET", "/healthz", answers=Health)
@public
def healthz(services: Services) -> Reply:
    """Say that the process answers. Asks nobody else."""
    return replies.shaped(Health(status="ok"))


@feature.route("GET", "/readyz", answers=Readiness)
@public
def readyz(services: Services) -> Reply:
    """Say whether each thing that we need answers, and how fast. 503 where one does not."""
    dependencies = {
        "database": _ask(services.supabase.is_reachable),
        "auth": _ask(services.auth_api.is_healthy),
        "signing_keys": _ask(lambda: _has_keys(services)),
    }
    ready = all(dependency.ok for dependency in dependencies.values())
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
    return Dependency(ok=detail is None, latency_ms=round((time.perf_counter() - began) * 1000, 1), detail=detail)


def _has_keys(services: Services) -> bool:
    if services.settings.supabase_jwt_secret:
        return True
    return services.jwks is not None and services.jwks.status().usable

"""The composition root: settings in, a WSGI app out. Everything is made here once and handed on."""

import importlib
import importlib.util
import pkgutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import orjson
from prometheus_client import CollectorRegistry

from server import features
from server.data.api_keys import KeyRing
from server.data.auth_api import AuthApi
from server.data.clients import Supabase
from server.data.counters import MemoryCounters, SharedCounters
from server.data.jwks import JWKS_PATH, JwksSnapshot, fetch_jwks
from server.data.privileged import secret_deriver
from server.data.transport import UpstreamSession
from server.egress import Egress
from server.http import openapi, problems
from server.http.envelope import Envelope
from server.http.limits import Limiter
from server.http.metrics import RequestMetrics
from server.http.principals import Door
from server.http.routing import Operation, Services, register
from server.http.tokens import Verifier, policy_of
from server.http.wsgi import Api
from server.logs import AccessLog, configure_logs
from server.settings import Settings, load_settings


def create_app(
    settings: Settings | None = None, session: UpstreamSession | None = None, clock: Callable[[], float] = time.time
) -> Api:
    """Build the API. `session` is the pool of connections to Supabase; tests hand in one that answers from memory.

    `clock` gives the Unix seconds by which limits are counted. Raises SettingsError.
    """
    settings = settings or load_settings()
    configure_logs(settings.log_level)
    operations = list(all_operations())
    services = _services(settings, session or UpstreamSession(), operations, clock)
    app = Api(__name__, static_folder=None)
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    problems.install(app)
    for operation in operations:
        register(app, operation, services)
    app.wsgi_app = Envelope(  # type: ignore[method-assign]  # how Flask's documentation wraps an app
        app.wsgi_app, settings.cors_origins, RequestMetrics(services.metrics), AccessLog(settings.log_level)
    )
    return app


def all_operations() -> Iterator[Operation]:
    """Find every route of every feature: the `feature` of each `features/<resource>/routes.py`."""
    for found in pkgutil.iter_modules(features.__path__):
        name = f"{features.__name__}.{found.name}.routes"
        if importlib.util.find_spec(name):
            yield from importlib.import_module(name).feature.operations


def _services(
    settings: Settings, session: UpstreamSession, operations: list[Operation], clock: Callable[[], float]
) -> Services:
    jwks = JwksSnapshot(partial(fetch_jwks, settings.supabase_url + JWKS_PATH), time.monotonic)
    jwks.warm()
    supabase = Supabase(session, settings.supabase_url, settings.supabase_publishable_key)
    redis = SharedCounters(settings.redis_url, time.monotonic) if settings.redis_url else None
    return Services(
        settings=settings,
        supabase=supabase,
        door=Door(Verifier(policy_of(settings), jwks), KeyRing(supabase, time.monotonic), supabase),
        auth_api=AuthApi(settings.supabase_url, settings.supabase_publishable_key),
        jwks=jwks,
        egress=Egress(settings.private_targets),
        limits=Limiter(settings.rate_limits, redis or MemoryCounters(), clock, settings.trusted_proxies),
        redis=redis,
        metrics=CollectorRegistry(),
        derive_secret=secret_deriver(settings.supabase_secret_key),
        openapi_document=orjson.dumps(openapi.document(operations, _version(), settings.streams_url)),
    )


def _version() -> str:
    try:
        return version("tocsin")
    except PackageNotFoundError:  # run from a checkout
        return "0.1.0"

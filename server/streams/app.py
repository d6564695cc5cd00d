"""The stream process put together: settings in, an ASGI app and its hub out."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from server.data.api_keys import KeyRing
from server.data.clients import Supabase
from server.data.counters import MemoryCounters, SharedCounters
from server.data.jwks import JWKS_PATH, JwksSnapshot, fetch_jwks
from server.data.privileged import Privileged
from server.data.transport import UpstreamSession
from server.errors import NotFound
from server.http.limits import Limiter
from server.http.principals import Door
from server.http.tokens import Verifier, policy_of
from server.logs import AccessLog
from server.settings import Settings
from server.streams.asking import STREAM_PATH
from server.streams.entrance import Entrance, poll
from server.streams.envelope import StreamEnvelope
from server.streams.hub import Hub
from server.streams.polling import feed
from server.streams.sse import SseEndpoint
from server.streams.websocket import WebSocketEndpoint

# Calls for readers who come in; the poll has a thread of its own, so that a crowd at the door delays nobody inside.
ENTRANCE_THREADS: Final = 32


@dataclass(frozen=True, slots=True)
class StreamApp:
    """What is served, and who is in it."""

    asgi: ASGIApp
    hub: Hub


def create_stream_app(settings: Settings) -> StreamApp:
    """Build the app; its lifespan feeds the hub."""
    hub = Hub(settings.max_streams)
    session = UpstreamSession()
    entrance_threads, poll_thread = ThreadPoolExecutor(ENTRANCE_THREADS), ThreadPoolExecutor(1)
    jwks = JwksSnapshot(partial(fetch_jwks, settings.supabase_url + JWKS_PATH), time.monotonic)
    supabase = Supabase(session, settings.supabase_url, settings.supabase_publishable_key)
    door = Door(Verifier(policy_of(settings), jwks), KeyRing(supabase, time.monotonic), supabase)
    counters = SharedCounters(settings.redis_url, time.monotonic) if settings.redis_url else MemoryCounters()
    limits = Limiter(settings.rate_limits, counters, time.time, settings.trusted_proxies)
    entrance = Entrance(door, limits, _in(entrance_threads))
    privileged = Privileged(session, settings.supabase_url, settings.supabase_secret_key)
    in_poll_thread = _in(poll_thread)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        jwks.warm()
        # No security by this randomness: it spreads retries.
        feeding = asyncio.create_task(feed(hub, lambda after: in_poll_thread(poll, privileged, after), random.random))
        yield
        feeding.cancel()
        for threads in (entrance_threads, poll_thread):
            threads.shutdown(wait=False, cancel_futures=True)

    async def healthz(_request: Request) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    async def readyz(_request: Request) -> JSONResponse:
        is_ready = hub.position is not None
        return JSONResponse(
            {"status": "ready" if is_ready else "not_ready", "streams": len(hub.readers)}, 200 if is_ready else 503
        )

    async def absent(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise NotFound

    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route(STREAM_PATH, SseEndpoint(hub, entrance)),
            WebSocketRoute(STREAM_PATH, WebSocketEndpoint(hub, entrance, settings.cors_origins)),
        ],
        lifespan=lifespan,
    )
    app.router.default = absent
    app.router.redirect_slashes = False
    return StreamApp(StreamEnvelope(_bare(app), settings.cors_origins, AccessLog(settings.log_level)), hub)


def _bare(app: Starlette) -> ASGIApp:
    """Return the routes without starlette's own error pages: errors are ours to answer."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = app
        await app.router(scope, receive, send)

    return serve


def _in(threads: ThreadPoolExecutor) -> Callable[..., Awaitable[Any]]:
    def run(function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(threads, function, *arguments)

    return run

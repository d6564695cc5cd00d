"""What is true of every exchange, wrapped around the app: request id, CORS, security headers, access log, metrics.

A WSGI wrapper rather than Flask hooks: it also holds for what never reaches a route, and costs a few microseconds.
"""

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from server.http.metrics import RequestMetrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("tocsin.access")

_ACCEPTED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
_SECURITY_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
]
_CONTENT_POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
_EXPOSED = "ETag, Location, Retry-After, WWW-Authenticate, X-Request-ID"
_PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, X-Request-ID",
    ),
    ("Access-Control-Max-Age", "600"),
]


class Envelope:
    """Wraps a WSGI app. `origins` are the web origins whose pages may read the answers."""

    def __init__(self, app: "WSGIApplication", origins: frozenset[str], metrics: RequestMetrics) -> None:
        self._app = app
        self._origins = origins
        self._metrics = metrics

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        began = time.perf_counter()
        given = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = given if _ACCEPTED_REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        environ["tocsin.request_id"] = request_id
        status_line = "500"

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            nonlocal status_line
            status_line = status
            headers += _SECURITY_HEADERS
            headers.append(("X-Request-ID", request_id))
            if not any(name == "Content-Security-Policy" for name, _ in headers):
                headers.append(_CONTENT_POLICY)
            if "HTTP_ORIGIN" in environ:
                headers += self._cross_origin(environ["HTTP_ORIGIN"])
            return start_response(status, headers, *exc_info)

        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            body: Iterable[bytes] = self._answer_preflight(environ, start)
        else:
            body = self._app(environ, start)
        self._note(environ, request_id, status_line[:3], time.perf_counter() - began)
        return body

    def _cross_origin(self, origin: str) -> list[tuple[str, str]]:
        if origin not in self._origins:
            return [("Vary", "Origin")]
        return [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", _EXPOSED),
            ("Vary", "Origin"),
        ]

    def _answer_preflight(self, environ: "WSGIEnvironment", start: Callable[..., object]) -> list[bytes]:
        allowed = environ.get("HTTP_ORIGIN") in self._origins
        start("204 No Content", list(_PREFLIGHT) if allowed else [])
        return []

    def _note(self, environ: "WSGIEnvironment", request_id: str, status: str, seconds: float) -> None:
        method, route = environ["REQUEST_METHOD"], environ.get("tocsin.route", "unmatched")
        self._metrics.observe(method, route, status, seconds)
        if log.isEnabledFor(logging.INFO):
            log.info(
                "request",
                extra={
                    "request_id": request_id,
                    "method": method,
                    "path": environ.get("PATH_INFO", ""),
                    "route": route,
                    "status": int(status),
                    "duration_ms": round(seconds * 1000, 2),
                    "user_id": environ.get("tocsin.user_id"),
                },
            )

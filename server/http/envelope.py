"""What is true of every exchange, wrapped around the app: request id, CORS, security headers, access log, metrics.

A WSGI wrapper rather than Flask hooks: it also holds for what never reaches a route, and costs a few microseconds.
"""

import random
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from server.http.limits import ENVIRON_KEY as RATE_LIMIT
from server.http.metrics import RequestMetrics
from server.logs import AccessLog

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_ACCEPTED_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
SECURITY_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
]
CONTENT_POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
# A line stays below the 4,096 bytes that a pipe takes in one piece, even where JSON spells each letter with six.
LONGEST_PATH_NOTED = 500
LONGEST_METHOD_NOTED = 20
PINGS = "/ping/"
_EXPOSED = (
    "Content-Disposition, ETag, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-ID"
)
PREFLIGHT = [
    ("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, If-Match, If-None-Match, Idempotency-Key, Last-Event-ID, X-Request-ID",
    ),
    ("Access-Control-Max-Age", "600"),
]


def request_id_from(given: str | None) -> str:
    """Return the caller's request id where it is a usable one, else a new one."""
    if given is None or not _ACCEPTED_REQUEST_ID.fullmatch(given):
        return f"{random.getrandbits(128):032x}"
    return given


def path_noted(path: str) -> str:
    """Return what the log says of a path: of a ping's, which holds a key or the secret id of a heartbeat, no more."""
    return PINGS + "…" if path.startswith(PINGS) else path[:LONGEST_PATH_NOTED]


def cross_origin_headers(origin: str, origins: frozenset[str]) -> list[tuple[str, str]]:
    """Return what lets a page of `origin` read the answer, where it is one of `origins`."""
    if origin not in origins:
        return [("Vary", "Origin")]
    return [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Expose-Headers", _EXPOSED),
        ("Vary", "Origin"),
    ]


class Envelope:
    """Wraps a WSGI app. `origins` are the web origins whose pages may read the answers."""

    def __init__(
        self, app: "WSGIApplication", origins: frozenset[str], metrics: RequestMetrics, access_log: AccessLog
    ) -> None:
        self._app = app
        self._origins = origins
        self._metrics = metrics
        self._access_log = access_log

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        began = time.perf_counter()
        request_id = request_id_from(environ.get("HTTP_X_REQUEST_ID"))
        environ["tocsin.request_id"] = request_id
        status_line = "500"

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            nonlocal status_line
            status_line = status
            if not any(name == "Content-Security-Policy" for name, _ in headers):
                headers.append(CONTENT_POLICY)
            headers += SECURITY_HEADERS
            headers.append(("X-Request-ID", request_id))
            if RATE_LIMIT in environ:
                headers += environ[RATE_LIMIT].headers()
            if "HTTP_ORIGIN" in environ and not any(name == "Access-Control-Allow-Origin" for name, _ in headers):
                headers += cross_origin_headers(environ["HTTP_ORIGIN"], self._origins)
            return start_response(status, headers, *exc_info)

        if environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ:
            body: Iterable[bytes] = self._answer_preflight(environ, start)
        else:
            body = self._app(environ, start)
        self._note(environ, request_id, status_line[:3], time.perf_counter() - began)
        return body

    def _answer_preflight(self, environ: "WSGIEnvironment", start: Callable[..., object]) -> list[bytes]:
        allowed = environ.get("HTTP_ORIGIN") in self._origins
        start("204 No Content", list(PREFLIGHT) if allowed else [])
        return []

    def _note(self, environ: "WSGIEnvironment", request_id: str, status: str, seconds: float) -> None:
        method, route = environ["REQUEST_METHOD"], environ.get("tocsin.route", "unmatched")
        self._metrics.observe(method, route, status, seconds)
        if self._access_log.is_on:
            line: dict[str, object] = {
                "request_id": request_id,
                "method": method[:LONGEST_METHOD_NOTED],
                "path": path_noted(environ["PATH_INFO"]),
                "route": route,
                "status": int(status),
                "duration_ms": round(seconds * 1000, 2),
            }
            if "tocsin.principal_id" in environ:
                line["principal_id"] = environ["tocsin.principal_id"]
            self._access_log.note(line)

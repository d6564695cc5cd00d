"""What an http check asks, and how a redirect changes it."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace

from server.probes.http_options import Auth, BasicAuth, BearerAuth, HttpOptions
from server.probes.places import Place

# Fetch (fetch.spec.whatwg.org, HTTP-redirect fetch): they describe a body that is left behind.
_OF_THE_BODY = frozenset({"content-encoding", "content-language", "content-location", "content-type"})
# What curl leaves behind at another origin, beside credentials.
_OF_THE_ORIGIN = frozenset({"cookie", "host"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and how much of its answer is kept. `headers` and `credentials` are pairs of name and value."""

    method: str = "GET"
    headers: Sequence[tuple[str, str]] = ()
    credentials: Sequence[tuple[str, str]] = ()
    body: bytes | None = None
    verifies: bool = True
    keeps_headers: bool = False
    keeps_body: bool = False
    connects_only: bool = False  # no request at all: the connection and its handshake are what is looked at

    @property
    def is_more_than_a_get(self) -> bool:
        """Tell whether there is anything to say beside the URL."""
        return self.method != "GET" or self.body is not None or bool(self.headers) or bool(self.credentials)


def make_request(options: HttpOptions, *, keeps_headers: bool, keeps_body: bool) -> Request:
    """Return the first request of a check."""
    credentials = [_present(options.auth)] if options.auth is not None else []
    presented = {name.lower() for name, _ in credentials}
    return Request(
        method=options.method,
        headers=[pair for pair in options.headers.items() if pair[0].lower() not in presented],
        credentials=credentials,
        body=None if options.body is None else options.body.encode(),
        verifies=options.verify_tls,
        keeps_headers=keeps_headers,
        keeps_body=keeps_body,
    )


def redirect(request: Request, status: int | None, origin: Place, target: Place) -> Request:
    """Return what to ask where a redirect points.

    303 asks by GET, and so do 301 and 302 after a POST (RFC 9110, 15.4); 307 and 308 ask the same again. Credentials,
    cookies and a Host do not go to another origin, as with browsers and curl.
    """
    becomes_get = request.method not in ("GET", "HEAD") if status == 303 else request.method == "POST"
    if becomes_get and status in (301, 302, 303):
        kept = [pair for pair in request.headers if pair[0].lower() not in _OF_THE_BODY]
        request = replace(request, method="GET", body=None, headers=kept)
    if (origin.scheme, origin.host, origin.port) != (target.scheme, target.host, target.port):
        kept = [pair for pair in request.headers if pair[0].lower() not in _OF_THE_ORIGIN]
        request = replace(request, headers=kept, credentials=())
    return request


def _present(auth: Auth) -> tuple[str, str]:
    if isinstance(auth, BasicAuth):
        pair = base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()
        return "Authorization", f"Basic {pair}"
    if isinstance(auth, BearerAuth):
        return "Authorization", f"Bearer {auth.token}"
    return auth.name, auth.value

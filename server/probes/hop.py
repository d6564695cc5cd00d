"""One request over one fresh connection: a curl handle, and what its callbacks saw."""

import socket
import ssl
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

import pycurl

from server.egress import Egress
from server.features.checks.rules import Timings
from server.probes.names import Lookup
from server.probes.places import Place
from server.probes.request import Request
from server.probes.timing import to_ms

USER_AGENT = "Tocsin/0.1 (uptime check)"

MAX_BODY_BYTES = 1_000_000
# libcurl bounds headers too (300 kB, 5,000 lines, 100 kB a line); this one is ours, and reported the same way.
MAX_HEADER_BYTES = 128_000

_METHODS_WITH_BODIES = frozenset({"POST", "PUT", "PATCH"})  # a length of 0 is said too
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Stop(StrEnum):
    """Why we ended a transfer ourselves."""

    REDIRECT = "redirect"
    BODY_READ = "body_read"
    HEADERS_TOO_LARGE = "headers_too_large"


class Phase(StrEnum):
    """What a transfer was doing when it ended, in words that follow "while"."""

    CONNECT = "connecting"
    TLS = "in the TLS handshake"
    FIRST_BYTE = "waiting for the first byte"
    HEADERS = "reading the headers"
    BODY = "reading the body"


class _LentSocket(socket.socket):
    """A socket whose descriptor pycurl duplicates; ours is closed, silently, as soon as pycurl lets go of it."""

    def __del__(self) -> None:
        self.close()


class Hop:
    """A request to one URL, not yet performed. Use as a context manager; `curl` is valid inside only.

    `lookup` has the addresses to try. `follows` ends the transfer at the end of a redirect's headers, body unread.
    `headers` and `body` stay empty where the request does not keep them.
    """

    def __init__(
        self,
        place: Place,
        lookup: Lookup,
        request: Request,
        *,
        egress: Egress,
        ca_path: str,
        timeout_seconds: float,
        follows: bool,
    ) -> None:
        self.host = place.host
        self.is_https = place.scheme == "https"
        self.status_code: int | None = None
        self.headers_ended = False
        self.location: str | None = None
        self.stop: Stop | None = None
        self.refused_addresses: list[str] = []
        self.opened_sockets = 0
        self.socket_error: OSError | None = None
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self._egress = egress
        self._request = request
        self._keeps_headers = request.keeps_headers or request.keeps_body
        self._follows = follows
        self._header_bytes = 0
        self._body_bytes = 0
        self._lookup = lookup
        self._names = pycurl.CurlShare()
        self.curl = pycurl.Curl()
        self._configure(place.url, ca_path, timeout_seconds)
        if request.connects_only:
            self.curl.setopt(pycurl.CONNECT_ONLY, 1)
            # Whatever is served there, it need not be http: a strict server hangs up on what it does not speak.
            self.curl.setopt(pycurl.SSL_ENABLE_ALPN, 0)
        elif request.is_more_than_a_get:
            self._ask(request)
        if not place.is_address:
            self._teach_addresses(place, lookup)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.curl.close()
        self._names.close()

    def _teach_addresses(self, place: Place, lookup: Lookup) -> None:
        # Entries given by hand never go stale: they stand in a cache of this hop's own, and go with it.
        self._names.setopt(pycurl.SH_SHARE, pycurl.LOCK_DATA_DNS)
        self.curl.setopt(pycurl.SHARE, self._names)
        written = ",".join(f"[{address}]" if ":" in address else address for address in lookup.addresses)
        self.curl.setopt(pycurl.RESOLVE, [f"{place.host}:{place.port}:{written}"])

    def _configure(self, url: str, ca_path: str, timeout_seconds: float) -> None:
        options: list[tuple[int, Any]] = [
            (pycurl.URL, url),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            # HTTP/1.1: the first byte then answers the request alone, without an exchange of SETTINGS before it.
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.USERAGENT, USER_AGENT),
            (pycurl.TIMEOUT_MS, max(1, int(timeout_seconds * 1000))),
            (pycurl.NOSIGNAL, 1),
            # Nothing of an earlier check: its connection, name, TLS session.
            (pycurl.FRESH_CONNECT, 1),
            (pycurl.FORBID_REUSE, 1),
            (pycurl.DNS_CACHE_TIMEOUT, 0),
            (pycurl.SSL_SESSIONID_CACHE, 0),
            # Nothing of the environment: no http_proxy, no netrc.
            (pycurl.PROXY, ""),
            (pycurl.NETRC, pycurl.NETRC_IGNORED),
            (pycurl.CAINFO, ca_path),
            (pycurl.SSL_VERIFYPEER, 1 if self._request.verifies else 0),
            (pycurl.SSL_VERIFYHOST, 2 if self._request.verifies else 0),
            (pycurl.OPT_CERTINFO, 1),
            (pycurl.OPENSOCKETFUNCTION, self._open_socket),
            (pycurl.HEADERFUNCTION, self._take_header),
            (pycurl.WRITEFUNCTION, self._take_body),
        ]
        for option, value in options:
            self.curl.setopt(option, value)

    def _ask(self, request: Request) -> None:
        """Say what is to be sent, where that is more than a GET."""
        names = {name.lower() for name, _ in request.headers}
        # libcurl takes `Name:` for "do not send it", and `Name;` for an empty value.
        lines = [
            f"{name}: {value}" if value.strip() else f"{name};"
            for name, value in (*request.headers, *request.credentials)
        ]
        if request.method == "HEAD":
            self.curl.setopt(pycurl.NOBODY, 1)
        elif request.body is not None or request.method in _METHODS_WITH_BODIES:
            self.curl.setopt(pycurl.POSTFIELDS, request.body or b"")
            lines += ["Expect:"] if "content-type" in names else ["Expect:", "Content-Type:"]
        if request.method not in ("GET", "HEAD") or request.body is not None:
            self.curl.setopt(pycurl.CUSTOMREQUEST, request.method)
        self.curl.setopt(pycurl.HTTPHEADER, lines)

    def _open_socket(self, _purpose: int, target: Any) -> socket.socket | int:
        """Open the socket for one resolved address, or refuse it: libcurl then tries the next one."""
        if target.family not in (socket.AF_INET, socket.AF_INET6) or not self._permits(target.addr):
            self.refused_addresses.append(str(target.addr[0]))
            return int(pycurl.SOCKET_BAD)
        try:
            opened = _LentSocket(target.family, target.socktype, target.protocol)
        except OSError as error:
            self.socket_error = error
            return int(pycurl.SOCKET_BAD)
        self.opened_sockets += 1
        return opened

    def _permits(self, address: tuple[Any, ...]) -> bool:
        zone = f"%{address[3]}" if len(address) == 4 and address[3] else ""
        return self._egress.permits(f"{address[0]}{zone}")

    def _take_header(self, line: bytes) -> int:
        """Follow the response's head; 0 ends the transfer."""
        self._header_bytes += len(line)
        if self._header_bytes > MAX_HEADER_BYTES:
            self.stop = Stop.HEADERS_TOO_LARGE
            return 0
        if self.headers_ended:  # a trailer
            return len(line)
        if line.startswith(b"HTTP/"):
            self.status_code = _read_status(line)
            self.location = None
            self.headers.clear()
        elif line in (b"\r\n", b"\n"):
            return self._end_head(len(line))
        else:
            if self.location is None and line[:9].lower() == b"location:":
                self.location = line[9:].decode("utf-8", "replace").strip()
            if self._keeps_headers:
                self._keep_header(line)
        return len(line)

    def _keep_header(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if colon:
            key, text = name.strip().lower().decode("latin-1"), value.strip().decode("utf-8", "replace")
            before = self.headers.get(key)
            self.headers[key] = text if before is None else f"{before}, {text}"  # RFC 9110, 5.2

    def _end_head(self, length: int) -> int:
        if self.status_code is not None and self.status_code < 200:
            self.status_code = None  # 100 Continue, 103 Early Hints: the answer is yet to come
            return length
        self.headers_ended = True
        if self._follows and self.status_code in _REDIRECTS and self.location:
            self.stop = Stop.REDIRECT
            return 0
        return length

    def _take_body(self, chunk: bytes) -> int:
        self._body_bytes += len(chunk)
        if self._request.keeps_body:
            self.body += chunk[: MAX_BODY_BYTES - len(self.body)]
        if self._body_bytes > MAX_BODY_BYTES:
            self.stop = Stop.BODY_READ
            return 0
        return len(chunk)

    @property
    def phase(self) -> Phase:
        """What the transfer was doing last."""
        if self.headers_ended:
            return Phase.BODY
        if self._header_bytes:
            return Phase.HEADERS
        if self._seconds(pycurl.CONNECT_TIME):
            stalled = self.is_https and not self._seconds(pycurl.APPCONNECT_TIME)
            return Phase.TLS if stalled else Phase.FIRST_BYTE
        return Phase.CONNECT

    @property
    def total_seconds(self) -> float:
        """How long the look-up and the transfer took."""
        return self._lookup.seconds + self._seconds(pycurl.TOTAL_TIME)

    def timings(self, total_seconds: float) -> Timings:
        """Return each phase by itself, in ms; libcurl counts all of them from the transfer's start."""
        connected = self._seconds(pycurl.CONNECT_TIME)
        secured = self._seconds(pycurl.APPCONNECT_TIME)
        # When a transfer fails, libcurl fills the later times with that moment: only a header proves a first byte.
        waited = self._seconds(pycurl.STARTTRANSFER_TIME) - self._seconds(pycurl.PRETRANSFER_TIME)
        return Timings(
            dns_ms=self._lookup.ms,
            connect_ms=to_ms(connected) if connected else None,
            tls_ms=to_ms(secured - connected) if secured else None,
            first_byte_ms=to_ms(waited) if self._header_bytes else None,
            total_ms=to_ms(total_seconds),
        )

    @property
    def remote_ip(self) -> str | None:
        """The address it was connected to."""
        return str(self.curl.getinfo(pycurl.PRIMARY_IP)) or None if self._seconds(pycurl.CONNECT_TIME) else None

    @property
    def tls_expires_at(self) -> datetime | None:
        """When the server's own certificate runs out; known even where the certificate was not accepted."""
        chain = self.curl.getinfo(pycurl.INFO_CERTINFO)
        expiry = dict(pair for pair in chain[0] if len(pair) == 2).get("Expire date") if chain else None
        try:
            return datetime.fromtimestamp(ssl.cert_time_to_seconds(expiry), tz=UTC) if expiry else None
        except (ValueError, OverflowError):
            return None

    def _seconds(self, info: int) -> float:
        return float(self.curl.getinfo(info))


def _read_status(line: bytes) -> int | None:
    words = line.split(maxsplit=2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else None

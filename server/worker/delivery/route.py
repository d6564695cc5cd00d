"""The way to a webhook's receiver: `requests` over connections that look at the address they connect to."""

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from server.egress import Egress, Resolve


class AddressRefusedError(Exception):
    """No address of the host may be connected to. `addresses` is for the log alone."""

    def __init__(self, addresses: list[str]) -> None:
        super().__init__(", ".join(addresses[:4]))


class UnresolvableError(Exception):
    """The host has no address."""


class UnreachableError(Exception):
    """No permitted address of the host accepted the connection. The message says why the last one did not."""


# These three are no OSErrors: urllib3 and requests would wrap those beyond recognition.


class Route:
    """One delivery's connections, and the time they may take altogether.

    Use as a context manager. `requests` bounds single reads only, and a receiver that drips a byte a second would
    hold it for hours: at the deadline every connection is shut down, whatever it was doing.
    """

    def __init__(self, egress: Egress, *, connect_seconds: float, total_seconds: float, resolve: Resolve) -> None:
        self.expired = False
        self._egress = egress
        self._resolve = resolve
        self._connect_seconds = connect_seconds
        self._deadline = time.monotonic() + total_seconds
        self._timer = threading.Timer(total_seconds, self._expire)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._watched: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._timer.cancel()
        with self._lock:
            self._shut_down()
            for watched in self._watched:
                watched.close()
            self._watched.clear()

    def open(self, host: str, port: int) -> socket.socket:
        """Return a socket connected to the first address of `host` that is permitted and answers.

        Resolves once, and connects to the very addresses that were judged. Raises AddressRefusedError,
        UnresolvableError or UnreachableError.
        """
        found = self._look_up(host, port)
        refused: list[str] = []
        failure: str | None = None
        for family, kind, protocol, _, address in found:
            if not self._egress.permits(_written(address)):
                refused.append(_written(address))
                continue
            try:
                return self._connect(family, kind, protocol, address)
            except OSError as error:
                failure = error.strerror or "timed out"
        if failure is None:
            raise AddressRefusedError(refused)
        raise UnreachableError(failure)

    def _look_up(self, host: str, port: int) -> Sequence[tuple[int, int, int, str, Any]]:
        # In a thread that can be left behind: the system's resolver knows no deadline, and may take far longer.
        answer: Future[Sequence[tuple[int, int, int, str, Any]]] = Future()

        def ask() -> None:
            try:
                answer.set_result(self._resolve(host, port, type=socket.SOCK_STREAM))
            except Exception as error:
                answer.set_exception(error)

        threading.Thread(target=ask, daemon=True, name="look-up").start()
        try:
            return answer.result(self._left_seconds())
        except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
            raise UnresolvableError(host) from error

    def _left_seconds(self) -> float:
        return max(0.001, self._deadline - time.monotonic())

    def _connect(self, family: int, kind: int, protocol: int, address: Any) -> socket.socket:
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.settimeout(min(self._connect_seconds, self._left_seconds()))
            opened.connect(address)
            self._watch(opened)
        except BaseException:
            opened.close()
            raise
        return opened

    def _watch(self, opened: socket.socket) -> None:
        # A duplicate, because TLS takes the descriptor out of the socket object; shutting down reaches both.
        with self._lock:
            if self.expired:
                raise TimeoutError
            self._watched.append(opened.dup())

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            self._shut_down()

    def _shut_down(self) -> None:
        for watched in self._watched:
            try:
                watched.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the other side was quicker


class RouteAdapter(HTTPAdapter):
    """A requests adapter whose connections go by one route, trusting one TLS context.

    The context is made once per process: requests would read its 200 kB of roots anew for each connection.
    """

    def __init__(self, route: Route, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._plain, self._secure = _connections_by(route)
        super().__init__(pool_connections=1, pool_maxsize=1, max_retries=0)

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        """Give urllib3 our context where requests would name a file of roots."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        is_https = host["scheme"] == "https"
        return host, {"ssl_context": self._tls, "cert_reqs": "CERT_REQUIRED"} if is_https else {}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the connection alone: the context requires a valid certificate and holds the roots."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        """Return a pool whose connections are opened by the route."""
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = self._secure if pool.scheme == "https" else self._plain
        return pool


def _connections_by(route: Route) -> tuple[type[HTTPConnection], type[HTTPSConnection]]:
    # `_new_conn` is the one place where urllib3 opens sockets; tests/worker/test_webhook.py fails if it moves.
    class PlainConnection(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return route.open(self._dns_host, self.port)

    class SecureConnection(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return route.open(self._dns_host, self.port)

    return PlainConnection, SecureConnection


def _written(address: Any) -> str:
    zone = f"%{address[3]}" if len(address) == 4 and address[3] else ""
    return f"{address[0]}{zone}"

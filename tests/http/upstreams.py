"""A real HTTP server on loopback in Supabase's place, which remembers what arrived and answers as a test says."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the one header of this name, None where there is none."""
        found = [value for given, value in self.headers if given.lower() == name.lower()]
        assert len(found) <= 1, f"{name} came {len(found)} times"
        return found[0] if found else None


@dataclass(slots=True)
class Told:
    """What the server answers; `length` None: as long as the body is."""

    status: int = 200
    body: bytes = b"[]"
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


class RealUpstream:
    """`answer` decides about each request: a Told, or None, which resets the connection.

    `hold()` keeps requests waiting until `release()`; `waiting` counts them.
    """

    def __init__(self) -> None:
        self.arrived: list[Arrived] = []
        self.answer: Callable[[Arrived], Told | None] = lambda arrived: Told()
        self.connections = 0  # ever accepted
        self.waiting = 0
        self.changed = threading.Condition()
        self._held = False
        self.open: set[socket.socket] = set()
        self._server = _Server(("127.0.0.1", 0), _handler_for(self))
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens, or has listened."""
        return f"http://127.0.0.1:{self.port}"

    def hold(self) -> None:
        """Keep requests waiting."""
        with self.changed:
            self._held = True

    def release(self) -> None:
        """Let them go."""
        with self.changed:
            self._held = False
            self.changed.notify_all()

    def wait_for_waiting(self, count: int) -> None:
        """Return when `count` requests wait."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.waiting >= count, timeout=10), f"only {self.waiting} arrived"

    def close(self) -> None:
        """Hang up on everybody and stop listening; later connections are refused."""
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        with self.changed:
            for connection in self.open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Take one request."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        request = Arrived(handler.command, handler.path, handler.headers.items(), body)
        with self.changed:
            self.arrived.append(request)
            if self._held:
                self.waiting += 1
                self.changed.notify_all()
                self.changed.wait_for(lambda: not self._held)
                self.waiting -= 1
        told = self.answer(request)
        if told is None:
            # Closed without lingering, a connection is reset.
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.close_connection = True
            handler.connection.close()
            return
        handler.send_response_only(told.status)
        for name, value in {"Content-Type": "application/json", **told.headers}.items():
            handler.send_header(name, value)
        if told.status != 204:
            handler.send_header("Content-Length", str(len(told.body) if told.length is None else told.length))
        handler.end_headers()
        handler.wfile.write(told.body)
        handler.close_connection = told.length is not None


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    block_on_close = False


def _handler_for(upstream: RealUpstream) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer leaves in one piece

        def setup(self) -> None:
            super().setup()
            with upstream.changed:
                upstream.connections += 1
                upstream.open.add(self.connection)

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (OSError, ValueError):
                self.close_connection = True  # the client has gone, or we have hung up on it

        def finish(self) -> None:
            with upstream.changed:
                upstream.open.discard(self.connection)
            with suppress(OSError, ValueError):
                super().finish()

        def take(self) -> None:
            upstream.serve(self)

        do_GET = do_POST = do_PATCH = do_DELETE = take  # noqa: N815  the names that http.server calls

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that http.server calls
            return

    return Handler


@contextmanager
def real_upstream() -> Iterator[RealUpstream]:
    """Serve for the length of a `with` block."""
    upstream = RealUpstream()
    try:
        yield upstream
    finally:
        upstream.close()


def echo(arrived: Arrived) -> Told:
    """Answer with the identity that the request came under."""
    return Told(body=json.dumps([arrived.header("Authorization")]).encode())

"""Something between the product and its Supabase that can go away in every way that networks know."""

import http.client
import socket
import struct
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from ports import free_port

from tests.stack.conftest import EmbeddedSupabase

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
# Not among the faults that any call may meet: the call is made, and its answer never comes back.
WITHHELD = "withhold the answer"
FAULTS = ("refuse", "stall", "reset", "html", "html with status 200", "cut off")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A call that went through, and its answer."""

    path: str
    body: bytes
    status: int
    answer: bytes


class Between:
    """Passes requests on, until `fault` says what to do instead; `slow_seconds` holds each answer back.

    `exchanges` are the calls whose answers went out whole, as far as can be known: the client may have died meanwhile.
    """

    def __init__(self, upstream: str) -> None:
        self.port = free_port()
        self.fault: str | None = None
        self.slow_seconds = 0.0
        self.exchanges: list[Exchange] = []
        self.waiting = 0
        self._upstream = urlsplit(upstream)
        self._changed = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self._open: set[socket.socket] = set()
        self._listen()

    @property
    def url(self) -> str:
        """Where it listens, or would."""
        return f"http://127.0.0.1:{self.port}"

    def become(self, fault: str | None) -> None:
        """Change what it does from now on; None passes everything on. Whatever is stalled is let go."""
        with self._changed:
            before, self.fault = self.fault, fault
            self._changed.notify_all()
        if fault == "refuse":
            self.close()
        elif before == "refuse":
            self._listen()

    def close(self) -> None:
        """Stop listening, and drop every connection."""
        with self._changed:
            server, self._server = self._server, None
            self._changed.notify_all()
        if server is not None:
            server.shutdown()
            server.server_close()
        for connection in list(self._open):
            _shut(connection)

    def _listen(self) -> None:
        outer = self

        class Passing(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                outer._open.add(self.connection)

            def finish(self) -> None:
                outer._open.discard(self.connection)
                super().finish()

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer._serve(self, body)

            do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = pass_on  # noqa: N815  the names that http.server calls

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name that http.server calls
                return

        class Server(ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", self.port), Passing)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _serve(self, client: BaseHTTPRequestHandler, body: bytes) -> None:
        with self._changed:
            fault = self.fault
            if fault == "stall" or self.slow_seconds:
                self.waiting += 1
                self._changed.wait_for(lambda: self.fault != fault or self._server is None, self.slow_seconds or 60)
                self.waiting -= 1
        if fault == "stall":
            client.close_connection = True
        elif fault == "reset":
            # Closed without lingering, a connection is reset.
            client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close_connection = True
            client.connection.close()
        elif fault in {"html", "html with status 200"}:
            _answer(client, 502 if fault == "html" else 200, {"Content-Type": "text/html"}, _PAGE)
        else:
            self._forward(client, body, cut_off=fault == "cut off")

    def _forward(self, client: BaseHTTPRequestHandler, body: bytes, *, cut_off: bool) -> None:
        upstream = http.client.HTTPConnection(self._upstream.hostname or "", self._upstream.port, timeout=30)
        headers = {name: text for name, text in client.headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            upstream.request(client.command, client.path, body or None, headers)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        with self._changed:
            if self.fault == WITHHELD:
                self.waiting += 1
                self._changed.wait_for(lambda: self.fault != WITHHELD or self._server is None, 60)
                self.waiting -= 1
        passed = {name: text for name, text in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
        if cut_off:
            client.close_connection = True
            _answer(client, answer.status, passed, content, shown=len(content) // 2)
            return
        self.exchanges.append(Exchange(client.path, body, answer.status, content))
        _answer(client, answer.status, passed, content)


def through(between: Between, supabase: EmbeddedSupabase) -> EmbeddedSupabase:
    """Return the same stack as it is reached through something."""
    return EmbeddedSupabase(
        between.url, supabase.publishable_key, supabase.secret_key, supabase.jwt_secret, supabase.database_url
    )


def _answer(
    client: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes, shown: int | None = None
) -> None:
    client.send_response_only(status)
    for name, text in headers.items():
        client.send_header(name, text)
    if status not in {204, 304}:
        client.send_header("Content-Length", str(len(content)))
    client.end_headers()
    client.wfile.write(content[:shown])


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was quicker

"""Servers on loopback that answer, stall, drip and break as told. A script is what one connection lives through."""

import contextlib
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

DRIP_SECONDS = 0.02
PATIENCE_SECONDS = 20  # for a client that never goes: then the test fails


@dataclass
class Target:
    """A running server; `requests` holds what each connection sent."""

    host: str
    port: int
    scheme: str
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)

    def url(self, path: str = "/", host: str | None = None) -> str:
        return f"{self.scheme}://{host or self.host}:{self.port}{path}"

    def place(self, host: str | None = None) -> str:
        return f"{host or self.host}:{self.port}"


class Client:
    """One accepted connection. Its request is read once, by whoever asks first."""

    def __init__(self, connection: socket.socket, target: Target) -> None:
        self.connection = connection
        self._target = target
        self._request: bytes | None = None

    def read_request(self) -> bytes:
        """Read the request's head and, where it has a Content-Length, its body."""
        if self._request is None:
            start, _, body = self._read_head().partition(b"\r\n\r\n")
            lengths = [line[15:] for line in start.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            while lengths and len(body) < int(lengths[0]):
                body += self.connection.recv(65536)
            self._request = start + b"\r\n\r\n" + body if start else b""
            if self._request:
                self._target.requests.append(self._request)
        return self._request

    def _read_head(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self.connection.recv(65536)
            if not chunk:
                return data
            data += chunk
        return data

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def receive(self) -> bytes:
        """Return what comes next."""
        data = self.connection.recv(65536)
        self._target.requests.append(data)
        return data

    def wait_for_end(self) -> None:
        """Read until the client closes."""
        while self.connection.recv(65536):
            pass

    def reset_at_end(self) -> None:
        """Let the connection's close be a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def wait_for_acknowledgement(self) -> None:
        # tcpi_unacked, 24 bytes into Linux's struct tcp_info.
        while struct.unpack_from("I", self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]:
            select.select([], [], [], DRIP_SECONDS)


Script = Callable[[Client], None]


@contextmanager
def serve(script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Target]:
    """Run `script` for each connection, in a thread of its own; with `tls`, after the handshake."""
    listener = socket.create_server((host, 0), backlog=256)
    target = Target(host, listener.getsockname()[1], "https" if tls else "http")
    threads: list[threading.Thread] = []

    def live(raw: socket.socket) -> None:
        raw.settimeout(PATIENCE_SECONDS)
        with raw, contextlib.suppress(OSError):  # the client may go at any moment
            connection = tls.wrap_socket(raw, server_side=True) if tls else raw
            with connection:
                script(Client(connection, target))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                target.connections += 1
                threads.append(threading.Thread(target=live, args=(raw,), daemon=True))
                threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield target
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join(PATIENCE_SECONDS)
        listener.close()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a connection outlived its client"


def head(status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(status: str = "200 OK", body: bytes = b"ok", **headers: str) -> Script:
    return send(head(status, Content_Length=str(len(body)), **headers) + body)


def redirect(location: str, status: str = "302 Found") -> Script:
    return answer(status, Location=location)


def send(data: bytes) -> Script:
    """Take the request, send `data`, and hold the connection until the client goes."""

    def script(client: Client) -> None:
        client.read_request()
        client.send(data)
        client.wait_for_end()

    return script


def send_at_once(data: bytes) -> Script:
    """Send `data` without waiting for a request."""

    def script(client: Client) -> None:
        client.send(data)
        client.wait_for_end()

    return script


def send_and_close(data: bytes) -> Script:
    def script(client: Client) -> None:
        client.read_request()
        client.send(data)

    return script


def stay_silent(client: Client) -> None:
    client.wait_for_end()


def send_forever(start: bytes, repeated: bytes) -> Script:
    def script(client: Client) -> NoReturn:
        client.read_request()
        client.send(start)
        while True:
            client.send(repeated)

    return script


def drip(start: bytes, repeated: bytes) -> Script:
    """Send a little again and again, until the client goes."""

    def script(client: Client) -> None:
        client.read_request()
        client.send(start)
        while not select.select([client.connection], [], [], DRIP_SECONDS)[0]:
            client.send(repeated)

    return script


def reset_after(start: bytes) -> Script:
    """Reset the connection as soon as the client has `start`."""

    def script(client: Client) -> None:
        client.read_request()
        client.send(start)
        client.wait_for_acknowledgement()
        client.reset_at_end()

    return script


def by_path(scripts: dict[str, Script]) -> Script:
    def script(client: Client) -> None:
        scripts[client.read_request().split()[1].decode()](client)

    return script


def find_free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])

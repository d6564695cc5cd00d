"""An upstream that speaks below HTTP: a test says, byte for byte, what comes back on a connection, and when it ends."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Behaviour = Callable[[socket.socket], None]
FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"


@dataclass(slots=True)
class RawUpstream:
    """Reads one request of each connection, lets `behave` do what it likes with the connection, and closes it."""

    url: str
    behave: Behaviour
    request_lines: list[str] = field(default_factory=list)

    def serve(self, connection: socket.socket) -> None:
        """Take one connection."""
        with connection, suppress(OSError):  # the client may hang up at any moment
            request = _read_request(connection)
            if request:
                self.request_lines.append(request.partition(b"\r\n")[0].decode())
                self.behave(connection)


@contextmanager
def raw_upstream(behave: Behaviour) -> Iterator[RawUpstream]:
    """Serve for the length of a `with` block."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        upstream = RawUpstream(f"http://127.0.0.1:{listener.getsockname()[1]}", behave)
        threading.Thread(target=_accept, args=(listener, upstream), daemon=True).start()
        try:
            yield upstream
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()


def saying(*pieces: bytes) -> Behaviour:
    """Send these pieces and hang up."""

    def behave(connection: socket.socket) -> None:
        for piece in pieces:
            connection.sendall(piece)

    return behave


def dripping(head: bytes, drop: bytes, hung_up: threading.Event) -> Behaviour:
    """Send `head`, then `drop` every 10 ms until the client hangs up, and say that it did."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(head)
        try:
            while not hung_up.wait(0.01):
                connection.sendall(drop)
        except OSError:
            hung_up.set()

    return behave


def _accept(listener: socket.socket, upstream: RawUpstream) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=upstream.serve, args=(connection,), daemon=True).start()


def _read_request(connection: socket.socket) -> bytes:
    """Return one request, head and body; b"" where the client hung up before it was whole."""
    received = b""
    while True:
        head, ended, body = received.partition(b"\r\n\r\n")
        if ended:
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if len(body) >= (int(lengths[0].partition(b":")[2]) if lengths else 0):
                return received
        more = connection.recv(65536)
        if not more:
            return b""
        received += more

"""A name server on loopback, over UDP and TCP on one port, that answers, lies and is silent as told."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

# What one query is answered with: the bytes to send (none: over TCP, the end of it), or None to be silent.
Answer = Callable[[dns.message.Message], dns.message.Message | bytes | None]

TTL_SECONDS = 60


@dataclass
class NameServer:
    """A running name server; `asked` holds the questions, and over what they came."""

    port: int
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def serve_names(answer: Answer, over_tcp: Answer | None = None) -> Iterator[NameServer]:
    """Answer queries until the end; `over_tcp` where TCP is to be answered otherwise."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    server = NameServer(listener.getsockname()[1])
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", server.port))
    over = threading.Event()

    def reply(wire: bytes, protocol: str, how: Answer) -> bytes | None:
        query = dns.message.from_wire(wire)
        server.asked.append((query.question[0].to_text(), protocol))
        answered = how(query)
        return answered.to_wire() if isinstance(answered, dns.message.Message) else answered

    def answer_datagrams() -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, client = datagrams.recvfrom(4096)
                if over.is_set():
                    return
                if answered := reply(wire, "udp", answer):
                    datagrams.sendto(answered, client)

    def answer_connections() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    (length,) = struct.unpack("!H", connection.recv(2))
                    answered = reply(connection.recv(length), "tcp", over_tcp or answer)
                    if answered is None:
                        connection.recv(1)  # until the client goes
                    elif answered:
                        connection.sendall(struct.pack("!H", len(answered)) + answered)

    threads = [threading.Thread(target=each, daemon=True) for each in (answer_datagrams, answer_connections)]
    for thread in threads:
        thread.start()
    try:
        yield server
    finally:
        over.set()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", server.port))
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive(), "the name server does not end"
        listener.close()
        datagrams.close()


def records(*texts: str) -> Callable[[dns.message.Message], dns.message.Message]:
    """Answer with records, each as `example.com. MX 10 mail.example.com.`"""

    def answer(query: dns.message.Message) -> dns.message.Message:
        made = dns.message.make_response(query)
        for text in texts:
            name, kind, data = text.split(" ", 2)
            made.answer.append(dns.rrset.from_text(name, TTL_SECONDS, "IN", kind, data))
        return made

    return answer


def refuse(code: dns.rcode.Rcode) -> Answer:
    """Answer with a code alone."""

    def answer(query: dns.message.Message) -> dns.message.Message:
        made = dns.message.make_response(query)
        made.set_rcode(code)
        return made

    return answer


def truncate(query: dns.message.Message) -> dns.message.Message:
    """Say that the answer does not fit."""
    made = dns.message.make_response(query)
    made.flags |= dns.flags.TC
    return made


def stay_silent(_: dns.message.Message) -> None:
    """Answer nothing."""

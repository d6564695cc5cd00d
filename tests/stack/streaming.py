"""A client of the stream: what a browser does with Server-Sent Events, as far as tests need it, and can be cut off."""

import http.client
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from ports import free_port

from tests.stack.product import environment, eventually, process


@dataclass(frozen=True, slots=True)
class Heard:
    """One event as it came; `id` None where it had none."""

    id: str | None
    type: str
    data: Any


class SseClient:
    """Reads one stream. Raises TimeoutError where nothing comes for `timeout` seconds; ends where the server does."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        last_event_id: str | None = None,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        timeout: float = 10,
        receive_buffer: int | None = None,
    ) -> None:
        parts = urlsplit(url)
        self._socket = socket.socket()
        if receive_buffer:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(10)
        self._socket.connect((parts.hostname, parts.port))
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        connection.sock = self._socket
        sent = {"Accept": "text/event-stream", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if last_event_id:
            sent["Last-Event-ID"] = last_event_id
        connection.request("GET", f"/v1/events/stream{query}", headers=sent)
        self.answer = connection.getresponse()
        self._socket.settimeout(timeout)
        self.last_event_id = last_event_id
        self._pending = b""

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.answer.status

    def problem(self) -> Any:
        """Return the JSON of a refusal."""
        return json.loads(self.answer.read())

    def __iter__(self) -> Iterator[Heard]:
        """Yield what comes, heartbeats left out."""
        while (found := self.next()) is not None:
            yield found

    def next(self) -> Heard | None:
        """Return the next event, None at the end."""
        while True:
            frame, separator, rest = self._pending.partition(b"\n\n")
            if separator:
                self._pending = rest
                heard = self._read(frame)
                if heard is not None:
                    return heard
                continue
            piece = self.answer.read1(65536)
            if not piece:
                return None
            self._pending += piece

    def of_type(self, kind: str) -> Heard:
        """Return the next event of a type, whatever comes before."""
        return next(heard for heard in self if heard.type == kind)

    def cut(self) -> None:
        """Reset the connection, whatever is on its way."""
        if self._socket.fileno() < 0:
            return
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.answer.close()
        self._socket.close()

    def _read(self, frame: bytes) -> Heard | None:
        fields = dict(line.split(": ", 1) for line in frame.decode().split("\n") if not line.startswith(":"))
        self.last_event_id = fields.get("id", self.last_event_id)
        if "data" not in fields:
            return None
        return Heard(fields.get("id"), fields["event"], json.loads(fields["data"]))


@contextmanager
def running_streams(supabase: Any, folder: Path, **more: str) -> Iterator[str]:
    """Run a stream process until it is ready, and give its address."""
    port = free_port()
    with process("server.streams", environment(supabase, STREAMS_PORT=str(port), **more), folder / "streams.log") as it:
        url = f"http://127.0.0.1:{port}"

        def is_up() -> bool:
            assert it.poll() is None, (folder / "streams.log").read_text()
            try:
                return requests.get(f"{url}/readyz", timeout=5).status_code == 200
            except requests.ConnectionError:
                return False

        eventually(is_up, "the streams do not get ready", within_seconds=30)
        yield url

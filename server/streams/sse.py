"""The stream as Server-Sent Events (WHATWG HTML, 9.2)."""

import asyncio
import time
from typing import Any

from starlette.types import Receive, Scope, Send

from server.errors import MethodNotAllowed
from server.streams.asking import header_values, read_query, read_sender, resume_position
from server.streams.entrance import Entrance
from server.streams.following import Batch, Stream
from server.streams.hub import Ending, Hub, Reader

_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx: pass each piece on at once
]


class SseEndpoint:
    """Serves `GET /v1/events/stream`: an ASGI app, since a starlette response takes two more tasks a stream."""

    def __init__(self, hub: Hub, entrance: Entrance) -> None:
        self._hub = hub
        self._entrance = entrance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream. Refusals are raised, before the answer begins."""
        if scope["method"] != "GET":
            raise MethodNotAllowed
        query = read_query(scope)
        after = resume_position(header_values(scope, b"last-event-id"), query)
        visitor = await self._entrance.identify(
            header_values(scope, b"authorization"), read_sender(scope), scope["tocsin.request_id"]
        )
        scope["tocsin.principal_id"] = visitor.principal_id
        stream = Stream(self._hub, self._entrance, visitor, query, scope["tocsin.request_id"])
        try:
            await stream.open(after, time.time())
            leaving = asyncio.create_task(_notice_leaving(receive, stream.reader))
            try:
                await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
                async for batch in stream.batches():
                    await send({"type": "http.response.body", "body": frame(batch), "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                leaving.cancel()
        finally:
            stream.close()


async def _notice_leaving(receive: Receive, reader: Reader) -> None:
    message: Any = {}
    while message.get("type") != "http.disconnect":
        message = await receive()
    reader.end(Ending.LEFT)


def frame(batch: Batch) -> bytes:
    """Write a batch as it goes over the wire. JSON has no line breaks, so each message is one line of data.

    A heartbeat is a comment and an id alone: that moves the reader's Last-Event-ID, and dispatches no event.
    """
    if not batch.messages:
        return b": heartbeat\nid: %b\n\n" % batch.position.encode()
    return b"".join(
        b"%bevent: %b\ndata: %b\n\n"
        % (b"id: %b\n" % message.id.encode() if message.id is not None else b"", message.type.encode(), message.json)
        for message in batch.messages
    )

"""The stream over a WebSocket: the same messages, and a token in the first message, since browsers send no headers."""

import asyncio
import time
from typing import Any, Final

import orjson
from starlette.types import Receive, Scope, Send

from server.errors import AppError, Forbidden, Gone, InvalidInput, NotFound, RateLimited, Unauthenticated, Unavailable
from server.features.events.rules import Position
from server.features.events.schemas import StreamQuery
from server.http.parsing import parse_query
from server.streams.asking import header_values, read_query, read_sender
from server.streams.entrance import Entrance, Visitor
from server.streams.following import Batch, Stream
from server.streams.hub import Ending, Hub

FIRST_MESSAGE_SECONDS: Final = 10.0
_NO_FIRST_MESSAGE: Final = 4408
_CLOSE_CODES: Final[dict[Ending, int]] = {
    Ending.TOKEN_EXPIRED: 4401,
    Ending.TOKEN_REFUSED: 4401,
    Ending.NOT_UNDERSTOOD: 4400,
    Ending.OVERFLOW: 1013,
    Ending.RESTART: 1012,
}
_REFUSAL_CODES: Final[tuple[tuple[type[AppError], int], ...]] = (
    (Unauthenticated, 4401),
    (Forbidden, 4403),
    (NotFound, 4404),
    (Gone, 4410),
    (InvalidInput, 4400),
    (RateLimited, 1013),
    (Unavailable, 1013),
)


class _Left(Exception):
    """The client has gone before it said anything."""


class WebSocketEndpoint:
    """Serves the WebSocket on `/v1/events/stream`. `origins` are the web origins whose pages may open one."""

    def __init__(self, hub: Hub, entrance: Entrance, origins: frozenset[str]) -> None:
        self._hub = hub
        self._entrance = entrance
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream. What is wrong with the handshake is raised; what comes later closes with a code."""
        query = read_query(scope)
        origin = header_values(scope, b"origin")
        # A page's WebSocket carries no CORS: the server has to look.
        if origin and not self._origins.issuperset(origin):
            raise Forbidden("Pages of this origin may not connect.", code="origin_refused")
        await receive()  # the wish to connect
        await send({"type": "websocket.accept"})
        try:
            visitor, after = await self._come_in(scope, query, receive)
            await self._serve(scope, receive, send, visitor, query, after)
        except TimeoutError:
            await _close(send, _NO_FIRST_MESSAGE, "no_first_message")
        except AppError as error:
            code = next((code for kind, code in _REFUSAL_CODES if isinstance(error, kind)), 1011)
            await _close(send, code, error.code)
        except _Left:
            return

    async def _come_in(self, scope: Scope, query: StreamQuery, receive: Receive) -> tuple[Visitor, Position | None]:
        """Return who comes, from where: by the header, else by the first message."""
        if authorization := header_values(scope, b"authorization"):
            return await self._identify(authorization, scope), query.position
        async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
            message = await receive()
        if message["type"] != "websocket.receive":
            raise _Left
        said = _read_message(message)
        after = query.position
        if said.get("after") is not None:
            after = parse_query(StreamQuery, {"after": [said["after"]]}).position
        return await self._identify([f"Bearer {said['access_token']}"], scope), after

    async def _identify(self, authorization: list[str], scope: Scope) -> Visitor:
        return await self._entrance.identify(authorization, read_sender(scope), scope["tocsin.request_id"])

    async def _serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        visitor: Visitor,
        query: StreamQuery,
        after: Position | None,
    ) -> None:
        scope["tocsin.principal_id"] = visitor.principal_id
        stream = Stream(self._hub, self._entrance, visitor, query, scope["tocsin.request_id"])
        try:
            await stream.open(after, time.time())
            hearing = asyncio.create_task(self._hear(stream, receive, scope))
            try:
                async for batch in stream.batches():
                    for text in write(batch):
                        await send({"type": "websocket.send", "text": text})
            finally:
                hearing.cancel()
            if stream.reader.ending in _CLOSE_CODES:
                await _close(send, _CLOSE_CODES[stream.reader.ending], stream.reader.ending)
        finally:
            stream.close()

    async def _hear(self, stream: Stream, receive: Receive, scope: Scope) -> None:
        """Take fresh tokens, until the client leaves or says something else."""
        try:
            while True:
                message = await receive()
                if message["type"] != "websocket.receive":
                    stream.reader.end(Ending.LEFT)
                    return
                visitor = await self._identify([f"Bearer {_read_message(message)['access_token']}"], scope)
                if visitor.principal_id != stream.visitor.principal_id:
                    stream.reader.end(Ending.TOKEN_REFUSED)
                    return
                stream.renew(visitor, time.time())
        except (Unauthenticated, Forbidden):
            stream.reader.end(Ending.TOKEN_REFUSED)
        except InvalidInput:
            stream.reader.end(Ending.NOT_UNDERSTOOD)
        except AppError:  # the keys cannot be had: the old token still counts, and the client may try again
            stream.reader.end(Ending.RESTART)


def write(batch: Batch) -> list[str]:
    """Write a batch as messages. The heartbeat is the protocol's own ping."""
    return [
        f'{{"id":{"null" if message.id is None else _quoted(message.id)},"type":"{message.type}",'
        f'"data":{message.json.decode()}}}'
        for message in batch.messages
    ]


def _quoted(text: str) -> str:
    return f'"{text}"'


def _read_message(message: Any) -> dict[str, Any]:
    """Read what a client says: an object with an access token. Raises InvalidInput."""
    try:
        said = orjson.loads(message.get("text") or b"")
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict) or not {"access_token"} <= set(said) <= {"access_token", "after"}:
        raise InvalidInput(code="message_not_understood")
    if not all(isinstance(value, str) for value in said.values() if value is not None):
        raise InvalidInput(code="message_not_understood")
    return said


async def _close(send: Send, code: int, reason: str) -> None:
    await send({"type": "websocket.close", "code": code, "reason": reason})

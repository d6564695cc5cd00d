"""The course of one stream, whatever it is sent over: ready, what was missed, then what happens, until it ends."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import orjson

from server.errors import AppError, NotFound
from server.features.events.rules import Position
from server.features.events.schemas import StreamQuery
from server.streams.entrance import MISSED_AT_ONCE, Entrance, ReaderPage, Visitor
from server.streams.hub import Ending, Hub, Reader

HEARTBEAT_SECONDS: Final = 15.0
_LONGEST_TIMER_SECONDS: Final = 7 * 24 * 3600.0
log = logging.getLogger("tocsin.streams")

_FAREWELLS: Final = {
    Ending.TOKEN_EXPIRED: "The access token has run out. Go on with a fresh one.",
    Ending.TOKEN_REFUSED: "The access token is not valid or another user's, or the API key was revoked or changed.",
    Ending.NOT_UNDERSTOOD: "A message can be an access token, and nothing else.",
    Ending.OVERFLOW: "You read more slowly than things happen. Go on from the last id.",
    Ending.RESTART: "The server ends. Go on from the last id; another one answers.",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `id` None: it moves no position."""

    id: str | None
    type: str
    json: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be sent now; without messages it is a heartbeat. `position` is where the reader stands then."""

    messages: list[Message]
    position: str


class Stream:
    """One reader from the door to the farewell. `after` is the position from which they resume, None: the present."""

    def __init__(self, hub: Hub, entrance: Entrance, visitor: Visitor, query: StreamQuery, request_id: str) -> None:
        self._hub = hub
        self._entrance = entrance
        self._query = query
        self._request_id = request_id
        self._timer: asyncio.TimerHandle | None = None
        self._first: ReaderPage | None = None
        self.visitor = visitor
        self.reader = Reader(visitor.principal_id, str(query.org_id) if query.org_id else None)

    async def open(self, after: Position | None, now: float) -> None:
        """Take a place and read the reader's rights, with what they have missed where the hub does not hold it.

        Raises RateLimited, Unavailable, Gone, NotFound: there is no stream then. Whoever opens closes, whatever comes.
        """
        self._hub.admit(self.reader)
        self.renew(self.visitor, now)
        limit = 0 if after is not None and self._hub.covers(after) else MISSED_AT_ONCE
        page = await self._read(after, limit)
        if self.reader.org_id is not None and self.reader.org_id not in page.rights.roles:
            raise NotFound
        self.reader.adopt(page.rights)
        self.reader.reached = after if after is not None else page.position
        self._first = page

    def renew(self, visitor: Visitor, now: float) -> None:
        """Go on with another token of the same user; `now` is Unix seconds."""
        self.visitor = visitor
        if self._timer is not None:
            self._timer.cancel()
        seconds = min(max(visitor.expires_at - now, 0.0), _LONGEST_TIMER_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(seconds, self.reader.end, Ending.TOKEN_EXPIRED)

    def close(self) -> None:
        """Give everything back."""
        self._hub.leave(self.reader)
        if self._timer is not None:
            self._timer.cancel()

    async def batches(self) -> AsyncIterator[Batch]:
        """Yield what is to be sent, in order, until the stream ends; of a reader who has left nobody takes leave."""
        reader, page = self.reader, self._first
        assert page is not None, "a stream is opened first"
        self._first = None
        position = reader.reached.encode()
        yield Batch([Message(position, "ready", orjson.dumps({"position": position}))], position)
        while not self._hub.join(reader) and reader.ending is None:
            if page is None:
                page = await self._read_on()
            if page is not None:
                reader.reached = page.position
                if page.events and reader.ending is None:
                    yield Batch([Message(*event) for event in page.events], page.position.encode())
                page = None
        while reader.ending is None:
            if taken := reader.take():
                messages = [Message(told.id, told.type, json) for told, json in taken]
                yield Batch(messages, reader.reached.encode())
            elif not await reader.wait(HEARTBEAT_SECONDS):
                yield Batch([], max(reader.reached, self._hub.position or reader.reached).encode())
        if reader.ending in _FAREWELLS:
            detail = orjson.dumps({"detail": _FAREWELLS[reader.ending]})
            yield Batch([Message(None, reader.ending, detail)], reader.reached.encode())

    async def _read_on(self) -> ReaderPage | None:
        """Read the next page of what was missed; where that fails the reader resumes."""
        try:
            page = await self._read(self.reader.reached, MISSED_AT_ONCE)
        except AppError as error:
            log.warning("cannot catch up", extra={"request_id": self._request_id, "reason": error.reason})
            self.reader.end(Ending.RESTART)
            return None
        self.reader.adopt(page.rights)
        return page

    async def _read(self, after: Position | None, limit: int) -> ReaderPage:
        return await self._entrance.read_page(self.visitor, after, self._query, limit, self._request_id)

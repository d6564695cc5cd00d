"""A feed and a door that do as they are told, for the hub and the streams."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from server.errors import AppError, Unauthenticated
from server.features.events.rules import Change, KeyChange, Position, Rights, Snapshot
from server.features.events.schemas import StreamQuery
from server.features.orgs.rules import Role
from server.streams.entrance import Entrance, ReaderPage, Visitor
from server.streams.hub import BATCH_EVENTS, FeedPage, Hub, Reader, Told

ACME, OTHER = "6c1a0f5e-6b1e-4b6e-9d5a-0c3a0f5e6b1e", "0f0f0f0f-6b1e-4b6e-9d5a-0c3a0f5e6b1e"
ANA, BEN = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
START = Position(100, 0)


def row(
    seq: int, *, xid: int | None = None, org: str = ACME, kind: str = "monitor", subject: str = ANA
) -> dict[str, Any]:
    """Return an event as the database tells it; its xid is 100 and its sequence more, unless it says otherwise."""
    return {
        "xid": str(xid or 100 + seq),
        "seq": seq,
        "org_id": org,
        "occurred_at": "2026-01-01T00:00:00.000000Z",
        "actor_kind": "system",
        "actor_id": None,
        "type": f"{kind}.updated",
        "subject_kind": kind,
        "subject_id": subject,
        "after": {"id": subject, "org_id": org},
    }


def feed_page(
    *rows: dict[str, Any],
    changes: Sequence[Change] = (),
    key_changes: Sequence[KeyChange] = (),
    reached: int | None = None,
) -> FeedPage:
    """Return what a poll brings."""
    told = [Told(each) for each in rows]
    position = Position(reached, 0) if reached else told[-1].position if told else START
    return FeedPage(told, list(changes), list(key_changes), position, has_more=False)


def change(seq: int, role: Role | None, *, user: str = ANA, org: str = ACME) -> Change:
    """Return a change of a membership."""
    return Change(Position(100 + seq, seq), org, user, role)


def rights(user: str = ANA, role: Role | None = Role.VIEWER, *, xmin: int = 100) -> Rights:
    """Return what somebody may see, as a snapshot before everything that the tests write saw it."""
    return Rights(user, {ACME: role} if role else {}, Snapshot(xmin, xmin, frozenset()))


def started_hub(max_readers: int = 100) -> Hub:
    """Return a hub whose feed has begun."""
    hub = Hub(max_readers)
    hub.start_at(START)
    return hub


def joined(hub: Hub, user: str = ANA, role: Role | None = Role.VIEWER, *, at: Position = START) -> Reader:
    """Let somebody in who stands at a position."""
    reader = Reader(user, None)
    hub.admit(reader)
    reader.adopt(rights(user, role))
    reader.reached = at
    assert hub.join(reader)
    return reader


def taken(reader: Reader) -> list[int]:
    """Return the sequences of what a reader is to be sent, batch after batch."""
    seqs: list[int] = []
    while batch := reader.take():
        assert len(batch) <= BATCH_EVENTS
        seqs += [told.position.seq for told, _ in batch]
    return seqs


class FakeEntrance(Entrance):
    """Knows the tokens in `visitors`. `pages` are answered in turn, or raised; then nothing has happened."""

    def __init__(self, *pages: ReaderPage | AppError, role: Role | None = Role.VIEWER) -> None:
        self.visitors = {"a.n.a": Visitor(ANA, "a.n.a", 2**40), "b.e.n": Visitor(BEN, "b.e.n", 2**40)}
        self.pages = list(pages)
        self.role = role
        self.asked: list[tuple[Position | None, int]] = []
        self.between: Callable[[], None] = lambda: None

    async def identify(self, authorization: Sequence[str], sender: dict[str, str], request_id: str) -> Visitor:
        for given in authorization:
            if given.removeprefix("Bearer ") in self.visitors:
                return self.visitors[given.removeprefix("Bearer ")]
        raise Unauthenticated

    async def read_page(
        self, visitor: Visitor, after: Position | None, query: StreamQuery, limit: int, request_id: str
    ) -> ReaderPage:
        self.asked.append((after, limit))
        await asyncio.sleep(0)
        self.between()
        answer = self.pages.pop(0) if self.pages else missed(at=after or START, role=self.role)
        if isinstance(answer, AppError):
            raise answer
        return answer


def missed(*seqs: int, at: Position, role: Role | None = Role.VIEWER) -> ReaderPage:
    """Return a page of what somebody has missed."""
    events = [(Position(100 + seq, seq).encode(), "monitor.updated", b'{"seq":%d}' % seq) for seq in seqs]
    return ReaderPage(events, rights(role=role), at)


class AsgiClient:
    """Speaks ASGI with an app: what it is told goes in, what it sends comes out."""

    def __init__(
        self, app: Any, *, websocket: bool = False, query: str = "", headers: dict[str, str] | None = None
    ) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        kind = "websocket" if websocket else "http"
        if websocket:
            self.incoming.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": kind,
            "path": "/v1/events/stream",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "extensions": {"websocket.http.response": {}},
            **({} if websocket else {"method": "GET"}),
        }
        self.task = asyncio.create_task(app(scope, self.incoming.get, self.sent.put))

    async def next(self) -> dict[str, Any]:
        """Return what the app sends next."""
        async with asyncio.timeout(10):
            return await self.sent.get()

    async def until(self, kind: str) -> dict[str, Any]:
        """Return the next message of a type."""
        for _ in itertools.count():
            message = await self.next()
            if message["type"] == kind:
                return message
        raise AssertionError

    async def done(self) -> None:
        """Wait for the app to end."""
        async with asyncio.timeout(10):
            await self.task

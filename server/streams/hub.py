"""Who listens, and what they are told: one feed in, to each reader what they may see of it.

Everything here happens on the event loop, and nothing waits, but for a reader who has nothing to be told. So a reader
who joins misses nothing: what the hub has taken is in its ring, what it has not yet taken it will offer.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

from server.errors import RateLimited, Unavailable
from server.features.events.rules import Change, KeyChange, Position, Rights, after_change, may_see
from server.features.events.schemas import depends_on_role, position_of, wire_event

RING_EVENTS: Final = 2_000
# More than a ring: who joins takes at most that over, and has as much again before they are too slow.
QUEUE_EVENTS: Final = 4_000
BATCH_EVENTS: Final = 200
MAX_STREAMS_PER_PRINCIPAL: Final = 20


class Ending(StrEnum):
    """Why a stream ends. All but LEFT are told to the reader, who resumes."""

    LEFT = "left"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105  no token
    TOKEN_REFUSED = "token_refused"  # noqa: S105  no token
    NOT_UNDERSTOOD = "not_understood"
    OVERFLOW = "overflow"
    RESTART = "restart"


class Told:
    """One event, ready to be sent to anybody who may see it; it is written as JSON once, not once a reader."""

    __slots__ = ("_json", "_row", "id", "org_id", "position", "subject_id", "subject_kind", "type")

    def __init__(self, row: Mapping[str, Any]) -> None:
        self.position = position_of(row)
        self.id = self.position.encode()
        self.type: str = row["type"]
        self.org_id: str = row["org_id"]
        self.subject_kind: str = row["subject_kind"]
        self.subject_id: str = row["subject_id"]
        self._row = row if depends_on_role(self.subject_kind) else None
        self._json: dict[str | None, bytes] = {} if self._row else {None: orjson.dumps(wire_event(row, None))}

    def json(self, role: str | None) -> bytes:
        """Return the event as a reader of this role gets it."""
        if self._row is None:
            return self._json[None]
        if role not in self._json:
            self._json[role] = orjson.dumps(wire_event(self._row, role))
        return self._json[role]


@dataclass(frozen=True, slots=True)
class FeedPage:
    """What one poll has brought: events in order, all changes of memberships and keys, how far the feed has come."""

    events: list[Told]
    changes: list[Change]
    key_changes: list[KeyChange]
    position: Position
    has_more: bool


class Reader:
    """Somebody who listens. `reached` is how far they have been served; `org_id` None: to all that they may see.

    They follow the feed once they have caught up with it; until then nothing is offered to them.
    """

    def __init__(self, user_id: str, org_id: str | None) -> None:
        self.user_id = user_id
        self.org_id = org_id
        self.reached = Position(0, 0)
        self.rights: Rights | None = None
        self.ending: Ending | None = None
        self.follows = False
        self._changes: list[Change] = []
        self._key_changes: list[KeyChange] = []
        self._queue: deque[Told] = deque()
        self._waiter: asyncio.Future[bool] | None = None

    def adopt(self, rights: Rights) -> None:
        """Take rights that were read a moment ago, and what has changed since."""
        for change in self._changes:
            rights = after_change(rights, change)
        self.rights = rights
        for key_change in self._key_changes:
            self.note_key(key_change)

    def note(self, change: Change) -> None:
        """Take a change of a membership; it may come before the rights that it changes."""
        self._changes.append(change)
        if self.rights is not None:
            self.rights = after_change(self.rights, change)

    def note_key(self, change: KeyChange) -> None:
        """Take a change of the key that the reader came with: it ends the stream, unless their rights know of it."""
        if self.rights is None:
            self._key_changes.append(change)
        elif not self.rights.as_of.sees(change.position.xid):
            self.end(Ending.TOKEN_REFUSED)

    def orgs(self) -> Iterable[str]:
        """Return the organisations whose events they may see, and want to."""
        roles = self.rights.roles if self.rights is not None else {}
        return [org_id for org_id in roles if self.org_id in (None, org_id)]

    def offer(self, told: Told) -> None:
        """Put one event into the queue; whoever lets it grow too long is ended."""
        if not self.follows or self.ending is not None:
            return
        if told.position <= self.reached or self.org_id not in (None, told.org_id):
            return
        if len(self._queue) >= QUEUE_EVENTS:
            self.end(Ending.OVERFLOW)
            return
        self._queue.append(told)
        self._wake()

    def take(self) -> list[tuple[Told, bytes]]:
        """Return what is to be sent next, each event checked against the rights of this moment.

        Not more than a batch: while one is being sent, what waits is shared by all readers, what is sent is not.
        """
        rights = self.rights
        taken: list[tuple[Told, bytes]] = []
        assert rights is not None, "who has joined has rights"
        while self._queue and len(taken) < BATCH_EVENTS:
            told = self._queue.popleft()
            self.reached = told.position
            if may_see(rights, told.org_id, told.subject_kind, told.subject_id):
                taken.append((told, told.json(rights.roles.get(told.org_id))))
        return taken

    def end(self, ending: Ending) -> None:
        """End the stream: nothing more is sent but why. What was queued comes when the reader resumes."""
        if self.ending is None:
            self.ending = ending
            self._queue.clear()
            self._wake()

    async def wait(self, seconds: float) -> bool:
        """Return True as soon as there is something to do, False after `seconds` without."""
        if self._queue or self.ending is not None:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        timer = loop.call_later(seconds, _settle, waiter, False)
        try:
            return await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None:
            _settle(self._waiter, True)


def _settle(waiter: asyncio.Future[bool], has_come: bool) -> None:
    if not waiter.done():
        waiter.set_result(has_come)


class Hub:
    """All readers of this process, and the latest stretch of the feed."""

    def __init__(self, max_readers: int) -> None:
        self._max_readers = max_readers
        self._ring: deque[Told] = deque(maxlen=RING_EVENTS)
        self._begun = Position(0, 0)  # everything after it, up to `position`, is in the ring
        self._ahead: dict[int, Position] = {}  # changes that were taken before their place in the feed, by sequence
        self._by_user: dict[str, set[Reader]] = defaultdict(set)
        self._by_org: dict[str, set[Reader]] = defaultdict(set)
        self.position: Position | None = None
        self.readers: set[Reader] = set()
        self.wanted = asyncio.Event()  # somebody listens

    def start_at(self, position: Position) -> None:
        """Begin the feed here."""
        self._ring.clear()
        self._ahead.clear()
        self._begun = self.position = position

    def lose(self) -> None:
        """Give up the feed: it cannot be followed from where it stood. Every reader resumes by themselves."""
        self.position = None
        self.end_everybody(Ending.RESTART)

    def take(self, page: FeedPage) -> None:
        """Take what a poll has brought: first what changes who may see what, then the events."""
        for change in page.changes:
            if change.position.seq not in self._ahead:
                self._ahead[change.position.seq] = change.position
                for reader in tuple(self._by_user.get(change.user_id, ())):
                    self._change(reader, change)
        for key_change in page.key_changes:
            for reader in tuple(self._by_user.get(key_change.key_id, ())):
                reader.note_key(key_change)
        for told in page.events:
            if len(self._ring) == RING_EVENTS:
                self._begun = self._ring[0].position
            self._ring.append(told)
            for reader in tuple(self._listeners(told)):
                reader.offer(told)
        self.position = page.position
        self._ahead = {seq: position for seq, position in self._ahead.items() if position > page.position}

    def admit(self, reader: Reader) -> None:
        """Give somebody a place; they hear of changes of their memberships from now on.

        Raises RateLimited, Unavailable.
        """
        if len(self._by_user.get(reader.user_id, ())) >= MAX_STREAMS_PER_PRINCIPAL:
            raise RateLimited(
                f"You have {MAX_STREAMS_PER_PRINCIPAL} streams open already. Close one, or share one.",
                code="too_many_streams",
                retry_after_seconds=5,
            )
        if self.position is None or len(self.readers) >= self._max_readers:
            raise Unavailable("No stream can be opened at the moment.", code="no_streams_left", retry_after_seconds=5)
        self.readers.add(reader)
        self._by_user[reader.user_id].add(reader)
        self.wanted.set()

    def covers(self, after: Position) -> bool:
        """Tell whether the ring holds whatever followed `after`."""
        return self.position is not None and after >= self._begun

    def join(self, reader: Reader) -> bool:
        """Let a reader follow from where they have come to; False where that is too far back for the ring."""
        if not self.covers(reader.reached):
            return False
        reader.follows = True
        for org_id in reader.orgs():
            self._by_org[org_id].add(reader)
        missed = []
        for told in reversed(self._ring):
            if told.position <= reader.reached:
                break
            missed.append(told)
        for told in reversed(missed):
            if reader in self._listeners(told):
                reader.offer(told)
        return True

    def leave(self, reader: Reader) -> None:
        """Take the place back."""
        self.readers.discard(reader)
        _discard(self._by_user, reader.user_id, reader)
        for org_id in reader.orgs():
            _discard(self._by_org, org_id, reader)
        if not self.readers:
            self.wanted.clear()

    def end_everybody(self, ending: Ending) -> None:
        """End every stream."""
        for reader in tuple(self.readers):
            reader.end(ending)

    def _change(self, reader: Reader, change: Change) -> None:
        before = set(reader.orgs())
        reader.note(change)
        if reader.follows:
            for org_id in before.difference(reader.orgs()):
                _discard(self._by_org, org_id, reader)
            for org_id in reader.orgs():
                self._by_org[org_id].add(reader)

    def _listeners(self, told: Told) -> Iterable[Reader]:
        in_org = self._by_org.get(told.org_id, set())
        if told.subject_kind != "membership":
            return in_org
        return in_org | self._by_user.get(told.subject_id, set())


def _discard(index: dict[str, set[Reader]], key: str, reader: Reader) -> None:
    found = index.get(key)
    if found is not None:
        found.discard(reader)
        if not found:
            del index[key]

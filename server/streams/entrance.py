"""Who a reader is, what they may see, and what they have missed. The only calls that are made for one reader alone.

Whatever kinds of readers there come to be, `identify` and `read_page` are all that knows of them.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import orjson

from server.data.api_keys import ApiKey
from server.data.failures import read_answer
from server.data.privileged import Privileged
from server.errors import AppError, Unauthenticated
from server.features.events import store
from server.features.events.rules import Change, KeyChange, Position, Rights, read_snapshot
from server.features.events.schemas import StreamQuery, position_of, wire_event
from server.features.keys.rules import Scope
from server.features.orgs.rules import Role
from server.http.limits import Limiter
from server.http.principals import Door, Principal, principal_id, require_scope
from server.http.tokens import bearer_token
from server.streams.hub import FeedPage, Told

POLLED_AT_ONCE: Final = 500
MISSED_AT_ONCE: Final = 200
NEVER: Final = 253_402_300_799  # 9999-12-31T23:59:59Z: a key that does not run out


class InThread(Protocol):
    """Runs a blocking call beside the loop."""

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        """Return what the call returns, or raise what it raises."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody whose token or key is good until `expires_at`, Unix seconds."""

    principal_id: str
    token: str = field(repr=False)
    expires_at: int


@dataclass(frozen=True, slots=True)
class ReaderPage:
    """What a reader has missed, what they may see from now on, and how far that brings them."""

    events: list[tuple[str, str, bytes]]  # id, type, JSON
    rights: Rights
    position: Position


class Entrance:
    """Calls Supabase in the names of those who come in; each call takes a thread, never the loop."""

    def __init__(self, door: Door, limits: Limiter, in_thread: InThread) -> None:
        self._door = door
        self._limits = limits
        self._in_thread = in_thread

    async def identify(self, authorization: Sequence[str], sender: dict[str, str], request_id: str) -> Visitor:
        """Return who the one Authorization header speaks for; `sender` tells the address (`asking.read_sender`).

        Raises Unauthenticated, Forbidden, RateLimited, Unavailable.
        """
        visitor: Visitor = await self._in_thread(self._admit, authorization, dict(sender), request_id)
        return visitor

    def _admit(self, authorization: Sequence[str], environ: dict[str, Any], request_id: str) -> Visitor:
        try:
            token = bearer_token(authorization)
            principal = self._door.identify(token, request_id, partial(self._limits.refuse_spent, environ))
        except Unauthenticated:
            self._limits.admit_attempt(environ)
            raise
        self._limits.admit(environ, "connect", principal_id(principal))
        if isinstance(principal, ApiKey):
            require_scope(principal, Scope.READ)
        return Visitor(principal_id(principal), token, _end_of(principal))

    async def read_page(
        self, visitor: Visitor, after: Position | None, query: StreamQuery, limit: int, request_id: str
    ) -> ReaderPage:
        """Return what followed `after` (None: nothing, the present). Raises Gone and what the database raises."""
        database = self._door.open(visitor.token, request_id, None)
        raw = await self._in_thread(store.read_page, database, after, limit, query.org_id)
        return read_reader_page(visitor.principal_id, raw)


def _end_of(principal: Principal) -> int:
    if not isinstance(principal, ApiKey):
        return principal.expires_at
    return NEVER if principal.expires_at is None else int(principal.expires_at.timestamp())


def read_reader_page(user_id: str, raw: bytes) -> ReaderPage:
    """Read the answer of `read_events`. Raises AppError where it is none."""
    page = read_answer(raw)
    try:
        roles = {org_id: Role(role) for org_id, role in page["roles"].items()}
        events = []
        for row in page["events"]:
            event = wire_event(row, roles.get(row["org_id"]))
            events.append((event["id"], event["type"], orjson.dumps(event)))
        return ReaderPage(
            events, Rights(user_id, roles, read_snapshot(page["snapshot"])), position_of(page["position"])
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AppError(reason=f"upstream_shape: read_events {type(error).__name__} {error}") from None


def poll(privileged: Privileged, after: Position | None) -> FeedPage:
    """Return what has happened everywhere since `after` (None: nothing, the present). Raises Gone."""
    page = read_answer(privileged.stream_events(after, POLLED_AT_ONCE))
    try:
        return FeedPage(
            [Told(row) for row in page["events"]],
            [
                Change(position_of(row), row["org_id"], row["user_id"], Role(row["role"]) if row["role"] else None)
                for row in page["memberships"]
            ],
            [KeyChange(position_of(row), row["key_id"]) for row in page["keys"]],
            position_of(page["position"]),
            page["has_more"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AppError(reason=f"upstream_shape: stream_events {type(error).__name__} {error}") from None

"""Who is let in to listen, and how often they may knock."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from server.data.api_keys import ApiKey
from server.data.counters import MemoryCounters
from server.errors import Forbidden, RateLimited, Unauthenticated
from server.http.limits import Limiter
from server.http.principals import Door
from server.settings import Rate
from server.streams.entrance import NEVER, Entrance, Visitor
from tests.http.conftest import ORG_ID
from tests.streams.fakes import ANA

RATES = {"connect": Rate(2, 60), "attempts": Rate(1, 60)}
KEY = "tocsin_ABCDEFGH_" + "x" * 43


class FakeDoor(Door):
    def __init__(self, scopes: set[str]) -> None:
        object.__setattr__(self, "scopes", scopes)

    def identify(self, credential: str, request_id: str) -> ApiKey:
        if credential != KEY:
            raise Unauthenticated
        return ApiKey(ANA, UUID(ORG_ID), frozenset(self.scopes), None)  # type: ignore[attr-defined]


def entrance(scopes: set[str]) -> Entrance:
    async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    return Entrance(FakeDoor(scopes), Limiter(RATES, MemoryCounters(), lambda: 0.0, trusted_proxies=0), at_once)


def knock(door: Entrance, credential: str = KEY, address: str = "192.0.2.1") -> Visitor:
    scope = {"tocsin.request_id": "r", "client": (address, 1), "headers": []}
    knocking: Awaitable[Visitor] = door.identify([f"Bearer {credential}"], scope)
    return asyncio.run(_wait(knocking))


async def _wait(knocking: Awaitable[Visitor]) -> Visitor:
    return await knocking


def test_a_key_that_may_read_listens_until_it_is_revoked():
    assert knock(entrance({"read"})) == Visitor(ANA, KEY, NEVER)


def test_a_key_that_sees_nothing_hears_nothing():
    with pytest.raises(Forbidden) as refused:
        knock(entrance({"pings:write"}))
    assert refused.value.code == "scope_missing"


def test_whoever_connects_too_often_is_told_when_to_come_again():
    door = entrance({"read"})
    for _ in range(2):
        knock(door)
    with pytest.raises(RateLimited) as refused:
        knock(door, address="192.0.2.2")
    assert refused.value.retry_after_seconds is not None
    assert refused.value.members == {"policy": "connect"}


def test_an_address_that_guesses_is_told_to_stop():
    door = entrance({"read"})
    with pytest.raises(Unauthenticated):
        knock(door, "a.b.c")
    with pytest.raises(RateLimited):
        knock(door, "a.b.c")
    with pytest.raises(Unauthenticated):
        knock(door, "a.b.c", address="192.0.2.2")

"""Who comes in by the stream's door, how often, and what a guess costs."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from server.data.counters import MemoryCounters
from server.errors import AppError, RateLimited, Unauthenticated
from server.http.limits import Limiter
from server.http.principals import Principal
from server.http.tokens import Claims
from server.settings import RATE_LIMITS, Rate
from server.streams.asking import read_sender
from server.streams.entrance import Entrance
from tests.streams.fakes import ANA

LIMITS = {**RATE_LIMITS, "attempts": Rate(3, 60), "connect": Rate(2, 60)}
GOOD = Claims(ANA, None, False, "aal1", None, None, 2**40)


class FakeDoor:
    """Knows one token, and counts what looking for another costs."""

    def __init__(self) -> None:
        self.looks = 0

    def identify(self, credential: str, request_id: str, before_guess: Callable[[], None]) -> Principal:
        if credential == "a.n.a":
            return GOOD
        before_guess()
        self.looks += 1
        raise Unauthenticated


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


@pytest.fixture
def door() -> FakeDoor:
    return FakeDoor()


@pytest.fixture
def entrance(door: FakeDoor) -> Entrance:
    now = time.time()
    limits = Limiter(LIMITS, MemoryCounters(), lambda: now, 1)
    return Entrance(door, limits, at_once)  # type: ignore[arg-type]  # the fake


def knock(entrance: Entrance, token: str, address: str = "192.0.2.1") -> type[AppError] | str:
    try:
        sender = {"REMOTE_ADDR": address}
        return asyncio.run(entrance.identify([f"Bearer {token}"], sender, "r")).principal_id
    except AppError as error:
        return type(error)


def test_guesses_are_limited_by_address_and_then_cost_nothing(entrance: Entrance, door: FakeDoor):
    assert [knock(entrance, "g.u.e") for _ in range(6)] == [Unauthenticated] * 3 + [RateLimited] * 3
    assert door.looks == 3
    assert knock(entrance, "g.u.e", "192.0.2.2") == Unauthenticated, "somebody else"
    assert knock(entrance, "a.n.a") == ANA, "a good token from there"


def test_somebody_opens_as_many_streams_a_minute_as_the_limit_says(entrance: Entrance):
    assert [knock(entrance, "a.n.a") for _ in range(3)] == [ANA, ANA, RateLimited]


def test_the_sender_is_told_as_it_is_in_wsgi():
    scope = {"client": ("10.0.0.1", 4711), "headers": [(b"x-forwarded-for", b"a"), (b"x-forwarded-for", b"b, c")]}
    assert read_sender(scope) == {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "a,b, c"}
    assert read_sender({"client": None, "headers": []}) == {}

"""The loop that lets held alerts go: it asks again and again, whatever becomes of the database meanwhile."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from server.data.privileged import Privileged
from server.errors import AppError, Unavailable
from server.worker import releasing
from server.worker.releasing import Releasing
from server.worker.store import WorkerStore
from tests.worker.fakes import in_thread, until


class Holding:
    """A database that holds some alerts; `refusals` are raised by the calls, in turn."""

    def __init__(self, held: int, refusals: list[AppError]) -> None:
        self.held = held
        self.refusals = refusals
        self.calls = 0

    def release_alerts(self) -> bytes:
        self.calls += 1
        if self.refusals:
            raise self.refusals.pop(0)
        released = min(self.held, 1)
        self.held -= released
        return f'{{"released": {released}}}'.encode()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries; what is tried, and how often, stays."""
    monkeypatch.setattr(releasing, "POLL_SECONDS", 0.01)


def release(database: Holding, until_so: Callable[[], bool]) -> None:
    """Release until something is so, then stop."""

    async def scene() -> None:
        stopping = asyncio.Event()
        subject = Releasing(WorkerStore(cast("Privileged", database), "test"), in_thread)
        work = asyncio.create_task(subject.release(stopping))
        await until(until_so)
        stopping.set()
        async with asyncio.timeout(20):
            await work

    asyncio.run(scene())


def test_alerts_are_released_until_none_is_held_and_it_goes_on_asking():
    database = Holding(3, [])
    release(database, lambda: database.calls > 5)
    assert database.held == 0


def test_a_database_that_is_away_is_asked_again():
    database = Holding(1, [Unavailable(reason="away") for _ in range(3)])
    release(database, lambda: database.held == 0)
    assert database.calls >= 4

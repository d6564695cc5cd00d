"""Chores: all are done, piece by piece, whatever becomes of one of them."""

import asyncio
from typing import cast

import pytest

from server.data.privileged import Privileged
from server.errors import Unavailable
from server.worker.upkeep import ROWS_PRUNED_AT_ONCE, Chore, Chores, Upkeep
from tests.worker.fakes import in_thread, until


class FullLog:
    """A log with this many events past their retention."""

    def __init__(self, past: int) -> None:
        self.past = past
        self.calls = 0

    def prune_events(self, keep_days: int, max_events: int) -> bytes:
        self.calls += 1
        pruned = min(self.past, max_events)
        self.past -= pruned
        return str(pruned).encode()


def keep(*chores: Chore, done: list[str], as_long_as_missing: str) -> None:
    """Do chores until one has been done."""

    async def scene() -> None:
        stopping = asyncio.Event()
        keeping = asyncio.create_task(Upkeep(chores, in_thread).keep(stopping))
        await until(lambda: as_long_as_missing in done)
        stopping.set()
        async with asyncio.timeout(20):
            await keeping

    asyncio.run(scene())


def test_events_are_pruned_a_piece_at_a_time_until_none_is_left():
    log, done = FullLog(past=2 * ROWS_PRUNED_AT_ONCE + 1), list[str]()
    step = Chores(cast("Privileged", log)).prune_events

    def prune() -> bool:
        finished = step()
        done.extend(["pruned"] * finished)
        return finished

    keep(Chore("prune events", 3600, prune), done=done, as_long_as_missing="pruned")
    assert (log.past, log.calls) == (0, 3)


@pytest.mark.parametrize("error", [Unavailable(reason="away"), ZeroDivisionError()])
def test_a_chore_that_fails_costs_no_other_one_and_has_its_next_turn(
    caplog: pytest.LogCaptureFixture, error: Exception
):
    done, tries = list[str](), list[int]()

    def fail_at_first() -> bool:
        tries.append(1)
        if len(tries) < 3:
            raise error
        done.append("third")
        return True

    def succeed() -> bool:
        done.append("other")
        return True

    keep(Chore("mend", 0.01, fail_at_first), Chore("rest", 3600, succeed), done=done, as_long_as_missing="third")
    assert done == ["other", "third"]
    assert caplog.messages == ["cannot mend"] * 2

"""The worker's store: what takes more than one call."""

from typing import cast

from server.data.privileged import Privileged
from server.worker.store import PRUNED_AT_ONCE, WorkerStore


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


def test_events_are_pruned_a_piece_at_a_time_until_none_is_left():
    log = FullLog(past=2 * PRUNED_AT_ONCE + 1)
    WorkerStore(cast("Privileged", log), "test").prune_events(90)
    assert (log.past, log.calls) == (0, 3)

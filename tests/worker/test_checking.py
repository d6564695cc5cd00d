"""Checks from due to recorded, over a database that fails as told."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson
import pytest

from server.data.privileged import Privileged
from server.errors import (
    AppError,
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from server.worker import checking
from server.worker.checking import MAX_BATCH, MAX_CLAIM, MAX_IN_FLIGHT, Checking
from server.worker.clock import DatabaseClock
from server.worker.references import References
from server.worker.store import WorkerStore
from tests.worker.fakes import NOW, FakeProber, FakeStore, in_thread, make_check, until


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries; what is tried, and how often, stays."""
    for name in ("POLL_SECONDS", "RETRY_SECONDS", "BATCH_WINDOW_SECONDS"):
        monkeypatch.setattr(checking, name, 0.01)


class Run:
    """A running Checking, and the levers to stop it."""

    def __init__(self, store: FakeStore, prober: FakeProber, references: References | None = None) -> None:
        self.stopping = asyncio.Event()
        self._stopped_probing = asyncio.Event()
        subject = Checking(
            store, prober, references or References((), time.monotonic), DatabaseClock(lambda: 0.0), in_thread
        )
        self.probing = asyncio.create_task(self._probe(subject))
        self.recording = asyncio.create_task(subject.record_results(self._stopped_probing))

    async def _probe(self, subject: Checking) -> None:
        await subject.claim_and_probe(self.stopping)
        self._stopped_probing.set()

    async def end(self) -> None:
        self.stopping.set()
        async with asyncio.timeout(20):
            await asyncio.gather(self.probing, self.recording)


@asynccontextmanager
async def running(store: FakeStore, prober: FakeProber) -> AsyncIterator[Run]:
    run = Run(store, prober)
    yield run
    await run.end()


def test_every_check_that_is_due_is_recorded_once():
    async def scene() -> None:
        store = FakeStore(due=450)
        due = {check.monitor_id for check in store.due}
        async with running(store, FakeProber()):
            await until(lambda: len(store.recorded) == 450)
        assert set(store.recorded) == due
        assert max(store.batches) <= MAX_BATCH
        assert len(store.batches) < 450, "results are written together"

    asyncio.run(scene())


def test_claims_never_exceed_the_room():
    async def scene() -> None:
        store, prober = FakeStore(due=500), FakeProber(held=True)
        async with running(store, prober):
            await until(lambda: prober.running == MAX_IN_FLIGHT)
            await asyncio.sleep(0.05)  # time in which a greedy worker would claim more
            assert prober.most_running == MAX_IN_FLIGHT
            assert len(store.due) == 500 - MAX_IN_FLIGHT, "what cannot start now is left to others"
            prober.let_go.set()
            await until(lambda: len(store.recorded) == 500)
        assert max(store.asked_for) <= MAX_CLAIM
        assert prober.most_running <= MAX_IN_FLIGHT

    asyncio.run(scene())


@pytest.mark.parametrize("error", [Unavailable, TimedOut, Unauthenticated, Forbidden, NotFound])
def test_while_the_database_is_away_results_wait_and_none_is_lost(error: type[AppError]):
    async def scene() -> None:
        store = FakeStore(due=20)
        store.refusals = [error(reason="away") for _ in range(7)]
        async with running(store, FakeProber()):
            await until(lambda: len(store.recorded) == 20)
        assert len(set(store.recorded)) == 20
        assert store.refusals == []

    asyncio.run(scene())


def test_what_was_not_claimed_is_claimed_when_the_database_is_back():
    async def scene() -> None:
        store = FakeStore(due=3)
        store.claim_refusals = [Unavailable(reason="away"), Forbidden(reason="wrong key")]
        async with running(store, FakeProber()):
            await until(lambda: len(store.recorded) == 3)

    asyncio.run(scene())


@pytest.mark.parametrize("error", [InvalidInput, Conflict, AppError])
def test_a_result_that_the_database_refuses_costs_no_other_one(error: type[AppError]):
    async def scene() -> None:
        store = FakeStore(due=12)
        poisoned, *others = [check.monitor_id for check in store.due]
        store.poison = {poisoned: error(reason="not acceptable")}
        async with running(store, FakeProber()):
            await until(lambda: len(store.recorded) == 11)
        assert set(store.recorded) == set(others)

    asyncio.run(scene())


def test_a_conflict_that_passes_costs_nothing():
    async def scene() -> None:
        store = FakeStore(due=1)
        store.refusals = [Conflict(reason="40P01") for _ in range(3)]
        async with running(store, FakeProber()):
            await until(lambda: len(store.recorded) == 1)

    asyncio.run(scene())


def test_stopping_finishes_what_runs_and_claims_no_more():
    async def scene() -> None:
        store, prober = FakeStore(due=5), FakeProber(held=True)
        run = Run(store, prober)
        await until(lambda: prober.running == 5)
        run.stopping.set()
        store.due = [make_check()]
        await asyncio.sleep(0.05)  # time in which a worker that does not listen would claim it
        assert len(store.due) == 1
        assert not run.recording.done()
        prober.let_go.set()
        await run.end()
        assert len(store.recorded) == 5

    asyncio.run(scene())


def test_stopping_waits_for_results_that_cannot_be_written_yet():
    async def scene() -> None:
        store = FakeStore(due=2)
        store.refusals = [Unavailable(reason="away") for _ in range(10)]
        run = Run(store, FakeProber())
        await until(lambda: store.attempts > 0)
        await run.end()
        assert len(store.recorded) == 2

    asyncio.run(scene())


def test_a_check_that_breaks_the_probe_itself_stops_nothing(caplog: pytest.LogCaptureFixture):
    async def scene() -> None:
        store, prober = FakeStore(due=3), FakeProber()
        store.due.append(make_check(target="http://odd.example.com/"))
        prober.breaks_at = {"http://odd.example.com/"}
        async with running(store, prober):
            await until(lambda: len(store.recorded) == 3)

    asyncio.run(scene())
    assert "a check could not be run" in caplog.text


def test_what_is_recorded_of_a_failure_names_cause_streak_and_next_check():
    async def scene() -> dict[str, Any]:
        store = FakeStore()
        since = "2026-03-01T11:59:45Z"
        store.due = [
            make_check(target="http://x/down", state="pending", ledger_state="up", failures=1, streak_since=since)
        ]
        async with running(store, FakeProber()):
            await until(lambda: bool(store.seen))
        return store.written(store.seen[0])

    item = asyncio.run(scene())
    assert (item["outcome"], item["error_kind"], item["state"], item["failures"]) == ("down", "connect", "down", 2)
    assert item["streak_since"] == item["state_since"] == item["incident"]["started_at"] == "2026-03-01T11:59:45Z"
    assert item["incident"]["evidence"]["failures_in_a_row"] == 2
    assert [(line["state"], line["at"]) for line in item["transitions"]] == [("down", "2026-03-01T11:59:45Z")]
    assert item["next_due_at"] > NOW.isoformat()
    orjson.dumps(item)


def test_a_check_that_this_worker_cannot_read_says_nothing_of_its_target():
    async def scene() -> dict[str, Any]:
        store = FakeStore()
        store.due = [make_check(kind="telepathy", fail_threshold=1, state="up", ledger_state="up")]
        async with running(store, FakeProber()):
            await until(lambda: bool(store.seen))
        return store.written(store.seen[0])

    item = asyncio.run(scene())
    assert (item["outcome"], item["error_kind"], item["state"], item["incident"]) == (
        *("unknown", "unsupported", "unknown"),
        None,
    )


def test_a_failure_without_a_network_of_our_own_is_unknown_and_with_one_is_down():
    async def scene(references: References) -> Any:
        store = FakeStore()
        store.due = [make_check(target="http://x/down", fail_threshold=1, state="up", ledger_state="up")]
        run = Run(store, FakeProber(), references)
        await until(lambda: bool(store.seen))
        await run.end()
        return store.written(store.seen[0])

    async def with_references(*, of_which_open: int) -> Any:
        """Have two references, of which so many can be connected to."""
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            addresses = [("127.0.0.1", 1), ("127.0.0.1", port if of_which_open else 1)]
            return await scene(References(addresses, time.monotonic))

    gone = asyncio.run(with_references(of_which_open=0))
    assert (gone["outcome"], gone["error_kind"], gone["state"]) == ("unknown", "no_network", "unknown")
    assert [line["state"] for line in gone["transitions"]] == ["unknown"]
    there = asyncio.run(with_references(of_which_open=1))
    assert (there["outcome"], there["error_kind"], there["state"]) == ("down", "connect", "down")


def test_what_another_region_has_overtaken_is_judged_anew_with_what_it_said():
    async def scene() -> FakeStore:
        store = FakeStore(due=3)
        store.stale = {store.due[1].monitor_id: True}
        async with running(store, FakeProber()):
            await until(lambda: len(store.recorded) == 3)
        return store

    store = asyncio.run(scene())
    assert len(set(store.recorded)) == 3
    assert store.batches == [3, 1]


class Speaking:
    """Answers every privileged call with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self._answer


@pytest.mark.parametrize("answer", [b"<html>Bad gateway</html>", b"", b"null", b'{"now": "2026-03-01T', b"[]"])
def test_an_answer_that_is_none_counts_as_no_answer(answer: bytes):
    store = WorkerStore(cast("Privileged", Speaking(answer)), "test")
    for call in (
        lambda: store.claim_checks(1, 1),
        lambda: store.record([]),
        lambda: store.claim_deliveries(1, 1),
        lambda: store.settle([]),
    ):
        with pytest.raises(Unavailable):
            call()


def test_a_claim_that_cannot_be_read_costs_no_other_one(caplog: pytest.LogCaptureFixture):
    good = make_check().model_dump(mode="json")
    odd = good | {"assertions": None}
    answer = orjson.dumps({"now": "2026-03-01T12:00:00Z", "checks": [odd, good]})
    claims = WorkerStore(cast("Privileged", Speaking(answer)), "test").claim_checks(2, 20)
    assert [str(check.monitor_id) for check in claims.checks] == [good["monitor_id"]]
    assert "a claim cannot be read" in caplog.text

"""Deliveries from the outbox to the receiver, over a database and receivers that fail as told."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import orjson
import pytest

from server.errors import Unavailable
from server.worker import delivering
from server.worker.delivering import MAX_SENDS, Delivering, settle
from server.worker.delivery.outcome import MAX_ATTEMPTS, Delivered, Failed
from tests.worker.fakes import NOW, FakeSender, FakeStore, in_thread, make_delivery, until

TRY_AGAIN = Failed(permanent=False, status_code=500, detail="answered 500")
FOR_GOOD = Failed(permanent=True, status_code=410, detail="answered 410")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries; what is tried, and how often, stays."""
    for name in ("POLL_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(delivering, name, 0.01)


def deliver(store: FakeStore, sender: Any, until_so: Callable[[], bool]) -> None:
    """Run deliveries until something is so, then stop them."""

    async def scene() -> None:
        stopping = asyncio.Event()
        subject = Delivering(store, sender, lambda: 0.5, in_thread)
        work = asyncio.create_task(subject.claim_and_send(stopping))
        await until(until_so)
        stopping.set()
        async with asyncio.timeout(20):
            await work

    asyncio.run(scene())


def test_every_message_is_sent_under_its_id_and_settled():
    store, sender = FakeStore(messages=40), FakeSender()
    expected = {str(message.id): orjson.dumps(message.payload) for message in store.messages}
    deliver(store, sender, lambda: len(store.settled) == 40)
    assert dict(sender.sent) == expected
    assert {(each.outcome, each.status_code) for each in store.settled} == {("delivered", 200)}


def test_a_message_is_signed_at_the_databases_time():
    store, sender = FakeStore(messages=1), FakeSender()
    store.messages = [make_delivery(claimed_at=NOW - timedelta(hours=1))]
    deliver(store, sender, lambda: len(store.settled) == 1)
    assert sender.signed_at == [NOW - timedelta(hours=1)]


def test_claims_never_exceed_the_places_for_sending():
    store = FakeStore(messages=60)
    deliver(store, FakeSender(), lambda: len(store.settled) == 60)
    assert max(store.asked_for) <= MAX_SENDS


def test_a_database_that_is_away_is_asked_again():
    store = FakeStore(messages=2)
    store.claim_refusals = [Unavailable(reason="away") for _ in range(3)]
    deliver(store, FakeSender(), lambda: len(store.settled) == 2)


def test_a_settlement_that_cannot_be_written_is_left_to_the_lease(caplog: pytest.LogCaptureFixture):
    store, sender = FakeStore(messages=2), FakeSender()
    store.refusals = [Unavailable(reason="away")]
    deliver(store, sender, lambda: len(sender.sent) == 2 and len(store.settled) == 1)
    assert "cannot settle a delivery" in caplog.text


def test_stopping_finishes_the_sends_that_run():
    store = FakeStore(messages=3)
    let_go, started = threading.Event(), threading.Semaphore(0)

    class Slow(FakeSender):
        def send(self, *given: Any, **more: Any) -> Delivered | Failed:
            started.release()
            assert let_go.wait(20)
            return super().send(*given, **more)

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(8) as threads:
            stopping = asyncio.Event()
            subject = Delivering(
                store, Slow(), lambda: 0.5, lambda call, *more: loop.run_in_executor(threads, call, *more)
            )
            work = asyncio.create_task(subject.claim_and_send(stopping))
            for _ in range(3):
                await asyncio.to_thread(started.acquire)
            stopping.set()
            store.messages = [make_delivery()]
            await asyncio.sleep(0.05)  # time in which a worker that does not listen would claim it
            assert not work.done()
            let_go.set()
            async with asyncio.timeout(20):
                await work

    asyncio.run(scene())
    assert len(store.settled) == 3
    assert len(store.messages) == 1


@pytest.mark.parametrize(
    ("attempts", "outcome", "expected"),
    [
        (1, Delivered(204), ("delivered", 204, None, None)),
        (MAX_ATTEMPTS, Delivered(200), ("delivered", 200, None, None)),
        (1, TRY_AGAIN, ("failed", 500, "answered 500", 7.5)),
        (2, TRY_AGAIN, ("failed", 500, "answered 500", 15)),
        (MAX_ATTEMPTS - 1, TRY_AGAIN, ("failed", 500, "answered 500", 2700)),
        (MAX_ATTEMPTS, TRY_AGAIN, ("dead", 500, "answered 500", None)),
        (MAX_ATTEMPTS + 3, TRY_AGAIN, ("dead", 500, "answered 500", None)),
        (1, FOR_GOOD, ("dead", 410, "answered 410", None)),
        (1, Failed(False, 429, "answered 429", retry_after_seconds=100), ("failed", 429, "answered 429", 100)),
        (9, Failed(False, 429, "answered 429", retry_after_seconds=1), ("failed", 429, "answered 429", 1920)),
        (1, Failed(False, None, "no answer in time"), ("failed", None, "no answer in time", 7.5)),
    ],
)
def test_what_an_attempt_means(attempts: int, outcome: Delivered | Failed, expected: tuple[object, ...]):
    settlement = settle(make_delivery(attempts=attempts), outcome, 0.5)
    assert (settlement.outcome, settlement.status_code, settlement.error, settlement.retry_in_seconds) == expected

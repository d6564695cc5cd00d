"""The loop that judges heartbeats, over a database that does as it is told."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from server.data.privileged import Privileged
from server.errors import AppError, Unavailable
from server.features.monitors.rules import State
from server.features.pings.rules import Judgement
from server.worker import beating
from server.worker.beating import MAX_HEARTBEATS, Beating
from server.worker.heartbeats import Beats, ClaimedHeartbeat, HeartbeatStore, judgement_item
from tests.worker.fakes import NOW, in_thread, until


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POLL_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(beating, name, 0.01)


class FakeHeartbeats(HeartbeatStore):
    """Holds what is due, keeps what was written. `refusals` are raised by claims, in turn."""

    def __init__(self, *due: ClaimedHeartbeat) -> None:
        super().__init__(cast("Privileged", None))
        self.due = list(due)
        self.refusals: list[AppError] = []
        self.recorded: list[UUID] = []
        self.claims = 0
        self.times = [NOW]  # what each claim says it is; the last one from then on
        self.moves: list[tuple[datetime, timedelta]] = []
        self.refused_moves: list[AppError] = []

    def claim(self, max_heartbeats: int, lease_seconds: int, hesitate_seconds: int) -> Beats:
        self.claims += 1
        if self.refusals:
            raise self.refusals.pop(0)
        claimed, self.due = self.due[:max_heartbeats], self.due[max_heartbeats:]
        return Beats(self.times.pop(0) if len(self.times) > 1 else self.times[0], claimed)

    def move(self, noticed_at: datetime, leap: timedelta) -> bool:
        self.moves.append((noticed_at, leap))
        if self.refused_moves:
            raise self.refused_moves.pop(0)
        return True

    def record(self, judged: list[tuple[ClaimedHeartbeat, Judgement]]) -> None:
        self.recorded += [claimed.monitor_id for claimed, _ in judged]


def make_claim(**more: Any) -> ClaimedHeartbeat:
    """Return the claim of a heartbeat that has never been heard of."""
    return ClaimedHeartbeat.model_validate(
        {
            **dict.fromkeys(("last_ping_at", "last_success_at", "last_duration_ms", "started_at", "started_rid")),
            "monitor_id": uuid4(),
            "lease_token": uuid4(),
            "options": {"period_seconds": 3600, "grace_seconds": 600},
            "paused": False,
            "state": "new",
            "state_since": NOW - timedelta(days=1),
            "n": 0,
            "judged_n": 0,
            "leapt_seconds": 0,
            "schedule_since": NOW - timedelta(days=1),
            "pings": [],
            **more,
        }
    )


def make_ping(n: int, kind: str = "success", minutes_ago: float = 0, **more: Any) -> dict[str, Any]:
    at = NOW - timedelta(minutes=minutes_ago)
    return {"n": n, "received_at": at, "kind": kind, "exit_status": None, "rid": None, "duration_ms": None, **more}


def beat(store: FakeHeartbeats, until_so: Callable[[], bool]) -> None:
    """Judge until something is so, then stop."""

    async def scene() -> None:
        stopping = asyncio.Event()
        work = asyncio.create_task(Beating(store, in_thread, lambda: 0.0).claim_and_judge(stopping))
        await until(until_so)
        stopping.set()
        async with asyncio.timeout(20):
            await work

    asyncio.run(scene())


def test_what_is_due_is_judged_and_recorded_however_much_it_is():
    due = [make_claim() for _ in range(2 * MAX_HEARTBEATS + 1)]
    store = FakeHeartbeats(*due)
    beat(store, lambda: len(store.recorded) == len(due))
    assert store.recorded == [each.monitor_id for each in due]


def test_a_database_that_is_away_is_asked_again():
    store = FakeHeartbeats(make_claim())
    store.refusals = [Unavailable(), Unavailable()]
    beat(store, lambda: len(store.recorded) == 1)
    assert store.claims >= 3


def test_a_heartbeat_that_makes_no_sense_keeps_no_other_waiting():
    senseless, good = make_claim(options={"cron": "never"}), make_claim()
    store = FakeHeartbeats(senseless, good)
    beat(store, lambda: bool(store.recorded))
    assert store.recorded == [good.monitor_id]


def test_what_was_claimed_as_the_clock_leapt_is_not_judged_and_the_leap_is_told_once():
    store = FakeHeartbeats(*(make_claim() for _ in range(MAX_HEARTBEATS + 1)))
    store.times = [NOW, NOW + timedelta(hours=2)]
    beat(store, lambda: store.claims >= 4)
    assert len(store.recorded) == MAX_HEARTBEATS, "those of the first claim alone"
    assert store.moves == [(NOW + timedelta(hours=2), timedelta(hours=2))]


def test_a_leap_that_could_not_be_told_is_told_again():
    store = FakeHeartbeats()
    store.times = [NOW, NOW + timedelta(hours=1)]
    store.refused_moves = [Unavailable()]
    beat(store, lambda: len(store.moves) == 2 and store.claims >= 4)
    assert store.moves == [(NOW + timedelta(hours=1), timedelta(hours=1))] * 2


def test_of_more_pings_than_were_told_the_last_one_told_is_the_present():
    claim = make_claim(n=2, pings=[make_ping(1, minutes_ago=600)])
    judgement = claim.judge(NOW)
    assert judgement.standing.state is State.UP, "what came after the first ping is not known yet"
    assert claim.model_copy(update={"n": 1}).judge(NOW).standing.state is State.DOWN


def test_what_was_judged_is_written_with_its_evidence():
    rid = uuid4()
    pings = [
        make_ping(1, minutes_ago=100),
        make_ping(2, "fail", 5, exit_status=3, rid=rid),
        make_ping(3, minutes_ago=1),
    ]
    claim = make_claim(n=3, pings=pings)
    item = judgement_item(claim, claim.judge(NOW))

    assert item["judged_n"] == 3
    assert item["last_success_at"] == "2026-03-01T11:59:00Z"
    assert item["next_due_at"] == "2026-03-01T13:09:00Z"
    assert [(each["state"], each["state_since"], each["recovered_at"]) for each in item["verdicts"]] == [
        ("up", "2026-03-01T10:20:00Z", None),
        ("down", "2026-03-01T11:30:00Z", None),
        ("up", "2026-03-01T11:59:00Z", "2026-03-01T11:59:00Z"),
    ]
    missed = item["verdicts"][1]
    assert missed["transitions"] == [{"state": "down", "at": "2026-03-01T11:30:00Z", "cause": "missed"}]
    assert missed["incident"] == {
        "started_at": "2026-03-01T11:30:00Z",
        "cause": "missed",
        "summary": "a ping was expected by 2026-03-01 11:20:00 UTC and did not come",
        "evidence": {"decided_by": "heartbeat/1", "expected_at": "2026-03-01T11:20:00Z"},
    }


def test_a_failure_names_the_ping_that_said_so():
    rid = uuid4()
    claim = make_claim(n=1, pings=[make_ping(1, "fail", exit_status=3, rid=rid)])
    (verdict,) = judgement_item(claim, claim.judge(NOW + timedelta(seconds=1)))["verdicts"]
    assert verdict["incident"]["summary"] == "the job ended with exit status 3"
    told = {"n": 1, "received_at": "2026-03-01T12:00:00Z", "exit_status": 3, "rid": str(rid)}
    assert verdict["incident"]["evidence"]["ping"] == told

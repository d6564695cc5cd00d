"""Intervals, uptime and reports, as real Postgres tells them of the ledger, held against a walk over every second."""

import csv
import io
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from server.features.overview.rules import share_of
from server.features.uptime.rules import Accounting, count_uptime, floored_ratio, ratios_of, read_history
from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.place import RESOLVED, START, Place, insert_incident, insert_line
from tests.stack.product import Api
from tests.stack.sql import acting_as, value

SECOND = timedelta(seconds=1)
Span = tuple[datetime, datetime]


@pytest.fixture
def place(quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection) -> Place:
    user = sign_up_at(own_supabase)
    api = quiet_api.as_user(user.access_token)
    return Place(api, UUID(api.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"]), connection, user.id)


def maintain(place: Place, monitor: UUID, *spans: Span) -> None:
    for span in spans:
        place.connection.execute(
            "insert into maintenance_occurrences (org_id, starts_at, ends_at, all_monitors, monitor_ids)"
            " values (%s, %s, %s, false, %s)",
            [place.org_id, *span, [monitor]],
        )


def ledger_of(place: Place, monitor: UUID, *lines: tuple[str, float, float | None]) -> None:
    """Write lines (state, from, to) in hours after START; a pause by that name."""
    for state, begins, ends in lines:
        cause = "paused" if state == "paused" else f"because of {state}"
        at = [None if hours is None else START + timedelta(hours=hours) for hours in (begins, ends)]
        insert_line(place, monitor, "unknown" if state == "paused" else state, at[0] or START, at[1], cause)


def observe(place: Place, monitor: UUID, at: datetime | None, interval_seconds: int = 60) -> None:
    place.connection.execute(
        "update private.monitor_schedules set last_observed_at = %s, last_interval_seconds = %s where monitor_id = %s",
        [at, interval_seconds, monitor],
    )


# --- intervals --------------------------------------------------------------------------------------------------------


def test_the_ledger_is_listed_newest_first_and_whole(place: Place):
    monitor = place.insert_monitor("m")
    ledger_of(place, monitor, ("up", 0, 5), ("down", 5, 5.5), ("paused", 5.5, 7), ("up", 7, None))
    observe(place, monitor, START + timedelta(hours=9))
    path = f"/v1/monitors/{monitor}/intervals"
    found = place.read_all(path, 1)
    assert found == place.api.ask("GET", path)["data"], "pages put together are the list"
    assert [(line["state"], line["cause"], line["duration_ms"]) for line in found] == [
        ("up", "because of up", 7_200_000),
        ("unknown", "paused", 5_400_000),
        ("down", "because of down", 1_800_000),
        ("up", "because of up", 18_000_000),
    ]
    assert (found[0]["ended_at"], found[0]["observed_until"]) == (None, "2026-01-01T09:00:00Z")
    assert (found[1]["ended_at"], found[1]["observed_until"]) == ("2026-01-01T07:00:00Z",) * 2


def test_a_window_shows_the_lines_that_touch_it_and_states_can_be_chosen(place: Place):
    monitor = place.insert_monitor("m")
    ledger_of(place, monitor, ("up", 0, 5), ("down", 5, 6), ("degraded", 6, 7), ("up", 7, 8), ("down", 8, None))

    def starts(**query: str) -> list[int]:
        data = place.api.ask("GET", f"/v1/monitors/{monitor}/intervals", params=query)["data"]
        return [datetime.fromisoformat(line["started_at"]).hour for line in data]

    assert starts(**{"from": "2026-01-01T05:30:00Z", "to": "2026-01-01T07:00:00Z"}) == [6, 5]
    assert starts(**{"from": "2026-01-01T06:00:00Z"}) == [8, 7, 6], "one that has ended by then is not in it"
    assert starts(state="down,degraded") == [8, 6, 5]
    assert starts(state="unknown") == []


@pytest.mark.parametrize("state", ["unknown", "paused"])
def test_of_an_open_line_in_which_nobody_looks_no_duration_is_told(place: Place, state: str):
    monitor = place.insert_monitor("m")
    ledger_of(place, monitor, (state, 0, None))
    observe(place, monitor, None)
    (line,) = place.api.ask("GET", f"/v1/monitors/{monitor}/intervals")["data"]
    assert (line["observed_until"], line["duration_ms"], line["ended_at"]) == (None, None, None)


# --- uptime -----------------------------------------------------------------------------------------------------------


def test_the_accounting_is_the_readers_choice_and_stands_in_the_answer(place: Place):
    monitor = place.insert_monitor("m")
    ledger_of(place, monitor, ("up", 0, 6), ("degraded", 6, 7), ("down", 7, 9), ("unknown", 9, 10), ("paused", 10, 20))
    maintain(place, monitor, (START + timedelta(hours=8), START + timedelta(hours=9.5)))

    def uptime(**policy: str) -> dict[str, Any]:
        window = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T20:00:00Z"}
        found: dict[str, Any] = place.api.ask("GET", f"/v1/monitors/{monitor}/uptime", params={**window, **policy})
        return found

    default = uptime()
    assert default["policy"] == {"degraded": "up", "unknown": "exclude", "maintenance": "exclude"}
    assert (default["uptime_ratio"], default["coverage_ratio"]) == (0.875, floored_ratio(16, 17))
    assert (default["down_ms"], default["unknown_ms"], default["maintenance_ms"]) == (3_600_000, 1_800_000, 5_400_000)
    assert default["paused_ms"] == 36_000_000
    assert uptime(degraded="down")["uptime_ratio"] == 0.75
    assert uptime(unknown="down")["uptime_ratio"] == floored_ratio(14, 17)
    assert uptime(maintenance="include")["uptime_ratio"] == floored_ratio(7, 9)
    assert uptime(maintenance="include")["down_ms"] == 7_200_000
    refused = place.api.send("GET", f"/v1/monitors/{monitor}/uptime", params={"unknown": "up"})
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "unknown")


@pytest.mark.parametrize("seed", range(8))
def test_ledgers_at_random_come_to_what_a_walk_over_every_second_counts(place: Place, seed: int):
    chance = random.Random(seed)
    connection = place.connection
    with connection.transaction():  # one `now()` for all
        now: datetime = value(connection, "select date_trunc('second', now())")
        monitors = [write_at_random(place, now, chance) for _ in range(3)]
        begins = now - timedelta(hours=chance.choice([1, 3, 5]))
        sums = dict.fromkeys(("up", "degraded", "down", "unknown"), 0)
        for monitor, truth in monitors:
            with acting_as(connection, place.user_id):
                told = value(connection, "select monitor_history(%s, %s, now())", [monitor, begins])
            counted = count_uptime(read_history(told), begins, now)
            walked = walk(truth, begins)
            for state in sums:
                assert getattr(counted, f"{state}_ms") == pytest.approx(walked[state] * 1000, abs=1000), state
                sums[state] += walked[state]
            assert counted.maintenance_ms == pytest.approx(walked["maintenance"] * 1000, abs=1000)
            assert counted.longest_down_ms <= counted.down_ms
            all_in = count_uptime(read_history(told), begins, now, Accounting(maintenance="include"))
            spent = (all_in.up_ms, all_in.degraded_ms, all_in.down_ms, all_in.unknown_ms, all_in.paused_ms)
            assert sum(spent) == pytest.approx((all_in.to_at - all_in.from_at) / SECOND * 1000, abs=1000)
        with acting_as(connection, place.user_id):
            overall = value(connection, "select private.spent_in_states(%s, %s)", [place.org_id, begins])
        for state, seconds in sums.items():
            assert overall.get(state, 0) / 1_000_000 == pytest.approx(seconds, abs=3), "the overview agrees"
        assert share_of(overall) == pytest.approx(list(ratios_of(*sums.values())), abs=1e-3)


Truth = list[tuple[datetime, str, bool]]


def write_at_random(place: Place, now: datetime, chance: random.Random) -> tuple[UUID, Truth]:
    """Write a ledger and maintenance at random; return each second's state, and whether it was in maintenance."""
    monitor = place.insert_monitor("m")
    began = at = now - timedelta(seconds=chance.randint(600, 4 * 3600))
    truth: list[str] = []
    while True:
        state = chance.choice(["up", "up", "degraded", "down", "unknown", "paused"])
        is_last = chance.random() < 0.25
        ends = None if is_last else at + timedelta(seconds=chance.randint(1, 3000))
        if ends is not None and ends >= now:
            continue
        cause = "paused" if state == "paused" else "test"
        insert_line(place, monitor, "unknown" if state == "paused" else state, at, ends, cause)
        truth += [state] * int(((ends or now) - at) / SECOND)
        if ends is None:
            break
        at = ends
    seen = now - timedelta(seconds=chance.choice([5, 200, 600]))
    if state not in ("unknown", "paused"):
        seen = max(at, seen)
        observe(place, monitor, seen)
        if now - seen > timedelta(seconds=240):
            missing = int((now - seen) / SECOND) - 60
            truth[-missing:] = ["unknown"] * missing
    edges = sorted(chance.sample(range(len(truth) + 1), k=min(6, len(truth) // 2 * 2)))
    spans = [(began + a * SECOND, began + b * SECOND) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    maintain(place, monitor, *spans)
    seconds = [began + number * SECOND for number in range(len(truth))]
    return monitor, [
        (second, state, any(a <= second < b for a, b in spans)) for second, state in zip(seconds, truth, strict=True)
    ]


def walk(truth: Truth, begins: datetime) -> dict[str, int]:
    walked = dict.fromkeys(("up", "degraded", "down", "unknown", "paused", "maintenance"), 0)
    for second, state, maintained in truth:
        if second >= begins:
            walked["maintenance" if maintained else state] += 1
    return walked


# --- reports ----------------------------------------------------------------------------------------------------------


def test_a_report_tells_of_each_monitor_whether_the_month_kept_the_target(place: Place):
    good, bad = place.insert_monitor("Büro"), place.insert_monitor("=bad()")
    place.insert_monitor("never seen")
    ledger_of(place, good, ("up", -24, 24 * 40))
    ledger_of(place, bad, ("up", 0, 100), ("down", 100, 101), ("up", 101, 200), ("down", 200, 203), ("up", 203, 2000))
    maintain(place, bad, (START + timedelta(hours=202), START + timedelta(hours=204)))
    for hours in (100, 200):
        insert_incident(place, bad, **RESOLVED | _resolved(hours))
    insert_incident(place, bad, **RESOLVED | {"started_at": START - timedelta(days=3)})
    query = {"month": "2026-01", "target": "0.997"}
    report = place.api.ask("GET", "/v1/reports/sla", params=query)
    assert (report["from"], report["to"]) == ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
    assert [(line["name"], line["verdict"]) for line in report["monitors"]] == [
        ("=bad()", "missed"),
        ("Büro", "met"),
        ("never seen", "not_observed"),
    ]
    line = report["monitors"][0]
    assert line["uptime_ratio"] == floored_ratio(744 - 2 - 3, 744 - 2)
    assert (line["downtime_seconds"], line["longest_outage_seconds"], line["maintenance_seconds"]) == (
        10_800,
        7200,
        7200,
    )
    assert line["incident_count"] == 2
    berlin = place.api.ask("GET", "/v1/reports/sla", params={**query, "time_zone": "Europe/Berlin"})
    assert (berlin["from"], berlin["to"]) == ("2025-12-31T23:00:00Z", "2026-01-31T23:00:00Z")


def _resolved(hours: int) -> dict[str, datetime]:
    return {"started_at": START + timedelta(hours=hours), "resolved_at": START + timedelta(hours=hours + 1)}


@pytest.mark.parametrize(
    ("params", "headers", "is_csv"),
    [
        ({}, {"Accept": "text/csv"}, True),
        ({"format": "csv"}, {}, True),
        ({}, {"Accept": "application/json"}, False),
        ({}, {"Accept": "text/csv;q=0.5, application/json"}, False),
        ({"format": "json"}, {"Accept": "text/csv"}, False),
    ],
)
def test_a_report_is_a_spreadsheet_where_that_is_asked_for(
    place: Place, params: dict[str, str], headers: dict[str, str], is_csv: bool
):
    place.insert_monitor("=1+1")
    answer = place.api.send("GET", "/v1/reports/sla", params={**params, "month": "2026-01"}, headers=headers)
    assert answer.status_code == 200
    assert "Accept" in answer.headers["Vary"]
    if not is_csv:
        assert answer.json()["monitors"][0]["name"] == "=1+1"
        return
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="tocsin-sla-2026-01.csv"'
    (line,) = csv.DictReader(io.StringIO(answer.text))
    assert (line["name"], line["verdict"], line["target"]) == ("'=1+1", "not_observed", "0.999")
    held = place.api.send(
        "GET",
        "/v1/reports/sla",
        params={**params, "month": "2026-01"},
        headers={**headers, "If-None-Match": answer.headers["ETag"]},
    )
    assert held.status_code == 304


@pytest.mark.parametrize(
    ("query", "pointer"),
    [({"month": "2026-13"}, "month"), ({"time_zone": "Mars/Olympus"}, "time_zone"), ({"target": "1.1"}, "target")],
)
def test_a_report_that_cannot_be_made_says_which_parameter_is_wrong(place: Place, query: dict[str, str], pointer: str):
    refused = place.api.send("GET", "/v1/reports/sla", params=query)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)


def test_who_belongs_to_several_organisations_says_of_which(place: Place):
    place.api.ask("POST", "/v1/orgs", json={"name": "Second"})
    refused = place.api.send("GET", "/v1/reports/sla")
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "org_id")
    chosen = place.api.ask("GET", "/v1/reports/sla", params={"org_id": str(place.org_id)})
    assert chosen["org_id"] == str(place.org_id)
    month = datetime.fromisoformat(chosen["to"])
    assert month <= datetime.now(UTC) < month + timedelta(days=31), "the last whole month"

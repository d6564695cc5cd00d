"""A month is as long as it is in its zone, a target is met exactly or missed, and a spreadsheet runs nothing."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from server.features.reports.rules import Window, as_csv, find_zone, judge, month_before, summarise, window_of_month
from server.features.uptime.rules import Accounting, History, count_uptime

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("month", "zone", "begins", "hours"),
    [
        ("2026-10", "UTC", "2026-10-01T00:00", 744),
        ("2026-10", "Europe/Berlin", "2026-09-30T22:00", 745),  # an hour comes twice
        ("2026-03", "Europe/Berlin", "2026-02-28T23:00", 743),  # and one is left out
        ("2026-03", "America/New_York", "2026-03-01T05:00", 743),
        ("2026-12", "Asia/Kathmandu", "2026-11-30T18:15", 744),
        ("2024-02", "Pacific/Auckland", "2024-01-31T11:00", 696),
        ("2026-04", "Australia/Lord_Howe", "2026-03-31T13:00", 720.5),  # half an hour comes twice
        ("2026-11", "America/Sao_Paulo", "2026-11-01T03:00", 720),
    ],
)
def test_a_month_goes_from_midnight_to_midnight_in_its_zone(month, zone, begins, hours):
    window = window_of_month(month, find_zone(zone))
    assert window.from_at == datetime.fromisoformat(f"{begins}+00:00")
    assert window.to_at - window.from_at == timedelta(hours=hours)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Pacific/Apia", "Africa/Casablanca"])
def test_months_follow_each_other_without_a_gap(zone):
    months = [f"{year}-{month:02}" for year in (2011, 2025, 2026) for month in range(1, 13)]
    windows = [window_of_month(month, find_zone(zone)) for month in months]
    for year in range(3):
        for one, next_one in zip(
            windows[12 * year : 12 * year + 11], windows[12 * year + 1 : 12 * year + 12], strict=True
        ):
            assert one.to_at == next_one.from_at


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "/etc/localtime", "Europe", "x" * 300])
def test_what_is_no_zone_is_refused_with_what_is_right(name):
    with pytest.raises(ValueError, match="Europe/Berlin"):
        find_zone(name)


@pytest.mark.parametrize(
    ("now", "zone", "month"),
    [
        ("2026-11-24T12:00Z", "UTC", "2026-10"),
        ("2026-01-01T00:00Z", "UTC", "2025-12"),
        ("2026-01-01T00:00Z", "America/New_York", "2025-11"),
        ("2025-12-31T23:30Z", "Europe/Berlin", "2025-12"),
    ],
)
def test_the_last_month_is_the_one_that_has_ended_in_the_zone(now, zone, month):
    assert month_before(datetime.fromisoformat(now), find_zone(zone)) == month


def counted(up_ms: int, down_ms: int, **more: Any) -> Any:
    told = History(NOW, NOW - timedelta(days=99), NOW, 60, {"up": up_ms, "down": down_ms, **more}, None)
    return count_uptime(told, NOW - timedelta(days=31), NOW, Accounting())


@pytest.mark.parametrize(
    ("spent", "target", "verdict"),
    [
        ((999, 1), 0.999, "met"),
        ((9_989_999, 10_001), 0.999, "missed"),
        ((9_999_999, 1), 1.0, "missed"),
        ((1, 0), 1.0, "met"),
        ((0, 1), 0.000001, "missed"),
        ((0, 0), 0.5, "not_observed"),
        ((7, 3), 0.7, "met"),  # as written, not as the nearest binary fraction
        ((9_995, 5), 0.9995, "met"),
    ],
)
def test_the_exact_uptime_is_held_against_the_target_as_it_is_written(spent, target, verdict):
    assert judge(counted(*spent), target) == verdict


def test_down_times_are_rounded_up():
    assert summarise("id", "x", "http", 2, counted(1_000_000, 1_001), 0.999).downtime_seconds == 2


def test_a_spreadsheet_runs_no_name_and_the_file_holds_one_line_for_each_monitor():
    lines = [summarise("id", name, "http", 0, counted(0, 0), 0.999) for name in ('=cmd("x")', 'a,"b"\nc', "+1", "Büro")]
    window = Window(NOW - timedelta(days=31), NOW)
    header, *rows = csv.reader(io.StringIO(as_csv(lines, window, "Europe/Berlin", 0.999)))
    assert [row[1] for row in rows] == ['\'=cmd("x")', 'a,"b"\nc', "'+1", "Büro"]
    assert dict(zip(header, rows[3], strict=True)) == {
        "monitor_id": "id",
        "name": "Büro",
        "kind": "http",
        "from": "2026-10-01T00:00:00Z",
        "to": "2026-11-01T00:00:00Z",
        "time_zone": "Europe/Berlin",
        "target": "0.999",
        "verdict": "not_observed",
        "uptime_ratio": "",
        "coverage_ratio": "",
        "downtime_seconds": "0",
        "longest_outage_seconds": "0",
        "incident_count": "0",
        "maintenance_seconds": "0",
    }

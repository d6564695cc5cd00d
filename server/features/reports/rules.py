"""What a month is in a time zone, and whether a monitor has kept what was promised of it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from server.features.audit.rules import csv_lines
from server.features.uptime.rules import Uptime

Verdict = Literal["met", "missed", "not_observed"]


class Window(NamedTuple):
    """From a moment on, up to another one."""

    from_at: datetime
    to_at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """How one monitor did. Down times are rounded up, ratios down: no report flatters."""

    monitor_id: str
    name: str
    kind: str
    uptime_ratio: float | None
    coverage_ratio: float | None
    downtime_seconds: int
    longest_outage_seconds: int
    incident_count: int
    maintenance_seconds: int
    verdict: Verdict


def find_zone(name: str) -> ZoneInfo:
    """Return a time zone of the IANA database. Raises ValueError where there is none of this name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError):
        raise ValueError("This is not a time zone. Examples: UTC, Europe/Berlin, America/New_York.") from None


def window_of_month(month: str, zone: ZoneInfo) -> Window:
    """Return a month, written 2026-10, from its first midnight in a zone to the next month's."""
    year, number = int(month[:4]), int(month[5:])
    following = (year + number // 12, number % 12 + 1)
    return Window(*(datetime(y, m, 1, tzinfo=zone).astimezone(UTC) for y, m in ((year, number), following)))


def month_before(now: datetime, zone: ZoneInfo) -> str:
    """Return the last month that has ended in a zone, written 2026-10."""
    local = now.astimezone(zone)
    year, number = (local.year, local.month - 1) if local.month > 1 else (local.year - 1, 12)
    return f"{year}-{number:02}"


def summarise(monitor_id: str, name: str, kind: str, incident_count: int, counted: Uptime, target: float) -> Line:
    """Return a monitor's line of the report."""
    return Line(
        monitor_id,
        name,
        kind,
        counted.uptime_ratio,
        counted.coverage_ratio,
        _seconds_up(counted.down_in_all_ms),
        _seconds_up(counted.longest_down_ms),
        incident_count,
        _seconds_up(counted.maintenance_ms),
        judge(counted, target),
    )


def judge(counted: Uptime, target: float) -> Verdict:
    """Say whether the exact uptime, not the rounded one, reaches a target between 0 and 1, taken as it is written."""
    up_ms = counted.up_ms + (counted.degraded_ms if counted.policy.degraded == "up" else 0)
    judged_ms = up_ms + counted.down_in_all_ms
    if not judged_ms:
        return "not_observed"
    return "met" if Fraction(up_ms, judged_ms) >= Fraction(str(target)) else "missed"


def _seconds_up(ms: int) -> int:
    return -(-ms // 1000)


CSV_HEADER = (
    *("monitor_id", "name", "kind", "from", "to", "time_zone", "target", "verdict", "uptime_ratio", "coverage_ratio"),
    *("downtime_seconds", "longest_outage_seconds", "incident_count", "maintenance_seconds"),
)


def as_csv(lines: Iterable[Line], window: Window, zone: str, target: float) -> str:
    """Return the report as CSV (RFC 4180), safe to open in a spreadsheet."""
    span = tuple(moment.isoformat().replace("+00:00", "Z") for moment in window)
    rows = [
        (
            *(line.monitor_id, line.name, line.kind, *span, zone, target, line.verdict, line.uptime_ratio),
            *(line.coverage_ratio, line.downtime_seconds, line.longest_outage_seconds, line.incident_count),
            line.maintenance_seconds,
        )
        for line in lines
    ]
    return csv_lines([CSV_HEADER, *rows])

"""What was promised, and what was kept."""

from dataclasses import replace
from datetime import UTC, datetime

from server.errors import Conflict, NotFound
from server.features.reports import store
from server.features.reports.rules import CSV_HEADER, as_csv, find_zone, month_before, summarise, window_of_month
from server.features.reports.schemas import SlaQuery, SlaReport
from server.features.uptime.rules import count_uptime
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Reports")

CSV = "text/csv"
MOST_MONITORS = 1_000  # a report is made at once, and each takes the database a millisecond


@feature.route(
    "GET",
    "/v1/reports/sla",
    query=SlaQuery,
    answers=SlaReport,
    also={CSV: ",".join(CSV_HEADER) + "\r\n"},
    refusals=(NotFound, Conflict),
    limit="costly",
)
def read_sla_report(call: Call, query: SlaQuery) -> Reply:
    """Report how each monitor of an organisation did in a month, and whether it kept a target: as JSON or as CSV."""
    zone = find_zone(query.time_zone)
    month = query.month or month_before(datetime.now(UTC), zone)
    window = window_of_month(month, zone)
    found = store.read_sla(call.database, query.org_id, *window, MOST_MONITORS + 1)
    if len(found.monitors) > MOST_MONITORS:
        detail = f"A report tells of up to {MOST_MONITORS:,} monitors, and this organisation has more."
        raise Conflict(detail, code="report_too_large")
    lines = [
        summarise(*each[:3], each.incident_count, count_uptime(each.history, *window, query.policy), query.target)
        for each in found.monitors
    ]
    if (query.format == "csv") if query.format else (call.media_type == CSV):
        name = f"tocsin-sla-{month}.csv"
        return Reply(
            as_csv(lines, window, query.time_zone, query.target).encode(),
            content_type=f"{CSV}; charset=utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"', "Vary": "Accept"},
        )
    report = {
        "org_id": found.org_id,
        "month": month,
        "time_zone": query.time_zone,
        "from_at": window.from_at,
        "to_at": window.to_at,
        "target": query.target,
        "policy": query.policy,
        "monitors": lines,
    }
    reply = replies.shaped(SlaReport.model_validate(report, from_attributes=True))
    return replace(reply, headers={"Vary": "Accept"})

"""Who did what, when, and from where: for those who run the organisation."""

from tempfile import SpooledTemporaryFile
from threading import BoundedSemaphore
from typing import IO, Any

import orjson

from server.data.clients import Database
from server.errors import Fault, Forbidden, InvalidInput, NotFound, RateLimited
from server.features.audit import store
from server.features.audit.rules import csv_lines
from server.features.audit.schemas import (
    CSV_HEADER,
    AuditEntry,
    AuditFilter,
    AuditQuery,
    ExportQuery,
    as_csv,
    as_ndjson,
    present,
)
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Audit")

PAGE_ROWS = 500
# A client waits for the first byte until all is read, 0.1 s for each 1,000: no proxy's patience should end before.
MOST_EXPORTED = 100_000
# Each holds a server thread for a while, and a file.
MAX_EXPORTS = 4
_export_places = BoundedSemaphore(MAX_EXPORTS)
_IN_MEMORY_BYTES = 1_000_000
_SPELLED = {"csv": as_csv, "ndjson": as_ndjson}
_TYPES = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson"}


@feature.route("GET", "/v1/audit", query=AuditQuery, list_of=AuditEntry, refusals=(Forbidden, NotFound))
def list_audit(call: Call, query: AuditQuery) -> Reply:
    """List what happened in an organisation, newest first. Needs the role admin or owner."""
    page = store.read_page(call.database, _filters(query), after=query.position, max_rows=query.limit + 1)
    entries = [present(row) for row in page.rows[: query.limit]]
    cursor = store.position_of(page.rows[query.limit - 1]).encode() if len(page.rows) > query.limit else None
    return Reply(orjson.dumps({"data": entries, "next_cursor": cursor}))


@feature.route(
    "GET",
    "/v1/audit/export",
    query=ExportQuery,
    files={
        "text/csv": ",".join(CSV_HEADER) + "\r\n",
        "application/x-ndjson": '{"id": 4711, "type": "monitor.updated", "occurred_at": "2026-11-24T09:30:00Z"}\n',
    },
    refusals=(Forbidden, NotFound, RateLimited),
    limit="costly",
)
def export_audit(call: Call, query: ExportQuery) -> Reply:
    """Download what happened in an organisation, newest first, as CSV or NDJSON: up to 100,000 entries.

    Needs the role admin or owner. The file is made before the first byte of it is sent: it is whole, or not there.
    """
    if not _export_places.acquire(blocking=False):
        raise RateLimited("Too many exports run at the moment.", retry_after_seconds=5)
    try:
        file = _exported(call.database, query)
    finally:
        _export_places.release()
    return Reply(
        download=file,
        content_type=_TYPES[query.format],
        headers={"Content-Disposition": f'attachment; filename="tocsin-audit.{query.format}"'},
    )


def _exported(database: Database, query: ExportQuery) -> IO[bytes]:
    file = SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115  closed by whoever sends it
    count = 0
    try:
        if query.format == "csv":
            file.write(csv_lines([CSV_HEADER]).encode())
        for rows in store.walk(database, _filters(query), PAGE_ROWS):
            count += len(rows)
            if count > MOST_EXPORTED:
                detail = f"An export holds up to {MOST_EXPORTED:,} entries: ask for a shorter time."
                raise InvalidInput(faults=[Fault("from", "export_too_large", detail)])
            file.write(_SPELLED[query.format]([present(row) for row in rows]))
    except BaseException:
        file.close()
        raise
    return file


def _filters(query: AuditFilter) -> dict[str, Any]:
    return query.model_dump(mode="json", include=set(AuditFilter.model_fields))

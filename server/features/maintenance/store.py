"""Maintenance windows in the database."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from server.data.clients import Database
from server.data.queries import Statement, call, compiled, remembered, table
from server.http.pagination import PageQuery, paged
from server.recurrence import Written

COLUMNS = (
    "id,org_id,name,description,all_monitors,monitor_ids,starts_at,ends_at,time_zone,recurrence,ended_at,created_at,"
    "updated_at,version"
)
COLUMNS_NOW = f"{COLUMNS},active,current_until,next_starts_at"


def create(database: Database, draft: dict[str, Any], written: Written) -> bytes:
    """Insert a window with its next occurrences; return it as a JSON object."""
    return database.execute(call("create_maintenance_window", {"draft": draft, **_arguments(written)}))


def list_page(database: Database, page: PageQuery, org_id: UUID | None, active: bool | None) -> bytes:
    """Return a page of windows, filtered, as a JSON array."""
    return database.execute(_page(page, org_id, active))


@remembered
def _page(page: PageQuery, org_id: UUID | None, active: bool | None) -> Statement:
    query = table("maintenance_schedule").select(COLUMNS_NOW)
    if org_id is not None:
        query = query.eq("org_id", org_id)
    if active is not None:
        query = query.eq("active", active)
    return compiled(paged(query, page))


def read(database: Database, window_id: UUID) -> bytes:
    """Return one window as a one-element JSON array. Raises NotFound."""
    return database.execute_one(table("maintenance_schedule").select(COLUMNS_NOW).eq("id", window_id).limit(1))


def read_for_writing(database: Database, window_id: UUID) -> bytes:
    """Return one window with the caller's role in its organisation, as a one-element JSON array. Raises NotFound."""
    query = (
        table("maintenance_windows")
        .select(COLUMNS, "...organisations!maintenance_windows_org_id_fkey(my_role)")
        .eq("id", window_id)
        .limit(1)
    )
    return database.execute_one(query)


def update(
    database: Database, window_id: UUID, changes: Mapping[str, Any], version: int, written: Written | None
) -> bytes | None:
    """Change it, and its occurrences where there are new ones; return it as a JSON object, None where it moved on."""
    arguments = {"window_id": str(window_id), "changes": changes, "expected_version": version}
    return database.execute_if_it_stands(
        call("change_maintenance_window", arguments | (_arguments(written) if written else {}))
    )


def end(database: Database, window_id: UUID, version: int | None) -> bytes | None:
    """End what goes on now of it; return it as a JSON object, None where it has moved past `version`."""
    arguments = {"window_id": str(window_id), "expected_version": version}
    return database.execute_if_it_stands(call("end_maintenance_window", arguments))


def delete(database: Database, window_id: UUID, version: int | None) -> bool:
    """Delete it; return False where it is gone or has moved past `version`."""
    query = table("maintenance_windows").delete().eq("id", window_id)
    if version is not None:
        query = query.eq("version", version)
    return database.execute_if_it_stands(query.select("id")) is not None


def _arguments(written: Written) -> dict[str, Any]:
    return {"occurrences": written.documents(), "written_until": _text(written.until)}


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None

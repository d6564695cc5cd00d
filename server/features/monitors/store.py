"""Monitors in the database."""

from typing import Any
from uuid import UUID

from server.data.clients import Database
from server.data.queries import Statement, call, compiled, remembered, table
from server.features.monitors.rules import State
from server.http.pagination import PageQuery, paged

COLUMNS = (
    "id,org_id,name,kind,target,interval_seconds,timeout_seconds,retry_interval_seconds,fail_threshold,recover_threshold,"
    "degraded_after_ms,expected_status,max_redirects,state,state_since,paused,created_at,updated_at,version"
)


def create(database: Database, row: dict[str, Any]) -> bytes:
    """Insert a monitor; return it as a JSON object."""
    return database.execute(call("create_monitor", {"draft": row}))


def create_all(database: Database, rows: list[dict[str, Any]], *, each_by_itself: bool) -> bytes:
    """Insert monitors, all or each by itself; return [{index, monitor | refused}] as JSON, in their order."""
    return database.execute(call("create_monitors", {"drafts": rows, "each_by_itself": each_by_itself}))


def list_page(
    database: Database, page: PageQuery, *, org_id: UUID | None, state: State | None, paused: bool | None
) -> bytes:
    """Return a page of monitors, filtered, as a JSON array."""
    return database.execute(_page(page, org_id, state, paused))


def read(database: Database, monitor_id: UUID) -> bytes:
    """Return one monitor as a one-element JSON array. Raises NotFound."""
    return database.execute_one(_one(monitor_id))


@remembered
def _page(page: PageQuery, org_id: UUID | None, state: State | None, paused: bool | None) -> Statement:
    query = table("monitors").select(COLUMNS)
    if org_id is not None:
        query = query.eq("org_id", org_id)
    if state is not None:
        query = query.eq("state", state)
    if paused is not None:
        query = query.eq("paused", paused)
    return compiled(paged(query, page))


@remembered
def _one(monitor_id: UUID) -> Statement:
    return compiled(table("monitors").select(COLUMNS).eq("id", monitor_id).limit(1))


def read_for_writing(database: Database, monitor_id: UUID) -> bytes:
    """Return one monitor with the caller's role in its organisation, as a one-element JSON array. Raises NotFound."""
    query = (
        table("monitors")
        .select(COLUMNS, "...organisations!monitors_org_id_fkey(my_role)")
        .eq("id", monitor_id)
        .limit(1)
    )
    return database.execute_one(query)


def update(database: Database, monitor_id: UUID, changes: dict[str, Any], version: int | None) -> bytes | None:
    """Change it; return it as a one-element JSON array, or None where it is gone or has moved past `version`."""
    query = table("monitors").update(changes).eq("id", monitor_id)
    if version is not None:
        query = query.eq("version", version)
    return database.execute_if_it_stands(query.select(COLUMNS))


def set_paused(database: Database, monitor_id: UUID, paused: bool, version: int | None) -> bytes | None:
    """Pause or resume it; return it as a JSON object, or None where it is gone or has moved past `version`."""
    arguments = {"monitor_id": str(monitor_id), "paused": paused, "expected_version": version}
    return database.execute_if_it_stands(call("set_monitor_paused", arguments))


def delete(database: Database, monitor_id: UUID, version: int | None) -> bool:
    """Delete it with its history; return False where it is gone already or has moved past `version`."""
    query = table("monitors").delete().eq("id", monitor_id)
    if version is not None:
        query = query.eq("version", version)
    return database.execute_if_it_stands(query.select("id")) is not None

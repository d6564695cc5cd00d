"""Monitors in the database."""

from typing import Any
from uuid import UUID

from server.data.clients import Database
from server.data.queries import Statement, call, compiled, holding, one_of, remembered, table
from server.http.pagination import PageQuery, listed, paged

COLUMNS = (
    "id,org_id,name,kind,target,interval_seconds,timeout_seconds,retry_interval_seconds,fail_threshold,recover_threshold,"
    "degraded_after_ms,options,assertions,depends_on,regions,slug,ping_id,state,state_since,flapping,paused,created_at,"
    "updated_at,version"
)

EMBEDDED = {
    "open_incident": (
        "open_incident:incidents!incidents_monitor_id_fkey(id,state,cause,summary,started_at,opened_at,acknowledged_at)"
    ),
    "latest_check": (
        "latest_check:check_results(id,started_at,region,outcome,status_code,error_kind,error_detail,total_ms)"
    ),
}


def create(database: Database, row: dict[str, Any]) -> bytes:
    """Insert a monitor; return it as a JSON object."""
    return database.execute(call("create_monitor", {"draft": row}))


def create_all(database: Database, rows: list[dict[str, Any]], *, each_by_itself: bool) -> bytes:
    """Insert monitors, all or each by itself; return [{index, monitor | refused}] as JSON, in their order."""
    return database.execute(call("create_monitors", {"drafts": rows, "each_by_itself": each_by_itself}))


def list_page(
    database: Database,
    page: PageQuery,
    *,
    org_id: UUID | None,
    states: tuple[str, ...],
    kinds: tuple[str, ...],
    paused: bool | None,
    name_holds: str | None,
    include: tuple[str, ...] = (),
) -> bytes:
    """Return a page of monitors, filtered, with what `include` names, as a JSON array."""
    return database.execute(_page(page, org_id, states, kinds, paused, name_holds, include))


def read(database: Database, monitor_id: UUID, include: tuple[str, ...] = ()) -> bytes:
    """Return one monitor with what `include` names, as a one-element JSON array. Raises NotFound."""
    return database.execute_one(_one(monitor_id, include))


@remembered
def _page(
    page: PageQuery,
    org_id: UUID | None,
    states: tuple[str, ...],
    kinds: tuple[str, ...],
    paused: bool | None,
    name_holds: str | None,
    include: tuple[str, ...],
) -> Statement:
    query = _with(include, listed("monitors", page))
    if org_id is not None:
        query = query.eq("org_id", org_id)
    if states:
        query = one_of(query, "state", states)
    if kinds:
        query = one_of(query, "kind", kinds)
    if paused is not None:
        query = query.eq("paused", paused)
    if name_holds is not None:
        query = holding(query, "name", name_holds)
    return compiled(paged(query, page))


@remembered
def _one(monitor_id: UUID, include: tuple[str, ...]) -> Statement:
    return compiled(_with(include).eq("id", monitor_id).limit(1))


def _with(include: tuple[str, ...], source: str = "monitors") -> Any:
    query = table(source).select(COLUMNS, *(EMBEDDED[name] for name in include))
    if "open_incident" in include:
        query = query.filter("open_incident.resolved_at", "is", "null").limit(1, foreign_table="open_incident")
    if "latest_check" in include:
        query = query.order("started_at", desc=True, foreign_table="latest_check")
        query = query.order("id", desc=True, foreign_table="latest_check").limit(1, foreign_table="latest_check")
    return query


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


def keep_preview(database: Database, preview: dict[str, Any]) -> bytes:
    """Keep what a preview saw under the Idempotency-Key; return it, or what a twin has kept first, as a JSON object."""
    return database.execute(call("keep", {"answer": preview}))


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

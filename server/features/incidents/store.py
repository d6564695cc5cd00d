"""Incidents in the database."""

from datetime import datetime
from typing import Any
from uuid import UUID

from server.data.clients import Database
from server.data.queries import Statement, call, compiled, one_of, remembered, table
from server.features.incidents.rules import IncidentState
from server.http.pagination import PageQuery, paged

COLUMNS = (
    "id,org_id,monitor_id,state,cause,summary,evidence,started_at,opened_at,acknowledged_at,acknowledged_by,resolved_at,"
    "resolved_by,resolution,alerted_at,held_by,version"
)
COMMENT_COLUMNS = "id,author_id,body,created_at"
MAX_COMMENTS_SHOWN = 200
MAX_COMMENTS_LISTED = 20  # of each of up to 200 incidents
EMBEDDED = {
    "monitor": "monitor:monitors!incidents_monitor_id_fkey(id,name,kind,target,state,paused)",
    "comments": f"comments:incident_comments({COMMENT_COLUMNS})",
}


def list_page(
    database: Database,
    page: PageQuery,
    *,
    org_id: UUID | None,
    monitor_id: UUID | None,
    states: tuple[str, ...],
    opened_after: datetime | None,
    opened_before: datetime | None,
    include: tuple[str, ...] = (),
) -> bytes:
    """Return a page of incidents, filtered, with what `include` names, as a JSON array."""
    return database.execute(_page(page, org_id, monitor_id, states, opened_after, opened_before, include))


@remembered
def _page(
    page: PageQuery,
    org_id: UUID | None,
    monitor_id: UUID | None,
    states: tuple[str, ...],
    opened_after: datetime | None,
    opened_before: datetime | None,
    include: tuple[str, ...],
) -> Statement:
    query = _with(include, max_comments=MAX_COMMENTS_LISTED)
    if org_id is not None:
        query = query.eq("org_id", org_id)
    if monitor_id is not None:
        query = query.eq("monitor_id", monitor_id)
    if states:
        query = one_of(query, "state", states)
    if opened_after is not None:
        query = query.gte("opened_at", opened_after.isoformat())
    if opened_before is not None:
        query = query.lt("opened_at", opened_before.isoformat())
    return compiled(paged(query, page))


def read(database: Database, incident_id: UUID, include: tuple[str, ...] = ()) -> bytes:
    """Return one incident with its comments and what `include` names, as a one-element JSON array. Raises NotFound."""
    query = _with(("comments", *include), max_comments=MAX_COMMENTS_SHOWN)
    return database.execute_one(query.eq("id", incident_id).limit(1))


def _with(include: tuple[str, ...], *, max_comments: int) -> Any:
    query = table("incidents").select(COLUMNS, *(EMBEDDED[name] for name in include))
    if "comments" in include:
        query = query.order("created_at", foreign_table="comments").order("id", foreign_table="comments")
        query = query.limit(max_comments, foreign_table="comments")
    return query


def read_for_writing(database: Database, incident_id: UUID) -> bytes:
    """Return one incident with the caller's role in its organisation, as a one-element JSON array. Raises NotFound."""
    query = (
        table("incidents")
        .select(COLUMNS, "...organisations!incidents_org_id_fkey(my_role)")
        .eq("id", incident_id)
        .limit(1)
    )
    return database.execute_one(query)


def move(
    database: Database, incident_id: UUID, now: IncidentState, to: IncidentState, version: int | None
) -> bytes | None:
    """Move it on if it still stands where it was read; return it as a JSON object, else None."""
    arguments = {"incident_id": str(incident_id), "from_state": now, "to_state": to, "expected_version": version}
    return database.execute_if_it_stands(call("move_incident", arguments))


def comment(database: Database, incident_id: UUID, org_id: UUID, body: str) -> bytes:
    """Add a comment; return it as a JSON object."""
    arguments = {"incident_id": str(incident_id), "org_id": str(org_id), "body": body}
    return database.execute(call("comment_on_incident", arguments))

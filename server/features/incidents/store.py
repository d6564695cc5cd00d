"""Incidents in the database."""

from uuid import UUID

from server.data.clients import Database
from server.data.queries import Statement, call, compiled, remembered, table
from server.features.incidents.rules import IncidentState
from server.http.pagination import PageQuery, paged

COLUMNS = (
    "id,org_id,monitor_id,state,cause,summary,evidence,started_at,opened_at,acknowledged_at,acknowledged_by,resolved_at,"
    "resolved_by,resolution,version"
)
COMMENT_COLUMNS = "id,author_id,body,created_at"
MAX_COMMENTS_SHOWN = 200


def list_page(
    database: Database, page: PageQuery, *, org_id: UUID | None, monitor_id: UUID | None, state: IncidentState | None
) -> bytes:
    """Return a page of incidents, filtered, as a JSON array."""
    return database.execute(_page(page, org_id, monitor_id, state))


@remembered
def _page(page: PageQuery, org_id: UUID | None, monitor_id: UUID | None, state: IncidentState | None) -> Statement:
    query = table("incidents").select(COLUMNS)
    if org_id is not None:
        query = query.eq("org_id", org_id)
    if monitor_id is not None:
        query = query.eq("monitor_id", monitor_id)
    if state is not None:
        query = query.eq("state", state)
    return compiled(paged(query, page, by="opened_at"))


def read(database: Database, incident_id: UUID) -> bytes:
    """Return one incident with its comments as a one-element JSON array. Raises NotFound."""
    query = (
        table("incidents")
        .select(COLUMNS, f"comments:incident_comments({COMMENT_COLUMNS})")
        .eq("id", incident_id)
        .order("created_at", foreign_table="comments")
        .limit(MAX_COMMENTS_SHOWN, foreign_table="comments")
        .limit(1)
    )
    return database.execute_one(query)


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

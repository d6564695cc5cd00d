"""Incidents: list, read, acknowledge, resolve, comment."""

from uuid import UUID

from server.errors import Conflict, Forbidden, NotFound, PreconditionFailed
from server.features.incidents import rules, store
from server.features.incidents.rules import IncidentState
from server.features.incidents.schemas import (
    Comment,
    CommentDraft,
    Incident,
    IncidentAndMore,
    IncidentAndRole,
    IncidentInclude,
    IncidentQuery,
    IncidentWithComments,
)
from server.features.orgs.rules import may_edit
from server.http import replies
from server.http.replies import Reply
from server.http.routing import Call, Feature

feature = Feature("Incidents")


@feature.route("GET", "/v1/incidents", query=IncidentQuery, list_of=IncidentAndMore)
def list_incidents(call: Call, query: IncidentQuery) -> Reply:
    """List incidents, newest first unless `order` says otherwise."""
    rows = store.list_page(
        call.database,
        query,
        org_id=query.org_id,
        monitor_id=query.monitor_id,
        states=query.state,
        opened_after=query.opened_after,
        opened_before=query.opened_before,
        include=query.include,
    )
    return replies.page(IncidentAndMore, rows, query, included=query.include)


@feature.route(
    "GET",
    "/v1/incidents/<uuid:incident_id>",
    query=IncidentInclude,
    answers=IncidentWithComments,
    refusals=(NotFound,),
)
def read_incident(call: Call, incident_id: UUID, query: IncidentInclude) -> Reply:
    """Read one incident with its comments."""
    found = store.read(call.database, incident_id, query.include)
    return replies.one(IncidentWithComments, found, included=query.include)


@feature.route(
    "POST",
    "/v1/incidents/<uuid:incident_id>/acknowledge",
    answers=Incident,
    refusals=(NotFound, Forbidden, Conflict, PreconditionFailed),
)
def acknowledge_incident(call: Call, incident_id: UUID) -> Reply:
    """Say that you are on it. Doing it twice changes nothing; a resolved incident is 409."""
    return _move(call, incident_id, IncidentState.ACKNOWLEDGED)


@feature.route(
    "POST",
    "/v1/incidents/<uuid:incident_id>/resolve",
    answers=Incident,
    refusals=(NotFound, Forbidden, Conflict, PreconditionFailed),
)
def resolve_incident(call: Call, incident_id: UUID) -> Reply:
    """End an incident by hand. It does not open again until the monitor has been up. Doing it twice changes nothing."""
    return _move(call, incident_id, IncidentState.RESOLVED)


@feature.route(
    "POST",
    "/v1/incidents/<uuid:incident_id>/comments",
    status=201,
    body=CommentDraft,
    answers=Comment,
    refusals=(NotFound, Forbidden),
)
def comment_on_incident(call: Call, incident_id: UUID, body: CommentDraft) -> Reply:
    """Write a comment on an incident."""
    incident = _incident_to_edit(call, incident_id)
    return replies.one(Comment, store.comment(call.database, incident_id, incident.org_id, body.body), status=201)


def _move(call: Call, incident_id: UUID, to: IncidentState) -> Reply:
    incident = _incident_to_edit(call, incident_id)
    if call.version is not None and call.version != incident.version:
        raise PreconditionFailed
    if incident.state == to:
        return replies.shaped(Incident.model_validate(incident.model_dump()))
    if not rules.may_move(incident.state, to):
        raise Conflict("The incident has been resolved already.", code="incident_resolved")
    moved = store.move(call.database, incident_id, incident.state, to, call.version)
    if moved is None:
        raise Conflict("Somebody else changed the incident at the same moment. Read it again.")
    return replies.one(Incident, moved)


def _incident_to_edit(call: Call, incident_id: UUID) -> IncidentAndRole:
    incident = replies.read_row(IncidentAndRole, store.read_for_writing(call.database, incident_id))
    if not may_edit(incident.my_role):
        raise Forbidden("Working on incidents needs the role editor, admin or owner.")
    return incident

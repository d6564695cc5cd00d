"""Incidents on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from server.features.incidents.rules import IncidentState
from server.features.orgs.rules import Role
from server.http.pagination import PageQuery


class Incident(BaseModel):
    """A stretch in which a monitor was down, and what people did about it."""

    id: UUID
    org_id: UUID
    monitor_id: UUID
    state: IncidentState
    cause: str = Field(
        description="The error kind of the check that decided, such as `timeout` or `status`.", examples=["status"]
    )
    summary: str = Field(description="The same, for people.", examples=["The answer was 503."])
    evidence: dict[str, Any] = Field(
        description="What was observed, and by which thresholds it was judged.",
        examples=[{"fail_threshold": 2, "observations": [{"error_kind": "status", "status_code": 503}]}],
    )
    started_at: datetime = Field(description="When the first of the failed checks began.")
    opened_at: datetime = Field(description="When enough of them had failed.")
    acknowledged_at: datetime | None
    acknowledged_by: UUID | None
    resolved_at: datetime | None
    resolved_by: UUID | None = Field(description="Who resolved it; null where it was not a person.")
    resolution: Literal["recovered", "by_hand", "monitor_paused", "monitor_deleted"] | None
    version: int


class IncidentAndRole(Incident):
    """An incident as it is read before a write: with what the caller is in its organisation."""

    my_role: Role


class Comment(BaseModel):
    """What somebody said about an incident."""

    id: UUID
    author_id: UUID
    body: str = Field(examples=["The database was full."])
    created_at: datetime


class IncidentWithComments(Incident):
    """An incident with what was said about it, oldest first, at most 200 comments."""

    comments: list[Comment]


class CommentDraft(BaseModel):
    """A comment to be made."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"body": "The database was full."}]})

    body: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=4000),
        Field(description="What you say, in plain text."),
    ]


class IncidentQuery(PageQuery):
    """Which incidents to list."""

    org_id: Annotated[UUID | None, Field(description="Only those of this organisation.")] = None
    monitor_id: Annotated[UUID | None, Field(description="Only those of this monitor.")] = None
    state: Annotated[IncidentState | None, Field(description="Only those in this state.")] = None

"""Incidents on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from server.features.incidents.rules import IncidentState
from server.features.monitors.rules import Kind, State
from server.features.orgs.rules import Role
from server.http.choices import AnyOf
from server.http.fields import NOT_BLANK, Moment, included
from server.http.pagination import ORDER_DESCRIPTION, OrderedBy, OrderedQuery


class HeldByParent(BaseModel):
    """A monitor that this one depends on, however far up, is down or may be."""

    kind: Literal["dependency"]
    monitor_id: UUID
    name: str = Field(examples=["Router"])


class HeldByWindow(BaseModel):
    """The monitor is in maintenance."""

    kind: Literal["maintenance"]
    window_id: UUID
    name: str = Field(examples=["Backups"])
    until: datetime


Hold = Annotated[HeldByParent | HeldByWindow, Field(discriminator="kind")]


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
    alerted_at: datetime | None = Field(
        description="When the channels were told, or would have been if there were any; null: nobody has been told."
    )
    held_by: list[Hold] | None = Field(
        description="Why nobody has been told yet; null where nothing holds the alert. `evidence.held` keeps it."
    )
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


class MonitorOfIncident(BaseModel):
    """The monitor that was down."""

    id: UUID
    name: str
    kind: Kind
    target: str | None = Field(description="Null of a heartbeat.", examples=["https://example.com/"])
    state: State
    paused: bool


class IncidentAndMore(Incident):
    """An incident with what `include` asked for; what it did not ask for is absent."""

    monitor: MonitorOfIncident | None = included("The monitor that was down.")
    comments: list[Comment] = included("What was said about it, oldest first, at most 20 comments.")


class IncidentWithComments(Incident):
    """An incident with what was said about it, oldest first, at most 200 comments."""

    comments: list[Comment]
    monitor: MonitorOfIncident | None = included("The monitor that was down.")


class CommentDraft(BaseModel):
    """A comment to be made."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"body": "The database was full."}]})

    body: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=4000),
        NOT_BLANK,
        Field(description="What you say, in plain text."),
    ]


class IncidentInclude(BaseModel):
    """What to answer with an incident."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    include: Annotated[
        tuple[str, ...],
        AnyOf(("monitor",)),
        Field(description="What to answer with it, in the same call, beside its comments."),
    ] = ()


class IncidentQuery(OrderedQuery):
    """Which incidents to list."""

    order: Annotated[str, OrderedBy(("opened_at", "started_at")), Field(description=ORDER_DESCRIPTION)] = "-opened_at"
    org_id: Annotated[UUID | None, Field(description="Only those of this organisation.")] = None
    monitor_id: Annotated[UUID | None, Field(description="Only those of this monitor.")] = None
    state: Annotated[
        tuple[str, ...],
        AnyOf(tuple(IncidentState)),
        Field(description="Only those in this state, or in one of several: `open,acknowledged` are all that go on."),
    ] = ()
    opened_after: Annotated[Moment | None, Field(description="Only those opened at this time or later, RFC 3339.")] = (
        None
    )
    opened_before: Annotated[Moment | None, Field(description="Only those opened before this time, RFC 3339.")] = None
    include: Annotated[
        tuple[str, ...],
        AnyOf(("monitor", "comments")),
        Field(description="What to answer with each incident, in the same call."),
    ] = ()

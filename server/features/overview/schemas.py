"""The overview on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from server.features.incidents.rules import IncidentState
from server.features.monitors.rules import State
from server.features.orgs.rules import Role


class OverviewQuery(BaseModel):
    """Which organisations to look over."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    org_id: Annotated[UUID | None, Field(description="Only this organisation. Default: all that you belong to.")] = None


class MonitorCounts(BaseModel):
    """How many monitors there are. `by_state` leaves out those that are paused, and states without any."""

    total: int = Field(examples=[12])
    paused: int = Field(examples=[1])
    by_state: dict[State, int] = Field(examples=[{"up": 10, "down": 1}])


class MonitorInTrouble(BaseModel):
    """A monitor that needs somebody: down, about to be, or slow."""

    id: UUID
    name: str = Field(examples=["Home page"])
    target: str | None = Field(description="Null of a heartbeat.", examples=["https://example.com/"])
    state: State = Field(examples=["down"])
    state_since: datetime


class IncidentGoingOn(BaseModel):
    """An incident that has not been resolved, whole."""

    id: UUID
    org_id: UUID
    monitor_id: UUID
    state: IncidentState
    cause: str = Field(examples=["status"])
    summary: str = Field(examples=["answered 503"])
    evidence: dict[str, Any] = Field(examples=[{"rule_version": "judge/1"}])
    started_at: datetime
    opened_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: UUID | None
    resolved_at: datetime | None
    resolved_by: UUID | None
    resolution: str | None
    alerted_at: datetime | None = Field(description="When the channels were told; null: nobody has been told.")
    held_by: list[dict[str, Any]] | None = Field(
        description="Why nobody has been told yet, as in `GET /v1/incidents`; null where nothing holds the alert.",
        examples=[None],
    )
    version: int = Field(examples=[1])


class FailedDelivery(BaseModel):
    """A message that was given up, or whose last attempt failed."""

    id: UUID
    channel_id: UUID
    incident_id: UUID | None
    type: str = Field(examples=["incident.opened"])
    state: Literal["pending", "dead"]
    attempts: int = Field(examples=[3])
    next_attempt_at: datetime | None
    last_status_code: int | None
    last_error: str | None
    created_at: datetime


class UptimeShare(BaseModel):
    """How all monitors together did, up to now."""

    uptime_ratio: float | None = Field(
        description="(up + degraded) / (up + degraded + down), rounded down. Null where nothing was observed.",
        examples=[0.9991],
    )
    coverage_ratio: float | None = Field(
        description="The part of the unpaused time in which somebody looked, rounded down. Read uptime beside it.",
        examples=[0.9874],
    )


class _Organisation(BaseModel):
    org_id: UUID
    name: str = Field(examples=["Acme"])
    my_role: Role = Field(description="What you are in it.")
    monitors: MonitorCounts
    in_trouble: list[MonitorInTrouble] = Field(
        description="Monitors that are down, pending or degraded, in this order, the longest first; at most 20."
    )
    open_incident_count: int = Field(examples=[1])
    open_incidents: list[IncidentGoingOn] = Field(description="The latest five, newest first.")
    failed_deliveries: list[FailedDelivery] = Field(description="The latest five, newest first.")


class OrganisationFound(_Organisation):
    """An organisation as the database tells of it: with the microseconds that its monitors spent in each state."""

    spent_24_hours: dict[str, int]
    spent_7_days: dict[str, int]


class OverviewFound(BaseModel):
    """What the database tells."""

    organisations: list[OrganisationFound]


class OrganisationOverview(_Organisation):
    """What goes on in one organisation."""

    uptime_24_hours: UptimeShare
    uptime_7_days: UptimeShare


class Overview(BaseModel):
    """What a home screen needs."""

    organisations: list[OrganisationOverview] = Field(description="By name, at most 50.")

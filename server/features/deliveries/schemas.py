"""Deliveries on the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from server.http.pagination import PageQuery

DeliveryState = Literal["pending", "delivered", "dead"]


class Delivery(BaseModel):
    """One message to one channel. It keeps its id however often it is sent, so that a repetition can be told."""

    id: UUID = Field(description="Sent as the `webhook-id` header.")
    org_id: UUID
    channel_id: UUID
    incident_id: UUID | None
    type: str = Field(
        description="incident.opened, incident.acknowledged, incident.resolved or channel.test.",
        examples=["channel.test"],
    )
    state: DeliveryState = Field(description="dead: given up; send it again with retry.")
    attempts: int = Field(examples=[0])
    next_attempt_at: datetime | None = Field(examples=["2026-11-24T09:30:00Z"])
    last_status_code: int | None
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None


class DeliveryQuery(PageQuery):
    """Which deliveries to list."""

    org_id: Annotated[UUID | None, Field(description="Only those of this organisation.")] = None
    channel_id: Annotated[UUID | None, Field(description="Only those to this channel.")] = None
    incident_id: Annotated[UUID | None, Field(description="Only those about this incident.")] = None
    state: Annotated[DeliveryState | None, Field(description="Only those in this state.")] = None

"""Deliveries on the wire."""

from datetime import datetime
from typing import Annotated, Literal, get_args
from uuid import UUID

from pydantic import BaseModel, Field

from server.http.choices import AnyOf
from server.http.fields import included
from server.http.pagination import ORDER_DESCRIPTION, OrderedBy, OrderedQuery

DeliveryState = Literal["pending", "delivered", "dead"]
DELIVERY_TYPES = ("incident.opened", "incident.acknowledged", "incident.resolved", "channel.test")


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


class ChannelOfDelivery(BaseModel):
    """The channel that a message goes to."""

    id: UUID
    name: str
    kind: Literal["webhook"]
    url: str


class IncidentOfDelivery(BaseModel):
    """The incident that a message is about."""

    id: UUID
    monitor_id: UUID
    state: Literal["open", "acknowledged", "resolved"]
    cause: str
    summary: str
    started_at: datetime
    opened_at: datetime
    resolved_at: datetime | None


class DeliveryAndMore(Delivery):
    """A delivery with what `include` asked for; what it did not ask for is absent."""

    channel: ChannelOfDelivery | None = included("Where it goes.")
    incident: IncidentOfDelivery | None = included("What it is about; null for a test.")


class DeliveryQuery(OrderedQuery):
    """Which deliveries to list."""

    order: Annotated[str, OrderedBy(("created_at",)), Field(description=ORDER_DESCRIPTION)] = "-created_at"
    org_id: Annotated[UUID | None, Field(description="Only those of this organisation.")] = None
    channel_id: Annotated[UUID | None, Field(description="Only those to this channel.")] = None
    incident_id: Annotated[UUID | None, Field(description="Only those about this incident.")] = None
    state: Annotated[
        tuple[str, ...],
        AnyOf(get_args(DeliveryState)),
        Field(description="Only those in this state, or in one of several."),
    ] = ()
    type: Annotated[
        tuple[str, ...], AnyOf(DELIVERY_TYPES), Field(description="Only those of this type, or of one of several.")
    ] = ()
    include: Annotated[
        tuple[str, ...],
        AnyOf(("channel", "incident")),
        Field(description="What to answer with each delivery, in the same call."),
    ] = ()

"""Channels on the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from server.http.fields import NOT_BLANK, HttpUrl, OrgId
from server.http.pagination import ORDER_DESCRIPTION, OrderedBy, OrderedQuery


class ChannelDraft(BaseModel):
    """What creates a channel."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"name": "On-call", "kind": "webhook", "url": "https://example.com/hooks/tocsin"}]
        },
    )

    org_id: OrgId = None
    name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
        NOT_BLANK,
        Field(description="What people call it."),
    ]
    kind: Annotated[Literal["webhook"], Field(description="How it is told.")] = "webhook"
    url: Annotated[
        HttpUrl, Field(description="Where to POST: http or https, without credentials, not in a private network.")
    ]


class Channel(BaseModel):
    """Where an organisation is told of its incidents."""

    id: UUID
    org_id: UUID
    name: str = Field(examples=["On-call"])
    kind: Literal["webhook"]
    url: str = Field(examples=["https://example.com/hooks/tocsin"])
    created_at: datetime
    version: int


class NewChannel(Channel):
    """A channel as it is answered once, when it is created."""

    secret: str = Field(
        description="Verifies what we send (standardwebhooks.com). Shown this once: keep it. It cannot be read again.",
        examples=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )


class ChannelQuery(OrderedQuery):
    """Which channels to list."""

    order: Annotated[str, OrderedBy(("created_at", "name")), Field(description=ORDER_DESCRIPTION)] = "-created_at"
    org_id: Annotated[UUID | None, Field(description="Only those of this organisation.")] = None

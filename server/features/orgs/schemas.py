"""Organisations on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from server.features.orgs.rules import Role
from server.http.pagination import ORDER_DESCRIPTION, OrderedBy, OrderedQuery

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)]


class OrganisationDraft(BaseModel):
    """What creates or renames an organisation."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Acme"}]})

    name: Annotated[Name, Field(description="What people call it.")]


class Organisation(BaseModel):
    """An organisation: the unit in which monitors, incidents and channels belong to people."""

    id: UUID
    name: str = Field(description="What people call it.", examples=["Acme"])
    my_role: Role = Field(description="What you are in it.", examples=["owner"])
    plan: str = Field(description="What it may have; GET /v1/usage says how much that is.", examples=["standard"])
    created_at: datetime
    updated_at: datetime = Field(description="When it was last renamed.")
    version: int = Field(description="Raised by each change; the ETag begins with it.")


class OrganisationQuery(OrderedQuery):
    """Which organisations to list."""

    order: Annotated[str, OrderedBy(("created_at",)), Field(description=ORDER_DESCRIPTION)] = "-created_at"

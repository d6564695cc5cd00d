"""Organisations on the wire."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from server.features.orgs.rules import Role
from server.http.fields import NOT_BLANK
from server.http.pagination import ORDER_DESCRIPTION, OrderedBy, OrderedQuery

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), NOT_BLANK]


class OrganisationDraft(BaseModel):
    """What creates an organisation."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Acme"}]})

    name: Annotated[Name, Field(description="What people call it.")]


def _describe_patch(schema: dict[str, Any]) -> None:
    """What is left out stays, so no field has a default, whatever the model needs to be filled with."""
    for field in schema["properties"].values():
        field.pop("default", None)
    schema |= {"minProperties": 1, "examples": [{"name": "Acme", "require_aal2": True}]}


class OrganisationPatch(BaseModel):
    """What changes an organisation (RFC 7396): what is left out stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_describe_patch)

    name: Annotated[Name, Field(description="What people call it.")] = ""
    require_aal2: bool = Field(
        default=False,
        description="Demand a second factor (`aal2`) for what owners do: delete, transfer, make and unmake owners, API"
        " keys. Owners change it, in a session that has shown one.",
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise PydanticCustomError("nothing_to_change", "Name at least one field to change.")
        return self


class Transfer(BaseModel):
    """Who owns the organisation from now on."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user_id": "5f0c3a52-6f0e-4a57-9f0a-6d2b1d1a7c11"}]}
    )

    user_id: UUID = Field(description="The member who becomes owner.")


class Organisation(BaseModel):
    """An organisation: the unit in which monitors, incidents and channels belong to people."""

    id: UUID
    name: str = Field(description="What people call it.", examples=["Acme"])
    my_role: Role = Field(description="What you are in it.", examples=["owner"])
    plan: str = Field(description="What it may have; GET /v1/usage says how much that is.", examples=["standard"])
    require_aal2: bool = Field(description="Whether what owners do needs a session with a second factor (`aal2`).")
    created_at: datetime
    updated_at: datetime = Field(description="When it was last changed.")
    version: int = Field(description="Raised by each change; the ETag begins with it.")


class OrganisationQuery(OrderedQuery):
    """Which organisations to list."""

    order: Annotated[str, OrderedBy(("created_at",)), Field(description=ORDER_DESCRIPTION)] = "-created_at"

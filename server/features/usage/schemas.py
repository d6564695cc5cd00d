"""Usage on the wire."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Quota(BaseModel):
    """One limit of a plan on a number of things."""

    name: str = Field(description="monitors, members, channels or api_keys; more may follow.", examples=["monitors"])
    limit: int | None = Field(description="How many there may be. Null: any number.", examples=[200])
    used: int = Field(
        description="How many there are. More than the limit where the plan allowed more before.", examples=[12]
    )


class Usage(BaseModel):
    """What an organisation's plan allows, and what it has."""

    org_id: UUID
    plan: str = Field(examples=["standard"])
    quotas: list[Quota]
    shortest_interval_seconds: int = Field(
        description="A monitor may be checked as often as this, in seconds.", examples=[30]
    )
    retention_days: int = Field(
        description="How long check results can be read, in days. Incidents and uptime are kept for ever.",
        examples=[30],
    )


class UsageQuery(BaseModel):
    """Whose usage to show."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    org_id: Annotated[
        UUID | None, Field(description="Which organisation; may be left out by who belongs to one alone.")
    ] = None

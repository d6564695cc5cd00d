"""The caller on the wire."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from server.features.orgs.rules import Role


class Membership(BaseModel):
    """One organisation that you belong to."""

    org_id: UUID
    org_name: str = Field(examples=["Acme"])
    role: Role = Field(examples=["owner"])


class Me(BaseModel):
    """Who you are to this API, as your access token says it, and where you belong."""

    id: UUID = Field(description="Your user id in Supabase Auth.")
    email: str | None = Field(examples=["ada@example.com"])
    is_anonymous: bool = Field(description="True for a sign-in without an account; such users create nothing.")
    token_expires_at: datetime = Field(description="When the access token that you sent ends.")
    memberships: list[Membership]

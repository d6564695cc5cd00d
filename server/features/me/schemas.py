"""The caller on the wire."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from server.features.keys.rules import Scope
from server.features.orgs.rules import Role


class Membership(BaseModel):
    """One organisation that you belong to."""

    org_id: UUID
    org_name: str = Field(examples=["Acme"])
    role: Role = Field(examples=["owner"])


class Me(BaseModel):
    """Who you are to this API, as your access token or API key says it, and where you belong."""

    kind: Literal["user", "key"]
    id: UUID = Field(description="Your user id in Supabase Auth, or the id of the API key.")
    email: str | None = Field(examples=["ada@example.com"])
    is_anonymous: bool = Field(description="True for a sign-in without an account; such users create nothing.")
    token_expires_at: datetime | None = Field(description="When what you sent ends. Null: a key that does not run out.")
    scopes: list[Scope] | None = Field(description="What the API key is for; null for a user, whom roles decide for.")
    memberships: list[Membership]

"""Members of an organisation on the wire."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from server.features.orgs.rules import Role


class Member(BaseModel):
    """Somebody who belongs to an organisation."""

    org_id: UUID
    user_id: UUID = Field(description="The user's id in Supabase Auth.")
    email: str | None = Field(description="The user's address in Supabase Auth as it stands now.")
    role: Role
    joined_at: datetime
    version: int = Field(description="Raised by each change of the role; the ETag begins with it.")


class MemberPatch(BaseModel):
    """What changes a member."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"role": "editor"}]})

    role: Role = Field(description="What the member is from now on. Only an owner makes or unmakes owners.")


class MembershipToChange(BaseModel):
    """What the rules have to know before a membership is changed."""

    role: Role
    version: int
    my_role: Role
    require_aal2: bool

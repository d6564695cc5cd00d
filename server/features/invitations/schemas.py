"""Invitations on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from server.features.orgs.rules import Role
from server.http.fields import WITHOUT_NUL

# Only the form, as far as Supabase Auth and Postgres will take it; whether it exists is for the mail to find out.
_EMAIL = r"^[^@\s\x00]+@[^@\s\x00]+\.[^@\s\x00]+$"


class InvitationDraft(BaseModel):
    """What invites somebody."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"email": "grace@example.com", "role": "editor"}]}
    )

    email: Annotated[
        str,
        StringConstraints(strip_whitespace=True, max_length=254, pattern=_EMAIL),
        Field(description="Whose account may accept: its verified address must be this one, in any case."),
    ]
    role: Role = Field(description="What they become. Admins invite up to admin, owners owners too.")


class Invitation(BaseModel):
    """An invitation that has been neither accepted nor revoked."""

    id: UUID
    org_id: UUID
    email: str = Field(examples=["grace@example.com"])
    role: Role
    invited_by: UUID = Field(description="Who created it, or sent it last.")
    created_at: datetime
    expires_at: datetime = Field(description="From then on it is refused with `invitation_expired`; resend renews it.")
    version: int = Field(description="Raised by each change; the ETag begins with it.")


class NewInvitation(Invitation):
    """An invitation as it is answered once, when it is created or sent again."""

    token: str = Field(
        description="Accepts the invitation. Shown this once; it cannot be read again.",
        examples=["Zt6Hh0bW6v9qT0cUuXbF1m3mC0c9y1n1w2m3k4l5o6p"],
    )
    link: str | None = Field(
        description=(
            "The frontend's page with the token in its fragment. Null where this installation has no such page."
        ),
        examples=["https://app.example.com/join#token=Zt6Hh0bW6v9qT0cUuXbF1m3mC0c9y1n1w2m3k4l5o6p"],
    )
    email_sent: bool = Field(
        description="Whether Supabase Auth took the mail. If not, pass link or token on; the invitation stands."
    )


class InvitationToken(BaseModel):
    """What accepts an invitation."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"token": "Zt6Hh0bW6v9qT0cUuXbF1m3mC0c9y1n1w2m3k4l5o6p"}]}
    )

    token: Annotated[
        str,
        StringConstraints(min_length=1, max_length=200),
        WITHOUT_NUL,
        Field(description="`token` of the link or the mail."),
    ]


class Joined(BaseModel):
    """Where an accepted invitation has led."""

    org_id: UUID
    org_name: str = Field(examples=["Acme"])
    role: Role

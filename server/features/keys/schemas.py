"""API keys on the wire."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from server.features.keys.rules import Scope
from server.http.fields import NOT_BLANK, WHOLE, Moment, OrgId
from server.http.pagination import PageQuery

WEEK_SECONDS = 7 * 86_400


class ApiKeyDraft(BaseModel):
    """What creates a key."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "Deploys", "scopes": ["read", "write"]}]}
    )

    org_id: OrgId = None
    name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=100),
        NOT_BLANK,
        Field(description="What people call it, such as the server that holds it."),
    ]
    scopes: Annotated[
        list[Scope],
        Field(
            min_length=1,
            max_length=5,
            description="What it may do. `write` includes `read`, `admin` both; the other two see nothing.",
        ),
    ]
    expires_at: Annotated[Moment | None, Field(description="When it ends. Null: when it is revoked.")] = None


class RotationDraft(BaseModel):
    """How a key is replaced."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_seconds": 3600}]})

    overlap_seconds: Annotated[
        int,
        Field(ge=0, le=WEEK_SECONDS, description="How long the old key goes on beside the new one, in seconds."),
        WHOLE,
    ] = 86_400


class ApiKey(BaseModel):
    """A key, as far as it can be shown."""

    id: UUID
    org_id: UUID
    name: str = Field(examples=["Deploys"])
    prefix: str = Field(description="How the key begins: by this you recognise it.", examples=["tocsin_MZXW6YTB"])
    scopes: list[Scope]
    created_by: UUID
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="Noted at most once a minute.")
    revoked_at: datetime | None
    replaced_by: UUID | None = Field(description="The key that it was rotated into.")
    version: int = Field(examples=[1])


class NewApiKey(ApiKey):
    """A key as it is shown this once."""

    secret: str = Field(
        description="Send it as `Authorization: Bearer <secret>`. It is stored nowhere.",
        examples=["tocsin_MZXW6YTB_q83vEjRWeJq83vEjRWeJq83vEjRWeJq83vEjRWeJq80"],
    )


class ApiKeyQuery(PageQuery):
    """Which keys to list."""

    org_id: Annotated[UUID | None, Field(description="Only those of this organisation.")] = None

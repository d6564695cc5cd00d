"""Maintenance windows on the wire."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from server.features.orgs.rules import Role
from server.http.fields import NOT_BLANK, Moment, OrgId
from server.http.pagination import PageQuery

# What fills a field of a patch that was left out.
_NEVER_SENT = datetime(2000, 1, 1, tzinfo=UTC)
MAX_MONITORS = 200  # each occurrence carries them: whoever needs more takes all, or several windows


def _each_once(monitor_ids: list[UUID]) -> list[UUID]:
    if len(set(monitor_ids)) < len(monitor_ids):
        raise PydanticCustomError("named_twice", "Name each monitor once.")
    return monitor_ids


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    NOT_BLANK,
    Field(description="What people call it."),
]
Description = Annotated[
    Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000), NOT_BLANK] | None,
    Field(description="What is being done, in plain text."),
]
MonitorIds = Annotated[
    list[UUID],
    AfterValidator(_each_once),
    Field(
        max_length=MAX_MONITORS,
        description="The monitors that it covers; none where `all_monitors` is true.",
        json_schema_extra={"uniqueItems": True},
    ),
]
AllMonitors = Annotated[
    bool, Field(description="Whether it covers every monitor of the organisation, those to come as well.")
]
StartsAt = Annotated[
    Moment, Field(description="When it begins, RFC 3339; of a recurring window, the first time that it may.")
]
EndsAt = Annotated[
    Moment,
    Field(
        description="When it ends, at most 31 days later. Each occurrence takes as long as from `starts_at` to here."
    ),
]
TimeZone = Annotated[
    str,
    StringConstraints(min_length=1, max_length=100),
    Field(
        description="The IANA time zone in which a recurring window keeps its time of day.", examples=["Europe/Berlin"]
    ),
]
Recurrence = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=500)] | None,
    Field(
        description=(
            "An RFC 5545 recurrence rule with FREQ=DAILY, WEEKLY, MONTHLY or YEARLY, without times of day. Null: once."
        ),
        examples=["FREQ=WEEKLY;BYDAY=SA"],
    ),
]
ONCE: dict[str, Any] = {
    "name": "New database",
    "all_monitors": True,
    "starts_at": "2030-01-12T01:00:00Z",
    "ends_at": "2030-01-12T03:00:00Z",
}


class WindowDraft(BaseModel):
    """What creates a maintenance window."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                ONCE,
                {
                    "name": "Backups",
                    "monitor_ids": ["a7470079-8fd5-40eb-8b1d-c790840bc8b3"],
                    "starts_at": "2030-01-12T01:00:00+01:00",
                    "ends_at": "2030-01-12T03:00:00+01:00",
                    "time_zone": "Europe/Berlin",
                    "recurrence": "FREQ=WEEKLY;BYDAY=SA",
                },
            ]
        },
    )

    org_id: OrgId = None
    name: Name
    description: Description = None
    all_monitors: AllMonitors = False
    monitor_ids: MonitorIds = []
    starts_at: StartsAt
    ends_at: EndsAt
    time_zone: TimeZone = "UTC"
    recurrence: Recurrence = None


def _describe_patch(schema: dict[str, Any]) -> None:
    """What is left out stays, so no field has a default, whatever the model needs to be filled with."""
    for field in schema["properties"].values():
        field.pop("default", None)
    schema |= {"minProperties": 1, "examples": [{"ends_at": "2030-01-12T04:00:00Z", "description": "It takes longer."}]}


class WindowPatch(BaseModel):
    """What changes a window (RFC 7396): what is left out stays; null takes away, where there may be nothing."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_describe_patch)

    name: Name = ""
    description: Description = None
    all_monitors: AllMonitors = False
    monitor_ids: MonitorIds = []
    starts_at: StartsAt = _NEVER_SENT
    ends_at: EndsAt = _NEVER_SENT
    time_zone: TimeZone = "UTC"
    recurrence: Recurrence = None

    @model_validator(mode="after")
    def _changes_something(self) -> "WindowPatch":
        if not self.model_fields_set:
            raise PydanticCustomError("nothing_to_change", "Name at least one field to change.")
        return self


class Window(BaseModel):
    """When what may be down without anybody being told."""

    id: UUID
    org_id: UUID
    name: str = Field(examples=["Backups"])
    description: str | None
    all_monitors: bool
    monitor_ids: list[UUID]
    starts_at: datetime
    ends_at: datetime
    time_zone: str = Field(examples=["Europe/Berlin"])
    recurrence: str | None = Field(examples=["FREQ=WEEKLY;BYDAY=SA"])
    ended_at: datetime | None = Field(description="When somebody last ended an occurrence before its time.")
    created_at: datetime
    updated_at: datetime
    version: int


class WindowNow(Window):
    """A maintenance window, with what goes on now and when it begins next."""

    active: bool = Field(description="Whether it goes on now.")
    current_until: datetime | None = Field(description="Until when it goes on; null where it does not.")
    next_starts_at: datetime | None = Field(
        description="When it begins next; null where it does not, or not within the next 400 days."
    )


class WindowAndRole(Window):
    """A maintenance window as it is read before a write: with what the caller is in its organisation."""

    my_role: Role


class WindowQuery(PageQuery):
    """Which maintenance windows to list."""

    org_id: Annotated[UUID | None, Field(description="Only those of this organisation.")] = None
    active: Annotated[bool | None, Field(description="Only those that go on now, or only those that do not.")] = None

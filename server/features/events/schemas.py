"""Events on the wire: the same in a page of `GET /v1/events` and in the stream."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator

from server.errors import AppError
from server.features.events.rules import Position, decode_position
from server.features.orgs.rules import Role
from server.http.shaping import rfc3339


@dataclass(frozen=True, slots=True)
class Shape:
    """Which columns of a row its resource shows, and which of them are times."""

    fields: tuple[str, ...]
    times: tuple[str, ...]


def _shape(fields: str, times: str) -> Shape:
    return Shape(tuple(fields.split()), tuple(times.split()))


# What `data` holds, by kind of subject: the fields of the resource's own GET, and where that names its parent in the
# path alone, the parent. Nothing else of a row leaves: a column that a table gets later is not shown by accident.
# Features may not know each other's schemas; tests/http/test_events.py holds these against them.
SHAPES: Mapping[str, Shape] = {
    "organisation": _shape("id name my_role plan require_aal2 created_at updated_at version", "created_at updated_at"),
    "membership": _shape("org_id user_id role created_at version", "created_at"),
    "invitation": _shape("id org_id email role invited_by created_at expires_at version", "created_at expires_at"),
    "api_key": _shape(
        "id org_id name prefix scopes created_by created_at expires_at last_used_at revoked_at replaced_by version",
        "created_at expires_at last_used_at revoked_at",
    ),
    "monitor": _shape(
        "id org_id name kind target interval_seconds timeout_seconds retry_interval_seconds fail_threshold"
        " recover_threshold degraded_after_ms options assertions depends_on regions slug ping_id state state_since"
        " flapping paused created_at updated_at version",
        "state_since created_at updated_at",
    ),
    "incident": _shape(
        "id org_id monitor_id state cause summary evidence started_at opened_at acknowledged_at acknowledged_by"
        " resolved_at resolved_by resolution alerted_at held_by version",
        "started_at opened_at acknowledged_at resolved_at alerted_at",
    ),
    "incident_comment": _shape("id incident_id author_id body created_at", "created_at"),
    "maintenance_window": _shape(
        "id org_id name description all_monitors monitor_ids starts_at ends_at time_zone recurrence ended_at created_at"
        " updated_at version",
        "starts_at ends_at ended_at created_at updated_at",
    ),
    "channel": _shape("id org_id name kind url created_at version", "created_at"),
    "delivery": _shape(
        "id org_id channel_id incident_id type state attempts next_attempt_at last_status_code last_error created_at"
        " delivered_at",
        "next_attempt_at created_at delivered_at",
    ),
}
_OF_A_STRANGER = _shape("id org_id", "")


class Actor(BaseModel):
    """Who did it."""

    kind: Literal["user", "key", "system"]
    id: UUID | None = Field(description="Null where it was the system.")


class Subject(BaseModel):
    """What it was done to."""

    kind: str = Field(
        description="monitor, incident, incident_comment, channel, delivery, organisation, membership ...",
        examples=["monitor"],
    )
    id: UUID = Field(description="The thing's id; of a membership, the member's.")


class Event(BaseModel):
    """One change."""

    id: str = Field(
        description="The event's position in the log: what `after` and `Last-Event-ID` take.",
        examples=[Position(701, 12).encode()],
    )
    type: str = Field(
        description="The kind of subject, and what became of it: monitor.down, channel.deleted.",
        examples=["monitor.updated"],
    )
    occurred_at: datetime
    org_id: UUID
    actor: Actor
    subject: Subject
    data: dict[str, Any] | None = Field(
        description=(
            "The subject after the change, with the fields of its own GET as far as it had them. Null: deleted."
        ),
        examples=[{"id": "a7470079-8fd5-40eb-8b1d-c790840bc8b3", "name": "Home page", "state": "up"}],
    )


class EventPage(BaseModel):
    """What has happened after a position."""

    data: list[Event] = Field(description="In the order of the log.")
    next_after: str = Field(
        description="The position to go on from. It moves on although there was nothing to see.",
        examples=[Position(702, 0).encode()],
    )
    has_more: bool = Field(description="True where there is more to be read at once.", examples=[False])


class StreamQuery(BaseModel):
    """From where to follow what."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: Annotated[
        str | None,
        Field(
            max_length=100,
            description="The position after which to go on.",
            json_schema_extra={"pattern": "^[A-Za-z0-9_-]{23}$"},
        ),
    ] = None
    org_id: Annotated[UUID | None, Field(description="Only what happens in this organisation.")] = None

    @field_validator("after")
    @classmethod
    def _is_ours(cls, after: str | None) -> str | None:
        if after is not None:
            decode_position(after)
        return after

    @property
    def position(self) -> Position | None:
        """Where the reader stands; None: at the present."""
        return decode_position(self.after) if self.after is not None else None


class EventQuery(StreamQuery):
    """Which events to answer."""

    limit: Annotated[int, Field(ge=1, le=200, description="How many events to answer at most.")] = 50


def position_of(document: Mapping[str, Any]) -> Position:
    """Read the position of an event, or of a page, as the database tells it."""
    return Position(int(document["xid"]), int(document["seq"]))


def wire_event(row: Mapping[str, Any], role: str | None) -> dict[str, Any]:
    """Return the event that the database has told as `row`; `role` is what its reader is in the organisation.

    Raises AppError where it is not an event.
    """
    try:
        return {
            "id": position_of(row).encode(),
            "type": row["type"],
            "occurred_at": rfc3339(row["occurred_at"]),
            "org_id": row["org_id"],
            "actor": {"kind": row["actor_kind"], "id": row["actor_id"]},
            "subject": {"kind": row["subject_kind"], "id": row["subject_id"]},
            "data": _data(row["subject_kind"], row["after"], role),
        }
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise AppError(reason=f"upstream_shape: Event {type(error).__name__} {error}") from None


def _data(kind: str, after: Mapping[str, Any] | None, role: str | None) -> dict[str, Any] | None:
    if after is None:
        return None
    shape = SHAPES.get(kind, _OF_A_STRANGER)
    data = {name: after[name] for name in shape.fields if name in after}
    for name in shape.times:
        if data.get(name) is not None:
            data[name] = rfc3339(data[name])
    if "my_role" in shape.fields:
        data["my_role"] = Role(role) if role is not None else None
    return data


def depends_on_role(kind: str) -> bool:
    """Tell whether an event looks different to readers of different roles."""
    return "my_role" in SHAPES.get(kind, _OF_A_STRANGER).fields

"""Intervals on the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from server.http.choices import AnyOf
from server.http.fields import Moment
from server.http.pagination import PageQuery


class Interval(BaseModel):
    """A stretch of time in which a monitor was in one state."""

    id: UUID
    state: Literal["up", "degraded", "down", "unknown"]
    cause: str = Field(
        description="What made it so, such as answered, fail_threshold_reached, not_observed or paused.",
        examples=["fail_threshold_reached"],
    )
    started_at: datetime
    ended_at: datetime | None = Field(description="Null where it goes on.", examples=["2026-11-24T09:34:00Z"])
    observed_until: datetime | None = Field(
        description="Its end or, where it goes on, when somebody last looked. Null where it goes on and nobody looks: "
        "in a pause, in a hole, and where a heartbeat is waited for.",
        examples=["2026-11-24T09:34:00Z"],
    )
    duration_ms: int | None = Field(
        description="From its start to `observed_until`, rounded down: nothing counts that nobody has seen.",
        examples=[240_000],
    )


class IntervalQuery(PageQuery):
    """Which intervals to list."""

    state: Annotated[
        tuple[str, ...],
        AnyOf(("up", "degraded", "down", "unknown")),
        Field(description="Only those in this state or one of several. A pause is `unknown`, by its cause `paused`."),
    ] = ()
    from_at: Annotated[
        Moment | None, Field(alias="from", description="Only those that end after this time, RFC 3339.")
    ] = None
    to_at: Annotated[
        Moment | None, Field(alias="to", description="Only those that begin before this time, RFC 3339.")
    ] = None

"""Series on the wire."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.http.fields import WITHOUT_NUL, Moment

DEFAULT_POINTS = 200
MOST_POINTS = 1_000


class SeriesQuery(BaseModel):
    """Which window, and how finely."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_at: Annotated[
        Moment | None, Field(alias="from", description="Where it begins, RFC 3339. Default: 24 hours before `to`.")
    ] = None
    to_at: Annotated[Moment | None, Field(alias="to", description="Where it ends, RFC 3339. Default: now.")] = None
    points: Annotated[int, Field(ge=1, le=MOST_POINTS, description="How many buckets to answer at most.")] = (
        DEFAULT_POINTS
    )
    region: Annotated[
        Annotated[str, Field(max_length=100), WITHOUT_NUL] | None,
        Field(description="Only what was seen from this region. Default: from all of them together."),
    ] = None


class SeriesBucket(BaseModel):
    """What the checks of one stretch of time come to; null where none has told how long it took."""

    started_at: datetime
    count: int = Field(description="How many checks began in it.", examples=[12])
    failed: int = Field(description="How many of them found the target down.", examples=[1])
    min_ms: float | None = Field(description="The quickest check.", examples=[38.4])
    avg_ms: float | None = Field(examples=[52.7])
    p50_ms: float | None = Field(description="Half of them took no longer.", examples=[49.9])
    p95_ms: float | None = Field(examples=[88.1])
    p99_ms: float | None = Field(examples=[140.6])


class Series(BaseModel):
    """How long a monitor's checks took, the failed ones too, in buckets of one length without a gap.

    Buckets begin at whole multiples of their length since 2000-01-01T00:00:00Z, so the first may begin before the
    window, and only what lies in the window counts. Percentiles are by nearest rank: exact from raw results, and within
    2 % from rollups.
    """

    from_at: datetime = Field(
        serialization_alias="from",
        description="As asked for or, from rollups, the hour or day (UTC) in which that lies.",
        examples=["2026-11-23T00:00:00Z"],
    )
    to_at: datetime = Field(serialization_alias="to", description="As asked for, or the end of that hour or day.")
    source: Literal["raw", "hours", "days"] = Field(
        description="What answered: the results themselves for up to a day, as long as they are kept; else rollups."
    )
    resolution_seconds: int = Field(description="The length of a bucket.", examples=[300])
    buckets: list[SeriesBucket]

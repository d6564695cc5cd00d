"""Uptime on the wire."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from server.http.fields import Moment


class UptimeQuery(BaseModel):
    """Which window. The names are `from` and `to`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_at: Annotated[
        Moment | None, Field(alias="from", description="Where it begins, RFC 3339. Default: 30 days before `to`.")
    ] = None
    to_at: Annotated[Moment | None, Field(alias="to", description="Where it ends, RFC 3339. Default: now.")] = None


class Uptime(BaseModel):
    """How a monitor did in a window, counted from the ledger of its intervals."""

    from_at: datetime = Field(serialization_alias="from", description="Not before the first observation.")
    to_at: datetime = Field(serialization_alias="to", description="Not after now.")
    uptime_ratio: float | None = Field(
        description="(up + degraded) / (up + degraded + down), rounded down. Null where nothing was observed."
    )
    coverage_ratio: float | None = Field(
        description="The part of the unpaused window in which somebody looked, rounded down. Read uptime beside it."
    )
    up_ms: int
    degraded_ms: int
    down_ms: int
    unknown_ms: int = Field(description="Nobody could look: in neither part of the fraction.")
    paused_ms: int = Field(description="Nobody was asked to look: in neither part of the fraction.")

"""Uptime on the wire."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from server.features.uptime.rules import Accounting
from server.http.fields import DegradedCounts, MaintenanceCounts, Moment, UnknownCounts


class UptimeQuery(BaseModel):
    """Which window, and by which accounting. The window's names are `from` and `to`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_at: Annotated[
        Moment | None, Field(alias="from", description="Where it begins, RFC 3339. Default: 30 days before `to`.")
    ] = None
    to_at: Annotated[Moment | None, Field(alias="to", description="Where it ends, RFC 3339. Default: now.")] = None
    degraded: DegradedCounts = "up"
    unknown: UnknownCounts = "exclude"
    maintenance: MaintenanceCounts = "exclude"

    @property
    def policy(self) -> Accounting:
        """By which rules to count."""
        return Accounting(self.degraded, self.unknown, self.maintenance)


class Uptime(BaseModel):
    """How a monitor did in a window, counted from the ledger of its intervals."""

    from_at: datetime = Field(
        serialization_alias="from", description="Not before the first observation.", examples=["2026-10-25T09:30:00Z"]
    )
    to_at: datetime = Field(serialization_alias="to", description="Not after now.")
    policy: Accounting = Field(description="By which rules it was counted: as asked for, else the default.")
    uptime_ratio: float | None = Field(
        description="By default (up + degraded) / (up + degraded + down), rounded down. Null where nothing was "
        "observed.",
        examples=[0.9986],
    )
    coverage_ratio: float | None = Field(
        description="The part of the unpaused window in which somebody looked, rounded down. Read uptime beside it.",
        examples=[0.9998],
    )
    up_ms: int = Field(examples=[2_584_400_000])
    degraded_ms: int = Field(examples=[0])
    down_ms: int = Field(examples=[3_600_000])
    unknown_ms: int = Field(description="Nobody could look.", examples=[400_000])
    paused_ms: int = Field(description="Nobody was asked to look: never in the fraction.", examples=[0])
    maintenance_ms: int = Field(
        description="In maintenance: in none of the other figures where it is excluded, else in both.",
        examples=[3_600_000],
    )

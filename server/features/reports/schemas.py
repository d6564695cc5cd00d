"""Reports on the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from server.features.reports.rules import find_zone
from server.features.uptime.rules import Accounting
from server.http.fields import DegradedCounts, UnknownCounts


def _check_zone(name: str) -> str:
    find_zone(name)
    return name


class SlaQuery(BaseModel):
    """Whose report, of which month, against which target."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    month: Annotated[
        Annotated[str, Field(pattern="^2[01][0-9]{2}-(0[1-9]|1[0-2])$")] | None,
        Field(description="Which month, such as 2026-10; this one is told up to now. Default: the last whole one."),
    ] = None
    org_id: Annotated[
        UUID | None, Field(description="Of which organisation; may be left out by who belongs to one alone.")
    ] = None
    time_zone: Annotated[
        Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$"), AfterValidator(_check_zone)],
        Field(description="In which time zone (IANA) the month begins and ends."),
    ] = "UTC"
    target: Annotated[
        float,
        Field(gt=0, le=1, allow_inf_nan=False, description="The uptime that was promised: 0.999 is 99.9 %."),
    ] = 0.999
    degraded: DegradedCounts = "up"
    unknown: UnknownCounts = "exclude"
    format: Annotated[
        Literal["json", "csv"] | None,
        Field(description="Which of the two; by default what the header Accept prefers, and JSON where it is silent."),
    ] = None

    @property
    def policy(self) -> Accounting:
        """By which rules to count."""
        return Accounting(self.degraded, self.unknown)


class SlaLine(BaseModel):
    """How one monitor did in the month. Down times are rounded up and ratios down."""

    monitor_id: UUID
    name: str = Field(examples=["Home page"])
    kind: str = Field(examples=["http"])
    uptime_ratio: float | None = Field(
        description="Up over up and down, by the policy. Null where nothing was observed.", examples=[0.99927]
    )
    coverage_ratio: float | None = Field(
        description="The part of the unpaused month in which somebody looked, from the first observation on.",
        examples=[0.9998],
    )
    downtime_seconds: int = Field(description="All that the policy calls down.", examples=[1_930])
    longest_outage_seconds: int = Field(
        description="The longest stretch of `down` without an interruption, maintenance taken out.", examples=[1_200]
    )
    incident_count: int = Field(description="How many incidents went on in the month.", examples=[2])
    maintenance_seconds: int = Field(description="In maintenance, which is left out.", examples=[7_200])
    verdict: Literal["met", "missed", "not_observed"] = Field(
        description="Whether the exact uptime reached the target.", examples=["met"]
    )


class SlaReport(BaseModel):
    """How an organisation's monitors did in a month. A monitor that was deleted has taken its history with it."""

    org_id: UUID
    month: str = Field(examples=["2026-10"])
    time_zone: str = Field(examples=["Europe/Berlin"])
    from_at: datetime = Field(serialization_alias="from", examples=["2026-09-30T22:00:00Z"])
    to_at: datetime = Field(serialization_alias="to", examples=["2026-10-31T23:00:00Z"])
    target: float = Field(examples=[0.999])
    policy: Accounting = Field(description="By which rules it was counted.")
    monitors: list[SlaLine] = Field(description="By name.")

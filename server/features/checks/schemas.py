"""Check results on the wire."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from server.features.checks.rules import ErrorKind, Finding, Outcome
from server.http.fields import Moment
from server.http.pagination import ORDER_DESCRIPTION, OrderedBy, OrderedQuery


class Check(BaseModel):
    """What one check saw. Milliseconds of each phase; null where it was not reached or did not happen."""

    id: UUID
    started_at: datetime
    region: str = Field(description="Where it was seen from.", examples=["default"])
    outcome: Outcome = Field(description="unknown: it says something of us, and nothing of the target.")
    counted: bool = Field(
        description="False where it decided nothing: the monitor was changed meanwhile, or another worker took over.",
        examples=[True],
    )
    status_code: int | None = Field(examples=[200])
    error_kind: ErrorKind | None = Field(description="What went wrong first.")
    error_detail: str | None = Field(description="The same, for people.")
    dns_ms: float | None = Field(description="Looking the name up.", examples=[3.1])
    connect_ms: float | None = Field(description="Opening the connection.", examples=[11.8])
    tls_ms: float | None = Field(description="The TLS handshake.", examples=[24.6])
    first_byte_ms: float | None = Field(
        description="From the request to the first byte of the answer.", examples=[48.2]
    )
    total_ms: float | None = Field(description="The whole check, redirects included.", examples=[89.4])
    remote_ip: str | None = Field(examples=["203.0.113.7"])
    tls_expires_at: datetime | None = Field(
        description="When the certificate runs out.", examples=["2027-02-01T00:00:00Z"]
    )
    assertions: list[Finding] | None = Field(
        description="What became of each assertion; null where there are none, or it did not come to them.",
        examples=[[{"assertion": "json $.queue.depth < 100", "observed": "12", "holds": True}]],
    )


class CheckQuery(OrderedQuery):
    """Which results to list."""

    order: Annotated[str, OrderedBy(("started_at",)), Field(description=ORDER_DESCRIPTION)] = "-started_at"
    outcome: Annotated[Literal["up", "down", "unknown"] | None, Field(description="Only with this outcome.")] = None
    from_at: Annotated[
        Moment | None, Field(alias="from", description="Only those that began at this time or later, RFC 3339.")
    ] = None
    to_at: Annotated[
        Moment | None, Field(alias="to", description="Only those that began before this time, RFC 3339.")
    ] = None

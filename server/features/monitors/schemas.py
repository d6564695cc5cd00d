"""Monitors on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from server.features.checks.rules import ErrorKind
from server.features.monitors import rules
from server.features.monitors.rules import State
from server.features.orgs.rules import Role
from server.http.choices import AnyOf
from server.http.fields import NOT_BLANK, WHOLE, WITHOUT_NUL, HttpUrl, OrgId, included
from server.http.pagination import ORDER_DESCRIPTION, OrderedBy, OrderedQuery


def _readable_ranges(expected_status: list[str]) -> list[str]:
    try:
        rules.status_ranges(expected_status)
    except ValueError as error:
        raise PydanticCustomError("status_range", "{what}", {"what": str(error)}) from None
    return expected_status


Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), NOT_BLANK]
StatusRange = Annotated[str, Field(json_schema_extra={"pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$"})]
ExpectedStatus = Annotated[list[StatusRange], Field(min_length=1, max_length=20), AfterValidator(_readable_ranges)]
IntervalSeconds = Annotated[int, Field(ge=5, le=86_400), WHOLE]
TimeoutSeconds = Annotated[int, Field(ge=1, le=60), WHOLE]
RetryIntervalSeconds = Annotated[int, Field(ge=1, le=86_400), WHOLE]
Threshold = Annotated[int, Field(ge=1, le=20), WHOLE]
DegradedAfterMs = Annotated[int, Field(ge=1, le=60_000), WHOLE]
MaxRedirects = Annotated[int, Field(ge=0, le=10), WHOLE]

_DESCRIPTIONS = {
    "target": "The URL to watch: http or https, without credentials, not in a private network.",
    "interval_seconds": "How often to check, in seconds.",
    "timeout_seconds": "How long one check may take, in seconds; at most the interval.",
    "retry_interval_seconds": "How soon to check again after the first failure, in seconds; at most the interval.",
    "fail_threshold": "How many failures in a row make it `down` and open an incident.",
    "recover_threshold": "How many successes in a row make it `up` again and close the incident.",
    "degraded_after_ms": "A success slower than this, in milliseconds, is `degraded`. Null: never.",
    "expected_status": "The status codes that count as success: `404`, or a range such as `200-299`.",
    "max_redirects": "How many redirects to follow; 0: none, so that a 3xx is judged by expected_status.",
    "paused": "A paused monitor is not checked, and the time counts as neither up nor down.",
}


def _described(name: str, **more: Any) -> Any:
    return Field(description=_DESCRIPTIONS[name], **more)


class MonitorSettings(BaseModel):
    """What a monitor is to be."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "Home page", "kind": "http", "target": "https://example.com/", "interval_seconds": 60}
            ]
        },
    )

    name: Annotated[Name, Field(description="What people call it.")]
    kind: Annotated[Literal["http"], Field(description="How it is checked.")] = "http"
    target: Annotated[HttpUrl, _described("target")]
    interval_seconds: Annotated[IntervalSeconds, _described("interval_seconds")] = 60
    timeout_seconds: Annotated[
        TimeoutSeconds | None, Field(description="Default: 10, or the interval where that is shorter.")
    ] = None
    retry_interval_seconds: Annotated[
        RetryIntervalSeconds | None, Field(description="Default: 15, or the interval where that is shorter.")
    ] = None
    fail_threshold: Annotated[Threshold, _described("fail_threshold")] = 2
    recover_threshold: Annotated[Threshold, _described("recover_threshold")] = 1
    degraded_after_ms: Annotated[DegradedAfterMs | None, _described("degraded_after_ms")] = None
    expected_status: Annotated[ExpectedStatus, _described("expected_status")] = ["200-299"]
    max_redirects: Annotated[MaxRedirects, _described("max_redirects")] = 5
    paused: Annotated[bool, _described("paused")] = False


class MonitorDraft(MonitorSettings):
    """What creates a monitor."""

    org_id: OrgId = None


class MonitorBatch(BaseModel):
    """What creates many monitors in one organisation."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "monitors": [
                        {"name": "Home page", "target": "https://example.com/"},
                        {"name": "API", "target": "https://api.example.com/healthz", "interval_seconds": 30},
                    ]
                }
            ]
        },
    )

    org_id: OrgId = None
    # Each is read as MonitorSettings by the route: what is wrong with one need not be wrong with all.
    monitors: Annotated[
        list[Any],
        Field(min_length=1, max_length=500, description="The monitors, at most 500."),
        WithJsonSchema(
            {
                "type": "array",
                "minItems": 1,
                "maxItems": 500,
                "description": "The monitors, at most 500.",
                "items": MonitorSettings.model_json_schema(),
            }
        ),
    ]
    each_by_itself: Annotated[
        bool,
        Field(description="false: all or none. true: those that can be; the answer says which were refused and why."),
    ] = False


def _describe_patch(schema: dict[str, Any]) -> None:
    """What is left out stays, so no field has a default, whatever the model needs to be filled with."""
    for field in schema["properties"].values():
        field.pop("default", None)
    schema |= {"minProperties": 1, "examples": [{"interval_seconds": 30}]}


class MonitorPatch(BaseModel):
    """What changes a monitor (RFC 7396): what is left out stays; null takes away, where there may be nothing."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_describe_patch)

    name: Name = Field(default="", description="What people call it.")
    target: HttpUrl = _described("target", default="")
    interval_seconds: IntervalSeconds = _described("interval_seconds", default=60)
    timeout_seconds: TimeoutSeconds = _described("timeout_seconds", default=10)
    retry_interval_seconds: RetryIntervalSeconds = _described("retry_interval_seconds", default=15)
    fail_threshold: Threshold = _described("fail_threshold", default=2)
    recover_threshold: Threshold = _described("recover_threshold", default=1)
    degraded_after_ms: DegradedAfterMs | None = _described("degraded_after_ms", default=None)
    expected_status: ExpectedStatus = _described("expected_status", default=["200-299"])
    max_redirects: MaxRedirects = _described("max_redirects", default=5)
    paused: bool = _described("paused", default=False)

    @model_validator(mode="after")
    def _changes_something(self) -> "MonitorPatch":
        if not self.model_fields_set:
            raise PydanticCustomError("nothing_to_change", "Name at least one field to change.")
        return self


class Monitor(BaseModel):
    """A monitor, and what is known of it."""

    id: UUID
    org_id: UUID
    name: str = Field(examples=["Home page"])
    kind: Literal["http"]
    target: str = Field(examples=["https://example.com/"])
    interval_seconds: int = Field(examples=[60])
    timeout_seconds: int = Field(examples=[10])
    retry_interval_seconds: int = Field(examples=[15])
    fail_threshold: int = Field(examples=[2])
    recover_threshold: int = Field(examples=[1])
    degraded_after_ms: int | None
    expected_status: list[str] = Field(examples=[["200-299"]])
    max_redirects: int = Field(examples=[5])
    state: State = Field(
        description="new: not checked yet. pending: failed, but not yet often enough. unknown: nobody could look.",
        examples=["up"],
    )
    state_since: datetime = Field(
        description="Since when; `down` counts from the first failure, not from its confirmation."
    )
    paused: bool
    created_at: datetime
    updated_at: datetime = Field(description="When a person last changed it.")
    version: int = Field(description="Raised by each change that a person makes, not by a change of state.")


class RefusedFault(BaseModel):
    """One thing wrong in a draft of a batch."""

    pointer: str = Field(description="JSON pointer into the body of the request.", examples=["/monitors/1/target"])
    code: str = Field(examples=["missing_field"])
    detail: str = Field(examples=["This field is required."])


class QuotaHit(BaseModel):
    """The limit of the organisation's plan that was hit."""

    name: str = Field(examples=["monitors"])
    limit: int = Field(examples=[20])
    used: int | None = Field(None, description="How many there are, where the limit is a number.", examples=[20])


class Refused(BaseModel):
    """Why a monitor of a batch was not created."""

    status: int = Field(description="The HTTP status that it would have had by itself.", examples=[422])
    code: str = Field(description="Stable, for programs.", examples=["invalid_input"])
    detail: str = Field(examples=["Some values are not valid; errors lists each of them."])
    errors: list[RefusedFault]
    quota: QuotaHit | None


class BatchResult(BaseModel):
    """What became of one draft: the monitor, or why not."""

    index: int = Field(description="Its place in the request, from 0.", examples=[0])
    monitor: Monitor | None
    refused: Refused | None


class BatchOutcome(BaseModel):
    """What became of a batch."""

    created: int = Field(examples=[1])
    refused: int = Field(examples=[1])
    results: list[BatchResult] = Field(description="One for each draft, in their order.")


class MonitorAndRole(Monitor):
    """A monitor as it is read before a write: with what the caller is in its organisation."""

    my_role: Role


class OpenIncident(BaseModel):
    """The incident of a monitor that has not been resolved."""

    id: UUID
    state: Literal["open", "acknowledged"]
    cause: str
    summary: str
    started_at: datetime
    opened_at: datetime
    acknowledged_at: datetime | None


class LatestCheck(BaseModel):
    """What a monitor's last check saw."""

    id: UUID
    started_at: datetime
    region: str
    outcome: Literal["up", "down"]
    status_code: int | None
    error_kind: ErrorKind | None
    error_detail: str | None
    total_ms: float | None


class MonitorAndMore(Monitor):
    """A monitor with what `include` asked for; what it did not ask for is absent."""

    open_incident: OpenIncident | None = included("Null where there is none.")
    latest_check: LatestCheck | None = included("Null where none has been made, or kept.")


Include = Annotated[
    tuple[str, ...],
    AnyOf(("open_incident", "latest_check")),
    Field(description="What to answer with each monitor, in the same call."),
]


class MonitorInclude(BaseModel):
    """What to answer with a monitor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    include: Include = ()


class MonitorQuery(OrderedQuery):
    """Which monitors to list."""

    order: Annotated[
        str, OrderedBy(("created_at", "updated_at", "state_since", "name")), Field(description=ORDER_DESCRIPTION)
    ] = "-created_at"
    org_id: Annotated[UUID | None, Field(description="Only those of this organisation.")] = None
    state: Annotated[
        tuple[str, ...], AnyOf(tuple(State)), Field(description="Only those in this state, or in one of several.")
    ] = ()
    paused: Annotated[bool | None, Field(description="Only those that are paused, or only those that are not.")] = None
    q: Annotated[
        Annotated[str, WITHOUT_NUL] | None,
        Field(min_length=1, max_length=200, description="Only those whose name contains this, in upper or lower case."),
    ] = None
    include: Include = ()


class PreviewDraft(BaseModel):
    """What to check once, without saving it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"target": "https://example.com/"}]})

    kind: Annotated[Literal["http"], Field(description="How it is checked.")] = "http"
    target: Annotated[HttpUrl, _described("target")]
    timeout_seconds: Annotated[int, Field(ge=1, le=10, description="At most 10 s: you are waiting for it."), WHOLE] = 10
    expected_status: Annotated[ExpectedStatus, _described("expected_status")] = ["200-299"]
    max_redirects: Annotated[MaxRedirects, _described("max_redirects")] = 5


class Preview(BaseModel):
    """What one check saw. Milliseconds of each phase; null where it was not reached or did not happen."""

    outcome: Literal["up", "down"]
    started_at: datetime
    status_code: int | None = Field(examples=[200])
    error_kind: ErrorKind | None
    error_detail: str | None
    dns_ms: float | None = Field(examples=[3.1])
    connect_ms: float | None = Field(examples=[11.8])
    tls_ms: float | None = Field(examples=[24.6])
    first_byte_ms: float | None = Field(examples=[48.2])
    total_ms: float | None = Field(examples=[89.4])
    remote_ip: str | None = Field(examples=["203.0.113.7"])
    tls_expires_at: datetime | None = Field(examples=["2027-02-01T00:00:00Z"])

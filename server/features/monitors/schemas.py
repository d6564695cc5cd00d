"""Monitors on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    StringConstraints,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from server.features.checks.rules import ErrorKind, Finding, Outcome
from server.features.monitors.rules import KINDS, CheckKind, Kind, State
from server.features.orgs.rules import Role
from server.http.check_fields import (
    NOT_NULL_BUT_IN_HEARTBEATS,
    Assertions,
    CheckOptions,
    MergedOptions,
    Options,
    Target,
    not_of_heartbeats,
    only_of_heartbeats,
    tell_kinds_apart,
)
from server.http.choices import AnyOf
from server.http.fields import NOT_BLANK, WHOLE, WITHOUT_NUL, OrgId, included
from server.http.pagination import ORDER_DESCRIPTION, OrderedBy, OrderedQuery

_BY_ITS_SCHEDULE = not_of_heartbeats("set period_seconds or cron, and grace_seconds, in its options.")
_AT_ONCE = not_of_heartbeats("a run that fails or stays away is down at once.", 1)
_COMES_BY_ITSELF = "a job pings from wherever it runs."


def _refuse_twins(members: list[Any]) -> list[Any]:
    if len(set(members)) < len(members):
        raise PydanticCustomError("given_twice", "Name each of them once.")
    return members


# Pydantic knows no set whose order stays.
_ONCE_EACH = (AfterValidator(_refuse_twins), Field(json_schema_extra={"uniqueItems": True}))

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), NOT_BLANK]
IntervalSeconds = Annotated[Annotated[int, Field(ge=5, le=86_400), WHOLE] | None, _BY_ITS_SCHEDULE]
TimeoutSeconds = Annotated[Annotated[int, Field(ge=1, le=60), WHOLE] | None, _BY_ITS_SCHEDULE]
RetryIntervalSeconds = Annotated[Annotated[int, Field(ge=1, le=86_400), WHOLE] | None, _BY_ITS_SCHEDULE]
Threshold = Annotated[Annotated[int, Field(ge=1, le=20), WHOLE] | None, _AT_ONCE]
DegradedAfterMs = Annotated[
    Annotated[int, Field(ge=1, le=60_000), WHOLE] | None,
    not_of_heartbeats("set max_runtime_seconds in its options for runs that take too long."),
]
DependsOn = Annotated[list[UUID], Field(max_length=20), *_ONCE_EACH]
Region = Annotated[str, StringConstraints(pattern="^[a-z0-9][a-z0-9_-]{0,39}$")]
Regions = Annotated[list[Region], Field(max_length=10), *_ONCE_EACH, not_of_heartbeats(_COMES_BY_ITSELF, [])]
Slug = Annotated[
    Annotated[str, StringConstraints(pattern="^[a-z0-9_-]{1,100}$")] | None,
    only_of_heartbeats("it stands in the URL that a job pings."),
]

_DESCRIPTIONS = {
    "target": "What to watch. http: a URL, http or https, without credentials. tcp, tls: host:port. dns: a name. icmp: "
    "a host. None of them in a private network. A heartbeat has none.",
    "interval_seconds": "How often to check, in seconds.",
    "timeout_seconds": "How long one check may take, in seconds; at most the interval.",
    "retry_interval_seconds": "How soon to check again after the first failure, in seconds; at most the interval.",
    "fail_threshold": "How many failures in a row make it `down` and open an incident. Of a heartbeat always 1.",
    "recover_threshold": "How many successes in a row make it `up` and close the incident. Of a heartbeat always 1.",
    "degraded_after_ms": "A success slower than this, in milliseconds, is `degraded`. Null: never.",
    "options": "What only its kind knows. What is left out has its default.",
    "assertions": "What must hold of each answer, as `json $.queue.depth < 100`: subject, operator, JSON value.",
    "depends_on": "Monitors of the same organisation. While one of them is down, nobody is told that this one is.",
    "regions": "The worker regions that check it, a majority of which decides. Empty: whichever worker comes first.",
    "slug": "What a heartbeat is called in `/ping/<key>/<slug>`.",
    "paused": "A paused monitor is not checked, and the time counts as neither up nor down.",
}
_AN_ID = "0f4be8f1-5a8e-5a3c-9a51-0d6f3f0d6f2e"
_EXAMPLES: list[JsonValue] = [
    {
        "name": "API",
        "kind": "http",
        "target": "https://api.example.com/healthz",
        "interval_seconds": 60,
        "options": {"headers": {"Accept": "application/json"}, "auth": {"type": "bearer", "token": "s3cret"}},
        "assertions": ["json $.queue.depth < 100", "tls_days_left >= 14"],
    },
    {
        "name": "Cache",
        "kind": "tcp",
        "target": "cache.example.com:6379",
        "options": {"send": "PING\r\n"},
        "assertions": ['received contains "PONG"'],
    },
    {
        "name": "Mail's certificate",
        "kind": "tls",
        "target": "mail.example.com:993",
        "assertions": ["tls_days_left > 21"],
    },
    {
        "name": "Name server",
        "kind": "dns",
        "target": "example.com",
        "options": {"record_type": "MX", "resolver": "9.9.9.9"},
        "assertions": ['answers contains "10 mail.example.com."'],
    },
    {"name": "Gateway", "kind": "icmp", "target": "gateway.example.com", "assertions": ["loss_percent < 50"]},
    {
        "name": "Nightly backup",
        "kind": "heartbeat",
        "options": {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "grace_seconds": 900},
    },
]


def _described(name: str, also: str = "", **more: Any) -> Any:
    return Field(description=" ".join(filter(None, (_DESCRIPTIONS[name], also))), **more)


class MonitorSettings(BaseModel):
    """What a monitor is to be. Its kind says which members it has; a heartbeat waits for pings, the others look."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": _EXAMPLES})

    name: Annotated[Name, Field(description="What people call it.")]
    kind: Annotated[Kind, Field(description="How it watches.")] = "http"
    target: Annotated[Target, _described("target", validate_default=True)] = None
    interval_seconds: Annotated[IntervalSeconds, _described("interval_seconds", "Default: 60.")] = None
    timeout_seconds: Annotated[
        TimeoutSeconds, _described("timeout_seconds", "Default: 10, or the interval where that is shorter.")
    ] = None
    retry_interval_seconds: Annotated[
        RetryIntervalSeconds, _described("retry_interval_seconds", "Default: 15, or the interval where it is shorter.")
    ] = None
    fail_threshold: Annotated[Threshold, _described("fail_threshold", "Default: 2.")] = None
    recover_threshold: Annotated[Threshold, _described("recover_threshold", "Default: 1.")] = None
    degraded_after_ms: Annotated[DegradedAfterMs, _described("degraded_after_ms")] = None
    options: Annotated[Options, _described("options")]
    assertions: Annotated[Assertions, _described("assertions")] = []
    depends_on: Annotated[DependsOn, _described("depends_on")] = []
    regions: Annotated[Regions, _described("regions")] = []
    slug: Annotated[Slug, _described("slug", "Default: made of its name.")] = None
    paused: Annotated[bool, _described("paused")] = False

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say which members each kind has."""
        schema = handler(core)
        tell_kinds_apart(handler.resolve_ref_schema(schema), _OF_A_CHECK, _OF_A_HEARTBEAT)
        return schema


_OF_A_CHECK: dict[str, Any] = {"slug": {"type": "null"}}
_OF_A_HEARTBEAT: dict[str, Any] = {
    "target": {"type": "null"},
    "interval_seconds": {"type": "null"},
    "timeout_seconds": {"type": "null"},
    "retry_interval_seconds": {"type": "null"},
    "fail_threshold": {"enum": [1, None]},
    "recover_threshold": {"enum": [1, None]},
    "degraded_after_ms": {"type": "null"},
    "assertions": {"maxItems": 0},
    "regions": {"maxItems": 0},
}


class MonitorDraft(MonitorSettings):
    """What creates a monitor. Its kind says which members it has; a heartbeat waits for pings, the others look."""

    org_id: OrgId = None


# To the document it is what it says; here it is any JSON.
_UNREAD = WrapValidator(lambda part, _: part)


class MonitorBatch(BaseModel):
    """What creates many monitors in one organisation."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"monitors": _EXAMPLES[:2]}]})

    org_id: OrgId = None
    # Each is read as MonitorSettings by the route: what is wrong with one need not be wrong with all.
    monitors: Annotated[
        list[Annotated[MonitorSettings, _UNREAD]],
        Field(min_length=1, max_length=500, description="The monitors, at most 500."),
    ]
    each_by_itself: Annotated[
        bool,
        Field(description="false: all or none. true: those that can be; the answer says which were refused and why."),
    ] = False


def _describe_patch(schema: dict[str, Any]) -> None:
    """What is left out stays, so no field has a default, whatever the model needs to be filled with."""
    schema["properties"].pop("kind")
    for field in schema["properties"].values():
        field.pop("default", None)
    schema |= {"minProperties": 1, "examples": [{"interval_seconds": 30}, {"options": {"headers": {"X-Old": None}}}]}


class MonitorPatch(BaseModel):
    """What changes a monitor (RFC 7396): what is left out stays; null takes away, where there may be nothing.

    `options` are merged into those that there are, but for `auth`, which is sent whole, with its secret, or stays.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=_describe_patch)

    kind: Any = None
    name: Name = Field(default="", description="What people call it.")
    target: Target = _described("target", default=None)
    interval_seconds: Annotated[IntervalSeconds, NOT_NULL_BUT_IN_HEARTBEATS] = _described(
        "interval_seconds", default=None
    )
    timeout_seconds: Annotated[TimeoutSeconds, NOT_NULL_BUT_IN_HEARTBEATS] = _described("timeout_seconds", default=None)
    retry_interval_seconds: Annotated[RetryIntervalSeconds, NOT_NULL_BUT_IN_HEARTBEATS] = _described(
        "retry_interval_seconds", default=None
    )
    fail_threshold: Annotated[Threshold, NOT_NULL_BUT_IN_HEARTBEATS] = _described("fail_threshold", default=None)
    recover_threshold: Annotated[Threshold, NOT_NULL_BUT_IN_HEARTBEATS] = _described("recover_threshold", default=None)
    degraded_after_ms: DegradedAfterMs = _described("degraded_after_ms", default=None)
    options: MergedOptions = _described("options", default={}, repr=False)
    assertions: Assertions = _described("assertions", default=[])
    depends_on: DependsOn = _described("depends_on", default=[])
    regions: Regions = _described("regions", default=[])
    slug: Slug = _described("slug", default=None)
    paused: bool = _described("paused", default=False)

    @field_validator("kind")
    @classmethod
    def _kind_stays(cls, _: Any) -> None:
        raise PydanticCustomError("kind_fixed", "A monitor's kind stays what it is. Create another, and delete this.")

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
    kind: Kind
    target: str | None = Field(description="Null of a heartbeat.", examples=["https://example.com/"])
    interval_seconds: int | None = Field(description="Null of a heartbeat, as the next two.", examples=[60])
    timeout_seconds: int | None = Field(examples=[10])
    retry_interval_seconds: int | None = Field(examples=[15])
    fail_threshold: int = Field(examples=[2])
    recover_threshold: int = Field(examples=[1])
    degraded_after_ms: int | None
    options: dict[str, Any] = Field(
        description="The kind's own options, whole. Of `auth` it shows all but the secret, and when that was set.",
        examples=[{"method": "GET", "expected_status": ["200-299"], "max_redirects": 5}],
    )
    assertions: list[str] = Field(examples=[["json $.queue.depth < 100"]])
    depends_on: list[UUID] = Field(description="The monitors that this one needs.", examples=[[_AN_ID]])
    regions: list[str] = Field(description="Empty: whichever worker comes first.", examples=[["eu", "us", "ap"]])
    slug: str | None = Field(description="Of a heartbeat: its name in `/ping/<key>/<slug>`.")
    ping_id: UUID | None = Field(description="Of a heartbeat: a job pings `/ping/<ping_id>`. Whoever knows it can.")
    state: State = Field(
        description="new: not checked yet. pending: failed, but not yet often enough. unknown: nobody could look.",
        examples=["up"],
    )
    state_since: datetime = Field(
        description="Since when; `down` counts from the first failure, not from its confirmation."
    )
    flapping: bool = Field(description="It goes up and down so often that it takes longer to be believed up.")
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
    outcome: Outcome
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
    kind: Annotated[
        tuple[str, ...], AnyOf(KINDS), Field(description="Only those of this kind, or of one of several.")
    ] = ()
    paused: Annotated[bool | None, Field(description="Only those that are paused, or only those that are not.")] = None
    q: Annotated[
        Annotated[str, WITHOUT_NUL] | None,
        Field(min_length=1, max_length=200, description="Only those whose name contains this, in upper or lower case."),
    ] = None
    include: Include = ()


class PreviewDraft(BaseModel):
    """What to check once, without saving it. A heartbeat cannot be: nobody goes and looks."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"target": "https://example.com/"},
                {"kind": "dns", "target": "example.com", "assertions": ["answers exists"]},
            ]
        },
    )

    kind: Annotated[CheckKind, Field(description="How it is checked.")] = "http"
    target: Annotated[Target, _described("target", validate_default=True)] = None
    timeout_seconds: Annotated[int, Field(ge=1, le=10, description="At most 10 s: you are waiting for it."), WHOLE] = 10
    options: Annotated[CheckOptions, _described("options")]
    assertions: Annotated[Assertions, _described("assertions")] = []

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Say what each kind may be told."""
        schema = handler(core)
        tell_kinds_apart(handler.resolve_ref_schema(schema), {}, None)
        return schema


class Preview(BaseModel):
    """What one check saw. Milliseconds of each phase; null where it was not reached or did not happen."""

    outcome: Outcome
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
    assertions: list[Finding] | None = Field(
        description="What became of each assertion; null where there are none, or it did not come to them.",
        examples=[[{"assertion": "json $.queue.depth < 100", "observed": "12", "holds": True}]],
    )

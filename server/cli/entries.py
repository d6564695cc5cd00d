"""What may stand in a file of each thing. The names are the API's; `name` may be left out where the key says it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from server.features.monitors import rules
from server.probes.heartbeat import HeartbeatOptions
from server.probes.kinds import KINDS

HEARTBEAT = "heartbeat"
OPTIONS: Mapping[str, type[BaseModel]] = {kind: each.options for kind, each in KINDS.items()} | {
    HEARTBEAT: HeartbeatOptions
}
DEFAULT_INTERVAL_SECONDS = 60
_OF_CHECKS = ("interval_seconds", "timeout_seconds", "retry_interval_seconds", "fail_threshold", "recover_threshold")

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
References = list[Annotated[str, StringConstraints(min_length=1, max_length=200)]]


class Entry(BaseModel):
    """What stands there of everything. `renamed_from`: what it was called until now."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    renamed_from: Name | None = None


class ChannelEntry(Entry):
    """A channel."""

    kind: Literal["webhook"] = "webhook"
    url: Annotated[str, StringConstraints(min_length=1, max_length=2048)]

    def complete(self) -> dict[str, Any]:
        """Return it as it is on the wire, with its defaults."""
        return {"kind": self.kind, "url": self.url}


class MonitorEntry(Entry):
    """A monitor of any kind."""

    kind: Literal["http", "tcp", "tls", "dns", "icmp", "heartbeat"] = "http"
    target: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    interval_seconds: Annotated[int, Field(ge=5, le=86_400)] | None = None
    timeout_seconds: Annotated[int, Field(ge=1, le=60)] | None = None
    retry_interval_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    fail_threshold: Annotated[int, Field(ge=1, le=20)] | None = None
    recover_threshold: Annotated[int, Field(ge=1, le=20)] | None = None
    degraded_after_ms: Annotated[int, Field(ge=1, le=60_000)] | None = None
    options: dict[str, Any] = {}
    assertions: Annotated[list[str], Field(max_length=20)] = []
    depends_on: Annotated[References, Field(max_length=20)] = []
    regions: Annotated[list[str], Field(max_length=10)] = []
    slug: Annotated[str, StringConstraints(pattern="^[a-z0-9_-]{1,100}$")] | None = None
    paused: bool = False

    def foreign_members(self) -> list[str]:
        """Return the names of those members that its kind has none of."""
        if self.kind != HEARTBEAT:
            return ["slug"] if self.slug is not None else []
        given = ("target", *_OF_CHECKS, "degraded_after_ms", "assertions", "regions")
        return [name for name in given if getattr(self, name) not in (None, [])]

    def complete(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return it as it is on the wire, with its defaults; `options` are its own, whole.

        A slug that is left out is the API's to make, and stays what it is.
        """
        common = {"kind": self.kind, "options": options, "paused": self.paused}
        if self.kind == HEARTBEAT:
            return common | ({} if self.slug is None else {"slug": self.slug})
        interval_seconds = self.interval_seconds or DEFAULT_INTERVAL_SECONDS
        return common | {
            "target": self.target,
            "interval_seconds": interval_seconds,
            "timeout_seconds": self.timeout_seconds or rules.default_timeout(interval_seconds),
            "retry_interval_seconds": self.retry_interval_seconds or rules.retry_interval(interval_seconds),
            "fail_threshold": self.fail_threshold or 2,
            "recover_threshold": self.recover_threshold or 1,
            "degraded_after_ms": self.degraded_after_ms,
            "assertions": self.assertions,
            "regions": self.regions,
        }


def in_utc(moment: datetime) -> str:
    """Spell a moment one way: RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _check_spelled_out(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("say which offset is meant, as in 2026-12-01T02:00:00Z or 2026-12-01T02:00:00+01:00")
    return in_utc(moment)


Moment = Annotated[str, AfterValidator(_check_spelled_out)]


class WindowEntry(Entry):
    """A maintenance window; `monitors` are keys or names."""

    description: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)] | None = None
    monitors: Annotated[References, Field(max_length=200)] = []
    all_monitors: bool = False
    starts_at: Moment
    ends_at: Moment
    time_zone: Annotated[str, StringConstraints(min_length=1, max_length=100)] = "UTC"
    recurrence: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None

    def complete(self) -> dict[str, Any]:
        """Return it as it is on the wire, with its defaults."""
        return {
            "description": self.description,
            "all_monitors": self.all_monitors,
            "starts_at": self.starts_at,
            "ends_at": self.ends_at,
            "time_zone": self.time_zone,
            "recurrence": self.recurrence,
        }

"""Pings on the wire: what the Healthchecks protocol sends, and what is told of them afterwards."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

import orjson
from pydantic import BaseModel, ConfigDict, Field

from server.features.monitors.rules import State
from server.features.pings.rules import PingKind, Status

MAX_BODY_BYTES: Final = 100_000
MAX_METRICS: Final = 50
MAX_METRIC_NAME: Final = 100
_MAX_PARAMETERS: Final = 200
_METRIC: Final = "metric."
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_SLUG = re.compile(r"[a-z0-9_-]{1,100}")
_KINDS: Final = {"": PingKind.SUCCESS, "start": PingKind.START, "fail": PingKind.FAIL, "log": PingKind.LOG}
_EXIT_STATUS = re.compile(r"[0-9]{1,3}")


class PingParameters(BaseModel):
    """What may stand in the query of a ping's URL, beside numbers such as `metric.rows=120`."""

    model_config = ConfigDict(extra="allow")

    rid: Annotated[
        UUID | None,
        Field(
            description="The id of this run, chosen by the job: it tells which start belongs to which end.",
            examples=["728b3763-ea80-4113-9fc0-f49b3adf226a"],
        ),
    ] = None
    create: Annotated[
        str | None,
        Field(description="1: make the heartbeat where there is none of this slug. Only with a key.", examples=["1"]),
    ] = None


@dataclass(frozen=True, slots=True)
class Said:
    """What the query of a ping said."""

    rid: str | None
    create: bool
    metrics: dict[str, float]


def is_uuid(text: str) -> bool:
    """Tell whether this is a UUID in its canonical form, in upper or lower case."""
    return _UUID.fullmatch(text) is not None


def is_slug(text: str) -> bool:
    """Tell whether a heartbeat can have this slug."""
    return _SLUG.fullmatch(text) is not None


def read_signal(text: str) -> tuple[PingKind, int | None]:
    """Read the end of a ping's URL: nothing, start, fail, log, or an exit status from 0 to 255. Raises ValueError."""
    if text in _KINDS:
        return _KINDS[text], None
    if not _EXIT_STATUS.fullmatch(text) or int(text) > 255:
        raise ValueError("no signal of ours")
    return (PingKind.FAIL if int(text) else PingKind.SUCCESS), int(text)


def read_parameters(query_string: str) -> Said:
    """Read the query of a ping's URL. What nobody knows is passed over, as the protocol has it.

    Raises ValueError for a run id that is none, and for more than anybody sends.
    """
    given = dict(parse_qsl(query_string, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))
    rid = given.get("rid")
    if rid is not None and not is_uuid(rid):
        raise ValueError("no run id")
    found = ((name.removeprefix(_METRIC), _number(text)) for name, text in given.items() if name.startswith(_METRIC))
    return Said(rid, given.get("create") == "1", _kept(found))


def read_metrics(body: bytes) -> dict[str, float]:
    """Read the numbers of a ping's body: of a JSON object those under `metrics`, or all where it holds nothing else.

    A body that is something else has none: nobody's ping is refused for what it carries.
    """
    if not body.lstrip().startswith(b"{"):
        return {}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    inner = document.get("metrics")
    if isinstance(inner, dict):
        return _kept(inner.items())
    return _kept(document.items()) if all(_is_number(value) for value in document.values()) else {}


def _kept(found: Iterable[tuple[str, Any]]) -> dict[str, float]:
    kept: dict[str, float] = {}
    for name, value in found:
        if _is_number(value) and 0 < len(name) <= MAX_METRIC_NAME and "\0" not in name and len(kept) < MAX_METRICS:
            kept[name] = value
    return kept


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class PingRow(BaseModel):
    """A ping that came in."""

    id: UUID
    n: int = Field(description="Its number among the pings of this heartbeat.", examples=[17])
    received_at: datetime
    kind: PingKind = Field(description="`ignored`: it came during a pause that only a person ends.")
    exit_status: int | None = Field(examples=[0])
    rid: UUID | None = Field(description="The id of the run, where the job sent one.")
    duration_ms: int | None = Field(
        description="How long the run took that it ended, in milliseconds: since the start ping of the same run, "
        "at most 72 hours. Null where there was none.",
        examples=[8123],
    )
    method: str = Field(examples=["POST"])
    remote_ip: str | None = Field(
        description="Where it came from: an IPv4 address, or the /64 of an IPv6 address.", examples=["203.0.113.7"]
    )
    user_agent: str | None = Field(examples=["curl/8.14.1"])
    body_bytes: int = Field(description="How much text came with it; /body has it.", examples=[512])
    metrics: dict[str, float] | None = Field(description="The numbers that came with it.", examples=[{"rows": 120}])


class HeartbeatNow(BaseModel):
    """How a heartbeat does at this moment."""

    status: Status = Field(
        description="new: never heard of. late: due, and still within its grace. started: it runs. "
        "Of these the monitor's own `state` tells new, up and down.",
        examples=["up"],
    )
    state: State = Field(description="What the monitor's history says.", examples=["up"])
    last_ping_at: datetime | None = Field(description="When it last succeeded or failed.")
    last_success_at: datetime | None
    last_duration_ms: int | None = Field(description="How long that run took.", examples=[8123])
    started_at: datetime | None = Field(description="Since when it runs; null where it does not.")
    next_expected_at: datetime | None = Field(description="When the next success is due; null where nothing is.")
    down_at: datetime | None = Field(
        description="When it goes down unless it is heard of; null where nothing is expected, or it is down already."
    )
    ping_count: int = Field(description="How many pings have come in, ever.", examples=[17])

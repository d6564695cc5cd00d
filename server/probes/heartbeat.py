"""Heartbeats: how often a job is to be heard of, and when the next ping is expected.

Nothing is probed here: the job speaks to us (features/pings), and what its silence means is features/pings/rules.py.
A cron line is read as Debian's cron reads it, with cronsim, the library that Healthchecks reads it with.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from server.fields import WHOLE

# What a job that nobody described is held to, as the protocol has it (healthchecks.io/docs/autoprovisioning).
DEFAULT_PERIOD_SECONDS = 86_400
DEFAULT_GRACE_SECONDS = 3_600
_YEAR_SECONDS = 31_536_000
# Where the search for a cron line's first time begins: what it finds in fifty years it finds from any start.
_ANY_DAY = datetime(2024, 1, 1, tzinfo=UTC)


def _check_cron(line: str) -> str:
    if len(line.split()) != 5:
        raise PydanticCustomError(
            "cron_invalid", "A cron line has five fields: minute, hour, day, month, weekday. An example: 30 2 * * 1-5"
        )
    try:
        next(CronSim(line, _ANY_DAY))
    except CronSimError as error:
        raise PydanticCustomError(
            "cron_invalid", "This cron line cannot be read: {what}. An example: 30 2 * * 1-5", {"what": str(error)}
        ) from None
    except StopIteration:
        raise PydanticCustomError("cron_never", "This cron line names a time that never comes.") from None
    return " ".join(line.split())


def _check_zone(name: str) -> str:
    if name not in _zones():
        raise PydanticCustomError("timezone_unknown", "There is no such time zone. An example: Europe/Berlin")
    return name


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


class HeartbeatOptions(BaseModel):
    """How often a heartbeat's job is to be heard of. Neither a period nor a cron line: once a day."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        json_schema_extra={
            "examples": [
                {"period_seconds": 3600, "grace_seconds": 300},
                {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "grace_seconds": 900, "max_runtime_seconds": 7200},
            ]
        },
    )

    period_seconds: Annotated[
        int | None,
        Field(ge=60, le=_YEAR_SECONDS, description="The time between two successes, in seconds. Null: by `cron`."),
        WHOLE,
    ] = None
    cron: Annotated[
        Annotated[str, AfterValidator(_check_cron)] | None,
        Field(min_length=9, max_length=100, description="When the job runs, as five fields of cron. Null: by period."),
    ] = None
    timezone: Annotated[
        str,
        AfterValidator(_check_zone),
        Field(max_length=100, description="The time zone of `cron`, by its IANA name.", examples=["Europe/Berlin"]),
    ] = "UTC"
    grace_seconds: Annotated[
        int,
        Field(ge=1, le=_YEAR_SECONDS, description="How late it may be before it is down, in seconds."),
        WHOLE,
    ] = DEFAULT_GRACE_SECONDS
    max_runtime_seconds: Annotated[
        int | None,
        Field(
            ge=1,
            le=_YEAR_SECONDS,
            description="How long a run may take from its start ping, in seconds; a job that runs is not late then. "
            "Null: a run may take grace_seconds, and has to end in time.",
        ),
        WHOLE,
    ] = None
    manual_resume: Annotated[
        bool, Field(description="true: while it is paused pings are ignored. false: a ping resumes it.")
    ] = False

    @model_validator(mode="before")
    @classmethod
    def _is_daily_unless_it_says(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("period_seconds") is None and given.get("cron") is None:
            return given | {"period_seconds": DEFAULT_PERIOD_SECONDS}
        return given

    @model_validator(mode="after")
    def _has_one_schedule(self) -> "HeartbeatOptions":
        if self.period_seconds is not None and self.cron is not None:
            raise PydanticCustomError("two_schedules", "Of period_seconds and cron set one, and leave the other null.")
        return self


def next_expected(options: HeartbeatOptions) -> Callable[[datetime], datetime]:
    """Return what tells when the next success is expected after one, both in UTC.

    By cron it is the line's first time after the success, in its own zone. What would fall into the hour that a spring
    leaves out falls to its end; what an autumn has twice happens the first time (man 8 cron of Debian). Lines with a
    star for the hour or minute follow the clock.
    """
    if options.cron is None:
        assert options.period_seconds is not None, "without a cron line there is a period"
        period = timedelta(seconds=options.period_seconds)
        return lambda success_at: success_at + period
    line, zone = options.cron, ZoneInfo(options.timezone)
    return lambda success_at: next(_times_after(line, zone, success_at))


def _times_after(line: str, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    # In the second pass of a doubled hour, the line's next time by the clock on the wall may lie in the first.
    for at in CronSim(line, moment.astimezone(zone)):
        if (found := at.astimezone(UTC)) > moment:
            yield found

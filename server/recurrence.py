"""When something recurs: RFC 5545 rules, read by python-dateutil in the local time of a zone.

API and worker share it: the one writes out what lies ahead when a window is made, the other goes on as time passes.
The local time of day stays the same over changes of the clock. A time that the clock skips is read with the offset
before the change (02:30 becomes 03:30), one that it passes twice is the first of the two (RFC 5545, 3.3.5). Each
occurrence takes as long as the first one, in real time (RFC 5545, 3.8.5.3).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache
from itertools import dropwhile, islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

from dateutil.rrule import rrule, rrulestr

DAYS_AHEAD = 400
LONGEST = timedelta(days=31)
# What a rule may be made of. Nothing that names a time of day: that is the first occurrence's, so that there is at most
# one a day.
_PARTS = {
    "FREQ": re.compile(r"DAILY|WEEKLY|MONTHLY|YEARLY"),
    "INTERVAL": re.compile(r"[1-9][0-9]{0,2}"),
    "COUNT": re.compile(r"[1-9][0-9]{0,3}"),
    "UNTIL": re.compile(r"[0-9]{8}(T[0-9]{6}Z?)?"),
    "BYDAY": re.compile(r"([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU)(,([+-]?[1-5])?(MO|TU|WE|TH|FR|SA|SU)){0,20}"),
    "BYMONTH": re.compile(r"(1[0-2]|[1-9])(,(1[0-2]|[1-9])){0,11}"),
    "BYMONTHDAY": re.compile(r"-?(3[01]|[12][0-9]|[1-9])(,-?(3[01]|[12][0-9]|[1-9])){0,61}"),
    "BYYEARDAY": re.compile(r"-?[1-9][0-9]{0,2}(,-?[1-9][0-9]{0,2}){0,50}"),
    "BYWEEKNO": re.compile(r"-?[1-9][0-9]?(,-?[1-9][0-9]?){0,52}"),
    "BYSETPOS": re.compile(r"-?[1-9][0-9]{0,2}(,-?[1-9][0-9]{0,2}){0,20}"),
    "WKST": re.compile(r"MO|TU|WE|TH|FR|SA|SU"),
}
_EXAMPLE = "An example: FREQ=WEEKLY;BYDAY=SA."
_LAST_YEAR = 2300  # beyond the year 9999 there is no arithmetic
# So many intervals without an occurrence, after which there will be none. A 29th of February may be eight years away.
_STEPS_IN_VAIN = {"DAILY": 3660, "WEEKLY": 600, "MONTHLY": 400, "YEARLY": 400}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A first occurrence, and the rule by which it comes again; None: it does not."""

    starts_at: datetime
    ends_at: datetime
    time_zone: str
    recurrence: str | None


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One of them, in UTC."""

    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class Written:
    """The occurrences up to `until`; None: there are no more to come."""

    occurrences: list[Occurrence]
    until: datetime | None

    def documents(self) -> list[dict[str, str]]:
        """Return the occurrences as the database takes them: [{starts_at, ends_at}]."""
        return [
            {"starts_at": each.starts_at.isoformat(), "ends_at": each.ends_at.isoformat()} for each in self.occurrences
        ]


class InvalidSchedule(ValueError):
    """Why a schedule cannot be: the field that is wrong, a stable code, and what is right."""

    def __init__(self, field: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.code = code
        self.detail = detail


def write_out(schedule: Schedule, now: datetime, after: datetime | None = None) -> Written:
    """Return the occurrences that are not over, of the next DAYS_AHEAD days, or of those after `after` alone.

    Raises InvalidSchedule.
    """
    horizon = now + timedelta(days=DAYS_AHEAD)
    written: list[Occurrence] = []
    for each in _occurrences(schedule):
        if each.starts_at > horizon:
            return Written(written, horizon)
        if each.ends_at > now and (after is None or each.starts_at > after):
            written.append(each)
    return Written(written, None)


def require_sound(schedule: Schedule, now: datetime) -> Written:
    """Return what `write_out` does, of a schedule of which something lies ahead. Raises InvalidSchedule."""
    if schedule.ends_at <= schedule.starts_at:
        raise InvalidSchedule("ends_at", "end_before_start", "It must end after it starts.")
    if schedule.ends_at - schedule.starts_at > LONGEST:
        raise InvalidSchedule("ends_at", "too_long", f"It may take {LONGEST.days} days at most.")
    _require_apart(schedule, now)
    written = write_out(schedule, now)
    if not written.occurrences and written.until is None:
        if schedule.recurrence is None:
            raise InvalidSchedule(
                "ends_at", "over_already", "It is over already. Nothing is maintenance after the fact."
            )
        raise InvalidSchedule("recurrence", "never_occurs", "By this rule it never takes place from now on.")
    return written


def _require_apart(schedule: Schedule, now: datetime) -> None:
    """Refuse what overlaps itself, as far as its next 400 occurrences tell. Raises InvalidSchedule."""
    ahead = dropwhile(lambda each: each.ends_at <= now, _occurrences(schedule))
    for before, each in pairwise(islice(ahead, 400)):
        if each.starts_at < before.ends_at:
            raise InvalidSchedule(
                "ends_at",
                "overlaps_itself",
                f"The occurrence of {before.starts_at:%Y-%m-%d} would still go on when the next one begins.",
            )


def _occurrences(schedule: Schedule) -> Iterator[Occurrence]:
    """Yield all of them in their order, the first one that the rule names at the first start or after it."""
    zone = read_zone(schedule.time_zone)
    duration = schedule.ends_at - schedule.starts_at
    if schedule.recurrence is None:
        yield Occurrence(schedule.starts_at.astimezone(UTC), schedule.ends_at.astimezone(UTC))
        return
    first = schedule.starts_at.astimezone(zone).replace(tzinfo=None, fold=0)
    for local in _local_starts(schedule.recurrence, first.replace(microsecond=0), zone):
        # The first one is what was asked for, even in the second of two hours of the same name.
        again = local.replace(tzinfo=zone) if local != first else schedule.starts_at
        starts_at = again.astimezone(UTC)
        yield Occurrence(starts_at, starts_at + duration)


def read_zone(name: str) -> ZoneInfo:
    """Return the time zone. Raises InvalidSchedule."""
    if name not in _zones():
        raise InvalidSchedule(
            "time_zone", "unknown_time_zone", "This is no time zone of the IANA database, such as Europe/Berlin or UTC."
        )
    return ZoneInfo(name)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _local_starts(rule: str, first: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    parts = _read_parts(rule)
    until = _read_until(parts.pop("UNTIL", None), zone)
    try:
        read = rrulestr(";".join(f"{name}={text}" for name, text in parts.items()), dtstart=first)
    except ValueError:
        raise _unreadable(f"This is no recurrence rule of RFC 5545. {_EXAMPLE}") from None
    assert isinstance(read, rrule)
    steps = _Steps(parts.get("INTERVAL", "1"))
    steps.left = _STEPS_IN_VAIN[parts["FREQ"]]
    try:
        for local in read.replace(interval=steps):
            if local.year > _LAST_YEAR or (until is not None and local > until):
                return
            steps.left = _STEPS_IN_VAIN[parts["FREQ"]]
            yield local
    except _InVainError:
        return


class _InVainError(Exception):
    """It has been looked for long enough."""


class _Steps(int):
    """An interval that counts how often it is used.

    dateutil looks for the next occurrence until the year 9999, which takes seconds where there is none, and takes no
    bound for that. It adds the interval at each step (weeks: seven times it).
    """

    left = 0

    def __radd__(self, other: int) -> int:
        self._count()
        return int(self) + other

    def __mul__(self, other: int) -> int:
        self._count()
        return int(self) * other

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _InVainError


def _read_parts(rule: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in rule.split(";"):
        name, _, text = part.partition("=")
        if name not in _PARTS or name in parts:
            known = ", ".join(_PARTS)
            raise _unreadable(
                f"The rule is made of parts NAME=value with ; between them, each once: {known}. {_EXAMPLE}"
            )
        if not _PARTS[name].fullmatch(text):
            raise _unreadable(f"{name} cannot be {text[:50]!r}. {_EXAMPLE}")
        parts[name] = text
    if "FREQ" not in parts:
        raise _unreadable(f"The rule must name FREQ: DAILY, WEEKLY, MONTHLY or YEARLY. {_EXAMPLE}")
    if parts["FREQ"] in {"DAILY", "WEEKLY"} and re.search(r"[0-9]", parts.get("BYDAY", "")):
        raise _unreadable("BYDAY takes numbers, such as the first SA of 1SA, for MONTHLY and YEARLY alone.")
    if "COUNT" in parts and "UNTIL" in parts:
        raise _unreadable("COUNT and UNTIL exclude each other (RFC 5545, 3.3.10).")
    return parts


def _read_until(text: str | None, zone: ZoneInfo) -> datetime | None:
    """Return the local time of the last possible start; of a day alone, its end."""
    if text is None:
        return None
    try:
        if "T" not in text:
            return datetime.combine(datetime.strptime(text, "%Y%m%d"), time.max)  # noqa: DTZ007  local, as all here
        moment = datetime.strptime(text.removesuffix("Z"), "%Y%m%dT%H%M%S")  # noqa: DTZ007
    except ValueError:
        raise _unreadable(f"UNTIL={text} is no time. An example: UNTIL=20301231T235959Z.") from None
    return moment.replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None) if text.endswith("Z") else moment


def _unreadable(detail: str) -> InvalidSchedule:
    return InvalidSchedule("recurrence", "recurrence_unreadable", detail)

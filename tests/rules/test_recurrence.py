"""When maintenance recurs: rules of RFC 5545 in a zone whose clock changes, and rules that are refused."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.recurrence import DAYS_AHEAD, InvalidSchedule, Occurrence, Schedule, require_sound, write_out

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TWO_HOURS = timedelta(hours=2)
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def schedule(
    first: str, recurrence: str | None = "FREQ=DAILY", *, takes: timedelta = TWO_HOURS, zone: str = BERLIN
) -> Schedule:
    """Return a schedule that begins at a local time."""
    starts_at = datetime.fromisoformat(first).replace(tzinfo=ZoneInfo(zone))
    return Schedule(starts_at, (starts_at.astimezone(UTC) + takes), zone, recurrence)


def starts(found: Schedule, count: int, now: datetime = NOW) -> list[str]:
    """Return the first starts, in UTC."""
    return [f"{each.starts_at:%m-%d %H:%M}" for each in write_out(found, now).occurrences[:count]]


# The local time at which it first takes place, by which rule, and when that is in UTC, over a change of the clock.
@pytest.mark.parametrize(
    ("zone", "first", "rule", "in_utc"),
    [
        # Berlin goes from 02:00 to 03:00 on March 29: the same local time is an hour earlier in UTC.
        (BERLIN, "2026-03-28 01:00", "FREQ=DAILY", ["03-28 00:00", "03-29 00:00", "03-29 23:00"]),
        (BERLIN, "2026-03-28 04:00", "FREQ=DAILY", ["03-28 03:00", "03-29 02:00", "03-30 02:00"]),
        # 02:30 is skipped on that day, and is 03:30 then.
        (BERLIN, "2026-03-28 02:30", "FREQ=DAILY", ["03-28 01:30", "03-29 01:30", "03-30 00:30"]),
        (BERLIN, "2026-03-22 02:30", "FREQ=WEEKLY;BYDAY=SU", ["03-22 01:30", "03-29 01:30", "04-05 00:30"]),
        # Back from 03:00 to 02:00 on October 25: 02:30 comes twice, and it is the first of them.
        (BERLIN, "2026-10-24 02:30", "FREQ=DAILY", ["10-24 00:30", "10-25 00:30", "10-26 01:30"]),
        (BERLIN, "2026-10-24 03:00", "FREQ=DAILY", ["10-24 01:00", "10-25 02:00", "10-26 02:00"]),
        # New York on March 8 and on November 1.
        (NEW_YORK, "2026-03-07 02:30", "FREQ=DAILY", ["03-07 07:30", "03-08 07:30", "03-09 06:30"]),
        (NEW_YORK, "2026-03-07 03:00", "FREQ=DAILY", ["03-07 08:00", "03-08 07:00", "03-09 07:00"]),
        (NEW_YORK, "2026-10-31 01:30", "FREQ=DAILY", ["10-31 05:30", "11-01 05:30", "11-02 06:30"]),
        (NEW_YORK, "2026-10-31 22:00", "FREQ=DAILY", ["11-01 02:00", "11-02 03:00", "11-03 03:00"]),
        # A zone without summer time, and one whose changes are half an hour.
        ("UTC", "2026-03-28 02:30", "FREQ=DAILY", ["03-28 02:30", "03-29 02:30", "03-30 02:30"]),
        ("Australia/Lord_Howe", "2026-04-04 03:00", "FREQ=DAILY", ["04-03 16:00", "04-04 16:30", "04-05 16:30"]),
    ],
)
def test_the_local_time_stays_the_same_when_the_clock_changes(zone: str, first: str, rule: str, in_utc: list[str]):
    assert starts(schedule(first, rule, zone=zone), 3) == in_utc


def test_each_occurrence_takes_as_long_as_the_first_also_over_a_change_of_the_clock():
    for first in ("2026-03-28 01:00", "2026-10-24 01:00"):
        written = write_out(schedule(first, takes=4 * TWO_HOURS), NOW)
        assert {each.ends_at - each.starts_at for each in written.occurrences} == {4 * TWO_HOURS}


def test_one_that_begins_in_the_second_of_two_hours_of_the_same_name_begins_there():
    second = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo(BERLIN), fold=1)
    found = Schedule(second, second + TWO_HOURS, BERLIN, "FREQ=DAILY")
    assert starts(found, 2) == ["10-25 01:30", "10-26 01:30"]


@pytest.mark.parametrize(
    ("rule", "days"),
    [
        ("FREQ=WEEKLY;BYDAY=SA", ["03-07", "03-14", "03-21"]),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TH", ["03-02", "03-05", "03-16"]),
        ("FREQ=MONTHLY;BYDAY=1SU", ["04-05", "05-03", "06-07"]),
        ("FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", ["03-31", "04-30", "05-29"]),
        ("FREQ=MONTHLY;BYMONTHDAY=31", ["03-31", "05-31", "07-31"]),
        ("FREQ=MONTHLY;BYMONTHDAY=-1", ["03-31", "04-30", "05-31"]),
        ("FREQ=DAILY;INTERVAL=10;COUNT=2", ["03-02", "03-12"]),
        ("FREQ=DAILY;UNTIL=20260303", ["03-02", "03-03"]),
        ("FREQ=DAILY;UNTIL=20260304T120000", ["03-02", "03-03", "03-04"]),
        ("FREQ=DAILY;UNTIL=20260304T110000Z", ["03-02", "03-03", "03-04"]),
        ("FREQ=DAILY;UNTIL=20260304T105959Z", ["03-02", "03-03"]),
        ("FREQ=YEARLY;BYMONTH=4,5;BYDAY=FR;COUNT=3", ["04-03", "04-10", "04-17"]),
    ],
)
def test_rules_of_all_kinds(rule: str, days: list[str]):
    found = starts(schedule("2026-03-02 12:00", rule), 3)
    assert [each[:5] for each in found] == days


def test_what_lies_ahead_is_written_for_400_days_and_goes_on_from_there():
    daily = schedule("2026-03-02 02:30")
    written = require_sound(daily, NOW)
    assert written.until == NOW + timedelta(days=DAYS_AHEAD)
    later = NOW + timedelta(days=50)
    more = write_out(daily, later, after=written.until)
    assert more.until == later + timedelta(days=DAYS_AHEAD)
    assert written.occurrences[-1].starts_at < written.until < more.occurrences[0].starts_at
    ahead = [each for each in written.occurrences if each.ends_at > later]
    assert ahead + more.occurrences == write_out(daily, later).occurrences, "nothing twice, and nothing left out"


def test_what_ends_is_written_to_its_end_and_no_further():
    assert write_out(schedule("2026-03-02 02:30", "FREQ=DAILY;COUNT=3"), NOW).until is None
    assert write_out(schedule("2026-03-02 02:30", None), NOW).until is None


def test_what_is_over_is_left_out_and_what_goes_on_is_not():
    daily = schedule("2025-12-01 00:30")
    now = datetime(2026, 1, 10, 0, 0, tzinfo=UTC)
    assert starts(daily, 2, now) == ["01-09 23:30", "01-10 23:30"]


def test_a_rule_that_leaps_to_the_end_of_time_stops_before_it():
    last = schedule("2007-12-31 23:30", "FREQ=YEARLY;INTERVAL=999", zone=NEW_YORK)  # eight times that is 9999
    assert write_out(last, NOW).until is None
    assert write_out(last, datetime(2007, 1, 1, tzinfo=UTC)).until is None


def test_a_first_time_beyond_the_horizon_is_no_refusal():
    assert require_sound(schedule("2029-03-02 02:30"), NOW).occurrences == []
    assert require_sound(schedule("2026-03-02 02:30", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29"), NOW).until is not None


@pytest.mark.parametrize(
    "rule",
    [
        *("", "x", "DAILY", "FREQ", "FREQ=", "RRULE:FREQ=DAILY", "FREQ=DAILY;", "freq=daily", "FREQ=DAILY;FREQ=DAILY"),
        *("FREQ=HOURLY", "FREQ=MINUTELY", "FREQ=SECONDLY", "INTERVAL=2", "FREQ=DAILY;INTERVAL=0"),
        *("FREQ=DAILY;BYHOUR=1,2", "FREQ=DAILY;BYMINUTE=1", "FREQ=DAILY;BYSECOND=1", "FREQ=DAILY;BYEASTER=1"),
        *("FREQ=WEEKLY;BYDAY=XX", "FREQ=WEEKLY;BYDAY=1MO", "FREQ=MONTHLY;BYDAY=9MO", "FREQ=MONTHLY;BYMONTHDAY=32"),
        *("FREQ=DAILY;UNTIL=20261301", "FREQ=DAILY;UNTIL=tomorrow", "FREQ=DAILY;COUNT=2;UNTIL=20270101"),
        *("FREQ=DAILY;COUNT=99999", "FREQ=DAILY\nDTSTART:20260101", "FREQ=DAILY;X=1"),
    ],
)
def test_what_is_no_rule_of_ours_is_refused_with_an_example(rule: str):
    with pytest.raises(InvalidSchedule) as refused:
        require_sound(schedule("2026-03-02 02:30", rule), NOW)
    assert (refused.value.field, refused.value.code) == ("recurrence", "recurrence_unreadable")


@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=DAILY;INTERVAL=7;BYDAY=TU",  # it begins on a Monday
        "FREQ=MONTHLY;INTERVAL=12;BYMONTH=4",
        "FREQ=WEEKLY;INTERVAL=3;BYMONTH=2;BYMONTHDAY=31",
        "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=40",
        "FREQ=YEARLY;BYYEARDAY=400",
        "FREQ=DAILY;UNTIL=20260301",
        "FREQ=DAILY;UNTIL=20250301",
    ],
)
def test_a_rule_that_never_fires_is_refused_and_not_looked_for_until_the_year_9999(rule: str):
    with pytest.raises(InvalidSchedule) as refused:
        require_sound(schedule("2026-03-02 02:30", rule), NOW)
    assert (refused.value.field, refused.value.code) == ("recurrence", "never_occurs")


@pytest.mark.parametrize(
    ("found", "field", "code"),
    [
        (schedule("2026-03-02 02:30", zone=BERLIN, takes=timedelta()), "ends_at", "end_before_start"),
        (schedule("2026-03-02 02:30", None, takes=-TWO_HOURS), "ends_at", "end_before_start"),
        (schedule("2026-03-02 02:30", None, takes=timedelta(days=31, seconds=1)), "ends_at", "too_long"),
        (schedule("2025-03-02 02:30", None), "ends_at", "over_already"),
        (schedule("2025-03-02 02:30", "FREQ=DAILY;COUNT=9"), "recurrence", "never_occurs"),
        (schedule("2026-03-02 02:30", takes=timedelta(hours=25)), "ends_at", "overlaps_itself"),
        (schedule("2100-03-02 02:30", takes=timedelta(hours=25)), "ends_at", "overlaps_itself"),
        (
            schedule("2026-03-02 02:30", "FREQ=YEARLY;BYMONTH=4;BYMONTHDAY=1,2", takes=timedelta(hours=25)),
            "ends_at",
            "overlaps_itself",
        ),
        # A day has 23 hours once a year.
        (schedule("2026-03-02 02:30", takes=timedelta(hours=24)), "ends_at", "overlaps_itself"),
        (
            schedule("2026-03-02 02:30", "FREQ=MONTHLY;BYMONTHDAY=1,15", takes=timedelta(days=15)),
            "ends_at",
            "overlaps_itself",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_at_the_field_that_is_wrong(found: Schedule, field: str, code: str):
    with pytest.raises(InvalidSchedule) as refused:
        require_sound(found, NOW)
    assert (refused.value.field, refused.value.code) == (field, code)


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd", "CEST", "+01:00", "europe/berlin"])
def test_a_zone_that_nobody_knows_is_refused(zone: str):
    moment = datetime(2026, 3, 2, tzinfo=UTC)
    with pytest.raises(InvalidSchedule) as refused:
        require_sound(Schedule(moment, moment + TWO_HOURS, zone, None), NOW)
    assert (refused.value.field, refused.value.code) == ("time_zone", "unknown_time_zone")


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, min_size=1, max_size=3, unique=True).map(",".join)


DAYS = st.tuples(st.sampled_from(["", "1", "-1", "5", "+2"]), st.sampled_from(["MO", "WE", "SU"])).map("".join)
PARTS = st.fixed_dictionaries(
    {"FREQ": st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"])},
    optional={
        "INTERVAL": st.integers(1, 999).map(str),
        "COUNT": st.integers(1, 9999).map(str),
        "UNTIL": st.sampled_from(["20260401", "20300101T000000", "20270101T000000Z"]),
        "BYDAY": lists(DAYS),
        "BYMONTH": lists(st.integers(1, 12).map(str)),
        "BYMONTHDAY": lists(st.integers(-31, 31).filter(bool).map(str)),
        "BYYEARDAY": lists(st.integers(-366, 366).filter(bool).map(str)),
        "BYWEEKNO": lists(st.integers(-53, 53).filter(bool).map(str)),
        "BYSETPOS": lists(st.integers(-366, 366).filter(bool).map(str)),
        "WKST": st.sampled_from(["MO", "SU"]),
    },
)
ZONES = st.sampled_from([BERLIN, NEW_YORK, "UTC", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"])


@settings(max_examples=300, deadline=None)
@given(
    parts=PARTS,
    zone=ZONES,
    first=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001  local
    hours=st.integers(1, 31 * 24),
)
def test_any_rule_is_refused_or_gives_occurrences_in_order_of_one_length_at_one_time_of_day(
    parts: dict[str, str], zone: str, first: datetime, hours: int
):
    rule = ";".join(f"{name}={text}" for name, text in parts.items())
    starts_at = first.replace(tzinfo=ZoneInfo(zone))
    takes = timedelta(hours=hours)
    found = Schedule(starts_at, starts_at.astimezone(UTC) + takes, zone, rule)
    try:
        written = require_sound(found, NOW)
    except InvalidSchedule:
        return
    assert len(written.occurrences) <= DAYS_AHEAD + 32
    before: Occurrence | None = None
    for each in written.occurrences:
        assert each.ends_at > NOW
        assert each.ends_at - each.starts_at == takes
        assert each.starts_at >= starts_at.replace(microsecond=0) - timedelta(hours=1), "an hour that comes twice"
        assert before is None or before.ends_at <= each.starts_at
        before = each

"""When a heartbeat is expected next, and which schedules are refused."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.probes.heartbeat import HeartbeatOptions, next_expected


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_who_says_nothing_is_expected_daily_within_an_hour_as_the_protocol_has_it():
    options = HeartbeatOptions.model_validate({})

    assert (options.period_seconds, options.grace_seconds, options.cron) == (86_400, 3_600, None)


def test_a_period_counts_from_the_last_success():
    expected = next_expected(HeartbeatOptions(period_seconds=90))

    assert expected(utc("2026-03-01T00:00:00.5")) == utc("2026-03-01T00:01:30.5")


@pytest.mark.parametrize(
    ("line", "zone", "success_at", "expected"),
    [
        ("30 2 * * *", "UTC", "2026-01-01T02:30", "2026-01-02T02:30"),
        ("30 2 * * *", "UTC", "2026-01-01T02:29:59", "2026-01-01T02:30"),
        ("*/15 9-17 * * 1-5", "UTC", "2026-01-02T17:45", "2026-01-05T09:00"),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("0 12 L * *", "UTC", "2026-02-01T00:00", "2026-02-28T12:00"),
        ("0 12 1 * fri", "UTC", "2026-05-02T00:00", "2026-05-08T12:00"),  # day or weekday, where neither is a star
        # The spring of Berlin: 02:00 to 03:00 of 29 March is left out. What falls in there runs at its end.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T02:00", "2026-03-29T01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00", "2026-03-30T00:30"),
        ("0 3 * * *", "Europe/Berlin", "2026-03-28T03:00", "2026-03-29T01:00"),
        ("30 * * * *", "Europe/Berlin", "2026-03-29T00:30", "2026-03-29T01:30"),  # every hour follows the clock
        # The autumn of Berlin: 02:00 to 03:00 of 25 October comes twice. What falls in there runs the first time.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T00:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30", "2026-10-26T01:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10", "2026-10-26T01:30"),  # a success in the second pass
        ("30 * * * *", "Europe/Berlin", "2026-10-25T00:30", "2026-10-25T01:30"),
        ("0 9 * * *", "America/New_York", "2026-03-07T15:00", "2026-03-08T13:00"),
        ("0 9 * * *", "Asia/Kolkata", "2026-03-07T03:30", "2026-03-08T03:30"),
    ],
)
def test_a_cron_line_means_what_debians_cron_means_by_it(line, zone, success_at, expected):
    assert next_expected(HeartbeatOptions(cron=line, timezone=zone))(utc(success_at)) == utc(expected)


LINES = st.sampled_from(["30 2 * * *", "0 3 * * 0", "*/20 * * * *", "15 1,2,3 * * *", "0 */6 * * *"])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
MOMENTS = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - naive bounds


@given(line=LINES, zone=ZONES, moment=MOMENTS)
def test_the_next_time_lies_ahead_and_not_further_than_the_line_allows(line, zone, moment):
    at = next_expected(HeartbeatOptions(cron=line, timezone=zone))(moment)

    assert moment < at <= moment + timedelta(days=8)


@pytest.mark.parametrize(
    ("options", "at", "code"),
    [
        ({"cron": "* * * *"}, ("cron",), "cron_invalid"),
        ({"cron": "0 * * * * *"}, ("cron",), "cron_invalid"),
        ({"cron": "61 * * * *"}, ("cron",), "cron_invalid"),
        ({"cron": "0 0 31 2 *"}, ("cron",), "cron_invalid"),
        ({"cron": "0 0 LW * */6"}, ("cron",), "cron_never"),  # the last working day of a month, if it is a Sunday
        ({"cron": "0 0 * * *", "timezone": "Europe/Atlantis"}, ("timezone",), "timezone_unknown"),
        ({"cron": "0 0 * * *", "timezone": "../../etc/passwd"}, ("timezone",), "timezone_unknown"),
        ({"cron": "0 0 * * *", "period_seconds": 60}, (), "two_schedules"),
        ({"period_seconds": 59}, ("period_seconds",), "greater_than_equal"),
        ({"period_seconds": 31_536_001}, ("period_seconds",), "less_than_equal"),
        ({"grace_seconds": 0}, ("grace_seconds",), "greater_than_equal"),
        ({"max_runtime_seconds": 0}, ("max_runtime_seconds",), "greater_than_equal"),
        ({"period": 60}, ("period",), "extra_forbidden"),
    ],
)
def test_what_is_no_schedule_is_refused_where_it_stands(options, at, code):
    with pytest.raises(ValidationError) as refused:
        HeartbeatOptions.model_validate(options)

    assert [(error["loc"], error["type"]) for error in refused.value.errors()] == [(at, code)]

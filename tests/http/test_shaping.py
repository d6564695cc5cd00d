"""Rows that go straight through leave as their models would have it."""

from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime, TypeAdapter

from server.features.channels import store as channels
from server.features.channels.schemas import Channel
from server.features.checks.schemas import Check
from server.features.deliveries import store as deliveries
from server.features.deliveries.schemas import Delivery
from server.features.incidents import store as incidents
from server.features.incidents.schemas import Comment, Incident, IncidentWithComments
from server.features.monitors import store as monitors
from server.features.monitors.schemas import Monitor
from server.features.orgs import store as orgs
from server.features.orgs.schemas import Organisation
from server.http import replies
from server.http.shaping import rfc3339, shape, time_fields
from tests.architecture.test_routes import DELIVERY
from tests.http.conftest import MONITOR
from tests.http.test_openapi import CHECK
from tests.http.test_parsing import CHANNEL, COMMENT, INCIDENT, ORGANISATION

MOMENT = TypeAdapter(AwareDatetime)
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001  made aware below


def spelled(moment: datetime, *, blank: bool = False) -> str:
    """As Postgres spells a time: trailing zeros of the fraction left out; a blank on the embedded stack unrepaired."""
    text = moment.isoformat(sep=" " if blank else "T")
    whole, _, rest = text.partition(".")
    fraction, offset = rest[:6], rest[6:]
    return whole if not rest else f"{whole}.{fraction.rstrip('0')}{offset}"


@given(moment=MOMENTS, blank=st.booleans(), hours=st.sampled_from([0, 0, 0, 1, -8, 5.5]))
def test_a_time_is_spelled_as_pydantic_spells_it(moment, blank, hours):
    text = spelled(moment.replace(tzinfo=timezone(timedelta(hours=hours))), blank=blank)
    wanted = MOMENT.dump_json(MOMENT.validate_python(text).astimezone(UTC)).decode().strip('"')
    assert rfc3339(text) == wanted


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-01", "2026-01-01T00:00:00", "infinity", "+00:00"])
def test_what_is_no_time_with_an_offset_is_refused(text):
    with pytest.raises((ValueError, IndexError)):
        rfc3339(text)


@pytest.mark.parametrize(
    ("model", "row"),
    [
        (Monitor, MONITOR),
        (Incident, INCIDENT),
        (Incident, {**INCIDENT, "acknowledged_at": MONITOR["created_at"], "acknowledged_by": MONITOR["id"]}),
        (IncidentWithComments, {**INCIDENT, "comments": [COMMENT, COMMENT]}),
        (IncidentWithComments, {**INCIDENT, "comments": []}),
        (Comment, COMMENT),
        (Organisation, ORGANISATION),
        (Channel, CHANNEL),
        (Delivery, DELIVERY),
        (Check, CHECK),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@given(moment=MOMENTS)
def test_a_row_leaves_as_its_model_would_dump_it(model, row, moment):
    names = set(model.model_fields)
    row = {name: value for name, value in orjson.loads(orjson.dumps(row)).items() if name in names}
    for each in [row, *row.get("comments", [])]:
        each.update((name, spelled(moment.replace(tzinfo=UTC))) for name in each if name.endswith("_at") and each[name])
    dumped = orjson.loads(model.model_validate(row).model_dump_json())
    shape(model, [row])
    assert row == dumped


def test_times_that_may_be_absent_are_left_so():
    assert set(time_fields(Incident)) == {"started_at", "opened_at", "acknowledged_at", "resolved_at"}
    assert replies.one(Comment, b'{"id":"x","created_at":"2026-01-01T00:00:00+00:00"}').body.endswith(b'00Z"}')


@pytest.mark.parametrize(
    ("columns", "model"),
    [
        (monitors.COLUMNS, Monitor),
        (incidents.COLUMNS, Incident),
        (incidents.COMMENT_COLUMNS, Comment),
        (channels.COLUMNS, Channel),
        (deliveries.COLUMNS, Delivery),
        (",".join(orgs.COLUMNS), Organisation),
    ],
)
def test_a_store_asks_for_exactly_what_is_on_the_wire(columns, model):
    assert columns.split(",") == sorted(columns.split(","), key=columns.split(",").index)
    assert set(columns.split(",")) == set(model.model_fields)

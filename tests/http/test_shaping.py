"""Rows that go straight through leave as their models would have it."""

from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime, TypeAdapter

from server.errors import AppError
from server.features.channels import store as channels
from server.features.channels.schemas import Channel
from server.features.checks.schemas import Check
from server.features.deliveries import store as deliveries
from server.features.deliveries.schemas import ChannelOfDelivery, Delivery, DeliveryAndMore, IncidentOfDelivery
from server.features.incidents import store as incidents
from server.features.incidents.schemas import (
    Comment,
    Incident,
    IncidentAndMore,
    IncidentWithComments,
    MonitorOfIncident,
)
from server.features.maintenance.schemas import WindowNow
from server.features.monitors import store as monitors
from server.features.monitors.schemas import LatestCheck, Monitor, MonitorAndMore, OpenIncident
from server.features.orgs import store as orgs
from server.features.orgs.schemas import Organisation
from server.http import replies
from server.http.shaping import rfc3339, shape, time_fields
from tests.architecture.test_routes import DELIVERY
from tests.http.conftest import MONITOR
from tests.http.test_openapi import CHECK
from tests.http.test_parsing import CHANNEL, COMMENT, INCIDENT, ORGANISATION, WINDOW

MOMENT = TypeAdapter(AwareDatetime)
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1))  # noqa: DTZ001  made aware below

LATEST_CHECK = {name: CHECK[name] for name in LatestCheck.model_fields}
OPEN_INCIDENT = {name: INCIDENT[name] for name in OpenIncident.model_fields}
MONITOR_OF_INCIDENT = {name: MONITOR[name] for name in MonitorOfIncident.model_fields}
CHANNEL_OF_DELIVERY = {name: CHANNEL[name] for name in ChannelOfDelivery.model_fields}


def embedded_columns(select: str) -> str:
    return select.partition("(")[2].removesuffix(")")


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
        (MonitorAndMore, {**MONITOR, "open_incident": OPEN_INCIDENT, "latest_check": LATEST_CHECK}),
        (MonitorAndMore, {**MONITOR, "open_incident": None}),
        (MonitorAndMore, MONITOR),
        (IncidentAndMore, {**INCIDENT, "comments": [COMMENT], "monitor": MONITOR_OF_INCIDENT}),
        (IncidentWithComments, {**INCIDENT, "comments": [COMMENT], "monitor": MONITOR_OF_INCIDENT}),
        (DeliveryAndMore, {**DELIVERY, "channel": CHANNEL_OF_DELIVERY, "incident": None}),
        (Comment, COMMENT),
        (Organisation, ORGANISATION),
        (WindowNow, WINDOW),
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
    embedded = [each for each in row.values() if isinstance(each, dict) and "id" in each]
    for each in [row, *row.get("comments", []), *embedded]:
        each.update((name, spelled(moment.replace(tzinfo=UTC))) for name in each if name.endswith("_at") and each[name])
    dumped = orjson.loads(model.model_validate(row).model_dump_json(exclude_unset=True))
    included = tuple(name for name in row if not model.model_fields[name].is_required())
    shape(model, [row], included)
    assert row == dumped


@pytest.mark.parametrize("several", [[], None])
@pytest.mark.parametrize("wrapped", [True, False], ids=["as PostgREST embeds it", "as the embedded Supabase does"])
def test_the_one_row_of_a_relation_that_could_have_many_comes_as_itself_or_null(wrapped, several):
    row = {**MONITOR, "latest_check": [LATEST_CHECK] if wrapped else LATEST_CHECK, "open_incident": several}
    shape(MonitorAndMore, [row], ("open_incident", "latest_check"))
    assert row["open_incident"] is None
    assert row["latest_check"] == {**LATEST_CHECK, "started_at": "2026-01-01T00:00:00.512345Z"}


@pytest.mark.parametrize("found", [[LATEST_CHECK, LATEST_CHECK], "text", [1], {}, 5])
def test_what_is_embedded_in_another_shape_is_no_success(found):
    with pytest.raises(AppError):
        shape(MonitorAndMore, [{**MONITOR, "latest_check": found}], ("latest_check",))


def test_what_was_asked_for_and_did_not_come_is_no_success_and_what_was_not_is_absent():
    row = dict(MONITOR)
    with pytest.raises(AppError):
        shape(MonitorAndMore, [dict(row)], ("open_incident",))
    with pytest.raises(AppError):
        shape(IncidentAndMore, [dict(INCIDENT)], ("comments",))
    shape(MonitorAndMore, [row])
    assert set(row) == set(Monitor.model_fields)


def test_times_that_may_be_absent_are_left_so():
    assert set(time_fields(Incident)) == {
        *("started_at", "opened_at", "acknowledged_at", "resolved_at", "alerted_at"),
    }
    assert (
        replies.one(Comment, b'{"id":"x","created_at":"2026-01-01T00:00:00+00:00"}').rendered().body.endswith(b'00Z"}')
    )


@pytest.mark.parametrize(
    ("columns", "model"),
    [
        (monitors.COLUMNS, Monitor),
        (incidents.COLUMNS, Incident),
        (incidents.COMMENT_COLUMNS, Comment),
        (channels.COLUMNS, Channel),
        (deliveries.COLUMNS, Delivery),
        (",".join(orgs.COLUMNS), Organisation),
        (embedded_columns(monitors.EMBEDDED["open_incident"]), OpenIncident),
        (embedded_columns(monitors.EMBEDDED["latest_check"]), LatestCheck),
        (embedded_columns(incidents.EMBEDDED["monitor"]), MonitorOfIncident),
        (embedded_columns(incidents.EMBEDDED["comments"]), Comment),
        (embedded_columns(deliveries.EMBEDDED["channel"]), ChannelOfDelivery),
        (embedded_columns(deliveries.EMBEDDED["incident"]), IncidentOfDelivery),
    ],
)
def test_a_store_asks_for_exactly_what_is_on_the_wire(columns, model):
    assert columns.split(",") == sorted(columns.split(","), key=columns.split(",").index)
    assert set(columns.split(",")) == set(model.model_fields)

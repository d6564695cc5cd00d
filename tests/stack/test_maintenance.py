"""Maintenance windows from announcing to the end, through the API, and what a worker makes of them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.data.privileged import Privileged
from server.data.transport import UpstreamSession
from server.worker.store import WorkerStore
from tests.stack.conftest import EmbeddedSupabase, User, sign_up_at
from tests.stack.product import Api
from tests.stack.sql import make_monitor, rows, value

WINDOWS = "/v1/maintenance-windows"
DAILY = "FREQ=DAILY"
HOUR = timedelta(hours=1)
LATER = {"starts_at": "2100-01-01T00:00:00Z", "ends_at": "2100-01-01T01:00:00Z"}


@pytest.fixture
def org_id(owner: Api) -> UUID:
    """The owner's organisation."""
    (org,) = owner.ask("GET", "/v1/orgs")["data"]
    return UUID(org["id"])


@pytest.fixture
def monitor_id(connection: psycopg.Connection, org_id: UUID) -> UUID:
    return make_monitor(connection, org_id)


def draft(begins: timedelta, ends: timedelta, **more: Any) -> dict[str, Any]:
    """Return what announces maintenance of everything, relative to now."""
    now = datetime.now(UTC)
    times = {"starts_at": (now + begins).isoformat(), "ends_at": (now + ends).isoformat()}
    return {"name": "Backups", "all_monitors": True, **times, **more}


def announce(owner: Api, begins: timedelta, ends: timedelta, **more: Any) -> dict[str, Any]:
    announced: dict[str, Any] = owner.ask("POST", WINDOWS, json=draft(begins, ends, **more))
    return announced


def occurrences(connection: psycopg.Connection, org_id: UUID) -> list[tuple[datetime, datetime]]:
    statement = "select starts_at, ends_at from maintenance_occurrences where org_id = %s order by starts_at"
    return [(begins, ends) for begins, ends in rows(connection, statement, [org_id])]


def covered(
    connection: psycopg.Connection, monitor_id: UUID, begins: datetime, ends: datetime
) -> list[tuple[datetime, datetime]]:
    """Return when a monitor was, is or will be in maintenance."""
    statement = "select starts_at, ends_at from private.maintenance_of(%s, %s, %s)"
    return [(start, end) for start, end in rows(connection, statement, [monitor_id, begins, ends])]


def let_pass(connection: psycopg.Connection, org_id: UUID, time: timedelta) -> None:
    """Move an organisation's maintenance back, as if so much time had passed."""
    for table in ("maintenance_occurrences", "maintenance_windows"):
        connection.execute(
            f"update {table} set starts_at = starts_at - %(time)s, ends_at = ends_at - %(time)s where org_id = %(org)s",
            {"time": time, "org": org_id},
        )


def test_a_window_is_announced_read_listed_and_deleted(owner: Api, monitor_id: UUID):
    body = draft(HOUR, 2 * HOUR, description=" New disks ", all_monitors=False, monitor_ids=[str(monitor_id)])
    answer = owner.send("POST", WINDOWS, json=body)
    assert answer.status_code == 201, answer.text
    window = answer.json()
    here = answer.headers["Location"]
    assert here == f"{WINDOWS}/{window['id']}"
    assert (window["description"], window["monitor_ids"]) == ("New disks", [str(monitor_id)])
    assert (window["active"], window["current_until"], window["recurrence"]) == (False, None, None)
    assert window["next_starts_at"] == window["starts_at"]
    assert owner.ask("GET", here) == window
    assert owner.ask("GET", WINDOWS)["data"] == [window]
    assert owner.send("DELETE", here).status_code == 204
    assert owner.send("GET", here).status_code == 404
    assert owner.ask("GET", WINDOWS)["data"] == []


def test_what_goes_on_now_can_be_asked_for(owner: Api):
    now, later = announce(owner, -HOUR, HOUR), announce(owner, HOUR, 2 * HOUR)
    assert (now["active"], now["current_until"], now["next_starts_at"]) == (True, now["ends_at"], None)
    assert owner.ask("GET", f"{WINDOWS}?active=true")["data"] == [now]
    assert owner.ask("GET", f"{WINDOWS}?active=false")["data"] == [later]


def test_nothing_is_maintenance_after_the_fact(owner: Api, connection: psycopg.Connection, org_id: UUID):
    before = value(connection, "select now()")
    announce(owner, -HOUR, HOUR)
    ((begins, _),) = occurrences(connection, org_id)
    assert before <= begins <= value(connection, "select now()"), "it counts from when it was announced"


def test_a_recurring_window_is_written_out_for_400_days_at_its_local_time(
    owner: Api, connection: psycopg.Connection, org_id: UUID
):
    first = {"starts_at": "2026-01-01T02:30:00+01:00", "ends_at": "2026-01-01T04:00:00+01:00"}
    rule = {"recurrence": DAILY, "time_zone": "Europe/Berlin"}
    window = owner.ask("POST", WINDOWS, json={"name": "Backups", "all_monitors": True, **first, **rule})
    local = "select distinct to_char(starts_at at time zone 'Europe/Berlin', 'HH24:MI') from maintenance_occurrences"
    at = {each for (each,) in rows(connection, f"{local} where org_id = %s and starts_at > now()", [org_id])}
    assert at <= {"02:30", "03:30"}, "03:30 where the clock skips 02:30"
    assert 399 <= len(occurrences(connection, org_id)) <= 401
    assert window["next_starts_at"] is not None
    assert value(connection, "select written_until - now() from maintenance_windows where org_id = %s", [org_id]) > (
        timedelta(days=399)
    )


def test_the_same_window_is_not_announced_twice_under_one_key(owner: Api):
    body = draft(HOUR, 2 * HOUR)
    first, second = (
        owner.send("POST", WINDOWS, json=body, headers={"Idempotency-Key": "one"}).json() for _ in range(2)
    )
    assert first == second
    assert len(owner.ask("GET", WINDOWS)["data"]) == 1


def test_what_goes_on_is_ended_before_its_time_and_what_recurs_comes_again(
    owner: Api, connection: psycopg.Connection, org_id: UUID, monitor_id: UUID
):
    window = announce(owner, -HOUR, HOUR, recurrence=DAILY)
    here = f"{WINDOWS}/{window['id']}"
    let_pass(connection, org_id, timedelta(minutes=10))
    ended = owner.ask("POST", f"{here}/end")
    assert (ended["active"], ended["current_until"], ended["version"]) == (False, None, 3)
    assert ended["ended_at"] is not None
    assert ended["next_starts_at"] is not None
    now = value(connection, "select now()")
    ((begins, ends),) = covered(connection, monitor_id, now - HOUR, now + HOUR)
    assert ends <= now, "what was, was"
    assert ends - begins >= timedelta(minutes=10)
    again = owner.send("POST", f"{here}/end")
    assert (again.status_code, again.json()["code"]) == (409, "not_in_maintenance")


def test_a_new_name_moves_nothing(owner: Api, connection: psycopg.Connection, org_id: UUID):
    window = announce(owner, -HOUR, HOUR, recurrence=DAILY)
    before = occurrences(connection, org_id)
    changed = owner.ask("PATCH", f"{WINDOWS}/{window['id']}", json={"name": "New", "description": "x"})
    assert (changed["name"], changed["description"], changed["version"]) == ("New", "x", 2)
    assert occurrences(connection, org_id) == before


def test_what_takes_longer_goes_on_without_a_gap(
    owner: Api, connection: psycopg.Connection, org_id: UUID, monitor_id: UUID
):
    window = announce(owner, -HOUR, HOUR)
    longer = datetime.fromisoformat(window["ends_at"]) + HOUR
    changed = owner.ask("PATCH", f"{WINDOWS}/{window['id']}", json={"ends_at": longer.isoformat()})
    assert (changed["active"], datetime.fromisoformat(changed["current_until"])) == (True, longer)
    assert len(occurrences(connection, org_id)) == 2
    ((_, ends),) = covered(connection, monitor_id, longer - 4 * HOUR, longer + HOUR)
    assert ends == longer


def test_what_is_over_keeps_whom_it_covered_whatever_becomes_of_the_window(
    owner: Api, connection: psycopg.Connection, org_id: UUID, monitor_id: UUID
):
    other = make_monitor(connection, org_id, "other")
    window = announce(owner, -HOUR, HOUR, all_monitors=False, monitor_ids=[str(monitor_id)])
    here = f"{WINDOWS}/{window['id']}"
    let_pass(connection, org_id, timedelta(minutes=10))
    owner.ask("PATCH", here, json={"monitor_ids": [str(other)]})
    now = value(connection, "select now()")
    ((begins, ends),) = covered(connection, monitor_id, now - HOUR, now + HOUR)
    assert ends <= now
    ((since, until),) = covered(connection, other, now - HOUR, now + HOUR)
    assert (since, until > now) == (ends, True)
    owner.send("DELETE", here)
    assert covered(connection, monitor_id, now - HOUR, now + HOUR) == [(begins, ends)]
    assert all(
        end <= value(connection, "select now()") for _, end in covered(connection, other, now - HOUR, now + HOUR)
    )


def test_a_change_is_held_against_the_version_that_was_read(owner: Api):
    window = announce(owner, -HOUR, HOUR)
    here = f"{WINDOWS}/{window['id']}"
    tag = owner.send("GET", here).headers["ETag"]
    owner.ask("PATCH", here, json={"name": "New"}, headers={"If-Match": tag})
    for method, path in (("PATCH", here), ("POST", f"{here}/end"), ("DELETE", here)):
        stale = owner.send(
            method, path, json={"name": "Newer"} if method == "PATCH" else None, headers={"If-Match": tag}
        )
        assert stale.status_code == 412, (method, stale.text)
    assert owner.ask("GET", here)["name"] == "New"


def test_a_window_covers_monitors_of_its_own_organisation_that_there_are(
    owner: Api, connection: psycopg.Connection, org_id: UUID, monitor_id: UUID
):
    elsewhere = value(connection, "insert into organisations (name) values ('Elsewhere') returning id")
    foreign = make_monitor(connection, elsewhere)
    body = {"name": "x", "monitor_ids": [str(monitor_id), str(foreign)], **LATER}
    refused = owner.send("POST", WINDOWS, json=body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/monitor_ids/1")
    assert refused.json()["errors"][0]["code"] == "unknown_monitor"
    window = owner.ask("POST", WINDOWS, json=body | {"monitor_ids": [str(monitor_id)]})
    connection.execute("delete from monitors where id = %s", [monitor_id])
    assert owner.ask("GET", f"{WINDOWS}/{window['id']}")["monitor_ids"] == []


# What is said of a window, and the field and the code that it is refused with.
@pytest.mark.parametrize(
    ("said", "pointer", "code"),
    [
        ({"recurrence": "every saturday"}, "/recurrence", "recurrence_unreadable"),
        ({"recurrence": "FREQ=HOURLY"}, "/recurrence", "recurrence_unreadable"),
        ({"recurrence": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"}, "/recurrence", "never_occurs"),
        ({"time_zone": "Mars/Olympus"}, "/time_zone", "unknown_time_zone"),
        ({"ends_at": "2099-01-01T00:00:00Z"}, "/ends_at", "end_before_start"),
        ({"ends_at": "2100-02-01T00:00:01Z"}, "/ends_at", "too_long"),
        ({"ends_at": "2100-01-03T00:00:00Z", "recurrence": DAILY}, "/ends_at", "overlaps_itself"),
        ({"starts_at": "2001-01-01T00:00:00Z", "ends_at": "2001-01-01T01:00:00Z"}, "/ends_at", "over_already"),
        ({"all_monitors": False}, "/monitor_ids", "scope_unclear"),
        ({"monitor_ids": ["a7470079-8fd5-40eb-8b1d-c790840bc8b3"]}, "/monitor_ids", "scope_unclear"),
        ({"starts_at": "2100-01-01T00:00:00"}, "/starts_at", "timezone_aware"),
        ({"duration": 5}, "/duration", "unknown_field"),
    ],
)
def test_what_cannot_be_is_refused_at_its_field_when_it_is_made_and_when_it_is_changed(
    owner: Api, said: dict[str, Any], pointer: str, code: str
):
    whole = {"name": "x", "all_monitors": True, **LATER}
    refused = owner.send("POST", WINDOWS, json=whole | said)
    assert refused.status_code == 422
    assert [(fault["pointer"], fault["code"]) for fault in refused.json()["errors"]] == [(pointer, code)]
    window = owner.ask("POST", WINDOWS, json=whole)
    changed = owner.send("PATCH", f"{WINDOWS}/{window['id']}", json=said)
    assert [(fault["pointer"], fault["code"]) for fault in changed.json()["errors"]] == [(pointer, code)]
    assert owner.ask("GET", f"{WINDOWS}/{window['id']}")["version"] == 1


def test_what_happens_to_a_window_is_in_the_feed_and_in_the_audit_trail(owner: Api):
    position = owner.ask("GET", "/v1/events")["next_after"]
    window = announce(owner, -HOUR, HOUR)
    here = f"{WINDOWS}/{window['id']}"
    owner.ask("PATCH", here, json={"name": "New"})
    owner.send("DELETE", here)
    events = owner.ask("GET", f"/v1/events?after={position}")["data"]
    assert [event["type"] for event in events] == [
        f"maintenance_window.{what}" for what in ("created", "updated", "deleted")
    ]
    assert events[1]["data"]["name"] == "New"
    assert "written_until" not in events[1]["data"]
    audited = owner.ask("GET", "/v1/audit?subject_kind=maintenance_window")["data"]
    assert [entry["type"].partition(".")[2] for entry in audited] == ["deleted", "updated", "created"]
    assert (audited[1]["before"]["name"], audited[1]["after"]["name"]) == ("Backups", "New")


@pytest.fixture
def store(own_supabase: EmbeddedSupabase) -> Iterator[WorkerStore]:
    """The calls of a worker."""
    with UpstreamSession() as session:
        yield WorkerStore(Privileged(session, own_supabase.url, own_supabase.secret_key), "test")


def test_the_worker_writes_a_recurring_window_out_further_as_time_passes(
    owner: Api, connection: psycopg.Connection, org_id: UUID, store: WorkerStore
):
    announce(owner, HOUR, 2 * HOUR, recurrence=DAILY)
    whole = occurrences(connection, org_id)
    connection.execute(
        "update maintenance_windows set written_until = now() + interval '300 days 30 minutes' where org_id = %s",
        [org_id],
    )
    connection.execute(
        "delete from maintenance_occurrences where org_id = %s and starts_at > now() + interval '300 days 30 minutes'",
        [org_id],
    )
    assert len(occurrences(connection, org_id)) < len(whole)
    for _ in range(2):
        store.extend_windows()
        assert occurrences(connection, org_id)[: len(whole)] == whole, "and a second time changes nothing"
    assert value(connection, "select version from maintenance_windows where org_id = %s", [org_id]) == 1


def test_a_window_that_was_changed_since_it_was_read_is_not_written_out(
    owner: Api, connection: psycopg.Connection, org_id: UUID
):
    window = announce(owner, HOUR, 2 * HOUR, recurrence=DAILY)
    owner.ask("PATCH", f"{WINDOWS}/{window['id']}", json={"name": "New"})
    wrote = value(connection, "select extend_window(%s, 1, '[]', null)", [window["id"]])
    assert wrote is False
    assert value(connection, "select written_until from maintenance_windows where org_id = %s", [org_id]) is not None


def test_a_window_whose_zone_is_none_any_more_costs_nobody_else_anything(
    owner: Api, connection: psycopg.Connection, org_id: UUID, store: WorkerStore
):
    announce(owner, HOUR, 2 * HOUR, recurrence=DAILY)
    connection.execute(
        "update maintenance_windows set written_until = now(), time_zone = 'Mars/Olympus' where org_id = %s", [org_id]
    )
    store.extend_windows()
    assert value(connection, "select written_until from maintenance_windows where org_id = %s", [org_id]) is None


BEGINNING = datetime(2026, 3, 1, tzinfo=UTC)
STRETCHES = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20), st.booleans()), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stretches=STRETCHES, begins=st.integers(0, 40), takes=st.integers(1, 40))
def test_maintenance_is_told_merged_cut_to_the_bounds_and_in_order(
    connection: psycopg.Connection, stretches: list[tuple[int, int, bool]], begins: int, takes: int
):
    org = value(connection, "insert into organisations (name) values ('Acme') returning id")
    monitor, other = make_monitor(connection, org), make_monitor(connection, org)
    for start, length, is_mine in stretches:  # of windows that are no more, so that they may overlap
        connection.execute(
            "insert into maintenance_occurrences (org_id, starts_at, ends_at, all_monitors, monitor_ids)"
            " values (%s, %s, %s, false, %s)",
            [org, BEGINNING + start * HOUR, BEGINNING + (start + length) * HOUR, [monitor if is_mine else other]],
        )
    found = covered(connection, monitor, BEGINNING + begins * HOUR, BEGINNING + (begins + takes) * HOUR)
    connection.execute("delete from organisations where id = %s", [org])
    hours = [hour for start, length, is_mine in stretches if is_mine for hour in range(start, start + length)]
    wanted = sorted({hour for hour in hours if begins <= hour < begins + takes})
    told = [((start - BEGINNING) // HOUR, (end - BEGINNING) // HOUR) for start, end in found]
    assert [hour for start, end in told for hour in range(start, end)] == wanted
    assert all(first[1] < second[0] for first, second in pairwise(told)), "merged, and in order"


def test_who_is_no_member_sees_no_maintenance_and_makes_none(
    quiet_api: Api, own_supabase: EmbeddedSupabase, owner: Api, org_id: UUID, user: User
):
    window = announce(owner, -HOUR, HOUR)
    stranger = quiet_api.as_user(sign_up_at(own_supabase).access_token)
    stranger.ask("POST", "/v1/orgs", json={"name": "Elsewhere"})
    assert stranger.ask("GET", WINDOWS)["data"] == []
    for path in (f"{WINDOWS}/{window['id']}", f"{WINDOWS}/{window['id']}/end"):
        assert stranger.send("POST" if path.endswith("end") else "GET", path).status_code == 404

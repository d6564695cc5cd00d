"""What a write brings with it in the same transaction: ledger lines, events, versions, deliveries, ended incidents."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.stack.sql import (
    World,
    acting_as,
    claim,
    incident_since,
    make_world,
    open_incident,
    record,
    result,
    rows,
    value,
)


@pytest.fixture
def world(connection: psycopg.Connection) -> World:
    return make_world(connection)


def test_lines_of_one_monitor_cannot_overlap_whoever_writes_them(connection: psycopg.Connection, world: World):
    line = (
        "insert into intervals (org_id, monitor_id, state, started_at, ended_at, cause)"
        " values (%s, %s, 'up', %s, %s, 'x')"
    )
    now = value(connection, "select now()")
    connection.execute(line, [world.org_id, world.monitor_id, now, now + timedelta(minutes=5)])
    with pytest.raises(psycopg.errors.ExclusionViolation):
        connection.execute(line, [world.org_id, world.monitor_id, now + timedelta(minutes=4), None])
    connection.execute(line, [world.org_id, world.monitor_id, now + timedelta(minutes=5), None])
    with pytest.raises(psycopg.Error):
        connection.execute(line, [world.org_id, world.monitor_id, now + timedelta(minutes=6), None])


def test_a_line_that_would_begin_before_the_open_one_takes_its_place(connection: psycopg.Connection, world: World):
    now = value(connection, "select now()")
    write = "select private.write_interval(%s, %s, %s, %s, 'test')"
    connection.execute(write, [world.monitor_id, world.org_id, "up", now])
    connection.execute(write, [world.monitor_id, world.org_id, "down", now - timedelta(minutes=1)])
    assert rows(
        connection, "select state, started_at, ended_at from intervals where monitor_id = %s", [world.monitor_id]
    ) == [("down", now, None)]


def test_a_line_that_gives_way_to_the_state_before_it_leaves_one_line_and_not_two(
    connection: psycopg.Connection, world: World
):
    """As a clock that was set back makes it: down since a time that is yet to come, and back before that."""
    now = value(connection, "select now()")
    write = "select private.write_interval(%s, %s, %s, %s, 'test')"
    for state, minutes in (("up", 0), ("down", 60), ("up", 5)):
        connection.execute(write, [world.monitor_id, world.org_id, state, now + timedelta(minutes=minutes)])
    assert rows(
        connection, "select state, started_at, ended_at from intervals where monitor_id = %s", [world.monitor_id]
    ) == [("up", now, None)]


def test_messages_of_an_incident_stay_in_order_when_the_clock_is_set_back(connection: psycopg.Connection, world: World):
    incident_id = open_incident(connection, world)
    connection.execute(
        "update deliveries set created_at = created_at + interval '1 hour' where incident_id = %s", [incident_id]
    )
    connection.execute(
        "update incidents set state = 'resolved', resolution = 'recovered', resolved_at = now() where id = %s",
        [incident_id],
    )
    told = rows(connection, "select type from deliveries where incident_id = %s order by created_at", [incident_id])
    assert told == [("incident.opened",), ("incident.resolved",)]


def test_still_down_after_a_hole_is_not_down_once_more(connection: psycopg.Connection, world: World):
    now = value(connection, "select now()")
    down = claim(connection, world.monitor_id)
    lines = [
        {"state": state, "at": (now + timedelta(seconds=place)).isoformat(), "cause": "test"}
        for place, state in enumerate(("down", "unknown", "down"))
    ]
    record(connection, result(down, at=now, state="down", transitions=lines, incident=incident_since(now)))
    assert len(claim(connection, world.monitor_id)["recent_downs"]) == 1


def test_every_write_of_a_person_is_an_event_with_their_name_in_the_same_transaction(
    connection: psycopg.Connection, world: World
):
    editor, incident_id = world.people["editor"], open_incident(connection, world)
    last_seq = value(connection, "select max(seq) from events")
    with acting_as(connection, editor):
        connection.execute("update monitors set name = 'renamed' where id = %s", [world.monitor_id])
        connection.execute("update incidents set state = 'acknowledged' where id = %s", [incident_id])
        connection.execute(
            "insert into incident_comments (org_id, incident_id, body) values (%s, %s, 'on it')",
            [world.org_id, incident_id],
        )
        tested = value(connection, "select test_channel(%s)", [world.channel_id])
        connection.execute("select retry_delivery(%s)", [tested["id"]])
        connection.execute("update monitors set paused = true where id = %s", [world.monitor_id])
        connection.execute("update monitors set paused = false where id = %s", [world.monitor_id])
        connection.execute("delete from channels where id = %s", [world.channel_id])
        connection.execute("delete from monitors where id = %s", [world.monitor_id])
        xid = value(connection, "select pg_current_xact_id()::text")
    written = rows(
        connection,
        "select type, actor_kind, actor_id, xid::text from events where org_id = %s and seq > %s order by seq",
        [world.org_id, last_seq],
    )
    types = [row[0] for row in written]
    assert types[:5] == [
        "monitor.updated",
        "incident.acknowledged",
        "incident_comment.created",
        "delivery.created",
        "delivery.retried",
    ]
    assert sorted(types[5:]) == sorted(
        [
            "monitor.paused",
            "incident.resolved",
            "monitor.resumed",
            "channel.deleted",
            "monitor.deleted",
            "incident.deleted",
            "incident_comment.deleted",
        ]
    )
    assert {row[1:] for row in written} == {("user", editor, xid)}


def test_a_change_that_is_rolled_back_leaves_no_event(connection: psycopg.Connection, world: World):
    before = value(connection, "select count(*) from events where org_id = %s", [world.org_id])
    with acting_as(connection, world.people["owner"], keep=False):
        connection.execute("update monitors set name = 'never' where id = %s", [world.monitor_id])
    assert value(connection, "select count(*) from events where org_id = %s", [world.org_id]) == before


def test_an_event_tells_what_was_and_what_is(connection: psycopg.Connection, world: World):
    with acting_as(connection, world.people["owner"]):
        connection.execute("update monitors set name = 'new name' where id = %s", [world.monitor_id])
    ((before, after),) = rows(
        connection,
        "select before ->> 'name', after ->> 'name' from events where subject_id = %s and type = 'monitor.updated'",
        [world.monitor_id],
    )
    assert (before, after) == ("site", "new name")


def test_founding_an_organisation_is_an_event_of_its_founder(connection: psycopg.Connection, world: World):
    stranger = world.people["stranger"]
    with acting_as(connection, stranger):
        created = value(connection, "select create_organisation('New')")
    assert created["my_role"] == "owner"
    written = rows(connection, "select type, actor_id from events where org_id = %s order by seq", [created["id"]])
    assert written == [("organisation.created", stranger), ("membership.created", stranger)]


def test_only_a_persons_change_raises_a_monitors_version(connection: psycopg.Connection, world: World):
    def version() -> int:
        found: int = value(connection, "select version from monitors where id = %s", [world.monitor_id])
        return found

    go_down(connection, world)
    assert version() == 1, "the weather is no change"
    with acting_as(connection, world.people["editor"]):
        connection.execute("update monitors set name = 'site' where id = %s", [world.monitor_id])
    assert version() == 1, "nothing is different"
    for number, change in enumerate(("name = 'x'", "paused = true", "paused = false", "interval_seconds = 30"), 2):
        with acting_as(connection, world.people["editor"]):
            connection.execute(f"update monitors set {change} where id = %s", [world.monitor_id])
        assert version() == number, change


def test_down_counts_from_the_first_failure_not_from_its_confirmation(connection: psycopg.Connection, world: World):
    first = value(connection, "select now() - interval '15 seconds'")
    suspicion = result(claim(connection, world.monitor_id), at=first, state="pending", failures=1, transitions=[])
    assert record(connection, suspicion) == 1
    confirmed = result(
        claim(connection, world.monitor_id),
        at=first + timedelta(seconds=15),
        state="down",
        state_since=first.isoformat(),
    )
    assert record(connection, confirmed) == 1
    assert rows(connection, "select state, state_since from monitors where id = %s", [world.monitor_id]) == [
        ("down", first)
    ]


def test_a_pause_closes_the_line_resolves_the_incident_and_tells_the_channels(
    connection: psycopg.Connection, world: World
):
    incident_id = go_down(connection, world)
    with acting_as(connection, world.people["editor"]):
        connection.execute("update monitors set paused = true where id = %s", [world.monitor_id])
        now = value(connection, "select now()")
    lines = rows(
        connection,
        "select state, cause, ended_at from intervals where monitor_id = %s order by started_at",
        [world.monitor_id],
    )
    assert lines == [("down", "test", now), ("unknown", "paused", None)]
    assert rows(connection, "select state, resolution, resolved_by from incidents where id = %s", [incident_id]) == [
        ("resolved", "monitor_paused", world.people["editor"])
    ]
    assert told(connection, world) == ["incident.opened", "incident.resolved"]
    schedule = (
        "select due_at, lease_token, failures, last_observed_at from private.monitor_schedules where monitor_id = %s"
    )
    assert rows(connection, schedule, [world.monitor_id]) == [(None, None, 0, None)]
    assert rows(connection, "select state, state_since from monitors where id = %s", [world.monitor_id]) == [
        ("unknown", now)
    ]


def test_a_resumed_monitor_is_new_and_due_at_once(connection: psycopg.Connection, world: World):
    for paused in (True, False):
        with acting_as(connection, world.people["editor"]):
            connection.execute("update monitors set paused = %s where id = %s", [paused, world.monitor_id])
    assert value(connection, "select state from monitors where id = %s", [world.monitor_id]) == "new"
    is_due = "select due_at <= now() from private.monitor_schedules where monitor_id = %s"
    assert value(connection, is_due, [world.monitor_id])


def test_a_paused_monitor_is_never_due_whatever_is_changed_of_it(connection: psycopg.Connection, world: World):
    for change in ("paused = true", "interval_seconds = 30", "target = 'http://elsewhere/'"):
        with acting_as(connection, world.people["editor"]):
            connection.execute(f"update monitors set {change} where id = %s", [world.monitor_id])
    is_due = "select due_at from private.monitor_schedules where monitor_id = %s"
    assert value(connection, is_due, [world.monitor_id]) is None


def test_what_changes_nothing_takes_no_lease_away(connection: psycopg.Connection, world: World):
    claimed = claim(connection, world.monitor_id)
    with acting_as(connection, world.people["editor"]):
        connection.execute(
            "update monitors set paused = false, interval_seconds = 60 where id = %s", [world.monitor_id]
        )
    assert record(connection, result(claimed, at=value(connection, "select now()"))) == 1


def test_a_new_target_is_due_at_once_and_starts_the_count_afresh(connection: psycopg.Connection, world: World):
    claimed = claim(connection, world.monitor_id)
    pending = result(claimed, at=value(connection, "select now()"), state="pending", failures=1, transitions=[])
    record(connection, pending)
    old_question = claim(connection, world.monitor_id)
    with acting_as(connection, world.people["editor"]):
        connection.execute("update monitors set target = 'http://elsewhere/' where id = %s", [world.monitor_id])
    schedule = "select due_at <= now(), lease_token, failures, streak_since from private.monitor_schedules"
    assert rows(connection, schedule + " where monitor_id = %s", [world.monitor_id]) == [(True, None, 0, None)]
    late = result(old_question, at=value(connection, "select now()"), state="down")
    assert record(connection, late) == 0, "the answer to the old question decides nothing"


def test_deleting_a_monitor_with_an_open_incident_leaves_word_that_it_is_over(
    connection: psycopg.Connection, world: World
):
    incident_id = go_down(connection, world)
    with acting_as(connection, world.people["editor"]):
        connection.execute("delete from monitors where id = %s", [world.monitor_id])
    left = rows(
        connection,
        "select type, state, incident_id, payload -> 'incident' ->> 'id', payload -> 'incident' ->> 'resolution'"
        " from deliveries where channel_id = %s order by created_at",
        [world.channel_id],
    )
    assert left == [
        ("incident.opened", "pending", None, str(incident_id), None),
        ("incident.resolved", "pending", None, str(incident_id), "monitor_deleted"),
    ]


def test_deleting_an_organisation_takes_everything_but_the_events(connection: psycopg.Connection, world: World):
    go_down(connection, world)
    with acting_as(connection, world.people["owner"]):
        connection.execute("select delete_organisation(%s)", [world.org_id])
    tables = (
        "organisations where id",
        "memberships where org_id",
        "monitors where org_id",
        "intervals where org_id",
        "check_results where org_id",
        "incidents where org_id",
        "channels where org_id",
        "deliveries where org_id",
    )
    assert {
        name: value(connection, f"select count(*) from {name} = %s", [world.org_id]) for name in tables
    } == dict.fromkeys(tables, 0)
    deleted = rows(
        connection, "select type, actor_id from events where org_id = %s and type like '%%deleted'", [world.org_id]
    )
    assert {"organisation.deleted", "monitor.deleted", "channel.deleted", "incident.deleted"} <= {
        row[0] for row in deleted
    }
    assert {row[1] for row in deleted} == {world.people["owner"]}


def test_an_organisation_is_deleted_only_at_the_version_that_was_read(connection: psycopg.Connection, world: World):
    with pytest.raises(psycopg.Error) as refused, acting_as(connection, world.people["owner"]):
        connection.execute("select delete_organisation(%s, 7)", [world.org_id])
    assert refused.value.sqlstate == "PT412"


@pytest.mark.parametrize("to", ["open", "acknowledged"])
def test_a_resolved_incident_stays_resolved(connection: psycopg.Connection, world: World, to: str):
    incident_id = open_incident(connection, world)
    change = "update incidents set state = %s where id = %s"
    with acting_as(connection, world.people["editor"]):
        connection.execute(change, ["resolved", incident_id])
    with pytest.raises(psycopg.Error) as refused, acting_as(connection, world.people["editor"]):
        connection.execute(change, [to, incident_id])
    assert refused.value.sqlstate == "PT409"


def test_word_of_an_incident_is_dated_in_the_order_in_which_it_moved(connection: psycopg.Connection, world: World):
    incident_id = open_incident(connection, world)
    assert connection.info.dsn
    with psycopg.connect(connection.info.dsn) as early, psycopg.connect(connection.info.dsn) as late:
        early.execute("select now()")  # its transaction begins before the other's, and changes after it
        late.execute("update incidents set state = 'acknowledged' where id = %s", [incident_id])
        late.commit()
        early.execute("update incidents set state = 'resolved' where id = %s", [incident_id])
        early.commit()
    assert told(connection, world) == ["incident.opened", "incident.acknowledged", "incident.resolved"]


def go_down(connection: psycopg.Connection, world: World) -> UUID:
    """Let the monitor be up, then down with an incident, as a worker records it."""
    now = value(connection, "select now() - interval '10 seconds'")
    claimed: dict[str, Any] = claim(connection, world.monitor_id)
    assert record(connection, result(claimed, at=now, state="down", incident=incident_since(now))) == 1
    incident_id: UUID = value(connection, "select id from incidents where monitor_id = %s", [world.monitor_id])
    return incident_id


def told(connection: psycopg.Connection, world: World) -> list[str]:
    found = rows(
        connection, "select type from deliveries where channel_id = %s order by created_at", [world.channel_id]
    )
    return [message_type for (message_type,) in found]

"""Broadcasts over Supabase Realtime, on a real Postgres with a stand-in for Realtime's own schema.

The stand-in has the names and signatures that Supabase documents; what it does is to keep what was sent.
"""

import json
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest

from tests.architecture.test_boundaries import ROOT
from tests.stack.sql import World, acting_as, make_world, rows, value

MIGRATION = ROOT / "supabase" / "migrations" / "20261124000016_realtime_broadcast.sql"
STAND_IN = """
    create schema realtime;
    grant usage on schema realtime to authenticated;
    create table realtime.messages (
      id uuid not null default gen_random_uuid(), topic text not null, extension text not null, payload jsonb,
      event text, private boolean default false, inserted_at timestamp not null default now()
    );
    alter table realtime.messages enable row level security;
    grant select on realtime.messages to authenticated;
    create function realtime.topic() returns text language sql stable
      as $$ select nullif(current_setting('realtime.topic', true), '') $$;
    create function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void
      language sql
      as $$ insert into realtime.messages (payload, event, topic, private, extension)
            values (payload, event, topic, private, 'broadcast') $$;
"""


@pytest.fixture(scope="module")
def world(connection: psycopg.Connection) -> Iterator[World]:
    before = value(connection, "select count(*) from pg_trigger where tgname = 'broadcast'")
    assert before == 0, "where there is no Realtime the migration has done nothing"
    connection.execute(STAND_IN)
    for _ in range(2):  # it may be run again
        connection.execute(MIGRATION.read_bytes())
    yield make_world(connection)
    connection.execute("drop trigger broadcast on events")
    connection.execute("drop schema realtime cascade")


def append(connection: psycopg.Connection, org_id: UUID, kind: str) -> None:
    connection.execute(
        "insert into events (org_id, actor_kind, type, subject_kind, subject_id, before, after)"
        """ values (%s, 'system', %s, %s, gen_random_uuid(), '{"secret": "a"}', '{"secret": "b"}')""",
        [org_id, f"{kind}.created", kind],
    )


def sent(connection: psycopg.Connection) -> list[tuple[str, str, dict[str, object], bool]]:
    return rows(connection, "select topic, event, payload, private from realtime.messages")


@pytest.mark.parametrize(("kind", "suffix"), [("monitor", ""), ("api_key", ":admins"), ("invitation", ":admins")])
def test_each_event_is_broadcast_on_a_private_channel_without_what_changed(
    connection: psycopg.Connection, world: World, kind: str, suffix: str
):
    connection.execute("delete from realtime.messages")
    append(connection, world.org_id, kind)
    ((topic, event, payload, is_private),) = sent(connection)
    assert (topic, event, is_private) == (f"org:{world.org_id}{suffix}", f"{kind}.created", True)
    assert set(payload) == {"type", "occurred_at", "org_id", "actor", "subject"}
    assert "secret" not in json.dumps(payload)


@pytest.mark.parametrize(
    ("suffix", "listeners"),
    [("", {"owner", "admin", "editor", "viewer"}), (":admins", {"owner", "admin"}), (":owner", set())],
)
def test_who_may_listen_to_which_channel(
    connection: psycopg.Connection, world: World, suffix: str, listeners: set[str]
):
    topic = f"org:{world.org_id}{suffix}"
    connection.execute("select realtime.send('{}', 'x', %s, true)", [topic])
    heard = set()
    for who, person in world.people.items():
        with acting_as(connection, person):
            connection.execute("select set_config('realtime.topic', %s, true)", [topic])
            if rows(connection, "select from realtime.messages where topic = %s", [topic]):
                heard.add(who)
    assert heard == listeners


def test_only_broadcasts_are_heard_and_nothing_may_be_sent(connection: psycopg.Connection, world: World):
    topic = f"org:{world.org_id}"
    connection.execute("delete from realtime.messages")
    connection.execute("insert into realtime.messages (topic, extension) values (%s, 'presence')", [topic])
    with acting_as(connection, world.people["owner"]):
        connection.execute("select set_config('realtime.topic', %s, true)", [topic])
        assert rows(connection, "select from realtime.messages") == []


def test_a_broadcast_that_fails_fails_no_write(connection: psycopg.Connection, world: World):
    with connection.transaction(force_rollback=True):
        connection.execute("alter table realtime.messages add constraint full_up check (false) not valid")
        connection.execute("update monitors set name = 'still written' where id = %s", [world.monitor_id])
        assert value(connection, "select name from monitors where id = %s", [world.monitor_id]) == "still written"
        assert value(connection, "select type from events order by seq desc limit 1") == "monitor.updated"

"""Who sees and changes which row: owner, admin, editor, viewer and a stranger, at each table, in straight SQL."""

from datetime import timedelta

import psycopg
import pytest

from tests.stack.sql import (
    ROLES,
    SECRET,
    World,
    acting_as,
    changes,
    claim,
    make_monitor,
    make_user,
    make_world,
    open_incident,
    record,
    refusal,
    result,
    rows,
    value,
    walk_plan,
)

EDITORS = {"owner", "admin", "editor"}
OF_THE_ORGANISATION = (
    "channels",
    "check_days",
    "check_hours",
    "check_results",
    "deliveries",
    "events",
    "incident_comments",
    "incidents",
    "intervals",
    "maintenance_occurrences",
    "maintenance_windows",
    "memberships",
    "monitors",
    "pings",
)
OF_ITS_ADMINS = ("api_keys", "invitations")
NEW_MONITOR = """
    insert into monitors (org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds,
      fail_threshold, recover_threshold)
    values (%s, 'mine', 'http', 'http://example.com/', 60, 10, 15, 2, 1)
"""


@pytest.fixture(scope="module")
def world(connection: psycopg.Connection) -> World:
    """A world in which every table has a row."""
    world = make_world(connection)
    now = value(connection, "select now()")
    record(connection, result(claim(connection, world.monitor_id), at=now))
    incident_id = open_incident(connection, world)
    connection.execute(
        "insert into incident_comments (org_id, incident_id, author_id, body) values (%s, %s, %s, 'I look at it')",
        [world.org_id, incident_id, world.people["editor"]],
    )
    connection.execute(
        "insert into api_keys (org_id, name, prefix, secret_hash, scopes, created_by)"
        " values (%s, 'CI', 'tocsin_ABCDEFGH', encode(sha256(%s), 'hex'), '{read}', %s)",
        [world.org_id, b"a secret", world.people["owner"]],
    )
    of_the_past = [world.org_id, now - timedelta(hours=2), now - timedelta(hours=1)]
    connection.execute(
        "with written as (insert into maintenance_windows (org_id, name, all_monitors, starts_at, ends_at, time_zone)"
        " values (%s, 'over', true, %s, %s, 'UTC') returning *)"
        " insert into maintenance_occurrences (org_id, window_id, starts_at, ends_at, all_monitors, monitor_ids)"
        " select org_id, id, starts_at, ends_at, true, '{}' from written",
        of_the_past,
    )
    for table in ("check_hours", "check_days"):
        connection.execute(
            f"insert into {table} (monitor_id, org_id, region, started_at, up, down, unknown, timed, sum_ms, bins,"
            " counts)"
            " values (%s, %s, 'test', date_trunc('day', now()), 1, 0, 0, 0, 0, '{}', '{}')",
            [world.monitor_id, world.org_id],
        )
    connection.execute(
        "insert into pings (org_id, monitor_id, n, received_at, kind, method)"
        " values (%s, %s, 1, now(), 'success', 'GET')",
        [world.org_id, world.monitor_id],
    )
    return world


@pytest.fixture(scope="module")
def another_world(connection: psycopg.Connection) -> World:
    """Somebody else's, whose people are the first one's strangers."""
    return make_world(connection)


@pytest.mark.parametrize("table", OF_THE_ORGANISATION)
def test_members_see_their_organisations_rows_and_nobody_elses(
    connection: psycopg.Connection, world: World, another_world: World, table: str
):
    assert value(connection, f"select count(*) from {table} where org_id = %s", [world.org_id]) > 0
    for role in ROLES:
        with acting_as(connection, world.people[role]):
            assert rows(connection, f"select distinct org_id from {table}") == [(world.org_id,)], role
    for stranger in (world.people["stranger"], another_world.people["owner"]):
        with acting_as(connection, stranger):
            assert value(connection, f"select count(*) from {table} where org_id = %s", [world.org_id]) == 0
    with acting_as(connection, None):
        assert value(connection, f"select count(*) from {table}") == 0, "a token without a subject"


def test_admins_and_owners_see_invitations_and_nobody_sees_a_tokens_hash(
    connection: psycopg.Connection, world: World, another_world: World
):
    connection.execute(
        "insert into invitations (org_id, email, role, token_hash, invited_by) values (%s, 'x@y.z', 'viewer', %s, %s)",
        [world.org_id, "0" * 64, world.people["owner"]],
    )
    for role in (*ROLES, "stranger"):
        with acting_as(connection, world.people[role]):
            seen = rows(connection, "select org_id from invitations")
        assert seen == ([(world.org_id,)] if role in {"owner", "admin"} else []), role
        assert refusal(connection, world.people[role], "select token_hash from invitations") == "42501"
    with acting_as(connection, another_world.people["owner"]):
        assert rows(connection, "select org_id from invitations") == []


def test_members_see_their_organisation_and_what_they_are_in_it(
    connection: psycopg.Connection, world: World, another_world: World
):
    for role in ROLES:
        with acting_as(connection, world.people[role]):
            assert rows(connection, "select id, o.my_role from organisations o") == [(world.org_id, role)]
    with acting_as(connection, world.people["stranger"]):
        assert rows(connection, "select id from organisations") == []


def test_every_table_of_an_organisation_is_tried_here(connection: psycopg.Connection):
    found = rows(
        connection,
        "select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'org_id'"
        " where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')",
    )
    assert {name for (name,) in found} == {*OF_THE_ORGANISATION, *OF_ITS_ADMINS}


@pytest.mark.parametrize("table", OF_ITS_ADMINS)
def test_only_owners_and_admins_see_keys_and_invitations(connection: psycopg.Connection, world: World, table: str):
    assert value(connection, f"select count(*) from {table} where org_id = %s", [world.org_id]) == 1
    for who, person in world.people.items():
        with acting_as(connection, person):
            assert value(connection, f"select count(*) from {table}") == (who in {"owner", "admin"}), who


@pytest.mark.parametrize("role", [*ROLES, "stranger"])
def test_editors_and_above_write_monitors(connection: psycopg.Connection, world: World, role: str):
    who, may = world.people[role], role in EDITORS
    assert refusal(connection, who, NEW_MONITOR, [world.org_id]) == (None if may else "42501")
    assert changes(connection, who, "update monitors set name = 'other' where id = %s", world.monitor_id) == may
    assert changes(connection, who, "delete from monitors where id = %s", world.monitor_id) == may


@pytest.mark.parametrize("role", [*ROLES, "stranger"])
def test_editors_and_above_work_on_incidents_and_channels(connection: psycopg.Connection, world: World, role: str):
    who, may = world.people[role], role in EDITORS
    incident_id = value(connection, "select id from incidents where org_id = %s", [world.org_id])
    comment = "insert into incident_comments (org_id, incident_id, body) values (%s, %s, 'seen')"
    assert refusal(connection, who, comment, [world.org_id, incident_id]) == (None if may else "42501")
    assert changes(connection, who, "update incidents set state = 'resolved' where id = %s", incident_id) == may
    assert changes(connection, who, "delete from channels where id = %s", world.channel_id) == may


@pytest.mark.parametrize("role", [*ROLES, "stranger"])
def test_admins_and_owners_rename_and_owners_delete_the_organisation(
    connection: psycopg.Connection, world: World, role: str
):
    who = world.people[role]
    may_rename = role in {"owner", "admin"}
    assert changes(connection, who, "update organisations set name = 'x' where id = %s", world.org_id) == may_rename
    expected = {"owner": None, "stranger": "PT404"}.get(role, "PT403")
    assert refusal(connection, who, "select delete_organisation(%s)", [world.org_id]) == expected


@pytest.mark.parametrize("role", [*ROLES, "stranger"])
def test_the_functions_that_write_ask_for_an_editor(connection: psycopg.Connection, world: World, role: str):
    who = world.people[role]
    expected = None if role in EDITORS else "PT404" if role == "stranger" else "PT403"
    delivery_id = value(connection, "select id from deliveries where org_id = %s limit 1", [world.org_id])
    new_channel = [world.org_id, SECRET]
    assert (
        refusal(connection, who, "select create_channel(%s, 'webhook', 'x', 'http://x/', %s)", new_channel) == expected
    )
    assert refusal(connection, who, "select test_channel(%s)", [world.channel_id]) == expected
    assert refusal(connection, who, "select retry_delivery(%s)", [delivery_id]) == expected


def test_a_foreign_monitor_has_no_history_and_no_checks(connection: psycopg.Connection, world: World):
    for role in (*ROLES, "stranger"):
        with acting_as(connection, world.people[role]):
            history = value(
                connection, "select monitor_history(%s, now() - interval '1 day', now())", [world.monitor_id]
            )
            checks = value(
                connection, "select list_checks(%s, false, null, null, null, null, null, 10)", [world.monitor_id]
            )
            observed = value(
                connection, "select (select last_observed_at from private.last_observation(%s))", [world.monitor_id]
            )
        assert (history is None, checks is None, observed is None) == ((role == "stranger",) * 3), role


def test_nobody_moves_a_row_to_another_organisation(connection: psycopg.Connection, world: World, another_world: World):
    owner = world.people["owner"]
    assert refusal(connection, owner, "update monitors set org_id = %s", [another_world.org_id]) == "42501"
    assert refusal(connection, owner, NEW_MONITOR, [another_world.org_id]) == "42501"


def test_a_comment_cannot_be_put_on_another_organisations_incident(
    connection: psycopg.Connection, world: World, another_world: World
):
    incident_id = value(connection, "select id from incidents where org_id = %s", [world.org_id])
    comment = "insert into incident_comments (org_id, incident_id, body) values (%s, %s, 'I am everywhere')"
    intruder = another_world.people["owner"]
    for org_id in (world.org_id, another_world.org_id):
        assert refusal(connection, intruder, comment, [org_id, incident_id]) == "42501"


def test_nobody_comments_in_the_name_of_another(connection: psycopg.Connection, world: World):
    incident_id = value(connection, "select id from incidents where org_id = %s", [world.org_id])
    statement = "insert into incident_comments (org_id, incident_id, body, author_id) values (%s, %s, 'x', %s)"
    values = [world.org_id, incident_id, world.people["viewer"]]
    assert refusal(connection, world.people["owner"], statement, values) == "42501"


@pytest.mark.parametrize(
    "statement",
    [
        "insert into organisations (name) values ('x')",
        "delete from organisations",
        "insert into memberships (org_id, user_id, role) select org_id, user_id, 'owner' from memberships",
        "update memberships set role = 'owner'",
        "delete from memberships",
        "insert into invitations (org_id) select org_id from monitors",
        "update invitations set role = 'owner'",
        "delete from invitations",
        "update organisations set require_aal2 = false",
        "insert into incidents (org_id) select org_id from monitors",
        "update incidents set summary = 'nothing happened'",
        "delete from incidents",
        "update incident_comments set body = 'never said'",
        "delete from incident_comments",
        "insert into intervals (org_id) select org_id from monitors",
        "update intervals set state = 'up'",
        "delete from intervals",
        "insert into check_results (org_id) select org_id from monitors",
        "delete from check_results",
        "insert into channels (org_id) select org_id from monitors",
        "update channels set url = 'http://evil.example.com/'",
        "insert into deliveries (org_id) select org_id from monitors",
        "update deliveries set state = 'delivered'",
        "insert into events (org_id) select org_id from monitors",
        "update events set actor_id = null",
        "delete from events",
        "update monitors set state = 'up'",
        "update monitors set state_since = now()",
        "update monitors set version = 1",
        "update monitors set created_at = now()",
        "update organisations set version = 1",
        "select secret from private.channel_secrets",
        "select private.write_interval(null, null, 'up', now(), 'x')",
        "select private.require_role(null, 'viewer')",
    ],
)
def test_not_even_an_owner_goes_past_the_doors(connection: psycopg.Connection, world: World, statement: str):
    assert refusal(connection, world.people["owner"], statement) == "42501"


def test_an_anonymous_session_founds_no_organisation(connection: psycopg.Connection):
    user_id = make_user(connection)
    assert refusal(connection, user_id, "select create_organisation('x')") is None
    claims = f'{{"sub": "{user_id}", "is_anonymous": true}}'
    statement = "select set_config('request.jwt.claims', %s, true), create_organisation('x')"
    assert refusal(connection, user_id, statement, [claims]) == "PT403"


@pytest.mark.parametrize("secret", ["", "whsec_", "hunter2", "whsec_ÄÖÜ", "whsec_" + "A" * 1000])
def test_a_channels_secret_is_a_signing_secret(connection: psycopg.Connection, world: World, secret: str):
    statement = "select create_channel(%s, 'webhook', 'x', 'http://x/', %s)"
    assert refusal(connection, world.people["owner"], statement, [world.org_id, secret]) == "23514"


@pytest.mark.parametrize(
    "query",
    [
        "select id, name from monitors order by created_at desc, id desc limit 51",
        "select id from channels order by created_at desc, id desc limit 51",
        "select id from deliveries order by created_at desc, id desc limit 51",
        "select id from incidents order by opened_at desc, id desc limit 51",
        "select id from intervals",
        "select id from invitations order by created_at desc, id desc limit 51",
        "select seq from events",
    ],
)
def test_a_policy_is_asked_once_a_statement_and_finds_its_rows_by_index(
    connection: psycopg.Connection, crowd: World, query: str
):
    with acting_as(connection, crowd.people["owner"]):
        ((plan,),) = rows(connection, f"explain (analyze, costs off, timing off, format json) {query}")
    nodes = list(walk_plan(plan[0]["Plan"]))
    asking = [node for node in nodes if node.get("Parent Relationship") in {"InitPlan", "SubPlan"}]
    # An event is seen by members, some kinds by admins, one's own membership by oneself: three questions, each once.
    questions = 3 if "events" in query else 1
    assert [node["Parent Relationship"] for node in asking] == ["InitPlan"] * questions
    assert all(node["Actual Loops"] <= 1 for node in asking)
    assert sum(node.get("Rows Removed by Filter", 0) for node in nodes) == 0, "it looked at other people's rows"


@pytest.fixture(scope="module")
def crowd(connection: psycopg.Connection) -> World:
    """A small organisation among many: 200 others, each with some of everything."""
    world = make_world(connection)
    make_monitor(connection, world.org_id)
    with connection.transaction():
        connection.execute(
            """
            with orgs as (insert into organisations (name) select 'other' from generate_series(1, 200) returning id),
            made as (
              insert into monitors (org_id, name, kind, target, interval_seconds, timeout_seconds,
                retry_interval_seconds, fail_threshold, recover_threshold)
              select id, 'site', 'http', 'http://x/', 60, 10, 15, 2, 1 from orgs, generate_series(1, 10)
              returning id, org_id
            ), lines as (
              insert into intervals (org_id, monitor_id, state, started_at, cause)
              select org_id, id, 'up', now(), 'test' from made
            ), guests as (
              insert into invitations (org_id, email, role, token_hash, invited_by)
              select id, n || '@example.com', 'viewer', encode(sha256((id::text || n)::bytea), 'hex'), id
              from orgs, generate_series(1, 10) n
            ), channels as (
              insert into channels (org_id, kind, name, url)
              select id, 'webhook', 'hook', 'http://x/' from orgs, generate_series(1, 10) returning id, org_id
            ), told as (
              insert into deliveries (org_id, channel_id, type, payload) select org_id, id, 'test', '{}' from channels
            )
            insert into incidents (org_id, monitor_id, cause, summary, evidence, started_at)
            select org_id, id, 'connect', 'x', '{}', now() from made
            """
        )
    connection.execute("analyze")
    return world

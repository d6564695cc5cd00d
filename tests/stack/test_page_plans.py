"""How Postgres finds a page: out of an index, wherever the page begins, among 100,000 rows."""

from typing import Any

import psycopg
import pytest

from tests.stack.conftest import EmbeddedSupabase
from tests.stack.sql import acting_as, make_user, rows, value, walk_plan

# What a list is asked in each order, within one organisation: the table or view, and a filter beside org_id.
PLANS = [
    *(("monitors", column, "org_id") for column in ("created_at", "updated_at", "state_since")),
    ("named_monitors", "name_key", "org_id"),
    *(("incidents", column, parent) for column in ("opened_at", "started_at") for parent in ("org_id", "monitor_id")),
    ("channels", "created_at", "org_id"),
    ("named_channels", "name_key", "org_id"),
    *(("deliveries", "created_at", parent) for parent in ("org_id", "channel_id")),
    ("check_results", "started_at", "monitor_id"),
]


@pytest.fixture(scope="module")
def crowd(own_supabase: EmbeddedSupabase, connection: psycopg.Connection) -> dict[str, Any]:
    """100,000 rows of each list in one organisation, among many; no triggers, which would make events of them."""
    people = [make_user(connection) for _ in range(2)]
    orgs = [value(connection, "insert into organisations (name) values ('o') returning id") for _ in range(50)]
    connection.execute("insert into memberships select unnest(%s::uuid[]), %s, 'owner'", [orgs, people[1]])
    connection.execute("insert into memberships values (%s, %s, 'viewer')", [orgs[0], people[0]])
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        for statement in CROWD.split(";\n"):
            connection.execute(statement, {"orgs": orgs, "big": orgs[0]})
    connection.execute("analyze")
    parents = {"monitor_id": "incidents", "channel_id": "deliveries"}
    ids = {
        column: value(connection, f"select {column} from {table} where org_id = %s limit 1", [orgs[0]])
        for column, table in parents.items()
    }
    return {"user_id": people[0], "org_id": orgs[0], **ids}


CROWD = """
create temporary table crowd on commit drop as
  select c.*, min(id::text) over (partition by org_id, n %% 10)::uuid as parent_id
  from (
    select gen_random_uuid() as id, n, timestamptz '2026-01-01' + n * interval '1 second' as at,
      case when n <= 100000 then %(big)s::uuid else (%(orgs)s::uuid[])[2 + n %% 49] end as org_id
    from generate_series(1, 150000) n
  ) c;
insert into monitors (id, org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds,
    fail_threshold, recover_threshold, created_at, updated_at, state_since)
  select id, org_id, md5(n::text), 'http', 'http://127.0.0.1:1/', 60, 10, 15, 2, 1, at, at, at
  from crowd;
insert into channels (id, org_id, kind, name, url, created_at)
  select id, org_id, 'webhook', md5(n::text), 'http://127.0.0.1:1/', at from crowd;
insert into incidents (id, org_id, monitor_id, cause, summary, evidence, started_at, opened_at, state, resolved_at,
    resolution)
  select id, org_id, parent_id, 'connect', 's', '{}', at, at, 'resolved', at, 'recovered' from crowd;
insert into deliveries (org_id, channel_id, incident_id, type, payload, state, next_attempt_at, created_at)
  select org_id, parent_id, id, 'incident.opened', '{}', 'delivered', null, at from crowd;
insert into check_results (id, org_id, monitor_id, started_at, region, outcome, counted)
  select id, org_id, parent_id, date_trunc('day', now()) + n * interval '1 second', 'x', 'up', true from crowd"""


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(("table", "column", "parent"), PLANS)
def test_a_page_is_cut_out_of_an_index_wherever_it_begins(
    crowd: dict[str, Any], connection: psycopg.Connection, table: str, column: str, parent: str, direction: str
):
    """51 rows are read to answer 50, at the start and in the middle: an index scan, and nothing that sorts 100,000.

    An order by name comes from its index too, but begins at its start (docs/decisions.md, "Reading well").
    """
    beyond = "<" if direction == "desc" else ">"
    with acting_as(connection, crowd["user_id"]):
        middle, row_id = rows(
            connection,
            f"select {column}, id from {table} where {parent} = %s order by {column}, id offset 4000 limit 1",
            [crowd[parent]],
        )[0]
        # That an index can serve the page, from wherever it begins, is ours; whether Postgres finds it cheaper to sort
        # a few thousand rows is a matter of its statistics, which differ from run to run.
        for other_way in ("enable_sort", "enable_incremental_sort", "enable_bitmapscan", "enable_seqscan"):
            connection.execute(f"set local {other_way} = off")
        after = f" and {column} {beyond}= %s and ({column} {beyond} %s or id {beyond} %s)"
        for condition, more in (("", []), (after, [middle, middle, row_id])):
            plan = value(
                connection,
                f"explain (analyze, format json) select * from {table} where {parent} = %s{condition}"
                f" order by {column} {direction}, id {direction} limit 51",
                [crowd[parent], *more],
            )[0]["Plan"]
            steps = list(walk_plan(plan))
            assert any(step["Node Type"].startswith("Index") for step in steps), plan
            assert not any("Sort" in step["Node Type"] for step in steps), plan
            if column == "name_key" and condition:
                continue
            assert max(step["Actual Rows"] + step.get("Rows Removed by Filter", 0) for step in steps) < 200, plan


def test_a_page_of_events_reads_what_it_answers_however_much_follows(connection: psycopg.Connection):
    """The organisation is one of many and has had more events than the others, for which a planner does not look."""
    user_id = make_user(connection)
    with connection.transaction(force_rollback=True):
        org_id = value(connection, "insert into organisations (name) values ('Busy') returning id")
        connection.execute(
            "insert into memberships (org_id, user_id, role) values (%s, %s, 'viewer')", [org_id, user_id]
        )
        connection.execute(
            "insert into events (xid, org_id, actor_kind, type, subject_kind, subject_id)"
            " select (1 + i / 10)::text::xid8, org, 'system', 'monitor.updated', 'monitor', gen_random_uuid()"
            " from (select gen_random_uuid() as org from generate_series(1, 2000)) others, generate_series(1, 10) i"
            " union all"
            " select (1 + i / 10)::text::xid8, %s, 'system', 'monitor.updated', 'monitor', gen_random_uuid()"
            " from generate_series(1, 5000) i",
            [org_id],
        )
        connection.execute("analyze events")
        with acting_as(connection, user_id):
            before = value(connection, "select pg_stat_get_xact_tuples_fetched('events'::regclass)")
            page = value(connection, "select read_events('1', 0, 50)")
            fetched = value(connection, "select pg_stat_get_xact_tuples_fetched('events'::regclass)") - before
    assert len(page["events"]) == 50
    assert fetched < 300, "or 5,000, to sort them"

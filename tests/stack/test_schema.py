"""What holds for the whole schema, whatever tables and functions it has: read from Postgres' own catalogue."""

import psycopg
import pytest

from tests.stack.sql import refusal, rows, value

# What a signed-in user may call. `private` ones are what policies, constraints and computed columns are made of.
FUNCTIONS_OF_USERS = {
    "private.are_status_ranges",
    "private.event_document",
    "private.event_horizon_document",
    "private.last_observation",
    "private.my_orgs",
    "private.position_document",
    "private.require_position",
    "private.rfc3339",
    "private.role_rank",
    "public.create_channel",
    "public.create_organisation",
    "public.delete_organisation",
    "public.monitor_checks",
    "public.monitor_history",
    "public.my_role",
    "public.read_events",
    "public.rename_organisation",
    "public.retry_delivery",
    "public.test_channel",
}
FUNCTIONS_OF_THE_WORKER = {
    "public.claim_deliveries",
    "public.claim_due",
    "public.maintain_check_results",
    "public.prune_events",
    "public.record",
    "public.settle_deliveries",
    "public.stream_events",
}
TABLES_OF_USERS = {
    "public.channels": {"SELECT", "DELETE"},
    "public.check_results": {"SELECT"},
    "public.deliveries": {"SELECT"},
    "public.events": {"SELECT"},
    "public.incident_comments": {"SELECT"},
    "public.incidents": {"SELECT"},
    "public.intervals": {"SELECT"},
    "public.memberships": {"SELECT"},
    "public.monitors": {"SELECT", "DELETE"},
    "public.organisations": {"SELECT"},
}
MONITOR_COLUMNS = {
    "name",
    "target",
    "interval_seconds",
    "timeout_seconds",
    "retry_interval_seconds",
    "fail_threshold",
    "recover_threshold",
    "degraded_after_ms",
    "expected_status",
    "max_redirects",
    "paused",
}
COLUMNS_OF_USERS = {
    ("public.incident_comments", "INSERT"): {"org_id", "incident_id", "body"},
    ("public.incidents", "UPDATE"): {"state"},
    ("public.monitors", "INSERT"): {"org_id", "kind"} | MONITOR_COLUMNS,
    ("public.monitors", "UPDATE"): MONITOR_COLUMNS,
    ("public.organisations", "UPDATE"): {"name"},
}
TABLES = """
    select c.oid::regclass::text, n.nspname || '.' || c.relname, c.relrowsecurity
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('public', 'private') and c.relkind in ('r', 'p')
"""
FUNCTIONS = """
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname in ('public', 'private')
"""


def test_every_table_has_row_level_security_its_partitions_too(connection: psycopg.Connection):
    connection.execute("select private.ensure_check_results_day('2031-05-01')")
    found = {name: has_security for _, name, has_security in rows(connection, TABLES)}
    assert found["private.check_results_20310501"], "a day that was made later"
    assert [name for name, has_security in found.items() if not has_security] == []


def test_every_table_of_users_has_a_policy_for_reading(connection: psycopg.Connection):
    read = rows(connection, "select schemaname || '.' || tablename from pg_policies where cmd = 'SELECT'")
    assert {name for (name,) in read} == set(TABLES_OF_USERS)


def test_policies_speak_of_authenticated_alone(connection: psycopg.Connection):
    assert rows(connection, "select distinct roles::text from pg_policies") == [("{authenticated}",)]


@pytest.mark.parametrize("privilege", ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"])
def test_users_may_do_to_tables_what_is_written_here_and_nothing_else(connection: psycopg.Connection, privilege: str):
    allowed = rows(
        connection,
        f"select name from ({TABLES}) t (oid, name, _) where has_table_privilege('authenticated', oid, %s)",
        [privilege],
    )
    assert {name for (name,) in allowed} == {name for name, granted in TABLES_OF_USERS.items() if privilege in granted}


@pytest.mark.parametrize("privilege", ["INSERT", "UPDATE"])
def test_users_may_write_the_columns_written_here_and_nothing_else(connection: psycopg.Connection, privilege: str):
    found: dict[tuple[str, str], set[str]] = {}
    for table, column in rows(
        connection,
        f"select t.name, a.attname from ({TABLES}) t (oid, name, _) join pg_attribute a"
        " on a.attrelid = t.oid::regclass and a.attnum > 0 and not a.attisdropped"
        " where has_column_privilege('authenticated', t.oid, a.attname, %s)",
        [privilege],
    ):
        found.setdefault((table, privilege), set()).add(column)
    assert found == {key: columns for key, columns in COLUMNS_OF_USERS.items() if key[1] == privilege}


@pytest.mark.parametrize("privilege", ["SELECT", "INSERT", "UPDATE", "REFERENCES"])
def test_anon_may_do_nothing_to_any_column_of_any_table(connection: psycopg.Connection, privilege: str):
    assert (
        rows(
            connection,
            f"select name from ({TABLES}) t (oid, name, _)"
            " where has_any_column_privilege('anon', oid, %s) or has_table_privilege('anon', oid, 'DELETE, TRUNCATE')",
            [privilege],
        )
        == []
    )


def test_anon_is_refused_each_table_and_function_when_it_tries(connection: psycopg.Connection):
    for name in (*TABLES_OF_USERS, "private.monitor_schedules", "private.channel_secrets"):
        assert refusal(connection, None, f"select from {name}", role="anon") == "42501", name
    for call in ("create_organisation('x')", "claim_due('x', 1, 1)", "private.my_orgs()"):
        assert refusal(connection, None, f"select {call}", role="anon") == "42501", call


@pytest.mark.parametrize(
    ("role", "expected"),
    [("anon", set()), ("authenticated", FUNCTIONS_OF_USERS)],
)
def test_the_functions_that_a_role_may_call_are_written_here(
    connection: psycopg.Connection, role: str, expected: set[str]
):
    callable_by = rows(
        connection,
        f"select n.nspname || '.' || p.proname {FUNCTIONS}"
        " and has_function_privilege(%s, p.oid, 'EXECUTE') and has_schema_privilege(%s, n.oid, 'USAGE')",
        [role, role],
    )
    assert {name for (name,) in callable_by} == expected


def test_no_function_of_ours_is_left_to_everybody(connection: psycopg.Connection):
    assert (
        rows(
            connection,
            f"select p.proname {FUNCTIONS} and (p.proacl is null"
            " or exists (select from aclexplode(p.proacl) a where a.grantee = 0))",
        )
        == []
    )


def test_the_calls_of_the_worker_are_for_service_role_alone(connection: psycopg.Connection):
    for name in FUNCTIONS_OF_THE_WORKER:
        may = [
            value(
                connection,
                f"select bool_and(has_function_privilege('{role}', p.oid, 'EXECUTE')) {FUNCTIONS}"
                " and n.nspname || '.' || p.proname = %s",
                [name],
            )
            for role in ("service_role", "authenticated", "anon")
        ]
        assert may == [True, False, False], name


def test_every_function_has_an_empty_search_path(connection: psycopg.Connection):
    assert (
        rows(
            connection,
            f"select p.proname {FUNCTIONS} and coalesce(p.proconfig, '{{}}') <> array['search_path=\"\"']",
        )
        == []
    )


def test_every_foreign_key_has_an_index_that_begins_with_its_columns(connection: psycopg.Connection):
    without = rows(
        connection,
        """
        select c.conrelid::regclass::text, c.conname from pg_constraint c
        join pg_namespace n on n.oid = c.connamespace and n.nspname in ('public', 'private')
        where c.contype = 'f' and not exists (
          select from pg_index i where i.indrelid = c.conrelid and i.indpred is null
            and (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey
        )
        """,
    )
    assert without == []


def test_every_constraint_that_checks_a_value_says_what_in_its_name(connection: psycopg.Connection):
    generated = rows(
        connection,
        "select conname from pg_constraint c join pg_namespace n on n.oid = c.connamespace"
        " where n.nspname in ('public', 'private') and contype = 'c' and conname ~ '_check\\d*$'",
    )
    assert generated == [], "a generated name tells the client nothing"


def test_users_cannot_look_into_private_not_even_to_count(connection: psycopg.Connection):
    for table in ("monitor_schedules", "channel_secrets"):
        assert refusal(connection, None, f"select count(*) from private.{table}") == "42501"
    partition = value(
        connection, "select min(inhrelid::regclass::text) from pg_inherits where inhparent = 'check_results'::regclass"
    )
    assert refusal(connection, None, f"select count(*) from {partition}") == "42501"

"""What holds for the whole schema, whatever tables and functions it has: read from Postgres' own catalogue."""

import psycopg
import pytest

from tests.stack.sql import acting_as, refusal, rows, value

# What a signed-in user may call. `private` ones are what policies, constraints and computed columns are made of.
FUNCTIONS_OF_ALL = {
    "private.actor_id",
    "private.actor_kind",
    "private.count_used",
    "private.day_of",
    "private.event_document",
    "private.event_horizon_document",
    "private.given_answer",
    "private.history_of",
    "private.hour_of",
    "private.keep_answer",
    "private.last_observation",
    "private.last_observations",
    "private.maintenance_of",
    "private.my_orgs",
    "private.my_role_in",
    "private.name_key",
    "private.position_document",
    "private.require_position",
    "private.results_since",
    "private.rfc3339",
    "private.role_rank",
    "private.rolled_until",
    "private.series_of_results",
    "private.series_of_rollups",
    "private.session_id",
    "private.spent_in_states",
    "private.summarise_results",
    "public.audit_page",
    "public.change_maintenance_window",
    "public.comment_on_incident",
    "public.create_channel",
    "public.create_maintenance_window",
    "public.create_monitor",
    "public.create_monitors",
    "public.end_maintenance_window",
    "public.keep",
    "public.list_checks",
    "public.list_intervals",
    "public.list_members",
    "public.list_pings",
    "public.monitor_history",
    "public.move_incident",
    "public.my_role",
    "public.once",
    "public.organisation_usage",
    "public.overview",
    "public.read_events",
    "public.read_heartbeat",
    "public.read_member",
    "public.read_series",
    "public.recall_answer",
    "public.retry_delivery",
    "public.set_monitor_paused",
    "public.sla_report",
    "public.test_channel",
    "public.update_organisation",
}
# What people may and no API key: to found, to end, to make keys, and to say who belongs.
FUNCTIONS_OF_USERS = FUNCTIONS_OF_ALL | {
    "public.accept_invitation",
    "public.change_member_role",
    "public.create_api_key",
    "public.create_invitation",
    "public.create_organisation",
    "public.delete_organisation",
    "public.leave_organisation",
    "public.list_invitations",
    "public.remove_member",
    "public.resend_invitation",
    "public.revoke_api_key",
    "public.revoke_invitation",
    "public.rotate_api_key",
    "public.transfer_organisation",
}
# API keys come in as anon.
FUNCTIONS_OF_KEYS = FUNCTIONS_OF_ALL | {"public.my_key", "public.ping"}
FUNCTIONS_OF_THE_WORKER = {
    "public.apply_retention",
    "public.claim_deliveries",
    "public.claim_due",
    "public.claim_heartbeats",
    "public.extend_window",
    "public.forget_answers",
    "public.maintain_check_results",
    "public.maintain_pings",
    "public.move_heartbeats",
    "public.prune_events",
    "public.prune_hours",
    "public.record",
    "public.record_heartbeats",
    "public.release_alerts",
    "public.roll_up",
    "public.settle_deliveries",
    "public.stream_events",
    "public.windows_to_extend",
}
TABLES_OF_USERS = {
    "public.channels": {"SELECT", "DELETE"},
    "public.check_days": {"SELECT"},
    "public.check_hours": {"SELECT"},
    "public.check_results": {"SELECT"},
    "public.deliveries": {"SELECT"},
    "public.events": set(),  # but for the columns that tell no session and nothing that was before
    "public.incident_comments": {"SELECT"},
    "public.incidents": {"SELECT"},
    "public.intervals": {"SELECT"},
    "public.invitations": set(),  # but for its columns without the token's hash
    "public.maintenance_occurrences": {"SELECT"},
    "public.maintenance_windows": {"DELETE"},  # and to read all but how far it is written out
    "public.memberships": {"SELECT"},
    "public.monitors": {"SELECT", "DELETE"},
    "public.organisations": {"SELECT"},
    "public.pings": {"SELECT"},
    "public.plans": {"SELECT"},
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
    "options",
    "assertions",
    "depends_on",
    "regions",
    "slug",
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
    connection.execute("select private.ensure_check_results_day('2031-05-01'), private.ensure_pings_day('2031-05-01')")
    found = {name: has_security for _, name, has_security in rows(connection, TABLES)}
    assert found["private.check_results_20310501"] and found["private.pings_20310501"], "a day that was made later"
    assert [name for name, has_security in found.items() if not has_security] == []


def test_every_table_of_users_has_a_policy_for_reading(connection: psycopg.Connection):
    read = rows(connection, "select schemaname || '.' || tablename from pg_policies where cmd = 'SELECT'")
    assert {name for (name,) in read} == set(TABLES_OF_USERS) | {"public.api_keys"}


def test_policies_speak_of_users_and_keys_and_never_of_everybody(connection: psycopg.Connection):
    found = rows(
        connection, "select distinct roles::text from pg_policies where tablename not in ('api_keys', 'invitations')"
    )
    assert found == [("{anon,authenticated}",)]


@pytest.mark.parametrize("privilege", ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"])
@pytest.mark.parametrize("role", ["authenticated", "anon"])
def test_users_and_keys_may_do_to_tables_what_is_written_here_and_nothing_else(
    connection: psycopg.Connection, privilege: str, role: str
):
    allowed = rows(
        connection,
        f"select name from ({TABLES}) t (oid, name, _) where has_table_privilege(%s, oid, %s)",
        [role, privilege],
    )
    assert {name for (name,) in allowed} == {name for name, granted in TABLES_OF_USERS.items() if privilege in granted}


def test_the_hash_of_a_key_can_be_read_by_nobody_and_a_key_by_no_key(connection: psycopg.Connection):
    readable = rows(
        connection,
        "select attname from pg_attribute where attrelid = 'api_keys'::regclass and attnum > 0"
        " and has_column_privilege('authenticated', attrelid, attname, 'SELECT')",
    )
    assert ("secret_hash",) not in readable and ("prefix",) in readable
    assert value(connection, "select has_any_column_privilege('anon', 'api_keys', 'SELECT')") is False


def test_what_every_policy_asks_keeps_its_plans(connection: psycopg.Connection):
    planned_anew = rows(
        connection,
        "select p.proname from pg_proc p join pg_language l on l.oid = p.prolang"
        " where p.pronamespace = 'private'::regnamespace and l.lanname = 'sql'"
        " and p.proname in ('my_orgs', 'my_role_in', 'key_in_use', 'actor_id', 'actor_kind')",
    )
    assert planned_anew == [], "a function in SQL is planned in each statement: 0.2 ms more for each read"


@pytest.mark.parametrize("role", ["authenticated", "anon"])
def test_in_which_session_and_what_was_before_is_read_in_the_audit_alone(connection: psycopg.Connection, role: str):
    hidden = rows(
        connection,
        "select attname from pg_attribute where attrelid = 'events'::regclass and attnum > 0 and not attisdropped"
        " and not has_column_privilege(%s, attrelid, attname, 'SELECT') order by attname",
        [role],
    )
    assert hidden == [("before",), ("session_id",)]


@pytest.mark.parametrize("privilege", ["INSERT", "UPDATE"])
@pytest.mark.parametrize("role", ["authenticated", "anon"])
def test_users_and_keys_may_write_the_columns_written_here_and_nothing_else(
    connection: psycopg.Connection, privilege: str, role: str
):
    found: dict[tuple[str, str], set[str]] = {}
    for table, column in rows(
        connection,
        f"select t.name, a.attname from ({TABLES}) t (oid, name, _) join pg_attribute a"
        " on a.attrelid = t.oid::regclass and a.attnum > 0 and not a.attisdropped"
        " where has_column_privilege(%s, t.oid, a.attname, %s)",
        [role, privilege],
    ):
        found.setdefault((table, privilege), set()).add(column)
    assert found == {key: columns for key, columns in COLUMNS_OF_USERS.items() if key[1] == privilege}


def test_without_a_key_anon_sees_nothing_and_changes_nothing(connection: psycopg.Connection):
    # What plans there are is no secret.
    for name in set(TABLES_OF_USERS) - {"public.plans", "public.invitations"}:
        with acting_as(connection, None, role="anon"):
            assert value(connection, f"select count(*) from {name}") == 0, name
    hidden = ("private.monitor_schedules", "private.channel_secrets", "private.idempotent_answers")
    for name in (*hidden, "api_keys", "invitations"):
        assert refusal(connection, None, f"select from {name}", role="anon") == "42501", name
    for call in ("create_organisation('x')", "claim_due('x', 1, 1)", "forget_answers(1)"):
        assert refusal(connection, None, f"select {call}", role="anon") == "42501", call


@pytest.mark.parametrize(
    ("role", "expected"),
    [("anon", FUNCTIONS_OF_KEYS), ("authenticated", FUNCTIONS_OF_USERS)],
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
            f"select p.proname {FUNCTIONS} and not 'search_path=\"\"' = any (coalesce(p.proconfig, '{{}}'))",
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

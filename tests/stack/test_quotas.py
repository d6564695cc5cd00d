"""Plans hold an organisation to what they allow: under concurrency, over PostgREST, through the API."""

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import requests

from tests.stack.conftest import EmbeddedSupabase, User
from tests.stack.product import Api, eventually, running_worker
from tests.stack.sql import (
    World,
    acting_as,
    make_channel,
    make_monitor,
    make_user,
    make_world,
    refusal,
    roll_up,
    rows,
    value,
)

MONITORS = """
    insert into monitors (org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds,
      fail_threshold, recover_threshold)
    select %s, 'mine', 'http', 'http://example.com/', %s, 5, 5, 2, 1 from generate_series(1, %s)
"""
MEMBER = "insert into memberships (org_id, user_id, role) values (%s, %s, 'viewer')"
DRAFT = {"name": "site", "target": "http://127.0.0.1:1/", "interval_seconds": 60}


@pytest.fixture
def world(connection: psycopg.Connection) -> Iterator[World]:
    """Four people, one monitor, one channel; of the plan `unlimited`."""
    world = make_world(connection)
    yield world
    connection.execute("delete from organisations where id = %s", [world.org_id])


def put_on(connection: psycopg.Connection, org_id: UUID | str, **limits: int | None) -> str:
    """Put an organisation on a plan of its own, unlimited in whatever is not said; return the plan's name."""
    name = f"plan_{uuid4().hex[:12]}"
    connection.execute("insert into plans (name) values (%s)", [name])
    for column, limit in limits.items():
        connection.execute(f"update plans set {column} = %s where name = %s", [limit, name])
    connection.execute("update organisations set plan = %s where id = %s", [name, org_id])
    return name


def count(connection: psycopg.Connection, table: str, org_id: UUID | str) -> int:
    found: int = value(connection, f"select count(*) from {table} where org_id = %s", [org_id])
    return found


def all_at_once(
    connection: psycopg.Connection, write: Callable[[psycopg.Connection, int], Any], many: int
) -> list[str]:
    """Let `many` connections write at the same moment; return the SQLSTATEs of those that were refused."""
    start, refused = threading.Barrier(many), []

    def run(number: int) -> None:
        with psycopg.connect(connection.info.dsn, autocommit=True) as own:
            start.wait(30)
            try:
                write(own, number)
            except psycopg.Error as error:
                refused.append(str(error.sqlstate))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "it hangs"
    return refused


def test_fifty_who_create_at_once_leave_as_many_as_the_plan_allows(connection: psycopg.Connection, world: World):
    put_on(connection, world.org_id, monitors=8)

    def create(own: psycopg.Connection, _number: int) -> None:
        with acting_as(own, world.people["editor"]):
            own.execute(MONITORS, [world.org_id, 60, 1])

    assert all_at_once(connection, create, 50) == ["PT403"] * 43
    assert count(connection, "monitors", world.org_id) == 8


def test_twenty_batches_at_once_leave_as_many_whole_ones_as_there_is_room_for(
    connection: psycopg.Connection, world: World
):
    put_on(connection, world.org_id, monitors=25)
    refused = all_at_once(connection, lambda own, _: own.execute(MONITORS, [world.org_id, 60, 7]), 20)
    assert refused == ["PT403"] * 17
    assert count(connection, "monitors", world.org_id) == 1 + 3 * 7


def test_twenty_who_join_at_once_are_as_many_as_the_plan_allows(connection: psycopg.Connection, world: World):
    put_on(connection, world.org_id, members=7)
    people = [make_user(connection) for _ in range(20)]
    refused = all_at_once(connection, lambda own, number: own.execute(MEMBER, [world.org_id, people[number]]), 20)
    assert refused == ["PT403"] * 17
    assert count(connection, "memberships", world.org_id) == 7


def test_who_waited_for_the_lock_meets_the_plan_of_now(connection: psycopg.Connection, world: World):
    put_on(connection, world.org_id, monitors=5)
    smaller = put_on(connection, world.org_id, monitors=1)
    put_on(connection, world.org_id, monitors=5)
    refused: list[str] = []

    def create() -> None:
        with psycopg.connect(connection.info.dsn, autocommit=True) as own:
            try:
                own.execute(MONITORS, [world.org_id, 60, 1])
            except psycopg.Error as error:
                refused.append(str(error.diag.message_detail))

    with psycopg.connect(connection.info.dsn) as operator:
        operator.execute("update organisations set plan = %s where id = %s", [smaller, world.org_id])
        waiting = threading.Thread(target=create)
        waiting.start()
        eventually(
            lambda: value(connection, "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"),
            "nobody waits for the row",
        )
        operator.commit()
    waiting.join(30)
    assert refused == [f"The plan {smaller} allows 1 monitor, and the organisation has 1."]


def test_a_transaction_that_is_rolled_back_has_used_nothing(connection: psycopg.Connection, world: World):
    put_on(connection, world.org_id, monitors=2)
    assert refusal(connection, world.people["editor"], MONITORS, [world.org_id, 60, 1]) is None
    assert refusal(connection, world.people["editor"], MONITORS, [world.org_id, 60, 2]) == "PT403"
    connection.execute(MONITORS, [world.org_id, 60, 1])
    assert refusal(connection, world.people["editor"], MONITORS, [world.org_id, 60, 1]) == "PT403"


def test_in_a_batch_that_keeps_what_it_can_each_row_is_refused_for_itself(connection: psycopg.Connection, world: World):
    """As an RPC does that tries each item in a transaction of its own inside the caller's."""
    put_on(connection, world.org_id, monitors=4)
    one = psycopg.ClientCursor(connection).mogrify(MONITORS, [world.org_id, 60, 1])
    connection.execute(
        f"do $$ begin for number in 1..6 loop"
        f" begin {one}; exception when sqlstate 'PT403' then null; end; end loop; end $$"
    )
    assert count(connection, "monitors", world.org_id) == 4


def test_what_a_transaction_remembers_follows_its_savepoints_and_its_deletions(
    connection: psycopg.Connection, world: World
):
    put_on(connection, world.org_id, monitors=4)

    def create(number: int, *, keep: bool = True) -> None:
        with connection.transaction(force_rollback=not keep):
            connection.execute(MONITORS, [world.org_id, 60, number])

    with connection.transaction():
        create(1)
        create(2, keep=False)
        create(1)
        create(1)
        with pytest.raises(psycopg.Error, match="quota_exceeded"):
            create(1)
        connection.execute("delete from monitors where id = %s", [world.monitor_id])
        create(1)
        with pytest.raises(psycopg.Error, match="quota_exceeded"):
            create(1)
    assert count(connection, "monitors", world.org_id) == 4
    connection.execute("delete from monitors where org_id = %s", [world.org_id])
    create(4)


def test_one_statement_counts_once_however_many_rows_it_adds(connection: psycopg.Connection, world: World):
    put_on(connection, world.org_id, monitors=501)
    with connection.transaction(force_rollback=True):
        connection.execute("set local track_functions = 'all'")
        connection.execute(MONITORS, [world.org_id, 60, 500])
        calls = value(
            connection,
            "select coalesce(sum(pg_stat_get_xact_function_calls(p.oid)), 0)::integer from pg_proc p"
            " where p.proname = 'enforce_quota'",
        )
    assert calls == 1


def test_a_lower_plan_deletes_nothing_and_lets_nothing_new_in(connection: psycopg.Connection, world: World):
    connection.execute(MONITORS, [world.org_id, 5, 4])
    put_on(connection, world.org_id, monitors=2, members=1, channels=0, shortest_interval_seconds=60)
    assert [count(connection, table, world.org_id) for table in ("monitors", "memberships", "channels")] == [5, 4, 1]
    editor = world.people["editor"]
    assert refusal(connection, editor, MONITORS, [world.org_id, 60, 1]) == "PT403"
    with pytest.raises(psycopg.Error, match="quota_exceeded"):
        connection.execute(MEMBER, [world.org_id, make_user(connection)])
    with pytest.raises(psycopg.Error, match="quota_exceeded"):
        make_channel(connection, world.org_id)
    rename = "update monitors set name = 'x', interval_seconds = %s where org_id = %s and interval_seconds = 5"
    assert refusal(connection, editor, rename, [5, world.org_id]) is None, "what stands may be changed otherwise"
    assert refusal(connection, editor, rename, [10, world.org_id]) == "PT422"
    assert refusal(connection, editor, rename, [60, world.org_id]) is None
    connection.execute(
        "delete from monitors where id in (select id from monitors where org_id = %s limit 4)", [world.org_id]
    )
    assert refusal(connection, editor, MONITORS, [world.org_id, 60, 1]) is None, "there is room again"


def test_a_stranger_is_told_of_no_plan(connection: psycopg.Connection, world: World):
    put_on(connection, world.org_id, monitors=0, shortest_interval_seconds=3600)
    for who in ("stranger", "viewer"):
        assert refusal(connection, world.people[who], MONITORS, [world.org_id, 5, 1]) == "42501"


def test_the_default_plan_is_what_stood_before_there_were_plans(connection: psycopg.Connection, world: World):
    assert value(connection, "select plan from organisations where id = %s", [world.org_id]) == "unlimited"
    connection.execute(MONITORS, [world.org_id, 5, 600])
    assert value(connection, "select retention_days from plans where name = 'unlimited'") == 30


def test_an_operator_changes_the_default_with_one_statement(connection: psycopg.Connection):
    with connection.transaction(force_rollback=True):
        connection.execute("alter table organisations alter column plan set default 'free'")
        assert value(connection, "insert into organisations (name) values ('New') returning plan") == "free"


def test_nobody_who_signs_in_changes_a_plan_over_postgrest(
    own_supabase: EmbeddedSupabase, connection: psycopg.Connection, owner: Api, user: User
):
    org = owner.ask("GET", "/v1/orgs")["data"][0]["id"]
    rest = f"{own_supabase.url}/rest/v1"
    as_user = {"apikey": own_supabase.publishable_key, "Authorization": f"Bearer {user.access_token}"}

    def tried(method: str, path: str, body: dict[str, Any]) -> int:
        return requests.request(method, rest + path, json=body, headers=as_user, timeout=30).status_code

    assert tried("PATCH", f"/organisations?id=eq.{org}", {"plan": "standard"}) == 403
    assert tried("PATCH", f"/organisations?id=eq.{org}", {"name": "x", "plan": "standard"}) == 403
    assert tried("POST", "/organisations", {"name": "x", "plan": "standard"}) == 403
    assert tried("PATCH", "/plans?name=eq.unlimited", {"monitors": 1}) == 403
    assert tried("POST", "/plans", {"name": "mine"}) == 403
    assert tried("DELETE", "/plans?name=eq.free", {}) == 403
    assert tried("POST", "/rpc/apply_retention", {"max_rows": 1}) == 403
    assert value(connection, "select plan from organisations where id = %s", [org]) == "unlimited"
    assert {plan["name"] for plan in requests.get(f"{rest}/plans", headers=as_user, timeout=30).json()} >= {"free"}

    operator = {"apikey": own_supabase.secret_key}
    answer = requests.patch(
        f"{rest}/organisations?id=eq.{org}", json={"plan": "standard"}, headers=operator, timeout=30
    )
    assert answer.ok, answer.text
    assert owner.ask("GET", f"/v1/orgs/{org}")["plan"] == "standard"
    event = "select actor_kind, before ->> 'plan', after ->> 'plan' from events where org_id = %s and type = %s"
    assert rows(connection, event, [org, "organisation.updated"]) == [("system", "unlimited", "standard")]


def test_a_limit_that_is_hit_is_named_by_the_api(connection: psycopg.Connection, owner: Api):
    org = owner.ask("GET", "/v1/orgs")["data"][0]["id"]
    plan = put_on(connection, org, monitors=1, channels=0, shortest_interval_seconds=30)
    monitor = owner.ask("POST", "/v1/monitors", json=DRAFT)
    refused = owner.send("POST", "/v1/monitors", json=DRAFT)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert refused.json()["detail"] == f"The plan {plan} allows 1 monitor, and the organisation has 1."
    assert refused.json()["quota"] == {"name": "monitors", "limit": 1, "used": 1}

    refused = owner.send("POST", "/v1/channels", json={"name": "hook", "url": "http://127.0.0.1:1/"})
    assert (refused.status_code, refused.json()["quota"]["name"]) == (403, "channels")

    refused = owner.send("PATCH", f"/v1/monitors/{monitor['id']}", json={"interval_seconds": 29})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert refused.json()["errors"][0]["pointer"] == "/interval_seconds"
    assert refused.json()["quota"] == {"name": "shortest_interval_seconds", "limit": 30}
    assert owner.ask("GET", f"/v1/monitors/{monitor['id']}") == monitor
    owner.ask("DELETE", f"/v1/monitors/{monitor['id']}")
    refused = owner.send("POST", "/v1/monitors", json={**DRAFT, "interval_seconds": 5})
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "interval_below_plan")


def test_usage_shows_each_limit_and_what_is_used(connection: psycopg.Connection, owner: Api):
    org = owner.ask("GET", "/v1/orgs")["data"][0]["id"]
    owner.ask("POST", "/v1/monitors", json=DRAFT)
    connection.execute("update organisations set plan = 'free' where id = %s", [org])
    expected = {
        "org_id": org,
        "plan": "free",
        "quotas": [
            {"name": "monitors", "limit": 20, "used": 1},
            {"name": "members", "limit": 3, "used": 1},
            {"name": "channels", "limit": 3, "used": 0},
            {"name": "api_keys", "limit": 2, "used": 0},
        ],
        "shortest_interval_seconds": 60,
        "retention_days": 7,
    }
    assert owner.ask("GET", "/v1/usage") == owner.ask("GET", f"/v1/usage?org_id={org}") == expected
    connection.execute("update organisations set plan = 'unlimited' where id = %s", [org])
    assert {quota["limit"] for quota in owner.ask("GET", "/v1/usage")["quotas"]} == {None}
    owner.ask("POST", "/v1/orgs", json={"name": "Another"})
    assert owner.send("GET", "/v1/usage").status_code == 422
    assert owner.ask("GET", f"/v1/usage?org_id={org}")["org_id"] == org


def test_every_member_sees_the_whole_usage_and_a_stranger_none(connection: psycopg.Connection, world: World):
    for who, expected in (("owner", [1, 4, 1, 0]), ("viewer", [1, 4, 1, 0]), ("stranger", None)):
        with acting_as(connection, world.people[who]):
            found = value(connection, "select organisation_usage(%s)", [world.org_id])
        assert ([quota["used"] for quota in found[0]["quotas"]] if found else None) == expected, who


# --- retention --------------------------------------------------------------------------------------------------------


@pytest.fixture
def now(connection: psycopg.Connection) -> datetime:
    moment: datetime = value(connection, "select now()")
    return moment


def write_results(connection: psycopg.Connection, world: World, moments: Sequence[datetime]) -> None:
    for moment in moments:
        connection.execute("select private.ensure_check_results_day(%s)", [moment.date()])
        connection.execute(
            "insert into check_results (id, org_id, monitor_id, started_at, region, outcome, counted)"
            " values (gen_random_uuid(), %s, %s, %s, 'test', 'up', true)",
            [world.org_id, world.monitor_id, moment],
        )
    roll_up(connection)  # nothing that is not rolled up is deleted


def ages(connection: psycopg.Connection, world: World, now: datetime) -> list[int]:
    """Return how many days old the results of a world are."""
    found = rows(connection, "select started_at from check_results where org_id = %s order by 1", [world.org_id])
    return [round((now - moment).total_seconds() / 86400) for (moment,) in found]


def apply_all(connection: psycopg.Connection, max_rows: int = 1000) -> list[int]:
    """Delete until it is done, as the worker does; return how many each call deleted."""
    deleted = []
    for _ in range(1000):
        answer = value(connection, "select apply_retention(%s)", [max_rows])
        deleted.append(answer["deleted"])
        if answer["done"]:
            return deleted
    raise AssertionError("it does not come to an end")


def test_results_are_kept_as_long_as_the_organisations_own_plan_says(connection: psycopg.Connection, now: datetime):
    worlds = {days: make_world(connection) for days in (3, 10, 40)}
    for days, world in worlds.items():
        put_on(connection, world.org_id, retention_days=days)
        write_results(connection, world, [now - timedelta(days=age) for age in range(50)])
    assert value(connection, "select maintain_check_results(7)") == 9, "the days that not even the longest plan keeps"
    assert ages(connection, worlds[3], now) == ages(connection, worlds[40], now) == list(range(40, -1, -1))
    apply_all(connection)
    for days, world in worlds.items():
        assert ages(connection, world, now) == list(range(days, -1, -1)), "whole UTC days"
    assert apply_all(connection) == [0]
    connection.execute("delete from organisations where id = any(%s)", [[world.org_id for world in worlds.values()]])


def test_retention_goes_on_where_it_was_interrupted_and_follows_a_change_of_plan(
    connection: psycopg.Connection, world: World, now: datetime
):
    other = make_world(connection)
    put_on(connection, other.org_id, retention_days=30)
    put_on(connection, world.org_id, retention_days=20)
    write_results(connection, world, [now - timedelta(days=age) for age in range(30) for _ in range(3)])
    assert value(connection, "select apply_retention(1)") == {"deleted": 3, "done": False}, "one monitor's day"
    apply_all(connection)
    assert max(ages(connection, world, now)) == 20
    put_on(connection, world.org_id, retention_days=5)
    apply_all(connection)
    assert max(ages(connection, world, now)) == 5
    connection.execute("delete from organisations where id = %s", [other.org_id])


def test_of_two_workers_one_applies_the_retention(connection: psycopg.Connection, world: World, now: datetime):
    other = make_world(connection)
    put_on(connection, world.org_id, retention_days=1)
    write_results(connection, world, [now - timedelta(days=3)])
    with psycopg.connect(connection.info.dsn) as first:
        assert value(first, "select apply_retention(1000)")["deleted"] == 1
        assert value(connection, "select apply_retention(1000)") == {"deleted": 0, "done": True}
        first.rollback()
    assert ages(connection, world, now) == [3]
    connection.execute("delete from organisations where id = %s", [other.org_id])


def test_nobody_reads_a_result_older_than_the_plan_keeps_even_before_it_is_deleted(
    connection: psycopg.Connection, owner: Api, now: datetime
):
    monitor = owner.ask("POST", "/v1/monitors", json=DRAFT)
    world = World(UUID(monitor["org_id"]), {}, UUID(monitor["id"]), uuid4())
    put_on(connection, world.org_id, retention_days=2)
    kept = [now - timedelta(minutes=1), now - timedelta(days=2) + timedelta(minutes=5)]
    write_results(connection, world, [*kept, now - timedelta(days=2, minutes=5), now - timedelta(days=9)])
    here = f"/v1/monitors/{monitor['id']}/checks"
    shown = [datetime.fromisoformat(check["started_at"]) for check in owner.ask("GET", here)["data"]]
    assert shown == kept
    page = owner.ask("GET", f"{here}?limit=1")
    page = owner.ask("GET", f"{here}?limit=1&cursor={page['next_cursor']}")
    assert (len(page["data"]), page["next_cursor"]) == (1, None)


def test_a_running_worker_applies_retentions(
    own_supabase: EmbeddedSupabase, connection: psycopg.Connection, world: World, now: datetime, tmp_path
):
    other = make_world(connection)
    put_on(connection, world.org_id, retention_days=1)
    write_results(connection, world, [now - timedelta(days=age) for age in range(6)])
    with running_worker(own_supabase, tmp_path):
        eventually(lambda: max(ages(connection, world, now)) == 1, "old results are not deleted")
    connection.execute("delete from organisations where id = %s", [other.org_id])


def test_make_monitor_of_the_tests_meets_the_free_plan(connection: psycopg.Connection, world: World):
    connection.execute("update organisations set plan = 'free' where id = %s", [world.org_id])
    for _ in range(19):
        make_monitor(connection, world.org_id)
    with pytest.raises(psycopg.Error) as refused:
        make_monitor(connection, world.org_id)
    assert refused.value.diag.message_hint == '{"quota": {"name": "monitors", "used": 20, "limit": 20}}'

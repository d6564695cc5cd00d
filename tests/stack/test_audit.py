"""The audit trail of real people: who sees it, what it says, that no column slips into it, and 10,000 entries of it."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import requests
from ports import free_port

from server.features.audit.rules import is_decided
from server.features.audit.schemas import CSV_HEADER
from tests.stack.conftest import EmbeddedSupabase, User, sign_up_at
from tests.stack.product import Api, environment, eventually, process
from tests.stack.sql import ROLES, acting_as, make_monitor, make_world, refusal, rows, value

HOOK = "http://127.0.0.1:1/services/T0/xoxb-secret?token=another"
ARGUMENTS = "%s, null, null, null, null, null, null, null, null, null, 100"


@pytest.fixture(scope="module")
def pid_and_api(own_supabase: EmbeddedSupabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Api]]:
    """The API, and the process that was started for it."""
    folder, port = tmp_path_factory.mktemp("api"), free_port()
    with process("server", environment(own_supabase, PORT=str(port)), folder / "api.log") as running:
        api = Api(f"http://127.0.0.1:{port}")

        def is_up() -> bool:
            try:
                return requests.get(f"{api.url}/readyz", timeout=5).ok
            except requests.ConnectionError:
                return False

        eventually(is_up, "the API does not get ready", within_seconds=30)
        yield running.pid, api


@pytest.fixture(scope="module")
def quiet_api(pid_and_api: tuple[int, Api]) -> Api:
    return pid_and_api[1]


def org_of(owner: Api) -> str:
    found: str = owner.ask("GET", "/v1/orgs")["data"][0]["id"]
    return found


def test_each_write_is_told_with_who_did_it_and_what_changed(owner: Api, user: User):
    monitor = owner.ask("POST", "/v1/monitors", json={"name": "site", "target": "http://127.0.0.1:1/?key=secret"})
    owner.ask("PATCH", f"/v1/monitors/{monitor['id']}", json={"name": "renamed"})
    channel = owner.ask("POST", "/v1/channels", json={"name": "hook", "url": HOOK})
    owner.ask("DELETE", f"/v1/channels/{channel['id']}")
    answer = owner.send("GET", "/v1/audit")
    told = answer.json()["data"]
    assert [entry["type"] for entry in told] == [
        *("channel.deleted", "channel.created", "monitor.updated", "monitor.created"),
        *("membership.created", "organisation.created"),
    ]
    assert {(e["actor"]["kind"], e["actor"]["id"], e["actor"]["email"]) for e in told} == {
        ("user", str(user.id), user.email)
    }
    deleted, created, updated, drafted = told[:4]
    assert deleted["subject"] == {"kind": "channel", "id": channel["id"]}
    assert deleted["before"] == created["after"]
    assert (deleted["after"], created["before"]) == (None, None)
    assert created["after"]["url"].startswith("http://127.0.0.1:1/… (sha256:")
    assert (updated["before"]["name"], updated["after"]["name"]) == ("site", "renamed")
    assert drafted["after"]["target"].startswith("http://127.0.0.1:1/?… (sha256:")
    assert drafted["after"]["created_at"] == monitor["created_at"], "times are spelled as everywhere"
    for secret in ("xoxb", "another", "key=secret", channel["secret"]):
        assert secret not in answer.text


def test_what_the_system_does_has_no_actor(owner: Api, connection: psycopg.Connection):
    monitor_id = make_monitor(connection, UUID(org_of(owner)))
    (entry,) = owner.ask("GET", f"/v1/audit?subject_id={monitor_id}")["data"]
    assert entry["actor"] == {"kind": "system", "id": None, "email": None, "session_id": None}


def test_each_filter_leaves_what_it_names(owner: Api, user: User, connection: psycopg.Connection):
    monitor = owner.ask("POST", "/v1/monitors", json={"name": "site", "target": "http://127.0.0.1:1/"})
    make_monitor(connection, UUID(org_of(owner)))
    owner.ask("PATCH", f"/v1/monitors/{monitor['id']}", json={"name": "renamed"})

    def told(**query: str) -> list[str]:
        return [entry["type"] for entry in owner.ask("GET", "/v1/audit", params=query)["data"]]

    assert told(subject_id=monitor["id"]) == ["monitor.updated", "monitor.created"]
    assert told(actor_id=str(user.id), subject_kind="monitor") == ["monitor.updated", "monitor.created"]
    assert told(subject_kind="monitor") == ["monitor.updated", "monitor.created", "monitor.created"]
    assert told(type="monitor.updated") == ["monitor.updated"]
    assert told(type="monitor.resumed") == []
    changed_at = owner.ask("GET", "/v1/audit?type=monitor.updated")["data"][0]["occurred_at"]
    assert told(**{"from": changed_at}) == ["monitor.updated"]
    assert "monitor.updated" not in told(to=changed_at)
    assert len(told(to=changed_at)) == 4


def test_pages_neither_repeat_nor_skip_although_things_go_on_happening(owner: Api):
    monitor = owner.ask("POST", "/v1/monitors", json={"name": "site", "target": "http://127.0.0.1:1/"})
    for number in range(7):
        owner.ask("PATCH", f"/v1/monitors/{monitor['id']}", json={"name": f"name {number}"})
    before = [entry["id"] for entry in owner.ask("GET", "/v1/audit")["data"]]
    seen: list[int] = []
    cursor = None
    while True:
        query = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
        page = owner.ask("GET", "/v1/audit", params=query)
        seen += [entry["id"] for entry in page["data"]]
        cursor = page["next_cursor"]
        owner.ask("PATCH", f"/v1/monitors/{monitor['id']}", json={"name": f"meanwhile {len(seen)}"})
        if cursor is None:
            break
    assert seen == before == sorted(before, reverse=True)


def test_what_commits_late_belongs_to_no_page_before_it_is_settled(connection: psycopg.Connection):
    world = make_world(connection)

    def told() -> list[str]:
        with acting_as(connection, world.people["owner"], keep=False):
            page = value(connection, f"select audit_page({ARGUMENTS})", [world.org_id])
        return [entry["type"] for entry in page["entries"]]

    with psycopg.connect(connection.info.dsn) as slow:
        slow.execute("update monitors set name = 'slow' where id = %s", [world.monitor_id])
        connection.execute("update channels set name = 'quick' where id = %s", [world.channel_id])
        assert "channel.updated" not in told(), "an older transaction still runs"
        slow.commit()
    assert told()[:2] == ["channel.updated", "monitor.updated"]


@pytest.mark.parametrize("role", [*ROLES, "stranger"])
def test_admins_and_owners_read_it_in_straight_sql_too(connection: psycopg.Connection, role: str):
    world = make_world(connection)
    expected = {"owner": None, "admin": None, "stranger": "PT404"}.get(role, "PT403")
    assert refusal(connection, world.people[role], f"select audit_page({ARGUMENTS})", [world.org_id]) == expected


def test_who_is_in_several_organisations_or_none_has_to_say_which(owner: Api, quiet_api: Api, own_supabase):
    first = org_of(owner)
    owner.ask("POST", "/v1/orgs", json={"name": "Another"})
    assert owner.send("GET", "/v1/audit").status_code == 422
    assert {entry["org_id"] for entry in owner.ask("GET", f"/v1/audit?org_id={first}")["data"]} == {first}
    nobody = quiet_api.as_user(sign_up_at(own_supabase).access_token)
    assert nobody.send("GET", "/v1/audit/export").status_code == 422


def test_every_column_of_every_audited_table_is_decided(connection: psycopg.Connection):
    """A new column fails here until server/features/audit/rules.py says whether it is shown or hidden."""
    audited = rows(
        connection,
        "select convert_from(rtrim(t.tgargs, '\\000'::bytea), 'UTF8'), a.attname, a.atttypid::regtype::text"
        " from pg_trigger t join pg_proc p on p.oid = t.tgfoid and p.proname = 'append_event'"
        " join pg_attribute a on a.attrelid = t.tgrelid and a.attnum > 0 and not a.attisdropped",
    )
    audited += [
        ("delivery", *column)
        for column in rows(
            connection,
            "select attname, atttypid::regtype::text from pg_attribute"
            " where attrelid = 'deliveries'::regclass and attnum > 0 and not attisdropped",
        )
    ]
    assert {kind for kind, _, _ in audited} >= {"organisation", "membership", "monitor", "incident", "channel"}
    assert [f"{kind}.{column}" for kind, column, _ in audited if not is_decided(kind, column)] == []
    times = {column for _, column, type_ in audited if type_ == "timestamp with time zone"}
    assert {name for name in times if not name.endswith(("_at", "_since"))} == {"lease_until", "written_until"}, (
        "which are hidden"
    )


def test_ten_thousand_entries_are_exported_and_memory_stays_flat(
    owner: Api, user: User, pid_and_api: tuple[int, Api], connection: psycopg.Connection
):
    org, pid = org_of(owner), pid_and_api[0]
    write_history(connection, org, user.id, 1_000)
    for _ in range(4):  # threads that have not exported yet take their memory now
        warm = len(export(owner, "ndjson")) and len(export(owner, "csv"))
    before = peak_memory_kb(pid)
    write_history(connection, org, user.id, 9_000)
    lines = [json.loads(line) for line in export(owner, "ndjson").splitlines()]
    whole = export(owner, "csv")
    grown_kb = peak_memory_kb(pid) - before
    assert len(lines) == len({line["id"] for line in lines}) == 10_000 + 2
    newest_first = "select seq from events where org_id = %s order by occurred_at desc, seq desc"
    assert [(line["id"],) for line in lines] == rows(connection, newest_first, [org])
    assert {line["actor"]["email"] for line in lines} == {user.email}
    records = list(csv.reader(io.StringIO(whole.decode(), newline="")))
    assert (len(records), tuple(records[0])) == (10_000 + 3, CSV_HEADER)
    assert len(whole) > 8 * warm, "ten times as much"
    assert len(whole) > 20_000_000
    assert grown_kb * 1024 < len(whole) / 2, "a file in memory would weigh as much as it is long, and more"


def test_an_export_of_a_window_holds_that_window(owner: Api, user: User, connection: psycopg.Connection):
    write_history(connection, org_of(owner), user.id, 1_200)
    times = [datetime.fromisoformat(entry["occurred_at"]) for entry in owner.ask("GET", "/v1/audit?limit=200")["data"]]
    query = {"format": "ndjson", "from": times[150].isoformat(), "to": times[50].isoformat()}
    lines = owner.send("GET", "/v1/audit/export", params=query).content.splitlines()
    assert len(lines) == 100


def export(owner: Api, format: str) -> bytes:  # noqa: A002  the parameter's name
    answer = owner.send("GET", f"/v1/audit/export?format={format}")
    assert answer.status_code == 200, answer.text[:500]
    return answer.content


def write_history(connection: psycopg.Connection, org_id: str, user_id: UUID, count: int) -> None:
    """Let a user have changed a monitor many times, a second after each other."""
    after: dict[str, Any] = {"name": "x" * 2_000, "version": 2}
    last = value(connection, "select min(occurred_at) from events where org_id = %s", [org_id])
    connection.execute(
        "insert into events (org_id, occurred_at, actor_kind, actor_id, type, subject_kind, subject_id, after)"
        " select %s, %s - make_interval(secs => n), 'user', %s, 'monitor.updated', 'monitor', gen_random_uuid(), %s"
        " from generate_series(1, %s) n",
        [org_id, last - timedelta(seconds=1), user_id, json.dumps(after), count],
    )


def peak_memory_kb(pid: int) -> int:
    """Return the most memory that a process and those that it has started ever held at once."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    statuses = [Path(f"/proc/{each}/status").read_text() for each in (pid, *children)]
    return sum(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses)

"""What the database itself holds monitors to: parents, secrets, and what belongs to a kind."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.stack.sql import World, acting_as, claim, make_monitor, make_world, refusal, rows, value


@pytest.fixture
def world(connection: psycopg.Connection) -> Iterator[World]:
    world = make_world(connection)
    yield world
    connection.execute("delete from organisations where id = %s", [world.org_id])


def depend(connection: psycopg.Connection, monitor_id: UUID, *parents: UUID) -> None:
    connection.execute("update monitors set depends_on = %s where id = %s", [list(parents), monitor_id])


def make_chain(connection: psycopg.Connection, world: World, length: int) -> list[UUID]:
    """Let each of so many monitors depend on the one before it."""
    chain = [make_monitor(connection, world.org_id, f"link {n}") for n in range(length)]
    for parent, child in pairwise(chain):
        depend(connection, child, parent)
    return chain


def test_nothing_depends_on_itself_however_far_around(connection: psycopg.Connection, world: World):
    first, *_, last = make_chain(connection, world, 4)
    for parent in (first, last):
        with pytest.raises(psycopg.Error, match="dependency_cycle") as refused:
            depend(connection, first, parent)
        assert refused.value.sqlstate == "PT422"
        assert json.loads(str(refused.value.diag.message_hint)) == {"pointer": "/depends_on/0"}


def test_a_parent_of_another_organisation_is_no_parent(connection: psycopg.Connection, world: World):
    other = make_world(connection)
    for parent in (other.monitor_id, uuid4()):
        with pytest.raises(psycopg.Error, match="unknown_dependency"):
            depend(connection, world.monitor_id, parent)
    connection.execute("delete from organisations where id = %s", [other.org_id])


def test_a_parent_that_is_deleted_is_nobody_s_parent_any_more(connection: psycopg.Connection, world: World):
    parent, child = make_chain(connection, world, 2)
    connection.execute("delete from monitors where id = %s", [parent])
    assert value(connection, "select depends_on from monitors where id = %s", [child]) == []


def test_an_organisation_with_parents_and_children_can_be_deleted(connection: psycopg.Connection):
    doomed = make_world(connection)
    make_chain(connection, doomed, 3)
    connection.execute("delete from organisations where id = %s", [doomed.org_id])
    assert rows(connection, "select from monitors where org_id = %s", [doomed.org_id]) == []


def test_two_writers_cannot_close_a_cycle_between_them(connection: psycopg.Connection, world: World):
    one, other = (make_monitor(connection, world.org_id, name) for name in ("one", "other"))

    def try_to(child: UUID, parent: UUID) -> str | None:
        with psycopg.connect(connection.info.dsn, password=connection.info.password, autocommit=True) as own:
            try:
                depend(own, child, parent)
            except psycopg.Error as error:
                return error.sqlstate
        return None

    for _ in range(10):
        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(try_to, (one, other), (other, one)))
        assert sorted(map(str, outcomes)) == ["None", "PT422"]
        depend(connection, one)
        depend(connection, other)


def options_of(connection: psycopg.Connection, monitor_id: UUID) -> dict[str, Any]:
    options: dict[str, Any] = value(connection, "select options from monitors where id = %s", [monitor_id])
    return options


@pytest.mark.parametrize(
    ("auth", "shown"),
    [
        (
            {"type": "basic", "username": "ci", "password": "hush-1"},
            {"type": "basic", "username": "ci"},
        ),
        ({"type": "bearer", "token": "hush-1"}, {"type": "bearer"}),
        ({"type": "header", "name": "X-Key", "value": "hush-1"}, {"type": "header", "name": "X-Key"}),
    ],
)
def test_what_a_check_signs_in_with_is_the_worker_s_alone(
    connection: psycopg.Connection, world: World, auth: dict[str, str], shown: dict[str, str]
):
    editor, monitor_id = world.people["editor"], world.monitor_id
    with acting_as(connection, editor):
        connection.execute("update monitors set options = %s where id = %s", [json.dumps({"auth": auth}), monitor_id])
    stored = options_of(connection, monitor_id)["auth"]
    assert stored.pop("set_at")
    assert stored == shown
    assert claim(connection, monitor_id)["options"]["auth"] == auth
    everything = rows(
        connection,
        "select to_jsonb(m)::text from monitors m union all select to_jsonb(e)::text from events e where org_id = %s",
        [world.org_id],
    )
    assert not [text for (text,) in everything if "hush-1" in text]
    assert refusal(connection, editor, "select * from private.monitor_secrets") == "42501"


def test_a_new_password_is_a_change_like_any_other_and_what_is_shown_may_be_sent_back(
    connection: psycopg.Connection, world: World
):
    auth = {"type": "basic", "username": "ci", "password": "one"}
    write = "update monitors set options = %s where id = %s returning version"
    first = value(connection, write, [json.dumps({"auth": auth}), world.monitor_id])
    second = value(connection, write, [json.dumps({"auth": auth | {"password": "two"}}), world.monitor_id])
    assert second == first + 1
    shown = options_of(connection, world.monitor_id)
    connection.execute(write, [json.dumps(shown | {"method": "HEAD"}), world.monitor_id])
    assert claim(connection, world.monitor_id)["options"] == {"method": "HEAD", "auth": auth | {"password": "two"}}
    changed = {"auth": shown["auth"] | {"username": "somebody else"}}
    assert refusal(connection, world.people["editor"], write, [json.dumps(changed), world.monitor_id]) == "PT422"
    connection.execute(write, [json.dumps({"auth": None}), world.monitor_id])
    assert rows(connection, "select from private.monitor_secrets where monitor_id = %s", [world.monitor_id]) == []


INSERT = "select create_monitor(%s)"


@pytest.mark.parametrize(
    "draft",
    [
        {"kind": "heartbeat", "interval_seconds": 60, "timeout_seconds": 10, "retry_interval_seconds": 15},
        {"kind": "heartbeat", "target": "http://example.com/"},
        {"kind": "heartbeat", "regions": ["eu"]},
        {"kind": "tcp", "interval_seconds": 60, "timeout_seconds": 10, "retry_interval_seconds": 15},
        {"kind": "http", "target": "http://example.com/"},
        {"kind": "carrier pigeon"},
        {"kind": "heartbeat", "slug": "No Blanks"},
        {"kind": "heartbeat", "options": []},
        {"kind": "heartbeat", "assertions": ["x"] * 21},
        {"kind": "heartbeat", "options": {"body": "x" * 300_001}},
    ],
)
def test_what_does_not_belong_to_a_kind_does_not_come_in_whichever_way(
    connection: psycopg.Connection, world: World, draft: dict[str, Any]
):
    whole = {"org_id": str(world.org_id), "name": "odd", "paused": False} | draft
    assert refusal(connection, world.people["editor"], INSERT, [json.dumps(whole)]) == "23514"


def test_a_heartbeat_gets_an_address_of_its_own_and_is_not_due(connection: psycopg.Connection, world: World):
    draft = {"org_id": str(world.org_id), "name": "backup", "kind": "heartbeat", "slug": "backup", "paused": False}
    with acting_as(connection, world.people["editor"]):
        created = value(connection, INSERT, [json.dumps(draft)])
    assert UUID(created["ping_id"])
    due = value(connection, "select due_at from private.monitor_schedules where monitor_id = %s", [created["id"]])
    assert due is None

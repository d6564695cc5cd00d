"""The database in straight SQL, as each role sees it: so no test of a policy or a function depends on who serves it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

ROLES = ("owner", "admin", "editor", "viewer")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw8J2nKcVGPQ8="


@dataclass(frozen=True, slots=True)
class World:
    """An organisation with somebody of each role, a stranger to it, and one of each thing."""

    org_id: UUID
    people: Mapping[str, UUID]
    monitor_id: UUID
    channel_id: UUID


@contextmanager
def acting_as(
    connection: psycopg.Connection, user_id: UUID | None, role: str = "authenticated", *, keep: bool = True
) -> Iterator[None]:
    """Be somebody for one transaction, as PostgREST makes it so: the claims, then the role."""
    with connection.transaction(force_rollback=not keep):
        claims = {"role": role} | ({"sub": str(user_id)} if user_id else {})
        connection.execute("select set_config('request.jwt.claims', %s, true)", [json.dumps(claims)])
        connection.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        yield


def refusal(
    connection: psycopg.Connection,
    user_id: UUID | None,
    statement: str,
    values: Sequence[Any] = (),
    role: str = "authenticated",
) -> str | None:
    """Return the SQLSTATE with which a statement is refused, None where it is not; nothing of it stays."""
    try:
        with acting_as(connection, user_id, role, keep=False):
            connection.execute(statement, values)
    except psycopg.Error as error:
        return error.sqlstate
    return None


def changes(connection: psycopg.Connection, user_id: UUID, statement: str, row_id: UUID) -> bool:
    """Tell whether a statement changes a row, when somebody tries; nothing of it stays."""
    with acting_as(connection, user_id, keep=False):
        return connection.execute(statement, [row_id]).rowcount > 0


def rows(connection: psycopg.Connection, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return all rows."""
    return connection.execute(statement, values).fetchall()


def value(connection: psycopg.Connection, statement: str, values: Sequence[Any] = ()) -> Any:
    """Return the only value of the only row."""
    ((found,),) = rows(connection, statement, values)
    return found


def make_user(connection: psycopg.Connection) -> UUID:
    """Add somebody to Auth's users."""
    user_id = uuid4()
    connection.execute("insert into auth.users (id, email) values (%s, %s)", [user_id, f"{user_id}@example.com"])
    return user_id


def make_world(connection: psycopg.Connection) -> World:
    """Found an organisation, staff it, and put a monitor and a channel into it."""
    people = {role: make_user(connection) for role in (*ROLES, "stranger")}
    org_id = value(connection, "insert into organisations (name) values ('Acme') returning id")
    for role in ROLES:
        connection.execute(
            "insert into memberships (org_id, user_id, role) values (%s, %s, %s)", [org_id, people[role], role]
        )
    return World(org_id, people, make_monitor(connection, org_id), make_channel(connection, org_id))


def make_monitor(connection: psycopg.Connection, org_id: UUID, name: str = "site") -> UUID:
    """Insert a monitor, which is due at once."""
    monitor_id: UUID = value(
        connection,
        "insert into monitors (org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds,"
        " fail_threshold, recover_threshold)"
        " values (%s, %s, 'http', 'http://127.0.0.1:1/', 60, 10, 15, 2, 1) returning id",
        [org_id, name],
    )
    return monitor_id


def make_channel(connection: psycopg.Connection, org_id: UUID) -> UUID:
    """Insert a channel with its secret."""
    channel_id: UUID = value(
        connection,
        "insert into channels (org_id, kind, name, url) values (%s, 'webhook', 'hook', 'http://127.0.0.1:1/')"
        " returning id",
        [org_id],
    )
    connection.execute("insert into private.channel_secrets (channel_id, secret) values (%s, %s)", [channel_id, SECRET])
    return channel_id


def open_incident(connection: psycopg.Connection, world: World, monitor_id: UUID | None = None) -> UUID:
    """Let a monitor of the world be down."""
    incident_id: UUID = value(
        connection,
        "insert into incidents (org_id, monitor_id, cause, summary, evidence, started_at)"
        " values (%s, %s, 'connect', 'could not connect', '{}', now()) returning id",
        [world.org_id, monitor_id or world.monitor_id],
    )
    return incident_id


def claim(connection: psycopg.Connection, monitor_id: UUID, *, max_checks: int = 1000) -> dict[str, Any]:
    """Make a monitor due, and return the worker's claim of it."""
    connection.execute(
        "update private.monitor_schedules set due_at = now(), lease_until = null where monitor_id = %s", [monitor_id]
    )
    claimed = value(connection, "select claim_due('test', %s, 20)", [max_checks])["checks"]
    found: dict[str, Any] = next(each for each in claimed if each["monitor_id"] == str(monitor_id))
    return found


def result(claimed: dict[str, Any], *, at: datetime, state: str = "up", **more: Any) -> dict[str, Any]:
    """Return what a worker records of a claim: a success or a failure at a time, and what follows from it."""
    is_up = state == "up"
    return {
        "result_id": str(uuid4()),
        "monitor_id": claimed["monitor_id"],
        "lease_token": claimed["lease_token"],
        "region": "test",
        "started_at": at.isoformat(),
        "outcome": "up" if is_up else "down",
        "state": state,
        "state_since": at.isoformat(),
        "failures": 0 if is_up else 2,
        "successes": 1 if is_up else 0,
        "streak_since": at.isoformat(),
        "next_due_at": (at + timedelta(seconds=60)).isoformat(),
        "transitions": [{"state": state, "at": at.isoformat(), "cause": "test"}],
        "incident": None,
        "recovered_at": None,
        **more,
    }


def incident_since(at: datetime) -> dict[str, Any]:
    """Return the incident that a result opens."""
    return {"started_at": at.isoformat(), "cause": "connect", "summary": "could not connect", "evidence": {}}


def record(connection: psycopg.Connection, *results: dict[str, Any]) -> int:
    """Record results as a worker does; return how many counted."""
    counted: int = value(connection, "select record(%s)", [json.dumps(results)])["counted"]
    return counted


def roll_up(connection: psycopg.Connection, max_rows: int = 100_000) -> int:
    """Roll results up as a worker does, until all is done; return how many results were read."""
    total = 0
    for _ in range(2):  # the first sees that an hour has ended, the second that all its writers have finished
        done = False
        while not done:
            answer = value(connection, "select roll_up(%s)", [max_rows])
            total, done = total + answer["rolled_up"], answer["done"]
    return total


def walk_plan(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every node of a plan, as `explain (format json)` tells it."""
    yield node
    for child in node.get("Plans", []):
        yield from walk_plan(child)

"""An organisation to read from: rows put into it past the API, and what the API then answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.types.json import Jsonb

from tests.stack.product import Api
from tests.stack.sql import value

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Place:
    """An organisation of somebody who asks the API, and a superuser's way into it."""

    api: Api
    org_id: UUID
    connection: psycopg.Connection
    user_id: UUID

    def insert_monitor(self, name: str, **columns: Any) -> UUID:
        return insert_monitor(self.connection, self.org_id, name, **columns)

    def read_all(self, path: str, limit: int, **query: Any) -> list[dict[str, Any]]:
        """Return all pages of a list put together."""
        return [row for page in self.read_pages(path, limit, **query) for row in page]

    def read_pages(self, path: str, limit: int, **query: Any) -> Iterator[list[dict[str, Any]]]:
        cursor: str | None = None
        while True:
            page = self.api.ask("GET", path, params={**query, "cursor": cursor, "limit": limit})
            yield page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return


def insert_monitor(connection: psycopg.Connection, org_id: UUID, name: str, **columns: Any) -> UUID:
    row = {
        "org_id": org_id,
        "name": name,
        "kind": "http",
        "target": "http://127.0.0.1:1/",
        "interval_seconds": 60,
        "timeout_seconds": 10,
        "retry_interval_seconds": 15,
        "fail_threshold": 2,
        "recover_threshold": 1,
        **columns,
    }
    return insert(connection, "monitors", row)


def insert(connection: psycopg.Connection, table: str, row: dict[str, Any]) -> UUID:
    names, places = ", ".join(row), ", ".join(["%s"] * len(row))
    found: UUID = value(
        connection,
        f"insert into {table} ({names}) values ({places}) returning id",
        list(row.values()),
    )
    return found


def insert_incident(place: Place, monitor_id: UUID, **columns: Any) -> UUID:
    row = {
        "org_id": place.org_id,
        "monitor_id": monitor_id,
        "cause": "connect",
        "summary": "could not connect",
        "evidence": Jsonb({}),
        "started_at": START,
        **columns,
    }
    return insert(place.connection, "incidents", row)


RESOLVED = {"state": "resolved", "resolved_at": START, "resolution": "recovered"}


def insert_check(place: Place, monitor: UUID, moment: datetime, outcome: str) -> None:
    row = {
        "id": uuid4(),
        "org_id": place.org_id,
        "monitor_id": monitor,
        "started_at": moment,
        "region": "test",
        "outcome": outcome,
        "counted": True,
        "total_ms": 12.5,
    }
    insert(place.connection, "check_results", row)


def insert_line(
    place: Place, monitor: UUID, state: str, begins: datetime, ends: datetime | None, cause: str = "test"
) -> None:
    row = {
        "org_id": place.org_id,
        "monitor_id": monitor,
        "state": state,
        "cause": cause,
        "started_at": begins,
        "ended_at": ends,
    }
    insert(place.connection, "intervals", row)

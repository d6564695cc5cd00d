"""Heartbeats for tests: put into an organisation past the API, judged when a test says so and by no worker."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from server.data.privileged import Privileged
from server.data.transport import UpstreamSession
from server.probes.heartbeat import HeartbeatOptions
from server.worker.heartbeats import HeartbeatStore
from tests.stack.conftest import EmbeddedSupabase
from tests.stack.place import insert
from tests.stack.sql import rows, value


@dataclass(frozen=True, slots=True)
class Heart:
    """A heartbeat in the database. `url` is where its job pings, below the API's address."""

    connection: psycopg.Connection
    monitor_id: UUID
    ping_id: UUID

    @property
    def url(self) -> str:
        return f"/ping/{self.ping_id}"

    @property
    def state(self) -> str:
        return str(self.ask("select state from monitors where id = %s"))

    def ask(self, statement: str) -> Any:
        """Return one value, asked about this heartbeat."""
        return value(self.connection, statement, [self.monitor_id])

    def pings(self, columns: str) -> list[tuple[Any, ...]]:
        """Return columns of its pings, the first one first."""
        return rows(self.connection, f"select {columns} from pings where monitor_id = %s order by n", [self.monitor_id])

    def ledger(self) -> list[tuple[str, datetime, str]]:
        """Return the lines of its history."""
        statement = "select state, started_at, cause from intervals where monitor_id = %s order by started_at"
        return rows(self.connection, statement, [self.monitor_id])

    def incidents(self) -> list[tuple[str, str, datetime, datetime | None]]:
        """Return its incidents: cause, summary, from when, until when."""
        statement = (
            "select cause, summary, started_at, resolved_at from incidents where monitor_id = %s order by started_at"
        )
        return rows(self.connection, statement, [self.monitor_id])

    def set_paused(self, paused: bool) -> None:
        """Pause it or resume it, as a person does."""
        self.connection.execute("update monitors set paused = %s where id = %s", [paused, self.monitor_id])

    def age(self, by: timedelta) -> None:
        """Let everything that this heartbeat has known have happened so much earlier, as if time had passed."""
        for statement in (
            "update pings set received_at = received_at - %s where monitor_id = %s",
            "update intervals set started_at = started_at - %s where monitor_id = %s",
            "update monitors set state_since = state_since - %s where id = %s",
            "update private.monitor_schedules set due_at = due_at - %s where monitor_id = %s",
        ):
            self.connection.execute(statement, [by, self.monitor_id])
        columns = ("last_ping_at", "last_success_at", "started_at", "schedule_since", "unjudged_since")
        changes = ", ".join(f"{name} = {name} - %(by)s" for name in columns)
        self.connection.execute(
            f"update private.heartbeats set {changes} where monitor_id = %(id)s", {"by": by, "id": self.monitor_id}
        )


def make_heartbeat(connection: psycopg.Connection, org_id: Any, slug: str | None = None, **options: Any) -> Heart:
    """Put a heartbeat into an organisation."""
    row = {
        "org_id": org_id,
        "name": slug or "Backup",
        "kind": "heartbeat",
        "slug": slug,
        "fail_threshold": 1,
        "recover_threshold": 1,
        "options": Jsonb(HeartbeatOptions.model_validate(options).model_dump(mode="json")),
    }
    monitor_id = insert(connection, "monitors", row)
    return Heart(connection, monitor_id, value(connection, "select ping_id from monitors where id = %s", [monitor_id]))


@contextmanager
def heartbeat_store(supabase: EmbeddedSupabase) -> Iterator[HeartbeatStore]:
    """The worker's store over a running Supabase."""
    with UpstreamSession() as session:
        yield HeartbeatStore(Privileged(session, supabase.url, supabase.secret_key))


def judge_all(store: HeartbeatStore) -> int:
    """Do what a worker does in one round; return how many heartbeats it judged."""
    claimed = store.claim(200, 20, 0)
    store.record([(each, each.judge(claimed.now)) for each in claimed.heartbeats])
    return len(claimed.heartbeats)

"""Who is told of what while there is maintenance, or a parent is down: API and worker as they run, and a webhook."""

import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.stack.conftest import EmbeddedSupabase, SignUp
from tests.stack.place import insert
from tests.stack.product import Api, Receiver, Target, eventually

HOUR = timedelta(hours=1)


class Watched:
    """An organisation whose incidents are told to a receiver."""

    def __init__(self, api: Api, supabase: EmbeddedSupabase, receiver: Receiver) -> None:
        self.api = api
        self.receiver = receiver
        self.org_id = UUID(api.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"])
        assert supabase.database_url is not None
        self._database_url = supabase.database_url
        api.ask("POST", "/v1/channels", json={"name": "hook", "url": receiver.url})

    def watch(self, name: str, target: Target, depends_on: UUID | None = None, interval_seconds: int = 5) -> UUID:
        """Add a monitor, and wait until it is up."""
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            row = {
                "org_id": self.org_id,
                "name": name,
                "kind": "http",
                "target": target.url,
                "interval_seconds": interval_seconds,
                "timeout_seconds": 2,
                "retry_interval_seconds": 1,
                "fail_threshold": 2,
                "recover_threshold": 1,
                "depends_on": [depends_on] if depends_on else [],
            }
            monitor_id = insert(connection, "monitors", row)
        self.wait_for(monitor_id, "up")
        return monitor_id

    def state(self, monitor_id: UUID) -> str:
        with psycopg.connect(self._database_url, autocommit=True) as connection:
            ((state,),) = connection.execute("select state from monitors where id = %s", [monitor_id]).fetchall()
        return str(state)

    def wait_for(self, monitor_id: UUID, state: str) -> None:
        eventually(lambda: self.state(monitor_id) == state, f"it is not {state}", within_seconds=30)

    def incident(self, monitor_id: UUID) -> dict[str, Any]:
        """Return the monitor's last incident."""
        found: dict[str, Any] = self.api.ask("GET", f"/v1/incidents?monitor_id={monitor_id}")["data"][0]
        return found

    def maintain(self) -> str:
        """Announce maintenance of everything, which goes on."""
        now = datetime.now(UTC)
        times = {"starts_at": (now - HOUR).isoformat(), "ends_at": (now + HOUR).isoformat()}
        body = {"name": "Backups", "all_monitors": True, **times}
        return f"/v1/maintenance-windows/{self.api.ask('POST', '/v1/maintenance-windows', json=body)['id']}"

    def told(self) -> list[tuple[str, str]]:
        """Return what came in: of which monitor, and what of it."""
        return [
            (each.message["monitor"]["name"], each.message["type"].removeprefix("incident."))
            for each in list(self.receiver.received)
        ]

    def wait_until_told(self, *wanted: tuple[str, str]) -> None:
        eventually(lambda: self.told() == list(wanted), f"told {self.told()}", within_seconds=30)


@pytest.fixture
def watched(
    api: Api,
    supabase: EmbeddedSupabase,
    sign_up: SignUp,
    receiver: Receiver,
    worker: subprocess.Popen[bytes],
) -> Watched:
    assert worker.poll() is None
    return Watched(api.as_user(sign_up().access_token), supabase, receiver)


def test_what_is_down_in_maintenance_is_shown_so_and_told_at_the_end_if_it_is_down_still(
    watched: Watched, target: Target
):
    site = watched.watch("site", target)
    window = watched.maintain()
    target.stop()
    watched.wait_for(site, "down")
    incident = watched.incident(site)
    assert incident["alerted_at"] is None
    assert [(hold["kind"], hold["name"]) for hold in incident["held_by"]] == [("maintenance", "Backups")]
    assert watched.told() == []

    assert watched.api.ask("POST", f"{window}/end")["active"] is False
    watched.wait_until_told(("site", "opened"))
    incident = watched.incident(site)
    assert (incident["held_by"], incident["alerted_at"] is not None) == (None, True)
    assert [len(line["by"]) for line in incident["evidence"]["held"]] == [1, 0]

    target.start()
    watched.wait_until_told(("site", "opened"), ("site", "resolved"))


def test_what_recovers_before_the_maintenance_ends_is_told_to_nobody(watched: Watched, target: Target):
    site = watched.watch("site", target)
    window = watched.maintain()
    target.stop()
    watched.wait_for(site, "down")
    target.start()
    watched.wait_for(site, "up")
    watched.api.ask("POST", f"{window}/end")
    incident = watched.incident(site)
    assert (incident["state"], incident["held_by"], incident["alerted_at"]) == ("resolved", None, None)
    # What comes next is told, so that what came before would have been told by then.
    target.stop()
    watched.wait_until_told(("site", "opened"))
    assert watched.api.ask("GET", f"/v1/deliveries?incident_id={incident['id']}")["data"] == []


def test_a_child_of_a_parent_that_is_down_is_told_of_when_the_parent_is_back_and_the_child_is_not(
    watched: Watched, target: Target
):
    router, site = Target(), target
    router.start()
    parent = watched.watch("router", router)
    child = watched.watch("site", site, depends_on=parent)
    router.stop()
    watched.wait_for(parent, "down")
    site.stop()
    watched.wait_for(child, "down")
    assert [hold["name"] for hold in watched.incident(child)["held_by"]] == ["router"]
    watched.wait_until_told(("router", "opened"))

    router.start()
    watched.wait_for(parent, "up")
    watched.wait_until_told(("router", "opened"), ("router", "resolved"), ("site", "opened"))
    site.start()
    watched.wait_until_told(("router", "opened"), ("router", "resolved"), ("site", "opened"), ("site", "resolved"))
    router.stop()


def test_a_child_that_comes_back_with_its_parent_is_told_to_nobody(watched: Watched, target: Target):
    """The child's last look was at the outage: it is looked at once more before anybody is told."""
    router, site = Target(), target
    router.start()
    parent = watched.watch("router", router)
    child = watched.watch("site", site, depends_on=parent, interval_seconds=20)
    router.stop()
    watched.wait_for(parent, "down")
    site.stop()
    watched.wait_for(child, "down")
    site.start()
    router.start()
    watched.wait_for(parent, "up")
    watched.wait_for(child, "up")
    assert watched.incident(child)["alerted_at"] is None
    watched.wait_until_told(("router", "opened"), ("router", "resolved"))
    router.stop()

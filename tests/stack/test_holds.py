"""What holds an alert, when it is let go, and what is never told: the database's part, in straight SQL."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stack.sql import World, make_monitor, make_world, open_incident, rows, value

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Scene:
    """An organisation with one channel: `child` depends on `parent`, and that on `grandparent`; all are up."""

    connection: psycopg.Connection
    world: World
    child: UUID
    parent: UUID
    grandparent: UUID

    def put(self, monitor_id: UUID, state: str = "up", *, paused: bool = False) -> None:
        """Let a monitor be in a state."""
        self.connection.execute("update monitors set paused = %s where id = %s", [paused, monitor_id])
        self.connection.execute("update monitors set state = %s where id = %s", [state, monitor_id])

    def maintain(self, begins: timedelta, ends: timedelta, monitor_ids: list[UUID] | None = None) -> UUID:
        """Announce maintenance relative to now, of all monitors or of some; what has begun has begun."""
        window_id: UUID = value(
            self.connection,
            "insert into maintenance_windows (org_id, name, all_monitors, monitor_ids, starts_at, ends_at, time_zone)"
            " values (%s, 'Backups', %s, %s, now() + %s, now() + %s, 'UTC') returning id",
            [self.world.org_id, monitor_ids is None, monitor_ids or [], begins, ends],
        )
        self.connection.execute(
            "insert into maintenance_occurrences (org_id, window_id, starts_at, ends_at, all_monitors, monitor_ids)"
            " select org_id, id, starts_at, ends_at, all_monitors, monitor_ids from maintenance_windows where id = %s",
            [window_id],
        )
        return window_id

    def end(self, window_id: UUID) -> None:
        """Let a window be deleted, which ends what goes on of it."""
        self.connection.execute("delete from maintenance_windows where id = %s", [window_id])

    def go_down(self) -> UUID:
        """Open the child's incident."""
        self.put(self.child, "down")
        return open_incident(self.connection, self.world, self.child)

    def look(self, *, successes: int = 0, after: timedelta = timedelta()) -> None:
        """Let the child be looked at."""
        self.connection.execute(
            "update private.monitor_schedules set last_observed_at = clock_timestamp() + %s, successes = %s,"
            " lease_until = null, lease_token = null, due_at = now() + interval '1 hour' where monitor_id = %s",
            [after, successes, self.child],
        )

    def release(self) -> int:
        """Let the worker release what it may; return how many were told."""
        released: int = value(self.connection, "select release_alerts()")["released"]
        return released

    def let_go(self) -> int:
        """Let the worker find that nothing holds the child, look once more, and find it down still."""
        assert self.release() == 0, "it is looked at once more first"
        self.look()
        return self.release()

    def told(self) -> list[str]:
        """Return what the channel was told of the child, in order."""
        found = rows(
            self.connection,
            "select d.type from deliveries d join incidents i on i.id = d.incident_id where i.monitor_id = %s"
            " order by d.created_at",
            [self.child],
        )
        return [kind.removeprefix("incident.") for (kind,) in found]

    def incident(self, what: str) -> Any:
        """Return a column of the child's last incident."""
        return value(
            self.connection,
            f"select {what} from incidents where monitor_id = %s order by opened_at desc limit 1",
            [self.child],
        )

    def held_by(self) -> list[str] | None:
        """Return the names of what holds the child's alert."""
        holds = self.incident("held_by")
        return None if holds is None else [hold["name"] for hold in holds]

    def resolve(self, resolution: str = "recovered") -> None:
        """End the child's incident."""
        self.connection.execute(
            "update incidents set state = 'resolved', resolved_at = now(), resolution = %s"
            " where monitor_id = %s and resolved_at is null",
            [resolution, self.child],
        )

    def acknowledge(self) -> None:
        """Let somebody say that they are on it."""
        self.connection.execute(
            "update incidents set state = 'acknowledged' where monitor_id = %s and resolved_at is null", [self.child]
        )


@pytest.fixture
def scene(connection: psycopg.Connection) -> Iterator[Scene]:
    yield (scene := make_scene(connection))
    connection.execute("delete from organisations where id = %s", [scene.world.org_id])


def make_scene(connection: psycopg.Connection) -> Scene:
    world = make_world(connection)
    parent, grandparent = (make_monitor(connection, world.org_id, name) for name in ("parent", "grandparent"))
    for monitor, on in ((world.monitor_id, parent), (parent, grandparent)):
        connection.execute("update monitors set depends_on = %s where id = %s", [[on], monitor])
    scene = Scene(connection, world, world.monitor_id, parent, grandparent)
    for monitor in (scene.child, parent, grandparent):
        scene.put(monitor, "up")
    return scene


# What is so when the child goes down: the states of parent and grandparent, and who then holds the alert.
@pytest.mark.parametrize(
    ("parent", "grandparent", "held_by"),
    [
        ("up", "up", None),
        ("down", "up", ["parent"]),
        ("pending", "up", ["parent"]),
        ("unknown", "up", None),
        ("degraded", "up", None),
        ("new", "up", None),
        ("paused", "up", None),
        ("up", "down", ["grandparent"]),
        ("up", "pending", ["grandparent"]),
        ("paused", "down", ["grandparent"]),
        ("up", "paused", None),
        ("down", "down", ["grandparent", "parent"]),
    ],
)
def test_an_alert_is_held_while_a_parent_is_down_or_may_be(
    scene: Scene, parent: str, grandparent: str, held_by: list[str] | None
):
    for monitor, state in ((scene.parent, parent), (scene.grandparent, grandparent)):
        if state == "paused":
            scene.put(monitor, "down", paused=True)
        else:
            scene.put(monitor, state)
    scene.go_down()
    found = scene.held_by()
    assert (sorted(found) if found else None) == held_by
    assert scene.told() == ([] if held_by else ["opened"])
    assert (scene.incident("alerted_at") is None) == (held_by is not None)


MINUTE = timedelta(minutes=1)


# When a window is, whom it covers (None: everybody), and whether the alert is held.
@pytest.mark.parametrize(
    ("begins", "ends", "whom", "is_held"),
    [
        (-HOUR, HOUR, None, True),
        (-HOUR, HOUR, ["child"], True),
        (-HOUR, HOUR, ["parent", "child"], True),
        (-HOUR, HOUR, ["parent"], False),
        (timedelta(), HOUR, None, True),
        (MINUTE, HOUR, None, False),
        (-HOUR, -MINUTE, None, False),
        (-30 * 24 * HOUR, HOUR, ["child"], True),
    ],
)
def test_an_alert_is_held_while_maintenance_covers_the_monitor_itself(
    scene: Scene, begins: timedelta, ends: timedelta, whom: list[str] | None, is_held: bool
):
    scene.maintain(begins, ends, None if whom is None else [getattr(scene, name) for name in whom])
    scene.go_down()
    assert scene.held_by() == (["Backups"] if is_held else None)
    assert scene.told() == ([] if is_held else ["opened"])
    assert value(scene.connection, "select state from monitors where id = %s", [scene.child]) == "down", "no mask"


def test_maintenance_of_another_organisation_holds_nothing(scene: Scene):
    elsewhere = make_scene(scene.connection)
    elsewhere.maintain(-HOUR, HOUR)
    scene.go_down()
    assert scene.told() == ["opened"]
    scene.connection.execute("delete from organisations where id = %s", [elsewhere.world.org_id])


def test_what_is_held_is_told_once_nothing_holds_it_and_it_is_down_still(scene: Scene):
    scene.put(scene.parent, "down")
    scene.go_down()
    for _ in range(3):
        scene.look()
        assert scene.release() == 0
    assert scene.told() == []
    scene.put(scene.parent, "up")
    assert scene.let_go() == 1
    assert scene.told() == ["opened"]
    assert scene.incident("alerted_at >= opened_at and held_by is null")
    assert scene.release() == 0
    assert scene.told() == ["opened"], "told once"


def test_when_the_last_hold_ends_the_monitor_is_due_at_once(scene: Scene):
    scene.put(scene.parent, "down")
    scene.go_down()
    scene.look()
    scene.put(scene.parent, "up")
    scene.release()
    assert value(
        scene.connection, "select due_at <= now() from private.monitor_schedules where monitor_id = %s", [scene.child]
    )


def test_a_success_seen_since_the_hold_ended_keeps_the_alert_until_it_is_decided(scene: Scene):
    scene.put(scene.parent, "down")
    scene.go_down()
    scene.put(scene.parent, "up")
    scene.release()
    scene.look(successes=1)
    assert scene.release() == 0
    scene.look()
    assert scene.release() == 1


def test_a_look_of_before_the_hold_ended_tells_nothing(scene: Scene):
    scene.put(scene.parent, "down")
    scene.go_down()
    scene.put(scene.parent, "up")
    scene.release()
    scene.look(after=-MINUTE)
    assert scene.release() == 0


def test_nobody_waits_longer_than_five_minutes_for_a_look_that_never_comes(scene: Scene):
    scene.put(scene.parent, "down")
    incident = scene.go_down()
    scene.put(scene.parent, "up")
    scene.release()
    scene.connection.execute(
        "update incidents set evidence = jsonb_set(evidence, '{held,-1,at}',"
        " to_jsonb(private.rfc3339(now() - interval '5 minutes 1 second'))) where id = %s",
        [incident],
    )
    assert scene.release() == 1


def test_a_hold_that_ended_in_a_time_yet_to_come_delays_nothing(scene: Scene):
    """So it looks after a clock was set back."""
    scene.put(scene.parent, "down")
    incident = scene.go_down()
    scene.put(scene.parent, "up")
    scene.release()
    scene.connection.execute(
        "update incidents set evidence = jsonb_set(evidence, '{held,-1,at}',"
        " to_jsonb(private.rfc3339(now() + interval '1 hour'))) where id = %s",
        [incident],
    )
    assert scene.let_go() == 1


def test_a_heartbeat_is_looked_at_by_nobody_and_told_as_soon_as_nothing_holds_it(scene: Scene):
    scene.connection.execute(
        "update monitors set kind = 'heartbeat', target = null, interval_seconds = null, timeout_seconds = null,"
        " retry_interval_seconds = null where id = %s",
        [scene.child],
    )
    scene.put(scene.parent, "down")
    scene.go_down()
    scene.put(scene.parent, "up")
    assert [scene.release(), scene.release()] == [0, 1]


@pytest.mark.parametrize("state", ["up", "unknown", "degraded"])
def test_a_parent_that_is_not_down_any_more_holds_no_longer(scene: Scene, state: str):
    scene.put(scene.parent, "down")
    scene.go_down()
    scene.put(scene.parent, state)
    assert scene.let_go() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "update monitors set paused = true where id = %s",
        "delete from monitors where id = %s",
        "update monitors set depends_on = '{}' where %s::uuid = any (depends_on)",
    ],
)
def test_a_parent_that_is_paused_deleted_or_parted_from_holds_no_longer(scene: Scene, statement: str):
    scene.put(scene.parent, "down")
    scene.go_down()
    scene.connection.execute(statement, [scene.parent])
    assert scene.let_go() == 1


def test_the_end_of_maintenance_tells_of_what_is_down_still(scene: Scene):
    window = scene.maintain(-HOUR, HOUR)
    scene.go_down()
    scene.end(window)
    assert scene.let_go() == 1
    assert scene.told() == ["opened"]


def test_one_hold_after_another_is_one_hold_and_each_is_kept_in_the_evidence(scene: Scene):
    scene.put(scene.parent, "down")
    scene.go_down()
    window = scene.maintain(-HOUR, HOUR)
    scene.release()
    assert sorted(scene.held_by() or []) == ["Backups", "parent"]
    scene.put(scene.parent, "up")
    scene.release()
    assert scene.held_by() == ["Backups"]
    scene.end(window)
    scene.release()
    scene.put(scene.parent, "pending")
    scene.release()
    assert scene.held_by() == ["parent"]
    scene.put(scene.parent, "up")
    assert scene.let_go() == 1
    timeline = [sorted(hold["name"] for hold in line["by"]) for line in scene.incident("evidence")["held"]]
    assert timeline == [["parent"], ["Backups", "parent"], ["Backups"], [], ["parent"], []]
    moments = [datetime.fromisoformat(line["at"]) for line in scene.incident("evidence")["held"]]
    assert moments == sorted(moments)


def test_what_recovers_while_it_is_held_is_never_told(scene: Scene):
    scene.put(scene.parent, "down")
    scene.go_down()
    scene.resolve()
    scene.put(scene.parent, "up")
    assert [scene.release(), scene.release()] == [0, 0]
    assert scene.told() == []
    assert scene.incident("held_by is null and alerted_at is null and resolved_at is not null")


def test_what_is_resolved_by_hand_while_it_is_held_is_never_told(scene: Scene):
    window = scene.maintain(-HOUR, HOUR)
    scene.go_down()
    scene.resolve("by_hand")
    scene.end(window)
    assert [scene.release(), scene.release()] == [0, 0]
    assert scene.told() == []


def test_what_is_paused_while_it_is_held_is_never_told(scene: Scene):
    scene.maintain(-HOUR, HOUR)
    scene.go_down()
    scene.put(scene.child, "unknown", paused=True)
    assert scene.incident("resolution") == "monitor_paused"
    assert scene.told() == []


def test_what_was_acknowledged_while_it_was_held_is_told_all_the_same(scene: Scene):
    scene.put(scene.parent, "down")
    scene.go_down()
    scene.acknowledge()
    assert scene.told() == [], "who has acknowledged knows"
    scene.put(scene.parent, "up")
    assert scene.let_go() == 1
    assert scene.told() == ["opened"], "the others do not"
    payload = value(
        scene.connection, "select payload from deliveries where org_id = %s order by created_at", [scene.world.org_id]
    )
    assert (payload["type"], payload["incident"]["state"]) == ("incident.opened", "acknowledged")
    scene.resolve()
    assert scene.told() == ["opened", "resolved"]


def test_whoever_was_told_of_an_opening_is_told_what_becomes_of_it_whatever_is_down_by_then(scene: Scene):
    scene.go_down()
    scene.put(scene.parent, "down")
    scene.maintain(-HOUR, HOUR)
    scene.acknowledge()
    scene.resolve()
    assert scene.told() == ["opened", "acknowledged", "resolved"]


def test_an_end_that_was_never_begun_is_not_told_and_the_next_opening_is(scene: Scene):
    scene.put(scene.parent, "down")
    scene.go_down()
    scene.resolve()
    scene.put(scene.parent, "up")
    scene.go_down()
    assert scene.told() == ["opened"]


def test_a_circle_of_parents_which_cannot_be_hangs_nobody(scene: Scene):
    scene.connection.execute("set session_replication_role = replica")  # past the trigger that refuses it
    scene.connection.execute("update monitors set depends_on = %s where id = %s", [[scene.child], scene.grandparent])
    scene.connection.execute("set session_replication_role = origin")
    scene.put(scene.child, "down")
    scene.put(scene.grandparent, "down")
    scene.go_down()
    assert scene.held_by() == ["grandparent"], "and nobody is held by themselves"


def test_two_workers_at_once_tell_once_and_neither_waits(scene: Scene):
    scene.put(scene.parent, "down")
    scene.go_down()
    scene.put(scene.parent, "up")
    scene.release()
    scene.look()
    with psycopg.connect(scene.connection.info.dsn) as other:
        assert value(other, "select release_alerts()")["released"] == 1
        assert scene.release() == 0
        other.commit()
    assert scene.release() == 0
    assert scene.told() == ["opened"]


def test_an_incident_that_somebody_is_just_ending_is_left_alone(scene: Scene):
    scene.put(scene.parent, "down")
    incident = scene.go_down()
    scene.put(scene.parent, "up")
    scene.release()
    scene.look()
    with psycopg.connect(scene.connection.info.dsn) as other:
        other.execute(
            "update incidents set state = 'resolved', resolved_at = now(), resolution = 'recovered' where id = %s",
            [incident],
        )
        assert scene.release() == 0
        other.commit()
    assert scene.release() == 0
    assert scene.told() == []


class Model:
    """The same in plain words: an opening waits while it is held, and is told after a failure seen since."""

    def __init__(self) -> None:
        self.holds: set[str] = set()
        self.is_down = self.is_told = self.is_free = self.has_failed_since = False
        self.told: list[str] = []

    def go_down(self) -> None:
        if not self.is_down:
            self.is_down, self.is_told, self.is_free, self.has_failed_since = True, not self.holds, False, False
            self.told += ["opened"] if self.is_told else []

    def recover(self) -> None:
        self.told += ["resolved"] if self.is_down and self.is_told else []
        self.is_down = False

    def look(self, *, fails: bool) -> None:
        self.has_failed_since = self.is_free and fails

    def release(self) -> None:
        if not self.is_down or self.is_told:
            return
        if self.holds:
            self.is_free = False
        elif not self.is_free:
            self.is_free, self.has_failed_since = True, False
        elif self.has_failed_since:
            self.is_told = True
            self.told.append("opened")


STEPS = ["parent down", "parent up", "grandparent pending", "grandparent up", "maintenance", "end of maintenance"]
STEPS += ["go down", "recover", "fail", "succeed", "release", "release"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(STEPS), max_size=25))
def test_whatever_happens_it_is_told_as_the_plain_model_says(connection: psycopg.Connection, steps: list[str]):
    scene, model = make_scene(connection), Model()
    window: UUID | None = None
    for step in steps:
        match step.split():
            case ["go", "down"]:
                if not model.is_down:
                    scene.go_down()
                    model.go_down()
            case [("parent" | "grandparent") as who, state]:
                scene.put(getattr(scene, who), state)
                (model.holds.discard if state == "up" else model.holds.add)(who)
            case ["maintenance"]:
                window = window or scene.maintain(-HOUR, HOUR, [scene.child])
                model.holds.add("maintenance")
            case ["end", *_]:
                if window:
                    scene.end(window)
                window = None
                model.holds.discard("maintenance")
            case ["recover"]:
                scene.resolve()
                model.recover()
            case [("fail" | "succeed") as what]:
                scene.look(successes=0 if what == "fail" else 1)
                model.look(fails=what == "fail")
            case ["release"]:
                scene.release()
                model.release()
        assert scene.told() == model.told, json.dumps(steps)
    connection.execute("delete from organisations where id = %s", [scene.world.org_id])

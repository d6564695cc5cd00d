"""Lists, what comes along with them, the overview and 304s, as real Postgres and the embedded Supabase answer them."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from server.app import all_operations
from server.features.monitors.rules import State
from server.features.overview.rules import share_of
from server.features.uptime.rules import History, OpenLine, count_uptime, ratios_of
from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.product import Api
from tests.stack.sql import acting_as, make_user, rows, value

START = datetime(2026, 1, 1, tzinfo=UTC)
# Names that PostgREST's filters, URLs, JSON and collations could each stumble over.
AWKWARD = [
    *("", "a", "A", "ä", "Z", "z", "é", "e\u0301", "ß", "ss", "𝄞", "日本", "👩‍👩‍👧", "\u202e", "\ufeff", "\ue000"),
    *(
        ",",
        "a,b",
        "(a)",
        ")",
        '"',
        '\\"',
        "\\",
        "'",
        "%",
        "100%",
        "_",
        "*",
        "a*b",
        ".",
        "a.b",
        ":",
        "a:b",
        ";",
        "&",
        "#",
    ),
    *(
        "null",
        "true",
        "is.null",
        "eq.1",
        "+",
        "a+b",
        "%2C",
        "\n",
        "\t",
        "\x7f",
        "=",
        "?",
        "[1]",
        "{}",
        "a b",
        "-1",
        "~",
    ),
]


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


@pytest.fixture
def place(quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection) -> Place:
    user = sign_up_at(own_supabase)
    api = quiet_api.as_user(user.access_token)
    return Place(api, UUID(api.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"]), connection, user.id)


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
        "expected_status": ["200-299"],
        "max_redirects": 5,
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


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("column", ["name", "created_at", "updated_at", "state_since"])
def test_pages_put_together_are_exactly_the_rows_in_order(place: Place, column: str, descending: bool):
    chance = random.Random(column)
    for name in filter(None, AWKWARD):
        moments = {each: START + timedelta(microseconds=chance.randrange(12)) for each in ("created_at", "state_since")}
        place.insert_monitor(name * chance.choice([1, 1, 2]), updated_at=START, **moments)
        if chance.random() < 0.5:
            place.insert_monitor(name, **moments)
    direction = "desc" if descending else "asc"
    sorted_by = 'name collate "C"' if column == "name" else column
    wanted = [
        str(row_id)
        for (row_id,) in rows(
            place.connection,
            f"select id from monitors where org_id = %s order by {sorted_by} {direction}, id {direction}",
            [place.org_id],
        )
    ]
    for limit in (1, 7, 200):
        order = f"-{column}" if descending else column
        found = place.read_all("/v1/monitors", limit, order=order, org_id=str(place.org_id))
        assert [row["id"] for row in found] == wanted


@pytest.mark.parametrize("order", ["name", "-name", "created_at", "-created_at"])
def test_pages_neither_repeat_nor_skip_while_other_rows_come_and_go(place: Place, order: str):
    chance = random.Random(order)
    staying = {place.insert_monitor(chance.choice(AWKWARD[1:])) for _ in range(40)}
    leaving = [place.insert_monitor(chance.choice(AWKWARD[1:])) for _ in range(20)]
    seen: list[str] = []
    for page in place.read_pages("/v1/monitors", 5, order=order):
        seen += [row["id"] for row in page]
        if leaving:
            place.connection.execute("delete from monitors where id = %s", [leaving.pop()])
        place.insert_monitor(chance.choice(AWKWARD[1:]), created_at=START + timedelta(days=chance.randrange(-9, 999)))
        if len(seen) > 200:
            break
    assert len(seen) == len(set(seen)), "no row came twice"
    assert {str(row_id) for row_id in staying} <= set(seen), "no row that stayed was left out"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=200), min_size=2, max_size=6
    )
)
def test_any_name_that_postgres_holds_is_a_place_in_a_list(place: Place, names: list[str]):
    place.connection.execute("delete from channels where org_id = %s", [place.org_id])
    for name in [*names, names[0]]:
        insert(
            place.connection,
            "channels",
            {"org_id": place.org_id, "kind": "webhook", "name": name, "url": "http://127.0.0.1:1/"},
        )
    for order, direction in (("name", "asc"), ("-name", "desc")):
        wanted = rows(
            place.connection,
            "select id::text, name from channels where org_id = %s"
            f' order by name collate "C" {direction}, id {direction}',
            [place.org_id],
        )
        assert [(row["id"], row["name"]) for row in place.read_all("/v1/channels", 1, order=order)] == wanted


@pytest.mark.parametrize("text", [name for name in AWKWARD if name.strip()])
def test_a_search_finds_the_names_that_hold_a_text_and_no_others(place: Place, text: str):
    held = {place.insert_monitor(name) for name in (text, f"x{text}y")}
    place.insert_monitor("q")
    found = place.api.ask("GET", "/v1/monitors", params={"q": text})["data"]
    assert {row["id"] for row in found} == {str(row_id) for row_id in held}


def test_a_search_looks_past_upper_and_lower_case(place: Place):
    held = place.insert_monitor("Checkout (EU)")
    place.insert_monitor("Billing")
    for q in ("checkout", "OUT (e", "(EU)"):
        assert [row["id"] for row in place.api.ask("GET", "/v1/monitors", params={"q": q})["data"]] == [str(held)]


def test_incidents_are_filtered_by_states_and_by_when_they_opened(place: Place):
    monitor = place.insert_monitor("m")
    cases: dict[str, dict[str, Any]] = {"first": RESOLVED, "second": RESOLVED, "third": {"state": "acknowledged"}}
    ids = {
        name: str(insert_incident(place, monitor, opened_at=START + timedelta(hours=hour), **columns))
        for hour, (name, columns) in enumerate(cases.items())
    }

    def found(**query: str) -> list[str]:
        return [row["id"] for row in place.read_all("/v1/incidents", 2, order="opened_at", **query)]

    assert found() == list(ids.values())
    assert found(state="open,acknowledged") == [ids["third"]]
    assert found(state="resolved") == [ids["first"], ids["second"]]
    assert found(state="resolved,acknowledged,open") == list(ids.values())
    assert found(opened_after="2026-01-01T01:00:00Z") == [ids["second"], ids["third"]]
    assert found(opened_before="2026-01-01T02:00:00+01:00") == [ids["first"]]
    assert found(opened_after="2026-01-01T00:30:00Z", opened_before="2026-01-01T02:00:00Z") == [ids["second"]]


def test_checks_come_in_both_directions_within_a_window(place: Place):
    monitor = place.insert_monitor("m")
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    moments = sorted(today + timedelta(days=number % 3, minutes=number // 2) for number in range(24))
    for number, moment in enumerate(moments):
        insert_check(place, monitor, moment, "down" if number % 4 == 0 else "up")
    here = f"/v1/monitors/{monitor}/checks"
    for limit in (1, 5, 200):
        for order, direction in (("started_at", "asc"), ("-started_at", "desc")):
            wanted = rows(
                place.connection,
                "select id::text from check_results where monitor_id = %s"
                f" order by started_at {direction}, id {direction}",
                [monitor],
            )
            assert [(row["id"],) for row in place.read_all(here, limit, order=order)] == wanted
    window = {"from": moments[5].isoformat(), "to": moments[20].isoformat(), "outcome": "up"}
    found = [row["started_at"] for row in place.read_all(here, 3, order="started_at", **window)]
    within = [moment for number, moment in enumerate(moments) if moments[5] <= moment < moments[20] and number % 4]
    assert [datetime.fromisoformat(each) for each in found] == within


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


def test_what_comes_along_is_what_one_would_have_asked_for_next(place: Place):
    down, fine, fresh = (place.insert_monitor(name) for name in ("down", "fine", "fresh"))
    now = datetime.now(UTC).replace(microsecond=0)
    for monitor in (down, fine):
        for minutes in (3, 1, 2):
            insert_check(place, monitor, now - timedelta(minutes=minutes), "up")
        for hours in (1, 2, 3):
            insert_incident(place, monitor, opened_at=START - timedelta(hours=hours), **RESOLVED)
    going_on = insert_incident(place, down)
    found = {
        row["name"]: row
        for row in place.api.ask("GET", "/v1/monitors", params={"include": "latest_check,open_incident"})["data"]
    }
    latest = {name: row["latest_check"] and row["latest_check"]["started_at"] for name, row in found.items()}
    newest = (now - timedelta(minutes=1)).isoformat().replace("+00:00", "Z")
    assert latest == {"down": newest, "fine": newest, "fresh": None}
    assert {name: row["open_incident"] and row["open_incident"]["id"] for name, row in found.items()} == {
        "down": str(going_on),
        "fine": None,
        "fresh": None,
    }
    by_name = place.api.ask("GET", "/v1/monitors", params={"include": "latest_check,open_incident", "order": "name"})
    assert by_name["data"] == [found[name] for name in ("down", "fine", "fresh")]
    one = place.api.ask("GET", f"/v1/monitors/{down}", params={"include": "open_incident"})
    assert one == {name: text for name, text in found["down"].items() if name != "latest_check"}
    assert "open_incident" not in place.api.ask("GET", f"/v1/monitors/{fresh}")

    for words in ("one", "two"):
        place.api.ask("POST", f"/v1/incidents/{going_on}/comments", json={"body": words})
    incidents = place.api.ask("GET", "/v1/incidents", params={"include": "monitor,comments", "limit": 200})["data"]
    told = next(row for row in incidents if row["id"] == str(going_on))
    assert (told["monitor"]["name"], [comment["body"] for comment in told["comments"]]) == ("down", ["one", "two"])
    assert all(row["comments"] == [] for row in incidents if row is not told)
    whole = place.api.ask("GET", f"/v1/incidents/{going_on}", params={"include": "monitor"})
    assert whole == told


def test_a_delivery_brings_its_channel_and_its_incident(place: Place):
    channel = place.api.ask("POST", "/v1/channels", json={"name": "hook", "url": "http://127.0.0.1:1/"})["id"]
    place.api.ask("POST", f"/v1/channels/{channel}/test")
    incident = insert_incident(place, place.insert_monitor("m"))
    found = place.api.ask("GET", "/v1/deliveries", params={"include": "channel,incident"})["data"]
    assert {row["type"]: row["incident"] and row["incident"]["id"] for row in found} == {
        "incident.opened": str(incident),
        "channel.test": None,
    }
    assert {row["channel"]["name"] for row in found} == {"hook"}
    tests = place.api.ask("GET", "/v1/deliveries", params={"type": "channel.test", "state": "pending,dead"})["data"]
    assert [row["type"] for row in tests] == ["channel.test"]
    assert place.api.ask("GET", "/v1/deliveries", params={"state": "delivered"})["data"] == []


def test_the_overview_tells_what_a_home_screen_needs(place: Place):
    states = {"broken": "down", "doubtful": "pending", "slow": "degraded", "fine": "up", "new": "new"}
    ids = {name: place.insert_monitor(name, state=state, state_since=START) for name, state in states.items()}
    place.insert_monitor("off", paused=True, state="down")
    channel = place.api.ask("POST", "/v1/channels", json={"name": "hook", "url": "http://127.0.0.1:1/"})["id"]
    place.api.ask("POST", f"/v1/channels/{channel}/test")
    incident = insert_incident(place, ids["broken"])
    insert_incident(place, ids["fine"], **RESOLVED)
    place.connection.execute(
        "update deliveries set state = 'dead', next_attempt_at = null, last_error = 'gone' where incident_id = %s",
        [incident],
    )
    now = datetime.now(UTC)
    lines = [("fine", "up", 4, 1), ("fine", "down", 1, 0), ("broken", "down", 48, 36), ("broken", "up", 36, 30)]
    for name, state, begins, ends in lines:
        at = [now - timedelta(hours=hours) for hours in (begins, ends)]
        insert_line(place, ids[name], state, at[0], at[1])
    (found,) = place.api.ask("GET", "/v1/overview")["organisations"]
    assert (found["org_id"], found["name"], found["my_role"]) == (str(place.org_id), "Acme", "owner")
    assert found["monitors"] == {"total": 6, "paused": 1, "by_state": dict.fromkeys(states.values(), 1)}
    assert [monitor["name"] for monitor in found["in_trouble"]] == ["broken", "doubtful", "slow"]
    whole = place.api.ask("GET", f"/v1/incidents/{incident}")
    assert found["open_incidents"] == [{name: text for name, text in whole.items() if name != "comments"}]
    assert found["open_incident_count"] == 1
    assert [(failed["type"], failed["last_error"]) for failed in found["failed_deliveries"]] == [
        ("incident.opened", "gone")
    ]
    assert found["uptime_24_hours"] == {"uptime_ratio": 0.75, "coverage_ratio": 1.0}
    assert found["uptime_7_days"] == {"uptime_ratio": 9 / 22 // 1e-6 / 1e6, "coverage_ratio": 1.0}
    assert place.api.ask("GET", "/v1/overview", params={"org_id": str(place.org_id)})["organisations"] == [found]


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


@pytest.mark.parametrize("seed", range(12))
def test_the_uptime_of_the_overview_is_that_of_each_monitor_summed(place: Place, seed: int):
    """The database's sum is held against the rule for one monitor, with ledgers at random, at the same moment."""
    chance = random.Random(seed)
    connection = place.connection
    with connection.transaction():  # one `now()` for both
        now: datetime = value(connection, "select now()")
        spent = {hours: dict.fromkeys(("up", "degraded", "down", "unknown"), 0) for hours in (24, 168)}
        for number in range(5):
            monitor = place.insert_monitor(f"m{number}")
            history = write_ledger(place, monitor, now, chance)
            for hours, ms in spent.items():
                counted = count_uptime(history(now - timedelta(hours=hours)), now - timedelta(hours=hours), now)
                for state in ms:
                    ms[state] += getattr(counted, f"{state}_ms")
        for hours, ms in spent.items():
            with acting_as(connection, place.user_id):
                found = value(
                    connection, "select private.spent_in_states(%s, %s)", [place.org_id, now - timedelta(hours=hours)]
                )
            for state, wanted in ms.items():
                assert found.get(state, 0) // 1000 == pytest.approx(wanted, abs=20)
            assert share_of(found) == pytest.approx(list(ratios_of(**ms)), abs=2e-6)


def write_ledger(place: Place, monitor: UUID, now: datetime, chance: random.Random) -> Any:
    """Write a ledger of some ended lines and an open one; return what makes the rule's History of a window."""
    lines: list[tuple[str, bool, datetime, datetime]] = []
    at = now - timedelta(hours=chance.choice([1, 20, 100, 400]), seconds=chance.random())
    while chance.random() < 0.8 and at < now - timedelta(minutes=1):
        state = chance.choice(["up", "up", "degraded", "down", "unknown"])
        is_pause = state == "unknown" and chance.random() < 0.5
        ends = min(at + timedelta(hours=chance.random() * 60), now - timedelta(seconds=chance.random() * 60))
        if ends <= at:
            break
        insert_line(place, monitor, state, at, ends, "paused" if is_pause else "test")
        lines.append((state, is_pause, at, ends))
        at = ends
    state = chance.choice(["up", "degraded", "down", "unknown"])
    is_pause = state == "unknown" and chance.random() < 0.5
    insert_line(place, monitor, state, at, None, "paused" if is_pause else "test")
    observed = None if is_pause else max(at, now - timedelta(seconds=chance.choice([5, 200, 239.5, 241, 4000])))
    place.connection.execute(
        "update private.monitor_schedules set last_observed_at = %s, last_interval_seconds = %s where monitor_id = %s",
        [observed, None if is_pause else 60, monitor],
    )

    def history(from_at: datetime) -> History:
        ended = {"up": 0, "degraded": 0, "down": 0, "unknown": 0, "paused": 0}
        for name, paused, begins, ends in lines:
            within = ends - max(begins, from_at)
            ended["paused" if paused else name] += max(0, within // timedelta(milliseconds=1))
        first = lines[0][2] if lines else at
        interval = None if is_pause else 60
        return History(now, first, observed, interval, ended, OpenLine(State(state), is_pause, at))

    return history


def test_the_overview_of_a_stranger_is_that_of_nothing(place: Place, quiet_api: Api, own_supabase: EmbeddedSupabase):
    stranger = quiet_api.as_user(sign_up_at(own_supabase).access_token)
    assert stranger.ask("GET", "/v1/overview") == {"organisations": []}
    refused = stranger.send("GET", "/v1/overview", params={"org_id": str(place.org_id)})
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    with acting_as(place.connection, make_user(place.connection)):
        assert value(place.connection, "select private.spent_in_states(%s, now())", [place.org_id]) == {}
        assert rows(place.connection, "select * from private.last_observations(%s)", [place.org_id]) == []


# What a GET answers of the moment itself, so that no two answers are the same.
NEVER_THE_SAME = {"readyz", "metrics", "list_events"}


@pytest.fixture(scope="module")
def furnished(
    quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection
) -> tuple[Place, dict[str, str]]:
    user = sign_up_at(own_supabase)
    api = quiet_api.as_user(user.access_token)
    here = Place(api, UUID(api.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"]), connection, user.id)
    monitor = here.insert_monitor("m")
    api.ask("POST", "/v1/channels", json={"name": "hook", "url": "http://127.0.0.1:1/"})
    incident = insert_incident(here, monitor)
    api.ask("POST", f"/v1/incidents/{incident}/comments", json={"body": "I look at it"})
    insert_check(here, monitor, datetime.now(UTC), "up")
    insert_line(here, monitor, "up", START + timedelta(hours=1), START + timedelta(hours=2))
    api.ask("POST", f"/v1/orgs/{here.org_id}/invitations", json={"email": "x@y.zz", "role": "viewer"})
    key = api.ask("POST", "/v1/api-keys", json={"name": "CI", "scopes": ["read"]})["id"]
    return here, {
        "org_id": str(here.org_id),
        "monitor_id": str(monitor),
        "incident_id": str(incident),
        "key_id": key,
        "user_id": str(user.id),
    }


def path_of(path: str, ids: dict[str, str]) -> str:
    path = path.replace("<string:asset>", "swagger-ui.css")
    path = re.sub(r"<uuid:(\w+)>", lambda found: ids[found[1]], path)
    return f"{path}?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z" if path.endswith("/uptime") else path


# A file to download has no validator, and neither has a stream, which another process serves.
GETS = [each for each in all_operations() if each.method == "GET" and not each.files and not each.is_elsewhere]


@pytest.mark.parametrize("operation", GETS, ids=lambda operation: operation.name)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_get_is_304_to_whoever_holds_it(furnished: tuple[Place, dict[str, str]], operation: Any, method: str):
    place, ids = furnished
    path = path_of(operation.path, ids)
    whole = place.api.send("GET", path)
    assert whole.status_code == 200, whole.text
    again = place.api.send(method, path, headers={"If-None-Match": whole.headers["ETag"]})
    if operation.name in NEVER_THE_SAME:
        # Where the event log stands moves with every transaction, and else not.
        assert again.status_code in ({200, 304} if operation.name == "list_events" else {200})
        return
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", whole.headers["ETag"])
    other = place.api.send(method, path, headers={"If-None-Match": '"0123456789abcdef01"'})
    assert (other.status_code, other.headers["ETag"]) == (200, whole.headers["ETag"])
    assert other.content == (whole.content if method == "GET" else b"")
    assert other.headers["Content-Length"] == whole.headers["Content-Length"]


ORG_CHANGED = "update organisations set name = name || '!' where id = %(org_id)s"
MONITOR_CHANGED = "update monitors set name = name || '!' where id = %(monitor_id)s"
CHANGES = {
    "list_orgs": ORG_CHANGED,
    "read_org": ORG_CHANGED,
    "read_me": ORG_CHANGED,
    "list_monitors": MONITOR_CHANGED,
    "read_monitor": MONITOR_CHANGED,
    "list_checks": "update check_results set total_ms = total_ms + 1 where monitor_id = %(monitor_id)s",
    "read_uptime": "update intervals set ended_at = ended_at + interval '1 minute' where monitor_id = %(monitor_id)s",
    "read_overview": "update incidents set summary = summary || '!' where id = %(incident_id)s",
    "list_incidents": "update incidents set summary = summary || '!' where id = %(incident_id)s",
    "read_incident": "update incident_comments set body = body || '!' where incident_id = %(incident_id)s",
    "list_channels": "update channels set name = name || '!' where org_id = %(org_id)s",
    "list_api_keys": "update api_keys set name = name || '!' where org_id = %(org_id)s",
    "read_api_key": "update api_keys set name = name || '!' where org_id = %(org_id)s",
    "read_usage": (
        "update organisations set plan = case plan when 'free' then 'standard' else 'free' end where id = %(org_id)s"
    ),
    "list_members": "update auth.users set email = 'x' || email where id::text = %(user_id)s",
    "read_member": "update auth.users set email = 'x' || email where id::text = %(user_id)s",
    "list_invitations": "update invitations set expires_at = expires_at + interval '1 hour' where org_id = %(org_id)s",
    "list_audit": ORG_CHANGED,
    "list_deliveries": "update deliveries set attempts = attempts + 1 where org_id = %(org_id)s",
}


def test_every_closed_get_has_a_change():
    closed = {operation.name for operation in GETS if not operation.is_public}
    assert set(CHANGES) == closed - NEVER_THE_SAME


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_has_changed_is_answered_whole_under_another_etag(
    furnished: tuple[Place, dict[str, str]], name: str, method: str
):
    place, ids = furnished
    path = path_of(next(operation.path for operation in GETS if operation.name == name), ids)
    tag = place.api.send("GET", path).headers["ETag"]
    place.connection.execute(CHANGES[name], ids)
    after = place.api.send(method, path, headers={"If-None-Match": tag})
    assert after.status_code == 200
    assert after.headers["ETag"] != tag
    assert place.api.send(method, path, headers={"If-None-Match": after.headers["ETag"]}).status_code == 304


# What a list is asked in each order, within one organisation: the table or view, and a filter beside org_id.
PLANS = [
    *(("monitors", column, "org_id") for column in ("created_at", "updated_at", "state_since")),
    ("named_monitors", "name_key", "org_id"),
    *(("incidents", column, parent) for column in ("opened_at", "started_at") for parent in ("org_id", "monitor_id")),
    ("channels", "created_at", "org_id"),
    ("named_channels", "name_key", "org_id"),
    *(("deliveries", "created_at", parent) for parent in ("org_id", "channel_id")),
    ("check_results", "started_at", "monitor_id"),
]


@pytest.fixture(scope="module")
def crowd(own_supabase: EmbeddedSupabase, connection: psycopg.Connection) -> dict[str, Any]:
    """100,000 rows of each list in one organisation, among many; no triggers, which would make events of them."""
    people = [make_user(connection) for _ in range(2)]
    orgs = [value(connection, "insert into organisations (name) values ('o') returning id") for _ in range(50)]
    connection.execute("insert into memberships select unnest(%s::uuid[]), %s, 'owner'", [orgs, people[1]])
    connection.execute("insert into memberships values (%s, %s, 'viewer')", [orgs[0], people[0]])
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        for statement in CROWD.split(";\n"):
            connection.execute(statement, {"orgs": orgs, "big": orgs[0]})
    connection.execute("analyze")
    parents = {"monitor_id": "incidents", "channel_id": "deliveries"}
    ids = {
        column: value(connection, f"select {column} from {table} where org_id = %s limit 1", [orgs[0]])
        for column, table in parents.items()
    }
    return {"user_id": people[0], "org_id": orgs[0], **ids}


CROWD = """
create temporary table crowd on commit drop as
  select c.*, min(id::text) over (partition by org_id, n %% 10)::uuid as parent_id
  from (
    select gen_random_uuid() as id, n, timestamptz '2026-01-01' + n * interval '1 second' as at,
      case when n <= 100000 then %(big)s::uuid else (%(orgs)s::uuid[])[2 + n %% 49] end as org_id
    from generate_series(1, 150000) n
  ) c;
insert into monitors (id, org_id, name, kind, target, interval_seconds, timeout_seconds, retry_interval_seconds,
    fail_threshold, recover_threshold, expected_status, max_redirects, created_at, updated_at, state_since)
  select id, org_id, md5(n::text), 'http', 'http://127.0.0.1:1/', 60, 10, 15, 2, 1, '{200-299}', 5, at, at, at
  from crowd;
insert into channels (id, org_id, kind, name, url, created_at)
  select id, org_id, 'webhook', md5(n::text), 'http://127.0.0.1:1/', at from crowd;
insert into incidents (id, org_id, monitor_id, cause, summary, evidence, started_at, opened_at, state, resolved_at,
    resolution)
  select id, org_id, parent_id, 'connect', 's', '{}', at, at, 'resolved', at, 'recovered' from crowd;
insert into deliveries (org_id, channel_id, incident_id, type, payload, state, next_attempt_at, created_at)
  select org_id, parent_id, id, 'incident.opened', '{}', 'delivered', null, at from crowd;
insert into check_results (id, org_id, monitor_id, started_at, region, outcome, counted)
  select id, org_id, parent_id, date_trunc('day', now()) + n * interval '1 second', 'x', 'up', true from crowd"""


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(("table", "column", "parent"), PLANS)
def test_a_page_is_cut_out_of_an_index_wherever_it_begins(
    crowd: dict[str, Any], connection: psycopg.Connection, table: str, column: str, parent: str, direction: str
):
    """51 rows are read to answer 50, at the start and in the middle: an index scan, and nothing that sorts 100,000.

    An order by name comes from its index too, but begins at its start (docs/decisions.md, "Reading well").
    """
    beyond = "<" if direction == "desc" else ">"
    with acting_as(connection, crowd["user_id"]):
        middle, row_id = rows(
            connection,
            f"select {column}, id from {table} where {parent} = %s order by {column}, id offset 4000 limit 1",
            [crowd[parent]],
        )[0]
        # That an index can serve the page, from wherever it begins, is ours; whether Postgres finds it cheaper to sort
        # a few thousand rows is a matter of its statistics, which differ from run to run.
        for other_way in ("enable_sort", "enable_incremental_sort", "enable_bitmapscan", "enable_seqscan"):
            connection.execute(f"set local {other_way} = off")
        after = f" and {column} {beyond}= %s and ({column} {beyond} %s or id {beyond} %s)"
        for condition, more in (("", []), (after, [middle, middle, row_id])):
            plan = value(
                connection,
                f"explain (analyze, format json) select * from {table} where {parent} = %s{condition}"
                f" order by {column} {direction}, id {direction} limit 51",
                [crowd[parent], *more],
            )[0]["Plan"]
            steps = list(walk(plan))
            assert any(step["Node Type"].startswith("Index") for step in steps), plan
            assert not any("Sort" in step["Node Type"] for step in steps), plan
            if column == "name_key" and condition:
                continue
            assert max(step["Actual Rows"] + step.get("Rows Removed by Filter", 0) for step in steps) < 200, plan


def walk(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for step in plan.get("Plans", []):
        yield from walk(step)


def test_a_page_of_events_reads_what_it_answers_however_much_follows(connection: psycopg.Connection):
    """The organisation is one of many and has had more events than the others, for which a planner does not look."""
    user_id = make_user(connection)
    with connection.transaction(force_rollback=True):
        org_id = value(connection, "insert into organisations (name) values ('Busy') returning id")
        connection.execute(
            "insert into memberships (org_id, user_id, role) values (%s, %s, 'viewer')", [org_id, user_id]
        )
        connection.execute(
            "insert into events (xid, org_id, actor_kind, type, subject_kind, subject_id)"
            " select (1 + i / 10)::text::xid8, org, 'system', 'monitor.updated', 'monitor', gen_random_uuid()"
            " from (select gen_random_uuid() as org from generate_series(1, 2000)) others, generate_series(1, 10) i"
            " union all"
            " select (1 + i / 10)::text::xid8, %s, 'system', 'monitor.updated', 'monitor', gen_random_uuid()"
            " from generate_series(1, 5000) i",
            [org_id],
        )
        connection.execute("analyze events")
        with acting_as(connection, user_id):
            before = value(connection, "select pg_stat_get_xact_tuples_fetched('events'::regclass)")
            page = value(connection, "select read_events('1', 0, 50)")
            fetched = value(connection, "select pg_stat_get_xact_tuples_fetched('events'::regclass)") - before
    assert len(page["events"]) == 50
    assert fetched < 300, "or 5,000, to sort them"

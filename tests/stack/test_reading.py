"""Lists, what comes along with them, and the overview, as real Postgres and the embedded Supabase answer them."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.features.monitors.rules import State
from server.features.overview.rules import share_of
from server.features.uptime.rules import History, OpenLine, count_uptime, ratios_of
from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.place import RESOLVED, START, Place, insert, insert_check, insert_incident, insert_line
from tests.stack.product import Api
from tests.stack.sql import acting_as, make_user, rows, value

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


@pytest.fixture
def place(quiet_api: Api, own_supabase: EmbeddedSupabase, connection: psycopg.Connection) -> Place:
    user = sign_up_at(own_supabase)
    api = quiet_api.as_user(user.access_token)
    return Place(api, UUID(api.ask("POST", "/v1/orgs", json={"name": "Acme"})["id"]), connection, user.id)


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
            assert share_of(found) == pytest.approx(list(ratios_of(*ms.values())), abs=2e-6)


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

"""Pings from a job to the ledger, over the real API and Postgres; a worker's rounds are made when a test says so."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from server.features.pings.schemas import MAX_BODY_BYTES
from server.probes.heartbeat import HeartbeatOptions
from server.worker.heartbeats import HeartbeatStore
from tests.stack.conftest import EmbeddedSupabase
from tests.stack.heartbeats import Heart, heartbeat_store, judge_all, make_heartbeat
from tests.stack.product import Api
from tests.stack.sql import value

MakeHeart = Callable[..., Heart]
RUN, OTHER_RUN = str(uuid4()), str(uuid4())


@pytest.fixture(scope="module")
def store(own_supabase: EmbeddedSupabase) -> Iterator[HeartbeatStore]:
    with heartbeat_store(own_supabase) as store:
        yield store


@pytest.fixture
def org_id(owner: Api) -> str:
    return str(owner.ask("GET", "/v1/orgs")["data"][0]["id"])


@pytest.fixture
def make(connection: psycopg.Connection, org_id: str) -> MakeHeart:
    return lambda slug=None, **options: make_heartbeat(connection, org_id, slug, **options)


@pytest.fixture
def heart(make: MakeHeart) -> Heart:
    return make(period_seconds=3600, grace_seconds=600)


@pytest.fixture
def key(owner: Api) -> str:
    return str(owner.ask("POST", "/v1/api-keys", json={"name": "jobs", "scopes": ["pings:write"]})["secret"])


def send(api: Api, url: str, method: str = "GET", **more: Any) -> tuple[int, str]:
    answer = Api(api.url).send(method, url, **more)
    return answer.status_code, answer.text


@pytest.mark.parametrize(
    ("signal", "kept"),
    [
        ("", ("success", None)),
        ("/start", ("start", None)),
        ("/fail", ("fail", None)),
        ("/log", ("log", None)),
        ("/0", ("success", 0)),
        ("/1", ("fail", 1)),
        ("/255", ("fail", 255)),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_every_signal_is_taken_by_every_method_and_answered_with_ok(quiet_api: Api, heart: Heart, signal, kept, method):
    assert send(quiet_api, heart.url + signal, method) == (200, "" if method == "HEAD" else "OK")

    assert heart.pings("kind, exit_status, method, remote_ip") == [(*kept, method, "127.0.0.1")]


def test_what_comes_with_a_ping_is_kept(quiet_api: Api, heart: Heart):
    body = json.dumps({"metrics": {"rows": 120, "ratio": 0.5, "name": "x"}})
    url = heart.url + f"/start?rid={RUN}&metric.mb=7&metric.bad=x&unknown=1"
    assert send(quiet_api, url, "POST", data=body, headers={"User-Agent": "job/1"}) == (200, "OK")

    ((rid, agent, text, metrics),) = heart.pings("rid::text, user_agent, body, metrics")
    assert (rid, agent, text, metrics) == (RUN, "job/1", body, {"rows": 120, "ratio": 0.5, "mb": 7})


def test_a_body_is_kept_up_to_the_limit_that_the_answer_tells(quiet_api: Api, heart: Heart):
    answer = Api(quiet_api.url).send("POST", heart.url, data=b"x" * (MAX_BODY_BYTES + 23))

    assert (answer.text, answer.headers["Ping-Body-Limit"]) == ("OK", str(MAX_BODY_BYTES))
    assert heart.pings("octet_length(body)") == [(MAX_BODY_BYTES,)]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [(b"", None), (b"\xff\xfe", "\ufffd\ufffd"), (b"a\0b", "a\ufffdb"), ("Übung ✓".encode(), "Übung ✓")],
)
def test_no_body_is_refused(quiet_api: Api, heart: Heart, sent, kept):
    assert send(quiet_api, heart.url, "POST", data=sent) == (200, "OK")
    assert heart.pings("body") == [(kept,)]


def test_a_body_far_beyond_every_limit_is_cut_too(quiet_api: Api, heart: Heart):
    assert send(quiet_api, heart.url, "POST", data=b"x" * 5_000_000) == (200, "OK")
    assert heart.pings("octet_length(body)") == [(MAX_BODY_BYTES,)]


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        (f"/ping/{UUID(int=0)}", (404, "not found")),
        (f"/ping/{UUID(int=0)}/start", (404, "not found")),
        ("/ping/nobody", (400, "invalid url format")),
        ("/ping/{id}/256", (400, "invalid url format")),
        ("/ping/{id}/nonsense", (400, "invalid url format")),
        ("/ping/{id}?rid=17", (400, "invalid url format")),
        ("/ping/{key}/unknown", (404, "not found")),
        ("/ping/{key}/unknown/start", (404, "not found")),
        ("/ping/{key}/UPPER", (400, "invalid url format")),
        ("/ping/tocsin_unknown_key/backup", (404, "not found")),
        ("/ping/{key}/twice", (409, "ambiguous slug")),
        ("/ping/{key}/twice/fail?create=1", (409, "ambiguous slug")),
    ],
)
def test_what_is_not_taken_is_told_in_the_protocols_words(quiet_api: Api, make: MakeHeart, key: str, url, answer):
    hearts = [make("backup"), make("twice"), make("twice")]

    assert send(quiet_api, url.format(id=hearts[0].ping_id, key=key)) == answer
    assert [heart.pings("n") for heart in hearts] == [[], [], []]


def test_a_slug_stands_for_the_heartbeat_of_the_keys_organisation(quiet_api: Api, make: MakeHeart, key: str):
    heart = make("backup")

    assert send(quiet_api, f"/ping/{key}/backup/start") == (200, "OK")
    assert send(quiet_api, f"/ping/{key}/backup", "POST", data="done") == (200, "OK")
    assert heart.pings("kind, body") == [("start", None), ("success", "done")]


def test_a_key_pings_nothing_of_another_organisation_and_no_key_without_the_scope_pings(
    quiet_api: Api, owner: Api, make: MakeHeart, own_supabase: EmbeddedSupabase
):
    make("backup")
    admin = owner.ask("POST", "/v1/api-keys", json={"name": "CI", "scopes": ["admin"]})["secret"]
    assert send(quiet_api, f"/ping/{admin}/backup") == (404, "not found")


def test_create_makes_what_the_protocol_says_and_says_so_once(quiet_api: Api, owner: Api, key: str, connection):
    assert send(quiet_api, f"/ping/{key}/srv01?create=0") == (404, "not found")
    assert send(quiet_api, f"/ping/{key}/srv01/start?create=1") == (201, "Created")
    assert send(quiet_api, f"/ping/{key}/srv01?create=1") == (200, "OK")

    made = connection.execute("select name, kind, options, paused, state from monitors where slug = 'srv01'").fetchone()
    assert made == ("srv01", "heartbeat", HeartbeatOptions().model_validate({}).model_dump(mode="json"), False, "new")


def test_two_first_pings_at_once_make_one(quiet_api: Api, key: str, connection: psycopg.Connection):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: send(quiet_api, f"/ping/{key}/at-once?create=1"), range(8)))

    assert sorted(answers) == [(200, "OK")] * 7 + [(201, "Created")]
    assert value(connection, "select count(*) from monitors where slug = 'at-once'") == 1


def test_create_is_held_to_the_plan(quiet_api: Api, key: str, org_id: str, make: MakeHeart, connection):
    connection.execute("update plans set monitors = 1 where name = 'free'")
    connection.execute("update organisations set plan = 'free' where id = %s", [org_id])
    make("first")

    assert send(quiet_api, f"/ping/{key}/second?create=1") == (403, "quota exceeded")
    assert send(quiet_api, f"/ping/{key}/first?create=1") == (200, "OK")


def test_pings_of_one_heartbeat_are_numbered_in_the_order_of_their_times(quiet_api: Api, heart: Heart):
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: send(quiet_api, heart.url), range(40))) == {(200, "OK")}

    found = heart.pings("n, received_at")
    assert [n for n, _ in found] == list(range(1, 41))
    assert [at for _, at in found] == sorted({at for _, at in found})


@pytest.mark.parametrize(
    ("said", "timed"),
    [
        (["/start", ""], [False, True]),
        (["/start", "/1"], [False, True]),
        (["/start", "", ""], [False, True, False]),
        (["", ""], [False, False]),
        (["/start", "/log", ""], [False, False, True]),
        (
            [f"/start?rid={RUN}", f"/start?rid={OTHER_RUN}", f"?rid={RUN}", f"?rid={OTHER_RUN}"],
            [False, False, True, True],
        ),
        ([f"/start?rid={RUN}", ""], [False, False]),
        (["/start", f"?rid={RUN}"], [False, False]),
    ],
)
def test_a_run_is_timed_from_its_own_start(quiet_api: Api, heart: Heart, said, timed):
    for signal in said:
        send(quiet_api, heart.url + signal)

    assert [duration is not None for (duration,) in heart.pings("duration_ms")] == timed


def test_a_heartbeat_goes_up_and_down_by_what_its_job_says(quiet_api: Api, heart: Heart, store: HeartbeatStore):
    states = []
    for signal in ("/start", "", "/fail", "/log", "/0", "/3"):
        send(quiet_api, heart.url + signal)
        judge_all(store)
        states.append(heart.state)

    assert states == ["new", "up", "down", "down", "up", "down"]
    at = [moment for (moment,) in heart.pings("received_at")]
    assert heart.ledger() == [
        ("up", at[1], "pinged"),
        ("down", at[2], "failed"),
        ("up", at[4], "pinged"),
        ("down", at[5], "failed"),
    ]
    assert heart.incidents() == [
        ("failed", "the job says that it failed", at[2], at[4]),
        ("failed", "the job ended with exit status 3", at[5], None),
    ]


def test_silence_is_down_at_the_exact_expiry_however_late_it_is_noticed(
    quiet_api: Api, heart: Heart, store: HeartbeatStore
):
    send(quiet_api, heart.url)
    judge_all(store)
    heart.age(timedelta(hours=5))
    ((pinged_at,),) = heart.pings("received_at")
    judge_all(store)

    down_at = pinged_at + timedelta(seconds=3600 + 600)
    assert heart.state == "down"
    assert heart.ledger() == [("up", pinged_at, "pinged"), ("down", down_at, "missed")]
    assert heart.ask("select state_since from monitors where id = %s") == down_at
    expected_at = pinged_at + timedelta(seconds=3600)
    assert heart.incidents() == [
        ("missed", f"a ping was expected by {expected_at:%Y-%m-%d %H:%M:%S} UTC and did not come", down_at, None)
    ]


def test_a_ping_that_came_after_the_expiry_while_no_worker_was_there_counts_in_order(
    quiet_api: Api, heart: Heart, store: HeartbeatStore
):
    send(quiet_api, heart.url)
    judge_all(store)
    heart.age(timedelta(hours=5))
    send(quiet_api, heart.url)
    judge_all(store)

    first, second = (at for (at,) in heart.pings("received_at"))
    down_at = first + timedelta(seconds=4200)
    assert heart.ledger() == [("up", first, "pinged"), ("down", down_at, "missed"), ("up", second, "pinged")]
    assert [(cause, since, until) for cause, _, since, until in heart.incidents()] == [("missed", down_at, second)]


def test_a_run_that_does_not_end_is_down_when_its_time_is_over(quiet_api: Api, make: MakeHeart, store: HeartbeatStore):
    heart = make(grace_seconds=60, max_runtime_seconds=7200)
    send(quiet_api, heart.url + "/start")
    judge_all(store)
    heart.age(timedelta(seconds=7199))
    judge_all(store)
    assert heart.state == "new"
    heart.age(timedelta(seconds=10))
    judge_all(store)

    ((started_at,),) = heart.pings("received_at")
    assert heart.ledger() == [("down", started_at + timedelta(seconds=7200), "ran_too_long")]


def test_nobody_is_due_who_has_nothing_to_be_judged_for(quiet_api: Api, heart: Heart, store: HeartbeatStore):
    judge_all(store)
    assert judge_all(store) == 0
    send(quiet_api, heart.url)
    assert judge_all(store) == 1
    assert judge_all(store) == 0, "its deadline lies an hour ahead"


def test_a_ping_that_comes_between_claim_and_record_is_judged_next(quiet_api: Api, heart: Heart, store: HeartbeatStore):
    send(quiet_api, heart.url)
    claimed = store.claim(200, 20, 0)
    send(quiet_api, heart.url + "/fail")
    store.record([(each, each.judge(claimed.now)) for each in claimed.heartbeats])
    assert heart.state == "up"
    judge_all(store)
    assert heart.state == "down"


def test_what_was_judged_is_written_once_and_only_while_the_lease_holds(
    quiet_api: Api, heart: Heart, store: HeartbeatStore
):
    send(quiet_api, heart.url + "/fail")
    claimed = store.claim(200, 20, 0)
    judged = [(each, each.judge(claimed.now)) for each in claimed.heartbeats]
    heart.connection.execute("update private.monitor_schedules set lease_token = null, lease_until = null")
    store.record(judged)
    assert heart.state == "new", "another worker may have it by now"

    claimed = store.claim(200, 20, 0)
    judged = [(each, each.judge(claimed.now)) for each in claimed.heartbeats]
    store.record(judged)
    store.record(judged)
    assert (heart.state, len(heart.incidents())) == ("down", 1)


def test_a_ping_resumes_what_is_paused(quiet_api: Api, heart: Heart, store: HeartbeatStore):
    send(quiet_api, heart.url)
    judge_all(store)
    heart.set_paused(True)
    send(quiet_api, heart.url + "/log")
    assert heart.ask("select paused from monitors where id = %s") is True

    send(quiet_api, heart.url)
    judge_all(store)
    assert (heart.ask("select paused from monitors where id = %s"), heart.state) == (False, "up")
    assert [(state, cause) for state, _, cause in heart.ledger()] == [
        ("up", "pinged"),
        ("unknown", "paused"),
        ("up", "pinged"),
    ]


def test_a_pause_that_only_a_person_ends_ignores_pings(quiet_api: Api, make: MakeHeart, store):
    heart = make(manual_resume=True)
    heart.set_paused(True)
    assert send(quiet_api, heart.url) == (200, "OK")
    judge_all(store)
    assert (heart.pings("kind"), heart.state) == ([("ignored",)], "unknown")

    heart.set_paused(False)
    send(quiet_api, heart.url)
    judge_all(store)
    assert heart.state == "up"


def test_a_shorter_schedule_asks_for_nothing_that_was_not_asked_for(quiet_api: Api, heart: Heart, store):
    send(quiet_api, heart.url)
    judge_all(store)
    heart.age(timedelta(minutes=30))
    changed_at = heart.ask(
        'update monitors set options = options || \'{"period_seconds": 60, "grace_seconds": 60}\''
        " where id = %s returning updated_at"
    )
    judge_all(store)

    assert [(state, at) for state, at, _ in heart.ledger()][-1] == ("down", changed_at)


LEAP = timedelta(hours=2)


def leap(heart: Heart, store: HeartbeatStore) -> datetime:
    """Let the database's clock have gone forward; return when a worker notices, to whom nothing is lent."""
    heart.age(LEAP)
    heart.connection.execute("update private.told_time set told_at = now() - %s - interval '1 second'", [LEAP])
    claimed = store.claim(200, 20, 60)
    assert claimed.heartbeats == []
    return claimed.now


@pytest.mark.parametrize(
    ("options", "signals"),
    [
        ({"period_seconds": 3600, "grace_seconds": 600}, [""]),
        ({"cron": "* * * * *", "grace_seconds": 60}, [""]),
        ({"period_seconds": 3600, "grace_seconds": 600, "max_runtime_seconds": 900}, ["", "/start"]),
    ],
)
@pytest.mark.parametrize("is_judged", [True, False])
def test_nobody_has_missed_what_fell_into_a_leap_of_the_clock(
    quiet_api: Api, make: MakeHeart, store: HeartbeatStore, options: dict[str, Any], signals: list[str], is_judged: bool
):
    heart = make(**options)
    for signal in signals:
        send(quiet_api, heart.url + signal)
    if is_judged:
        judge_all(store)
    noticed_at = leap(heart, store)
    assert [store.move(noticed_at, LEAP) for _ in range(2)] == [True, False], "two workers notice, one moves"
    judge_all(store)
    assert (heart.state, heart.incidents()) == ("up", [])

    heart.age(timedelta(hours=1, minutes=15))
    judge_all(store)
    assert heart.state == "down", "but the time after it counts"


def test_what_was_overdue_before_a_leap_stays_so(quiet_api: Api, heart: Heart, store: HeartbeatStore):
    send(quiet_api, heart.url)
    judge_all(store)
    heart.age(timedelta(seconds=4201))
    store.move(leap(heart, store), LEAP)
    judge_all(store)
    assert heart.state == "down"


def test_an_absence_of_all_workers_is_no_leap_and_a_worker_that_stood_still_moves_nothing(
    quiet_api: Api, heart: Heart, store: HeartbeatStore
):
    send(quiet_api, heart.url)
    judge_all(store)
    noticed_at = leap(heart, store)
    assert not store.move(noticed_at, 2 * LEAP), "somebody has asked within that time"
    judge_all(store)
    assert heart.state == "down"


def test_what_was_claimed_before_a_leap_is_not_recorded_after_it(quiet_api: Api, heart: Heart, store: HeartbeatStore):
    send(quiet_api, heart.url)
    claimed = store.claim(200, 20, 0)
    store.move(leap(heart, store), LEAP)
    store.record([(each, each.judge(claimed.now)) for each in claimed.heartbeats])
    assert heart.ask("select judged_n from private.heartbeats where monitor_id = %s") == 0


def test_a_clock_that_was_set_back_makes_no_job_late_and_lets_none_be_silent_for_longer(
    quiet_api: Api, heart: Heart, store: HeartbeatStore
):
    send(quiet_api, heart.url)
    judge_all(store)
    heart.age(-LEAP)
    heart.connection.execute("update private.told_time set told_at = now() + %s", [LEAP])
    judge_all(store)
    assert heart.state == "up"
    heart.age(timedelta(seconds=4100))
    judge_all(store)
    assert heart.state == "up"
    heart.age(timedelta(seconds=101))
    judge_all(store)
    assert heart.state == "down"


def test_a_heartbeat_tells_how_it_does_before_a_worker_has_looked(quiet_api: Api, owner: Api, heart: Heart):
    def ask() -> tuple[str, str]:
        now = owner.ask("GET", f"/v1/monitors/{heart.monitor_id}/heartbeat")
        return now["status"], now["state"]

    assert ask() == ("new", "new")
    send(quiet_api, heart.url + "/start")
    assert ask() == ("started", "new")
    send(quiet_api, heart.url)
    assert ask() == ("up", "up")
    heart.age(timedelta(seconds=3700))
    assert ask() == ("late", "up")
    heart.age(timedelta(seconds=600))
    assert ask() == ("down", "down")
    send(quiet_api, heart.url + "/7")
    found = owner.ask("GET", f"/v1/monitors/{heart.monitor_id}/heartbeat")
    assert (found["status"], found["ping_count"], found["down_at"]) == ("down", 3, None)
    heart.set_paused(True)
    assert ask()[0] == "paused"


def test_pings_are_listed_newest_first_page_by_page_each_with_its_text(quiet_api: Api, owner: Api, heart: Heart):
    for number in range(5):
        send(quiet_api, heart.url + f"/{number}", "POST", data=f"run {number}")
    send(quiet_api, heart.url)

    path, cursor, found = f"/v1/monitors/{heart.monitor_id}/pings", None, []
    while True:
        page = owner.ask("GET", path, params={"limit": 2, "cursor": cursor})
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [ping["exit_status"] for ping in found] == [None, 4, 3, 2, 1, 0]
    assert [ping["n"] for ping in found] == [6, 5, 4, 3, 2, 1]
    assert found[1]["body_bytes"] == len("run 4")
    assert owner.send("GET", f"{path}/{found[1]['id']}/body").text == "run 4"
    assert owner.send("GET", f"{path}/{found[0]['id']}/body").status_code == 404, "it carried none"


def test_days_of_pings_are_made_ahead_and_dropped_and_each_plan_keeps_its_own(
    heart: Heart, org_id: str, connection: psycopg.Connection
):
    connection.execute("update organisations set plan = 'free' where id = %s", [org_id])
    for day in (40, 10, 1):
        connection.execute("select private.ensure_pings_day((now() at time zone 'UTC')::date - %s)", [day])
        connection.execute(
            "insert into pings (org_id, monitor_id, n, received_at, kind, method)"
            " values (%s, %s, %s, now() - make_interval(days => %s), 'success', 'GET')",
            [org_id, heart.monitor_id, 100 - day, day],
        )
    # Somebody else keeps them longer.
    connection.execute("insert into organisations (name, plan) values ('Other', 'unlimited')")

    made = value(connection, "select maintain_pings(7, 1000)")
    assert (made["dropped"], made["done"]) == (1, True)
    assert heart.pings("n") == [(99,)]
    ahead = (
        "select to_regclass('private.pings_' || to_char((now() at time zone 'UTC')::date + 7, 'YYYYMMDD')) is not null"
    )
    assert value(connection, ahead) is True

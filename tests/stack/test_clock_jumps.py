"""Two hundred kill -9 while the database's clock, and the workers' own, jump by an hour: what is told stays true.

Postgres and the workers live by clocks that are set while they run (libfaketime). Some sites never fail, some fail and
come back when the story says so, and one cannot be reached from one region alone. Times in the database are those of
its own clock, so an hour that the clock jumped over is an hour in which nobody looked, and none in which jobs that ping
all the time were silent.
"""

import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from ports import free_port
from stack import PostgresUrl, running_stack
from throwaway_postgres import open_database, throwaway_server

from tests.stack.clocks import SettableClock, settable_clock
from tests.stack.conftest import EmbeddedSupabase, embed, make_keys
from tests.stack.heartbeats import Heart, make_heartbeat
from tests.stack.nursery import Nursery, running_nursery
from tests.stack.product import Receiver, Website, environment, eventually
from tests.stack.sql import SECRET, rows, value

KILLS = 200
ROUNDS = 5  # in each, some sites fail and come back
# By how many hours the database's clock is set, once while sites fail and once after: to times that never were, from
# which lines stay, and back to times that have been, in which there is no room for more.
JUMPS = ((1, -1), (1, 1), (-1, 1), (-1, -1), (1, 1))
REGIONS = ("ap", "eu", "us")
WORKERS = (*REGIONS, "eu")
INTERVAL_SECONDS, TIMEOUT_SECONDS = 5, 2
# The last worker is spared until so many kills after a jump: only who was there before can tell a leap from an absence.
WITNESSED_KILLS = 5
# A gap of more than this between two looks is a time that nobody knows of.
HOLE = timedelta(seconds=3 * INTERVAL_SECONDS + 60)
# What a lease lasts beyond a check's timeout; and how long it is let last here, so that the test is short.
CHECK_LEASE_SECONDS, DELIVERY_LEASE_SECONDS, SHORT_LEASE_SECONDS = TIMEOUT_SECONDS + 20, 45, 3


class Story:
    """The world while it happens, and what is left of it afterwards."""

    def __init__(
        self,
        connection: psycopg.Connection,
        nursery: Nursery,
        clocks: tuple[SettableClock, SettableClock],
        site: Website,
        receiver: Receiver,
    ) -> None:
        self.connection = connection
        self.site = site
        self.receiver = receiver
        self.kills = self.leases_taken_over = 0
        self.steady: list[UUID] = []
        self.falling: dict[UUID, str] = {}
        self.falls: dict[UUID, int] = {}
        self.faithful: list[Heart] = []
        self.silent: Heart | None = None
        self._nursery = nursery
        self._database_clock, self._workers_clock = clocks
        self._chance = random.Random(200)  # seeded: the same moments each time
        self._workers = [(region, self._bear(region)) for region in WORKERS]

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Return all rows."""
        return rows(self.connection, statement)

    def watch(self) -> None:
        """Let there be monitors: for each number of regions that look, some that stay up and some that fall."""
        org = value(self.connection, "insert into organisations (name) values ('Acme') returning id")
        self._open_channel(org)
        for regions in ((), REGIONS):
            for number in range(3):
                self.steady.append(self._insert_monitor(org, f"{self.site.url}/steady", regions, number))
            for number in range(5):
                page = f"/{len(regions)}-{number}"
                self.falling[self._insert_monitor(org, self.site.url + page, regions, number)] = page
        self.falls = dict.fromkeys(self.falling, 0)
        for options in (
            {"period_seconds": 60},
            {"cron": "* * * * *"},
            {"period_seconds": 60, "max_runtime_seconds": 900},
        ):
            self.faithful.append(make_heartbeat(self.connection, org, grace_seconds=30, **options))
        self.silent = make_heartbeat(self.connection, org, period_seconds=60, grace_seconds=30)
        for heart in (*self.faithful, self.silent):
            self._ping(heart)
        self._ping(self.faithful[-1], "start")  # a run that takes as long as the story

    def watch_what_one_region_cannot_reach(self, url: str) -> None:
        """Let there be a monitor that fails in one region by that region's own fault."""
        org = value(self.connection, "select id from organisations")
        self.steady.append(self._insert_monitor(org, url, REGIONS, 0))

    def happen(self) -> None:
        """Let sites fail and come back, and everything be up in the end."""
        eventually(self.is_calm, "it does not begin", within_seconds=40)
        for number in range(ROUNDS):
            falling = [monitor for place, monitor in enumerate(self.falling) if (place + number) % ROUNDS < 2]
            self.site.statuses = {self.falling[monitor]: 500 for monitor in falling}
            self._kill_and_jump(KILLS // ROUNDS // 2, JUMPS[number][0])
            eventually(lambda: self.open_incidents() == set(falling), "not all outages are known", within_seconds=40)  # noqa: B023
            for monitor in falling:
                self.falls[monitor] += 1
            self.site.statuses = {}
            self._kill_and_jump(KILLS // ROUNDS // 2, JUMPS[number][1])
            eventually(self.is_calm, "it does not come to rest", within_seconds=40)
        self._database_clock.jump(2 * ROUNDS)  # so that all that was written is past
        eventually(self.was_looked_at, "not everything is looked at", within_seconds=40)
        self._let_the_silent_job_be_missed()

    def open_incidents(self) -> set[UUID]:
        """Return the sites that are said to be down."""
        self._let_leases_run_out()  # else the only region that looks may be the one that cannot reach a site
        self._ping_faithfully()
        statement = "select n.monitor_id from incidents n join monitors m on m.id = n.monitor_id"
        return {site for (site,) in self.ask(f"{statement} where n.resolved_at is null and m.kind = 'http'")}

    def is_calm(self) -> bool:
        """Tell whether every site is up, its incidents closed, and every message delivered."""
        self._let_leases_run_out()
        self._ping_faithfully()
        return all(
            value(self.connection, question) == 0
            for question in (
                "select count(*) from monitors where kind = 'http' and state <> 'up'",
                "select count(*) from incidents n join monitors m on m.id = n.monitor_id"
                " where n.resolved_at is null and m.kind = 'http'",
                "select count(*) from deliveries where state <> 'delivered'",
            )
        )

    def was_looked_at(self) -> bool:
        """Tell whether every region has just looked at each of its monitors."""
        self._let_leases_run_out()
        self._ping_faithfully()
        schedules = "private.monitor_schedules s join monitors m on m.id = s.monitor_id and m.kind = 'http'"
        late = "(s.last_observed_at > now() - interval '1 minute') is not true"
        return bool(value(self.connection, f"select count(*) from {schedules} where {late}") == 0)

    def ledger_of(self, monitor: UUID) -> list[tuple[str, datetime, datetime | None]]:
        """Return its lines in order: state, begin, end."""
        statement = "select state, started_at, ended_at from intervals where monitor_id = %s order by started_at"
        return [(state, start, end) for state, start, end in rows(self.connection, statement, [monitor])]

    def looks_at(self, monitor: UUID) -> list[tuple[datetime, str]]:
        """Return when somebody looked and it counted, and what was seen."""
        statement = "select started_at, outcome from check_results where monitor_id = %s and counted order by 1"
        return [(at, outcome) for at, outcome in rows(self.connection, statement, [monitor])]

    def _kill_and_jump(self, kills: int, hours: int) -> None:
        jump_after = self._chance.randrange(WITNESSED_KILLS, kills - WITNESSED_KILLS)
        for number in range(kills):
            self._ping_faithfully()
            time.sleep(self._chance.uniform(0.1, 0.5))  # no wait for anything: the moment of death is what is tried
            if number == jump_after:
                self._database_clock.jump(hours)
            if self._chance.random() < 0.1:
                self._workers_clock.jump(1 if self._workers_clock.hours < 0 else -1)
            witnesses = 1 if number <= jump_after + WITNESSED_KILLS else 0
            place = self._chance.randrange(len(WORKERS) - witnesses)
            region, worker = self._workers[place]
            self._nursery.kill(worker)
            self.kills += 1
            self._workers[place] = (region, self._bear(region))
            self._let_leases_run_out()

    def _ping_faithfully(self) -> None:
        for heart in self.faithful[:-1]:
            self._ping(heart)

    def _ping(self, heart: Heart, kind: str = "success") -> None:
        self.connection.execute(
            "select ping(%s, null, false, %s, null, null, 'GET', null, null, null, null)", [heart.ping_id, kind]
        )

    def _let_the_silent_job_be_missed(self) -> None:
        """Let it be noticed that one job has been silent; then let all jobs ping, and the long run end."""
        assert self.silent
        silent = self.silent
        eventually(lambda: self._keeps_pinging() and silent.state == "down", "nobody misses it", within_seconds=150)
        for heart in (*self.faithful, silent):
            self._ping(heart)
        eventually(lambda: self.is_calm() and silent.state == "up", "it does not come back", within_seconds=40)

    def _keeps_pinging(self) -> bool:
        self._let_leases_run_out()
        self._ping_faithfully()
        return True

    def _bear(self, region: str) -> int:
        reachable = "127.0.0.1/32" if region == "ap" else "127.0.0.0/8"
        return self._nursery.bear({"WORKER_REGION": region, "PRIVATE_TARGETS": reachable})

    def _let_leases_run_out(self) -> None:
        """Let the leases of the dead end sooner; a living worker has long given back one that is so old."""
        for table, seconds in (
            ("private.monitor_schedules", CHECK_LEASE_SECONDS),
            ("public.deliveries", DELIVERY_LEASE_SECONDS),
        ):
            ended = self.connection.execute(
                f"update {table} set lease_until = now() - interval '1 second'"
                " where lease_until between now() and now() + make_interval(secs => %s)",
                [seconds - SHORT_LEASE_SECONDS],
            )
            self.leases_taken_over += ended.rowcount

    def _open_channel(self, org: UUID) -> None:
        channel = value(
            self.connection,
            "insert into channels (org_id, kind, name, url) values (%s, 'webhook', 'hook', %s) returning id",
            [org, self.receiver.url],
        )
        self.connection.execute(
            "insert into private.channel_secrets (channel_id, secret) values (%s, %s)", [channel, SECRET]
        )

    def _insert_monitor(self, org: UUID, target: str, regions: tuple[str, ...], number: int) -> UUID:
        monitor: UUID = value(
            self.connection,
            "insert into monitors (org_id, name, kind, target, interval_seconds, timeout_seconds,"
            " retry_interval_seconds, fail_threshold, recover_threshold, regions)"
            " values (%s, %s, 'http', %s, %s, %s, 1, %s, 1, %s) returning id",
            [org, target, target, INTERVAL_SECONDS, TIMEOUT_SECONDS, 1 + number % 2, list(regions)],
        )
        return monitor


@pytest.fixture(scope="module")
def world_by_its_own_clock(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[EmbeddedSupabase, SettableClock]]:
    """A stack over a Postgres whose clock can be set."""
    log_path = tmp_path_factory.mktemp("own-clock") / "supabase.log"
    with (
        settable_clock() as clock,
        throwaway_server(clock.variables(threads=False)) as server_url,
        open_database(server_url) as database_url,
        running_stack(PostgresUrl(database_url), make_keys(), port=free_port(), log_path=log_path) as stack,
    ):
        yield embed(stack, database_url), clock


@pytest.fixture(scope="module")
def story(
    world_by_its_own_clock: tuple[EmbeddedSupabase, SettableClock], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    """What happened, and what is left of it."""
    supabase, database_clock = world_by_its_own_clock
    log_path: Path = tmp_path_factory.mktemp("nursery") / "workers.log"
    site, elsewhere, receiver = Website(), Website("127.0.0.2"), Receiver()
    assert supabase.database_url
    try:
        with (
            settable_clock() as workers_clock,
            running_nursery(environment(supabase) | workers_clock.variables(threads=True), log_path) as nursery,
            psycopg.connect(supabase.database_url, autocommit=True) as connection,
        ):
            story = Story(connection, nursery, (database_clock, workers_clock), site, receiver)
            story.watch()
            story.watch_what_one_region_cannot_reach(f"{elsewhere.url}/")
            story.happen()
            yield story
    finally:
        for each in (site, elsewhere, receiver):
            each.close()


def test_two_hundred_workers_were_killed_some_of_them_at_work(story: Story):
    assert story.kills == KILLS
    assert story.leases_taken_over >= KILLS // 20
    assert set(story.falls.values()) == {2}, "each has really been down"


def test_the_lines_of_each_monitor_neither_overlap_nor_leave_a_hole(story: Story):
    for monitor in (*story.steady, *story.falling):
        ledger = story.ledger_of(monitor)
        for (before, _, ended_at), (after, started_at, _) in pairwise(ledger):
            assert ended_at == started_at, "one line ends where the next begins"
            assert before != after, "a line that changes nothing is none"
        assert (ledger[-1][0], ledger[-1][2]) == ("up", None)


def test_nobody_says_of_a_site_that_never_failed_that_it_did(story: Story):
    steady = ",".join(f"'{monitor}'" for monitor in story.steady)
    assert story.ask(f"select * from incidents where monitor_id in ({steady})") == []
    assert story.ask(f"select * from intervals where state = 'down' and monitor_id in ({steady})") == []
    said = f"select * from events where after ->> 'state' = 'down' and subject_id in ({steady})"
    assert story.ask(said) == []


def test_of_all_jobs_only_the_one_that_was_silent_was_missed_however_the_clock_jumped(story: Story):
    assert story.silent
    assert [cause for cause, *_ in story.silent.incidents()] == ["missed"]
    for heart in story.faithful:
        assert (heart.incidents(), [state for state, *_ in heart.ledger()]) == ([], ["up"])


def test_a_time_in_which_nobody_looked_is_unknown(story: Story):
    for monitor in (*story.steady, *story.falling):
        ledger, holes = story.ledger_of(monitor), 0
        for (before, _), (after, _) in pairwise(story.looks_at(monitor)):
            if after - before > HOLE:
                since = before + timedelta(seconds=INTERVAL_SECONDS)
                said = {state for state, start, end in ledger if start < after and (end is None or end > since)}
                assert said <= {"unknown"}, f"of {before} to {after}"
                holes += bool(said)
        assert holes, "there were such times"


def test_a_line_that_says_down_stands_on_looks_that_failed(story: Story):
    down_lines = 0
    for monitor in story.falling:
        failed = [at for at, outcome in story.looks_at(monitor) if outcome == "down"]
        for state, start, end in story.ledger_of(monitor):
            if state == "down":
                assert end is not None
                # A look speaks of the time until the next one, at most of what is no hole yet.
                assert any(start - HOLE < at < end for at in failed), f"from {start} to {end}"
                down_lines += 1
    assert down_lines >= len(story.falling) // 2, "there were such lines"


def test_each_outage_is_one_incident_and_was_told_when_it_began_and_when_it_ended(story: Story):
    incidents = dict(story.ask("select monitor_id, count(*) from incidents group by monitor_id"))
    assert story.silent
    assert incidents == story.falls | {story.silent.monitor_id: 1}
    heard: dict[str, list[str]] = {}
    for each in story.receiver.received:
        types = heard.setdefault(each.message["incident"]["id"], [])
        if each.message["type"] not in types:  # a repetition
            types.append(each.message["type"])
    assert heard.keys() == {incident for (incident,) in story.ask("select id::text from incidents")}
    assert {tuple(types) for types in heard.values()} == {("incident.opened", "incident.resolved")}

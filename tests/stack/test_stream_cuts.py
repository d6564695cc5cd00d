"""Nothing is missed and nothing comes twice, however often a reader is cut off and however late a transaction commits.

Five connections write 1,000 events; some of their transactions stay open for a while after they have written, so that
events become visible long after, and out of the order in which they were made. Meanwhile three readers follow, each
from the position before the first of them: one over Server-Sent Events and one over WebSockets, cut off 100 times at
random and going on at one or the other of two stream processes, and one through pages, at one or the other of two API
processes.
"""

import contextlib
import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from server.features.events.rules import Position
from tests.stack.conftest import EmbeddedSupabase, sign_up_at
from tests.stack.product import Api, running_api
from tests.stack.sql import make_monitor, rows
from tests.stack.streaming import SseClient, running_streams

WRITERS, EVENTS_EACH, CUTS = 5, 200, 100
SEED = 20261124
PATIENCE_SECONDS = 30  # with a reader who has missed something
IsDone = Callable[[list[str]], bool]


@dataclass(frozen=True, slots=True)
class Run:
    """What was written, in the order of the log, and what each reader has heard, in order."""

    written: list[str]
    sequences: list[int]
    heard: dict[str, list[str]]
    cuts: dict[str, int]


@pytest.fixture(scope="module")
def run(own_supabase: EmbeddedSupabase, connection: psycopg.Connection, tmp_path_factory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("cuts")
    user = sign_up_at(own_supabase)
    with contextlib.ExitStack() as running:
        streams = [running.enter_context(running_streams(own_supabase, folder)) for _ in range(2)]
        apis = [running.enter_context(running_api(own_supabase, folder)) for _ in range(2)]
        apis = [api.as_user(user.access_token) for api in apis]
        org_id = UUID(apis[0].ask("POST", "/v1/orgs", json={"name": "Acme"})["id"])
        monitors = [make_monitor(connection, org_id) for _ in range(WRITERS)]
        begun = apis[0].ask("GET", "/v1/events")["next_after"]
        readers = ThreadPoolExecutor(3 + WRITERS)
        written_at: list[float] = []

        def is_done(heard: list[str]) -> bool:
            late = bool(written_at) and time.monotonic() > written_at[0] + PATIENCE_SECONDS
            return bool(written_at) and (late or len(heard) >= WRITERS * EVENTS_EACH)

        following = {
            "sse": readers.submit(follow_sse, streams, user.access_token, begun, is_done),
            "websocket": readers.submit(follow_websocket, streams, user.access_token, begun, is_done),
            "pages": readers.submit(follow_pages, apis, begun, is_done),
        }
        assert own_supabase.database_url is not None
        writing = [
            readers.submit(write, own_supabase.database_url, monitor_id, number)
            for number, monitor_id in enumerate(monitors)
        ]
        for each in writing:
            each.result(120)
        written_at.append(time.monotonic())
        results = {name: future.result(120) for name, future in following.items()}
        found = rows(
            connection,
            "select xid::text::bigint, seq from events where subject_id = any (%s) and type = 'monitor.updated'"
            " order by xid, seq",
            [monitors],
        )
    yield Run(
        [Position(*each).encode() for each in found],
        [seq for _, seq in found],
        {name: heard for name, (heard, _) in results.items()},
        {name: cuts for name, (_, cuts) in results.items()},
    )


def write(database_url: str, monitor_id: UUID, number: int) -> None:
    """Change one monitor 200 times, one to five times a transaction; every third transaction stays open for a while."""
    dice = random.Random(SEED + number)
    left = EVENTS_EACH
    with psycopg.connect(database_url) as connection:
        while left:
            for _ in range(min(left, dice.randint(1, 5))):
                connection.execute("update monitors set name = %s where id = %s", [f"change {left}", monitor_id])
                left -= 1
            time.sleep(dice.random() * 0.7 if dice.random() < 0.33 else dice.random() * 0.1)
            connection.commit()
            time.sleep(dice.random() * 0.1)


def follow_sse(streams: list[str], token: str, begun: str, is_done: IsDone) -> tuple[list[str], int]:
    """Follow until all has been heard, cut off at random for the first 100 times."""
    dice = random.Random(SEED)
    heard: list[str] = []
    last, cuts = begun, 0
    while cuts < CUTS or not is_done(heard):
        client = SseClient(dice.choice(streams), token, last_event_id=last, timeout=dice.random() * 0.25 + 0.01)
        assert client.status == 200, client.problem()
        most = dice.choice([0, 1, 7, 10_000])
        with contextlib.suppress(TimeoutError):
            for _, event in zip(range(most), client, strict=False):  # in this order nothing is drawn in vain
                if event.type == "monitor.updated":
                    heard.append(event.data["id"])
        last = client.last_event_id or last
        client.cut()
        cuts += 1
    return heard, cuts


def follow_websocket(streams: list[str], token: str, begun: str, is_done: IsDone) -> tuple[list[str], int]:
    """The same over WebSockets."""
    dice = random.Random(SEED + 1)
    heard: list[str] = []
    last, cuts = begun, 0
    while cuts < CUTS or not is_done(heard):
        url = dice.choice(streams).replace("http", "ws") + "/v1/events/stream"
        most = dice.choice([0, 1, 7, 10_000])
        with websockets.sync.client.connect(url, compression=None, close_timeout=1) as client:
            client.send(json.dumps({"access_token": token, "after": last}))
            with contextlib.suppress(TimeoutError, ConnectionClosed):
                for _ in range(most):
                    message = json.loads(client.recv(timeout=dice.random() * 0.25 + 0.01))
                    last = message["id"] or last
                    if message["type"] == "monitor.updated":
                        heard.append(message["data"]["id"])
            client.socket.shutdown(socket.SHUT_RDWR)
        cuts += 1
    return heard, cuts


def follow_pages(apis: list[Api], begun: str, is_done: IsDone) -> tuple[list[str], int]:
    """Ask for page after page, at random of either process, with random limits."""
    dice = random.Random(SEED + 2)
    heard: list[str] = []
    after, asked = begun, 0
    while not is_done(heard):
        page = dice.choice(apis).ask("GET", f"/v1/events?after={after}&limit={dice.choice([1, 3, 50, 200])}")
        heard += [event["id"] for event in page["data"] if event["type"] == "monitor.updated"]
        after = page["next_after"]
        asked += 1
        if not page["has_more"]:
            time.sleep(dice.random() * 0.1)
    return heard, asked


def test_the_writers_did_write_out_of_order(run: Run):
    assert len(run.written) == WRITERS * EVENTS_EACH
    assert run.sequences != sorted(run.sequences), "no transaction stayed open while another one wrote"


@pytest.mark.parametrize("reader", ["sse", "websocket"])
def test_a_stream_that_is_cut_100_times_yields_each_event_exactly_once_in_order(run: Run, reader: str):
    assert run.cuts[reader] >= CUTS
    assert run.heard[reader] == run.written


def test_pages_yield_each_event_exactly_once_in_order(run: Run):
    assert run.heard["pages"] == run.written

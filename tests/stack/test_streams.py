"""The stream as it runs, over a real Postgres: rights, refusals, slow readers, an upstream that is away."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import psycopg
import pytest
import requests
import websockets.sync.client
from websockets.exceptions import ConnectionClosedError

from server.features.events.rules import Position, Rights, Snapshot, may_see
from server.features.keys.routes import spell_secret
from server.features.orgs.rules import Role
from tests.stack.conftest import EmbeddedSupabase, User, sign_up_at
from tests.stack.product import Api, eventually, running_api
from tests.stack.sql import ROLES, acting_as, make_monitor, make_world, rows, value
from tests.stack.streaming import SseClient, running_streams
from tests.stack.upstream import Between, through

ORIGIN = "https://app.example.com"


@dataclass(frozen=True, slots=True)
class Scene:
    """An organisation with an owner and a viewer, and a monitor to be changed."""

    streams: str
    owner: User
    viewer: User
    org_id: UUID
    monitor_id: UUID


@pytest.fixture(scope="module")
def streams(own_supabase: EmbeddedSupabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_streams(own_supabase, tmp_path_factory.mktemp("streams")) as url:
        yield url


@pytest.fixture(scope="module")
def events_api(own_supabase: EmbeddedSupabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running_api(own_supabase, tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture
def scene(own_supabase: EmbeddedSupabase, streams: str, connection: psycopg.Connection) -> Scene:
    owner, viewer = sign_up_at(own_supabase), sign_up_at(own_supabase)
    org_id = value(connection, "insert into organisations (name) values ('Acme') returning id")
    for user, role in ((owner, "owner"), (viewer, "viewer")):
        connection.execute(
            "insert into memberships (org_id, user_id, role) values (%s, %s, %s)", [org_id, user.id, role]
        )
    return Scene(streams, owner, viewer, org_id, make_monitor(connection, org_id))


Listen = Callable[..., SseClient]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Open a stream, as SseClient does; it is closed when the test ends."""
    with contextlib.ExitStack() as clients:

        def listen(*arguments: Any, **more: Any) -> SseClient:
            client = SseClient(*arguments, **more)
            clients.callback(client.cut)
            return client

        yield listen


def change(connection: psycopg.Connection, monitor_id: UUID, name: str) -> None:
    connection.execute("update monitors set name = %s where id = %s", [name, monitor_id])


def append(connection: psycopg.Connection, org_id: UUID, kind: str, subject_id: UUID | None = None) -> None:
    """Write an event of a kind whose table may not be there yet."""
    connection.execute(
        "insert into events (org_id, actor_kind, type, subject_kind, subject_id) values (%s, 'system', %s, %s, %s)",
        [org_id, f"{kind}.created", kind, subject_id or uuid4()],
    )


def names(client: SseClient, until: str) -> list[str]:
    """Return the names that monitors get, as far as one."""
    heard = []
    for event in client:
        if event.type == "monitor.updated":
            heard.append(event.data["data"]["name"])
        if heard and heard[-1] == until:
            break
    return heard


def test_a_viewer_never_hears_of_keys_and_invitations(listen: Listen, scene: Scene, connection: psycopg.Connection):
    viewer, owner = (listen(scene.streams, user.access_token) for user in (scene.viewer, scene.owner))
    for client in (viewer, owner):
        client.of_type("ready")
    for kind in ("api_key", "invitation"):
        append(connection, scene.org_id, kind)
    change(connection, scene.monitor_id, "changed")
    assert [next(iter(viewer)).type] == ["monitor.updated"]
    assert [owner.next().type for _ in range(3)] == ["api_key.created", "invitation.created", "monitor.updated"]  # type: ignore[union-attr]


def test_who_is_removed_hears_of_it_and_of_nothing_after_it(
    listen: Listen, scene: Scene, connection: psycopg.Connection
):
    viewer, owner = (listen(scene.streams, user.access_token, timeout=3) for user in (scene.viewer, scene.owner))
    for client in (viewer, owner):
        client.of_type("ready")
    connection.execute("delete from memberships where user_id = %s", [scene.viewer.id])
    change(connection, scene.monitor_id, "secret")
    assert names(owner, "secret") == ["secret"]
    removal = viewer.next()
    assert removal is not None
    assert (removal.type, removal.data["data"]) == ("membership.deleted", None)
    with pytest.raises(TimeoutError):
        viewer.next()


def test_what_a_slow_transaction_had_written_before_a_removal_is_not_told_after_it(
    listen: Listen, scene: Scene, connection: psycopg.Connection, own_supabase: EmbeddedSupabase
):
    viewer, owner = (listen(scene.streams, user.access_token, timeout=5) for user in (scene.viewer, scene.owner))
    for client in (viewer, owner):
        client.of_type("ready")
    with psycopg.connect(own_supabase.database_url or "") as slow:
        change(slow, scene.monitor_id, "secret")
        connection.execute("delete from memberships where user_id = %s", [scene.viewer.id])
        time.sleep(1.5)  # both are behind the feed by now, the removal is committed
    assert names(owner, "secret") == ["secret"]
    first = viewer.next()
    assert first is not None
    assert first.type == "membership.deleted"


def test_who_becomes_a_member_hears_from_then_on(
    listen: Listen, scene: Scene, connection: psycopg.Connection, own_supabase: EmbeddedSupabase
):
    newcomer = sign_up_at(own_supabase)
    client = listen(scene.streams, newcomer.access_token)
    client.of_type("ready")
    change(connection, scene.monitor_id, "before")
    time.sleep(1.2)
    connection.execute(
        "insert into memberships (org_id, user_id, role) values (%s, %s, 'viewer')", [scene.org_id, newcomer.id]
    )
    change(connection, scene.monitor_id, "after")
    assert client.of_type("membership.created").data["data"]["role"] == "viewer"
    assert names(client, "after") == ["after"]


def test_a_token_that_runs_out_ends_the_stream_with_a_word(
    listen: Listen, scene: Scene, own_supabase: EmbeddedSupabase
):
    claims = jwt.decode(scene.owner.access_token, options={"verify_signature": False})
    short = jwt.encode({**claims, "exp": int(time.time()) + 2}, own_supabase.jwt_secret, "HS256")
    events = [event.type for event in listen(scene.streams, short)]
    assert events == ["ready", "token_expired"]
    assert listen(scene.streams, None).status == 401


@pytest.mark.parametrize(
    ("position", "code"), [(Position(0, 0), "events_gone"), (Position(2**40, 0), "position_unknown")]
)
def test_a_position_from_which_nobody_can_go_on_is_refused_before_the_stream_begins(
    listen: Listen, scene: Scene, connection: psycopg.Connection, events_api: Api, position: Position, code: str
):
    for _ in range(3):
        change(connection, scene.monitor_id, str(uuid4()))
    connection.execute(
        "update events set occurred_at = now() - interval '91 days' where seq < (select max(seq) from events)"
    )
    before = value(connection, "select count(*) from events")
    assert value(connection, "select prune_events(90, 2)") <= 2
    while value(connection, "select prune_events(90, 1000)"):
        pass
    assert 1 <= value(connection, "select count(*) from events") < max(before, 2)
    # The feed of the process itself has lost its place, so fast have 91 days gone by; whoever listened starts again.

    def hears_again() -> bool:
        witness = listen(scene.streams, scene.owner.access_token, timeout=30)
        if witness.status != 200:
            return False
        append(connection, scene.org_id, "channel")
        return next(event.type for event in witness if event.type in {"channel.created", "restart"}) != "restart"

    eventually(hears_again, "the feed does not begin anew")
    client = listen(scene.streams, scene.owner.access_token, last_event_id=position.encode())
    assert (client.status, client.problem()["code"]) == (410, code)
    answer = events_api.as_user(scene.owner.access_token).send("GET", f"/v1/events?after={position.encode()}")
    assert (answer.status_code, answer.json()["code"]) == (410, code)
    url = scene.streams.replace("http", "ws") + f"/v1/events/stream?after={position.encode()}"
    with websockets.sync.client.connect(url) as socket:
        socket.send(json.dumps({"access_token": scene.owner.access_token}))
        with pytest.raises(ConnectionClosedError) as closed:
            socket.recv(10)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4410, code)


def test_a_reader_who_takes_nothing_is_ended_and_resumes_where_they_were(
    listen: Listen, scene: Scene, connection: psycopg.Connection
):
    count = 6000
    slow = listen(scene.streams, scene.owner.access_token, receive_buffer=4096, timeout=30)
    slow.of_type("ready")
    for number in range(count // 1000):
        connection.execute(
            "insert into monitors (org_id, name, kind, target, interval_seconds, timeout_seconds,"
            " retry_interval_seconds, fail_threshold, recover_threshold, paused)"
            " select %s, repeat('x', 100) || i, 'http', 'http://127.0.0.1:1/', 60, 10, 15, 2, 1, true"
            " from generate_series(%s::integer, %s::integer) i",
            [scene.org_id, number * 1000, number * 1000 + 999],
        )
    # Once somebody has heard of something later, the process has taken all that the slow one was to be told.
    witness = listen(scene.streams, scene.viewer.access_token)
    witness.of_type("ready")
    append(connection, scene.org_id, "channel")
    witness.of_type("channel.created")
    written = rows(
        connection,
        "select xid::text::bigint, seq from events where org_id = %s and type = 'monitor.created' and subject_id <> %s"
        " order by xid, seq",
        [scene.org_id, scene.monitor_id],
    )
    got = list(slow)
    assert got[-1].type == "overflow"
    resumed = listen(scene.streams, scene.owner.access_token, last_event_id=slow.last_event_id, timeout=30)
    assert resumed.of_type("ready").id == slow.last_event_id
    rest = [heard.id for _, heard in zip(range(count - len(got) + 1), resumed, strict=False)]
    heard = [event.id for event in got[:-1]] + rest
    assert heard == [Position(*each).encode() for each in written]


def test_streams_stay_open_while_the_database_is_away_and_go_on_when_it_is_back(
    listen: Listen, scene: Scene, own_supabase: EmbeddedSupabase, connection: psycopg.Connection, tmp_path: Path
):
    between = Between(own_supabase.url)
    with running_streams(through(between, own_supabase), tmp_path) as url:
        client = listen(url, scene.owner.access_token, timeout=30)
        client.of_type("ready")
        between.become("refuse")
        time.sleep(1.5)
        for name in ("one", "two", "three"):
            change(connection, scene.monitor_id, name)
        assert listen(url, scene.owner.access_token).status == 503
        between.become(None)
        assert names(client, "three") == ["one", "two", "three"]
    between.close()


def test_a_process_that_ends_takes_leave_and_another_goes_on(
    listen: Listen, scene: Scene, own_supabase: EmbeddedSupabase, connection: psycopg.Connection, tmp_path: Path
):
    with running_streams(own_supabase, tmp_path) as url:
        sse = listen(url, scene.owner.access_token)
        sse.of_type("ready")
        socket = websockets.sync.client.connect(
            url.replace("http", "ws") + "/v1/events/stream",
            additional_headers={"Authorization": f"Bearer {scene.owner.access_token}"},
        )
        ready = json.loads(socket.recv(10))
        began = time.monotonic()
    took = time.monotonic() - began
    assert took < 5
    assert sse.of_type("restart").id is None
    assert sse.next() is None
    assert json.loads(socket.recv(10))["type"] == "restart"
    with pytest.raises(ConnectionClosedError) as closed:
        socket.recv(10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    change(connection, scene.monitor_id, "meanwhile")
    other = listen(scene.streams, scene.owner.access_token, last_event_id=sse.last_event_id)
    assert names(other, "meanwhile") == ["meanwhile"]
    query = f"?after={ready['id']}"
    assert names(listen(scene.streams, scene.owner.access_token, query=query), "meanwhile") == ["meanwhile"]


def test_one_person_holds_at_most_twenty_streams(listen: Listen, scene: Scene):
    held = [listen(scene.streams, scene.owner.access_token) for _ in range(20)]
    assert {client.status for client in held} == {200}
    refused = listen(scene.streams, scene.owner.access_token)
    assert (refused.status, refused.problem()["code"]) == (429, "too_many_streams")
    for client in held:
        client.cut()
    eventually(
        lambda: requests.get(f"{scene.streams}/readyz", timeout=5).json()["streams"] == 0, "places are not given back"
    )


def test_a_page_in_a_browser_may_follow_where_its_origin_may(listen: Listen, scene: Scene):
    allowed = listen(scene.streams, scene.owner.access_token, headers={"Origin": ORIGIN})
    assert allowed.answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    preflight = requests.options(f"{scene.streams}/v1/events/stream", headers=asked, timeout=5)
    assert preflight.status_code == 204
    assert "last-event-id" in preflight.headers["Access-Control-Allow-Headers"].lower()
    url = scene.streams.replace("http", "ws") + "/v1/events/stream"
    for origin in ("https://evil.example.com", "null"):
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            websockets.sync.client.connect(url, origin=websockets.typing.Origin(origin))
        assert refused.value.response.status_code == 403


def test_what_the_stream_process_tells_a_reader_is_what_the_policies_show(connection: psycopg.Connection):
    """The rule in `may_see`, which the stream process asks, against row-level security, for each role and each kind."""
    world = make_world(connection)
    connection.execute("delete from events where org_id = %s", [world.org_id])
    kinds = ["monitor", "incident", "channel", "organisation", "api_key", "invitation", "membership"]
    for kind in kinds:
        append(connection, world.org_id, kind)
    for person in world.people.values():
        append(connection, world.org_id, "membership", person)
    written = rows(
        connection, "select seq, subject_kind, subject_id::text from events where org_id = %s", [world.org_id]
    )
    for who, person in world.people.items():
        roles = {str(world.org_id): Role(who)} if who in ROLES else {}
        rights = Rights(str(person), roles, Snapshot(1, 1, frozenset()))
        by_rule = {seq for seq, kind, subject in written if may_see(rights, str(world.org_id), kind, subject)}
        with acting_as(connection, person):
            shown = rows(connection, "select seq from events where org_id = %s", [world.org_id])
        assert by_rule == {seq for (seq,) in shown}, who


def test_a_page_shows_somebody_who_was_removed_that_and_nothing_else(connection: psycopg.Connection):
    world = make_world(connection)
    viewer = world.people["viewer"]
    with acting_as(connection, viewer):
        begun = value(connection, "select read_events(null, null, 0)")["position"]
    connection.execute("delete from memberships where user_id = %s", [viewer])
    change(connection, world.monitor_id, "secret")
    with acting_as(connection, viewer):
        page = value(connection, "select read_events(%s, %s, 100)", [begun["xid"], begun["seq"]])
    assert [event["type"] for event in page["events"]] == ["membership.deleted"]
    assert page["roles"] == {}


def test_a_key_listens_until_it_is_revoked(listen: Listen, scene: Scene, connection: psycopg.Connection):
    secrets = {scope: spell_secret(uuid4().bytes * 2) for scope in ("read", "pings:write")}
    for scope, secret in secrets.items():
        connection.execute(
            "insert into api_keys (org_id, name, prefix, secret_hash, scopes, created_by)"
            " values (%s, 'CI', %s, %s, %s, %s)",
            [scene.org_id, secret[:15], hashlib.sha256(secret.encode()).hexdigest(), [scope], scene.owner.id],
        )
    blind = listen(scene.streams, secrets["pings:write"])
    assert (blind.status, blind.problem()["code"]) == (403, "scope_missing")
    client = listen(scene.streams, secrets["read"], timeout=10)
    client.of_type("ready")
    change(connection, scene.monitor_id, "heard")
    assert client.of_type("monitor.updated").data["data"]["name"] == "heard"
    with psycopg.connect(connection.info.dsn, autocommit=False) as other:
        # Somebody's long transaction holds the feed back, and not the revocation.
        other.execute("select pg_current_xact_id()")
        connection.execute("update api_keys set revoked_at = now() where org_id = %s", [scene.org_id])
        change(connection, scene.monitor_id, "unheard")
        told = list(client)
    assert [event.type for event in told] == ["token_refused"]
    eventually(lambda: listen(scene.streams, secrets["read"]).status == 401, "the key is let in", within_seconds=5)

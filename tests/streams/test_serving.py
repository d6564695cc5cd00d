"""One stream from the door to the farewell, as Server-Sent Events and over a WebSocket, with the database faked."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server.errors import Gone, Unavailable
from server.features.events.rules import Position
from server.features.orgs.rules import Role
from server.logs import AccessLog
from server.streams import following, websocket
from server.streams.entrance import Visitor
from server.streams.envelope import StreamEnvelope
from server.streams.hub import RING_EVENTS, Ending, Hub
from server.streams.sse import SseEndpoint
from server.streams.websocket import WebSocketEndpoint
from tests.streams.fakes import ACME, ANA, START, AsgiClient, FakeEntrance, change, feed_page, missed, row, started_hub

ORIGINS = frozenset({"https://app.example.com"})
SIGNED_IN = {"Authorization": "Bearer a.n.a"}


def at(seq: int) -> str:
    return Position(100 + seq, seq).encode()


def sse(hub: Hub, entrance: FakeEntrance, **more: Any) -> AsgiClient:
    app = StreamEnvelope(SseEndpoint(hub, entrance), ORIGINS, AccessLog("ERROR"))
    return AsgiClient(app, **{"headers": SIGNED_IN, **more})


def ws(hub: Hub, entrance: FakeEntrance, **more: Any) -> AsgiClient:
    app = StreamEnvelope(WebSocketEndpoint(hub, entrance, ORIGINS), ORIGINS, AccessLog("ERROR"))
    return AsgiClient(app, websocket=True, **more)


def say(client: AsgiClient, message: object) -> None:
    text = message if isinstance(message, str) else json.dumps(message)
    client.incoming.put_nowait({"type": "websocket.receive", "text": text})


async def told(client: AsgiClient) -> list[tuple[str, str | None]]:
    """Return types and ids of what comes next."""
    message = await client.next()
    if message["type"] == "websocket.send":
        said = json.loads(message["text"])
        return [(said["type"], said["id"])]
    frames = [
        dict(line.split(": ", 1) for line in frame.split("\n")) for frame in message["body"].decode().split("\n\n")[:-1]
    ]
    return [(frame["event"], frame.get("id")) for frame in frames]


async def refusal(client: AsgiClient) -> tuple[int, Any]:
    start, body = await client.next(), await client.next()
    await client.done()
    return start["status"], json.loads(body["body"])


def play(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]  # an async function's awaitable is a coroutine


def test_a_stream_begins_with_ready_and_goes_on_with_what_happens():
    async def story() -> None:
        hub = started_hub()
        client = sse(hub, FakeEntrance())
        start = await client.next()
        headers = dict(start["headers"])
        assert (start["status"], headers[b"content-type"]) == (200, b"text/event-stream")
        assert (headers[b"cache-control"], headers[b"x-accel-buffering"]) == (b"no-store", b"no")
        assert headers[b"x-content-type-options"] == b"nosniff"
        assert await told(client) == [("ready", START.encode())]
        hub.take(feed_page(row(1), row(2)))
        assert await told(client) == [("monitor.updated", at(1)), ("monitor.updated", at(2))]
        client.incoming.put_nowait({"type": "http.disconnect"})
        await client.done()
        assert not hub.readers

    play(story)


def test_who_resumes_within_the_ring_costs_no_reading_of_events():
    async def story() -> None:
        hub, entrance = started_hub(), FakeEntrance()
        hub.take(feed_page(row(1), row(2), row(3)))
        client = sse(hub, entrance, headers={**SIGNED_IN, "Last-Event-ID": at(1)}, query=f"after={at(3)}")
        await client.next()
        assert await told(client) == [("ready", at(1))]
        assert await told(client) == [("monitor.updated", at(2)), ("monitor.updated", at(3))]
        assert entrance.asked == [(Position(101, 1), 0)]

    play(story)


def test_who_has_missed_more_than_the_ring_reads_until_it_reaches():
    async def story() -> None:
        hub = started_hub()
        hub.take(feed_page(*(row(seq) for seq in range(1, RING_EVENTS + 6))))
        entrance = FakeEntrance(
            missed(2, at=Position(102, 2)), missed(3, at=Position(103, 3)), missed(6, at=Position(106, 6))
        )
        client = sse(hub, entrance, query=f"after={at(1)}")
        await client.next()
        assert [[id_ for _, id_ in await told(client)] for _ in range(4)] == [[at(1)], [at(2)], [at(3)], [at(6)]]
        rest: list[str | None] = []
        while len(rest) < RING_EVENTS - 1:
            rest += [id_ for _, id_ in await told(client)]
        assert rest == [at(seq) for seq in range(7, RING_EVENTS + 6)]

    play(story)


def test_a_removal_while_rights_are_read_counts():
    async def story() -> None:
        hub, entrance = started_hub(), FakeEntrance()
        entrance.between = lambda: hub.take(feed_page(row(1), changes=[change(2, None)], reached=102))
        client = sse(hub, entrance)
        await client.next()
        await told(client)
        hub.take(feed_page(row(3), row(4, kind="membership", subject=ANA)))
        assert await told(client) == [("membership.updated", at(4))]

    play(story)


def test_a_heartbeat_moves_the_position_and_is_no_event(monkeypatch):
    monkeypatch.setattr(following, "HEARTBEAT_SECONDS", 0.01)

    async def story() -> None:
        hub = started_hub()
        client = sse(hub, FakeEntrance())
        await client.next()
        await told(client)
        hub.take(feed_page(reached=500))
        while (body := (await client.next())["body"]) != b": heartbeat\nid: %b\n\n" % Position(
            500, 0
        ).encode().encode():
            assert body.startswith(b": heartbeat\nid: ")

    play(story)


@pytest.mark.parametrize("ending", [Ending.RESTART, Ending.OVERFLOW, Ending.TOKEN_EXPIRED])
def test_a_stream_that_ends_says_why_and_moves_no_position(ending):
    async def story() -> None:
        hub = started_hub()
        client = sse(hub, FakeEntrance())
        await client.next()
        await told(client)
        hub.take(feed_page(row(1)))
        hub.end_everybody(ending)
        assert await told(client) == [(str(ending), None)]
        assert (await client.next())["more_body"] is False
        await client.done()

    play(story)


def test_a_token_that_runs_out_ends_the_stream():
    async def story() -> None:
        entrance = FakeEntrance()
        entrance.visitors["a.n.a"] = Visitor(ANA, "a.n.a", int(time.time()))
        client = sse(started_hub(), entrance)
        await client.until("http.response.start")
        assert await told(client) == [("ready", START.encode())]
        assert await told(client) == [("token_expired", None)]
        await client.done()

    play(story)


def test_a_reading_that_fails_midway_sends_the_reader_away_to_resume():
    async def story() -> None:
        hub = started_hub()
        hub.take(feed_page(*(row(seq) for seq in range(1, RING_EVENTS + 6))))
        client = sse(hub, FakeEntrance(missed(2, at=Position(102, 2)), Unavailable()), query=f"after={at(1)}")
        await client.next()
        assert [await told(client) for _ in range(3)] == [
            [("ready", at(1))],
            [("monitor.updated", at(2))],
            [("restart", None)],
        ]

    play(story)


OF_ANY_STREAM: list[tuple[dict[str, Any], int, str]] = [
    ({"query": "access_token=a.n.a"}, 400, "credentials_in_query"),
    ({"query": "apikey=a.n.a"}, 400, "credentials_in_query"),
    ({"query": "after=5"}, 422, "invalid_input"),
    ({"query": "since=5"}, 422, "invalid_input"),
    ({"query": "after=a&after=b"}, 422, "invalid_input"),
]
OF_SSE: list[tuple[dict[str, Any], int, str]] = [
    ({"headers": {}}, 401, "unauthenticated"),
    ({"headers": {"Authorization": "Bearer x.y.z"}}, 401, "unauthenticated"),
    ({"headers": {**SIGNED_IN, "Last-Event-ID": "5"}}, 422, "invalid_input"),
    ({"query": "org_id=0f0f0f0f-6b1e-4b6e-9d5a-0c3a0f5e6b1e"}, 404, "not_found"),
]


@pytest.mark.parametrize(
    ("open_stream", "more", "status", "code"),
    [(sse, *case) for case in OF_ANY_STREAM + OF_SSE] + [(ws, *case) for case in OF_ANY_STREAM],
)
def test_what_is_wrong_is_a_problem_before_the_stream_begins(open_stream, more, status, code):
    async def story() -> None:
        hub = started_hub()
        client = open_stream(hub, FakeEntrance(), **more)
        answered, problem = await refusal(client)
        assert (answered, problem["status"], problem["code"]) == (status, status, code)
        assert problem["request_id"]
        assert not hub.readers

    play(story)


@pytest.mark.parametrize(
    ("error", "status"), [(Gone(code="events_gone"), 410), (Unavailable(retry_after_seconds=1), 503)]
)
def test_a_refusal_of_the_database_is_a_problem_and_gives_the_place_back(error, status):
    async def story() -> None:
        hub = started_hub()
        answered, problem = await refusal(sse(hub, FakeEntrance(error)))
        assert (answered, problem["code"]) == (status, error.code)
        assert not hub.readers

    play(story)


def test_the_line_in_the_log_says_who_it_was():
    noted: list[dict[str, object]] = []

    class Log(AccessLog):
        def note(self, line: dict[str, object]) -> None:
            noted.append(line)

    async def story() -> None:
        app = StreamEnvelope(SseEndpoint(started_hub(), FakeEntrance()), ORIGINS, Log("INFO"))
        client = AsgiClient(app, headers=SIGNED_IN)
        await client.until("http.response.start")
        client.incoming.put_nowait({"type": "http.disconnect"})
        await client.done()

    play(story)
    assert [line["principal_id"] for line in noted] == [ANA]


def test_a_bug_is_a_problem_that_shows_nothing(caplog):
    async def story() -> None:
        entrance = FakeEntrance()
        entrance.visitors = None  # type: ignore[assignment]  # that is the bug
        answered, problem = await refusal(sse(started_hub(), entrance))
        assert (answered, problem["code"]) == (500, "internal_error")

    play(story)
    assert "unhandled" in caplog.text


def test_a_stream_has_one_line_in_the_log_which_says_who_listened_and_nothing_secret(capfd):
    async def story() -> None:
        app = StreamEnvelope(SseEndpoint(started_hub(), FakeEntrance()), ORIGINS, AccessLog("INFO"))
        client = AsgiClient(app, headers=SIGNED_IN)
        await client.next()
        client.incoming.put_nowait({"type": "http.disconnect"})
        await client.done()

    play(story)
    out = capfd.readouterr().out
    (line,) = [json.loads(line) for line in out.splitlines() if '"tocsin.access"' in line]
    assert (line["principal_id"], line["path"], line["status"]) == (ANA, "/v1/events/stream", 200)
    assert "a.n.a" not in out


@pytest.mark.parametrize(
    ("origin", "allowed"), [("https://app.example.com", True), ("https://evil.example.com", False)]
)
def test_pages_of_other_origins_may_not_read(origin, allowed):
    async def story() -> None:
        client = sse(started_hub(), FakeEntrance(), headers={**SIGNED_IN, "Origin": origin})
        headers = dict((await client.next())["headers"])
        assert headers.get(b"access-control-allow-origin") == (origin.encode() if allowed else None)
        assert headers[b"vary"] == b"Origin"

    play(story)


def test_a_websocket_is_for_pages_of_our_origins():
    async def story() -> None:
        status, problem = await refusal(
            ws(started_hub(), FakeEntrance(), headers={"Origin": "https://evil.example.com"})
        )
        assert (status, problem["code"]) == (403, "origin_refused")

    play(story)


async def close_code(client: AsgiClient) -> tuple[int, str]:
    message = await client.until("websocket.close")
    await client.done()
    return message["code"], message["reason"]


@pytest.mark.parametrize("by_header", [True, False])
def test_over_a_websocket_the_same_comes_as_messages(by_header):
    async def story() -> None:
        hub = started_hub()
        hub.take(feed_page(row(1), row(2)))
        client = ws(
            hub, FakeEntrance(), headers=SIGNED_IN if by_header else {}, query=f"after={at(1)}" if by_header else ""
        )
        if not by_header:
            say(client, {"access_token": "a.n.a", "after": at(1)})
        assert (await client.next())["type"] == "websocket.accept"
        assert await told(client) == [("ready", at(1))]
        message = json.loads((await client.next())["text"])
        assert (message["id"], message["type"], message["data"]["id"]) == (at(2), "monitor.updated", at(2))
        client.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await client.done()
        assert not hub.readers

    play(story)


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ({"access_token": "x.y.z"}, (4401, "unauthenticated")),
        ({"access_token": "a.n.a", "after": "5"}, (4400, "invalid_input")),
        ({"access_token": 5}, (4400, "message_not_understood")),
        ({"token": "a.n.a"}, (4400, "message_not_understood")),
        ("hello", (4400, "message_not_understood")),
    ],
)
def test_a_first_message_that_is_none_closes_the_websocket(first, code):
    async def story() -> None:
        hub = started_hub()
        client = ws(hub, FakeEntrance())
        say(client, first)
        assert await close_code(client) == code
        assert not hub.readers

    play(story)


@pytest.mark.parametrize(
    ("error", "code"), [(Gone(code="events_gone"), (4410, "events_gone")), (Unavailable(), (1013, "unavailable"))]
)
def test_a_refusal_of_the_database_closes_the_websocket(error, code):
    async def story() -> None:
        client = ws(started_hub(), FakeEntrance(error), headers=SIGNED_IN)
        assert await close_code(client) == code

    play(story)


def test_a_websocket_of_a_foreign_organisation_is_closed():
    async def story() -> None:
        client = ws(started_hub(), FakeEntrance(role=None), headers=SIGNED_IN, query=f"org_id={ACME}")
        assert await close_code(client) == (4404, "not_found")

    play(story)


def test_a_websocket_on_which_nobody_speaks_is_closed(monkeypatch):
    monkeypatch.setattr(websocket, "FIRST_MESSAGE_SECONDS", 0.01)

    async def story() -> None:
        assert await close_code(ws(started_hub(), FakeEntrance())) == (4408, "no_first_message")

    play(story)


def test_a_fresh_token_of_the_same_user_goes_on_past_the_end_of_the_old_one():
    async def story() -> None:
        entrance, hub = FakeEntrance(), started_hub()
        now = int(time.time())
        entrance.visitors["s.o.on"] = Visitor(ANA, "s.o.on", now + 1)
        client = ws(hub, entrance, headers={"Authorization": "Bearer s.o.on"})
        await client.next()
        await told(client)
        say(client, {"access_token": "a.n.a"})
        await asyncio.sleep(1.2)
        hub.take(feed_page(row(1)))
        assert await told(client) == [("monitor.updated", at(1))]

    play(story)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"access_token": "b.e.n"}, (4401, "token_refused")),
        ({"access_token": "x.y.z"}, (4401, "token_refused")),
        ("hello", (4400, "not_understood")),
    ],
)
def test_any_other_later_message_closes_the_websocket(message, code):
    async def story() -> None:
        client = ws(started_hub(), FakeEntrance(), headers=SIGNED_IN)
        await client.next()
        await told(client)
        say(client, message)
        assert await close_code(client) == code

    play(story)


@pytest.mark.parametrize(
    ("ending", "code"), [(Ending.TOKEN_EXPIRED, 4401), (Ending.OVERFLOW, 1013), (Ending.RESTART, 1012)]
)
def test_a_websocket_says_why_it_closes_in_a_message_and_a_code(ending, code):
    async def story() -> None:
        hub = started_hub()
        client = ws(hub, FakeEntrance(role=Role.OWNER), headers=SIGNED_IN)
        await client.next()
        await told(client)
        hub.end_everybody(ending)
        assert await told(client) == [(str(ending), None)]
        assert await close_code(client) == (code, str(ending))

    play(story)

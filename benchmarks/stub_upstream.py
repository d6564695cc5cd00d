"""A stand-in for Supabase that is fast enough to load a server with: PostgREST's list answer and Auth's JWKS.

    GET /rest/v1/monitors                  rows of about 500 bytes, four by default; `select=` picks
                                           the columns, as PostgREST does
    GET /auth/v1/.well-known/jwks.json     the key that `tokens.py` signs with
    POST /rest/v1/rpc/ping                 200, counted like a list answer
    POST /rest/v1/rpc/read_events          a viewer of one organisation, who has missed nothing
    POST /rest/v1/rpc/stream_events        what `PUT /stub?emit=1` has made happen in it since
    PUT /stub?delay_ms=5&echo=1&rows=50    how every later list answer behaves; answers with the counters so far

In echo mode each row's `name` is the `sub` of the token that arrived, after a random delay of 0 to `delay_ms`, so that
an answer shows under whose identity it was asked for. Without it the body is constant, after exactly `delay_ms`.
The state that changes is one object on one event loop thread.
"""

import argparse
import asyncio
import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, unquote

import uvloop

from benchmarks.tokens import ISSUER_PATH, JWKS

# Timestamps and value types are PostgREST's own, the columns the table's: a contestant that asks for another gets 400,
# and the benchmark stops.
ROW: dict[str, Any] = {
    "id": "0195f3c0-0000-7000-8000-000000000001",
    "org_id": "0195f3c0-0000-7000-8000-0000000000aa",
    "name": "checkout page",
    "kind": "http",
    "target": "https://shop.example.com/health",
    "interval_seconds": 60,
    "timeout_seconds": 10,
    "retry_interval_seconds": 15,
    "fail_threshold": 2,
    "recover_threshold": 1,
    "degraded_after_ms": 800,
    "options": {
        "method": "GET",
        "headers": {},
        "body": None,
        "auth": None,
        "expected_status": ["200-299"],
        "max_redirects": 5,
        "verify_tls": True,
    },
    "assertions": [],
    "depends_on": [],
    "regions": [],
    "slug": None,
    "ping_id": None,
    "state": "up",
    "state_since": "2026-01-01T00:00:00.5+00:00",
    "flapping": False,
    "paused": False,
    "created_at": "2026-01-01T00:00:00.5+00:00",
    "updated_at": "2026-01-01T00:00:00.5+00:00",
    "version": 1,
}
ROW_COUNT = 4
FIRST_XID = 1000


@dataclass(slots=True)
class Behaviour:
    """What the stub does now and what it has counted: list answers given, and those that carried no token."""

    delay_ms: float = 0.0
    echo: bool = False
    rows: int = ROW_COUNT
    listed: int = 0
    refused: int = 0
    bodies: dict[str, bytes] = field(default_factory=dict)
    emitted: int = 0


def select_rows(select: str, name: str | None = None, count: int = ROW_COUNT) -> list[dict[str, Any]]:
    """Return the rows with the columns of PostgREST's `select` (`*`, `a,b`, `alias:a`); KeyError for an unknown one."""
    names = list(ROW) if select in ("", "*") else select.split(",")
    pairs = [(alias, column) for alias, _, column in (entry.rpartition(":") for entry in names)]
    rows = []
    for number in range(count):
        source = {**ROW, "id": f"{ROW['id'][:-2]}{number:02d}", **({"name": name} if name is not None else {})}
        rows.append({alias or column: source[column] for alias, column in pairs})
    return rows


def frame(status: str, body: bytes) -> bytes:
    """Return a whole HTTP/1.1 answer of a JSON body."""
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Range: 0-{ROW_COUNT - 1}/*\r\nServer: postgrest-stub\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def position(seq: int) -> dict[str, Any]:
    """Return where the log stands after so many events."""
    return {"xid": str(FIRST_XID + seq), "seq": seq}


def read_events(emitted: int) -> bytes:
    """Answer a reader who comes in."""
    page = {"events": [], "has_more": False, "position": position(emitted), "horizon": position(0)}
    snapshot = f"{FIRST_XID + emitted + 1}:{FIRST_XID + emitted + 1}:"
    return json.dumps({**page, "roles": {ROW["org_id"]: "viewer"}, "snapshot": snapshot}).encode()


def stream_events(after: int, emitted: int) -> bytes:
    """Answer a poll: the events after one."""
    events = [
        {
            **position(seq),
            "org_id": ROW["org_id"],
            "occurred_at": "2026-01-01T00:00:00.500000Z",
            "actor_kind": "system",
            "actor_id": None,
            "type": "monitor.down",
            "subject_kind": "monitor",
            "subject_id": ROW["id"],
            "after": ROW,
        }
        for seq in range(after + 1, emitted + 1)
    ]
    page = {"events": events, "has_more": False, "position": position(emitted), "horizon": position(0)}
    return json.dumps({**page, "memberships": [], "keys": []}).encode()


def read_subject(authorization: str) -> str:
    """Return the `sub` of an unverified bearer token."""
    payload = authorization.removeprefix("Bearer ").split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"])


class Upstream(asyncio.Protocol):
    """One keep-alive connection. Requests are answered in order; a client that pipelines is not supported."""

    def __init__(self, behaviour: Behaviour, later: Callable[..., Any], random_source: random.Random) -> None:
        self.behaviour = behaviour
        self.later = later
        self.random = random_source
        self.pending = b""
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to write to."""
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        """Collect one request and answer it."""
        self.pending += data
        if b"\r\n\r\n" not in self.pending:
            return
        head, rest = self.pending.split(b"\r\n\r\n", 1)
        _, _, length = head.lower().partition(b"content-length: ")
        body_bytes = int(length.split(b"\r\n", 1)[0] or 0)
        if len(rest) < body_bytes:
            return
        body, self.pending = rest[:body_bytes], rest[body_bytes:]
        request_line, _, fields = head.partition(b"\r\n")
        method, target, _ = request_line.decode("latin-1").split(" ")
        path, _, query = target.partition("?")
        if path == "/rest/v1/monitors" and method == "GET":
            self.list_rows(query, fields)
        elif path == "/rest/v1/rpc/ping":
            self.take_ping()
        elif path == f"{ISSUER_PATH}/.well-known/jwks.json":
            self.write(frame("200 OK", JWKS))
        elif path == "/rest/v1/rpc/read_events":
            self.write(frame("200 OK", read_events(self.behaviour.emitted)))
        elif path == "/rest/v1/rpc/stream_events":
            after = json.loads(body)["after_seq"]
            emitted = self.behaviour.emitted
            self.write(frame("200 OK", stream_events(emitted if after is None else after, emitted)))
        elif path == "/stub":
            self.write(self.change(query))
        else:
            self.write(frame("404 Not Found", b'{"code":"PGRST205","message":"no such path in the stub"}'))

    def list_rows(self, query: str, fields: bytes) -> None:
        """Answer a list, at once or after the delay."""
        start = fields.lower().find(b"authorization: ")
        if start < 0:
            self.behaviour.refused += 1
            self.write(frame("401 Unauthorized", b'{"code":"PGRST302","message":"no token"}'))
            return
        self.behaviour.listed += 1
        answer = self.behaviour.bodies.get(query)
        if answer is None:
            select = unquote(parse_qs(query).get("select", ["*"])[0])
            try:
                answer = frame(
                    "200 OK", json.dumps(select_rows(select, count=self.behaviour.rows), separators=(",", ":")).encode()
                )
            except KeyError as unknown:
                answer = frame(
                    "400 Bad Request", json.dumps({"code": "42703", "message": f"no column {unknown}"}).encode()
                )
            self.behaviour.bodies[query] = answer
        if self.behaviour.echo:
            value = fields[start + len(b"authorization: ") :].split(b"\r\n", 1)[0].decode()
            select = unquote(parse_qs(query).get("select", ["*"])[0])
            rows = select_rows(select, name=read_subject(value))
            answer = frame("200 OK", json.dumps(rows, separators=(",", ":")).encode())
            self.later(self.random.random() * self.behaviour.delay_ms / 1000, self.write, answer)
        elif self.behaviour.delay_ms:
            self.later(self.behaviour.delay_ms / 1000, self.write, answer)
        else:
            self.write(answer)

    def take_ping(self) -> None:
        """Answer a ping, at once or after the delay."""
        self.behaviour.listed += 1
        answer = frame("200 OK", b"200")
        if self.behaviour.delay_ms:
            self.later(self.behaviour.delay_ms / 1000, self.write, answer)
        else:
            self.write(answer)

    def change(self, query: str) -> bytes:
        """Set what the query names and answer with the counters."""
        wanted = parse_qs(query)
        if "delay_ms" in wanted:
            self.behaviour.delay_ms = float(wanted["delay_ms"][0])
        if "rows" in wanted:
            self.behaviour.rows = int(wanted["rows"][0])
            self.behaviour.bodies.clear()
        if "echo" in wanted:
            self.behaviour.echo = wanted["echo"][0] == "1"
        self.behaviour.emitted += int(wanted.get("emit", ["0"])[0])
        counters = {"listed": self.behaviour.listed, "refused": self.behaviour.refused}
        return frame("200 OK", json.dumps(counters).encode())

    def write(self, answer: bytes) -> None:
        """Send unless the client has gone."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(answer)


async def serve(host: str, port: int, behaviour: Behaviour) -> None:
    """Listen until the process is ended; prints the port once it accepts connections."""
    loop = asyncio.get_running_loop()
    source = random.Random(1)
    server = await loop.create_server(lambda: Upstream(behaviour, loop.call_later, source), host, port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Run one stub from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0, help="0: a free one, printed")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--echo", action="store_true")
    options = parser.parse_args()
    uvloop.run(serve("127.0.0.1", options.port, Behaviour(delay_ms=options.delay_ms, echo=options.echo)))


if __name__ == "__main__":
    main()

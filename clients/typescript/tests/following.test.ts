/** Following events over connections that come from a script: each says what is sent, and how it ends. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { createTocsin, type FollowOptions, PositionLost, TocsinError } from "../src/index.ts";

/** Pieces as they arrive. `cut` breaks the connection, `silence` leaves it open; else the server ends it. */
type Connection = (string | typeof cut | typeof silence)[] | Response | Error;
const cut = Symbol("cut");
const silence = Symbol("silence");

const ready = (position: string) => `id: ${position}\nevent: ready\ndata: {"position":"${position}"}\n\n`;
const event = (id: string) => `id: ${id}\nevent: monitor.updated\ndata: {"id":"${id}"}\n\n`;
const heartbeat = (position: string) => `: heartbeat\nid: ${position}\n\n`;
const word = (type: string) => `event: ${type}\ndata: {"detail":"…"}\n\n`;
const problem = (status: number, code: string, headers: Record<string, string> = {}) =>
  new Response(JSON.stringify({ status, code, detail: "No.", request_id: "r-1234567" }), {
    status,
    headers: { "Content-Type": "application/problem+json", ...headers },
  });

function stream(pieces: (string | typeof cut | typeof silence)[], signal: AbortSignal): Response {
  const left = [...pieces];
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => signal.addEventListener("abort", () => controller.error(signal.reason)),
    pull: (controller) => {
      const piece = left.shift();
      if (typeof piece === "string") controller.enqueue(new TextEncoder().encode(piece));
      else if (piece === undefined) controller.close();
      else if (piece === cut) controller.error(new TypeError("terminated"));
      else return new Promise(() => {}); // silence
      return undefined;
    },
  });
  return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
}

function scripted(...script: Connection[]) {
  const sent: { url: string; token: string | null; after: string | null; signal: AbortSignal }[] = [];
  const waits: number[] = [];
  const tocsin = createTocsin({
    url: "https://api.example.com",
    streamsUrl: "https://streams.example.com/",
    accessToken: async () => `token-${sent.length + 1}`,
    longestSilenceSeconds: 0.05,
    sleep: async (milliseconds, signal) => {
      signal.throwIfAborted();
      waits.push(milliseconds);
    },
    fetch: async ({ url, headers, signal }) => {
      sent.push({ url, token: headers.get("Authorization"), after: headers.get("Last-Event-ID"), signal });
      const connection = script.shift() ?? problem(403, "script_ended");
      if (connection instanceof Error) throw connection;
      return connection instanceof Response ? connection : stream(connection, signal);
    },
  });
  return { tocsin, sent, waits, afters: () => sent.map(({ after }) => after) };
}

/** Return the ids of what is heard, and the error that ended it. */
async function hear(tocsin: ReturnType<typeof createTocsin>, options?: FollowOptions) {
  const ids: string[] = [];
  try {
    for await (const { id } of tocsin.follow(options)) ids.push(id);
  } catch (error) {
    return { ids, error };
  }
  return { ids, error: undefined };
}

test("it goes on after the last event wherever a connection is cut", async () => {
  const { tocsin, afters } = scripted(
    [ready("p0"), event("e1"), event("e2").slice(0, 30), cut],
    [ready("e1"), event("e2"), event("e3")],
    new TypeError("fetch failed"),
    [ready("e3"), event("e4")],
  );
  const { ids } = await hear(tocsin);
  assert.deepEqual(ids, ["e1", "e2", "e3", "e4"]);
  assert.deepEqual(afters(), [null, "e1", "e3", "e3", "e4"]);
});

test("it begins where its caller says, for one organisation", async () => {
  const { tocsin, sent } = scripted();
  await hear(tocsin, { after: "e7", orgId: "o1" });
  assert.deepEqual([sent[0]?.url, sent[0]?.after], ["https://streams.example.com/v1/events/stream?org_id=o1", "e7"]);
});

test("ready and heartbeats move the position, and are no events", async () => {
  const { tocsin, afters } = scripted([ready("p0"), cut], [ready("p0"), heartbeat("p5")]);
  assert.deepEqual((await hear(tocsin)).ids, []);
  assert.deepEqual(afters(), [null, "p0", "p5"]);
});

test("pieces may end anywhere, and lines in CR, LF or both", async () => {
  const frames = [ready("p0"), event("é1").replaceAll("\n", "\r\n"), event("e2").replaceAll("\n", "\r"), event("e3")];
  const { tocsin } = scripted(Array.from(frames.join("")));
  assert.deepEqual((await hear(tocsin)).ids, ["é1", "e2", "e3"]);
});

test("a letter may be cut in two", async () => {
  const bytes = new TextEncoder().encode(ready("p0") + event("é1"));
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  const { tocsin } = scripted(new Response(body, { headers: { "Content-Type": "text/event-stream" } }));
  assert.deepEqual((await hear(tocsin)).ids, ["é1"]);
});

test("a token that runs out is replaced by the token of then", async () => {
  const { tocsin, sent } = scripted([ready("p0"), event("e1"), word("token_expired")], [ready("e1"), event("e2")]);
  assert.deepEqual((await hear(tocsin)).ids, ["e1", "e2"]);
  assert.deepEqual(sent.map(({ token }) => token), ["Bearer token-1", "Bearer token-2", "Bearer token-3"]);
});

for (const farewell of ["restart", "overflow", "a_word_of_tomorrow"]) {
  test(`after ${farewell} it goes on`, async () => {
    const { tocsin } = scripted([ready("p0"), event("e1"), word(farewell)], [ready("e1"), event("e2")]);
    assert.deepEqual((await hear(tocsin)).ids, ["e1", "e2"]);
  });
}

test("a 401 may be a token that ran out on its way; two are the caller's", async () => {
  const refusal = () => problem(401, "unauthenticated");
  const once = scripted(refusal(), [ready("p0"), event("e1")], refusal(), [ready("e1"), event("e2")]);
  assert.deepEqual((await hear(once.tocsin)).ids, ["e1", "e2"]);
  const { error } = await hear(scripted(refusal(), refusal()).tocsin);
  assert.ok(error instanceof TocsinError);
  assert.equal(error.status, 401);
});

for (const code of ["events_gone", "position_unknown"]) {
  test(`410 ${code} tells the caller to start anew`, async () => {
    const { tocsin, sent } = scripted(problem(410, code));
    const { error } = await hear(tocsin, { after: "e1" });
    assert.ok(error instanceof PositionLost && error instanceof TocsinError);
    assert.deepEqual([error.status, error.code, sent.length], [410, code, 1]);
  });
}

test("who is refused otherwise hears it at once", async () => {
  const captive = new Response("<h1>Buy our Wi-Fi</h1>", { headers: { "Content-Type": "text/html" } });
  for (const refusal of [problem(403, "forbidden"), problem(404, "not_found"), captive]) {
    const { tocsin, sent } = scripted(refusal);
    assert.ok((await hear(tocsin)).error instanceof TocsinError);
    assert.equal(sent.length, 1);
  }
});

test("what may pass is waited for: as long as it says, or longer each time, half a minute at most", async () => {
  const told = scripted(
    problem(429, "too_many_streams", { "Retry-After": "7" }),
    problem(503, "unavailable", { "Retry-After": "2" }),
  );
  await hear(told.tocsin);
  assert.deepEqual(told.waits, [7000, 2000]);
  const { tocsin, waits } = scripted(...Array.from({ length: 12 }, () => new Response("", { status: 502 })));
  await hear(tocsin);
  assert.equal(waits.length, 12);
  assert.ok((waits[0] ?? 0) <= 500 && Math.max(...waits) > 10_000 && Math.max(...waits) <= 30_000, String(waits));
});

test("a connection that works ends the waiting, and none is opened anew without a pause", async () => {
  const { tocsin, waits } = scripted(...Array(6).fill(new TypeError("fetch failed")), [ready("p0")], [ready("p0")]);
  await hear(tocsin);
  assert.ok(waits.slice(-2).every((milliseconds) => milliseconds >= 250 && milliseconds <= 500), String(waits));
});

test("a connection without a heartbeat is given up, and the caller's own slowness is none", async () => {
  const { tocsin, sent } = scripted([ready("p0"), event("e1"), event("e2"), silence], [ready("e2"), event("e3")]);
  const ids = [];
  try {
    for await (const { id } of tocsin.follow()) {
      ids.push(id);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  } catch (error) {
    assert.equal((error as TocsinError).code, "script_ended");
  }
  assert.deepEqual(ids, ["e1", "e2", "e3"]);
  assert.equal(sent.length, 3);
});

test("a caller who gives up hears his own reason, whatever it waits for", async () => {
  const reason = new Error("the page was left");
  const listening = new AbortController();
  const { tocsin, sent } = scripted([ready("p0"), event("e1"), silence]);
  const heard: string[] = [];
  const end = async () => {
    for await (const { id } of tocsin.follow({ signal: listening.signal })) {
      heard.push(id);
      setTimeout(() => listening.abort(reason), 5);
    }
  };
  await assert.rejects(end, (error) => error === reason);
  assert.deepEqual([heard, sent.length], [["e1"], 1]);
  const { error } = await hear(scripted(new TypeError("fetch failed")).tocsin, { signal: AbortSignal.abort(reason) });
  assert.equal(error, reason);
});

test("who stops listening closes the connection", async () => {
  const { tocsin, sent } = scripted([ready("p0"), event("e1"), silence]);
  for await (const { id } of tocsin.follow()) if (id === "e1") break;
  assert.equal(sent[0]?.signal.aborted, true);
});

test("the stream is found in the API's own document, once", async () => {
  const asked: string[] = [];
  const tocsin = createTocsin({
    url: "https://api.example.com",
    accessToken: async () => "token",
    sleep: async () => {},
    fetch: async ({ url }) => {
      asked.push(url);
      const servers = [{ url: "https://streams.example.com" }];
      if (url.endsWith("/openapi.json")) return Response.json({ paths: { "/v1/events/stream": { servers } } });
      return asked.length > 3 ? problem(403, "script_ended") : new Response("", { status: 502 });
    },
  });
  await hear(tocsin);
  const stream = "https://streams.example.com/v1/events/stream";
  assert.deepEqual(asked, ["https://api.example.com/openapi.json", stream, stream, stream]);
});

test("changes go page by page up to the present, and tell how far they have come", async () => {
  const asked: string[] = [];
  const pages = [
    { data: [{ id: "e1" }], next_after: "e1", has_more: true },
    { data: [{ id: "e2" }], next_after: "p9", has_more: false },
  ];
  const tocsin = createTocsin({
    url: "https://api.example.com",
    accessToken: async () => "token",
    fetch: async ({ url }) => {
      asked.push(new URL(url).search);
      const page = pages.shift();
      return page ? Response.json(page) : problem(410, "events_gone");
    },
  });
  const positions = [];
  for await (const { next_after } of tocsin.changes({ after: "p0", orgId: "o1" })) positions.push(next_after);
  assert.deepEqual(positions, ["e1", "p9"]);
  assert.deepEqual(asked, ["?limit=200&org_id=o1&after=p0", "?limit=200&org_id=o1&after=e1"]);
  await assert.rejects(() => tocsin.changes({ after: "p9" }).next(), PositionLost);
});

/** How requests go out and come back, over a network that answers from a script. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { createTocsin, TocsinError } from "../src/index.ts";

type Scripted = Response | Error;

function scripted(...script: Scripted[]) {
  const sent: { method: string; url: string; key: string | null; token: string | null; body: string }[] = [];
  const waits: number[] = [];
  const tocsin = createTocsin({
    url: "https://api.example.com/",
    accessToken: async () => `token-${sent.length + 1}`,
    sleep: async (milliseconds) => void waits.push(milliseconds),
    fetch: async (request) => {
      const { method, url, headers } = request;
      sent.push({ method, url, key: headers.get("Idempotency-Key"), token: headers.get("Authorization"), body: await request.text() });
      const answer = script.shift();
      if (answer === undefined) throw new Error("more was asked than was scripted");
      if (answer instanceof Error) throw answer;
      return answer;
    },
  });
  return { tocsin, sent, waits };
}

const json = (value: unknown, status = 200) => Response.json(value, { status });
const problem = (status: number, code: string, headers: Record<string, string> = {}) =>
  new Response(
    JSON.stringify({ type: `urn:tocsin:problem:${code}`, title: code, status, detail: "No.", code, request_id: "r-1234567" }),
    { status, headers: { "Content-Type": "application/problem+json", ...headers } },
  );
const cut = () => new TypeError("fetch failed");
const org = { body: { name: "Acme" } };
const path = { org_id: "d1a728d1-05ed-5c60-be6b-00dcd1927876" };

async function refused(promise: Promise<unknown>): Promise<TocsinError> {
  const error = await promise.then(() => assert.fail("it was not refused"), (reason: unknown) => reason);
  assert.ok(error instanceof TocsinError, String(error));
  return error;
}

test("a POST whose answer was lost is sent again under the same key, with the token of then", async () => {
  const { tocsin, sent, waits } = scripted(cut(), problem(409, "idempotency_key_in_use"), json({ id: "1" }, 201));
  await tocsin.post("/v1/orgs", org);
  assert.equal(new Set(sent.map(({ key }) => key)).size, 1);
  assert.match(sent[0]?.key ?? "", /^[0-9a-f-]{36}$/);
  assert.deepEqual(sent.map(({ body }) => body), Array(3).fill('{"name":"Acme"}'));
  assert.deepEqual(sent.map(({ token }) => token), ["Bearer token-1", "Bearer token-2", "Bearer token-3"]);
  assert.equal(waits.length, 2);
});

test("each POST has a key of its own, and keeps the one that its caller gave it", async () => {
  const { tocsin, sent } = scripted(json({}, 201), json({}, 201), json({}, 201));
  await tocsin.post("/v1/orgs", org);
  await tocsin.post("/v1/orgs", org);
  await tocsin.post("/v1/orgs", { ...org, params: { header: { "Idempotency-Key": "mine" } } });
  assert.notEqual(sent[0]?.key, sent[1]?.key);
  assert.equal(sent[2]?.key, "mine");
});

test("429, 503 and 504 are waited for as long as Retry-After says", async () => {
  const { tocsin, waits } = scripted(
    problem(429, "rate_limited", { "Retry-After": "3" }),
    problem(503, "unavailable", { "Retry-After": "2" }),
    problem(504, "timed_out", { "Retry-After": "1" }),
    json({ data: [], next_cursor: null }),
  );
  await tocsin.get("/v1/monitors");
  assert.deepEqual(waits, [3000, 2000, 1000]);
});

test("503 without Retry-After, or with one that is too long, is the caller's at once", async () => {
  for (const headers of [{}, { "Retry-After": "3600" }, { "Retry-After": "Tue, 24 Nov 2026 12:00:00 GMT" }]) {
    const { tocsin, sent } = scripted(problem(503, "unavailable", headers as Record<string, string>));
    assert.equal((await refused(tocsin.get("/v1/me"))).code, "unavailable");
    assert.equal(sent.length, 1);
  }
});

test("four tries are the most", async () => {
  const { tocsin, sent } = scripted(cut(), cut(), cut(), cut(), json({}));
  const error = await refused(tocsin.get("/v1/me"));
  assert.deepEqual([error.code, error.status, error.requestId, sent.length], ["network_error", 0, null, 4]);
  assert.ok(error.cause instanceof TypeError);
});

test("a PATCH or DELETE whose answer was lost is not sent again", async () => {
  const { tocsin, sent } = scripted(cut(), cut());
  await refused(tocsin.patch("/v1/orgs/{org_id}", { params: { path }, ...org }));
  await refused(tocsin.delete("/v1/orgs/{org_id}", { params: { path } }));
  assert.deepEqual(sent.map(({ method, key }) => [method, key]), [["PATCH", null], ["DELETE", null]]);
});

test("a PATCH or DELETE that was too much has not been done, and is sent again", async () => {
  const tooMuch = () => problem(429, "rate_limited", { "Retry-After": "1" });
  const { tocsin, sent } = scripted(tooMuch(), json({}), tooMuch(), new Response(null, { status: 204 }));
  await tocsin.patch("/v1/orgs/{org_id}", { params: { path }, ...org });
  await tocsin.delete("/v1/orgs/{org_id}", { params: { path } });
  assert.deepEqual(sent.map(({ method }) => method), ["PATCH", "PATCH", "DELETE", "DELETE"]);
});

test("what is refused with 401 is sent again where there is another token by then, and only there", async () => {
  const { tocsin, sent } = scripted(problem(401, "unauthenticated"), json({}));
  await tocsin.patch("/v1/orgs/{org_id}", { params: { path }, ...org });
  assert.deepEqual(sent.map(({ token }) => token), ["Bearer token-1", "Bearer token-2"]);
  let count = 0;
  const refusal = async () => (count++, problem(401, "unauthenticated"));
  const same = createTocsin({ url: "https://api.example.com", accessToken: async () => "same", fetch: refusal });
  assert.equal((await refused(same.get("/v1/me"))).status, 401);
  assert.equal(count, 1);
});

test("a refusal is not tried again", async () => {
  const { tocsin, sent } = scripted(problem(403, "forbidden"));
  const error = await refused(tocsin.post("/v1/orgs", org));
  assert.deepEqual([error.code, error.status, error.message, error.requestId], ["forbidden", 403, "No.", "r-1234567"]);
  assert.equal(sent.length, 1);
});

test("what a proxy says is an error with its request id, too", async () => {
  const headers = { "Content-Type": "text/html", "X-Request-ID": "r-7654321" };
  const { tocsin } = scripted(new Response("<h1>Bad gateway</h1>", { status: 502, headers }));
  const error = await refused(tocsin.get("/v1/me"));
  assert.deepEqual([error.code, error.status, error.requestId, error.problem], ["unexpected_answer", 502, "r-7654321", null]);
});

test("a caller who gives up hears his own reason, and nothing is tried again", async () => {
  const { tocsin, sent } = scripted(cut(), json({}));
  const reason = new Error("the page was left");
  const error = await tocsin.get("/v1/me", { signal: AbortSignal.abort(reason) }).catch((each: unknown) => each);
  assert.equal(error, reason);
  assert.ok(sent.length <= 1);
});

test("a list goes on to the page after the last row, and keeps its filters", async () => {
  const { tocsin, sent } = scripted(
    json({ data: [{ id: "1" }, { id: "2" }], next_cursor: "more" }),
    json({ data: [{ id: "3" }], next_cursor: null }),
  );
  const ids = [];
  for await (const { id } of tocsin.each("/v1/monitors", { params: { query: { state: ["up", "down"] } } })) ids.push(id);
  assert.deepEqual(ids, ["1", "2", "3"]);
  assert.deepEqual(sent.map(({ url }) => new URL(url).search), ["?state=up,down", "?state=up,down&cursor=more"]);
});

test("who stops in a list asks for no further page", async () => {
  const { tocsin, sent } = scripted(json({ data: [{ id: "1" }], next_cursor: "more" }));
  for await (const { id } of tocsin.each("/v1/monitors")) if (id === "1") break;
  assert.equal(sent.length, 1);
});

/**
 * The client and supabase-js against a running Tocsin, step by step: each `test` goes on where the one before ended.
 *
 * tests/stack/test_typescript_client.py runs the API, the streams and a worker, and gives their addresses as settings.
 * At SUPABASE_SWITCH it makes Supabase fail for the API, and come back.
 */

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, test } from "node:test";

import { createClient } from "@supabase/supabase-js";

import {
  createTocsin,
  PositionLost,
  type Schemas,
  type Tocsin,
  TocsinError,
  type TocsinOptions,
} from "../src/index.ts";
import { openRelay, type Relay } from "./relay.ts";

const url = setting("TOCSIN_URL");
const target = "https://example.com/";
const nobodyListens = "http://127.0.0.1:9/";
const password = "correct horse battery";

const ada = await somebody("ada");
const grace = await somebody("grace");
const { tocsin } = ada;
const relay: Relay = await openRelay(setting("STREAMS_URL"));
after(() => relay.close());

function setting(name: string): string {
  const value = process.env[name];
  assert.ok(value, `${name} is not set`);
  return value;
}

/** A browser of somebody's own, in which nobody has signed in yet. */
async function somebody(name: string) {
  const supabase = createClient(setting("SUPABASE_URL"), setting("SUPABASE_PUBLISHABLE_KEY"), {
    auth: { persistSession: false, autoRefreshToken: false },
  });
  const token = async () => (await supabase.auth.getSession()).data.session?.access_token ?? "";
  return { email: `${name}-${crypto.randomUUID()}@example.com`, supabase, token, tocsin: as(token) };
}

function as(accessToken: () => Promise<string>, more: Partial<TocsinOptions> = {}): Tocsin {
  return createTocsin({ url, accessToken, ...more });
}

/** A client of Ada's that notes with which status each of its requests was answered. */
function watched(onStatus: (status: number) => unknown = () => {}) {
  const statuses: number[] = [];
  const noting = async (request: Request) => {
    const response = await fetch(request);
    statuses.push(response.status);
    await onStatus(response.status);
    return response;
  };
  return { statuses, tocsin: as(ada.token, { fetch: noting }) };
}

async function refused(promise: Promise<unknown>): Promise<TocsinError> {
  const error = await promise.then(() => assert.fail("it was not refused"), (reason: unknown) => reason);
  assert.ok(error instanceof TocsinError, String(error));
  return error;
}

async function eventually(ask: () => Promise<boolean> | boolean, complaint: string, withinSeconds = 20): Promise<void> {
  const deadline = Date.now() + withinSeconds * 1000;
  while (!(await ask())) {
    assert.ok(Date.now() < deadline, `${complaint} within ${withinSeconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function myOrg(): Promise<string> {
  const { data: me } = await tocsin.get("/v1/me");
  assert.ok(me.memberships[0]);
  return me.memberships[0].org_id;
}

async function anyMonitor() {
  const { data: page } = await tocsin.get("/v1/monitors", { params: { query: { limit: 1, paused: true } } });
  const [monitor] = page.data;
  assert.ok(monitor);
  return { path: { monitor_id: monitor.id }, monitor };
}

async function rename(who: Tocsin, name: string): Promise<void> {
  const { path } = await anyMonitor();
  await who.patch("/v1/monitors/{monitor_id}", { params: { path }, body: { name } });
}

/** What somebody hears from a position on, until they `leave`. */
function listen(who: Tocsin, from: string) {
  const listening = new AbortController();
  after(() => listening.abort()); // where a step has failed before it left
  const events: Schemas["Event"][] = [];
  const ended = (async () => {
    for await (const event of who.follow({ after: from, signal: listening.signal })) events.push(event);
  })().catch((error: unknown) => {
    if (!listening.signal.aborted) throw error;
  });
  const hears = (what: (event: Schemas["Event"]) => boolean, complaint: string) =>
    eventually(() => events.some(what), complaint);
  const leave = () => {
    listening.abort();
    return ended;
  };
  return { events, hears, leave };
}

const isNamed = (name: string) => (event: Schemas["Event"]) => event.data?.["name"] === name;

async function presentPosition(): Promise<string> {
  const { value: page } = await tocsin.changes().next();
  assert.ok(page);
  assert.deepEqual(page.data, [], "the present alone");
  return page.next_after;
}

// --- signing in ---

test("whoever has not signed in is refused", async () => {
  const error = await refused(tocsin.get("/v1/me"));
  assert.deepEqual([error.status, error.code], [401, "unauthenticated"]);
  assert.ok(error.requestId);
});

test("two people sign up and sign in with supabase-js", async () => {
  for (const { supabase, email, tocsin } of [ada, grace]) {
    assert.equal((await supabase.auth.signUp({ email, password })).error, null);
    await supabase.auth.signOut();
    const { data, error } = await supabase.auth.signInWithPassword({ email, password });
    assert.equal(error, null);
    const { data: me } = await tocsin.get("/v1/me");
    assert.deepEqual([me.id, me.email, me.memberships], [data.user?.id, email, []]);
  }
});

// --- monitors ---

test("Ada creates an organisation", async () => {
  const { data: org, response } = await tocsin.post("/v1/orgs", { body: { name: "Acme" } });
  assert.equal(org.my_role, "owner");
  assert.equal(response.headers.get("Location"), `/v1/orgs/${org.id}`);
});

test("she creates monitors, and goes through them page by page", async () => {
  const made = [];
  for (const name of ["one", "two", "three", "four", "five"]) {
    const { data: monitor } = await tocsin.post("/v1/monitors", { body: { name, target, paused: true } });
    made.unshift(monitor.name);
  }
  const seen = [];
  for await (const monitor of tocsin.each("/v1/monitors", { params: { query: { limit: 2, paused: true } } })) {
    seen.push(monitor.name);
  }
  assert.deepEqual(seen, made);
});

test("a list takes several states, an order, and what belongs to each row", async () => {
  const { data: page } = await tocsin.get("/v1/monitors", {
    params: { query: { state: ["new", "down"], order: "name", include: ["open_incident", "latest_check"] } },
  });
  assert.deepEqual(page.data.map(({ name }) => name), ["five", "four", "one", "three", "two"]);
  assert.equal(page.data[0]?.latest_check, null);
});

test("what has not changed is not sent again", async () => {
  const { path } = await anyMonitor();
  const { etag } = await tocsin.get("/v1/monitors/{monitor_id}", { params: { path } });
  assert.ok(etag);
  assert.equal(await tocsin.unless(etag, "/v1/monitors/{monitor_id}", { params: { path } }), null);
  await tocsin.patch("/v1/monitors/{monitor_id}", { params: { path }, body: { name: "renamed" } });
  const anew = await tocsin.unless(etag, "/v1/monitors/{monitor_id}", { params: { path } });
  assert.equal(anew?.data.name, "renamed");
});

test("If-Match refuses a change of what somebody else has changed", async () => {
  const { path } = await anyMonitor();
  const { etag } = await tocsin.get("/v1/monitors/{monitor_id}", { params: { path } });
  assert.ok(etag);
  const params = { path, header: { "If-Match": etag } };
  const first = await tocsin.patch("/v1/monitors/{monitor_id}", { params, body: { interval_seconds: 120 } });
  const error = await refused(tocsin.patch("/v1/monitors/{monitor_id}", { params, body: { interval_seconds: 30 } }));
  assert.deepEqual([error.status, error.code], [412, "precondition_failed"]);
  const { data: now, etag: later } = await tocsin.get("/v1/monitors/{monitor_id}", { params: { path } });
  assert.equal(now.interval_seconds, 120);
  assert.equal(first.etag, later, "a change answers with the ETag that the next one needs");
});

test("every fault of a body is named at once, by its pointer", async () => {
  const body = { name: "", target: "ftp://example.com/", interval_seconds: 1 };
  const error = await refused(tocsin.post("/v1/monitors", { body }));
  assert.deepEqual([error.status, error.code], [422, "invalid_input"]);
  assert.deepEqual(error.errors.map(({ pointer }) => pointer).sort(), ["/interval_seconds", "/name", "/target"]);
});

test("a batch is made whole or not at all, or each by itself", async () => {
  const monitors = [
    { name: "batch one", target, paused: true },
    { name: "batch two", target: "ftp://example.com/", paused: true },
    { name: "batch three", target, paused: true },
  ];
  const error = await refused(tocsin.post("/v1/monitors:batch", { body: { monitors } }));
  assert.deepEqual([error.status, error.errors.map(({ pointer }) => pointer)], [422, ["/monitors/1/target"]]);
  const { data: outcome } = await tocsin.post("/v1/monitors:batch", { body: { monitors, each_by_itself: true } });
  assert.deepEqual([outcome.created, outcome.refused], [2, 1]);
  assert.deepEqual(outcome.results.map(({ monitor }) => monitor?.name), ["batch one", undefined, "batch three"]);
  assert.equal(outcome.results[1]?.refused?.errors[0]?.pointer, "/monitors/1/target");
});

test("a POST under the same Idempotency-Key is done once, and another body under it is refused", async () => {
  const params = { header: { "Idempotency-Key": crypto.randomUUID() } };
  const body = { name: "once", target, paused: true };
  const first = await tocsin.post("/v1/monitors", { params, body });
  const again = await tocsin.post("/v1/monitors", { params, body });
  assert.deepEqual(again.data, first.data);
  const { data: page } = await tocsin.get("/v1/monitors", { params: { query: { q: "once" } } });
  assert.equal(page.data.length, 1);
  const error = await refused(tocsin.post("/v1/monitors", { params, body: { ...body, name: "twice" } }));
  assert.deepEqual([error.status, error.code], [422, "idempotency_key_reused"]);
});

test("what is deleted is gone", async () => {
  const { path } = await anyMonitor();
  const { data, response } = await tocsin.delete("/v1/monitors/{monitor_id}", { params: { path } });
  assert.deepEqual([data, response.status], [undefined, 204]);
  assert.equal((await refused(tocsin.get("/v1/monitors/{monitor_id}", { params: { path } }))).code, "not_found");
});

// --- people ---

test("Ada invites Grace, who accepts once", async () => {
  const path = { org_id: await myOrg() };
  const body = { email: grace.email, role: "viewer" } as const;
  const { data: invitation } = await tocsin.post("/v1/orgs/{org_id}/invitations", { params: { path }, body });
  assert.equal((await refused(grace.tocsin.get("/v1/orgs/{org_id}", { params: { path } }))).code, "not_found");
  const { token } = invitation;
  assert.equal((await refused(tocsin.post("/v1/invitations/accept", { body: { token } }))).status, 403);
  const { data: joined } = await grace.tocsin.post("/v1/invitations/accept", { body: { token } });
  assert.deepEqual(joined, { org_id: path.org_id, org_name: "Acme", role: "viewer" });
  assert.equal((await refused(grace.tocsin.post("/v1/invitations/accept", { body: { token } }))).status, 409);
});

test("both see each other in the list of members", async () => {
  const path = { org_id: await myOrg() };
  for (const who of [ada, grace]) {
    const members = [];
    for await (const { email, role } of who.tocsin.each("/v1/orgs/{org_id}/members", { params: { path } })) {
      members.push([email, role]);
    }
    assert.deepEqual(members, [[grace.email, "viewer"], [ada.email, "owner"]]);
  }
});

test("Grace becomes an editor, and may edit", async () => {
  assert.equal((await refused(rename(grace.tocsin, "by Grace"))).status, 403);
  const path = { org_id: await myOrg(), user_id: (await grace.tocsin.get("/v1/me")).data.id };
  await tocsin.patch("/v1/orgs/{org_id}/members/{user_id}", { params: { path }, body: { role: "editor" } });
  await rename(grace.tocsin, "by Grace");
  assert.equal((await anyMonitor()).monitor.name, "by Grace");
});

// --- keys ---

test("a key stands where an access token stands, goes on beside its successor, and ends within 5 s", async () => {
  const { data: key } = await tocsin.post("/v1/api-keys", { body: { name: "CI", scopes: ["write"] } });
  const ci = as(async () => key.secret);
  const { data: me } = await ci.get("/v1/me");
  assert.deepEqual([me.kind, me.scopes, me.memberships.map(({ role }) => role)], ["key", ["write"], ["editor"]]);
  await rename(ci, "by CI");

  const path = { key_id: key.id };
  const body = { overlap_seconds: 3600 };
  const { data: next } = await tocsin.post("/v1/api-keys/{key_id}/rotate", { params: { path }, body });
  for (const secret of [key.secret, next.secret]) await as(async () => secret).get("/v1/monitors");

  await tocsin.delete("/v1/api-keys/{key_id}", { params: { path: { key_id: next.id } } });
  const revoked = as(async () => next.secret);
  const isRefused = () => revoked.get("/v1/me").then(() => false, ({ status }: TocsinError) => status === 401);
  await eventually(isRefused, "the revoked key is not refused", 5);
  await ci.get("/v1/me");
});

// --- what happens ---

test("Grace hears what Ada does, and that a monitor goes down", async () => {
  // No address is given: it stands in the API's document.
  const listener = listen(grace.tocsin, await presentPosition());
  await rename(tocsin, "heard");
  const body = { name: "down", target: nobodyListens, interval_seconds: 5, retry_interval_seconds: 1, fail_threshold: 1 };
  const { data: monitor } = await tocsin.post("/v1/monitors", { body });
  await listener.hears(isNamed("heard"), "the change is not heard");
  const isCreated = ({ type, subject }: Schemas["Event"]) => type === "monitor.created" && subject.id === monitor.id;
  await listener.hears(isCreated, "the monitor is not heard");
  const isDown = ({ type, data }: Schemas["Event"]) => type === "incident.created" && data?.["monitor_id"] === monitor.id;
  await listener.hears(isDown, "the incident is not heard");
  await listener.leave();
  const { data: page } = await tocsin.get("/v1/incidents", { params: { query: { state: ["open", "acknowledged"] } } });
  assert.deepEqual(page.data.map(({ monitor_id }) => monitor_id), [monitor.id]);
});

test("cut connections lose nothing and repeat nothing", async () => {
  const start = await presentPosition();
  const listener = listen(as(ada.token, { streamsUrl: relay.url }), start);
  for (let round = 1; round <= 5; round++) {
    await rename(grace.tocsin, `round ${round}`);
    await listener.hears(isNamed(`round ${round}`), "the change is not heard");
    relay.cut();
    await rename(grace.tocsin, `round ${round}, while cut`);
  }
  await listener.hears(isNamed("round 5, while cut"), "what happened while cut is not heard");
  await listener.leave();
  assert.ok(relay.count() >= 6, "it was opened anew after each cut");

  const last = listener.events.at(-1)?.id;
  const happened = [];
  for await (const { data } of tocsin.changes({ after: start })) happened.push(...data.map(({ id }) => id));
  assert.deepEqual(listener.events.map(({ id }) => id), happened.slice(0, happened.indexOf(last ?? "") + 1));
});

test("a token that runs out while somebody listens is replaced by the one of then", async () => {
  const tokens = [await shortened(await ada.token(), 3), await ada.token()];
  let asked = 0;
  const token = async () => tokens[Math.min(asked++, 1)] ?? "";
  const listener = listen(as(token, { streamsUrl: relay.url }), await presentPosition());
  await rename(tocsin, "before it ran out");
  await listener.hears(isNamed("before it ran out"), "the change is not heard");
  await eventually(() => asked === 2, "no other token is asked for");
  await rename(tocsin, "after it ran out");
  await listener.hears(isNamed("after it ran out"), "the change is not heard");
  await listener.leave();
});

/** The same token, signed anew to run out in so many seconds. */
async function shortened(token: string, seconds: number): Promise<string> {
  const [head, claims = ""] = token.split(".");
  const { iat: _, ...kept } = JSON.parse(Buffer.from(claims, "base64url").toString()) as Record<string, unknown>;
  const now = Math.floor(Date.now() / 1000);
  const signed = `${head}.${Buffer.from(JSON.stringify({ ...kept, iat: now, exp: now + seconds })).toString("base64url")}`;
  return `${signed}.${createHmac("sha256", setting("SUPABASE_JWT_SECRET")).update(signed).digest("base64url")}`;
}

test("from a position that is not of this log one starts anew", async () => {
  const ahead = Buffer.from([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).toString("base64url");
  const ways = [tocsin.follow({ after: ahead }).next(), tocsin.changes({ after: ahead }).next()];
  for (const error of await Promise.all(ways.map(refused))) {
    assert.ok(error instanceof PositionLost);
    assert.equal(error.code, "position_unknown");
  }
  await presentPosition();
});

// --- looking over it ---

test("the home screen tells what is down", async () => {
  const { data: overview } = await grace.tocsin.get("/v1/overview");
  const [org] = overview.organisations;
  assert.ok(org);
  assert.deepEqual([org.name, org.my_role, org.open_incident_count], ["Acme", "editor", 1]);
  assert.deepEqual(org.in_trouble.map(({ name }) => name), ["down"]);
});

test("the usage counts what there is", async () => {
  const { data: usage } = await tocsin.get("/v1/usage");
  const used = Object.fromEntries(usage.quotas.map(({ name, used }) => [name, used]));
  let monitors = 0;
  for await (const _ of tocsin.each("/v1/monitors")) monitors += 1;
  assert.deepEqual([usage.plan, used["monitors"], used["members"]], ["unlimited", monitors, 2]);
});

test("the audit trail tells the owner who did what, on a page and in a file", async () => {
  assert.equal((await refused(grace.tocsin.get("/v1/audit"))).status, 403);
  const query = { type: "membership.created" };
  const { data: page } = await tocsin.get("/v1/audit", { params: { query } });
  assert.deepEqual(page.data.map(({ actor }) => actor.email), [grace.email, ada.email]);
  const params = { query: { ...query, format: "csv" } } as const;
  const { data: file, response } = await tocsin.get("/v1/audit/export", { params, parseAs: "text" });
  assert.match(response.headers.get("Content-Type") ?? "", /^text\/csv/);
  const [head, ...lines] = String(file).trimEnd().split("\r\n");
  assert.match(head ?? "", /^id,occurred_at,org_id,type,/);
  assert.deepEqual(lines.map((line) => line.includes(grace.email)), [true, false]);
});

// --- limits, and a Supabase that is away ---

test("each answer says how much is left", async () => {
  const { response } = await tocsin.get("/v1/monitors");
  assert.match(response.headers.get("RateLimit-Policy") ?? "", /^"ordinary";q=\d+;w=\d+$/);
  assert.match(response.headers.get("RateLimit") ?? "", /^"ordinary";r=\d+;t=\d+$/);
});

test("too much at once is waited for, and done", async () => {
  const { statuses, tocsin } = watched();
  const params = { query: { format: "ndjson", type: "membership.created" } } as const;
  const files = await Promise.all(
    Array.from({ length: 5 }, () => tocsin.get("/v1/audit/export", { params, parseAs: "text" })),
  );
  assert.deepEqual(files.map(({ data }) => String(data).trimEnd().split("\n").length), [2, 2, 2, 2, 2]);
  assert.ok(statuses.includes(429), "two a second are allowed");
});

test("a Supabase that is away for a moment is waited for", async () => {
  const turn = (state: string) => fetch(`${setting("SUPABASE_SWITCH")}/${state}`, { method: "POST" });
  const { statuses, tocsin } = watched((status) => status === 503 && turn("on"));
  await turn("off");
  const { data: page } = await tocsin.get("/v1/monitors", { params: { query: { limit: 1 } } });
  assert.equal(page.data.length, 1);
  assert.deepEqual(statuses, [503, 200]);
  await turn("off");
  const body = { name: "in bad times", target, paused: true };
  const { data: monitor } = await tocsin.post("/v1/monitors", { body });
  assert.deepEqual([monitor.name, statuses], ["in bad times", [503, 200, 503, 201]]);
});

// --- leaving ---

test("Grace leaves, hears of it, and sees nothing any more", async () => {
  const path = { org_id: await myOrg() };
  const listener = listen(grace.tocsin, await presentPosition());
  await grace.tocsin.post("/v1/orgs/{org_id}/leave", { params: { path } });
  await listener.hears(({ type, data }) => type === "membership.deleted" && data === null, "the leaving is not heard");
  await listener.leave();
  assert.equal((await refused(grace.tocsin.get("/v1/orgs/{org_id}", { params: { path } }))).status, 404);
});

test("whoever has signed out is refused again", async () => {
  await ada.supabase.auth.signOut();
  assert.equal((await refused(tocsin.get("/v1/monitors"))).status, 401);
});

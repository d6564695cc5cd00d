/**
 * The client and supabase-js against a running Tocsin, step by step: each `test` goes on where the one before ended.
 *
 * Takes SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY and TOCSIN_URL; tests/stack/test_typescript_client.py gives them.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { createClient } from "@supabase/supabase-js";

import { createTocsin, TocsinError } from "../src/index.ts";

const supabase = createClient(setting("SUPABASE_URL"), setting("SUPABASE_PUBLISHABLE_KEY"), {
  auth: { persistSession: false, autoRefreshToken: false },
});
const tocsin = createTocsin({
  url: setting("TOCSIN_URL"),
  accessToken: async () => (await supabase.auth.getSession()).data.session?.access_token ?? "",
});
const account = { email: `ada-${crypto.randomUUID()}@example.com`, password: "correct horse battery" };
const target = "https://example.com/";

function setting(name: string): string {
  const value = process.env[name];
  assert.ok(value, `${name} is not set`);
  return value;
}

async function refused(promise: Promise<unknown>): Promise<TocsinError> {
  const error = await promise.then(() => assert.fail("it was not refused"), (reason: unknown) => reason);
  assert.ok(error instanceof TocsinError, String(error));
  return error;
}

test("whoever has not signed in is refused", async () => {
  const error = await refused(tocsin.get("/v1/me"));
  assert.deepEqual([error.status, error.code], [401, "unauthenticated"]);
  assert.ok(error.requestId);
});

test("sign up and sign in with supabase-js", async () => {
  const { error } = await supabase.auth.signUp(account);
  assert.equal(error, null);
  await supabase.auth.signOut();
  const { data, error: refusal } = await supabase.auth.signInWithPassword(account);
  assert.equal(refusal, null);
  const { data: me } = await tocsin.get("/v1/me");
  assert.deepEqual([me.id, me.email, me.memberships], [data.user?.id, account.email, []]);
});

test("create an organisation", async () => {
  const { data: org, response } = await tocsin.post("/v1/orgs", { body: { name: "Acme" } });
  assert.equal(org.my_role, "owner");
  assert.equal(response.headers.get("Location"), `/v1/orgs/${org.id}`);
});

test("create monitors, and go through them page by page", async () => {
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

async function anyMonitor() {
  const { data: page } = await tocsin.get("/v1/monitors", { params: { query: { limit: 1 } } });
  const [monitor] = page.data;
  assert.ok(monitor);
  return { path: { monitor_id: monitor.id }, monitor };
}

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

test("what is deleted is gone", async () => {
  const { path } = await anyMonitor();
  const { data, response } = await tocsin.delete("/v1/monitors/{monitor_id}", { params: { path } });
  assert.deepEqual([data, response.status], [undefined, 204]);
  assert.equal((await refused(tocsin.get("/v1/monitors/{monitor_id}", { params: { path } }))).code, "not_found");
});

test("whoever has signed out is refused again", async () => {
  await supabase.auth.signOut();
  assert.equal((await refused(tocsin.get("/v1/monitors"))).status, 401);
});

// The Node peer given the same cuts as ours: verified tokens are remembered, supabase-js's query builder makes the
// request, a light client (undici's own `request`) sends it, and the answer's bytes are passed on unparsed.
import { serve } from "@hono/node-server";
import { PostgrestClient } from "@supabase/postgrest-js";
import { Hono } from "hono";
import { createRemoteJWKSet, jwtVerify } from "jose";
import { Pool } from "undici";

const { SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY, PORT } = process.env;
const issuer = `${SUPABASE_URL}/auth/v1`;
const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`));
const upstream = new Pool(SUPABASE_URL, { connections: 64 });
const verified = new Map(); // token -> exp, in the order of insertion
const MOST_TOKENS = 10_000;
const app = new Hono();

async function isVerified(token) {
  const now = Date.now() / 1000;
  const known = verified.get(token);
  if (known !== undefined) return known > now;
  const { payload } = await jwtVerify(token, keys, {
    issuer,
    audience: "authenticated",
    algorithms: ["ES256"],
    requiredClaims: ["exp", "iat", "sub"],
  });
  if (payload.role !== "authenticated") return false;
  if (verified.size >= MOST_TOKENS) verified.delete(verified.keys().next().value);
  verified.set(token, payload.exp);
  return true;
}

app.get("/v1/monitors", async (c) => {
  const authorization = c.req.header("authorization") ?? "";
  const accepted = await isVerified(authorization.replace("Bearer ", "")).catch(() => false);
  if (!accepted) return c.json({ code: "unauthenticated" }, 401);
  const query = new PostgrestClient(`${SUPABASE_URL}/rest/v1`, {
    headers: { apikey: SUPABASE_PUBLISHABLE_KEY, authorization },
  })
    .from("monitors")
    .select("*")
    .order("created_at", { ascending: false })
    .order("id", { ascending: false })
    .limit(51);
  const { statusCode, body } = await upstream.request({
    method: query.method,
    path: query.url.pathname + query.url.search,
    headers: Object.fromEntries(query.headers),
  });
  const rows = await body.text();
  if (statusCode !== 200) return c.json({ code: "unavailable" }, 503);
  return c.body(`{"data":${rows},"next_cursor":null}`, 200, { "content-type": "application/json" });
});

serve({ fetch: app.fetch, hostname: "127.0.0.1", port: Number(PORT) });

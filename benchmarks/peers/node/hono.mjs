// The Node peer as its documentation has it: Hono, jose with a cached remote JWKS, supabase-js with the user's token.
import { serve } from "@hono/node-server";
import { createClient } from "@supabase/supabase-js";
import { Hono } from "hono";
import { createRemoteJWKSet, jwtVerify } from "jose";

const { SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY, PORT } = process.env;
const issuer = `${SUPABASE_URL}/auth/v1`;
const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`));
const app = new Hono();

app.get("/v1/monitors", async (c) => {
  const authorization = c.req.header("authorization") ?? "";
  try {
    const { payload } = await jwtVerify(authorization.replace("Bearer ", ""), keys, {
      issuer,
      audience: "authenticated",
      algorithms: ["ES256"],
      requiredClaims: ["exp", "iat", "sub"],
    });
    if (payload.role !== "authenticated") return c.json({ code: "unauthenticated" }, 401);
  } catch {
    return c.json({ code: "unauthenticated" }, 401);
  }
  const supabase = createClient(SUPABASE_URL, SUPABASE_PUBLISHABLE_KEY, {
    auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
    global: { headers: { Authorization: authorization } },
  });
  const { data, error } = await supabase
    .from("monitors")
    .select("*")
    .order("created_at", { ascending: false })
    .order("id", { ascending: false })
    .limit(51);
  if (error) return c.json({ code: "unavailable" }, 503);
  return c.json({ data, next_cursor: null });
});

serve({ fetch: app.fetch, hostname: "127.0.0.1", port: Number(PORT) });

// The embedded Supabase, one process: open the database, lay the schema, migrate, serve REST and Auth on loopback.
//
// Migrating before the first request, in the process that owns the database, is the point: PGlite has no lock on its
// folder, and a second process that migrates beside a running server loses the tables.

import { readFile } from "node:fs/promises";

import { createAdaptorServer } from "@hono/node-server";
import { App } from "@supabase/lite";

import { openConnection } from "./lite/connection.mjs";
import { withHeadersOf } from "./lite/headers.mjs";
import { migrate } from "./lite/migrations.mjs";
import { readSettings } from "./lite/settings.mjs";

const HOST = "127.0.0.1";

function makeApp(settings, connection) {
  return new App({
    connection,
    api: { port: settings.port },
    auth: {
      enabled: true,
      enable_signup: true,
      email: { enable_confirmations: false },
      jwt_secret: settings.jwtSecret,
      jwt_expiry: settings.jwtExpirySeconds,
      publishable_key: settings.publishableKey,
      secret_key: settings.secretKey,
    },
    // Without this a request that carries no key at all is served as service_role.
    options: { server: { admin: false } },
  });
}

function listen(app, port) {
  const server = createAdaptorServer({
    fetch: (request, bindings) =>
      withHeadersOf(request, () =>
        app.fetch(request, { peerAddress: bindings?.incoming?.socket?.remoteAddress ?? null }),
      ),
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, HOST, () => resolve(server));
  });
}

function stopOnSignal(server, connection) {
  let stopping = false;
  const stop = async () => {
    if (stopping) return;
    stopping = true;
    server.close();
    server.closeAllConnections();
    await connection.close();
    process.exit(0);
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
}

async function main() {
  const settings = readSettings(process.env);
  const connection = openConnection(settings);
  const app = makeApp(settings, connection);
  await connection.prepareSessions();
  await app.ensureSystemSchema();
  await connection.execScript(await readFile(new URL("baseline.sql", import.meta.url), "utf8"));
  for (const file of await migrate(connection, settings.migrationsDir)) console.log(`applied ${file}`);
  await connection.clearSchemaCache();
  const server = await listen(app, settings.port);
  stopOnSignal(server, connection);
  console.log(`serving http://${HOST}:${settings.port}`);
}

try {
  await main();
} catch (error) {
  // One line for the supervisor to show; the log keeps the stack.
  console.error(error);
  console.error(`fatal: ${error.message}`);
  process.exit(1);
}

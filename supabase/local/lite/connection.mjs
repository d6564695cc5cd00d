// lite's two Postgres drivers, repaired where they differ from hosted Supabase (README.md lists each repair).

import { btree_gist } from "@electric-sql/pglite/contrib/btree_gist";
import { citext } from "@electric-sql/pglite/contrib/citext";
import { pg_trgm } from "@electric-sql/pglite/contrib/pg_trgm";
import { pgcrypto } from "@electric-sql/pglite/contrib/pgcrypto";
import { uuid_ossp } from "@electric-sql/pglite/contrib/uuid_ossp";
import { PgliteConnection } from "@supabase/lite/pglite";
import { PostgresConnection } from "@supabase/lite/postgres";
import { sql } from "kysely";

import { databaseError, faithfulError } from "./errors.mjs";
import { headersOfThisRequest } from "./headers.mjs";
import { pgliteParsers, pgliteSerializers, postgresTypes } from "./values.mjs";

const API_ROLES = ["anon", "authenticated", "service_role"];
// The wire protocol counts bind values in 16 bits; PGlite reads them as signed and wedges beyond.
const MAX_BIND_VALUES = 32_767;
const MAX_CONNECTIONS = 20;
// What PostgREST (db-extra-search-path) and hosted roles use.
const SEARCH_PATH = '"$user", public, extensions';

const faithful = (Base) =>
  class extends Base {
    normalizeDbError(error) {
      return faithfulError(error);
    }

    // Stock lite answers the first request by granting ALL on everything; grants belong to the migrations.
    async ensureRlsContext() {
      return true;
    }

    async applyJwtSessionContext(transaction, variables, isCustomRole) {
      const role = variables?.auth?.role || "anon";
      if (!API_ROLES.includes(role)) throw databaseError("42501", `permission denied to set role "${role}"`);
      await super.applyJwtSessionContext(transaction, variables, isCustomRole);
      // Stock lite sets it for RPCs alone; PostgREST for every request.
      await sql`select set_config('request.headers', ${headersOfThisRequest()}, true)`.execute(transaction);
    }
  };

class FaithfulPglite extends faithful(PgliteConnection) {
  /** Run statements, none of which takes arguments, in one transaction. */
  async execScript(sql) {
    await this.driver.transaction((transaction) => transaction.exec(sql));
  }

  async prepareSessions() {
    await this.driver.exec(`set search_path = ${SEARCH_PATH}`);
  }
}

class FaithfulPostgres extends faithful(PostgresConnection) {
  /** Run statements, none of which takes arguments, in one transaction. */
  async execScript(sql) {
    await this.driver.begin((transaction) => transaction.unsafe(sql).simple());
  }

  async prepareSessions() {}
}

function guardBindValues(client) {
  const query = client.query.bind(client);
  client.query = (text, values, options) => {
    if (values?.length > MAX_BIND_VALUES) {
      throw databaseError("54000", `too many bind values: ${values.length}, at most ${MAX_BIND_VALUES}`);
    }
    return query(text, values, options);
  };
}

function openPglite(dataDir) {
  const connection = new FaithfulPglite({
    url: dataDir,
    pgliteOptions: {
      extensions: { btree_gist, citext, pg_trgm, pgcrypto, uuid_ossp },
      parsers: pgliteParsers,
      serializers: pgliteSerializers,
    },
  });
  const { driver } = connection;
  guardBindValues(driver);
  const transaction = driver.transaction.bind(driver);
  driver.transaction = (run) =>
    transaction((client) => {
      guardBindValues(client);
      return run(client);
    });
  return connection;
}

function openPostgres(url) {
  return new FaithfulPostgres({
    url,
    postgresOptions: {
      max: MAX_CONNECTIONS,
      onnotice: () => {},
      types: postgresTypes,
      connection: { search_path: SEARCH_PATH, application_name: "embedded-supabase" },
    },
  });
}

/** Open the database that `settings` names: PGlite in a folder, or a real Postgres by URL. */
export function openConnection(settings) {
  return settings.pgliteDir ? openPglite(settings.pgliteDir) : openPostgres(settings.databaseUrl);
}

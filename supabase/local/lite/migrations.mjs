// Applies supabase/migrations as `supabase db push` does: in order, once, as `postgres`, recorded in the same table.

import { readdir, readFile } from "node:fs/promises";
import path from "node:path";

const FILE_NAME = /^(\d{14})_(\w+)\.sql$/;
const literal = (text) => `'${text.replaceAll("'", "''")}'`;

/** Read the migrations of a folder, oldest first: `[{ file, version, name, sql }]`. */
async function readMigrations(dir) {
  const files = (await readdir(dir)).filter((file) => file.endsWith(".sql")).sort();
  return Promise.all(
    files.map(async (file) => {
      const match = FILE_NAME.exec(file);
      if (!match) throw new Error(`migration ${file}: the name must be <14 digits>_<name>.sql`);
      return { file, version: match[1], name: match[2], sql: await readFile(path.join(dir, file), "utf8") };
    }),
  );
}

function located({ file, sql }, error) {
  const position = Number(error.position);
  const line = position > 0 ? `:${sql.slice(0, position).split("\n").length}` : "";
  const notes = [error.detail, error.hint].filter(Boolean).map((note) => ` (${note})`);
  return new Error(`migration ${file}${line}: ${error.message}${notes.join("")}`);
}

async function applyMigration(connection, migration) {
  const { version, name, sql } = migration;
  // The file comes first, so that the position in an error is a position in the file.
  const record = `insert into supabase_migrations.schema_migrations (version, name, statements)
    values (${literal(version)}, ${literal(name)}, array[${literal(sql)}])`;
  try {
    await connection.execScript(`set local role postgres;${sql}\n;reset role;\n${record}`);
  } catch (error) {
    if (Number(error.position) > 0) error.position = Number(error.position) - "set local role postgres;".length;
    throw located(migration, error);
  }
}

/** Apply what is pending in `dir`; returns the names of the files applied. Throws when an applied file was edited. */
export async function migrate(connection, dir) {
  const { rows } = await connection.exec("select version, statements[1] as sql from supabase_migrations.schema_migrations");
  const applied = new Map(rows.map((row) => [row.version, row.sql]));
  const done = [];
  for (const migration of await readMigrations(dir)) {
    if (!applied.has(migration.version)) {
      await applyMigration(connection, migration);
      done.push(migration.file);
    } else if (applied.get(migration.version) !== migration.sql) {
      throw new Error(`migration ${migration.file} was edited after it had been applied here: \`make reset\` starts afresh`);
    }
  }
  return done;
}

// The embedded stack's settings: environment in, one frozen object out. Nothing has a secret default.

const REQUIRED = ["SUPABASE_PORT", "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_SECRET_KEY", "SUPABASE_JWT_SECRET", "MIGRATIONS_DIR"];

/** Read the settings from `environment`; throws one Error that names everything missing. */
export function readSettings(environment) {
  const missing = REQUIRED.filter((name) => !environment[name]);
  if (!environment.DATABASE_URL === !environment.PGLITE_DIR) missing.push("exactly one of DATABASE_URL and PGLITE_DIR");
  if (missing.length > 0) throw new Error(`missing from the environment: ${missing.join(", ")}`);
  return Object.freeze({
    port: Number(environment.SUPABASE_PORT),
    publishableKey: environment.SUPABASE_PUBLISHABLE_KEY,
    secretKey: environment.SUPABASE_SECRET_KEY,
    jwtSecret: environment.SUPABASE_JWT_SECRET,
    jwtExpirySeconds: Number(environment.SUPABASE_JWT_EXPIRY_SECONDS || 3600),
    migrationsDir: environment.MIGRATIONS_DIR,
    databaseUrl: environment.DATABASE_URL,
    pgliteDir: environment.PGLITE_DIR,
  });
}

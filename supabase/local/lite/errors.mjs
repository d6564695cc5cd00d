// Database errors as PostgREST reports them: the SQLSTATE as `code`, and the status that belongs to it.

const STATUS_OF_CODE = {
  21000: 500, 22023: 400, 23503: 409, 23505: 409, 25006: 405, 42883: 404, "42P01": 404, "42P17": 500,
  53400: 500, "57P01": 503, P0001: 400,
};
const STATUS_OF_CLASS = {
  "08": 503, "09": 500, "0L": 403, "0P": 403, 25: 500, 28: 403, "2D": 500, 38: 500, 39: 500, "3B": 500, 40: 500,
  53: 503, 54: 500, 55: 500, 57: 500, 58: 500, F0: 500, HV: 500, P0: 500, XX: 500,
};

/** Return the HTTP status of an SQLSTATE (PostgREST, src/PostgREST/Error.hs, `mapSQLtoHTTP`). */
export function httpStatus(sqlstate, message) {
  if (sqlstate === "21000" && /requires a WHERE clause$/.test(message)) return 400;
  if (sqlstate === "22023" && /^role .* does not exist$/.test(message)) return 401;
  return STATUS_OF_CODE[sqlstate] ?? STATUS_OF_CLASS[sqlstate.slice(0, 2)] ?? 400;
}

// lite already answers these as real PostgREST does; 42501 needs lite's knowledge of who asks (401 or 403).
const answeredByLite = (sqlstate) => sqlstate === "PGRST" || sqlstate.startsWith("PT") || sqlstate === "42501";

/**
 * Turn a driver's error into one that lite reports faithfully.
 * lite knows `raise sqlstate 'PGRST'`, which chooses code, text and status freely: every other SQLSTATE rides on it.
 */
export function faithfulError(error) {
  const sqlstate = error?.code;
  if (typeof sqlstate !== "string" || !/^[0-9A-Z]{5}$/.test(sqlstate) || answeredByLite(sqlstate)) return error;
  if (error.constructor?.name === "RelationNotFoundError") return error;
  const message = error.message ?? "";
  return {
    code: "PGRST",
    message: JSON.stringify({ code: sqlstate, message, details: error.detail ?? null, hint: error.hint ?? null }),
    detail: JSON.stringify({ status: httpStatus(sqlstate, message), headers: {} }),
  };
}

/** Make an error that carries an SQLSTATE, as a driver would. */
export function databaseError(sqlstate, message) {
  return Object.assign(new Error(message), { code: sqlstate });
}

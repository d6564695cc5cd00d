// How Postgres values become JSON: as real PostgREST prints them, not as lite's drivers guess.

export const OID = Object.freeze({
  bytea: 17, bigint: 20, json: 114, timestamp: 1114, timestamptz: 1184, numeric: 1700, jsonb: 3802,
});

/** '2026-01-01 00:00:00.5+00' -> '2026-01-01T00:00:00.5+00:00'; `infinity` and dates BC stay as they are. */
export function isoTimestamp(text) {
  return text.replace(/^(\d+-\d\d-\d\d) /, "$1T").replace(/([+-]\d\d)$/, "$1:00");
}

/** A numeric keeps each of its digits: a JSON number written raw. NaN and Infinity have no JSON number: strings. */
export function exactNumber(text) {
  return /^-?\d+(\.\d+)?$/.test(text) ? JSON.rawJSON(text) : text;
}

/** A bigint is a plain number while a double can hold it, and a raw JSON number beyond. */
export function exactInteger(text) {
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : JSON.rawJSON(text);
}

/** lite hands jsonb arguments over already serialised; serialising them again would store a JSON string. */
export function serializeJson(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

const unchanged = (value) => value;

/** The parsers that PGlite takes, by type OID. */
export const pgliteParsers = {
  [OID.timestamptz]: isoTimestamp,
  [OID.timestamp]: isoTimestamp,
  [OID.numeric]: exactNumber,
  [OID.bigint]: exactInteger,
  [OID.bytea]: unchanged,
};

/** What PGlite would serialise itself: its bytea takes byte arrays only, and JSON holds text such as '\\x6869'. */
export const pgliteSerializers = { [OID.bytea]: unchanged };

const type = (oid, serialize, parse) => ({ to: oid, from: [oid], serialize, parse });

/** The types that postgres.js takes. */
export const postgresTypes = {
  timestamptz: type(OID.timestamptz, unchanged, isoTimestamp),
  timestamp: type(OID.timestamp, unchanged, isoTimestamp),
  numeric: type(OID.numeric, String, exactNumber),
  bigint: type(OID.bigint, String, exactInteger),
  bytea: type(OID.bytea, unchanged, unchanged),
  json: type(OID.json, serializeJson, JSON.parse),
  jsonb: type(OID.jsonb, serializeJson, JSON.parse),
};

// Which request the code at hand runs for: what PostgREST hands to SQL as `request.headers`.

import { AsyncLocalStorage } from "node:async_hooks";

const current = new AsyncLocalStorage();

/** Run `serve` as part of this request. */
export function withHeadersOf(request, serve) {
  return current.run(JSON.stringify(Object.fromEntries(request.headers)), serve);
}

/** Return the headers as JSON, names in lower case; `{}` outside of any request. */
export function headersOfThisRequest() {
  return current.getStore() ?? "{}";
}

/** How one request goes out: who asks, under which key, how often it is tried, and what a refusal becomes. */

import { TocsinError } from "./errors.ts";

export interface SendingOptions {
  /** The access token of now, asked for before each try: `session.access_token` of supabase-js. */
  accessToken: () => Promise<string>;
  /** How often a request that is safe to send again is tried at most. Default: 4. */
  tries?: number;
  /** A `Retry-After` above this is not waited for; the error is yours at once. Default: 20. */
  longestWaitSeconds?: number;
  /** What sends. Default: the platform's `fetch`. */
  fetch?: (request: Request) => Promise<Response>;
  /** What waits. Default: `setTimeout`. */
  sleep?: (milliseconds: number, signal: AbortSignal) => Promise<void>;
}

/** Return a `fetch` that answers with successes and 304 alone, and throws a TocsinError for the rest. */
export function makeSender(options: SendingOptions): (request: Request) => Promise<Response> {
  const { accessToken, tries = 4, longestWaitSeconds = 20, sleep = wait } = options;
  const send = options.fetch ?? ((request: Request) => fetch(request));

  return async (request) => {
    if (request.method === "POST" && !request.headers.has("Idempotency-Key")) {
      request.headers.set("Idempotency-Key", crypto.randomUUID());
    }
    for (let attempt = 1; ; attempt++) {
      const token = await accessToken();
      request.headers.set("Authorization", `Bearer ${token}`);
      const { response, error } = await tryOnce(send, request);
      if (response) return response;
      if (error.status === 401 && attempt < tries && (await accessToken()) !== token) continue; // it ran out on its way
      const seconds = secondsUntilRetry(error, attempt);
      if (attempt >= tries || !isSafeToRepeat(request, error) || !(seconds <= longestWaitSeconds)) {
        throw error;
      }
      await sleep(seconds * 1000, request.signal);
    }
  };
}

type Outcome = { response: Response; error?: never } | { response?: never; error: TocsinError };

async function tryOnce(send: (request: Request) => Promise<Response>, request: Request): Promise<Outcome> {
  let response: Response;
  try {
    response = await send(request.clone()); // a body can be read once
  } catch (cause) {
    request.signal.throwIfAborted(); // the caller's own wish is no error of ours
    return { error: TocsinError.ofNetwork(cause) };
  }
  return response.ok || response.status === 304 ? { response } : { error: await TocsinError.of(response) };
}

/**
 * A GET changes nothing, and a POST with its key is done once however often it comes. A PATCH or DELETE that was done
 * but not answered would come back as 412 or 404: only its caller knows what that means. What was too much (429) was
 * not done.
 */
function isSafeToRepeat(request: Request, error: TocsinError): boolean {
  return request.method === "GET" || request.method === "POST" || error.status === 429;
}

/** Return how long to wait before another try; infinitely where another try would not help. */
function secondsUntilRetry(error: TocsinError, attempt: number): number {
  if (error.code === "network_error" || error.code === "idempotency_key_in_use") return backoffSeconds(attempt, 4);
  return [429, 503, 504].includes(error.status) ? (error.retryAfterSeconds ?? Infinity) : Infinity;
}

/** Return how long to wait after so many failures in a row: twice as long each time, and never all clients at once. */
export function backoffSeconds(failures: number, longest: number): number {
  return Math.min(0.25 * 2 ** failures, longest) * (0.5 + Math.random() / 2);
}

/** Resolve after a while. Rejects with the signal's reason as soon as it aborts. */
export function wait(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const giveUp = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", giveUp);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", giveUp, { once: true });
    if (signal.aborted) giveUp();
  });
}

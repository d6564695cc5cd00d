/** Following what happens: Server-Sent Events (WHATWG HTML, 9.2) over `fetch`, since an EventSource sends no token. */

import { TocsinError } from "./errors.ts";
import type { components } from "./schema.ts";
import { backoffSeconds, type SendingOptions, wait } from "./sending.ts";

type Event = components["schemas"]["Event"];

export interface FollowOptions {
  /** The position after which to begin: an event's `id`, or `next_after`. */
  after?: string | undefined;
  /** Only what happens in this organisation. */
  orgId?: string | undefined;
  /** Ends it, whatever it waits for. */
  signal?: AbortSignal | undefined;
}

export interface StreamOptions extends SendingOptions {
  /** Where the streams are served, without a slash at its end. */
  findStreams: () => Promise<string>;
  longestSilenceSeconds: number;
}

/** What comes between two blank lines of a stream. */
interface Frame {
  /** Where the reader stands now; null: where they stood. */
  id: string | null;
  /** Of an event, or a word about the stream itself: ready, token_expired, token_refused, overflow, restart. */
  type: string;
  /** Empty in a heartbeat. */
  data: string;
}

const LONGEST_PAUSE_SECONDS = 30;

/**
 * Yield each event once. A stream that ends or breaks is opened anew where it was left, with the access token of then;
 * one that is refused too where the refusal may pass: no answer, 429, 5xx, and a single 401, for a token that ran out
 * on its way.
 */
export async function* followStream(
  stream: StreamOptions, { after, orgId, signal }: FollowOptions,
): AsyncGenerator<Event> {
  const sleep = stream.sleep ?? wait;
  let failures = 0;
  let isUnauthenticated = false;
  while (true) {
    let pause = backoffSeconds(1, LONGEST_PAUSE_SECONDS);
    try {
      for await (const { id, type, data } of openStream(stream, after, orgId, signal)) {
        failures = 0;
        isUnauthenticated = false;
        after = id ?? after;
        // Words about the stream come without an id, but for `ready`; a heartbeat without data.
        if (id !== null && type !== "ready" && data !== "") yield JSON.parse(data) as Event;
      }
    } catch (error) {
      if (!(error instanceof TocsinError) || !mayPass(error)) throw error;
      if (error.status === 401 && isUnauthenticated) throw error;
      isUnauthenticated = error.status === 401;
      failures += 1;
      pause = error.retryAfterSeconds ?? backoffSeconds(failures, LONGEST_PAUSE_SECONDS);
    }
    await sleep(pause * 1000, signal ?? new AbortController().signal);
  }
}

function mayPass({ code, status }: TocsinError): boolean {
  return code === "network_error" || status === 401 || status === 429 || status >= 500;
}

/** Yield what one connection brings until it ends. Throws a TocsinError where it is refused or breaks. */
async function* openStream(
  stream: StreamOptions, after: string | undefined, orgId: string | undefined, signal: AbortSignal | undefined,
): AsyncGenerator<Frame> {
  const send = stream.fetch ?? ((request: Request) => fetch(request));
  const connection = new AbortController();

  /** Wait for the other side, but not for ever: a phone that has changed networks hears no error either. */
  async function patiently<Thing>(thing: Promise<Thing>): Promise<Thing> {
    const giveUp = () => connection.abort(new Error("The stream is silent."));
    const timer = setTimeout(giveUp, stream.longestSilenceSeconds * 1000);
    try {
      return await thing;
    } catch (cause) {
      signal?.throwIfAborted(); // the caller's own wish is no error of ours
      throw TocsinError.ofNetwork(cause);
    } finally {
      clearTimeout(timer);
    }
  }

  const url = new URL(`${await stream.findStreams()}/v1/events/stream`);
  if (orgId !== undefined) url.searchParams.set("org_id", orgId);
  const headers = new Headers({ Accept: "text/event-stream", Authorization: `Bearer ${await stream.accessToken()}` });
  if (after !== undefined) headers.set("Last-Event-ID", after);
  const either = AbortSignal.any([connection.signal, ...(signal ? [signal] : [])]);
  try {
    const response = await patiently(send(new Request(url, { headers, signal: either, cache: "no-store" })));
    const isStream = response.ok && response.headers.get("Content-Type")?.startsWith("text/event-stream");
    if (!isStream || !response.body) throw await patiently(TocsinError.of(response));
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    const parse = makeParser();
    while (true) {
      const { done, value } = await patiently(reader.read());
      if (done) return;
      yield* parse(decoder.decode(value, { stream: true }));
    }
  } finally {
    connection.abort();
  }
}

/** Return what cuts text into frames. What is not complete waits for the next piece, and is lost where none comes. */
function makeParser(): (text: string) => Frame[] {
  let rest = "";
  let fields: [name: string, value: string][] = [];
  return (text) => {
    const frames: Frame[] = [];
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/); // a CR at the end may be half of a CRLF
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const [, name = "", value = ""] = /^([^:]*):? ?(.*)$/.exec(line) ?? [];
      if (line !== "") fields.push([name, value]);
      else if (fields.length > 0) {
        frames.push(toFrame(fields));
        fields = [];
      }
    }
    return frames;
  };
}

function toFrame(fields: [name: string, value: string][]): Frame {
  const all = (wanted: string) => fields.filter(([name]) => name === wanted).map(([, value]) => value);
  return { id: all("id").at(-1) ?? null, type: all("event").at(-1) ?? "message", data: all("data").join("\n") };
}

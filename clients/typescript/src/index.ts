/**
 * Tocsin's API, typed by its OpenAPI document.
 *
 *     const tocsin = createTocsin({ url, accessToken });
 *     const { data: monitor, etag } = await tocsin.post("/v1/monitors", { body: { name, target } });
 *     for await (const incident of tocsin.each("/v1/incidents")) …
 *     for await (const event of tocsin.follow()) …
 */

import createClient, {
  type Client,
  type FetchResponse,
  type MaybeOptionalInit,
  type MethodResponse,
} from "openapi-fetch";
import type { HttpMethod, PathsWithMethod, RequiredKeysOf } from "openapi-typescript-helpers";

import { followStream, type FollowOptions } from "./following.ts";
import type { components, paths } from "./schema.ts";
import { makeSender, type SendingOptions } from "./sending.ts";

export { PositionLost, TocsinError, type Fault, type Problem } from "./errors.ts";
export type { FollowOptions } from "./following.ts";
export type { components, paths } from "./schema.ts";
/** The things of the API by name: `Schemas["Monitor"]`. */
export type Schemas = components["schemas"];

export interface Answer<Data> {
  data: Data;
  /** For `unless` and `If-Match`; null where the answer has none. */
  etag: string | null;
  response: Response;
}

type Api = Client<paths>;
/** What a path takes. Not inferred from what is given, so that the compiler refuses what the API would refuse. */
type Options<Path extends keyof paths, Method extends HttpMethod> = MaybeOptionalInit<paths[Path], Method>;
type Arguments<Path extends keyof paths, Method extends HttpMethod> =
  RequiredKeysOf<Options<Path, Method>> extends never
    ? [options?: Options<Path, Method>]
    : [options: Options<Path, Method>];
type DataOf<Path extends PathsWithMethod<paths, Method>, Method extends HttpMethod> =
  [MethodResponse<Api, Method, Path>] extends [never] ? undefined : MethodResponse<Api, Method, Path>;
type Call<Method extends HttpMethod> = <Path extends PathsWithMethod<paths, Method>>(
  path: Path,
  ...options: Arguments<Path, Method>
) => Promise<Answer<DataOf<Path, Method>>>;

/** The paths that answer with pages. */
type ListPath = {
  [Path in PathsWithMethod<paths, "get">]:
    MethodResponse<Api, "get", Path> extends { data: unknown[]; next_cursor: string | null } ? Path : never;
}[PathsWithMethod<paths, "get">];
type RowOf<Path extends ListPath> =
  MethodResponse<Api, "get", Path> extends { data: (infer Row)[] } ? Row : never;

export interface Tocsin {
  get: Call<"get">;
  post: Call<"post">;
  patch: Call<"patch">;
  delete: Call<"delete">;
  /** Read again what you hold under `etag`: null where it still stands. */
  unless: <Path extends PathsWithMethod<paths, "get">>(
    etag: string,
    path: Path,
    ...options: Arguments<Path, "get">
  ) => Promise<Answer<DataOf<Path, "get">> | null>;
  /** Go through every row of a list, asking for the next page when the last is used up. */
  each: <Path extends ListPath>(
    path: Path,
    ...options: Arguments<Path, "get">
  ) => AsyncGenerator<RowOf<Path>, void, undefined>;
  /**
   * Go through what has happened since `after`, page by page up to the present: apply `data`, then keep `next_after`.
   * Without `after`: one page, that tells the present position alone. Throws PositionLost where you must start anew.
   */
  changes: (options?: FollowOptions) => AsyncGenerator<Schemas["EventPage"], void, undefined>;
  /**
   * Follow what happens after `after` (default: now), each event once and in order, for as long as you listen: cuts,
   * restarts and tokens that run out are seen to. Keep `event.id` to go on from there another day. Throws PositionLost
   * where you must start anew, a TocsinError for other refusals, and the signal's reason when it aborts.
   */
  follow: (options?: FollowOptions) => AsyncGenerator<Schemas["Event"], void, undefined>;
}

export interface TocsinOptions extends SendingOptions {
  /** Where the API answers: `https://api.example.com`. */
  url: string;
  /** Where the stream of events answers. Default: what the API's own document says. */
  streamsUrl?: string;
  /** A stream that says nothing for so long is opened anew; it has a heartbeat every 15 s. Default: 45. */
  longestSilenceSeconds?: number;
}

/**
 * Make a client. Each method throws a TocsinError for whatever is no success. POSTs carry an Idempotency-Key; they and
 * GETs are tried again when the network fails or the API asks for it (429, 503 and 504 with Retry-After), and whatever
 * was refused with 401 where there is another token by then.
 */
export function createTocsin({ url, streamsUrl, longestSilenceSeconds = 45, ...sending }: TocsinOptions): Tocsin {
  // Several choices of one parameter stand behind one name, with commas, as the document says of each.
  const querySerializer = { array: { style: "form", explode: false } } as const;
  const api = createClient<paths>({ baseUrl: url, querySerializer, fetch: makeSender(sending) });

  async function call(method: HttpMethod, path: string, options: object = {}): Promise<Answer<unknown>> {
    // The types of `Tocsin` say which options go with which path; from here on they are openapi-fetch's to serialise.
    const { data, response } = (await api.request(method, path as never, options as never)) as FetchResponse<
      Record<number, unknown>, unknown, "application/json"
    >;
    return { data, etag: response.headers.get("ETag"), response };
  }

  async function* each(path: string, options: { params?: { query?: object } } = {}): AsyncGenerator<unknown> {
    let query: object = options.params?.query ?? {};
    while (true) {
      const { data } = await call("get", path, { ...options, params: { ...options.params, query } });
      const page = data as { data: unknown[]; next_cursor: string | null };
      yield* page.data;
      if (page.next_cursor === null) return;
      query = { ...query, cursor: page.next_cursor };
    }
  }

  async function unless(etag: string, path: string, options: { headers?: HeadersInit } = {}) {
    const headers = new Headers(options.headers);
    headers.set("If-None-Match", etag);
    const answer = await call("get", path, { ...options, headers });
    return answer.response.status === 304 ? null : answer;
  }

  async function* changes({ after, orgId, signal }: FollowOptions = {}): AsyncGenerator<Schemas["EventPage"]> {
    const query = { limit: 200, ...(orgId && { org_id: orgId }) };
    for (let more = true; more; ) {
      const params = { query: { ...query, ...(after && { after }) } };
      const page = (await call("get", "/v1/events", { params, signal })).data as Schemas["EventPage"];
      yield page;
      after = page.next_after;
      more = page.has_more;
    }
  }

  async function findStreams(): Promise<string> {
    if (streamsUrl === undefined) {
      const { data } = await call("get", "/openapi.json");
      const { paths } = data as { paths: { "/v1/events/stream": { servers: [{ url: string }] } } };
      streamsUrl = new URL(paths["/v1/events/stream"].servers[0].url, url).href;
    }
    return streamsUrl.replace(/\/$/, "");
  }

  const follow = (options: FollowOptions = {}) =>
    followStream({ ...sending, findStreams, longestSilenceSeconds }, options);
  const of = (method: HttpMethod) => (path: string, options?: object) => call(method, path, options);
  const verbs = { get: of("get"), post: of("post"), patch: of("patch"), delete: of("delete") };
  return { ...verbs, unless, each, changes, follow } as Tocsin;
}

/** What the API refuses with (RFC 9457), as an error to catch. */

import type { components } from "./schema.ts";

export type Problem = components["schemas"]["Problem"];
export type Fault = NonNullable<Problem["errors"]>[number];

export class TocsinError extends Error {
  override readonly name = "TocsinError";
  /** The HTTP status; 0 where no answer came. */
  readonly status: number;
  /** Stable, to branch on: `precondition_failed`. `network_error`: no answer. `unexpected_answer`: not from the API. */
  readonly code: string;
  /** Every fault of the input, each with a JSON pointer into the body or a parameter's name. */
  readonly errors: readonly Fault[];
  /** Finds the request in the API's logs; null where no answer came. */
  readonly requestId: string | null;
  /** How long the API asks you to wait; undefined where it does not. */
  readonly retryAfterSeconds: number | undefined;
  /** The whole problem, with members that single codes add; null where the answer was none. */
  readonly problem: Problem | null;

  protected constructor(code: string, message: string, response: Response | null, problem: Problem | null, cause?: unknown) {
    super(message, { cause });
    this.status = response?.status ?? 0;
    this.code = code;
    this.errors = problem?.errors ?? [];
    this.requestId = problem?.request_id ?? response?.headers.get("X-Request-ID") ?? null;
    this.retryAfterSeconds = readSeconds(response?.headers.get("Retry-After"));
    this.problem = problem;
  }

  /** Read the refusal that an answer is. */
  static async of(response: Response): Promise<TocsinError> {
    const problem = await readProblem(response);
    if (problem) {
      const kind = POSITION_CODES.has(problem.code) ? PositionLost : TocsinError;
      return new kind(problem.code, problem.detail, response, problem);
    }
    const message = `The answer was ${response.status}, and not in the API's words.`;
    return new TocsinError("unexpected_answer", message, response, null);
  }

  /** Say that no answer came. */
  static ofNetwork(cause: unknown): TocsinError {
    return new TocsinError("network_error", "The API could not be reached.", null, null, cause);
  }
}

/**
 * Nobody can go on from this position in the event log (410): it is too old, or not of this log. Start anew: take the
 * present position, list what there is, follow from there.
 */
export class PositionLost extends TocsinError {}

const POSITION_CODES: ReadonlySet<string> = new Set(["events_gone", "position_unknown"]);

async function readProblem(response: Response): Promise<Problem | null> {
  if (!response.headers.get("Content-Type")?.startsWith("application/problem+json")) return null;
  try {
    const problem = (await response.json()) as Problem;
    return typeof problem.code === "string" ? problem : null;
  } catch {
    return null; // cut off on its way
  }
}

function readSeconds(header: string | null | undefined): number | undefined {
  return header && /^\d{1,9}$/.test(header) ? Number(header) : undefined;
}

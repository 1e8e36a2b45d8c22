import type { CallOptions } from "@connectrpc/connect";
import { MeshError } from "./errors.js";

/** How a single call is made. */
export interface CallInit {
  /** Ends the call when aborted. */
  readonly signal?: AbortSignal;
  /** Longest time for the call in milliseconds. */
  readonly timeoutMs?: number;
}

export function options(call: CallInit = {}): CallOptions {
  return { ...(call.signal && { signal: call.signal }), ...(call.timeoutMs && { timeoutMs: call.timeoutMs }) };
}

/** Waits for an answer; rejects with a `MeshError`. */
export async function explained<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (thrown) {
    throw MeshError.from(thrown);
  }
}

/**
 * Yields what a server stream sends; throws a `MeshError`.
 *
 * A reader that leaves its loop early must end the call too: the request is aborted whichever way this ends.
 */
export async function* streamed<T>(
  signal: AbortSignal | undefined,
  open: (signal: AbortSignal) => AsyncIterable<T>,
): AsyncGenerator<T, void, undefined> {
  const left = new AbortController();
  try {
    yield* open(signal ? AbortSignal.any([signal, left.signal]) : left.signal);
  } catch (thrown) {
    throw MeshError.from(thrown);
  } finally {
    left.abort();
  }
}

import type { ExecutionEvent } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import type { BackoffPolicy } from "./backoff.js";
import { backoff, pause } from "./backoff.js";
import { MeshError } from "./errors.js";

/** Opens a stream of events that follow a sequence. */
export type Open = (afterSequence: bigint) => AsyncIterable<ExecutionEvent>;

/**
 * Yields each event of a run once, up to its last one, however often the stream breaks in between. What belongs to the
 * connection alone (heartbeats, `go_away`) is kept back; an `EventGap` is passed on, as it is all that is left of what was lost.
 *
 * @throws MeshError when an error is final, or when no event came in `policy.tries` tries.
 */
export async function* resumed(
  open: Open,
  policy: BackoffPolicy,
  afterSequence = 0n,
  signal?: AbortSignal,
): AsyncGenerator<ExecutionEvent, void, undefined> {
  let after = afterSequence;
  for (let tried = 0; ; ) {
    let broken: MeshError | undefined;
    try {
      for await (const event of open(after)) {
        const kind = event.event.case;
        if (kind === "gap") {
          if (event.event.value.lastSequence <= after) continue;
          after = event.event.value.lastSequence;
        } else {
          if (event.sequence <= after) continue; // heartbeats and go_away have no sequence, repeats have an old one
          after = event.sequence;
        }
        tried = 0;
        yield event;
        if (kind === "executionFinished") return;
      }
    } catch (thrown) {
      broken = MeshError.from(thrown);
      if (signal?.aborted || !broken.retryable) throw broken;
    }
    tried += 1;
    if (tried > policy.tries) throw broken ?? ended();
    await pause(Math.max(broken?.retryAfterMs ?? 0, backoff(policy, tried)), signal).catch((aborted: unknown) => {
      throw MeshError.from(aborted);
    });
  }
}

function ended(): MeshError {
  return new MeshError("The stream of events ended before the run did, again and again.", "STREAM_INTERRUPTED");
}

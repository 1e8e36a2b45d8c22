import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import type { StreamEvent, StreamGap } from "@mediamesh/contracts/stream/v1/stream_pb.js";
import { StreamEventType, StreamGapSchema } from "@mediamesh/contracts/stream/v1/stream_pb.js";
import type { SubscribeResponse } from "@mediamesh/contracts/stream/v1/stream_service_pb.js";
import type { BackoffPolicy } from "../backoff.js";
import { backoff, pause } from "../backoff.js";
import { MeshError } from "../errors.js";

/** An event of a stream, or what is left of events that were lost. */
export type StreamItem = StreamEvent | StreamGap;

/** Whether events were lost here. */
export function isGap(item: StreamItem): item is StreamGap {
  return item.$typeName === "mediamesh.api.stream.v1.StreamGap";
}

/** Where a connection begins to read; a reader that comes back takes a gap where events are no longer kept. */
export interface Place {
  readonly after: bigint;
  readonly allowGap: boolean;
}

/** Counts failures in a row and waits between tries. */
export class Tries {
  #tried = 0;

  constructor(
    readonly policy: BackoffPolicy,
    readonly signal: AbortSignal | undefined,
  ) {}

  /** Takes note that a server answered: whatever fails next is the first failure. */
  heard(): void {
    this.#tried = 0;
  }

  /** Waits before the next try; rejects with the failure when there were too many, or when it cannot pass. */
  async bear(failure: MeshError): Promise<void> {
    this.#tried += 1;
    if (this.signal?.aborted || !passes(failure) || this.#tried > this.policy.tries) throw failure;
    const wait = Math.max(failure.retryAfterMs ?? 0, backoff(this.policy, this.#tried));
    await pause(wait, this.signal).catch((aborted: unknown) => {
      throw MeshError.from(aborted);
    });
  }
}

// A reader that lagged too far is OVERLOADED too, but is not told to come back.
function passes(error: MeshError): boolean {
  if (error.reason === "OVERLOADED") return error.retryAfterMs !== undefined;
  return error.retryable || (error.reason === "" && error.code === Code.Canceled);
}

/**
 * Yields the events of a stream until its last one, each once and in order, however often the connection breaks.
 *
 * @param read Reads from a place on, over one connection.
 * @throws MeshError when an error is final, or when no server said anything in `policy.tries` tries.
 */
export async function* resumed(
  read: (place: Place) => AsyncIterable<SubscribeResponse>,
  tries: Tries,
  begin: Place,
): AsyncGenerator<StreamItem, void, undefined> {
  let { after, allowGap } = begin;
  const lost = (last: bigint): StreamGap[] => {
    if (last <= after) return [];
    const gap = create(StreamGapSchema, { firstSequence: after + 1n, lastSequence: last });
    after = last;
    return [gap];
  };
  for (;;) {
    let failure = new MeshError("The connection ended before the stream.", "STREAM_INTERRUPTED");
    let isAlive = false;
    let isDismissed = false;
    try {
      for await (const { frame } of read({ after, allowGap })) {
        if ((isDismissed = frame.case === "goAway")) break;
        isAlive = allowGap = true;
        tries.heard();
        if (frame.case === "gap") yield* lost(frame.value.lastSequence);
        if (frame.case !== "events") continue;
        for (const event of frame.value.events) {
          if (event.sequence <= after) continue;
          // The server tells of gaps; a hole without one must not pass in silence either.
          yield* lost(event.sequence - 1n);
          after = event.sequence;
          yield event;
          if (isLast(event)) return;
        }
      }
      // Nothing follows the place: the stream had ended there.
      if (!isAlive && !isDismissed) return;
    } catch (thrown) {
      failure = MeshError.from(thrown);
    }
    if (!(isAlive && isDismissed)) await tries.bear(failure);
  }
}

/** Whether no event follows. */
export function isLast({ eventType }: StreamEvent): boolean {
  return eventType === StreamEventType.STREAM_END || eventType === StreamEventType.STREAM_ERROR;
}

/**
 * Yields what a connection says, and fails when it says nothing for a while. Time that the reader takes does not count.
 *
 * @throws MeshError with the reason `STREAM_INTERRUPTED`.
 */
export async function* attentive<T>(frames: AsyncIterable<T>, silenceMs: number): AsyncGenerator<T, void, undefined> {
  const reading = frames[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await within(reading.next(), silenceMs);
      if (next.done) return;
      yield next.value;
    }
  } finally {
    // Not waited for: one that is silent does not answer this either; its call is aborted.
    reading.return?.()?.catch(() => {});
  }
}

function within<T>(promise: Promise<T>, ms: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const silence = new MeshError(`The server said nothing for ${ms / 1000} s.`, "STREAM_INTERRUPTED");
    const timer = setTimeout(() => reject(silence), ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

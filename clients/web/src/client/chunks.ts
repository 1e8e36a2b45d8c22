import type { Chunk } from "@mediamesh/contracts/stream/v1/chunk_pb.js";
import type { ExecutionEvent } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import type { Result } from "./results.js";
import { resultOf } from "./results.js";

/** A chunk and the stream pin that it left, or came in at where the node is a `ui.*` node. */
export interface PinnedChunk {
  readonly nodeId: string;
  readonly pin: string;
  readonly chunk: Chunk;
}

/**
 * Yields the chunks of a run, as `run` or `watch` yields its events.
 *
 * @param address `node.pin`, such as `transcribe.transcript`, a node, or nothing for the chunks of all pins.
 */
export async function* chunksOf(
  events: AsyncIterable<ExecutionEvent>,
  address = "",
): AsyncGenerator<PinnedChunk, void, undefined> {
  for await (const { nodeId, event } of events) {
    if (event.case !== "nodeChunk" || !event.value.chunk) continue;
    const { pin, chunk } = event.value;
    if (["", nodeId, `${nodeId}.${pin}`].includes(address)) yield { nodeId, pin, chunk };
  }
}

/** Yields what the shipped agents streamed on a pin: transcripts, frames, pages and combined results. */
export async function* resultsOf(
  events: AsyncIterable<ExecutionEvent>,
  address: string,
): AsyncGenerator<Result, void, undefined> {
  for await (const { chunk } of chunksOf(events, address)) {
    const result = resultOf(chunk);
    if (result) yield result;
  }
}

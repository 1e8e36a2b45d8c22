/** The frames that follow a run's opening, sorted by pin: a bounded queue each, so that a slow agent slows its caller. */

import type { PinChunk, RunRequest } from "@mediamesh/contracts/agent/v1/agent_service_pb.js";
import type { Manifest } from "@mediamesh/contracts/agent/v1/manifest_pb.js";
import { PinType } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import type { Chunk } from "@mediamesh/contracts/stream/v1/chunk_pb.js";

import { MeshError } from "./errors.js";
import { Queue } from "./queue.js";

const CHUNKS = 16;

export class Inbox {
  readonly #queues = new Map<string, Queue<Chunk>>();
  readonly #sequences = new Map<string, bigint>();

  constructor(manifest: Manifest, connected: readonly string[]) {
    for (const { name, type } of manifest.inputs) {
      if (type !== PinType.STREAM) continue;
      const queue = new Queue<Chunk>(CHUNKS);
      if (!connected.includes(name)) queue.end();
      this.#queues.set(name, queue);
    }
  }

  /** The chunks of a pin; none where an optional pin is not connected. */
  stream(pin: string): AsyncIterable<Chunk> {
    const queue = this.#queues.get(pin);
    if (queue === undefined) throw new Error(`input ${pin} is no stream`);
    return queue;
  }

  /** Take the frames until the caller is done. */
  async fill(frames: AsyncIterator<RunRequest>): Promise<void> {
    for (let next = await frames.next(); next.done !== true; next = await frames.next()) {
      const { message } = next.value;
      if (message.case === "chunk") await this.#take(message.value);
      else if (message.case === "end") this.#open(message.value.pin, "end").end();
      else throw MeshError.ofFields([{ field: "open", description: "comes first and only once" }]);
    }
    const missing = [...this.#queues].filter(([, queue]) => !queue.ended).map(([pin]) => pin);
    if (missing.length > 0)
      throw MeshError.ofFields(
        missing.map((pin) => ({ field: `end.${pin}`, description: "never came: the stream broke off" })),
      );
  }

  /** Let whoever reads a stream see the failure. */
  fail(failure: unknown): void {
    for (const queue of this.#queues.values()) queue.fail(failure);
  }

  async #take({ pin, chunk }: PinChunk): Promise<void> {
    const queue = this.#open(pin, "chunk");
    const expected = (this.#sequences.get(pin) ?? 0n) + 1n;
    if (chunk?.payload.case === undefined)
      throw MeshError.ofFields([{ field: "chunk.chunk.payload", description: "must be set" }]);
    if (chunk.sequenceNumber !== expected) {
      const description = `must be ${expected} on pin ${pin}, is ${chunk.sequenceNumber}`;
      throw MeshError.ofFields([{ field: "chunk.chunk.sequence_number", description }]);
    }
    this.#sequences.set(pin, expected);
    await queue.put(chunk);
  }

  #open(pin: string, frame: string): Queue<Chunk> {
    const queue = this.#queues.get(pin);
    if (queue === undefined || queue.ended) {
      const description = `${pin} is none of the run's stream_inputs, or has ended`;
      throw MeshError.ofFields([{ field: `${frame}.pin`, description }]);
    }
    return queue;
  }
}

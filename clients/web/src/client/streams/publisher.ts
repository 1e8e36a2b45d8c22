import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { StatusSchema } from "@mediamesh/contracts/google/rpc/status_pb.js";
import { ChunkSchema } from "@mediamesh/contracts/stream/v1/chunk_pb.js";
import { StreamMetadataSchema, StreamState } from "@mediamesh/contracts/stream/v1/stream_pb.js";
import { MeshError } from "../errors.js";
import type { Conversation, PublishWindow } from "./conversation.js";
import type { Outbox } from "./outbox.js";
import type { Payload } from "./spelling.js";
import { publishFrame } from "./spelling.js";

/**
 * The producer of a stream. Its methods wait while too much is unacknowledged, and reject with what the conversation with
 * the stream failed with: FAILED_PRECONDITION when another producer took over or the stream has ended, CANCELLED when this
 * one has left.
 */
export class Publisher implements AsyncDisposable {
  readonly #outbox: Outbox;
  readonly #conversation: Conversation;
  #chunks: bigint;

  constructor(outbox: Outbox, conversation: Conversation) {
    this.#outbox = outbox;
    this.#conversation = conversation;
    // A producer that goes on for another one: the first event was the start of the stream, the rest were chunks.
    this.#chunks = outbox.newest > 0n ? outbox.newest - 1n : 0n;
  }

  get streamId(): string {
    return this.#outbox.streamId;
  }

  /** The producer's id and epoch; with both another publisher can go on for this one. */
  get producerId(): string {
    return this.#conversation.producerId;
  }

  get epoch(): bigint {
    return this.#conversation.epoch;
  }

  /** Sequence of the last event that is known to be stored. */
  get acknowledged(): bigint {
    return this.#outbox.acknowledged;
  }

  /** Sequence of the last event that was given; at first, of the last that the stream had before. */
  get lastSequence(): bigint {
    return this.#outbox.newest;
  }

  /** How much the buffer of the stream takes before its policy acts. */
  get window(): PublishWindow {
    return this.#conversation.window;
  }

  /** Whether the policy of the stream holds the producer until a subscriber has caught up. */
  get isBlocked(): boolean {
    return this.#conversation.isBlocked;
  }

  /** How many of its events the policy of the stream has dropped. */
  get dropped(): number {
    return this.#conversation.dropped;
  }

  /** Begins the stream with what is known about the whole. */
  start(metadata: MessageInitShape<typeof StreamMetadataSchema> = {}): Promise<bigint> {
    return this.#put("stream_start", { metadata: create(StreamMetadataSchema, metadata) });
  }

  /** Sends a chunk and returns the sequence of its event; its acknowledgement is not waited for. */
  send(
    chunk: MessageInitShape<typeof ChunkSchema>,
    metadata?: MessageInitShape<typeof StreamMetadataSchema>,
  ): Promise<bigint> {
    const data = create(ChunkSchema, chunk);
    data.timestamp ??= timestampNow();
    return this.#put("stream_data", { data, ...(metadata && { metadata: create(StreamMetadataSchema, metadata) }) });
  }

  /** Ends the stream, and waits until all of it is stored. */
  async end(reason = "stop"): Promise<bigint> {
    const sequence = await this.#put("stream_end", { metadata: create(StreamMetadataSchema, { reason }) }, StreamState.ENDED);
    await this.flush();
    return sequence;
  }

  /** Ends the stream with an error; otherwise as `end`. */
  async fail(error: MessageInitShape<typeof StatusSchema>): Promise<bigint> {
    const sequence = await this.#put("stream_error", { error: create(StatusSchema, error) }, StreamState.FAILED);
    await this.flush();
    return sequence;
  }

  /** Waits until all that was sent is stored. */
  flush(): Promise<void> {
    return this.#outbox.until(() => this.#outbox.isEmpty);
  }

  /** Leaves without waiting, and ends what others wait for; the stream goes on without a producer, unless it was ended. */
  close(): void {
    this.#conversation.leave();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (!this.#outbox.failure) await this.flush();
    } finally {
      this.close();
    }
  }

  async #put(eventType: string, payload: Payload, end?: StreamState): Promise<bigint> {
    await this.#outbox.room();
    if (this.#conversation.end !== undefined) {
      throw new MeshError(`Stream ${this.streamId} has ended with event ${this.lastSequence}; nothing can follow.`, "FAILED_PRECONDITION", {
        metadata: { stream_id: this.streamId, last_sequence: `${this.lastSequence}` },
      });
    }
    if (payload.data) this.#chunks = payload.data.sequenceNumber ||= this.#chunks + 1n;
    const sequence = this.#outbox.add((sequence) => publishFrame(eventType, sequence, payload));
    this.#conversation.end = end === undefined ? undefined : { state: end, error: payload.error };
    this.#conversation.pump();
    return sequence;
  }
}

/** What an agent is, and one run as it sees it. */

import type { JsonValue } from "@bufbuild/protobuf";
import type { RunContext } from "@mediamesh/contracts/agent/v1/agent_service_pb.js";
import type { Manifest } from "@mediamesh/contracts/agent/v1/manifest_pb.js";
import type { Chunk } from "@mediamesh/contracts/stream/v1/chunk_pb.js";

import type { Inbox } from "./inbox.js";
import type { Opening } from "./opening.js";
import type { ChunkInit, Output, Outputs } from "./outputs.js";
import type { Plain } from "./pins.js";

/** One object serves all runs, any number of them at once. */
export interface Agent {
  readonly manifest: Manifest;
  /** Do the work of one run and return its outputs by pin. A MeshError reaches the caller as it is. */
  process(run: Run): Promise<Record<string, Output> | void>;
}

export class Run {
  /** Single values by pin; media as MediaValue. An optional input that is not connected is absent. */
  readonly inputs: Readonly<Record<string, Plain>>;
  /** Parameters by name, defaults filled in. */
  readonly params: Readonly<Record<string, JsonValue>>;
  readonly #inbox: Inbox;
  readonly #outputs: Outputs;

  constructor(
    readonly context: RunContext | undefined,
    opening: Opening,
    inbox: Inbox,
    outputs: Outputs,
    /** Aborted when the run is cancelled or its deadline passes: hand it on to whatever waits. */
    readonly signal: AbortSignal,
  ) {
    this.inputs = opening.inputs;
    this.params = opening.params;
    this.#inbox = inbox;
    this.#outputs = outputs;
  }

  /** The chunks of a stream input as they come; read all stream inputs side by side. */
  stream(pin: string): AsyncIterable<Chunk> {
    return this.#inbox.stream(pin);
  }

  /** Send the next chunk of a stream output; waits while the caller is slower. */
  async emit(pin: string, chunk: ChunkInit): Promise<void> {
    await this.#outputs.emit(pin, chunk);
  }

  /** Send an output before the run is over. */
  async give(pin: string, output: Output): Promise<void> {
    await this.#outputs.give(pin, output);
  }

  /** Tell how far the run is, 0 to 100. */
  async progress(percent: number, message = ""): Promise<void> {
    await this.#outputs.send({ case: "progress", value: { percent, message } });
  }

  /** Tell what was used since the last time, and its price in US dollars. */
  async cost(item: string, quantity: number, usd = 0): Promise<void> {
    await this.#outputs.send({ case: "cost", value: { item, quantity, usd } });
  }
}

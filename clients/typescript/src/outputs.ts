/** What a run gives, as frames, checked against the agent's manifest. */

import { clone, create, isMessage } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { RunResponseSchema } from "@mediamesh/contracts/agent/v1/agent_service_pb.js";
import type { RunResponse } from "@mediamesh/contracts/agent/v1/agent_service_pb.js";
import type { Manifest } from "@mediamesh/contracts/agent/v1/manifest_pb.js";
import { PinType } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import type { Pin } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import { ChunkSchema } from "@mediamesh/contracts/stream/v1/chunk_pb.js";
import type { Chunk } from "@mediamesh/contracts/stream/v1/chunk_pb.js";

import { MeshError } from "./errors.js";
import { MEDIA_TYPES, faults, toValue, typeName } from "./pins.js";
import type { Plain } from "./pins.js";
import { Queue } from "./queue.js";

/** A chunk to send: its payload, or a text. */
export type ChunkInit = MessageInitShape<typeof ChunkSchema> | string;
/** What an agent gives on an output pin; bytes on a pin for media are stored by the caller. */
export type Output = Plain | AsyncIterable<ChunkInit>;

const FRAMES = 16; // a frame of media has up to a megabyte
const FRAME_BYTES = 1024 * 1024;

export class Outputs {
  readonly frames = new Queue<RunResponse>(FRAMES);
  readonly #pins: ReadonlyMap<string, Pin>;
  readonly #given = new Set<string>();
  readonly #sequences = new Map<string, bigint>();

  constructor(readonly manifest: Manifest) {
    this.#pins = new Map(manifest.outputs.map((pin) => [pin.name, pin]));
  }

  async send(message: MessageInitShape<typeof RunResponseSchema>["message"]): Promise<void> {
    await this.frames.put(create(RunResponseSchema, message === undefined ? {} : { message }));
  }

  async emit(name: string, chunk: ChunkInit): Promise<void> {
    if (this.#pin(name).type !== PinType.STREAM) throw this.#broken(name, "is no stream");
    if (this.#given.has(name)) throw this.#broken(name, "has ended");
    const made = madeOf(chunk);
    made.sequenceNumber = (this.#sequences.get(name) ?? 0n) + 1n;
    this.#sequences.set(name, made.sequenceNumber);
    made.source ||= this.manifest.id;
    made.timestamp ??= timestampNow();
    await this.send({ case: "chunk", value: { pin: name, chunk: made } });
  }

  async give(name: string, output: Output): Promise<void> {
    const pin = this.#pin(name);
    if (this.#given.has(name)) throw this.#broken(name, "was given already");
    if (pin.type === PinType.STREAM) {
      if (!isStream(output)) throw this.#broken(name, "takes an async iterable of chunks");
      for await (const chunk of output) await this.emit(name, chunk);
      await this.#end(name);
      return;
    }
    this.#given.add(name);
    if (MEDIA_TYPES.has(pin.type) && output instanceof Uint8Array) return this.#media(pin, output);
    const value = isStream(output) ? undefined : toValue(pin, output);
    if (value === undefined) throw this.#broken(name, `takes ${typeName(pin.type)}, got ${typeof output}`);
    for (const { text } of faults(pin, value)) throw this.#broken(name, text);
    await this.send({ case: "output", value: { pin: name, value } });
  }

  /** Send what is left, streams side by side; then the end of every stream, and of the run. */
  async finish(outputs: Readonly<Record<string, Output>>): Promise<void> {
    await Promise.all(Object.entries(outputs).map(([name, output]) => this.give(name, output)));
    for (const { name, type, optional } of this.#pins.values()) {
      if (this.#given.has(name)) continue;
      if (type === PinType.STREAM) await this.#end(name);
      else if (!optional) throw this.#broken(name, "is missing");
    }
    await this.send({ case: "finished", value: {} });
    this.frames.end();
  }

  async #end(name: string): Promise<void> {
    this.#given.add(name);
    await this.send({ case: "end", value: { pin: name } });
  }

  async #media(pin: Pin, data: Uint8Array): Promise<void> {
    if (data.length === 0) throw this.#broken(pin.name, "is empty");
    for (let begin = 0; begin < data.length; begin += FRAME_BYTES) {
      const last = begin + FRAME_BYTES >= data.length;
      const type = MEDIA_TYPES.get(pin.type) ?? 0;
      const piece = data.subarray(begin, begin + FRAME_BYTES);
      await this.send({ case: "media", value: { pin: pin.name, type, offset: BigInt(begin), data: piece, last } });
    }
  }

  #pin(name: string): Pin {
    const pin = this.#pins.get(name);
    if (pin === undefined) throw this.#broken(name, `is not in the manifest, which has ${[...this.#pins.keys()]}`);
    return pin;
  }

  #broken(name: string, text: string): MeshError {
    const { id } = this.manifest;
    const metadata = { agent: id, pin: name };
    return new MeshError("AGENT_FAILED", `${id} broke its manifest: output '${name}' ${text}.`, [], metadata);
  }
}

/** A chunk of its own: one that the agent keeps, or got from a stream, may go out again, and elsewhere too. */
function madeOf(chunk: ChunkInit): Chunk {
  if (typeof chunk === "string") return create(ChunkSchema, { payload: { case: "content", value: { text: chunk } } });
  return isMessage(chunk, ChunkSchema) ? clone(ChunkSchema, chunk) : create(ChunkSchema, chunk);
}

function isStream(output: Output): output is AsyncIterable<ChunkInit> {
  return typeof output === "object" && output !== null && Symbol.asyncIterator in output;
}

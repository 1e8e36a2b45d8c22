import type { JsonValue } from "@bufbuild/protobuf";
import type { Value } from "@mediamesh/contracts/agent/v1/value_pb.js";
import type { MediaReference } from "@mediamesh/contracts/media/v1/media_pb.js";
import type { Chunk } from "@mediamesh/contracts/stream/v1/chunk_pb.js";
import {
  blocksIn,
  dataOf,
  jsonOf,
  labelsIn,
  referenceOf,
  resultIn,
  segmentsIn,
  type Block,
  type Combined,
  type Label,
  type Page,
  type Result,
} from "../client/index.js";
import { Frames } from "./frames.js";
import { Speech } from "./speech.js";

type PlacedBlock = Block & { readonly page: number };

/** The longest text that is kept of a stream of text; its end is what is shown. */
const LONGEST_TEXT = 200_000;

/** What reached one of the client's ends of a flow, sorted by what it is. */
export class Shown {
  readonly speech = new Speech();
  readonly frames = new Frames();
  /** Results on one axis of time, as they came. */
  readonly combined: Combined[] = [];
  readonly pages = new Map<number, Page>();
  labels: readonly Label[] = [];
  /** Text that came, or grew, on a stream. */
  text = "";
  /** Stored media. */
  media: MediaReference | undefined;
  /** Everything that is nothing of the above. */
  readonly values: JsonValue[] = [];
  /** How many things came. */
  count = 0;

  /** Takes a value in that came on a pin. */
  takeValue(value: Value | undefined): void {
    this.count += 1;
    const kind = value?.kind;
    switch (kind?.case) {
      case "text":
        return this.#append(kind.value);
      case "number":
      case "boolean":
        return void this.values.push(kind.value);
      case "json":
        return this.#takeJson(jsonOf(value) ?? null);
      case "media":
        this.media = referenceOf(value);
        return;
      default: // bytes and references to streams show nothing by themselves
    }
  }

  /** Takes a chunk in that came on a stream pin. */
  takeChunk(chunk: Chunk | undefined): void {
    this.count += 1;
    const payload = chunk?.payload;
    switch (payload?.case) {
      case "content":
        return this.#append(payload.value.text);
      case "delta":
        return this.#append(payload.value.text);
      case "completeMessage":
        return this.#append(payload.value.text);
      case "snapshot":
      case "final":
        return this.#takeJson(dataOf(chunk) ?? null);
      default: // media, progress and the like are told by the events
    }
  }

  #takeJson(data: JsonValue): void {
    const result = resultIn(data);
    if (result) return this.#takeResult(result);
    const labels = labelsIn(data);
    if (labels.length > 0) return void (this.labels = labels);
    const segments = segmentsIn(data);
    if (segments.length > 0) return segments.forEach((segment) => this.speech.take(segment));
    const blocks = blocksIn(data);
    if (blocks.length > 0) return this.#takeBlocks(blocks);
    if (typeof data === "string") return this.#append(data);
    this.values.push(data);
  }

  // The pages that were streamed know more, such as their size.
  #takeBlocks(blocks: readonly PlacedBlock[]): void {
    const numbers = new Set(blocks.map(({ page }) => page));
    for (const page of numbers) {
      if (this.pages.has(page)) continue;
      const of = blocks.filter((block) => block.page === page);
      this.pages.set(page, { type: "page", page, pages: Math.max(...numbers), width: 0, height: 0, blocks: of });
    }
  }

  #takeResult(result: Result): void {
    switch (result.type) {
      case "transcript":
        return this.speech.take(result);
      case "frame":
        return this.frames.take(result);
      case "image":
        this.labels = result.classification;
        return;
      case "page":
        this.pages.set(result.page, result);
        return;
      default:
        this.combined.push(result);
        this.#takeResult(result.result);
    }
  }

  #append(text: string): void {
    this.text = (this.text + text).slice(-LONGEST_TEXT);
  }
}

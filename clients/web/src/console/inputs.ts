import { PinType, type Pin } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import type { Flow, FlowNode } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { INLINE_LIMIT_BYTES, MeshError, type FlowInputs } from "../client/index.js";
import { bytes } from "./events.js";
import { accepted } from "./fields/accept.js";
import { heading, type Changed, type Field, type Given } from "./fields/field.js";
import { FileField } from "./fields/file_field.js";
import { PlainField } from "./fields/plain_field.js";
import { RecorderField } from "./fields/recorder_field.js";
import { Playback } from "./playback.js";

/** An input that a flow needs of its user. */
export interface Wanted {
  readonly node: FlowNode;
  readonly pin: Pin;
  /** `node.pin`. */
  readonly key: string;
}

const SOURCES = new Set(["ui.file-upload", "ui.audio-recorder"]);

/** Returns the inputs that a flow needs: the pins of its `ui.*` nodes that lead somewhere and are no constants. */
export function wanted(flow: Flow): Wanted[] {
  const used = new Set(flow.edges.map(({ from }) => `${from?.nodeId}.${from?.pin}`));
  return flow.nodes
    .filter(({ type, outputs }) => SOURCES.has(type) && Object.keys(outputs ?? {}).length === 0)
    .flatMap((node) => node.outputPins.map((pin) => ({ node, pin, key: `${node.id}.${pin.name}` })))
    .filter(({ key }) => used.has(key));
}

/** The fields of a flow. */
export class InputsView {
  #fields: Field[] = [];

  constructor(
    readonly host: HTMLElement,
    /** Called when a value changed; `isWhole` when it came at once and not stroke by stroke. */
    readonly changed: Changed,
    readonly failed: (thrown: unknown) => void,
  ) {
    document.addEventListener("paste", ({ clipboardData }) => this.#take(clipboardData?.files));
    this.#acceptDrops();
  }

  get fields(): readonly Field[] {
    return this.#fields;
  }

  /** Whether every value is there. */
  get isReady(): boolean {
    return this.#fields.every(({ isReady }) => isReady);
  }

  /** What the fields hold now, and may not hold any more by the time that results of it come. */
  get given(): Given[] {
    return this.#fields.map(({ key, type, file, player }) => ({ key, type, file, playback: player && new Playback(player) }));
  }

  /** Shows the fields of a flow in place of those before. */
  show(flow: Flow): void {
    this.clear();
    this.#fields = wanted(flow).map((one) => this.#field(one));
    this.host.replaceChildren(...this.#fields.map(({ element }) => element));
    this.host.dataset["count"] = String(this.#fields.length);
  }

  clear(): void {
    for (const field of this.#fields) field.close();
    this.#fields = [];
    this.host.replaceChildren();
    delete this.host.dataset["count"];
  }

  /** Returns what was given, by `node.pin`. */
  async values(): Promise<FlowInputs> {
    const size = this.#fields.reduce((sum, { file }) => sum + (file?.size ?? 0), 0);
    if (size > INLINE_LIMIT_BYTES) {
      const limit = bytes(INLINE_LIMIT_BYTES);
      throw new MeshError(`The files have ${bytes(size)} together; a run takes ${limit} at most.`, "MEDIA_TOO_LARGE");
    }
    const pairs = this.#fields.map(async (field) => [field.key, await field.value()] as const);
    return Object.fromEntries(await Promise.all(pairs));
  }

  #field({ node, pin, key }: Wanted): Field {
    const title = heading(node.id);
    const acceptance = accepted(pin);
    if (!acceptance) return new PlainField(key, title, pin, this.changed);
    if (node.type === "ui.audio-recorder" || pin.type === PinType.AUDIO) {
      return new RecorderField(key, title, acceptance, this.changed, this.failed);
    }
    return new FileField(key, title, acceptance, this.changed);
  }

  // The whole window takes drops: a browser left alone would leave the page for the file that missed.
  #acceptDrops(): void {
    let within = 0;
    const mark = (change: number) => {
      within = Math.max(0, within + change);
      this.host.toggleAttribute("data-drop", within > 0);
    };
    window.addEventListener("dragenter", () => mark(1));
    window.addEventListener("dragleave", () => mark(-1));
    window.addEventListener("dragover", (event) => event.preventDefault());
    window.addEventListener("drop", (event) => {
      event.preventDefault();
      mark(-within);
      this.#take(event.dataTransfer?.files, event.target);
    });
  }

  /** Gives files to the field on which they were dropped, else each to the first that it fits and that has none yet. */
  #take(files: FileList | null | undefined, target?: EventTarget | null): void {
    for (const file of files ?? []) {
      const onto = target instanceof Node ? this.#fields.find(({ element }) => element.contains(target)) : undefined;
      const fitting = this.#fields.filter((field) => field.fits(file.type));
      (onto ?? fitting.find(({ isReady }) => !isReady) ?? fitting[0] ?? this.#fields[0])?.give(file);
    }
  }
}

import type { MediaStore } from "../../client/index.js";
import { html } from "../element.js";
import { heading } from "../fields/field.js";
import type { Playback } from "../playback.js";
import type { Shown } from "../shown.js";
import { CombinedView } from "./combined.js";
import { LabelsView } from "./labels.js";
import { PagesView } from "./pages.js";
import { StageView } from "./stage.js";
import { StoredView } from "./stored.js";
import { TextView, ValuesView } from "./text.js";
import { TranscriptView } from "./transcript.js";

/** What one end of the flow needs of its surroundings. */
export interface SinkInit {
  readonly store: MediaStore;
  /** The video whose frames its results are about, where this page has it. */
  readonly video: File | undefined;
  /** What plays the sound that its transcript is about. */
  readonly playback: Playback | undefined;
}

interface Part {
  readonly name: string;
  readonly element: HTMLElement;
  update(shown: Shown, isLive: boolean): void;
  close?(): void;
}

type Kind = readonly [name: string, has: (shown: Shown) => boolean, make: (init: SinkInit) => Part];

const KINDS: readonly Kind[] = [
  ["stage", ({ frames }) => frames.end >= 0, ({ video }) => stage(video)],
  ["labels", ({ labels }) => labels.length > 0, () => part("labels", new LabelsView(), (view, { labels }) => view.update(labels))],
  ["speech", ({ speech }) => !speech.isEmpty, ({ playback }) => speech(playback)],
  ["text", ({ text }) => text !== "", () => part("text", new TextView(), (view, { text }) => view.update(text))],
  ["pages", ({ pages }) => pages.size > 0, () => part("pages", new PagesView(), (view, { pages }) => view.update(pages))],
  ["stored", ({ media }) => media !== undefined, ({ store }) => part("stored", new StoredView(store), (view, { media }) => view.update(media))],
  ["combined", ({ combined }) => combined.length > 0, () => part("combined", new CombinedView(), (view, { combined }) => view.update(combined))],
  ["values", ({ values }) => values.length > 0, () => part("values", new ValuesView(), (view, { values }) => view.update(values))],
];

/** What reached one of the client's ends of a flow: a view for each kind of result that came. */
export class SinkView {
  readonly element: HTMLElement;
  readonly #parts = new Map<string, Part>();

  constructor(
    nodeId: string,
    readonly init: SinkInit,
  ) {
    const title = html("h3", { class: "end" }, heading(nodeId));
    this.element = html("section", { class: "sink", "data-sink": nodeId, "aria-label": heading(nodeId) }, title);
  }

  /** Shows what there is by now. */
  update(shown: Shown, isLive: boolean): void {
    for (const [name, has, make] of KINDS) {
      if (!this.#parts.has(name) && has(shown)) this.#add(name, make(this.init));
      this.#parts.get(name)?.update(shown, isLive);
    }
  }

  close(): void {
    for (const { close } of this.#parts.values()) close?.();
  }

  // Parts stand in the order of `KINDS`, whichever came first. Those that are there are not moved: a video would stop.
  #add(name: string, made: Part): void {
    made.element.dataset["part"] = name;
    this.#parts.set(name, made);
    const later = KINDS.slice(KINDS.findIndex(([kind]) => kind === name) + 1);
    const next = later.flatMap(([kind]) => this.#parts.get(kind)?.element ?? [])[0];
    this.element.insertBefore(made.element, next ?? null);
    this.element.dataset["shows"] = [...this.#parts.keys()].join(" ");
  }
}

function part<View extends { readonly element: HTMLElement; close?(): void }>(
  name: string,
  view: View,
  update: (view: View, shown: Shown) => void,
): Part {
  return { name, element: view.element, update: (shown) => update(view, shown), close: () => view.close?.() };
}

function stage(video: File | undefined): Part {
  const view = new StageView(video);
  return {
    name: "stage",
    element: view.element,
    update: ({ frames, speech: said }, isLive) => view.update(frames, said, isLive),
    close: () => view.close(),
  };
}

function speech(playback: Playback | undefined): Part {
  const view = new TranscriptView(playback);
  const element = html("section", { class: "part" }, html("h3", {}, "Transcript"), view.element, view.announcer);
  return { name: "speech", element, update: (shown) => view.update(shown.speech), close: () => view.close() };
}

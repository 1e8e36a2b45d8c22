import type { Transcript } from "../../client/index.js";
import { html } from "../element.js";
import type { Playback } from "../playback.js";
import type { Speech } from "../speech.js";
import { clock } from "../time.js";

interface Row {
  readonly element: HTMLLIElement;
  readonly text: HTMLElement;
  segment: Transcript;
}

/** What was said, line by line; a line that goes on is replaced until it is final, and words light up as they are played. */
export class TranscriptView {
  // Lines that are not final change many times a second: only final ones are read out.
  readonly element = html("ol", { class: "speech", "aria-label": "Transcript" });
  readonly #rows = new Map<number, Row>();
  readonly #said = html("p", { class: "aside", "aria-live": "polite" });
  readonly #left = new AbortController();

  /** @param playback What plays the sound, for the lines to be found in. */
  constructor(readonly playback: Playback | undefined) {
    playback?.follow((seconds) => this.#mark(seconds), this.#left.signal);
  }

  /** Returns the element that reads final lines out. */
  get announcer(): HTMLElement {
    return this.#said;
  }

  update(speech: Speech): void {
    for (const [place, segment] of speech.segments.entries()) {
      const row = this.#rows.get(segment.segment) ?? this.#add(segment);
      if (this.element.children[place] !== row.element) this.element.insertBefore(row.element, this.element.children[place] ?? null);
      if (row.segment !== segment || !row.text.hasChildNodes()) this.#fill(row, segment);
    }
  }

  close(): void {
    this.#left.abort();
  }

  #add(segment: Transcript): Row {
    const text = html("p", {});
    const time = html("button", { type: "button", class: "time" });
    const row: Row = { element: html("li", {}, time, text), text, segment };
    time.addEventListener("click", () => this.playback?.play(row.segment.start));
    this.#rows.set(segment.segment, row);
    return row;
  }

  #fill(row: Row, segment: Transcript): void {
    row.segment = segment;
    row.element.dataset["final"] = String(segment.final);
    const time = row.element.querySelector("button");
    if (time) {
      time.textContent = clock(segment.start);
      time.disabled = !this.playback;
      time.title = this.playback ? "Play from here" : "";
    }
    row.text.replaceChildren(...(segment.words.length > 0 ? worded(segment) : [segment.text]));
    if (segment.final) this.#said.textContent = segment.text;
  }

  #mark(seconds: number | undefined): void {
    for (const word of this.element.querySelectorAll<HTMLElement>("[data-start]")) {
      const { start, end } = word.dataset;
      word.toggleAttribute("data-now", seconds !== undefined && Number(start) <= seconds && seconds < Number(end));
    }
  }
}

function worded({ words }: Transcript): (Node | string)[] {
  return words.flatMap(({ text, start, end, probability }) => [
    html(
      "span",
      {
        "data-start": String(start),
        "data-end": String(end),
        "data-sure": probability < 0.5 ? "no" : undefined,
        title: `${clock(start, 2)}, ${Math.round(probability * 100)}% sure`,
      },
      text.trim(),
    ),
    " ",
  ]);
}

import { html } from "../element.js";
import type { Frames } from "../frames.js";
import { hue } from "./overlay.js";

const MOST = 5;
// Each painting looks at every frame of what may be a long video.
const PAUSE_MS = 250;

interface Lane {
  readonly element: HTMLLIElement;
  readonly count: HTMLElement;
  readonly strip: HTMLCanvasElement;
}

/** When each of the most frequent things is seen in a video, as strips along its time; a click goes there. */
export class LanesView {
  readonly element = html("ol", { class: "lanes", "aria-label": "When things are seen" });
  readonly #lanes = new Map<string, Lane>();
  #painted = -1;
  #length = 0;
  #paintedAt = 0;

  /** @param seek Goes to a time, in seconds. */
  constructor(readonly seek: (seconds: number) => void) {
    new ResizeObserver(() => (this.#painted = -1)).observe(this.element);
  }

  /** Shows what there is by now, of a video of so many seconds. */
  update(frames: Frames, length: number, isLive: boolean): void {
    if (frames.all.length === this.#painted && length === this.#length) return;
    if (isLive && performance.now() - this.#paintedAt < PAUSE_MS) return;
    this.#painted = frames.all.length;
    this.#length = length;
    this.#paintedAt = performance.now();
    const most = frames.labels.slice(0, MOST);
    for (const [label, lane] of this.#lanes) if (!most.some(([name]) => name === label)) lane.element.remove();
    for (const [place, [label, count]] of most.entries()) {
      const lane = this.#lane(label);
      if (this.element.children[place] !== lane.element) this.element.insertBefore(lane.element, this.element.children[place] ?? null);
      lane.count.textContent = `${count}`;
      lane.count.title = `on ${count} frames`;
      paint(lane.strip, frames, label, length);
    }
  }

  #lane(label: string): Lane {
    const known = this.#lanes.get(label);
    if (known) return known;
    const strip = html("canvas", { "aria-hidden": "true" });
    const count = html("small", {});
    const lane = { element: html("li", {}, html("span", { title: label }, label), strip, count), strip, count };
    strip.addEventListener("click", ({ offsetX }) => this.seek((offsetX / Math.max(1, strip.clientWidth)) * this.#length));
    this.#lanes.set(label, lane);
    return lane;
  }
}

function paint(strip: HTMLCanvasElement, { all }: Frames, label: string, length: number): void {
  const width = (strip.width = Math.round(strip.clientWidth * devicePixelRatio));
  const height = (strip.height = Math.round(strip.clientHeight * devicePixelRatio));
  const context = strip.getContext("2d");
  if (!context || length <= 0) return;
  context.fillStyle = `hsl(${hue(label)} 75% 58%)`;
  for (const [index, { time, objects }] of all.entries()) {
    if (!objects.some((object) => object.label === label)) continue;
    const next = all[index + 1]?.time ?? time + length / Math.max(1, all.length);
    context.fillRect((time / length) * width, 0, Math.max(1, (Math.min(next - time, 0.5) / length) * width), height);
  }
}

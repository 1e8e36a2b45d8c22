import type { Detected, Frame } from "../client/index.js";

// A result is shown this long after its frame where none follows: half a second, or twice the usual gap between results.
const LEAST_HOLD = 0.5;

/** What was found on the frames of a video, by their time. */
export class Frames {
  readonly all: Frame[] = [];
  /** Frames left out, as the analysis was behind. */
  dropped = 0;
  readonly #labels = new Map<string, number>();

  /** Takes the next result in; results come in the order of their time, or nearly so. */
  take(frame: Frame): void {
    this.dropped += frame.dropped;
    for (const label of new Set(frame.objects.map((object) => object.label))) {
      this.#labels.set(label, (this.#labels.get(label) ?? 0) + 1);
    }
    const last = this.all.at(-1);
    if (!last || last.time <= frame.time) this.all.push(frame);
    else this.all.splice(this.#after(frame.time), 0, frame);
  }

  /** The time of the newest result in seconds; -1 while there is none. */
  get end(): number {
    return this.all.at(-1)?.time ?? -1;
  }

  /** Returns the result that holds at a time: the last one up to it, unless that is long past. */
  at(seconds: number): Frame | undefined {
    const frame = this.all[this.#after(seconds + 1e-3) - 1];
    return frame && seconds - frame.time <= this.#hold() ? frame : undefined;
  }

  /** Labels with the number of frames on which they were found, most frequent first. */
  get labels(): [label: string, frames: number][] {
    return [...this.#labels].toSorted(([, one], [, other]) => other - one);
  }

  #hold(): number {
    const first = this.all[0]?.time ?? 0;
    const gap = this.all.length > 1 ? (this.end - first) / (this.all.length - 1) : 0;
    return Math.max(LEAST_HOLD, 2 * gap);
  }

  /** Returns how many results are not after a time. */
  #after(seconds: number): number {
    let low = 0;
    let high = this.all.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.all[middle]?.time ?? 0) <= seconds) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Returns what was found in a few words: `2 person, bicycle`; empty for nothing. */
export function counted(objects: readonly Detected[]): string {
  const counts = new Map<string, number>();
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts].map(([label, count]) => (count > 1 ? `${count} × ${label}` : label)).join(", ");
}

/** Returns what a frame shows in a few words. */
export function described(frame: Frame): string {
  const label = frame.labels[0];
  const parts = [
    frame.activity?.label ?? "",
    label ? `${label.label.split(", ")[0]} ${Math.round(label.probability * 100)}%` : "",
    counted(frame.objects),
  ];
  return parts.filter(Boolean).join(" · ") || "nothing found";
}

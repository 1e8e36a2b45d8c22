import type { Transcript } from "../client/index.js";

/** Speech as text, segment by segment; what is not final yet is replaced as it goes on. */
export class Speech {
  readonly #segments = new Map<number, Transcript>();

  /** Takes a segment in, in place of an earlier state of the same; a final one stays. */
  take(segment: Transcript): void {
    const before = this.#segments.get(segment.segment);
    if (before?.final && !segment.final) return;
    this.#segments.set(segment.segment, segment);
  }

  /** The segments in the order of their time. */
  get segments(): Transcript[] {
    return [...this.#segments.values()].toSorted((one, other) => one.start - other.start || one.segment - other.segment);
  }

  get isEmpty(): boolean {
    return this.#segments.size === 0;
  }

  /** Everything that was said so far. */
  get text(): string {
    return this.segments.map(({ text }) => text.trim()).join(" ");
  }

  /** Returns the segment that is spoken at a time; undefined in a silence. */
  at(seconds: number): Transcript | undefined {
    return this.segments.findLast(({ start, end }) => start <= seconds && seconds <= end + 0.3);
  }
}

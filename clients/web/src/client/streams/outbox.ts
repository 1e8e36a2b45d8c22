import { MeshError } from "../errors.js";

/** An event as it is sent. */
export type Frame = string | Uint8Array<ArrayBuffer>;

/** The events that a producer has sent and of which it does not know yet that they are stored. */
export class Outbox {
  /** Sequence of the last event that is stored. */
  acknowledged = 0n;
  /** Sequence of the last event that was put in. */
  newest = 0n;
  readonly #frames = new Map<bigint, Frame>();
  readonly #waiting = new Set<() => void>();
  #size = 0;
  #failure: MeshError | undefined;

  /**
   * @param maxItems Most events kept; the next waits.
   * @param maxBytes Most bytes kept, likewise; one event always fits.
   */
  constructor(
    readonly streamId: string,
    readonly maxItems: number,
    readonly maxBytes: number,
  ) {}

  get isEmpty(): boolean {
    return this.#frames.size === 0;
  }

  get failure(): MeshError | undefined {
    return this.#failure;
  }

  /** Goes on after the events that a stream has already. */
  begin(sequence: bigint): void {
    this.acknowledged = this.newest = sequence;
    this.#changed();
  }

  /** Waits until another event may be added; rejects with what the conversation with the stream failed with. */
  room(): Promise<void> {
    return this.until(() => this.isEmpty || (this.#frames.size < this.maxItems && this.#size < this.maxBytes));
  }

  /** Numbers an event and keeps it. */
  add(spell: (sequence: bigint) => Frame): bigint {
    const sequence = this.newest + 1n;
    const frame = spell(sequence);
    this.newest = sequence;
    this.#frames.set(sequence, frame);
    this.#size += frame.length;
    return sequence;
  }

  /** Returns an event as it is sent; undefined when there is none of this sequence, or no more. */
  frame(sequence: bigint): Frame | undefined {
    return this.#frames.get(sequence);
  }

  /** Forgets the events up to a sequence: they are stored. */
  settle(sequence: bigint): void {
    while (this.acknowledged < sequence && this.acknowledged < this.newest) {
      this.acknowledged += 1n;
      this.#size -= this.#frames.get(this.acknowledged)?.length ?? 0;
      this.#frames.delete(this.acknowledged);
    }
    this.#changed();
  }

  /**
   * Forgets what a stream has stored although its acknowledgement did not arrive.
   *
   * @throws MeshError when the stream has lost events that it had acknowledged.
   */
  reopen(sequence: bigint): void {
    if (sequence < this.acknowledged) {
      const sentence = `Stream ${this.streamId} has acknowledged event ${this.acknowledged} and now ends at ${sequence}.`;
      throw new MeshError(sentence, "OUT_OF_RANGE", { metadata: { stream_id: this.streamId, last_sequence: `${sequence}` } });
    }
    this.settle(sequence);
  }

  /** Lets everybody who waits, and who comes, have this error. */
  fail(error: MeshError): void {
    this.#failure ??= error;
    this.#changed();
  }

  /** Waits until something holds, asked after every acknowledgement; rejects as `room` does. */
  async until(holds: () => boolean): Promise<void> {
    for (;;) {
      if (this.#failure) throw this.#failure;
      if (holds()) return;
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  #changed(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

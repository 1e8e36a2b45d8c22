/** A bounded queue between two tasks: whoever is faster waits. */
export class Queue<T> implements AsyncIterable<T> {
  readonly #held: T[] = [];
  #ended = false;
  #failure: unknown = undefined;
  #wake: (() => void)[] = [];
  #last: Promise<void> = Promise.resolve();

  constructor(readonly capacity: number) {}

  /** Whether nothing can be written any more. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Write, after waiting for room; throws what the queue was failed with. */
  put(item: T): Promise<void> {
    // One writer after the other: a newcomer must not overtake who waits for room.
    const put = this.#last.then(() => this.#put(item));
    this.#last = put.catch(() => undefined);
    return put;
  }

  /** End the queue; its reader gets what is held, and then the end. */
  end(): void {
    this.#ended = true;
    this.#changed();
  }

  /** End the queue; reader and writers get the failure at once. */
  fail(failure: unknown): void {
    if (this.#ended && this.#failure === undefined && this.#held.length === 0) return;
    this.#failure ??= failure;
    this.#held.length = 0;
    this.end();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const item = this.#held.shift();
      if (item !== undefined) {
        this.#changed();
        yield item;
      } else if (this.#failure !== undefined) {
        throw this.#failure;
      } else if (this.#ended) {
        return;
      } else {
        await this.#change();
      }
    }
  }

  async #put(item: T): Promise<void> {
    while (this.#held.length >= this.capacity && !this.#ended) await this.#change();
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#ended) return;
    this.#held.push(item);
    this.#changed();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }

  #changed(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const wake of waiting) wake();
  }
}

// While something runs, so often at least: times that count on.
const TICK_MS = 200;
// In a tab that is not seen there are no frames.
const UNSEEN_MS = 500;

/** Paints once a frame at most, however often it is asked. */
export class Painter {
  #asked = false;
  #ticking: ReturnType<typeof setInterval> | undefined;

  constructor(readonly paint: () => void) {}

  /** Paints soon. */
  ask(): void {
    if (this.#asked) return;
    this.#asked = true;
    const now = () => {
      this.#asked = false;
      this.paint();
    };
    if (document.visibilityState === "visible") requestAnimationFrame(now);
    else setTimeout(now, UNSEEN_MS);
  }

  /** Begins, or ends, to paint again and again. */
  tick(isOn: boolean): void {
    clearInterval(this.#ticking);
    this.#ticking = isOn ? setInterval(() => this.ask(), TICK_MS) : undefined;
  }
}

import { html } from "../element.js";

const BARS = 48;

/** Shows how loud a recording is and was a moment ago, as bars that move to the left. */
export class LevelMeter {
  readonly element = html("canvas", {
    class: "level",
    role: "meter",
    "aria-label": "Loudness",
    "aria-valuemin": "0",
    "aria-valuemax": "100",
    "aria-valuenow": "0",
  });
  #levels: number[] = [];

  clear(): void {
    this.#levels = Array.from({ length: BARS }, () => 0);
  }

  /** Shows the next level, from 0 to 1. */
  push(level: number): void {
    this.#levels = [...this.#levels, level].slice(-BARS);
    this.element.setAttribute("aria-valuenow", String(Math.round(level * 100)));
    this.#draw();
  }

  #draw(): void {
    const { element } = this;
    const width = (element.width = Math.round(element.clientWidth * devicePixelRatio));
    const height = (element.height = Math.round(element.clientHeight * devicePixelRatio));
    const context = element.getContext("2d");
    if (!context) return;
    const step = width / BARS;
    context.fillStyle = getComputedStyle(element).color;
    for (const [index, level] of this.#levels.entries()) {
      const tall = Math.max(step * 0.5, level * height);
      context.beginPath();
      context.roundRect(index * step + step * 0.2, (height - tall) / 2, step * 0.6, tall, step * 0.3);
      context.fill();
    }
  }
}

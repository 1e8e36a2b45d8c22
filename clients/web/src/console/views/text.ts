import type { JsonValue } from "@bufbuild/protobuf";
import { html } from "../element.js";

const LONGEST_JSON = 20_000;

/** Text that grows, as language models write it. */
export class TextView {
  readonly element = html("p", { class: "text", "aria-live": "polite" });
  #text = "";

  update(text: string): void {
    if (text === this.#text) return;
    if (text.startsWith(this.#text)) this.element.append(text.slice(this.#text.length));
    else this.element.textContent = text;
    this.#text = text;
  }
}

/** Values that nothing else shows, as JSON. */
export class ValuesView {
  readonly element = html("div", { class: "values" });
  #shown = 0;

  update(values: readonly JsonValue[]): void {
    // Streams of values may be long: the newest are enough.
    for (const value of values.slice(Math.max(this.#shown, values.length - 50))) {
      const text = JSON.stringify(value, null, 2);
      this.element.append(html("pre", { tabindex: "0" }, text.length > LONGEST_JSON ? `${text.slice(0, LONGEST_JSON)}…` : text));
    }
    this.#shown = values.length;
    while (this.element.childElementCount > 50) this.element.firstElementChild?.remove();
  }
}

import type { Label } from "../../client/index.js";
import { html } from "../element.js";

const PERCENT = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** Labels as bars, most likely first. */
export class LabelsView {
  readonly element = html("ol", { class: "labels", "aria-label": "Labels" });
  #shown: readonly Label[] = [];

  update(labels: readonly Label[]): void {
    if (labels === this.#shown) return;
    this.#shown = labels;
    this.element.replaceChildren(...labels.map(row));
    // A bar grows from nothing once it is on the page; its width is set from here, as the page allows no inline styles.
    requestAnimationFrame(() => {
      for (const [index, bar] of this.element.querySelectorAll<HTMLElement>(".bar > i").entries()) {
        bar.style.width = `${Math.max(0.4, Math.min(1, labels[index]?.probability ?? 0) * 100)}%`;
      }
    });
  }
}

function row({ label, probability }: Label): HTMLLIElement {
  const [name = label, ...synonyms] = label.split(", ");
  return html(
    "li",
    {},
    html(
      "span",
      { class: "label", title: label },
      name,
      ...(synonyms.length > 0 ? [html("small", {}, synonyms.join(", "))] : []),
    ),
    html("span", { class: "percent" }, percent(probability)),
    html("span", { class: "bar", "aria-hidden": "true" }, html("i")),
  );
}

/** Returns a probability for people. */
export function percent(probability: number): string {
  return PERCENT.format(probability);
}

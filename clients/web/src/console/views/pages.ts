import type { Page } from "../../client/index.js";
import { html, svg } from "../element.js";

/** The text of a document, page by page, beside where it stands on the page. */
export class PagesView {
  readonly element = html("div", { class: "pages" });
  readonly #shown = new Map<number, Page>();

  update(pages: ReadonlyMap<number, Page>): void {
    const numbers = [...pages.keys()].toSorted((one, other) => one - other);
    for (const [place, number] of numbers.entries()) {
      const page = pages.get(number);
      if (!page || this.#shown.get(number) === page) continue;
      if (this.#shown.has(number)) this.element.children[place]?.replaceWith(drawn(page));
      else this.element.insertBefore(drawn(page), this.element.children[place] ?? null);
      this.#shown.set(number, page);
    }
  }
}

function drawn(page: Page): HTMLElement {
  const map = page.width > 0 && page.height > 0 ? [sketch(page)] : [];
  const lines = page.blocks.map(({ text, score }) =>
    html("p", { "data-sure": score < 0.5 ? "no" : undefined, title: `${Math.round(score * 100)}% sure` }, text),
  );
  const empty = lines.length === 0 ? [html("p", { class: "soft" }, "No text on this page.")] : [];
  return html(
    "article",
    { class: "page" },
    html("h3", {}, page.pages > 1 ? `Page ${page.page} of ${page.pages}` : `Page ${page.page}`),
    ...map,
    html("div", { class: "lines" }, ...lines, ...empty),
  );
}

function sketch({ width, height, blocks }: Page): SVGSVGElement {
  const outlines = blocks.map(({ box, text }) =>
    svg("polygon", { points: box.map((corner) => corner.join(",")).join(" ") }, svg("title", {}, text)),
  );
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "sketch", "aria-hidden": "true" }, ...outlines);
}

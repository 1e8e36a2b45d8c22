import type { Combined } from "../../client/index.js";
import { html } from "../element.js";
import { described } from "../frames.js";
import { clock } from "../time.js";

const LONGEST = 400;

/** Results of several media in the order of their time; what a video shows for a while is one line. */
export class CombinedView {
  readonly #list = html("ol", { class: "combined", role: "log", tabindex: "0", "aria-label": "Combined stream", "aria-live": "off" });
  readonly element = html("section", { class: "part" }, html("h3", {}, "Combined by time"), this.#list);
  #shown = 0;
  #last: { readonly key: string; readonly element: HTMLLIElement; count: number; readonly from: number } | undefined;

  update(combined: readonly Combined[]): void {
    if (combined.length === this.#shown) return;
    const list = this.#list;
    const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 8;
    for (const entry of combined.slice(this.#shown)) this.#add(entry);
    this.#shown = combined.length;
    while (list.childElementCount > LONGEST) list.firstElementChild?.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  #add(entry: Combined): void {
    const text = textOf(entry);
    const key = entry.source === "video" && !entry.late ? text : "";
    const last = this.#last;
    if (last && key && last.key === key) {
      last.count += 1;
      fill(last.element, `${clock(last.from)} – ${clock(entry.time)}`, text, `${last.count} frames`);
      return;
    }
    const element = html(
      "li",
      { "data-source": entry.source, "data-late": entry.late ? "" : undefined },
      html("time", {}),
      html("span", { class: "chip" }, entry.source),
      html("span", { class: "what" }),
      html("small", {}),
    );
    fill(element, clock(entry.time), text, entry.late ? "late" : "");
    this.#list.append(element);
    this.#last = key ? { key, element, count: 1, from: entry.time } : undefined;
  }
}

function fill(row: HTMLElement, time: string, what: string, note: string): void {
  const [at, , words, small] = row.children;
  if (at) at.textContent = time;
  if (words) words.textContent = what;
  if (small) small.textContent = note;
}

/** Returns what a result says in a few words. */
export function textOf({ result }: Combined): string {
  switch (result.type) {
    case "transcript":
      return `“${result.text.trim()}”${result.final ? "" : " …"}`;
    case "frame":
      return described(result);
    default:
      return result.classification
        .slice(0, 3)
        .map(({ label, probability }) => `${label.split(", ")[0]} ${Math.round(probability * 100)}%`)
        .join(", ");
  }
}

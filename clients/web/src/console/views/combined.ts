import type { Combined, Frame } from "../../client/index.js";
import { html } from "../element.js";
import { clock } from "../time.js";

const LONGEST = 400;

/** What a video showed within a second. */
interface Stretch {
  readonly row: HTMLLIElement;
  readonly second: number;
  readonly late: boolean;
  readonly from: number;
  readonly most: Map<string, number>;
  frames: number;
}

/** Results of several media in the order of their time; frames of the same second share a line. */
export class CombinedView {
  readonly #list = html("ol", { class: "combined", tabindex: "0", "aria-label": "Combined stream" });
  readonly element = html("section", { class: "part" }, html("h3", {}, "Combined by time"), this.#list);
  #shown = 0;
  #stretch: Stretch | undefined;

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
    const { result, late, time } = entry;
    if (result.type === "frame") return this.#extend(result, time, late);
    this.#stretch = undefined;
    fill(this.#row(entry), clock(time), textOf(entry), late ? "late" : "");
  }

  #extend(frame: Frame, time: number, late: boolean): void {
    const second = Math.floor(time);
    if (this.#stretch?.second !== second || this.#stretch.late !== late) {
      this.#stretch = { row: this.#row({ source: "video", late }), second, late, from: time, most: new Map(), frames: 0 };
    }
    const stretch = this.#stretch;
    stretch.frames += 1;
    for (const [name, count] of told(frame)) stretch.most.set(name, Math.max(count, stretch.most.get(name) ?? 0));
    const { row, from, frames } = stretch;
    const span = frames > 1 ? `${clock(from)} – ${clock(time)}` : clock(time);
    const notes = [frames > 1 ? `${frames} frames` : "", late ? "late" : ""];
    fill(row, span, worded(stretch.most), notes.filter(Boolean).join(", "));
  }

  #row({ source, late }: Pick<Combined, "source" | "late">): HTMLLIElement {
    const row = html(
      "li",
      { "data-source": source, "data-late": late ? "" : undefined },
      html("time", {}),
      html("span", { class: "chip" }, source),
      html("span", { class: "what" }),
      html("small", {}),
    );
    this.#list.append(row);
    return row;
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
      return worded(told(result));
    default:
      return result.classification
        .slice(0, 3)
        .map(({ label, probability }) => `${label.split(", ")[0]} ${Math.round(probability * 100)}%`)
        .join(", ");
  }
}

/** Returns what a frame shows, each with how often. */
function told({ objects, labels, activity }: Frame): Map<string, number> {
  const [scene] = labels;
  const counts = new Map<string, number>();
  for (const name of [activity?.label, scene?.label.split(", ")[0]]) if (name) counts.set(name, 1);
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  return counts;
}

function worded(counts: ReadonlyMap<string, number>): string {
  const words = [...counts].map(([name, count]) => (count > 1 ? `${count} × ${name}` : name));
  return words.join(", ") || "nothing found";
}

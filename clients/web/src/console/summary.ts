import type { Run } from "./run.js";
import type { Shown } from "./shown.js";
import { percent } from "./views/labels.js";

/** Returns what a run gave in a sentence: `Done: Egyptian cat, 61.4%; 3 lines of speech; 250 frames.` */
export function summary(run: Run): string {
  const parts = [...run.shown.values()].flatMap(told);
  return parts.length > 0 ? `Done: ${parts.join("; ")}.` : "Done.";
}

function told({ labels, speech, frames, pages }: Shown): string[] {
  const [best] = labels;
  const lines = speech.segments.length;
  return [
    best ? `${best.label.split(", ")[0]}, ${percent(best.probability)}` : "",
    lines > 0 ? counted(lines, "line", "of speech") : "",
    frames.all.length > 0 ? counted(frames.all.length, "frame", "analysed") : "",
    pages.size > 0 ? counted(pages.size, "page", "read") : "",
  ].filter(Boolean);
}

function counted(count: number, what: string, of: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"} ${of}`;
}

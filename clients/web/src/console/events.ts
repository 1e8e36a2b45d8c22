import type { JsonValue } from "@bufbuild/protobuf";
import { timestampDate, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Value } from "@mediamesh/contracts/agent/v1/value_pb.js";
import { ExecutionState, type ExecutionEvent } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import { jsonOf, labelsIn } from "../client/index.js";
import { html } from "./element.js";
import { duration } from "./run.js";
import { percent } from "./views/labels.js";

const LONGEST = 500;

/** The events of a run as they come, newest last. */
export class EventsView {
  #first: number | undefined;
  // One line for all chunks of a pin, and one for all progress of a node: a line for each would drown the rest.
  readonly #lines = new Map<string, { readonly what: HTMLElement; count: number }>();

  constructor(readonly host: HTMLElement) {}

  clear(): void {
    this.#first = undefined;
    this.#lines.clear();
    this.host.replaceChildren();
  }

  add(event: ExecutionEvent): void {
    const said = sentence(event);
    if (!said) return;
    const at = event.time ? timestampMs(event.time) : Date.now();
    this.#first ??= at;
    if (this.#joins(event, said)) return;
    const what = html("span", { class: "what" }, said);
    const atEnd = this.host.scrollTop + this.host.clientHeight >= this.host.scrollHeight - 8;
    this.host.append(
      html(
        "li",
        { "data-kind": event.event.case },
        html(
          "time",
          {
            datetime: event.time && timestampDate(event.time).toISOString(),
            title: event.time && timestampDate(event.time).toLocaleTimeString(),
          },
          `+${((at - this.#first) / 1000).toFixed(3)} s`,
        ),
        html("span", { class: "who" }, event.nodeId || "run"),
        what,
      ),
    );
    const line = lineOf(event);
    if (line) this.#lines.set(line, { what, count: 1 });
    while (this.host.childElementCount > LONGEST) this.host.firstElementChild?.remove();
    if (atEnd) this.host.scrollTop = this.host.scrollHeight;
  }

  /** Tells of a chunk, or of progress, in the line of those before it; returns whether there is one. */
  #joins(event: ExecutionEvent, said: string): boolean {
    const line = this.#lines.get(lineOf(event));
    if (!line?.what.isConnected) return false;
    line.count += 1;
    line.what.textContent = event.event.case === "nodeChunk" ? `gives ${event.event.value.pin}: ${line.count} chunks` : said;
    return true;
  }
}

/** Returns what events have in common that share a line; empty for one that has its own. */
function lineOf({ nodeId, event }: ExecutionEvent): string {
  if (event.case === "nodeChunk") return `${nodeId}.${event.value.pin}`;
  return event.case === "nodeProgress" ? `${nodeId}%` : "";
}

/** Returns what an event tells people; empty for those that tell them nothing. */
export function sentence({ event }: ExecutionEvent): string {
  switch (event.case) {
    case "executionStarted":
      return `accepted, ${event.value.flow?.nodes.length ?? 0} nodes`;
    case "nodeStarted":
      return `started${event.value.attempt > 1 ? `, try ${event.value.attempt}` : ""}`;
    case "nodeProgress":
      return `${Math.round(event.value.percent)}%${event.value.message && `, ${event.value.message}`}`;
    case "nodeOutput":
      return `gives ${event.value.pin}: ${summary(event.value.value)}`;
    case "nodeChunk":
      return `gives ${event.value.pin}: a chunk`;
    case "nodeRetry":
      return `try ${event.value.attempt} failed, another follows: ${event.value.error?.message ?? "no cause is given"}`;
    case "executionTakenOver":
      return "taken over by another orchestrator";
    case "nodeFinished":
      return ["succeeded", duration(event.value.duration)].filter(Boolean).join(" in ") + (event.value.cached ? ", from the cache" : "");
    case "nodeFailed":
      return `failed: ${event.value.error?.message ?? "no cause is given"}`;
    case "nodeSkipped":
      return `skipped, as ${event.value.causeNodeId} ${event.value.byCondition ? "has it" : "failed"}`;
    case "nodeCancelled":
      return "stopped";
    case "streamAvailable":
      return `streams ${event.value.pin}`;
    case "streamComplete":
      return `streamed all of ${event.value.pin}`;
    case "cost":
      return `used ${event.value.quantity} ${event.value.item}`;
    case "executionFinished":
      return [ExecutionState[event.value.state].toLowerCase(), duration(event.value.duration)].filter(Boolean).join(" in ");
    case "gap":
      return `events ${event.value.firstSequence} to ${event.value.lastSequence} are lost`;
    default:
      return "";
  }
}

function summary(value: Value | undefined): string {
  const kind = value?.kind;
  switch (kind?.case) {
    case "text":
      return `“${kind.value.slice(0, 120)}”`;
    case "number":
      return String(Number(kind.value.toPrecision(4)));
    case "boolean":
      return kind.value ? "yes" : "no";
    case "binary":
      return bytes(kind.value.length);
    case "stream":
      return "a stream";
    case "json":
      return json(jsonOf(value));
    case "media": {
      const { source } = kind.value;
      if (source.case !== "ref") return source.case === "inline" ? bytes(source.value.length) : "an address";
      const { mimeType, width, height } = source.value.metadata ?? {};
      const facts = [mimeType, width && height ? `${width} × ${height}` : "", bytes(Number(source.value.sizeBytes))];
      return facts.filter(Boolean).join(", ");
    }
    default:
      return "nothing";
  }
}

function json(value: JsonValue | undefined): string {
  const labels = labelsIn(value).map(({ label, probability }) => `${label.split(", ")[0]} ${percent(probability)}`);
  if (labels.length > 0) return labels.join(", ");
  const text = JSON.stringify(value) ?? "";
  return text.length > 160 ? `${text.slice(0, 159)}…` : text;
}

/** Returns a number of bytes for people. */
export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  return count < 1024 ** 2 ? `${(count / 1024).toFixed(0)} KiB` : `${Number((count / 1024 ** 2).toFixed(1))} MiB`;
}

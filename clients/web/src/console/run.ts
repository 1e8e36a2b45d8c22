import type { JsonValue } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import { ExecutionState, type ExecutionEvent } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import type { Flow } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { jsonOf, MeshError } from "../client/index.js";

export type NodeState = "pending" | "running" | "succeeded" | "failed" | "skipped" | "cancelled";

/** One node, as the events so far tell. */
export interface NodeRun {
  readonly state: NodeState;
  /** A few words beside the state: how long it took, how far it is. */
  readonly note: string;
}

/** A label that a classifier gave. */
export interface Label {
  readonly label: string;
  /** From 0 to 1. */
  readonly probability: number;
}

/** A run, as the events so far tell. */
export class Run {
  executionId = "";
  flow: Flow | undefined;
  state: ExecutionState = ExecutionState.RUNNING;
  error: MeshError | undefined;
  /** How long it took in the mesh, in milliseconds. */
  durationMs: number | undefined;
  /** What reached the `ui.stream-console` nodes of the flow, by `node.pin` of where it came from. */
  readonly shown = new Map<string, JsonValue>();
  readonly nodes = new Map<string, NodeRun>();

  /** Takes the next event in. */
  apply(event: ExecutionEvent): void {
    const { event: happened, nodeId } = event;
    this.executionId ||= event.executionId;
    switch (happened.case) {
      case "executionStarted":
        this.flow = happened.value.flow;
        for (const { id } of this.flow?.nodes ?? []) this.nodes.set(id, { state: "pending", note: "" });
        break;
      case "nodeStarted":
        this.nodes.set(nodeId, { state: "running", note: happened.value.attempt > 1 ? `try ${happened.value.attempt}` : "" });
        break;
      case "nodeProgress":
        this.nodes.set(nodeId, { state: "running", note: `${Math.round(happened.value.percent)}%` });
        break;
      case "nodeOutput":
        this.#show(nodeId, happened.value.pin, jsonOf(happened.value.value));
        break;
      case "nodeFinished":
        this.nodes.set(nodeId, { state: "succeeded", note: duration(happened.value.duration) });
        break;
      case "nodeFailed":
        this.nodes.set(nodeId, { state: "failed", note: duration(happened.value.duration) });
        if (happened.value.error) this.error ??= MeshError.fromStatus(happened.value.error);
        break;
      case "nodeSkipped":
        this.nodes.set(nodeId, { state: "skipped", note: "" });
        break;
      case "nodeCancelled":
        this.nodes.set(nodeId, { state: "cancelled", note: "" });
        break;
      case "executionFinished":
        this.state = happened.value.state;
        this.durationMs = milliseconds(happened.value.duration);
        // The error of a node says more than that of the run which it ended.
        if (happened.value.error) this.error ??= MeshError.fromStatus(happened.value.error);
        break;
      default: // nothing here shows the others
    }
  }

  /** The labels among what was shown, most likely first; empty while there are none. */
  get labels(): Label[] {
    for (const value of this.shown.values()) {
      const labels = labelsIn(value);
      if (labels.length > 0) return labels;
    }
    return [];
  }

  #show(nodeId: string, pin: string, value: JsonValue | undefined): void {
    if (value === undefined) return;
    const consoles = new Set(this.flow?.nodes.filter(({ type }) => type === "ui.stream-console").map(({ id }) => id));
    const reaches = this.flow?.edges.some(
      ({ from, to }) => from?.nodeId === nodeId && from.pin === pin && consoles.has(to?.nodeId ?? ""),
    );
    if (reaches || consoles.has(nodeId)) this.shown.set(`${nodeId}.${pin}`, value);
  }
}

/** Returns the labels in a JSON value, most likely first; none if it is something else. */
export function labelsIn(value: JsonValue | undefined): Label[] {
  const labels = Array.isArray(value) ? value.filter(isLabel) : [];
  return labels.toSorted((one, other) => other.probability - one.probability);
}

/** Returns a duration in milliseconds. */
export function milliseconds(of: Duration | undefined): number | undefined {
  return of && Number(of.seconds) * 1000 + of.nanos / 1e6;
}

/** Returns a duration for people: `8.4 ms`, `61 ms`, `2.3 s`; empty when it is not known. */
export function duration(of: Duration | number | undefined): string {
  const ms = typeof of === "number" ? of : milliseconds(of);
  if (ms === undefined) return "";
  if (ms >= 999.5) return `${(ms / 1000).toFixed(ms < 9_950 ? 1 : 0)} s`;
  return `${ms.toFixed(ms < 9.95 ? 1 : 0)} ms`;
}

function isLabel(value: unknown): value is Label & { [key: string]: JsonValue } {
  if (typeof value !== "object" || value === null) return false;
  const { label, probability } = value as Partial<Label>;
  return typeof label === "string" && typeof probability === "number";
}

import type { Duration } from "@bufbuild/protobuf/wkt";
import { ExecutionState, type ExecutionEvent } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import type { Flow, FlowNode } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { MeshError } from "../client/index.js";
import type { Given } from "./fields/field.js";
import { Shown } from "./shown.js";

export type NodeState = "pending" | "running" | "succeeded" | "failed" | "skipped" | "cancelled";

/** One node, as the events so far tell. */
export interface NodeRun {
  readonly state: NodeState;
  /** A few words beside the state: how long it took, how far it is. */
  readonly note: string;
  /** When it began, by `performance.now()`; undefined for one that does not run. */
  readonly since?: number | undefined;
}

const PENDING: NodeRun = { state: "pending", note: "" };

/** A run, as the events so far tell. */
export class Run {
  executionId = "";
  flow: Flow | undefined;
  state: ExecutionState = ExecutionState.RUNNING;
  error: MeshError | undefined;
  /** How long it took in the mesh, in milliseconds. */
  durationMs: number | undefined;
  /** What reached the client's ends of the flow, by node. */
  readonly shown = new Map<string, Shown>();
  readonly nodes = new Map<string, NodeRun>();
  /** How many chunks left each stream pin, by `node.pin`. */
  readonly chunks = new Map<string, number>();

  /** @param given What it was given, as that was when it began. */
  constructor(readonly given: readonly Given[] = []) {}

  /** Takes the next event in. */
  apply(event: ExecutionEvent): void {
    const { event: happened, nodeId } = event;
    this.executionId ||= event.executionId;
    switch (happened.case) {
      case "executionStarted":
        this.flow = happened.value.flow;
        for (const { id } of this.flow?.nodes ?? []) this.nodes.set(id, PENDING);
        for (const { id } of sinks(this.flow)) this.shown.set(id, new Shown());
        break;
      case "nodeStarted":
        this.#start(nodeId, happened.value.attempt);
        break;
      case "nodeProgress":
        this.#change(nodeId, { state: "running", note: `${Math.round(happened.value.percent)}%` });
        break;
      case "nodeOutput":
        this.shown.get(nodeId)?.takeValue(happened.value.value);
        break;
      case "nodeChunk":
        this.#count(`${nodeId}.${happened.value.pin}`);
        this.shown.get(nodeId)?.takeChunk(happened.value.chunk);
        break;
      case "nodeRetry":
        this.#change(nodeId, { state: "running", note: "tries again" });
        break;
      case "nodeFinished":
        this.#change(nodeId, { state: "succeeded", note: happened.value.cached ? "cached" : duration(happened.value.duration) });
        break;
      case "nodeFailed":
        this.#change(nodeId, { state: "failed", note: duration(happened.value.duration) });
        if (happened.value.error) this.error ??= MeshError.fromStatus(happened.value.error);
        break;
      case "nodeSkipped":
        this.#change(nodeId, { state: "skipped", note: "" });
        break;
      case "nodeCancelled":
        this.#change(nodeId, { state: "cancelled", note: "" });
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

  // What came of an earlier try does not count any more.
  #start(nodeId: string, attempt: number): void {
    this.nodes.set(nodeId, { state: "running", note: attempt > 1 ? `try ${attempt}` : "", since: performance.now() });
    if (attempt > 1 && this.shown.has(nodeId)) this.shown.set(nodeId, new Shown());
  }

  #count(pin: string): void {
    this.chunks.set(pin, (this.chunks.get(pin) ?? 0) + 1);
  }

  #change(nodeId: string, change: NodeRun): void {
    const { since } = this.nodes.get(nodeId) ?? PENDING;
    this.nodes.set(nodeId, change.state === "running" ? { since, ...change } : change);
  }
}

/** Returns the nodes of a flow that the client shows. */
export function sinks(flow: Flow | undefined): FlowNode[] {
  return (flow?.nodes ?? []).filter(({ type }) => type === "ui.stream-console" || type === "ui.stream-viewer");
}

/** Returns the nodes from which something reaches a node, nearest first. */
export function upstream(flow: Flow | undefined, nodeId: string): string[] {
  const found = new Set([nodeId]);
  // A set yields what is added while it is read.
  for (const id of found) {
    for (const { from, to } of flow?.edges ?? []) if (to?.nodeId === id && from) found.add(from.nodeId);
  }
  return [...found].slice(1);
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

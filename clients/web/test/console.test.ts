import { create } from "@bufbuild/protobuf";
import { ExecutionState } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import { FlowSchema, type Flow } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { describe, expect, it } from "vitest";
import { bytes, sentence } from "../src/console/events.js";
import { BOX, layout } from "../src/console/layout.js";
import { duration, Run } from "../src/console/run.js";
import { CLASSIFY, failing, LABELS, numbered, succeeding } from "./fake_flows.js";

describe("A run", () => {
  it("that succeeds lights every node up and has the labels, most likely first", () => {
    const run = played(succeeding());
    expect([...run.nodes].map(([id, { state, note }]) => [id, { state, note }])).toEqual([
      ["upload", { state: "succeeded", note: "8.4 ms" }],
      ["classify", { state: "succeeded", note: "43 ms" }],
      ["show", { state: "succeeded", note: "0.2 ms" }],
    ]);
    expect(run.shown.get("show")?.labels.map(({ label }) => label)).toEqual(LABELS.map(({ label }) => label));
    expect(run).toMatchObject({ state: ExecutionState.SUCCEEDED, durationMs: 61, executionId: "e1", error: undefined });
  });

  it("shows only what reaches a console", () => {
    expect([...played(succeeding()).shown.keys()]).toEqual(["show"]);
  });

  it("that fails says which node did, which were skipped, and why", () => {
    const run = played(failing());
    expect(run.nodes.get("classify")?.state).toBe("failed");
    expect(run.nodes.get("show")?.state).toBe("skipped");
    expect(run.error).toMatchObject({ reason: "AGENT_FAILED" });
    expect(run.state).toBe(ExecutionState.FAILED);
  });

  it("half way has nodes that run and nodes that wait", () => {
    const run = played(succeeding().slice(0, 6));
    expect([...run.nodes.values()].map(({ state, note }) => `${state} ${note}`.trim())).toEqual([
      "succeeded 8.4 ms",
      "running 50%",
      "pending",
    ]);
  });
});

describe("A graph", () => {
  it("goes from left to right in layers, or down where there is little room", () => {
    const right = layout(CLASSIFY, "right");
    expect(right.boxes.map(({ id }) => id)).toEqual(["upload", "classify", "show"]);
    expect(new Set(right.boxes.map(({ y }) => y)).size).toBe(1);
    expect(right.boxes[1]?.x).toBeGreaterThan((right.boxes[0]?.x ?? 0) + BOX.width);
    const down = layout(CLASSIFY, "down");
    expect(new Set(down.boxes.map(({ x }) => x)).size).toBe(1);
    expect(down.height).toBeGreaterThan(right.height);
  });

  it("puts a node after all that it needs and centres smaller layers", () => {
    const { boxes } = layout(flow("ab", "ac", "bd", "cd", "ad"), "right");
    const at = Object.fromEntries(boxes.map((box) => [box.id, box]));
    expect(at["b"]?.x).toBe(at["c"]?.x);
    expect(at["d"]?.x).toBeGreaterThan(at["b"]?.x ?? 0);
    expect(at["a"]?.y).toBe(((at["b"]?.y ?? 0) + (at["c"]?.y ?? 0)) / 2);
  });

  it("is drawn even with a cycle, or an edge that leads nowhere", () => {
    const { boxes, curves } = layout(flow("ab", "ba", "bz"), "right");
    expect(boxes.every(({ x, y }) => Number.isFinite(x) && Number.isFinite(y))).toBe(true);
    expect(curves.at(-1)).toBeUndefined();
  });

  it("without nodes is empty", () => {
    expect(layout(create(FlowSchema), "right").boxes).toEqual([]);
  });
});

it("Events read as sentences", () => {
  expect(numbered(succeeding()).map(sentence)).toEqual([
    "accepted, 3 nodes",
    "started",
    "gives file: image/jpeg, 640 × 480, 47 KiB",
    "succeeded in 8.4 ms",
    "started",
    "50%, running the model",
    "gives classification: Egyptian cat 61.4%, tabby 21.7%, tiger cat 9.4%, lynx 2.1%, Persian cat 0.4%",
    "gives confidence: 0.614",
    "succeeded in 43 ms",
    "started",
    "gives input: Egyptian cat 61.4%, tabby 21.7%, tiger cat 9.4%, lynx 2.1%, Persian cat 0.4%",
    "succeeded in 0.2 ms",
    "succeeded in 61 ms",
  ]);
});

it("Times and sizes are short", () => {
  expect([0.2, 9.96, 61.4, 999.6, 2340, 61_000].map(duration)).toEqual(["0.2 ms", "10 ms", "61 ms", "1.0 s", "2.3 s", "61 s"]);
  expect([12, 2048, 3_500_000].map(bytes)).toEqual(["12 B", "2 KiB", "3.3 MiB"]);
});

function played(happenings: Parameters<typeof numbered>[0]): Run {
  const run = new Run();
  for (const event of numbered(happenings)) run.apply(event);
  return run;
}

/** A flow of nodes with one letter; `ab` is an edge from a to b. */
function flow(...edges: string[]): Flow {
  const letters = [...new Set(edges.flatMap((edge) => [...edge]))].filter((letter) => letter !== "z");
  return create(FlowSchema, {
    nodes: letters.map((id) => ({ id })),
    edges: edges.map((edge) => ({ from: { nodeId: edge[0] ?? "", pin: "out" }, to: { nodeId: edge[1] ?? "", pin: "in" } })),
  });
}

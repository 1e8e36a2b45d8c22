import type { Flow } from "@mediamesh/contracts/flow/v1/flow_pb.js";

/** Which way values flow on the screen. */
export type Direction = "right" | "down";

export interface Box {
  readonly id: string;
  readonly x: number;
  readonly y: number;
}

export interface Curve {
  /** Outline for `<path d>`. */
  readonly path: string;
  /** Where its label goes. */
  readonly middle: { readonly x: number; readonly y: number };
}

/** Where everything in a graph is, in pixels. */
export interface Layout {
  readonly width: number;
  readonly height: number;
  readonly boxes: readonly Box[];
  /** In the order of the edges of the flow; undefined for an edge whose ends are not there. */
  readonly curves: readonly (Curve | undefined)[];
}

export const BOX = { width: 212, height: 68 };
const GAP = { along: 84, across: 24 };
const MARGIN = 10;

/** Lays a flow out in layers: a node comes one layer after the last of those that it needs. */
export function layout(flow: Flow, direction: Direction): Layout {
  const layers = ordered(layered(flow), flow);
  const right = direction === "right";
  const long = right ? BOX.width + GAP.along : BOX.height + GAP.along * 0.55;
  const wide = (right ? BOX.height : BOX.width) + GAP.across;
  const most = Math.max(1, ...layers.map((layer) => layer.length));
  const boxes = layers.flatMap((layer, depth) =>
    layer.map((id, place): Box => {
      const along = MARGIN + depth * long;
      const across = MARGIN + (place + (most - layer.length) / 2) * wide;
      return right ? { id, x: along, y: across } : { id, x: across, y: along };
    }),
  );
  const at = new Map(boxes.map((box) => [box.id, box]));
  return {
    width: Math.max(0, ...boxes.map(({ x }) => x + BOX.width)) + MARGIN,
    height: Math.max(0, ...boxes.map(({ y }) => y + BOX.height)) + MARGIN,
    boxes,
    curves: flow.edges.map(({ from, to }) => curve(at.get(from?.nodeId ?? ""), at.get(to?.nodeId ?? ""), right)),
  };
}

function layered(flow: Flow): string[][] {
  const depth = new Map(flow.nodes.map(({ id }) => [id, 0]));
  // Once for each node is enough for a graph without cycles, and an end for one with.
  for (const _ of flow.nodes) {
    for (const { from, to } of flow.edges) {
      const before = depth.get(from?.nodeId ?? "");
      const after = depth.get(to?.nodeId ?? "");
      if (before === undefined || after === undefined || !to) continue;
      depth.set(to.nodeId, Math.min(Math.max(after, before + 1), flow.nodes.length - 1));
    }
  }
  const layers: string[][] = [];
  for (const [id, at] of depth) (layers[at] ??= []).push(id);
  return layers.filter((layer) => layer.length > 0);
}

/** Orders each layer by where the nodes that it needs are, so that curves cross less. */
function ordered(layers: string[][], flow: Flow): string[][] {
  const place = new Map<string, number>();
  return layers.map((layer) => {
    const mean = (id: string) => {
      const needed = flow.edges.filter(({ to }) => to?.nodeId === id).map(({ from }) => place.get(from?.nodeId ?? "") ?? 0);
      return needed.length === 0 ? 0 : needed.reduce((sum, value) => sum + value, 0) / needed.length;
    };
    const sorted = layer.toSorted((one, other) => mean(one) - mean(other));
    sorted.forEach((id, index) => place.set(id, index - (sorted.length - 1) / 2));
    return sorted;
  });
}

function curve(from: Box | undefined, to: Box | undefined, right: boolean): Curve | undefined {
  if (!from || !to) return undefined;
  const start = right ? { x: from.x + BOX.width, y: from.y + BOX.height / 2 } : { x: from.x + BOX.width / 2, y: from.y + BOX.height };
  const end = right ? { x: to.x, y: to.y + BOX.height / 2 } : { x: to.x + BOX.width / 2, y: to.y };
  const bend = (right ? end.x - start.x : end.y - start.y) / 2;
  const first = right ? `${start.x + bend} ${start.y}` : `${start.x} ${start.y + bend}`;
  const second = right ? `${end.x - bend} ${end.y}` : `${end.x} ${end.y - bend}`;
  return {
    path: `M${start.x} ${start.y}C${first} ${second} ${end.x} ${end.y}`,
    middle: { x: (start.x + end.x) / 2, y: (start.y + end.y) / 2 },
  };
}

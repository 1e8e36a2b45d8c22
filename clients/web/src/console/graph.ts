import { PinType } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import type { Flow, FlowEdge } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { svg } from "./element.js";
import { BOX, layout, type Box, type Curve, type Direction } from "./layout.js";
import type { NodeRun, NodeState } from "./run.js";

// Outlines in a square of 16: a state is told by its shape as well as by its colour.
const MARKS: Record<NodeState, string> = {
  pending: "M8 3a5 5 0 1 0 0 10a5 5 0 1 0 0-10",
  running: "M8 2.5a5.5 5.5 0 0 1 5.5 5.5",
  succeeded: "M3.5 8.5l3 3l6-7",
  failed: "M4 4l8 8M12 4l-8 8",
  skipped: "M3.5 8h9",
  cancelled: "M4.5 4.5h7v7h-7z",
};

/** The least scale at which the texts can be read. */
const SMALLEST = 0.72;

/** The graph of a flow, whose nodes light up as they run. */
export class GraphView {
  #flow: Flow | undefined;
  #nodes: ReadonlyMap<string, NodeRun> = new Map();
  #chunks: ReadonlyMap<string, number> = new Map();
  #direction: Direction = "right";

  constructor(readonly host: Element) {
    const narrow = matchMedia("(max-width: 46rem)");
    const turn = () => {
      this.#direction = narrow.matches ? "down" : "right";
      this.#draw();
    };
    narrow.addEventListener("change", turn);
    turn();
  }

  /** Takes the flow away. */
  clear(): void {
    this.#flow = undefined;
    this.#nodes = new Map();
    this.#chunks = new Map();
    this.host.replaceChildren();
  }

  /** Draws a flow in place of the one before. */
  show(flow: Flow): void {
    this.#flow = flow;
    this.#draw();
  }

  /**
   * Shows where the nodes stand; those that are not named have not begun.
   *
   * @param chunks How many chunks left each stream pin, by `node.pin`.
   */
  paint(nodes: ReadonlyMap<string, NodeRun>, chunks: ReadonlyMap<string, number> = new Map()): void {
    this.#nodes = nodes;
    this.#chunks = chunks;
    for (const box of this.host.querySelectorAll<SVGGElement>("[data-node]")) {
      const { state, note, since } = nodes.get(box.dataset["node"] ?? "") ?? { state: "pending", note: "" };
      if (box.dataset["state"] !== state) box.querySelector(".mark")?.setAttribute("d", MARKS[state]);
      box.dataset["state"] = state;
      const taken = state === "running" && since !== undefined ? elapsed(performance.now() - since) : "";
      put(box.querySelector(".note"), note || taken || (nodes.size > 0 ? state : ""));
      put(box.querySelector("title"), `${box.dataset["node"]}: ${state}${note && `, ${note}`}`);
    }
    for (const edge of this.host.querySelectorAll<SVGGElement>("[data-from]")) {
      const { from = "", pin = "", type = "" } = edge.dataset;
      edge.dataset["state"] = nodes.get(from)?.state ?? "pending";
      const count = chunks.get(pin) ?? 0;
      put(edge.querySelector("text"), count > 0 ? `${type} · ${count}` : type);
    }
  }

  #draw(): void {
    const flow = this.#flow;
    if (!flow) return;
    const placed = layout(flow, this.#direction);
    const edges = flow.edges.flatMap((edge, index) => {
      const curve = placed.curves[index];
      return curve ? [this.#edge(edge, curve, flow)] : [];
    });
    const types = new Map(flow.nodes.map(({ id, type }) => [id, type]));
    const boxes = placed.boxes.map((box) => node(box, types.get(box.id) ?? ""));
    const drawing = svg(
      "svg",
      {
        viewBox: `0 0 ${placed.width} ${placed.height}`,
        width: String(placed.width),
        height: String(placed.height),
        role: "img",
        "aria-label": `The flow: ${described(flow)}`,
      },
      ...edges,
      ...boxes,
    );
    // A wide flow is scrolled rather than made too small to be read.
    drawing.style.minWidth = `${placed.width * SMALLEST}px`;
    this.host.replaceChildren(drawing);
    this.paint(this.#nodes, this.#chunks);
  }

  #edge(edge: FlowEdge, { path, middle }: Curve, flow: Flow): SVGGElement {
    const { from, to } = edge;
    const aside = this.#direction === "down" ? { x: middle.x + 10, y: middle.y + 4 } : { x: middle.x, y: middle.y - 8 };
    return svg(
      "g",
      { class: "edge", "data-from": from?.nodeId, "data-pin": `${from?.nodeId}.${from?.pin}`, "data-type": pinType(flow, edge) },
      svg("title", {}, `${from?.nodeId}.${from?.pin} → ${to?.nodeId}.${to?.pin}`),
      svg("path", { class: "wire", d: path }),
      svg("path", { class: "pulse", d: path }),
      svg(
        "text",
        { x: String(aside.x), y: String(aside.y), "text-anchor": this.#direction === "down" ? "start" : "middle" },
      ),
    );
  }
}

// Tenths of a second while it is short, seconds when nobody counts tenths any more.
function elapsed(ms: number): string {
  return ms < 300 ? "" : `${(ms / 1000).toFixed(ms < 9_950 ? 1 : 0)} s`;
}

function put(element: Element | null, text: string): void {
  if (element && element.textContent !== text) element.textContent = text;
}

function node({ id, x, y }: Box, type: string): SVGGElement {
  return svg(
    "g",
    { class: "node", "data-node": id, transform: `translate(${x} ${y})` },
    svg("title", {}, id),
    svg("rect", { width: String(BOX.width), height: String(BOX.height), rx: "12" }),
    svg("g", { transform: "translate(15 15)" }, svg("path", { class: "mark" })),
    svg("text", { class: "id", x: "40", y: "28" }, id),
    svg("text", { class: "note", x: String(BOX.width - 14), y: "28", "text-anchor": "end" }),
    svg("text", { class: "type", x: "15", y: "51" }, shortened(type)),
  );
}

// The box holds so many characters of its small type.
function shortened(text: string): string {
  return text.length > 27 ? `…${text.slice(-26)}` : text;
}

function pinType(flow: Flow, { from }: FlowEdge): string {
  const pins = flow.nodes.find(({ id }) => id === from?.nodeId)?.outputPins;
  const type = pins?.find(({ name }) => name === from?.pin)?.type ?? PinType.UNSPECIFIED;
  return type === PinType.UNSPECIFIED ? "" : PinType[type].toLowerCase();
}

function described(flow: Flow): string {
  return flow.edges.map(({ from, to }) => `${from?.nodeId} leads to ${to?.nodeId}`).join(", ") || "a single node";
}

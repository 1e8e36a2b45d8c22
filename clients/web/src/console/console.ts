import { ExecutionState } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import type { Flow } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { createMedia, createMesh, MeshError, type Mesh } from "../client/index.js";
import { AlertView } from "./alert.js";
import { ChooserView } from "./chooser.js";
import { byId } from "./element.js";
import { EventsView } from "./events.js";
import type { KnownFlow } from "./flows.js";
import { GraphView } from "./graph.js";
import { InputsView } from "./inputs.js";
import { Painter } from "./painter.js";
import { ResultsView } from "./results.js";
import { duration, Run } from "./run.js";
import { summary } from "./summary.js";

// How long the mesh may take to answer that a run is cancelled: for 2 s its server waits for the run to end.
const CANCEL_MS = 5_000;
// How long a cancelled run may take to say how it ended before its stream is given up.
const FAREWELL_MS = 2_000;

/** The page: one flow, its inputs, one run at a time. */
export class Console {
  readonly #mesh: Mesh;
  readonly #results: ResultsView;
  readonly #alert = new AlertView(byId("alert", HTMLElement));
  readonly #events = new EventsView(byId("events", HTMLElement));
  readonly #graph = new GraphView(byId("graph", HTMLElement));
  readonly #chooser = new ChooserView(byId("chooser", HTMLElement), (flow) => void this.#open(flow));
  readonly #inputs = new InputsView(
    byId("inputs", HTMLElement),
    (isWhole) => this.#given(isWhole),
    (thrown) => this.#alert.show(thrown),
  );
  readonly #painter = new Painter(() => this.#paint());
  readonly #start = byId("start", HTMLButtonElement);
  readonly #cancel = byId("cancel", HTMLButtonElement);
  readonly #status = byId("status", HTMLElement);
  readonly #total = byId("total", HTMLElement);
  readonly #log = byId("log", HTMLAnchorElement);
  #flow: KnownFlow | undefined;
  #stop: AbortController | undefined;
  #current: Run | undefined;

  constructor(address: string) {
    this.#mesh = createMesh(address);
    this.#results = new ResultsView(byId("results", HTMLElement), createMedia(address));
    this.#start.addEventListener("click", () => void this.run());
    this.#cancel.addEventListener("click", () => void this.cancel());
  }

  /** Shows the flow that the address of the page names, else the first. */
  open(): void {
    this.#chooser.show();
  }

  /** Runs the flow on what was given, in place of the run that is under way. */
  async run(): Promise<void> {
    const known = this.#flow;
    if (!known || !this.#inputs.isReady) return;
    this.#stop?.abort();
    const stop = (this.#stop = new AbortController());
    const run = (this.#current = new Run(this.#inputs.given));
    const began = performance.now();
    this.#prepare();
    try {
      const inputs = await this.#inputs.values();
      this.#say("Sending…");
      for await (const event of this.#mesh.run(known.source, inputs, { signal: stop.signal })) {
        if (this.#stop !== stop) return;
        run.apply(event);
        this.#events.add(event);
        if (event.event.case === "executionStarted" && run.flow) this.#graph.show(run.flow);
        this.#painter.ask();
      }
      if (run.error && run.state !== ExecutionState.CANCELLED) this.#alert.show(run.error);
    } catch (thrown) {
      if (this.#stop !== stop) return;
      run.state = stop.signal.aborted ? ExecutionState.CANCELLED : ExecutionState.FAILED;
      if (!stop.signal.aborted) this.#alert.show(thrown);
    }
    if (this.#stop === stop) this.#finish(run, performance.now() - began);
  }

  /** Cancels the run; its last events still come. */
  async cancel(): Promise<void> {
    const stop = this.#stop;
    this.#cancel.disabled = true;
    this.#say("Cancelling…");
    try {
      if (this.#current?.executionId) {
        await this.#mesh.cancel(this.#current.executionId, { timeoutMs: CANCEL_MS });
        setTimeout(() => stop?.abort(), FAREWELL_MS);
        return;
      }
    } catch (thrown) {
      if (!MeshError.from(thrown).retryable) this.#alert.show(thrown);
    }
    stop?.abort();
  }

  /** Draws a flow and its fields, and says so if the mesh would not run it. */
  async #open(known: KnownFlow): Promise<void> {
    this.#flow = known;
    this.#leave();
    this.#title(known.name, "");
    try {
      const { flow, issues } = await this.#mesh.validate(known.source, { timeoutMs: 15_000 });
      if (this.#flow !== known) return;
      if (flow) this.#show(flow);
      if (issues.length > 0) return this.#alert.issues(issues);
      this.#ready();
    } catch (thrown) {
      if (this.#flow === known) this.#alert.show(thrown);
    }
  }

  #show(flow: Flow): void {
    this.#title(flow.name, flow.description);
    this.#chooser.rename(flow.name);
    this.#graph.show(flow);
    this.#inputs.show(flow);
    document.body.dataset["inputs"] = this.#inputs.fields.length > 1 ? "several" : "one";
  }

  /** Ends what belongs to the flow before. */
  #leave(): void {
    this.#stop?.abort();
    this.#stop = undefined;
    this.#current = undefined;
    this.#painter.tick(false);
    this.#clear();
    this.#inputs.clear();
    this.#graph.clear();
    this.#cancel.hidden = true;
    this.#start.hidden = false;
    this.#start.disabled = true;
    document.body.dataset["run"] = "none";
    this.#say("");
  }

  #clear(): void {
    this.#alert.clear();
    this.#events.clear();
    this.#results.clear();
    this.#total.textContent = "";
    this.#log.hidden = true;
  }

  // A single file is all that such a flow waits for.
  #given(isWhole: boolean): void {
    this.#ready();
    if (isWhole && this.#inputs.fields.length === 1) void this.run();
  }

  #ready(): void {
    const missing = this.#inputs.fields.filter(({ isReady }) => !isReady);
    this.#start.disabled = missing.length > 0 || this.#inputs.fields.length === 0;
    if (document.body.dataset["run"] === "running") return;
    const [first] = missing;
    this.#say(first ? first.wish : this.#inputs.fields.length > 0 ? "Ready." : "This flow takes no input.");
    if (!this.#inputs.fields.length) this.#start.disabled = false;
  }

  #prepare(): void {
    this.#clear();
    this.#graph.paint(new Map());
    this.#start.hidden = true;
    this.#cancel.hidden = false;
    this.#cancel.disabled = false;
    document.body.dataset["run"] = "running";
    this.#say("Reading the files…");
    this.#painter.tick(true);
  }

  #paint(): void {
    const run = this.#current;
    if (!run) return;
    const isLive = run.state === ExecutionState.RUNNING;
    this.#graph.paint(run.nodes, run.chunks);
    this.#results.update(run, isLive);
    const running = [...run.nodes].filter(([, { state }]) => state === "running").map(([id]) => id);
    if (isLive && running.length > 0 && !this.#cancel.disabled) this.#say(`Running ${running.join(", ")}…`);
  }

  #finish(run: Run, seenMs: number): void {
    this.#painter.tick(false);
    this.#paint();
    this.#cancel.hidden = true;
    this.#start.hidden = false;
    this.#start.textContent = "Run again";
    document.body.dataset["run"] = ExecutionState[run.state].toLowerCase();
    if (run.executionId) {
      this.#log.href = `/v1/executions/${encodeURIComponent(run.executionId)}/events`;
      this.#log.hidden = false;
    }
    if (run.durationMs !== undefined) this.#total.textContent = `${duration(seenMs)}, of which ${duration(run.durationMs)} in the mesh`;
    if (run.state === ExecutionState.SUCCEEDED) this.#say(summary(run));
    else this.#say(run.state === ExecutionState.CANCELLED ? "Cancelled." : "Failed.");
  }

  #title(name: string, description: string): void {
    byId("flow", HTMLElement).textContent = name;
    byId("description", HTMLElement).textContent = description;
    document.title = `${name} · mediamesh`;
    this.#start.textContent = "Run";
  }

  #say(what: string): void {
    if (this.#status.textContent !== what) this.#status.textContent = what;
  }
}

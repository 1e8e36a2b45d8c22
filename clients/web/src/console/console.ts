import { ExecutionState } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import CLASSIFY from "../../../examples/flows/classify.mlab?raw";
import PHOTO from "../../../examples/media/cat.jpg";
import { createMesh, imageValue, MeshError, type Mesh } from "../client/index.js";
import { AlertView } from "./alert.js";
import { byId } from "./element.js";
import { bytes, EventsView } from "./events.js";
import { GraphView } from "./graph.js";
import { PictureView } from "./picture.js";
import { percent, ResultsView } from "./results.js";
import { duration, Run } from "./run.js";

const SOURCE = { name: "classify.mlab", yaml: CLASSIFY };
/** The pin that the picture is for. */
const INPUT = "upload.file";
// How long a cancelled run may take to say how it ended before its stream is given up.
const FAREWELL_MS = 2_000;

/** The page: one flow, one picture, one run at a time. */
export class Console {
  readonly #mesh: Mesh;
  readonly #alert = new AlertView(byId("alert", HTMLElement));
  readonly #events = new EventsView(byId("events", HTMLElement));
  readonly #graph = new GraphView(byId("graph", HTMLElement));
  readonly #results = new ResultsView(byId("results", HTMLElement));
  readonly #picture = new PictureView(byId("picture", HTMLElement), (file) => void this.run(file));
  readonly #cancel = byId("cancel", HTMLButtonElement);
  readonly #again = byId("again", HTMLButtonElement);
  readonly #status = byId("status", HTMLElement);
  readonly #total = byId("total", HTMLElement);
  readonly #log = byId("log", HTMLAnchorElement);
  #file: File | undefined;
  #stop: AbortController | undefined;
  #current: Run | undefined;

  constructor(address: string) {
    this.#mesh = createMesh(address);
    this.#cancel.addEventListener("click", () => void this.cancel());
    this.#again.addEventListener("click", () => this.#file && void this.run(this.#file));
    byId("sample", HTMLButtonElement).addEventListener("click", () => void this.#sample());
  }

  /** Draws the flow, and says so if the mesh would not run it. */
  async open(): Promise<void> {
    try {
      const { flow, issues } = await this.#mesh.validate(SOURCE, { timeoutMs: 15_000 });
      if (flow) {
        byId("flow", HTMLElement).textContent = flow.name;
        byId("description", HTMLElement).textContent = flow.description;
        this.#graph.show(flow);
      }
      if (issues.length > 0) this.#alert.issues(issues);
    } catch (thrown) {
      this.#alert.show(thrown);
    }
  }

  /** Runs the flow on a picture, in place of the run that is under way. */
  async run(file: File): Promise<void> {
    this.#stop?.abort();
    const stop = (this.#stop = new AbortController());
    const run = (this.#current = new Run());
    const began = performance.now();
    this.#file = file;
    this.#prepare(file);
    try {
      const inputs = { [INPUT]: await imageValue(file) };
      for await (const event of this.#mesh.run(SOURCE, inputs, { signal: stop.signal })) {
        if (this.#stop !== stop) return;
        run.apply(event);
        this.#events.add(event);
        if (event.event.case === "executionStarted" && run.flow) this.#graph.show(run.flow);
        this.#paint(run);
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
        await this.#mesh.cancel(this.#current.executionId, { timeoutMs: FAREWELL_MS });
        setTimeout(() => stop?.abort(), FAREWELL_MS);
        return;
      }
    } catch (thrown) {
      if (!MeshError.from(thrown).retryable) this.#alert.show(thrown);
    }
    stop?.abort();
  }

  #prepare(file: File): void {
    this.#alert.clear();
    this.#events.clear();
    this.#results.clear();
    this.#graph.paint(new Map());
    this.#picture.show(file);
    this.#total.textContent = "";
    this.#log.hidden = true;
    this.#again.hidden = true;
    this.#cancel.hidden = false;
    this.#cancel.disabled = false;
    document.body.dataset["run"] = "running";
    this.#say(`Sending ${file.name}, ${bytes(file.size)}…`);
  }

  #paint(run: Run): void {
    this.#graph.paint(run.nodes);
    const running = [...run.nodes].filter(([, { state }]) => state === "running").map(([id]) => id);
    if (running.length > 0) this.#say(`Running ${running.join(", ")}…`);
    if (run.labels.length > 0 && this.#results.host.childElementCount === 0) this.#results.show(run.labels);
  }

  #finish(run: Run, seenMs: number): void {
    const best = run.labels[0];
    this.#cancel.hidden = true;
    this.#again.hidden = false;
    document.body.dataset["run"] = ExecutionState[run.state].toLowerCase();
    if (run.executionId) {
      this.#log.href = `/v1/executions/${encodeURIComponent(run.executionId)}/events`;
      this.#log.hidden = false;
    }
    if (run.durationMs !== undefined) this.#total.textContent = `${duration(seenMs)}, of which ${duration(run.durationMs)} in the mesh`;
    if (run.state === ExecutionState.SUCCEEDED) {
      this.#say(best ? `Done: ${best.label.split(", ")[0]}, ${percent(best.probability)}.` : "Done.");
    } else this.#say(run.state === ExecutionState.CANCELLED ? "Cancelled." : "Failed.");
  }

  #say(what: string): void {
    this.#status.textContent = what;
  }

  async #sample(): Promise<void> {
    try {
      const answer = await fetch(PHOTO);
      if (!answer.ok) throw new MeshError(`The sample photo is not there (HTTP ${answer.status}).`, "NOT_FOUND");
      await this.run(new File([await answer.blob()], "cat.jpg", { type: "image/jpeg" }));
    } catch (thrown) {
      this.#alert.show(thrown);
    }
  }
}

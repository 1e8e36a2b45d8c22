import type { Flow } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { MediaType } from "@mediamesh/contracts/media/v1/media_pb.js";
import type { MediaStore } from "../client/index.js";
import { sinks, upstream, type Run } from "./run.js";
import type { Shown } from "./shown.js";
import { SinkView } from "./views/sink.js";

interface Shelf {
  readonly view: SinkView;
  readonly shown: Shown;
}

/** What a run gives, by the ends of its flow. */
export class ResultsView {
  readonly #shelves = new Map<string, Shelf>();

  constructor(
    readonly host: HTMLElement,
    readonly store: MediaStore,
  ) {}

  clear(): void {
    for (const { view } of this.#shelves.values()) view.close();
    this.#shelves.clear();
    this.host.replaceChildren();
    delete this.host.dataset["count"];
  }

  /** Shows what there is by now; ends of the flow that nothing reached yet take no room. */
  update(run: Run, isLive: boolean): void {
    for (const [nodeId, shown] of run.shown) {
      if (shown.count === 0) continue;
      const shelf = this.#shelf(nodeId, shown, run);
      shelf.view.update(shown, isLive);
    }
  }

  // A node that is tried again begins with nothing.
  #shelf(nodeId: string, shown: Shown, { flow, given }: Run): Shelf {
    const before = this.#shelves.get(nodeId);
    if (before?.shown === shown) return before;
    before?.view.close();
    const near = upstream(flow, nodeId);
    const nearest = near.flatMap((id) => given.find(({ key }) => key.startsWith(`${id}.`)) ?? []);
    const of = (type: MediaType) => nearest.find((one) => one.type === type && one.file);
    const video = of(MediaType.VIDEO);
    const sound = of(MediaType.AUDIO) ?? video;
    const view = new SinkView(nodeId, { store: this.store, video: video?.file, playback: sound?.playback });
    const shelf = { view, shown };
    this.#shelves.set(nodeId, shelf);
    this.#arrange(flow);
    return shelf;
  }

  // The ends stand in the order of the flow. Those that are there are not moved: a video would stop.
  #arrange(flow: Flow | undefined): void {
    const elements = sinks(flow).flatMap(({ id }) => this.#shelves.get(id)?.view.element ?? []);
    for (const stale of [...this.host.children]) if (!elements.includes(stale as HTMLElement)) stale.remove();
    for (const [place, element] of elements.entries()) {
      if (this.host.children[place] !== element) this.host.insertBefore(element, this.host.children[place] ?? null);
    }
    this.host.dataset["count"] = String(elements.length);
  }
}

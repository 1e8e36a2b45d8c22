import { html } from "./element.js";
import { known, SHIPPED, type KnownFlow } from "./flows.js";

/** Offers the shipped flows and those of the user's own files, and keeps the chosen one in the address of the page. */
export class ChooserView {
  readonly #flows: KnownFlow[] = [...SHIPPED];
  readonly #file = html("input", { type: "file", accept: ".mlab,.yaml,.yml", "aria-label": "Open a flow of your own", tabindex: "-1" });

  constructor(
    readonly host: HTMLElement,
    readonly chosen: (flow: KnownFlow) => void,
  ) {
    this.#file.addEventListener("change", () => void this.#open(this.#file.files?.[0]));
    window.addEventListener("hashchange", () => this.show());
  }

  /** Shows the flow that the address names, else the first. */
  show(): void {
    const hash = location.hash.slice(1);
    const flow = this.#flows.find(({ slug }) => encodeURIComponent(slug) === hash || slug === hash) ?? this.#flows[0];
    if (!flow) return;
    this.#draw(flow);
    this.chosen(flow);
  }

  /** Calls the chosen flow what the mesh read in its text. */
  rename(name: string): void {
    const link = this.host.querySelector("[aria-current]");
    if (link && name) link.textContent = name;
  }

  #draw(current: KnownFlow): void {
    const links = this.#flows.map((flow) =>
      html("a", { href: `#${encodeURIComponent(flow.slug)}`, "aria-current": flow === current ? "page" : undefined }, flow.name),
    );
    const open = html("button", { type: "button", class: "quiet" }, "Open…");
    open.title = "Open a flow of your own, an .mlab file";
    open.addEventListener("click", () => this.#file.click());
    this.host.replaceChildren(...links, open, this.#file);
  }

  async #open(file: File | undefined): Promise<void> {
    this.#file.value = "";
    if (!file) return;
    const flow = known(file.name, await file.text());
    const place = this.#flows.findIndex(({ slug }) => slug === flow.slug);
    if (place < 0) this.#flows.push(flow);
    else this.#flows[place] = flow;
    const hash = `#${encodeURIComponent(flow.slug)}`;
    if (location.hash === hash) this.show();
    else location.hash = hash;
  }
}

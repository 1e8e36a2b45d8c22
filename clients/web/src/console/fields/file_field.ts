import { MediaType } from "@mediamesh/contracts/media/v1/media_pb.js";
import { mediaValue, MeshError, type ValueInit } from "../../client/index.js";
import { html } from "../element.js";
import { bytes } from "../events.js";
import type { Acceptance } from "./accept.js";
import { takes } from "./accept.js";
import { framed, type Changed, type Field } from "./field.js";
import { icon } from "./icon.js";
import { sampleButton } from "./sample.js";

/** Takes a file from the dialog, a drop or the clipboard, and shows it. */
export class FileField implements Field {
  readonly element: HTMLElement;
  readonly type: MediaType;
  readonly player: HTMLMediaElement | undefined;
  file: File | undefined;
  protected readonly invite = html("div", { class: "invites" });
  protected readonly tools = html("div", { class: "tools" });
  readonly #input: HTMLInputElement;
  readonly #preview: HTMLElement | undefined;
  readonly #caption = html("p", { class: "caption" });
  #address = "";

  constructor(
    readonly key: string,
    title: string,
    readonly acceptance: Acceptance,
    protected readonly changed: Changed,
  ) {
    const hint = `hint-${key.replace(/[^\w-]/g, "-")}`;
    const { what, accept, type } = acceptance;
    this.#input = html("input", { type: "file", accept: accept || undefined, "aria-describedby": hint });
    this.#input.addEventListener("change", () => {
      const [file] = this.#input.files ?? [];
      if (file) this.give(file);
      this.#input.value = ""; // the same file may be chosen again
    });
    this.type = type;
    this.#preview = this.#shower(type);
    this.player = this.#preview instanceof HTMLMediaElement ? this.#preview : undefined;
    const other = html("button", { type: "button", class: "link" }, "Choose another");
    other.addEventListener("click", () => this.#input.click());
    this.tools.append(other);
    this.invite.append(
      html(
        "label",
        { class: "drop" },
        this.#input,
        icon(type),
        html("span", {}, html("strong", {}, `Choose ${what}`), " or drop it here"),
        html("small", { id: hint }, acceptance.hint),
      ),
    );
    if (type === MediaType.IMAGE) this.invite.append(sampleButton((file) => this.give(file)));
    const given = html("div", { class: "given" }, this.#preview ?? icon(type));
    this.element = framed(key, title, this.invite, given, html("div", { class: "below" }, this.#caption, this.tools));
    this.element.dataset["kind"] = MediaType[type].toLowerCase();
    this.element.dataset["state"] = "empty";
  }

  get wish(): string {
    return `Choose ${this.acceptance.what} to begin.`;
  }

  get isReady(): boolean {
    return this.file !== undefined;
  }

  fits(type: string): boolean {
    return takes(this.acceptance, type);
  }

  give(file: File): void {
    this.show(file);
    this.changed(true);
  }

  async value(): Promise<ValueInit> {
    const { file, acceptance } = this;
    if (!file) throw new MeshError(`${this.key} has no file yet.`, "INVALID_REQUEST");
    if (file.size > acceptance.limitBytes) {
      const size = (file.size / 1024 ** 2).toFixed(1);
      throw new MeshError(`“${file.name}” has ${size} MiB; ${bytes(acceptance.limitBytes)} at most.`, "MEDIA_TOO_LARGE");
    }
    return mediaValue(file, acceptance.type);
  }

  close(): void {
    URL.revokeObjectURL(this.#address);
    this.player?.removeAttribute("src");
  }

  /** Shows a file in place of the one before, or that it cannot be shown. */
  protected show(file: File, caption = file.name): void {
    URL.revokeObjectURL(this.#address);
    this.#address = URL.createObjectURL(file);
    this.file = file;
    this.element.dataset["state"] = "given";
    this.#caption.textContent = `${caption} · ${bytes(file.size)}`;
    this.#caption.title = file.name;
    if (this.#preview instanceof HTMLImageElement) this.#preview.alt = `Your picture, ${file.name}`;
    if (this.#preview instanceof HTMLImageElement || this.player) this.#preview?.setAttribute("src", this.#address);
  }

  #shower(type: MediaType): HTMLElement | undefined {
    const shower = previewOf(type);
    shower?.addEventListener("error", () => this.#address && (this.element.dataset["state"] = "unreadable"));
    for (const event of ["load", "loadedmetadata"]) {
      shower?.addEventListener(event, () => (this.element.dataset["state"] = "shown"));
    }
    if (shower instanceof HTMLAudioElement) shower.addEventListener("loadedmetadata", () => void measured(shower));
    return shower;
  }
}

function previewOf(type: MediaType): HTMLElement | undefined {
  switch (type) {
    case MediaType.IMAGE:
      return html("img", { alt: "" });
    case MediaType.AUDIO:
      return html("audio", { controls: "", preload: "metadata" });
    case MediaType.VIDEO:
      return html("video", { controls: "", preload: "metadata", playsinline: "" });
    default:
      return undefined;
  }
}

/** Lets a player find out how long a recording is that does not say so, as those of browsers do not: its end is sought. */
async function measured(player: HTMLMediaElement): Promise<void> {
  if (Number.isFinite(player.duration)) return;
  player.currentTime = Number.MAX_SAFE_INTEGER;
  await new Promise((resolve) => player.addEventListener("durationchange", resolve, { once: true }));
  player.currentTime = 0;
}

import type { MediaReference } from "@mediamesh/contracts/media/v1/media_pb.js";
import { MeshError, type MediaStore } from "../../client/index.js";
import { html } from "../element.js";
import { bytes } from "../events.js";

/** Media that a flow made, read from the mesh. */
export class StoredView {
  readonly element = html("figure", { class: "stored" });
  #shown: MediaReference | undefined;
  #address = "";

  constructor(readonly store: MediaStore) {}

  update(reference: MediaReference | undefined): void {
    if (!reference || reference === this.#shown) return;
    this.#shown = reference;
    void this.#load(reference);
  }

  close(): void {
    this.#shown = undefined; // what is being loaded is not shown any more
    URL.revokeObjectURL(this.#address);
  }

  async #load(reference: MediaReference): Promise<void> {
    const { mimeType = "", width, height } = reference.metadata ?? {};
    const facts = [mimeType, width && height ? `${width} × ${height}` : "", bytes(Number(reference.sizeBytes))];
    const caption = html("figcaption", {}, facts.filter(Boolean).join(" · "));
    this.element.replaceChildren(caption);
    try {
      const blob = await this.store.blob(reference);
      if (reference !== this.#shown) return;
      URL.revokeObjectURL(this.#address);
      this.#address = URL.createObjectURL(blob);
      this.element.replaceChildren(shown(mimeType, this.#address), caption);
    } catch (thrown) {
      caption.append(`. It cannot be read: ${MeshError.from(thrown).sentence}`);
    }
  }
}

function shown(mimeType: string, address: string): HTMLElement {
  switch (mimeType.split("/")[0]) {
    case "image":
      return html("img", { src: address, alt: "The picture that the flow gave" });
    case "audio":
      return html("audio", { src: address, controls: "" });
    case "video":
      return html("video", { src: address, controls: "", playsinline: "" });
    default:
      return html("a", { href: address, download: "result" }, "Save the file");
  }
}

/** Takes a picture from the file dialog, a drop or the clipboard, and shows it. */
export class PictureView {
  readonly #input: HTMLInputElement;
  readonly #image: HTMLImageElement;
  #address = "";

  constructor(
    readonly host: HTMLElement,
    readonly chosen: (file: File) => void,
  ) {
    this.#input = part(host, "input", HTMLInputElement);
    this.#image = part(host, "img", HTMLImageElement);
    this.#input.addEventListener("change", () => {
      this.#take(this.#input.files);
      this.#input.value = ""; // the same file may be chosen again
    });
    this.#image.addEventListener("error", () => (host.dataset["picture"] = "unreadable"));
    this.#image.addEventListener("load", () => (host.dataset["picture"] = "shown"));
    document.addEventListener("paste", ({ clipboardData }) => this.#take(clipboardData?.files));
    this.#acceptDrops();
  }

  /** Shows a picture, or that a file is none. */
  show(file: File): void {
    URL.revokeObjectURL(this.#address);
    this.#address = URL.createObjectURL(file);
    this.#image.src = this.#address;
    this.#image.alt = `Your picture, ${file.name}`;
    part(this.host, "figcaption", HTMLElement).textContent = file.name;
  }

  // The whole window takes drops: a browser left alone would leave the page for the file that missed.
  #acceptDrops(): void {
    let within = 0;
    const mark = (change: number) => {
      within = Math.max(0, within + change);
      this.host.toggleAttribute("data-drop", within > 0);
    };
    window.addEventListener("dragenter", () => mark(1));
    window.addEventListener("dragleave", () => mark(-1));
    window.addEventListener("dragover", (event) => event.preventDefault());
    window.addEventListener("drop", (event) => {
      event.preventDefault();
      mark(-within);
      this.#take(event.dataTransfer?.files);
    });
  }

  #take(files: FileList | null | undefined): void {
    const file = files?.[0];
    if (file) this.chosen(file);
  }
}

function part<Kind extends Element>(host: Element, selector: string, kind: abstract new () => Kind): Kind {
  const found = host.querySelector(selector);
  if (!(found instanceof kind)) throw new Error(`The picture has no ${selector}.`);
  return found;
}

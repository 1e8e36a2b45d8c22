import { PinType, type Pin } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import { jsonValue, MeshError, plainValue, type ValueInit } from "../../client/index.js";
import { html } from "../element.js";
import { framed, type Changed, type Field } from "./field.js";

/** Takes a text, a number, a choice or JSON from the keyboard. */
export class PlainField implements Field {
  readonly element: HTMLElement;
  readonly wish: string;
  readonly #control: HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement;

  constructor(
    readonly key: string,
    title: string,
    readonly pin: Pin,
    changed: Changed,
  ) {
    this.#control = control(pin);
    this.wish = `Fill in “${title}” to begin.`;
    this.#control.setAttribute("aria-label", title);
    this.#control.addEventListener("input", () => changed(false));
    const hint = pin.description ? [html("small", {}, pin.description)] : [];
    this.element = framed(key, title, html("div", { class: "plain" }, this.#control, ...hint));
  }

  get isReady(): boolean {
    return this.pin.type === PinType.BOOLEAN || (this.#control.value.trim() !== "" && this.#control.checkValidity());
  }

  fits(type: string): boolean {
    return [PinType.STRING, PinType.JSON].includes(this.pin.type) && /^(text\/|application\/json)/.test(type);
  }

  give(file: File): void {
    void file.text().then((text) => {
      this.#control.value = text;
      this.#control.dispatchEvent(new Event("input"));
    });
  }

  async value(): Promise<ValueInit> {
    const text = this.#control.value;
    switch (this.pin.type) {
      case PinType.NUMBER:
        return plainValue(Number(text));
      case PinType.BOOLEAN:
        return plainValue(this.#control instanceof HTMLInputElement && this.#control.checked);
      case PinType.JSON:
        try {
          return jsonValue(JSON.parse(text));
        } catch (thrown) {
          throw new MeshError(`${this.key} is no JSON: ${String(thrown).replace(/^\w*Error: /, "")}`, "INVALID_REQUEST");
        }
      default:
        return plainValue(text);
    }
  }

  close(): void {
    // nothing is open
  }
}

function control({ type, constraints }: Pin): HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement {
  const choices = constraints?.enumValues ?? [];
  if (choices.length > 0) return html("select", {}, ...choices.map((choice) => html("option", {}, choice)));
  switch (type) {
    case PinType.NUMBER:
      return html("input", {
        type: "number",
        step: "any",
        min: constraints?.minimum?.toString(),
        max: constraints?.maximum?.toString(),
      });
    case PinType.BOOLEAN:
      return html("input", { type: "checkbox" });
    default:
      return html("textarea", { rows: "4", spellcheck: type === PinType.JSON ? "false" : undefined });
  }
}

import type { FlowIssue } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { MeshError } from "../client/index.js";
import { html } from "./element.js";

/** What went wrong, in sentences. */
export class AlertView {
  constructor(readonly host: HTMLElement) {}

  clear(): void {
    this.host.replaceChildren();
    this.host.hidden = true;
  }

  show(thrown: unknown): void {
    const error = MeshError.from(thrown);
    const first = sentenceOf(error);
    const fields = error.violations.filter(({ description }) => !first.includes(description));
    this.#fill(
      error.number,
      first,
      fields.map(({ field, description }) => [field, description].filter(Boolean).join(": ")),
    );
  }

  /** Shows what is wrong with a flow. */
  issues(issues: readonly FlowIssue[]): void {
    const lines = issues.map(({ file, line, column, message }) => `${[file, line, column].filter(Boolean).join(":")} ${message}`);
    this.#fill("", "The flow cannot run as it is written.", lines);
  }

  #fill(number: string, first: string, rest: readonly string[]): void {
    this.host.replaceChildren(
      html("p", {}, ...(number ? [html("strong", { class: "number" }, number), " "] : []), first),
      ...(rest.length > 0 ? [html("ul", {}, ...rest.map((line) => html("li", {}, line)))] : []),
    );
    this.host.hidden = false;
  }
}

// Without a reason the mesh did not answer: what browsers and proxies say about that helps nobody.
function sentenceOf(error: MeshError): string {
  if (!error.reason && error.retryable) return `The mesh cannot be reached (${error.sentence}). Is “mediamesh up” running?`;
  const said = error.sentence.trim();
  // Names of fields and agents keep their spelling.
  const sentence = /^[a-z]+ /.test(said) ? said.charAt(0).toUpperCase() + said.slice(1) : said;
  return /[.!?…”)]$/.test(sentence) ? sentence : `${sentence}.`;
}

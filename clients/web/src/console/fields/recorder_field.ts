import { html } from "../element.js";
import { clock } from "../time.js";
import type { Acceptance } from "./accept.js";
import type { Changed } from "./field.js";
import { FileField } from "./file_field.js";
import { LevelMeter } from "./level_meter.js";
import { record, type Recording } from "./recording.js";

/** Longest recording in seconds where the pin says nothing. */
const LONGEST = 600;
// Quieter than this, for so many seconds, is no speech: the wrong microphone, or a muted one.
const SILENCE = { level: 0.12, seconds: 3 };

/** Takes a recording from the microphone, or a file. */
export class RecorderField extends FileField {
  readonly #start = html("button", { type: "button", class: "record" }, html("i", { "aria-hidden": "true" }), "Record");
  readonly #again = html("button", { type: "button", class: "link" }, "Record again");
  readonly #stop = html("button", { type: "button", class: "stop" }, "Stop");
  readonly #time = html("span", { class: "time", role: "timer" });
  readonly #hint = html("small", { role: "status" });
  readonly #meter = new LevelMeter();
  #recording: Recording | undefined;
  #ending: Recording | undefined;
  #opening = false;
  #isClosed = false;

  constructor(
    key: string,
    title: string,
    acceptance: Acceptance,
    changed: Changed,
    readonly failed: (thrown: unknown) => void,
  ) {
    super(key, title, acceptance, changed);
    for (const button of [this.#start, this.#again]) button.addEventListener("click", () => void this.#begin());
    this.#stop.addEventListener("click", () => void this.#end());
    this.tools.prepend(this.#again);
    this.invite.prepend(this.#start);
    this.invite.after(
      html("div", { class: "recording" }, this.#meter.element, html("p", {}, this.#time, this.#hint), this.#stop),
    );
  }

  override get wish(): string {
    if (this.#recording) return "Stop the recording to begin.";
    return `Record something, or choose ${this.acceptance.what}, to begin.`;
  }

  // What was recorded before is not what is to be run once a new recording has begun.
  override get isReady(): boolean {
    return !this.#recording && super.isReady;
  }

  override give(file: File): void {
    this.#discard();
    super.give(file);
  }

  override close(): void {
    this.#isClosed = true;
    this.#discard();
    super.close();
  }

  async #begin(): Promise<void> {
    if (this.#opening || this.#recording) return;
    this.#opening = this.#start.disabled = true;
    this.player?.pause();
    try {
      this.#recording = await record(this.acceptance);
      if (this.#isClosed) return this.#discard(); // the microphone was given after the field was left
      this.element.dataset["state"] = "recording";
      this.#stop.focus();
      this.#watch(this.#recording);
      this.changed(false);
    } catch (thrown) {
      this.failed(thrown);
    } finally {
      this.#opening = this.#start.disabled = false;
    }
  }

  async #end(): Promise<void> {
    const recording = this.#recording;
    if (!recording || recording === this.#ending) return;
    this.#ending = recording;
    const { seconds } = recording;
    const [ended] = await Promise.allSettled([recording.stop()]);
    if (recording !== this.#recording) return; // a file was given meanwhile, or the field was left
    this.#recording = undefined;
    if (ended.status === "fulfilled") {
      this.show(ended.value, clock(seconds));
      this.#again.focus();
    } else {
      this.element.dataset["state"] = this.file ? "shown" : "empty";
      this.failed(ended.reason);
    }
    this.changed(false);
  }

  #discard(): void {
    this.#recording?.discard();
    this.#recording = undefined;
  }

  /** Shows how loud and how long the recording is, and ends it when it is long enough. */
  #watch(recording: Recording): void {
    const longest = this.acceptance.longest || LONGEST;
    let heard = 0;
    this.#meter.clear();
    const look = () => {
      if (this.#recording !== recording) return;
      const { seconds } = recording;
      const level = recording.level();
      if (level > SILENCE.level) heard = seconds;
      this.#meter.push(level);
      this.#time.textContent = clock(seconds, 0);
      const hint = seconds - heard > SILENCE.seconds ? "Nothing is heard: is this the right microphone?" : "";
      if (this.#hint.textContent !== hint) this.#hint.textContent = hint;
      if (seconds >= longest) return void this.#end();
      // Unlike an animation frame, this goes on in a tab that is not seen.
      setTimeout(look, 50);
    };
    look();
  }
}

import type { Frame } from "../../client/index.js";
import { html } from "../element.js";
import { described, type Frames } from "../frames.js";
import type { Speech } from "../speech.js";
import { clock } from "../time.js";
import { LanesView } from "./lanes.js";
import { draw } from "./overlay.js";

// The picture waits where it comes so close to the newest result, and goes on where it is so far behind it again.
const AHEAD = { least: 0.05, enough: 0.6 };

/**
 * Plays a video with what was found on its frames drawn over it.
 *
 * While results still come, the picture waits for them rather than showing frames without boxes. Without the video, as in
 * a run that was given a stored one, the boxes of the newest result are drawn alone.
 */
export class StageView {
  readonly #canvas = html("canvas", { "aria-hidden": "true" });
  readonly #now = html("p", { class: "now" });
  readonly #reach = html("progress", { class: "reach", max: "1", value: "0", "aria-label": "How much of the video is analysed" });
  readonly #told = html("p", { class: "told" });
  readonly #lanes = new LanesView((seconds) => this.#seek(seconds));
  readonly #video: HTMLVideoElement | undefined;
  readonly element: HTMLElement;
  #frames: Frames | undefined;
  #speech: Speech | undefined;
  #isLive = true;
  #began = false;
  #isHeld = false;
  #isUnplayable = false;

  /** @param file The video that the results are about, where this page has it. */
  constructor(file: File | undefined) {
    if (file) {
      this.#video = html("video", { controls: "", playsinline: "", preload: "auto", "aria-label": `Your video, ${file.name}` });
      this.#video.muted = true;
      this.#video.src = URL.createObjectURL(file);
      this.#listen(this.#video);
    }
    const screen = html("div", { class: "screen" }, ...(this.#video ? [this.#video] : []), this.#canvas);
    screen.toggleAttribute("data-blank", !this.#video);
    this.#video?.addEventListener("error", () => {
      this.#isUnplayable = true; // the mesh reads more kinds of video than a browser
      screen.toggleAttribute("data-blank", true);
    });
    this.element = html("figure", { class: "stage" }, screen, html("figcaption", {}, this.#reach, this.#now, this.#told), this.#lanes.element);
    new ResizeObserver(() => this.#draw(this.#time)).observe(this.#canvas);
  }

  /** What plays the video, for lines of speech to be found in. */
  get player(): HTMLVideoElement | undefined {
    return this.#video;
  }

  /** Shows what there is by now. */
  update(frames: Frames, speech: Speech, isLive: boolean): void {
    this.#frames = frames;
    this.#speech = speech;
    this.#isLive = isLive;
    const video = this.#video;
    const length = video && video.duration > 0 && Number.isFinite(video.duration) ? video.duration : Math.max(frames.end, 1e-3);
    this.#lanes.update(frames, length, isLive);
    this.#reach.value = isLive ? Math.max(0, Math.min(1, frames.end / length)) : 1;
    this.#reach.hidden = !isLive;
    const { dropped, all } = frames;
    this.#told.textContent = `${all.length} frames analysed${dropped > 0 ? `, ${dropped} left out` : ""}`;
    if (!video || this.#isUnplayable) return this.#draw(frames.end);
    if (!this.#began && all.length > 0) this.#begin(video);
    if (this.#isHeld && (!isLive || frames.end - video.currentTime > AHEAD.enough)) this.#play(video);
    if (video.paused && !this.#isHeld) this.#draw(video.currentTime);
  }

  close(): void {
    if (!this.#video) return;
    URL.revokeObjectURL(this.#video.src);
    this.#video.removeAttribute("src");
    this.#video.load();
  }

  get #time(): number {
    return (this.#isUnplayable ? undefined : this.#video?.currentTime) ?? this.#frames?.end ?? 0;
  }

  // Who asked for less motion starts the video by hand.
  #begin(video: HTMLVideoElement): void {
    this.#began = true;
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.#play(video);
  }

  #seek(seconds: number): void {
    if (this.#video) this.#video.currentTime = seconds;
  }

  #play(video: HTMLVideoElement): void {
    this.#hold(false);
    void video.play().catch(() => {}); // the browser may refuse; the controls are there
  }

  #listen(video: HTMLVideoElement): void {
    const presented = (_: number, { mediaTime }: VideoFrameCallbackMetadata) => {
      this.#show(video, mediaTime);
      video.requestVideoFrameCallback(presented);
    };
    // Older browsers tell of the time a few times a second only.
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(presented);
    else (video as HTMLVideoElement).addEventListener("timeupdate", () => this.#show(video, (video as HTMLVideoElement).currentTime));
    for (const event of ["seeked", "pause", "loadeddata"]) video.addEventListener(event, () => this.#draw(video.currentTime));
    video.addEventListener("play", () => this.#hold(false));
  }

  #show(video: HTMLVideoElement, seconds: number): void {
    this.#draw(seconds);
    const isShort = this.#isLive && (this.#frames?.end ?? -1) - seconds < AHEAD.least;
    if (!isShort || video.paused || video.ended) return;
    video.pause();
    this.#hold(true);
  }

  #hold(isHeld: boolean): void {
    this.#isHeld = isHeld;
    this.element.toggleAttribute("data-waiting", isHeld);
  }

  #draw(seconds: number): void {
    const frame = this.#frames?.at(seconds);
    draw(this.#canvas, frame);
    this.element.dataset["boxes"] = String(frame?.objects.length ?? 0);
    this.#now.replaceChildren(html("time", {}, clock(Math.max(0, seconds))), ` ${this.#words(frame, seconds)}`);
  }

  #words(frame: Frame | undefined, seconds: number): string {
    const said = this.#speech?.at(seconds)?.text.trim() ?? "";
    return [frame ? described(frame) : "", said && `“${said}”`].filter(Boolean).join(" · ");
  }
}

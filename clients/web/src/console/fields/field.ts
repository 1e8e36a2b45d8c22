import type { MediaType } from "@mediamesh/contracts/media/v1/media_pb.js";
import type { ValueInit } from "../../client/index.js";
import { html } from "../element.js";
import type { Playback } from "../playback.js";

/** Where a person gives the value of one input of a flow. */
export interface Field {
  /** `node.pin`. */
  readonly key: string;
  readonly element: HTMLElement;
  /** Whether a value is there. */
  readonly isReady: boolean;
  /** What a person is asked to do while it has no value. */
  readonly wish: string;
  /** What kind of media it takes; undefined for one that takes none. */
  readonly type?: MediaType;
  /** The file that was given, where it is one. */
  readonly file?: File | undefined;
  /** What plays the file, where it is sound or moving pictures. */
  readonly player?: HTMLMediaElement | undefined;
  /** Whether a file of a media type fits. */
  fits(type: string): boolean;
  /** Takes a file that was dropped or pasted, or a sample. */
  give(file: File): void;
  /** Returns the value; rejects with a `MeshError` that says what is wrong with it. */
  value(): Promise<ValueInit>;
  /** Ends what it does, such as a recording. */
  close(): void;
}

/** What a field held at some time. */
export interface Given {
  /** `node.pin`. */
  readonly key: string;
  readonly type: MediaType | undefined;
  readonly file: File | undefined;
  readonly playback: Playback | undefined;
}

/** What a field tells: that its value changed, and whether it came whole, as a chosen file does. */
export type Changed = (isWhole: boolean) => void;

/** Returns the id of a node as a heading: `video_upload` is “Video upload”. */
export function heading(nodeId: string): string {
  const words = nodeId.replace(/[_-]+/g, " ").replace(/(?<=[a-z])(?=[A-Z])/g, " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Returns the frame of a field with its heading. */
export function framed(key: string, title: string, ...inside: Node[]): HTMLElement {
  const id = `field-${key.replace(/[^\w-]/g, "-")}`;
  return html(
    "section",
    { class: "field", "data-field": key, "aria-labelledby": id },
    html("h3", { id }, title),
    ...inside,
  );
}

// What the shipped agents send on their stream pins: one object of JSON a chunk.
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { toJson } from "@bufbuild/protobuf";
import { ValueSchema as JsonSchema } from "@bufbuild/protobuf/wkt";
import type { Chunk } from "@mediamesh/contracts/stream/v1/chunk_pb.js";

/** A word with its time in seconds of media. */
export interface Word {
  readonly text: string;
  readonly start: number;
  readonly end: number;
  /** From 0 to 1. */
  readonly probability: number;
}

/** Speech as text; a later one of the same segment takes the place of the one before, until one is final. */
export interface Transcript {
  readonly type: "transcript";
  readonly segment: number;
  readonly start: number;
  readonly end: number;
  readonly final: boolean;
  readonly text: string;
  readonly words: readonly Word[];
  readonly language: string;
}

/** A label with its probability, from 0 to 1. */
export interface Label {
  readonly label: string;
  readonly index?: number;
  readonly probability: number;
}

/** Something that was found on a frame. */
export interface Detected {
  readonly label: string;
  readonly score: number;
  /** Left, top, width and height in pixels of the frame. */
  readonly box: readonly [number, number, number, number];
}

/** What a frame of a video shows. */
export interface Frame {
  readonly type: "frame";
  readonly time: number;
  readonly index: number;
  readonly width: number;
  readonly height: number;
  readonly analysis: string;
  readonly objects: readonly Detected[];
  readonly labels: readonly Label[];
  readonly activity?: { readonly label: string; readonly score: number };
  /** Share of the picture that moved, from 0 to 1. */
  readonly motion?: number;
  /** Frames left out since the last result. */
  readonly dropped: number;
}

/** What a picture shows. */
export interface Picture {
  readonly type: "image";
  readonly time: number;
  readonly classification: readonly Label[];
}

/** A block of text on a page. */
export interface Block {
  readonly text: string;
  readonly score: number;
  /** Its four corners in pixels of the page. */
  readonly box: readonly (readonly [number, number])[];
}

/** A page of a document that was read. */
export interface Page {
  readonly type: "page";
  readonly page: number;
  readonly pages: number;
  readonly width: number;
  readonly height: number;
  readonly blocks: readonly Block[];
}

/** A result of several media on one axis of time. */
export interface Combined {
  readonly type: "combined";
  readonly time: number;
  readonly source: "image" | "audio" | "video";
  readonly result: Transcript | Frame | Picture;
  /** Whether it came after results of a later time. */
  readonly late: boolean;
}

/** Anything that a shipped agent streams. */
export type Result = Transcript | Frame | Picture | Page | Combined;

/** Returns the JSON of a chunk that carries a result, so far or final; undefined for other chunks. */
export function dataOf(chunk: Chunk | undefined): JsonValue | undefined {
  const payload = chunk?.payload;
  if (payload?.case !== "snapshot" && payload?.case !== "final") return undefined;
  return payload.value.data && toJson(JsonSchema, payload.value.data);
}

/** Returns the result that a chunk carries; undefined for a chunk that carries something else. */
export function resultOf(chunk: Chunk | undefined): Result | undefined {
  return resultIn(dataOf(chunk));
}

/** Returns the result that JSON spells, with what it leaves out filled in; undefined when it spells none. */
export function resultIn(data: JsonValue | undefined): Result | undefined {
  if (!isObject(data)) return undefined;
  switch (data["type"]) {
    case "transcript":
      return transcript(data);
    case "frame":
      return frame(data);
    case "image":
      return { type: "image", time: number(data["time"]), classification: labelsIn(data["classification"]) };
    case "page":
      return page(data);
    case "combined":
      return combined(data);
    default:
      return undefined;
  }
}

/** Returns the labels in a JSON value, most likely first; none if it is something else. */
export function labelsIn(value: JsonValue | undefined): Label[] {
  const labels = list(value).flatMap((entry) => {
    const { label, probability, index } = entry;
    if (typeof label !== "string" || typeof probability !== "number") return [];
    return [{ label, probability, ...(typeof index === "number" && { index }) }];
  });
  return labels.toSorted((one, other) => other.probability - one.probability);
}

/** Returns the segments of speech in a JSON value; none if it is something else. */
export function segmentsIn(value: JsonValue | undefined): Transcript[] {
  const all = list(value).filter(({ text, start, end }) => typeof text === "string" && [start, end].every(Number.isFinite));
  return all.map((entry, index) => ({
    ...transcript(entry),
    segment: number(entry["segment"], index),
    final: true,
  }));
}

/** Returns the blocks of text in a JSON value, by page; none if it is something else. */
export function blocksIn(value: JsonValue | undefined): (Block & { readonly page: number })[] {
  const all = list(value).filter(({ text, box }) => typeof text === "string" && Array.isArray(box));
  return all.map((entry) => ({ ...block(entry), page: number(entry["page"], 1) }));
}

function transcript(data: JsonObject): Transcript {
  const words = list(data["words"]).map((word) => ({
    text: string(word["text"]),
    start: number(word["start"]),
    end: number(word["end"]),
    probability: number(word["probability"], 1),
  }));
  return {
    type: "transcript",
    segment: number(data["segment"]),
    start: number(data["start"]),
    end: number(data["end"]),
    final: data["final"] === true,
    text: string(data["text"]),
    words,
    language: string(data["language"]),
  };
}

function frame(data: JsonObject): Frame {
  const activity = data["activity"];
  const objects = list(data["objects"]).flatMap(({ label, score, box }) => {
    const sides = Array.isArray(box) ? box.map((side) => number(side)) : [];
    const [x, y, width, height] = sides;
    if (typeof label !== "string" || x === undefined || y === undefined || width === undefined || height === undefined) return [];
    return [{ label, score: number(score), box: [x, y, width, height] as const }];
  });
  return {
    type: "frame",
    time: number(data["time"]),
    index: number(data["index"]),
    width: number(data["width"]),
    height: number(data["height"]),
    analysis: string(data["analysis"]),
    objects,
    labels: labelsIn(data["labels"]),
    ...(isObject(activity) && { activity: { label: string(activity["label"]), score: number(activity["score"]) } }),
    ...(typeof data["motion"] === "number" && { motion: data["motion"] }),
    dropped: number(data["dropped"]),
  };
}

function page(data: JsonObject): Page {
  return {
    type: "page",
    page: number(data["page"], 1),
    pages: number(data["pages"], 1),
    width: number(data["width"]),
    height: number(data["height"]),
    blocks: list(data["blocks"]).map(block),
  };
}

function block(data: JsonObject): Block {
  const corners = Array.isArray(data["box"]) ? data["box"] : [];
  const box = corners.flatMap((corner) => (Array.isArray(corner) ? [[number(corner[0]), number(corner[1])] as const] : []));
  return { text: string(data["text"]), score: number(data["score"]), box };
}

function combined(data: JsonObject): Combined | undefined {
  const result = resultIn(data["result"]);
  if (result?.type !== "transcript" && result?.type !== "frame" && result?.type !== "image") return undefined;
  const source = ({ transcript: "audio", frame: "video", image: "image" } as const)[result.type];
  return { type: "combined", time: number(data["time"]), source, result, late: data["late"] === true };
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function list(value: JsonValue | undefined): JsonObject[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function number(value: JsonValue | undefined, otherwise = 0): number {
  return typeof value === "number" ? value : otherwise;
}

function string(value: JsonValue | undefined): string {
  return typeof value === "string" ? value : "";
}

import type { JsonValue, MessageInitShape } from "@bufbuild/protobuf";
import { fromJson, toJson } from "@bufbuild/protobuf";
import { ValueSchema as JsonSchema } from "@bufbuild/protobuf/wkt";
import type { Value, ValueSchema } from "@mediamesh/contracts/agent/v1/value_pb.js";
import { MediaType, type MediaReference } from "@mediamesh/contracts/media/v1/media_pb.js";
import { MeshError } from "./errors.js";

/** A value for a pin, as a request carries it. */
export type ValueInit = MessageInitShape<typeof ValueSchema>;

/** Most bytes of media that travel inside a request: 20 MiB. */
export const INLINE_LIMIT_BYTES = 20 * 1024 * 1024;

/** What people call a kind of media. */
const NAMES: Record<MediaType, string> = {
  [MediaType.UNSPECIFIED]: "file",
  [MediaType.IMAGE]: "picture",
  [MediaType.AUDIO]: "recording",
  [MediaType.VIDEO]: "video",
  [MediaType.DOCUMENT]: "document",
  [MediaType.FILE]: "file",
};

/**
 * Returns a file as a value for a pin of its kind.
 *
 * @throws MeshError when the file is empty or over 20 MiB; whether it is what its pin takes, the mesh says.
 */
export async function mediaValue(file: File, type: MediaType): Promise<ValueInit> {
  const name = NAMES[type];
  if (file.size === 0) throw new MeshError(`“${file.name}” is empty; choose a ${name}.`, "INVALID_REQUEST");
  if (file.size > INLINE_LIMIT_BYTES) {
    const size = (file.size / 1024 ** 2).toFixed(1);
    throw new MeshError(`“${file.name}” has ${size} MiB; a ${name} may have 20 MiB at most.`, "MEDIA_TOO_LARGE");
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  return { kind: { case: "media", value: { type, source: { case: "inline", value: bytes } } } };
}

/** Returns a picture as a value for an image pin; throws as `mediaValue` does. */
export const imageValue = (file: File): Promise<ValueInit> => mediaValue(file, MediaType.IMAGE);
/** Returns sound as a value for an audio pin, such as a recording of `MediaRecorder`; throws as `mediaValue` does. */
export const audioValue = (file: File): Promise<ValueInit> => mediaValue(file, MediaType.AUDIO);
/** Returns moving pictures as a value for a video pin; throws as `mediaValue` does. */
export const videoValue = (file: File): Promise<ValueInit> => mediaValue(file, MediaType.VIDEO);
/** Returns a PDF as a value for a document pin; throws as `mediaValue` does. */
export const documentValue = (file: File): Promise<ValueInit> => mediaValue(file, MediaType.DOCUMENT);

/** Returns stored media as a value, such as one that an earlier run gave. */
export function referenceValue(reference: MediaReference, type: MediaType): ValueInit {
  return { kind: { case: "media", value: { type, source: { case: "ref", value: reference } } } };
}

/** Returns what a text, a number or a boolean is on a pin of its type. */
export function plainValue(value: string | number | boolean): ValueInit {
  switch (typeof value) {
    case "string":
      return { kind: { case: "text", value } };
    case "number":
      return { kind: { case: "number", value } };
    default:
      return { kind: { case: "boolean", value } };
  }
}

/** Returns anything that JSON can spell as a value for a `json` pin. */
export function jsonValue(value: JsonValue): ValueInit {
  return { kind: { case: "json", value: fromJson(JsonSchema, value) } };
}

/** Returns what a JSON pin carries; undefined for values of other pins. */
export function jsonOf(value: Value | undefined): JsonValue | undefined {
  return value?.kind.case === "json" ? toJson(JsonSchema, value.kind.value) : undefined;
}

/** Returns the stored media that a value points to; undefined for all other values. */
export function referenceOf(value: Value | undefined): MediaReference | undefined {
  const media = value?.kind.case === "media" ? value.kind.value : undefined;
  return media?.source.case === "ref" ? media.source.value : undefined;
}

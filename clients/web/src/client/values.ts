import type { JsonValue, MessageInitShape } from "@bufbuild/protobuf";
import { toJson } from "@bufbuild/protobuf";
import { ValueSchema as JsonSchema } from "@bufbuild/protobuf/wkt";
import type { Value, ValueSchema } from "@mediamesh/contracts/agent/v1/value_pb.js";
import { MediaType } from "@mediamesh/contracts/media/v1/media_pb.js";
import { MeshError } from "./errors.js";

/** Most bytes of media that travel inside a request: 20 MiB. */
export const INLINE_LIMIT_BYTES = 20 * 1024 * 1024;

/**
 * Returns a picture as a value for an image pin.
 *
 * @throws MeshError when the file is empty or over 20 MiB; whether it is a picture, the mesh says.
 */
export async function imageValue(file: File): Promise<MessageInitShape<typeof ValueSchema>> {
  if (file.size === 0) throw new MeshError(`“${file.name}” is empty; choose a picture.`, "INVALID_REQUEST");
  if (file.size > INLINE_LIMIT_BYTES) {
    const size = (file.size / 1024 ** 2).toFixed(1);
    throw new MeshError(`“${file.name}” has ${size} MiB; a picture may have 20 MiB at most.`, "MEDIA_TOO_LARGE");
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  return { kind: { case: "media", value: { type: MediaType.IMAGE, source: { case: "inline", value: bytes } } } };
}

/** Returns what a JSON pin carries; undefined for values of other pins. */
export function jsonOf(value: Value | undefined): JsonValue | undefined {
  return value?.kind.case === "json" ? toJson(JsonSchema, value.kind.value) : undefined;
}

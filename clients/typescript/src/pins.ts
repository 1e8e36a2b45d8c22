/** Which value fits which pin. */

import { create, fromJson, isMessage, toJson } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { ValueSchema as JsonValueSchema } from "@bufbuild/protobuf/wkt";
import { PinType } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import type { Pin } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import { ValueSchema } from "@mediamesh/contracts/agent/v1/value_pb.js";
import type { Value } from "@mediamesh/contracts/agent/v1/value_pb.js";
import { MediaType, MediaValueSchema } from "@mediamesh/contracts/media/v1/media_pb.js";
import type { MediaValue } from "@mediamesh/contracts/media/v1/media_pb.js";

import type { Reason } from "./errors.js";

/** What is wrong with a value, in words that go on from the name of its pin. */
export type Fault = { reason: Reason; text: string };
/** A value as agents see it. */
export type Plain = string | number | boolean | Uint8Array | MediaValue | JsonValue;

/** The kind of media on each pin that carries media. */
export const MEDIA_TYPES: ReadonlyMap<PinType, MediaType> = new Map([
  [PinType.IMAGE, MediaType.IMAGE],
  [PinType.AUDIO, MediaType.AUDIO],
  [PinType.VIDEO, MediaType.VIDEO],
  [PinType.DOCUMENT, MediaType.DOCUMENT],
]);
const KINDS: ReadonlyMap<string, PinType> = new Map([
  ["text", PinType.STRING],
  ["number", PinType.NUMBER],
  ["boolean", PinType.BOOLEAN],
  ["json", PinType.JSON],
  ["binary", PinType.BINARY],
  ["stream", PinType.STREAM],
]);

/** A type as manifests write it. */
export const typeName = (type: PinType): string => (PinType[type] ?? "nothing").toLowerCase();
/** A kind of media as manifests write it. */
export const mediaName = (type: MediaType): string => (MediaType[type] ?? "unknown").toLowerCase();

/** Everything that makes a value unfit for a pin. */
export function faults(pin: Pin, value: Value): Fault[] {
  const { kind } = value;
  if (kind.case === "media" && (MEDIA_TYPES.has(pin.type) || pin.type === PinType.BINARY)) {
    return mediaFaults(pin, kind.value);
  }
  if (kind.case === undefined || KINDS.get(kind.case) !== pin.type) {
    const got = kind.case === "media" ? mediaName(kind.value.type) : typeName(KINDS.get(kind.case ?? "") ?? 0);
    const reason = MEDIA_TYPES.has(pin.type) ? "UNSUPPORTED_MEDIA_TYPE" : "INVALID_REQUEST";
    return [{ reason, text: `takes ${typeName(pin.type)}, got ${got}` }];
  }
  return limitFaults(pin, value);
}

function limitFaults(pin: Pin, { kind }: Value): Fault[] {
  const limits = pin.constraints;
  const found: string[] = [];
  if (limits === undefined) return [];
  if (kind.case === "number") {
    if (limits.minimum !== undefined && !(kind.value >= limits.minimum))
      found.push(`must be at least ${limits.minimum}, is ${kind.value}`);
    if (limits.maximum !== undefined && !(kind.value <= limits.maximum))
      found.push(`must be at most ${limits.maximum}, is ${kind.value}`);
  }
  if (kind.case === "text" && limits.enumValues.length > 0 && !limits.enumValues.includes(kind.value))
    found.push(`must be one of ${limits.enumValues.join(", ")}`);
  if (kind.case === "text" || kind.case === "binary") {
    const size = kind.case === "text" ? new TextEncoder().encode(kind.value).length : kind.value.length;
    if (limits.maxSizeBytes > 0n && size > limits.maxSizeBytes)
      found.push(`must be at most ${limits.maxSizeBytes} bytes, is ${size}`);
  }
  return found.map((text) => ({ reason: "INVALID_REQUEST", text }));
}

function mediaFaults(pin: Pin, media: MediaValue): Fault[] {
  const wanted = MEDIA_TYPES.get(pin.type) ?? media.type;
  if (media.type !== wanted)
    return [{ reason: "UNSUPPORTED_MEDIA_TYPE", text: `takes ${typeName(pin.type)}, got ${mediaName(media.type)}` }];
  const { source } = media;
  if (source.case === undefined || source.case === "url")
    return [{ reason: "INVALID_REQUEST", text: "must be a reference into the media store or inline" }];
  const most = pin.constraints?.maxSizeBytes ?? 0n;
  const size = source.case === "ref" ? source.value.sizeBytes : BigInt(source.value.length);
  if (most > 0n && size > most)
    return [{ reason: "MEDIA_TOO_LARGE", text: `must be at most ${most} bytes, is ${size}` }];
  return [];
}

/** The value as agents see it. */
export function fromValue({ kind }: Value): Plain {
  switch (kind.case) {
    case "json":
      return toJson(JsonValueSchema, kind.value);
    case undefined:
    case "stream":
      return null;
    default:
      return kind.value;
  }
}

/** The value of a pin's type that an agent gave; undefined where it is of another type. */
export function toValue(pin: Pin, given: Plain): Value | undefined {
  if (pin.type === PinType.JSON)
    return create(ValueSchema, { kind: { case: "json", value: fromJson(JsonValueSchema, given as JsonValue) } });
  if (pin.type === PinType.STRING && typeof given === "string")
    return create(ValueSchema, { kind: { case: "text", value: given } });
  if (pin.type === PinType.NUMBER && typeof given === "number")
    return create(ValueSchema, { kind: { case: "number", value: given } });
  if (pin.type === PinType.BOOLEAN && typeof given === "boolean")
    return create(ValueSchema, { kind: { case: "boolean", value: given } });
  if (pin.type === PinType.BINARY && given instanceof Uint8Array)
    return create(ValueSchema, { kind: { case: "binary", value: given } });
  if (isMessage(given, MediaValueSchema)) return create(ValueSchema, { kind: { case: "media", value: given } });
  return undefined;
}

// Streams as the JSON edges spell them: names of fields as in the contract, enums as words, a chunk by its kind.
import type { DescField, DescMessage, Message, MessageShape } from "@bufbuild/protobuf";
import { toJson } from "@bufbuild/protobuf";
import type { ReflectMessage } from "@bufbuild/protobuf/reflect";
import { reflect } from "@bufbuild/protobuf/reflect";
import { base64Encode } from "@bufbuild/protobuf/wire";
import type { Any, Timestamp, Value } from "@bufbuild/protobuf/wkt";
import { anyUnpack, TimestampSchema, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { ErrorReason } from "@mediamesh/contracts/errors/v1/error_reason_pb.js";
import { ErrorInfoSchema } from "@mediamesh/contracts/google/rpc/error_details_pb.js";
import type { Status } from "@mediamesh/contracts/google/rpc/status_pb.js";
import type { Chunk, Media } from "@mediamesh/contracts/stream/v1/chunk_pb.js";
import { MediaSchema } from "@mediamesh/contracts/stream/v1/chunk_pb.js";
import type { StreamMetadata } from "@mediamesh/contracts/stream/v1/stream_pb.js";
import { StreamMetadataSchema } from "@mediamesh/contracts/stream/v1/stream_pb.js";
import { ChunkSchema } from "@mediamesh/contracts/stream/v1/chunk_pb.js";
import { DOMAIN, MeshError } from "../errors.js";

/** An object of JSON. */
export type Spelled = { [key: string]: unknown };

/** What an event carries. */
export interface Payload {
  readonly data?: Chunk | undefined;
  readonly metadata?: StreamMetadata | undefined;
  readonly error?: Status | undefined;
}

/** Returns an event as a WebSocket takes it: text, or bytes where the chunk has bytes of media beside the JSON. */
export function publishFrame(eventType: string, sequence: bigint, payload: Payload): string | Uint8Array<ArrayBuffer> {
  const media = mediaOf(payload.data);
  const apart = media?.data.case === "binary" ? media.data.value : undefined;
  const spelled: Spelled = {
    ...(payload.data && { data: chunkOf(payload.data, apart !== undefined) }),
    ...(payload.metadata && { metadata: fields(reflect(StreamMetadataSchema, payload.metadata)) }),
    ...(payload.error && { error: statusOf(payload.error) }),
  };
  const text = JSON.stringify({ event_type: eventType, sequence: Number(sequence), payload: spelled });
  return apart ? packed(text, apart) : text;
}

/** Returns the error that an object of an edge spells. */
export function errorOf(spelled: unknown): MeshError {
  const { code, reason, message, metadata, details } = spelled as Spelled;
  const known = typeof reason === "string" && reason in ErrorReason ? (reason as keyof typeof ErrorReason) : "";
  const retry = (Array.isArray(details) ? details : []).find((detail: Spelled) => String(detail["@type"]).endsWith("RetryInfo"));
  return new MeshError(String(message || code), known, {
    code: CODES.get(String(code)) ?? Code.Unknown,
    metadata: (metadata ?? {}) as Record<string, string>,
    retryAfterMs: retry && 1000 * parseFloat(String((retry as Spelled)["retryDelay"])),
  });
}

/** gRPC's names of the codes, such as `NOT_FOUND`. */
const NAMES = new Map<number, string>([[0, "OK"]]);
for (const code of Object.values(Code).filter((value) => typeof value === "number")) {
  const name = Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
  NAMES.set(code, name === "CANCELED" ? "CANCELLED" : name);
}
const CODES = new Map([...NAMES].map(([code, name]) => [name, code as Code]));

// 4 bytes with the length of the JSON, the JSON, the bytes of the media.
function packed(text: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(text);
  const frame = new Uint8Array(4 + json.length + data.length);
  new DataView(frame.buffer).setUint32(0, json.length);
  frame.set(json, 4);
  frame.set(data, 4 + json.length);
  return frame;
}

function mediaOf(chunk: Chunk | undefined): Media | undefined {
  const payload = chunk?.payload;
  switch (payload?.case) {
    case "media":
    case "attachment":
    case "attachmentComplete":
      return payload.value;
    default:
      return undefined;
  }
}

function chunkOf(chunk: Chunk, isApart: boolean): Spelled {
  const kind = ChunkSchema.fields.find(({ localName }) => localName === chunk.payload.case)?.name ?? "";
  const spelled: Spelled = { kind, ...fields(reflect(ChunkSchema, chunk)) };
  const media = isApart && mediaOf(chunk);
  return media ? { ...spelled, [kind]: mediaFields(media, null) } : spelled;
}

function mediaFields(media: Media, data: null | string): Spelled {
  const { binary: _, ...rest } = fields(reflect(MediaSchema, { ...media, data: { case: undefined } }));
  return { ...rest, encoding: data === null ? "binary" : "base64", data };
}

function statusOf(status: Status): Spelled {
  const info = infoOf(status.details);
  return {
    code: NAMES.get(status.code) ?? String(status.code),
    reason: info?.reason ?? "",
    message: status.message,
    metadata: info?.metadata ?? {},
  };
}

function infoOf(details: readonly Any[]) {
  return details.map((detail) => anyUnpack(detail, ErrorInfoSchema)).find((info) => info?.domain === DOMAIN);
}

function fields(message: ReflectMessage): Spelled {
  const spelled: Spelled = {};
  for (const field of message.fields) if (message.isSet(field)) spelled[field.name] = one(field, message.get(field));
  return spelled;
}

function one(field: DescField, value: unknown): unknown {
  if (field.fieldKind === "list") return [...(value as Iterable<unknown>)].map((entry) => item(field, entry));
  return item(field, value);
}

function item(field: DescField, value: unknown): unknown {
  if (field.enum) {
    const prefix = (field.enum.sharedPrefix ?? "").length;
    return field.enum.value[value as number]?.name.slice(prefix).toLowerCase() ?? String(value);
  }
  if (field.message) return messageOf(field.message, value as ReflectMessage | Message);
  return typeof value === "bigint" ? Number(value) : value;
}

function messageOf(desc: DescMessage, value: ReflectMessage | Message): unknown {
  const message = "desc" in value && "message" in value ? (value as ReflectMessage).message : (value as Message);
  switch (desc.typeName) {
    case TimestampSchema.typeName:
      return toJson(TimestampSchema, message as Timestamp);
    case ValueSchema.typeName:
      return toJson(ValueSchema, message as Value);
    case "google.rpc.Status":
      return statusOf(message as Status);
    case MediaSchema.typeName:
      return mediaWhole(message as Media);
    default:
      return fields(reflect(desc, message as MessageShape<DescMessage>));
  }
}

function mediaWhole(media: Media): Spelled {
  if (media.data.case === "binary") return mediaFields(media, base64Encode(media.data.value));
  const { text, ...rest } = fields(reflect(MediaSchema, media));
  return text === undefined ? rest : { ...rest, data: text };
}

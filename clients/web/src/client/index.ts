export { BACKOFF, type BackoffPolicy } from "./backoff.js";
export type { CallInit } from "./call.js";
export { DOMAIN, MeshError, type FieldViolation } from "./errors.js";
export {
  createMesh,
  type FlowInputs,
  type FlowText,
  type Mesh,
  type MeshInit,
  type RunInit,
  type WatchInit,
} from "./mesh.js";
export { imageValue, INLINE_LIMIT_BYTES, jsonOf } from "./values.js";
export { createStreams, type PublishInit, type Streams, type StreamsInit, type SubscribeInit } from "./streams.js";
export type { PublishWindow } from "./streams/conversation.js";
export type { Publisher } from "./streams/publisher.js";
export { isGap, isLast, type StreamItem } from "./streams/reading.js";

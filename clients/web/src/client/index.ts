export { BACKOFF, type BackoffPolicy } from "./backoff.js";
export type { CallInit } from "./call.js";
export { chunksOf, resultsOf, type PinnedChunk } from "./chunks.js";
export { DOMAIN, MeshError, type FieldViolation } from "./errors.js";
export { createMedia, type MediaStore, type ReadInit } from "./media.js";
export {
  createMesh,
  type FlowInputs,
  type FlowText,
  type Mesh,
  type MeshInit,
  type RunInit,
  type WatchInit,
} from "./mesh.js";
export {
  blocksIn,
  dataOf,
  labelsIn,
  resultIn,
  resultOf,
  segmentsIn,
  type Block,
  type Combined,
  type Detected,
  type Frame,
  type Label,
  type Page,
  type Picture,
  type Result,
  type Transcript,
  type Word,
} from "./results.js";
export {
  audioValue,
  documentValue,
  imageValue,
  INLINE_LIMIT_BYTES,
  jsonOf,
  jsonValue,
  mediaValue,
  plainValue,
  referenceOf,
  referenceValue,
  videoValue,
  type ValueInit,
} from "./values.js";
export { createStreams, type PublishInit, type Streams, type StreamsInit, type SubscribeInit } from "./streams.js";
export type { PublishWindow } from "./streams/conversation.js";
export type { Publisher } from "./streams/publisher.js";
export { isGap, isLast, type StreamItem } from "./streams/reading.js";

/** Agents of mediamesh in TypeScript: implement {@link Agent}, describe it in a manifest, and `main` serves it. */

export { Run } from "./agent.js";
export type { Agent } from "./agent.js";
export { MeshError } from "./errors.js";
export type { Reason, Violation } from "./errors.js";
export { loadManifest, parseManifest } from "./manifest.js";
export type { ChunkInit, Output } from "./outputs.js";
export type { Plain } from "./pins.js";
export { main, serving } from "./server.js";
export type { Serving } from "./server.js";

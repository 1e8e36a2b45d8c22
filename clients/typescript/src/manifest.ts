/** Manifests: `manifest.yaml` read into the contract's message. */

import { readFileSync } from "node:fs";

import { fromJson } from "@bufbuild/protobuf";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { ManifestSchema } from "@mediamesh/contracts/agent/v1/manifest_pb.js";
import type { Manifest } from "@mediamesh/contracts/agent/v1/manifest_pb.js";
import { parse } from "yaml";

const SIZES: Readonly<Record<string, number>> = { B: 0, K: 1, M: 2, G: 3, T: 4 };
const SECONDS: Readonly<Record<string, number>> = { ms: 0.001, s: 1, m: 60, h: 3600 };

/**
 * Read a manifest.
 *
 * @throws Error naming the file, where it is missing or not what the contract has.
 */
export function loadManifest(path: string | URL): Manifest {
  try {
    return parseManifest(readFileSync(path, "utf-8"));
  } catch (error) {
    throw new Error(`${String(path)}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** The manifest that a YAML text spells. */
export function parseManifest(text: string): Manifest {
  return fromJson(ManifestSchema, spelt(parse(text) as JsonObject, "") as JsonObject);
}

/** YAML as people write it, as the JSON of the message: names of enums, sizes, durations, media types with commas. */
function spelt(value: JsonValue, key: string): JsonValue {
  if (Array.isArray(value)) return value.map((item) => spelt(item, key));
  if (key === "default" || key === "defaultValue") return value;
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [name === "mimeType" ? "mimeTypes" : name, spelt(item, name)]),
    );
  }
  if (typeof value === "number" && key === "maxSize") return String(value);
  if (typeof value !== "string") return value;
  switch (key) {
    case "type":
      return `PIN_TYPE_${value.toUpperCase()}`;
    case "mode":
      return `RESPONSE_MODE_${value.toUpperCase()}`;
    case "chunkType":
    case "chunk_type":
      return `RESPONSE_CHUNK_TYPE_${value.toUpperCase()}`;
    case "mimeType":
      return value.split(",").map((item) => item.trim());
    case "maxSize":
      return bytes(value);
    case "ttl":
      return seconds(value);
    default:
      return value;
  }
}

/** `10MB` is a power of 1000, `10MiB` one of 1024. */
function bytes(text: string): string {
  const match = /^(\d+(?:\.\d+)?)\s*(B|[KMGT]I?B)?$/i.exec(text.trim());
  if (match === null) throw new Error(`maxSize: ${text} is no size such as 10MB`);
  const unit = (match[2] ?? "B").toUpperCase();
  return String(Math.round(Number(match[1]) * (unit.includes("I") ? 1024 : 1000) ** (SIZES[unit.charAt(0)] ?? 0)));
}

function seconds(text: string): string {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h)?$/.exec(text.trim());
  if (match === null) throw new Error(`ttl: ${text} is no duration such as 1h`);
  return `${Number(match[1]) * (SECONDS[match[2] ?? "s"] ?? 1)}s`;
}

/** The frame that opens a run, against the agent's manifest; all faults at once, before the agent runs. */

import { create, fromJson, toJson } from "@bufbuild/protobuf";
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { ValueSchema as JsonValueSchema } from "@bufbuild/protobuf/wkt";
import type { OpenRun } from "@mediamesh/contracts/agent/v1/agent_service_pb.js";
import { ResponseMode } from "@mediamesh/contracts/agent/v1/manifest_pb.js";
import type { Manifest } from "@mediamesh/contracts/agent/v1/manifest_pb.js";
import { PinType } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import type { Pin } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import { ValueSchema } from "@mediamesh/contracts/agent/v1/value_pb.js";

import { MeshError } from "./errors.js";
import type { Violation } from "./errors.js";
import { MEDIA_TYPES, faults, fromValue, mediaName, toValue, typeName } from "./pins.js";
import type { Plain } from "./pins.js";

/** What a run starts with, as its agent sees it. */
export type Opening = { inputs: Record<string, Plain>; params: Record<string, JsonValue> };

type Found = Violation & { reason: MeshError["reason"] };

/** The inputs and parameters of a run, defaults filled in; throws MeshError where they do not fit the manifest. */
export function checkOpening(manifest: Manifest, open: OpenRun): Opening {
  checkMode(manifest, open);
  checkModalities(manifest, open);
  const params: JsonObject = { ...defaults(manifest), ...open.params };
  const found = [...inputFaults(manifest, open), ...paramFaults(manifest, params)];
  if (found.length > 0) {
    const reasons = new Set(found.map(({ reason }) => reason));
    const [reason] = reasons.size === 1 ? reasons : new Set(["INVALID_REQUEST" as const]);
    throw MeshError.ofFields(
      found.map(({ field, description }) => ({ field, description })),
      reason,
    );
  }
  const inputs = Object.entries(open.inputs).map(([name, value]) => [name, fromValue(value)] as const);
  return { inputs: Object.fromEntries(inputs), params };
}

function checkMode(manifest: Manifest, open: OpenRun): void {
  const mode = manifest.response?.mode ?? ResponseMode.UNSPECIFIED;
  const streams = mode === ResponseMode.STREAMING || mode === ResponseMode.BOTH;
  if (open.responseMode === ResponseMode.STREAMING && !streams)
    throw new MeshError(
      "STREAMING_NOT_SUPPORTED",
      `The module ${manifest.id} answers at once (response.mode is sync); ask it for no stream.`,
    );
}

/** Media goes where the pin takes it, or else the modalities have its kind. */
function checkModalities(manifest: Manifest, open: OpenRun): void {
  const declared = manifest.modalities?.input ?? [];
  const byPins = manifest.inputs.map(({ type }) => (MEDIA_TYPES.has(type) ? typeName(type) : "text"));
  const taken = new Set(declared.length > 0 ? declared : byPins);
  for (const pin of manifest.inputs) {
    const kind = open.inputs[pin.name]?.kind;
    if (kind?.case !== "media" || MEDIA_TYPES.has(pin.type) || pin.type === PinType.BINARY) continue;
    const name = mediaName(kind.value.type);
    if (!taken.has(name))
      throw new MeshError(
        "MULTIMODAL_NOT_SUPPORTED",
        `${manifest.id} takes ${[...taken].sort().join(", ")} and no ${name} at \`${pin.name}\`.`,
      );
  }
}

function defaults(manifest: Manifest): JsonObject {
  const set = manifest.params.filter(({ defaultValue }) => defaultValue !== undefined);
  return Object.fromEntries(
    set.map(({ name, defaultValue }) => [name, toJson(JsonValueSchema, defaultValue ?? create(JsonValueSchema))]),
  );
}

function* inputFaults(manifest: Manifest, open: OpenRun): Generator<Found> {
  const pins = new Map(manifest.inputs.map((pin) => [pin.name, pin]));
  const invalid = (field: string, description: string): Found => ({ field, description, reason: "INVALID_REQUEST" });
  for (const [name, value] of Object.entries(open.inputs)) {
    const pin = pins.get(name);
    if (pin === undefined) yield invalid(`inputs.${name}`, unknown("input", pins.keys()));
    else for (const { reason, text } of faults(pin, value)) yield { field: `inputs.${name}`, description: text, reason };
    if (value.kind.case === "stream")
      yield invalid(`inputs.${name}`, "its chunks must come as frames, not as a reference");
  }
  for (const name of open.streamInputs) {
    const pin = pins.get(name);
    if (pin === undefined) yield invalid(`stream_inputs.${name}`, unknown("input", pins.keys()));
    else if (pin.type !== PinType.STREAM)
      yield invalid(`stream_inputs.${name}`, "is no stream: it takes a single value");
  }
  for (const { name, optional } of pins.values())
    if (!optional && !(name in open.inputs) && !open.streamInputs.includes(name))
      yield invalid(`inputs.${name}`, "is required");
}

function* paramFaults(manifest: Manifest, params: JsonObject): Generator<Found> {
  const pins = new Map(manifest.params.map((pin) => [pin.name, pin]));
  const invalid = (name: string, description: string): Found => ({
    field: `params.${name}`,
    description,
    reason: "INVALID_REQUEST",
  });
  for (const [name, given] of Object.entries(params)) {
    const pin = pins.get(name);
    if (pin === undefined) yield invalid(name, unknown("parameter", pins.keys()));
    else yield* paramFault(pin, given).map((text) => invalid(name, text));
  }
  for (const { name, optional } of pins.values())
    if (!optional && !(name in params)) yield invalid(name, "is required");
}

function paramFault(pin: Pin, given: JsonValue): string[] {
  const value =
    pin.type === PinType.JSON
      ? create(ValueSchema, { kind: { case: "json", value: fromJson(JsonValueSchema, given) } })
      : toValue(pin, given);
  if (value === undefined) return [`takes ${typeName(pin.type)}, got ${given === null ? "nothing" : typeof given}`];
  return faults(pin, value).map(({ text }) => text);
}

function unknown(what: string, known: Iterable<string>): string {
  return `the agent has no such ${what}; it has ${[...known].join(", ") || "none"}`;
}

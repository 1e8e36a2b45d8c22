import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { PinSchema, PinType } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import { FlowSchema } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { MediaType } from "@mediamesh/contracts/media/v1/media_pb.js";
import { describe, expect, it } from "vitest";
import { audioValue, jsonValue, MeshError, plainValue, videoValue } from "../src/client/index.js";
import { accepted, takes } from "../src/console/fields/accept.js";
import { heading } from "../src/console/fields/field.js";
import { loudness } from "../src/console/fields/recording.js";
import { wav } from "../src/console/fields/wav.js";
import { known, SHIPPED } from "../src/console/flows.js";
import { wanted } from "../src/console/inputs.js";
import { upstream } from "../src/console/run.js";
import { contained, hue } from "../src/console/views/overlay.js";
import { CLASSIFY } from "./fake_flows.js";
import { MULTIMODAL, SHOWCASE } from "./fake_streaming.js";

const pin = (type: PinType, constraints: MessageInitShape<typeof PinSchema>["constraints"] = {}) =>
  create(PinSchema, { name: "file", type, constraints });

describe("The flows", () => {
  it("that ship can be chosen, the simplest first, with their names", () => {
    expect(SHIPPED.slice(0, 3).map(({ slug, name }) => [slug, name])).toEqual([
      ["classify", "Classify a photo"],
      ["multimodal-test", "Multimodal test"],
      ["showcase", "Showcase"],
    ]);
  });

  it("of a user's own have the name in their text, else that of their file", () => {
    expect(known("mine.mlab", "meta:\n  id: x\n  name: 'My flow'\n")).toMatchObject({ slug: "mine", name: "My flow" });
    expect(known("mine.mlab", "kind: Flow")).toMatchObject({ slug: "mine", name: "mine" });
  });

  it("bring the flows along that they name", () => {
    const { source } = known("outer.mlab", "graph:\n  nodes:\n    - {id: a, flow: classify.mlab}\n    - {id: b, flow: missing.mlab}\n");
    expect(source.files?.map(({ name }) => name)).toEqual(["classify.mlab"]);
  });
});

describe("The inputs of a flow", () => {
  it("are the pins of its ui nodes that lead somewhere", () => {
    expect(wanted(CLASSIFY).map(({ key }) => key)).toEqual(["upload.file"]);
    expect(wanted(SHOWCASE).map(({ key }) => key)).toEqual(["photo.file", "recorder.audio", "video.file"]);
    expect(wanted(MULTIMODAL).map(({ key, pin: { type } }) => [key, type])).toEqual([["audio.file", PinType.AUDIO]]);
  });

  it("are not those that are constants, or that nothing needs", () => {
    const flow = create(FlowSchema, {
      nodes: [
        { id: "fixed", type: "ui.file-upload", outputPins: [{ name: "file" }], outputs: { file: "text" } },
        { id: "loose", type: "ui.file-upload", outputPins: [{ name: "file" }] },
      ],
      edges: [{ from: { nodeId: "fixed", pin: "file" }, to: { nodeId: "a", pin: "b" } }],
    });
    expect(wanted(flow)).toEqual([]);
  });

  it("accept what their pin is for", () => {
    expect(accepted(pin(PinType.IMAGE))).toMatchObject({ type: MediaType.IMAGE, hint: "JPEG, PNG, WebP or GIF, 20 MiB at most" });
    expect(accepted(pin(PinType.DOCUMENT))?.accept).toBe("application/pdf");
    expect(accepted(pin(PinType.VIDEO))?.accept).toContain("video/webm");
    expect(accepted(pin(PinType.BINARY))).toMatchObject({ accept: "", hint: "20 MiB at most" });
    expect(accepted(pin(PinType.STRING))).toBeUndefined();
  });

  it("say what their pin's constraints allow", () => {
    const mimeTypes = ["audio/wav", "audio/mp3", "audio/mpeg"];
    const audio = accepted(pin(PinType.AUDIO, { mimeTypes, maxSizeBytes: 2n << 20n, maxDurationSeconds: 60 }));
    expect(audio).toMatchObject({ accept: "audio/wav,.wav,audio/mpeg,.mp3", hint: "WAV or MP3, 2 MiB at most, 60 s at most", longest: 60 });
  });

  it("know a type by any of its names, with its codec, and by its family", () => {
    expect(takes({ mimeTypes: ["audio/wav", "audio/webm"] }, "audio/x-wav")).toBe(true);
    expect(takes({ mimeTypes: ["audio/webm"] }, "audio/webm;codecs=opus")).toBe(true);
    expect(takes({ mimeTypes: ["image/*"] }, "image/png")).toBe(true);
    expect(takes({ mimeTypes: ["audio/wav"] }, "audio/webm")).toBe(false);
  });

  it("are headed by the names of their nodes", () => {
    expect(["photo", "video_upload", "micInput"].map(heading)).toEqual(["Photo", "Video upload", "Mic Input"]);
  });
});

describe("A value", () => {
  it("of media carries its bytes and its kind", async () => {
    const value = await audioValue(new File(["abc"], "a.wav"));
    expect(value).toMatchObject({ kind: { value: { type: MediaType.AUDIO, source: { case: "inline" } } } });
    await expect(videoValue(new File([], "a.mp4"))).rejects.toThrow("“a.mp4” is empty; choose a video.");
    const large = new File([new Uint8Array(21 << 20)], "a.mp4");
    await expect(videoValue(large)).rejects.toMatchObject({ number: "E1011" } satisfies Partial<MeshError>);
  });

  it("that is plain is of the kind of its pin", () => {
    expect(["a", 1.5, true].map((value) => plainValue(value).kind?.case)).toEqual(["text", "number", "boolean"]);
    expect(jsonValue({ a: [1] }).kind?.case).toBe("json");
  });
});

describe("A recording", () => {
  it("is as loud as its samples", () => {
    expect(loudness(new Float32Array(512))).toBe(0);
    expect(loudness(new Float32Array(512).fill(1))).toBeCloseTo(1, 3);
    expect(loudness(new Float32Array(512).fill(0.1))).toBeCloseTo(1 - 20 / 60, 2);
  });

  it("becomes a WAV file that says what it is", () => {
    const view = new DataView(wav(Float32Array.of(0, 1, -1, 2), 16_000));
    const text = (at: number) => String.fromCharCode(...[0, 1, 2, 3].map((index) => view.getUint8(at + index)));
    expect([text(0), text(8), text(12), text(36)]).toEqual(["RIFF", "WAVE", "fmt ", "data"]);
    expect([view.getUint32(24, true), view.getUint16(34, true), view.getUint32(40, true)]).toEqual([16_000, 16, 8]);
    expect([44, 46, 48, 50].map((at) => view.getInt16(at, true))).toEqual([0, 32767, -32767, 32767]);
  });
});

describe("A viewer", () => {
  it("finds what reaches it, nearest first", () => {
    expect(upstream(SHOWCASE, "viewer")).toEqual(["combine", "classify", "transcribe", "analyze", "photo", "recorder", "video"]);
    expect(upstream(MULTIMODAL, "console")).toEqual(["transcribe", "audio"]);
  });

  it("puts boxes where the picture is within its place", () => {
    expect(contained(640, 272, { width: 640, height: 360 })).toEqual({ x: 0, y: 44, width: 640, height: 272 });
    expect(contained(100, 200, { width: 400, height: 400 })).toEqual({ x: 100, y: 0, width: 200, height: 400 });
    expect(contained(0, 0, { width: 4, height: 3 })).toEqual({ x: 0, y: 0, width: 4, height: 3 });
  });

  it("gives a label the same colour wherever it is found", () => {
    expect(hue("person")).toBe(hue("person"));
    expect(new Set(["person", "car", "dog", "bicycle", "cat"].map(hue)).size).toBe(5);
  });
});

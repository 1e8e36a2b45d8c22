// Runs of flows that stream: a photo, a recording and a video, their results in the order of media time.
import type { JsonObject } from "@bufbuild/protobuf";
import { create, fromJson } from "@bufbuild/protobuf";
import { ValueSchema as JsonSchema } from "@bufbuild/protobuf/wkt";
import { PinType } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import { ExecutionState } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import { FlowSchema, type Flow } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { LABELS, type Happening } from "./fake_flows.js";

type PinInit = { name: string; type: PinType };
const pin = (name: string, type: PinType): PinInit => ({ name, type });
const edge = (from: string, to: string) => ({ from: address(from), to: address(to) });
const address = (spelled: string) => {
  const [nodeId = "", name = ""] = spelled.split(".");
  return { nodeId, pin: name };
};
const node = (id: string, type: string, inputPins: PinInit[], outputPins: PinInit[]) => ({ id, type, inputPins, outputPins });

const TRANSCRIBER = { type: "mediamesh.audio-transcriber", inputs: [pin("audio", PinType.AUDIO)], outputs: [pin("transcript", PinType.STREAM)] };

/** The flow as the mesh reads showcase.mlab. */
export const SHOWCASE: Flow = create(FlowSchema, {
  id: "showcase",
  name: "Showcase",
  description: "Classifies a photo, transcribes a recording, finds objects in a video, and shows all of it in one stream.",
  nodes: [
    node("photo", "ui.file-upload", [], [pin("file", PinType.IMAGE)]),
    node("recorder", "ui.audio-recorder", [], [pin("audio", PinType.AUDIO)]),
    node("video", "ui.file-upload", [], [pin("file", PinType.VIDEO)]),
    node("classify", "mediamesh.image-classifier", [pin("image", PinType.IMAGE)], [pin("classification", PinType.JSON)]),
    node("transcribe", TRANSCRIBER.type, TRANSCRIBER.inputs, TRANSCRIBER.outputs),
    node("analyze", "mediamesh.video-analyzer", [pin("video", PinType.VIDEO)], [pin("analysis_stream", PinType.STREAM)]),
    node("combine", "mediamesh.multimodal-aggregator", [], [pin("combined_stream", PinType.STREAM)]),
    node("viewer", "ui.stream-viewer", [pin("input", PinType.STREAM)], []),
  ],
  edges: [
    edge("photo.file", "classify.image"),
    edge("recorder.audio", "transcribe.audio"),
    edge("video.file", "analyze.video"),
    edge("classify.classification", "combine.image_results"),
    edge("transcribe.transcript", "combine.audio_stream"),
    edge("analyze.analysis_stream", "combine.video_stream"),
    edge("combine.combined_stream", "viewer.input"),
  ],
});

/** The flow as the mesh reads multimodal-test.mlab. */
export const MULTIMODAL: Flow = create(FlowSchema, {
  id: "multimodal-test",
  name: "Multimodal test",
  description: "Draws a test pattern and classifies it; transcribes a recording and shows the words as they are heard.",
  nodes: [
    node("generate", "test.image-generator", [], [pin("image", PinType.IMAGE)]),
    node("classify", "mediamesh.image-classifier", [pin("image", PinType.IMAGE)], [pin("classification", PinType.JSON)]),
    node("labels", "ui.stream-console", [pin("input", PinType.JSON)], []),
    node("audio", "ui.file-upload", [], [pin("file", PinType.AUDIO)]),
    node("transcribe", TRANSCRIBER.type, TRANSCRIBER.inputs, TRANSCRIBER.outputs),
    node("console", "ui.stream-console", [pin("input", PinType.STREAM)], []),
  ],
  edges: [
    edge("generate.image", "classify.image"),
    edge("classify.classification", "labels.input"),
    edge("audio.file", "transcribe.audio"),
    edge("transcribe.transcript", "console.input"),
  ],
});

const SPOKEN = [
  "It was the best of times, it was the worst of times,",
  "it was the age of wisdom, it was the age of foolishness,",
  "it was the epoch of belief, it was the epoch of incredulity.",
];
const SEGMENT_SECONDS = 3;
const FRAMES = { count: 240, rate: 25, width: 640, height: 272, each: 3 };

/** Returns the states of each segment of speech: words that become more, then all of them. */
export function spoken(): JsonObject[] {
  return SPOKEN.flatMap((text, segment) => {
    const start = segment * SEGMENT_SECONDS;
    const texts = text.split(" ");
    const step = (SEGMENT_SECONDS - 0.4) / texts.length;
    const words = texts.map((word, index) => ({
      text: word,
      start: start + index * step,
      end: start + (index + 0.9) * step,
      probability: word === "epoch" ? 0.42 : 0.97,
    }));
    return [4, 8, words.length].map((count, state) => ({
      type: "transcript",
      segment,
      start,
      end: words[Math.min(count, words.length) - 1]?.end ?? start,
      final: state === 2,
      text: texts.slice(0, count).join(" "),
      words: words.slice(0, count),
      language: "en",
    }));
  });
}

/** Returns what a video shows: a person who walks to the right, and a bicycle that comes and goes. */
export function seen(): JsonObject[] {
  const { count, rate, width, height, each } = FRAMES;
  return Array.from({ length: Math.ceil(count / each) }, (_, index) => {
    const time = (index * each) / rate;
    const person = { label: "person", class: 0, score: 0.81, box: [40 + time * 45, 60, 90, 190] };
    const bicycle = { label: "bicycle", class: 1, score: 0.64, box: [330, 130, 180, 120] };
    const objects = time % 4 < 2.5 ? [person, bicycle] : [person];
    const base = { type: "frame", time, index: index * each, width, height, analysis: "object_detection" };
    return { ...base, objects, dropped: index % 10 === 9 ? 1 : 0 };
  });
}

const snapshot = (nodeId: string, name: string, data: JsonObject, afterMs = 0): Happening => ({
  nodeId,
  event: {
    case: "nodeChunk",
    value: { pin: name, chunk: { sequenceNumber: 1n, payload: { case: "snapshot", value: { data: fromJson(JsonSchema, data) } } } },
  },
  afterMs,
});
const started = (flow: Flow): Happening => ({ event: { case: "executionStarted", value: { flow, workspaceId: "default" } } });
const begun = (nodeId: string): Happening => ({ nodeId, event: { case: "nodeStarted", value: { agentId: "any", attempt: 1 } } });
const done = (nodeId: string, nanos: number): Happening => ({ nodeId, event: { case: "nodeFinished", value: { duration: { nanos } } } });
const ended: Happening = {
  event: { case: "executionFinished", value: { state: ExecutionState.SUCCEEDED, duration: { seconds: 2n, nanos: 340_000_000 } } },
};
const labels = (nodeId: string, name: string): Happening => ({
  nodeId,
  event: { case: "nodeOutput", value: { pin: name, value: { kind: { case: "json", value: fromJson(JsonSchema, LABELS) } } } },
});

/** Returns the events of a run of the showcase. */
export function showcasing(stepMs = 0): Happening[] {
  const timed = [...spoken().filter(({ final }) => final), ...seen()].map((result) => ({
    time: Number(result["time"] ?? result["start"]),
    result,
    source: result["type"] === "frame" ? "video" : "audio",
  }));
  const picture = { time: 0, source: "image", result: { type: "image", time: 0, classification: LABELS } };
  const combined = [picture, ...timed.toSorted((one, other) => one.time - other.time)];
  return [
    started(SHOWCASE),
    ...["photo", "recorder", "video"].map((id) => done(id, 9_000_000)),
    ...["classify", "transcribe", "analyze", "combine", "viewer"].map(begun),
    labels("classify", "classification"),
    done("classify", 43_000_000),
    ...combined.flatMap(({ time, source, result }) => {
      const whole = { type: "combined", time, source, result, late: false };
      const own = source === "video" ? [snapshot("analyze", "analysis_stream", result)] : [];
      return [...own, snapshot("combine", "combined_stream", whole, stepMs / 10), snapshot("viewer", "input", whole)];
    }),
    ...["transcribe", "analyze", "combine", "viewer"].map((id) => done(id, 900_000_000)),
    ended,
  ];
}

/** Returns the events of a run of the multimodal test. */
export function hearing(stepMs = 0): Happening[] {
  return [
    started(MULTIMODAL),
    ...["generate", "classify", "audio", "transcribe", "console", "labels"].map(begun),
    done("generate", 12_000_000),
    done("audio", 8_000_000),
    labels("classify", "classification"),
    done("classify", 43_000_000),
    labels("labels", "input"),
    done("labels", 100_000),
    ...spoken().flatMap((result) => [
      snapshot("transcribe", "transcript", result, stepMs),
      snapshot("console", "input", result),
    ]),
    done("transcribe", 700_000_000),
    done("console", 710_000_000),
    ended,
  ];
}

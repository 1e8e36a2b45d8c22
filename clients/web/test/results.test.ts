import { create } from "@bufbuild/protobuf";
import type { JsonValue } from "@bufbuild/protobuf";
import { fromJson } from "@bufbuild/protobuf";
import { ValueSchema as JsonSchema } from "@bufbuild/protobuf/wkt";
import { ChunkSchema } from "@mediamesh/contracts/stream/v1/chunk_pb.js";
import type { ExecutionEvent } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import { describe, expect, it } from "vitest";
import { blocksIn, chunksOf, resultIn, resultOf, resultsOf, segmentsIn } from "../src/client/index.js";
import { Frames } from "../src/console/frames.js";
import { Run } from "../src/console/run.js";
import { Shown } from "../src/console/shown.js";
import { Speech } from "../src/console/speech.js";
import { summary } from "../src/console/summary.js";
import { clock } from "../src/console/time.js";
import { numbered, succeeding, type Happening } from "./fake_flows.js";
import { hearing, seen, showcasing, spoken } from "./fake_streaming.js";

const snapshot = (data: JsonValue) =>
  create(ChunkSchema, { payload: { case: "snapshot", value: { data: fromJson(JsonSchema, data) } } });
const played = (happenings: Happening[], upTo = happenings.length) => {
  const run = new Run();
  for (const event of numbered(happenings).slice(0, upTo)) run.apply(event);
  return run;
};
async function* stream(happenings: Happening[]): AsyncGenerator<ExecutionEvent> {
  yield* numbered(happenings);
}

async function collected<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

describe("A chunk", () => {
  it("of a transcript, a frame or a combined stream is a result", () => {
    expect(resultOf(snapshot(spoken()[0] ?? null))).toMatchObject({ type: "transcript", segment: 0, final: false });
    expect(resultOf(snapshot(seen()[0] ?? null))).toMatchObject({ type: "frame", width: 640, objects: [{ label: "person" }, { label: "bicycle" }] });
    const combined = { type: "combined", time: 1.5, source: "video", result: seen()[3] ?? null, late: true };
    expect(resultOf(snapshot(combined))).toMatchObject({ source: "video", late: true, result: { type: "frame" } });
  });

  it("that leaves something out, or has something else in its place, has it filled in", () => {
    expect(resultIn({ type: "frame", objects: [{ label: "cat" }, { label: "dog", box: [1, 2, 3, 4] }, 7] })).toMatchObject({
      time: 0,
      dropped: 0,
      labels: [],
      objects: [{ label: "dog", score: 0, box: [1, 2, 3, 4] }],
    });
    expect(resultIn({ type: "transcript", text: 7, words: "none" })).toMatchObject({ text: "", words: [], final: false });
  });

  it("of anything else is none", () => {
    for (const data of [null, 3, "text", [], {}, { type: "weather" }, { type: "combined", result: 3 }]) expect(resultIn(data)).toBeUndefined();
    expect(resultOf(create(ChunkSchema, { payload: { case: "content", value: { text: "Hello" } } }))).toBeUndefined();
  });
});

describe("The chunks of a run", () => {
  it("are told apart by node and pin", async () => {
    const all = await collected(chunksOf(stream(hearing())));
    const shown = await collected(chunksOf(stream(hearing()), "console"));
    const texts = await collected(resultsOf(stream(hearing()), "transcribe.transcript"));
    expect(all.length).toBe(2 * shown.length);
    expect(texts.length).toBe(shown.length);
    expect(texts.at(-1)).toMatchObject({ type: "transcript", final: true, segment: 2 });
    expect(await collected(chunksOf(stream(hearing()), "transcribe.other"))).toEqual([]);
  });
});

describe("Speech", () => {
  it("is replaced as it goes on, and stays once it is final", () => {
    const speech = new Speech();
    const [first, second, whole] = segmentsOf(spoken());
    for (const state of [first, second, whole, first]) if (state) speech.take(state);
    expect(speech.segments).toEqual([whole]);
    expect(speech.text).toBe("It was the best of times, it was the worst of times,");
  });

  it("is found at a time, and not in a silence", () => {
    const speech = new Speech();
    for (const state of segmentsOf(spoken())) speech.take(state);
    expect(speech.at(3.2)?.segment).toBe(1);
    expect(speech.at(60)).toBeUndefined();
  });

  it("given as a whole is as good as speech that was streamed", () => {
    const segments = segmentsIn([{ start: 0.2, end: 1.4, text: "Ever tried" }, { start: 1.7, end: 3, text: "Ever failed." }]);
    expect(segments.map(({ segment, final, text }) => [segment, final, text])).toEqual([
      [0, true, "Ever tried"],
      [1, true, "Ever failed."],
    ]);
    expect(segmentsIn({ text: "no list" })).toEqual([]);
  });
});

describe("Frames", () => {
  it("hold until the next one, and not for long after the last", () => {
    const frames = framesOf(0, 0.2, 0.4);
    expect([-1, 0, 0.19, 0.2, 0.5, 0.9, 1.2].map((time) => frames.at(time)?.time)).toEqual([undefined, 0, 0, 0.2, 0.4, 0.4, undefined]);
  });

  it("that come late find their place", () => {
    expect(framesOf(0, 0.4, 0.2).all.map(({ time }) => time)).toEqual([0, 0.2, 0.4]);
  });

  it("count what was left out and what is seen most", () => {
    const shown = new Shown();
    for (const data of seen()) shown.takeChunk(snapshot(data));
    expect(shown.frames.dropped).toBe(8);
    expect(shown.frames.labels[0]).toEqual(["person", 80]);
  });
});

describe("What is shown", () => {
  it("of the showcase is labels, speech, frames and all of them by time", () => {
    const shown = played(showcasing()).shown.get("viewer");
    expect(shown?.combined.length).toBe(84);
    expect(shown?.frames.all.length).toBe(80);
    expect(shown?.speech.segments.length).toBe(3);
    expect(shown?.labels[0]?.label).toBe("Egyptian cat");
    const times = shown?.combined.map(({ time }) => time) ?? [];
    expect(times).toEqual(times.toSorted((one, other) => one - other));
  });

  it("of the multimodal test is labels at one end and speech at the other, chunk by chunk", () => {
    const run = played(hearing());
    expect(run.shown.get("labels")?.labels.length).toBe(5);
    expect(run.shown.get("console")?.speech.segments.every(({ final }) => final)).toBe(true);
    expect(run.chunks.get("transcribe.transcript")).toBe(9);
    expect(summary(run)).toBe("Done: Egyptian cat, 61.4%; 3 lines of speech.");
    const halfway = played(hearing(), 15).shown.get("console");
    expect(halfway?.speech.segments[0]).toMatchObject({ final: false, text: "It was the best" });
  });

  it("begins anew where a node is tried again", () => {
    const again: Happening = { nodeId: "show", event: { case: "nodeStarted", value: { agentId: "ui.stream-console", attempt: 2 } } };
    expect(played([...succeeding().slice(0, 11), again]).shown.get("show")?.count).toBe(0);
  });

  it("of a document is its text by pages, whether streamed or whole", () => {
    const blocks = [
      { page: 2, text: "second", score: 0.9, box: [[0, 0], [9, 0], [9, 9], [0, 9]] },
      { page: 1, text: "first", score: 0.9, box: [[0, 0], [9, 0], [9, 9], [0, 9]] },
    ];
    expect(blocksIn(blocks).map(({ page, text }) => [page, text])).toEqual([[2, "second"], [1, "first"]]);
    const shown = new Shown();
    shown.takeChunk(snapshot({ type: "page", page: 1, pages: 2, width: 10, height: 10, blocks: [blocks[1] ?? null] }));
    shown.takeChunk(snapshot(blocks));
    expect(shown.pages.get(1)).toMatchObject({ width: 10, pages: 2 });
    expect(shown.pages.get(2)?.blocks[0]?.text).toBe("second");
  });

  it("is text where text comes, and JSON where nothing else fits", () => {
    const shown = new Shown();
    for (const text of ["Hel", "lo"]) shown.takeChunk(create(ChunkSchema, { payload: { case: "content", value: { text } } }));
    shown.takeChunk(snapshot({ weather: "fine" }));
    expect([shown.text, shown.values]).toEqual(["Hello", [{ weather: "fine" }]]);
  });
});

it("Places in media are short", () => {
  expect([0, 7.44, 59.96, 754.2].map((seconds) => clock(seconds))).toEqual(["0:00.0", "0:07.4", "1:00.0", "12:34.2"]);
  expect(clock(7.6, 0)).toBe("0:08");
});

function segmentsOf(all: JsonValue[]) {
  return all.flatMap((data) => {
    const result = resultIn(data);
    return result?.type === "transcript" ? [result] : [];
  });
}

function framesOf(...times: number[]): Frames {
  const frames = new Frames();
  for (const time of times) {
    const frame = resultIn({ type: "frame", time });
    if (frame?.type === "frame") frames.take(frame);
  }
  return frames;
}

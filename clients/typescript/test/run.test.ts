import assert from "node:assert/strict";
import { test } from "node:test";

import { create } from "@bufbuild/protobuf";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { parseManifest, serving } from "@mediamesh/agent";
import type { Agent, Output, Run } from "@mediamesh/agent";
import { AgentService } from "@mediamesh/contracts/agent/v1/agent_service_pb.js";
import type { RunRequestSchema, RunResponse } from "@mediamesh/contracts/agent/v1/agent_service_pb.js";
import { MediaType } from "@mediamesh/contracts/media/v1/media_pb.js";
import { ChunkSchema } from "@mediamesh/contracts/stream/v1/chunk_pb.js";

import { Queue } from "../src/queue.js";

type Frame = MessageInitShape<typeof RunRequestSchema>;
type Process = (run: Run) => Promise<Record<string, Output> | void>;

/** The frames of one run of an agent with these pins, as manifests write them. */
async function answers(pins: string, process: Process, ...requests: Frame[]): Promise<RunResponse["message"][]> {
  const agent: Agent = { manifest: parseManifest(`{id: test.agent, version: 1.0.0, ${pins}}`), process };
  const server = await serving([agent]);
  try {
    const transport = createGrpcTransport({ baseUrl: `http://127.0.0.1:${server.port}` });
    const frames: RunResponse["message"][] = [];
    async function* sent(): AsyncGenerator<Frame> {
      yield* requests;
    }
    for await (const { message } of createClient(AgentService, transport).run(sent())) frames.push(message);
    return frames;
  } finally {
    await server.close(0);
  }
}

const open = (more = {}): Frame => ({ message: { case: "open", value: { agentId: "test.agent", ...more } } });

const numbers = (frames: RunResponse["message"][], pin: string): (bigint | undefined)[] =>
  frames.flatMap((frame) =>
    frame.case === "chunk" && frame.value.pin === pin ? [frame.value.chunk?.sequenceNumber] : [],
  );

test("a chunk that is emitted again, or on two pins, is numbered as if it were new", async () => {
  const again = create(ChunkSchema, { payload: { case: "content", value: { text: "again" } } });
  const process = async (run: Run): Promise<void> => {
    await Promise.all([run.emit("left", again), run.emit("left", again), run.emit("right", again)]);
    for await (const chunk of run.stream("words"))
      await Promise.all([run.emit("right", chunk), run.emit("left", chunk), run.emit("right", chunk)]);
  };
  const chunk = { sequenceNumber: 1n, payload: { case: "content" as const, value: { text: "a" } } };
  const frames = await answers(
    "inputs: [{name: words, type: stream}], outputs: [{name: left, type: stream}, {name: right, type: stream}]",
    process,
    open({ streamInputs: ["words"] }),
    { message: { case: "chunk", value: { pin: "words", chunk } } },
    { message: { case: "end", value: { pin: "words" } } },
  );
  assert.deepEqual(numbers(frames, "left"), [1n, 2n, 3n]);
  assert.deepEqual(numbers(frames, "right"), [1n, 2n, 3n]);
  assert.equal(again.sequenceNumber, 0n);
});

test("media that came in may go out as they are", async () => {
  const image = { type: MediaType.IMAGE, source: { case: "inline" as const, value: new Uint8Array([1, 2, 3]) } };
  const frames = await answers(
    "inputs: [{name: image, type: image}], outputs: [{name: image, type: image}, {name: copy, type: binary}]",
    async (run) => ({ image: run.inputs["image"] ?? null, copy: run.inputs["image"] ?? null }),
    open({ inputs: { image: { kind: { case: "media", value: image } } } }),
  );
  const given = frames.flatMap((frame) => (frame.case === "output" ? [frame.value.value?.kind] : []));
  assert.equal(given.length, 2);
  for (const kind of given) assert.deepEqual(kind?.case === "media" && kind.value.source, image.source);
});

test("who waits for room is not overtaken", async () => {
  const queue = new Queue<number>(1);
  await queue.put(0);
  const writing = [queue.put(1), queue.put(2)];
  const read: number[] = [];
  const items = queue[Symbol.asyncIterator]();
  for (let count = 0; count < 4; count += 1) {
    const next = items.next(); // there is room from here on, and who waits does not know yet
    if (count === 1) writing.push(queue.put(3));
    read.push((await next).value);
  }
  assert.deepEqual(read, [0, 1, 2, 3]);
  await Promise.all(writing);
});

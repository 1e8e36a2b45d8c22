import assert from "node:assert/strict";
import { test } from "node:test";

import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { serving } from "@mediamesh/agent";
import { AgentService } from "@mediamesh/contracts/agent/v1/agent_service_pb.js";
import type { RunRequestSchema } from "@mediamesh/contracts/agent/v1/agent_service_pb.js";
import type { MessageInitShape } from "@bufbuild/protobuf";

import { WordSplitter } from "../src/agent.js";

type Frame = MessageInitShape<typeof RunRequestSchema>;

async function* frames(texts: string[]): AsyncGenerator<Frame> {
  const agentId = "example.word-splitter";
  yield { message: { case: "open", value: { agentId, streamInputs: ["text"], params: { loud: true } } } };
  for (const [index, text] of texts.entries()) {
    const chunk = { sequenceNumber: BigInt(index + 1), payload: { case: "content" as const, value: { text } } };
    yield { message: { case: "chunk", value: { pin: "text", chunk } } };
  }
  yield { message: { case: "end", value: { pin: "text" } } };
}

test("words come as they are, wherever the texts are cut", async () => {
  const server = await serving([new WordSplitter()]);
  try {
    const transport = createGrpcTransport({ baseUrl: `http://127.0.0.1:${server.port}` });
    const words: string[] = [];
    let count = 0;
    for await (const { message } of createClient(AgentService, transport).run(frames(["to b", "e or", " not"]))) {
      if (message.case === "chunk" && message.value.chunk?.payload.case === "content")
        words.push(message.value.chunk.payload.value.text);
      if (message.case === "output" && message.value.value?.kind.case === "number")
        count = message.value.value.kind.value;
    }
    assert.deepEqual(words, ["TO", "BE", "OR", "NOT"]);
    assert.equal(count, 4);
  } finally {
    await server.close(0);
  }
});

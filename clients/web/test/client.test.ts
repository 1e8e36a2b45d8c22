import { create } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { ExecutionState, type ExecutionEvent } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import { FlowIssueCode } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import { FlowService } from "@mediamesh/contracts/flow/v1/flow_service_pb.js";
import { ErrorInfoSchema, RetryInfoSchema } from "@mediamesh/contracts/google/rpc/error_details_pb.js";
import { StatusSchema } from "@mediamesh/contracts/google/rpc/status_pb.js";
import { describe, expect, it } from "vitest";
import { createMesh, imageValue, MeshError, type MeshInit } from "../src/client/index.js";
import { backoff } from "../src/client/backoff.js";
import { fakeFlows, numbered, succeeding } from "./fake_flows.js";

const SOURCE = { name: "classify.mlab", yaml: "kind: Flow" };
const QUICK = { firstMs: 1, longestMs: 2, tries: 3 };

function mesh(service: Partial<ServiceImpl<typeof FlowService>>, init: MeshInit = {}) {
  const transport = createRouterTransport((router) => router.service(FlowService, service));
  return createMesh("http://fake", { transport, backoff: QUICK, ...init });
}

async function collect(events: AsyncIterable<ExecutionEvent>): Promise<ExecutionEvent[]> {
  const all: ExecutionEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

const sequences = (events: ExecutionEvent[]) => events.map(({ sequence }) => Number(sequence));
const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1);
const picture = (text = "\xff\xd8\xff") => imageValue(new File([Uint8Array.from(text, (c) => c.charCodeAt(0))], "a.jpg"));
const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable(),
    (error: unknown) => error as MeshError,
  );

describe("A flow", () => {
  it("is checked, and what is wrong comes back with its line", async () => {
    const issues = [{ code: FlowIssueCode.CYCLE, message: "a and b lead back to a.", file: "a.mlab", line: 7 }];
    const answer = await mesh({ validateFlow: () => ({ issues }) }).validate(SOURCE);
    expect(answer.issues[0]).toMatchObject({ line: 7, message: "a and b lead back to a." });
  });

  it("runs and yields every event up to the last", async () => {
    const events = await collect(mesh(fakeFlows(0)).run(SOURCE, { "upload.file": await picture() }));
    expect(sequences(events)).toEqual(upTo(13));
    expect(events.at(-1)?.event).toMatchObject({ value: { state: ExecutionState.SUCCEEDED } });
  });

  it("is told to stop when its reader leaves the loop", async () => {
    let stop = () => {};
    const stopped = new Promise<void>((resolve) => (stop = resolve));
    const service: Partial<ServiceImpl<typeof FlowService>> = {
      async *runFlow(_, context) {
        context.signal.addEventListener("abort", stop);
        for (const event of numbered(succeeding())) yield { event };
        await stopped;
      },
    };
    for await (const event of mesh(service).run(SOURCE, {})) if (event.sequence === 3n) break;
    await stopped;
  });

  it("goes on from the log of the run when its own stream breaks", async () => {
    const all = numbered(succeeding());
    const asked: bigint[] = [];
    const events = await collect(
      mesh({
        async *runFlow() {
          for (const event of all.slice(0, 4)) yield { event };
          throw new ConnectError("upstream reset", Code.Internal);
        },
        async *watchExecution({ executionId, afterSequence }) {
          expect(executionId).toBe("e1");
          asked.push(afterSequence);
          for (const event of all.slice(Number(afterSequence))) yield { event };
        },
      }).run(SOURCE, {}),
    );
    expect(asked).toEqual([4n]);
    expect(sequences(events)).toEqual(upTo(13));
  });

  it("that is followed after a break is cancelled when its reader leaves, and not when it has ended", async () => {
    const all = numbered(succeeding());
    const cancelled: string[] = [];
    const broken = mesh({
      async *runFlow() {
        for (const event of all.slice(0, 4)) yield { event };
        throw new ConnectError("upstream reset", Code.Internal);
      },
      async *watchExecution({ afterSequence }) {
        for (const event of all.slice(Number(afterSequence))) yield { event };
      },
      cancelExecution: ({ executionId }) => {
        cancelled.push(executionId);
        throw new ConnectError("it ended meanwhile", Code.FailedPrecondition);
      },
    });
    await collect(broken.run(SOURCE, {}));
    expect(cancelled).toEqual([]);
    for await (const event of broken.run(SOURCE, {})) if (event.sequence === 6n) break;
    expect(cancelled).toEqual(["e1"]);
    const stop = new AbortController();
    const aborted = (async () => {
      for await (const event of broken.run(SOURCE, {}, { signal: stop.signal })) if (event.sequence === 6n) stop.abort();
    })();
    expect(await failure(aborted)).toMatchObject({ code: Code.Canceled });
    expect(cancelled).toEqual(["e1", "e1"]);
  });

  it("is cancelled by its id", async () => {
    const execution = await mesh(fakeFlows(0)).cancel("e1");
    expect(execution.state).toBe(ExecutionState.CANCELLED);
  });
});

describe("A watch", () => {
  const all = numbered(succeeding());

  it("resumes after every break and yields each event once", async () => {
    const asked: number[] = [];
    const events = await collect(
      mesh({
        async *watchExecution({ afterSequence }) {
          asked.push(Number(afterSequence));
          // One event too early each time, as a server that does not count well would send.
          for (const event of all.slice(Math.max(0, Number(afterSequence) - 1)).slice(0, 3)) yield { event };
          if (afterSequence < 10n) throw new ConnectError("connection reset", Code.Unavailable);
        },
      }).watch("e1"),
    );
    expect(sequences(events)).toEqual(upTo(13));
    expect(asked).toEqual([0, 3, 5, 7, 9, 11]);
  });

  it("begins where its reader stopped", async () => {
    const service = fakeWatch((after) => all.slice(after));
    expect(sequences(await collect(mesh(service).watch("e1", { afterSequence: 9n })))).toEqual([10, 11, 12, 13]);
  });

  it("keeps heartbeats and go_away back and passes a gap on", async () => {
    const service = fakeWatch(() => [
      { event: { case: "heartbeat" as const, value: { lastSequence: 13n } } },
      { event: { case: "gap" as const, value: { firstSequence: 1n, lastSequence: 10n } } },
      { event: { case: "goAway" as const, value: { reason: "restart" } } },
      ...all.slice(10),
    ]);
    const events = await collect(mesh(service).watch("e1"));
    expect(events.map(({ event }) => event.case)).toEqual(["gap", "nodeOutput", "nodeFinished", "executionFinished"]);
  });

  it("gives up after several tries without an event and says why", async () => {
    let tries = 0;
    const service: Partial<ServiceImpl<typeof FlowService>> = {
      // eslint-disable-next-line require-yield
      async *watchExecution() {
        tries += 1;
        throw new ConnectError("no healthy upstream", Code.Unavailable);
      },
    };
    const error = await failure(collect(mesh(service).watch("e1")));
    expect(error).toMatchObject({ name: "MeshError", code: Code.Unavailable, sentence: "no healthy upstream" });
    expect(tries).toBe(QUICK.tries + 1);
  });

  it("does not try again what cannot succeed", async () => {
    let tries = 0;
    const service: Partial<ServiceImpl<typeof FlowService>> = {
      async *watchExecution() {
        tries += 1;
        throw explained("NOT_FOUND", Code.NotFound);
      },
    };
    expect(await failure(collect(mesh(service).watch("e1")))).toMatchObject({ reason: "NOT_FOUND" });
    expect(tries).toBe(1);
  });

  it("ends at once when aborted while it waits", async () => {
    const stop = new AbortController();
    const service: Partial<ServiceImpl<typeof FlowService>> = {
      async *watchExecution() {
        queueMicrotask(() => stop.abort());
        throw new ConnectError("away", Code.Unavailable);
      },
    };
    const patient = mesh(service, { backoff: { firstMs: 1e9, longestMs: 1e9, tries: 3 } });
    expect(await failure(collect(patient.watch("e1", { signal: stop.signal })))).toMatchObject({ code: Code.Canceled });
  });

  function fakeWatch(events: (after: number) => object[]): Partial<ServiceImpl<typeof FlowService>> {
    return {
      async *watchExecution({ afterSequence }) {
        for (const event of events(Number(afterSequence))) yield { event };
      },
    };
  }
});

describe("An error", () => {
  it("has the reason, the number, the fields and the sentence that the mesh gave", async () => {
    const text = await picture("just some text");
    const error = await failure(collect(mesh(fakeFlows(0)).run(SOURCE, { "upload.file": text })));
    expect(error).toBeInstanceOf(MeshError);
    expect(error).toMatchObject({
      reason: "UNSUPPORTED_MEDIA_TYPE",
      number: "E1010",
      code: Code.InvalidArgument,
      violations: [{ field: "upload.file", description: "is text/plain" }],
      retryable: false,
    });
    expect(error.sentence).toContain("the bytes are text/plain");
  });

  it("inside an event reads the same", () => {
    const info = create(ErrorInfoSchema, { reason: "MEDIA_DECODE_FAILED", domain: "mediamesh.dev", metadata: { code: "E1013" } });
    const status = create(StatusSchema, { code: 3, message: "the JPEG is cut off", details: [anyPack(ErrorInfoSchema, info)] });
    expect(MeshError.fromStatus(status)).toMatchObject({ number: "E1013", sentence: "the JPEG is cut off" });
  });

  it("with a detail that nobody can read keeps the rest", () => {
    const broken = anyPack(ErrorInfoSchema, create(ErrorInfoSchema));
    broken.value = new Uint8Array([0xff]);
    expect(MeshError.fromStatus({ code: 5, message: "gone", details: [broken] })).toMatchObject({ code: Code.NotFound, sentence: "gone" });
  });

  it("says when to try again", () => {
    const error = explained("OVERLOADED", Code.ResourceExhausted);
    error.details.push({ desc: RetryInfoSchema, value: { retryDelay: { seconds: 1n, nanos: 500_000_000 } } });
    expect(MeshError.from(error)).toMatchObject({ retryAfterMs: 1500, retryable: true, number: "" });
  });

  it("of somebody else's domain keeps its sentence and has no reason of ours", () => {
    const error = MeshError.from(new ConnectError("upstream connect error", Code.Unavailable));
    expect(error).toMatchObject({ reason: "", sentence: "upstream connect error", retryable: true });
  });
});

describe("A picture", () => {
  it("over 20 MiB is refused before anything is sent", async () => {
    const error = await failure(imageValue(new File([new Uint8Array(20 * 1024 * 1024 + 1)], "big.png")));
    expect(error).toMatchObject({ number: "E1011", sentence: "“big.png” has 20.0 MiB; a picture may have 20 MiB at most." });
  });

  it("without bytes is refused", async () => {
    expect(await failure(imageValue(new File([], "none.png")))).toMatchObject({ reason: "INVALID_REQUEST" });
  });
});

it("Waits grow up to a limit and are spread", () => {
  const policy = { firstMs: 100, longestMs: 1000, tries: 9 };
  expect([1, 2, 3, 4, 5, 6].map((tried) => backoff(policy, tried, () => 1))).toEqual([100, 200, 400, 800, 1000, 1000]);
  expect(backoff(policy, 3, () => 0.5)).toBe(200);
});

function explained(reason: string, code: Code): ConnectError {
  return new ConnectError("no", code, undefined, [{ desc: ErrorInfoSchema, value: { reason, domain: "mediamesh.dev" } }]);
}

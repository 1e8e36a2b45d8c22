import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { ErrorInfoSchema } from "@mediamesh/contracts/google/rpc/error_details_pb.js";
import { StreamEventSchema, StreamEventType } from "@mediamesh/contracts/stream/v1/stream_pb.js";
import type {
  SubscribeRequest,
  SubscribeResponseSchema,
  WatchStreamsResponseSchema,
} from "@mediamesh/contracts/stream/v1/stream_service_pb.js";
import { StreamService } from "@mediamesh/contracts/stream/v1/stream_service_pb.js";
import { describe, expect, it } from "vitest";
import { createStreams, isGap, type MeshError, type StreamItem, type StreamsInit } from "../src/client/index.js";

type Frame = MessageInitShape<typeof SubscribeResponseSchema>;
type Service = Partial<ServiceImpl<typeof StreamService>>;

const QUICK = { firstMs: 1, longestMs: 2, tries: 3 };

function streams(service: Service, init: StreamsInit = {}) {
  const transport = createRouterTransport((router) => router.service(StreamService, service));
  return createStreams("http://fake", { transport, backoff: QUICK, ...init });
}

/** A frame with the events of these sequences; the tenth ends the stream. */
function events(...sequences: number[]): Frame {
  const one = (sequence: number) =>
    create(StreamEventSchema, {
      sequence: BigInt(sequence),
      eventType: sequence === 10 ? StreamEventType.STREAM_END : StreamEventType.STREAM_DATA,
    });
  return { frame: { case: "events", value: { events: sequences.map(one) } } };
}

const gap = (first: number, last: number): Frame => ({
  frame: { case: "gap", value: { firstSequence: BigInt(first), lastSequence: BigInt(last) } },
});
const goAway: Frame = { frame: { case: "goAway", value: { reason: "restart" } } };
const heartbeat: Frame = { frame: { case: "heartbeat", value: { lastSequence: 3n } } };
const broken = () => new ConnectError("upstream reset", Code.Unavailable);

/** Answers each subscription with the next of the answers; an error among the frames breaks the call there. */
function answers(asked: SubscribeRequest[], ...each: (Frame | ConnectError)[][]): Service {
  return {
    async *subscribe(request) {
      asked.push(request);
      for (const frame of each[asked.length - 1] ?? []) {
        if (frame instanceof ConnectError) throw frame;
        yield frame;
      }
    },
  };
}

async function collect(items: AsyncIterable<StreamItem>): Promise<string[]> {
  const all: string[] = [];
  for await (const item of items) {
    all.push(isGap(item) ? `gap ${item.firstSequence}-${item.lastSequence}` : `${item.sequence}`);
  }
  return all;
}

const upTo = (last: number) => Array.from({ length: last }, (_, index) => `${index + 1}`);
const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable(),
    (error: unknown) => error as MeshError,
  );

describe("A subscription", () => {
  it("ends with the last event of its stream", async () => {
    const service = answers([], [events(1, 2, 3), heartbeat, events(4, 5, 6, 7), events(8, 9, 10, 11)]);
    expect(await collect(streams(service).subscribe("s"))).toEqual(upTo(10));
  });

  it("goes on after every break, as the same reader, and yields each event once", async () => {
    const asked: SubscribeRequest[] = [];
    const service = answers(
      asked,
      [events(1, 2), broken()],
      [broken()],
      [events(2, 3, 4), new ConnectError("", Code.Canceled)],
      [events(5), new ConnectError("fetch failed", Code.Unknown)],
      [events(6, 7)],
      [events(8, 9, 10)],
    );
    expect(await collect(streams(service).subscribe("s"))).toEqual(upTo(10));
    expect(asked.map(({ afterSequence, allowGap }) => [Number(afterSequence), allowGap])).toEqual([
      [0, false],
      [2, true],
      [2, true],
      [4, true],
      [5, true],
      [7, true],
    ]);
    expect(new Set(asked.map(({ subscriberId }) => subscriberId)).size).toBe(1);
  });

  it("comes back at once when its server goes away", async () => {
    const asked: SubscribeRequest[] = [];
    const patient = { backoff: { firstMs: 1e9, longestMs: 1e9, tries: 1 } };
    const service = answers(asked, [events(1, 2), goAway], [events(3, 4), goAway], [events(5, 6, 7, 8, 9, 10)]);
    expect(await collect(streams(service, patient).subscribe("s"))).toEqual(upTo(10));
  });

  it("hands gaps over, those that the server tells and those that it does not", async () => {
    const service = answers([], [gap(1, 3), events(4), events(7, 8), gap(5, 8), events(9, 10)]);
    expect(await collect(streams(service).subscribe("s"))).toEqual(["gap 1-3", "4", "gap 5-6", "7", "8", "9", "10"]);
  });

  it("of a stream that had ended where the reader was is over", async () => {
    expect(await collect(streams(answers([], [])).subscribe("s", { afterSequence: 10n }))).toEqual([]);
  });

  it("notices a connection that fell silent", async () => {
    const asked: SubscribeRequest[] = [];
    let aborted = false;
    const service: Service = {
      async *subscribe(request, { signal }) {
        asked.push(request);
        if (asked.length > 1) return yield* [events(3, 4, 5, 6, 7, 8, 9, 10)];
        yield events(1, 2);
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        aborted = true;
      },
    };
    expect(await collect(streams(service).subscribe("s", { heartbeatMs: 20 }))).toEqual(upTo(10));
    expect(aborted).toBe(true);
    expect(asked[0]?.heartbeatInterval).toMatchObject({ seconds: 0n, nanos: 20_000_000 });
  });

  it("gives up after several tries without a word and says why", async () => {
    const asked: SubscribeRequest[] = [];
    const service = answers(asked, ...Array.from({ length: 9 }, () => [broken()]));
    expect(await failure(collect(streams(service).subscribe("s")))).toMatchObject({ sentence: "upstream reset" });
    expect(asked.length).toBe(QUICK.tries + 1);
  });

  it.each([
    ["NOT_FOUND", Code.NotFound],
    ["OVERLOADED", Code.ResourceExhausted], // disconnected because it lagged
    ["INTERNAL", Code.Internal],
  ])("is over when the mesh says %s", async (reason, code) => {
    const asked: SubscribeRequest[] = [];
    const final = new ConnectError("no", code, undefined, [
      { desc: ErrorInfoSchema, value: { reason, domain: "mediamesh.dev", metadata: { stream_id: "s" } } },
    ]);
    const error = await failure(collect(streams(answers(asked, [events(1), final])).subscribe("s")));
    expect(error).toMatchObject({ reason, metadata: { stream_id: "s" } });
    expect(asked.length).toBe(1);
  });

  it("is told to stop when its reader leaves the loop", async () => {
    let stop = () => {};
    const stopped = new Promise<void>((resolve) => (stop = resolve));
    const service: Service = {
      async *subscribe(_, { signal }) {
        signal.addEventListener("abort", stop);
        yield events(1, 2, 3);
        await stopped;
      },
    };
    for await (const item of streams(service).subscribe("s")) if (!isGap(item)) break;
    await stopped;
  });

  it("ends at once when aborted while it waits", async () => {
    const stop = new AbortController();
    const patient = streams(answers([], [broken()]), { backoff: { firstMs: 1e9, longestMs: 1e9, tries: 3 } });
    setTimeout(() => stop.abort(), 10);
    const error = await failure(collect(patient.subscribe("s", { signal: stop.signal })));
    expect(error).toMatchObject({ code: Code.Canceled });
  });
});

it("A watch goes on after breaks and says who comes and who goes", async () => {
  const tokens: string[] = [];
  const service: Service = {
    async *watchStreams({ resumeToken }) {
      tokens.push(resumeToken);
      if (tokens.length > 2) throw new ConnectError("enough", Code.PermissionDenied);
      const frames: MessageInitShape<typeof WatchStreamsResponseSchema>[] = [
        { resumeToken: `${tokens.length}`, frame: { case: "heartbeat", value: {} } },
        { resumeToken: `${tokens.length}a`, frame: { case: "streamAvailable", value: { stream: { streamId: "s" } } } },
        { frame: { case: "goAway", value: {} } },
      ];
      yield* frames.slice(0, tokens.length + 1);
      if (tokens.length === 1) throw broken();
    },
  };
  const seen: string[] = [];
  const watching = async () => {
    for await (const { frame } of streams(service).watchStreams({ workspaceId: "w" })) seen.push(String(frame.case));
  };
  expect(await failure(watching())).toMatchObject({ code: Code.PermissionDenied });
  expect(tokens).toEqual(["", "1a", "2a"]);
  expect(seen).toEqual(["streamAvailable", "streamAvailable"]);
});

describe("A stream", () => {
  it("is opened, found, listed and closed", async () => {
    const mesh = streams({
      openStream: ({ workspaceId }) => ({ streamId: `of-${workspaceId}`, publishToken: "t" }),
      getStream: ({ streamId }) => ({ stream: { streamId, lastSequence: 7n } }),
      listStreams: () => ({ streams: [{ streamId: "s" }] }),
      closeStream: ({ streamId }) => ({ stream: { streamId, end: { reason: "enough" } } }),
      getCapabilities: () => ({ runtime: "mediamesh" }),
    });
    expect(await mesh.open({ workspaceId: "w" })).toMatchObject({ streamId: "of-w", publishToken: "t" });
    expect(await mesh.get("s")).toMatchObject({ lastSequence: 7n });
    expect((await mesh.list()).streams).toHaveLength(1);
    expect(await mesh.close({ streamId: "s", reason: "enough" })).toMatchObject({ end: { reason: "enough" } });
    expect(await mesh.capabilities()).toMatchObject({ runtime: "mediamesh" });
  });

  it("that is not there is an error with its reason", async () => {
    const info = { desc: ErrorInfoSchema, value: { reason: "NOT_FOUND", domain: "mediamesh.dev" } };
    const getStream = () => {
      throw new ConnectError("There is no stream s.", Code.NotFound, undefined, [info]);
    };
    expect(await failure(streams({ getStream }).get("s"))).toMatchObject({ reason: "NOT_FOUND" });
  });
});

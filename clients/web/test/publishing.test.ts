import { readFileSync } from "node:fs";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { create, fromJson } from "@bufbuild/protobuf";
import { anyPack, timestampFromDate, ValueSchema } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { createRouterTransport } from "@connectrpc/connect";
import { ErrorInfoSchema } from "@mediamesh/contracts/google/rpc/error_details_pb.js";
import { MediaType } from "@mediamesh/contracts/media/v1/media_pb.js";
import { ChunkSchema, MediaEncoding } from "@mediamesh/contracts/stream/v1/chunk_pb.js";
import { StreamMetadataSchema, StreamSchema, StreamState } from "@mediamesh/contracts/stream/v1/stream_pb.js";
import { StreamService } from "@mediamesh/contracts/stream/v1/stream_service_pb.js";
import { describe, expect, it, vi } from "vitest";
import { createStreams, type PublishInit, type StreamsInit } from "../src/client/index.js";
import { publishFrame } from "../src/client/streams/spelling.js";
import { FakeSocket } from "./fake_socket.js";

const QUICK = { firstMs: 1, longestMs: 2, tries: 3 };
const WINDOW = { items: 100, bytes: 1000 };
const text = (words: string) => ({ payload: { case: "content", value: { text: words } } }) as const;

/** A mesh whose sockets do, each in turn, what the functions say. */
function mesh(behave: ((socket: FakeSocket) => void)[], init: StreamsInit = {}, service: Partial<ServiceImpl<typeof StreamService>> = {}) {
  const sockets: FakeSocket[] = [];
  const webSocket = (url: string) => {
    const socket = new FakeSocket(new URL(url));
    const act = behave[sockets.push(socket) - 1] ?? (() => socket.close());
    setTimeout(() => act(socket));
    return socket as unknown as WebSocket;
  };
  const transport = createRouterTransport((router) => router.service(StreamService, service));
  const streams = createStreams("http://fake:8080/", { transport, webSocket, backoff: QUICK, ...init });
  return { sockets, publish: (call?: PublishInit) => streams.publish("s-1", "secret", call) };
}

const open = (socket: FakeSocket, last = 0) =>
  socket.say({ event_type: "opened", stream_id: "s-1", producer_id: "p-1", epoch: 4, last_sequence: last, window: WINDOW });
const ack = (socket: FakeSocket, sequence: unknown) =>
  socket.say({ event_type: "ack", stream_id: "s-1", sequence, window: WINDOW });
const error = (socket: FakeSocket, reason: string, code: string, metadata = {}) =>
  socket.say({ event_type: "error", stream_id: "s-1", error: { code, reason, message: `It is ${reason}.`, metadata } });

/** Takes and acknowledges all that comes; `last` is what the stream has already. */
const willing =
  (last = 0) =>
  (socket: FakeSocket) => {
    socket.onSent = ({ sequence }) => setTimeout(() => ack(socket, sequence));
    open(socket, last);
  };

describe("A producer", () => {
  it("sends events in order, and is done when all of them are stored", async () => {
    const { sockets, publish } = mesh([willing()]);
    const producer = await publish();
    await producer.start({ mimeType: "text/plain" });
    expect(await producer.send(text("Hel"))).toBe(2n);
    await producer.send(text("lo"));
    expect(await producer.end()).toBe(4n);
    expect(producer).toMatchObject({ acknowledged: 4n, lastSequence: 4n, epoch: 4n, producerId: "p-1", window: WINDOW });
    const [socket] = sockets;
    expect(Object.fromEntries(socket!.url.searchParams)).toMatchObject({ publish: "1", token: "secret", epoch: "0" });
    expect(socket!.url.href).toMatch(/^ws:\/\/fake:8080\/api\/v1\/streams\/s-1\/ws\?/);
    expect(socket!.sent.map(({ spelled }) => [spelled["event_type"], spelled["sequence"]])).toEqual([
      ["stream_start", 1],
      ["stream_data", 2],
      ["stream_data", 3],
      ["stream_end", 4],
    ]);
    expect(socket!.sent[2]!.spelled["payload"]).toMatchObject({
      data: { kind: "content", sequence_number: 2, content: { text: "lo" } },
    });
  });

  it("sends again what was not acknowledged when the connection broke, as the same producer", async () => {
    const { sockets, publish } = mesh([
      (socket) => {
        socket.onSent = ({ sequence }) => {
          if (sequence === 1) ack(socket, 1);
          if (sequence === 4) socket.close();
        };
        open(socket);
      },
      (socket) => socket.close(), // nobody there
      willing(2), // the acknowledgement of 2 was lost
    ]);
    const producer = await publish();
    for (const word of ["a", "b", "c", "d"]) await producer.send(text(word));
    await producer.flush();
    expect(sockets[0]!.sequences).toEqual([1, 2, 3, 4]);
    expect(sockets[2]!.sequences).toEqual([3, 4]);
    expect(Object.fromEntries(sockets[2]!.url.searchParams)).toMatchObject({ producer_id: "p-1", epoch: "4" });
  });

  it("goes elsewhere at once when its server goes away", async () => {
    const patient = { backoff: { firstMs: 1e9, longestMs: 1e9, tries: 1 } };
    const leaving = (socket: FakeSocket) => {
      socket.onSent = ({ sequence }) => {
        ack(socket, sequence);
        socket.say({ event_type: "go_away", stream_id: "s-1", reason: "restart", resume_token: `${sequence}` });
      };
      open(socket);
    };
    const { sockets, publish } = mesh([leaving, willing(1)], patient);
    const producer = await publish();
    await producer.send(text("a"));
    await producer.send(text("b"));
    await producer.flush();
    expect(sockets.map(({ sequences }) => sequences)).toEqual([[1], [2]]);
  });

  it("leaves a server that falls silent", async () => {
    const { sockets, publish } = mesh([open, willing()]);
    const producer = await publish({ silenceMs: 10 });
    await producer.send(text("a"));
    await producer.flush();
    expect(sockets.map(({ sequences }) => sequences)).toEqual([[1], [1]]);
    expect(sockets[0]!.readyState).toBe(3);
  });

  it("leaves a server that never says a word", async () => {
    const silent = () => {};
    const breaking = (socket: FakeSocket) => {
      socket.onSent = () => socket.close();
      open(socket);
    };
    const { sockets, publish } = mesh([silent, breaking, silent, willing()]);
    const producer = await publish({ silenceMs: 10 });
    await producer.send(text("a"));
    await producer.flush();
    expect(sockets.map(({ sequences }) => sequences)).toEqual([[], [1], [], [1]]);
  });

  it("keeps no more than it may, and waits", async () => {
    const { sockets, publish } = mesh([open]);
    const producer = await publish({ maxUnacknowledged: 2 });
    await producer.send(text("a"));
    await producer.send(text("b"));
    let isSent = false;
    const third = producer.send(text("c")).then(() => (isSent = true));
    await new Promise((resolve) => setTimeout(resolve));
    expect(isSent).toBe(false);
    ack(sockets[0]!, 1);
    await third;
    expect(sockets[0]!.sequences).toEqual([1, 2, 3]);
  });

  it("hears what the policy of the stream does", async () => {
    const { sockets, publish } = mesh([open]);
    const producer = await publish();
    await producer.send(text("a"));
    const dropped = { first_sequence: 1, last_sequence: 3 };
    sockets[0]!.say({ event_type: "policy", stream_id: "s-1", overflow: "drop_newest", blocked: true, dropped });
    expect(producer).toMatchObject({ isBlocked: true, dropped: 3 });
    ack(sockets[0]!, 1);
    expect(producer.isBlocked).toBe(false);
  });

  it("that another one shut out hears so, now and later", async () => {
    const { publish } = mesh([
      (socket) => {
        socket.onSent = () => {
          error(socket, "FAILED_PRECONDITION", "FAILED_PRECONDITION", { epoch: "5" });
          socket.close(1008);
        };
        open(socket);
      },
    ]);
    const producer = await publish();
    await producer.send(text("a"));
    await expect(producer.flush()).rejects.toMatchObject({ reason: "FAILED_PRECONDITION", metadata: { epoch: "5" } });
    await expect(producer.send(text("b"))).rejects.toMatchObject({ sentence: "It is FAILED_PRECONDITION." });
  });

  it("with a wrong token is not let in, and does not try again", async () => {
    const refuse = (socket: FakeSocket) => {
      error(socket, "PERMISSION_DENIED", "PERMISSION_DENIED");
      socket.close(1008);
    };
    const { sockets, publish } = mesh([refuse, refuse]);
    await expect(publish()).rejects.toMatchObject({ reason: "PERMISSION_DENIED" });
    expect(sockets).toHaveLength(1);
  });

  it("gives up when nobody is there", async () => {
    const { sockets, publish } = mesh([]);
    await expect(publish()).rejects.toMatchObject({ reason: "STREAM_INTERRUPTED", sentence: "The WebSocket was closed: 1006." });
    expect(sockets).toHaveLength(QUICK.tries + 1);
  });

  /** A mesh whose stream has ended when the producer comes back that was not told whether its end was stored. */
  const ended = (stream: MessageInitShape<typeof StreamSchema>) =>
    mesh(
      [
        (socket) => {
          socket.onSent = () => socket.close();
          open(socket);
        },
        (socket) => {
          error(socket, "FAILED_PRECONDITION", "FAILED_PRECONDITION", { last_sequence: "1" });
          socket.close(1008);
        },
      ],
      {},
      { getStream: () => ({ stream: { streamId: "s-1", epoch: 4n, lastSequence: 1n, ...stream } }) },
    );

  it("whose end was stored without an acknowledgement is done", async () => {
    const producer = await ended({ state: StreamState.ENDED }).publish();
    expect(await producer.end()).toBe(1n);
  });

  it("whose failure was stored without an acknowledgement is done, unless it is somebody else's", async () => {
    const failure = { code: 3, message: "no such song" };
    const own = await ended({ state: StreamState.FAILED, end: { error: failure } }).publish();
    expect(await own.fail(failure)).toBe(1n);
    const late = await ended({ state: StreamState.FAILED, end: { error: { code: 4, message: "too late" } } }).publish();
    await expect(late.fail(failure)).rejects.toMatchObject({ reason: "FAILED_PRECONDITION" });
  });

  it("cannot send after the end", async () => {
    const { publish } = mesh([willing()]);
    const producer = await publish();
    await producer.fail({ code: 3, message: "no such song" });
    await expect(producer.send(text("a"))).rejects.toMatchObject({
      reason: "FAILED_PRECONDITION",
      metadata: { stream_id: "s-1", last_sequence: "1" },
    });
  });

  it("of a stream that lost what it had acknowledged hears so", async () => {
    const { publish } = mesh([
      (socket) => {
        socket.onSent = ({ sequence }) => {
          ack(socket, sequence);
          socket.close();
        };
        open(socket, 5);
      },
      willing(2),
    ]);
    const producer = await publish();
    await producer.send(text("a"));
    await producer.send(text("b")).catch(() => {});
    await expect(producer.flush()).rejects.toMatchObject({ reason: "OUT_OF_RANGE", metadata: { last_sequence: "2" } });
  });

  it("that is aborted fails with that, and closes its socket", async () => {
    const { sockets, publish } = mesh([open]);
    const stop = new AbortController();
    const producer = await publish({ signal: stop.signal });
    await producer.send(text("a"));
    stop.abort();
    await expect(producer.flush()).rejects.toThrow();
    expect(sockets[0]!.readyState).toBe(3);
  });

  it("that was aborted before it began opens no socket", async () => {
    const { sockets, publish } = mesh([open]);
    await expect(publish({ signal: AbortSignal.abort(new Error("too late")) })).rejects.toThrow("too late");
    expect(sockets).toEqual([]);
  });

  it("that is done is not aborted any more", async () => {
    const { publish } = mesh([
      (socket) => {
        willing()(socket);
        const { onSent } = socket;
        socket.onSent = (spelled) => {
          onSent(spelled);
          setTimeout(() => socket.close(1000));
        };
      },
    ]);
    const stop = new AbortController();
    const remove = vi.spyOn(stop.signal, "removeEventListener");
    const producer = await publish({ signal: stop.signal });
    await producer.end();
    await vi.waitFor(() => expect(remove).toHaveBeenCalled());
    stop.abort();
    await producer.flush();
  });

  it("that leaves ends what waits for it, and sends nothing more", async () => {
    const { sockets, publish } = mesh([open]);
    const producer = await publish({ maxUnacknowledged: 1 });
    await producer.send(text("a"));
    const waiting = [producer.flush(), producer.send(text("b"))];
    producer.close();
    const left = { reason: "CANCELLED", sentence: "The producer has left stream s-1." };
    for (const promise of [...waiting, producer.send(text("c"))]) await expect(promise).rejects.toMatchObject(left);
    expect(sockets[0]!.sequences).toEqual([1]);
  });
});

describe("A chunk is spelled as the JSON edges read it:", () => {
  const head = { sequenceNumber: 2n, source: "writer", timestamp: timestampFromDate(new Date("2026-11-21T13:00:00.123Z")) };
  const info = create(ErrorInfoSchema, { reason: "STREAM_TIMEOUT", domain: "mediamesh.dev", metadata: { code: "E2011" } });
  const answer = fromJson(ValueSchema, { answer: { parts: [1, 2.5, null], text: "Hello" } });
  const payloads: Record<string, MessageInitShape<typeof ChunkSchema>["payload"]> = {
    content: { case: "content", value: { text: "Hel" } },
    reasoning: { case: "reasoning", value: { itemId: "r-1", contentIndex: 1, text: { case: "reasoningDelta", value: "First" } } },
    snapshot: { case: "snapshot", value: { data: answer } },
    error: {
      case: "error",
      value: { code: 4, message: "The stream outlived its 300 s.", details: [anyPack(ErrorInfoSchema, info)] },
    },
  };
  const golden = (path: string) =>
    JSON.parse(readFileSync(new URL(`../../../tests/wire/golden/streams/${path}.json`, import.meta.url), "utf8"));
  const spelled = (payload: MessageInitShape<typeof ChunkSchema>["payload"]) => {
    const frame = publishFrame("stream_data", 2n, { data: create(ChunkSchema, { ...head, ...(payload && { payload }) }) });
    const socket = new FakeSocket(new URL("ws://fake"));
    socket.send(frame);
    return { chunk: (socket.sent[0]!.spelled["payload"] as { data: object }).data, bytes: socket.sent[0]!.data };
  };

  it.each(Object.keys(payloads))("%s", (kind) => {
    // What is zero may be left out.
    expect(golden(`chunks/${kind}`)).toMatchObject(spelled(payloads[kind]).chunk);
  });

  it("media, whose bytes go beside the JSON", () => {
    const whole = golden("chunks/media");
    const data = Uint8Array.from(atob(whole.media.data), (letter) => letter.charCodeAt(0));
    const attachment = {
      mediaType: MediaType.AUDIO,
      encoding: MediaEncoding.URL,
      data: { case: "text", value: "https://example.org/a.opus" },
      metadata: { mimeType: "audio/opus", durationSeconds: 1.5 },
    } as const;
    const { chunk, bytes } = spelled({
      case: "media",
      value: {
        mediaType: MediaType.IMAGE,
        encoding: MediaEncoding.BINARY,
        data: { case: "binary", value: data },
        metadata: { mimeType: "image/png", sizeBytes: 8n, width: 1, height: 1, filename: "dot.png", checksum: whole.media.metadata.checksum },
        totalChunks: 1,
        caption: "A picture.",
        attachments: [attachment],
        progress: { percentage: 100, bytesTransferred: 8n, totalBytes: 8n },
      },
    });
    expect({ ...whole, media: { ...whole.media, encoding: "binary", data: null } }).toMatchObject(chunk);
    expect(bytes).toEqual(data);
  });

  it("with what is known about it", () => {
    const metadata = create(StreamMetadataSchema, { totalChunks: 3n, mimeType: "text/plain", encoding: "utf-8" });
    const data = create(ChunkSchema, { ...head, ...(payloads["content"] && { payload: payloads["content"] }) });
    expect(golden("publish/event")).toMatchObject(JSON.parse(String(publishFrame("stream_data", 2n, { data, metadata }))));
  });
});

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import type { Stream } from "@mediamesh/contracts/stream/v1/stream_pb.js";
import type {
  CloseStreamRequestSchema,
  GetCapabilitiesResponse,
  ListStreamsRequestSchema,
  ListStreamsResponse,
  OpenStreamRequestSchema,
  OpenStreamResponse,
  WatchStreamsRequestSchema,
  WatchStreamsResponse,
} from "@mediamesh/contracts/stream/v1/stream_service_pb.js";
import { StreamService } from "@mediamesh/contracts/stream/v1/stream_service_pb.js";
import type { BackoffPolicy } from "./backoff.js";
import { BACKOFF } from "./backoff.js";
import type { CallInit } from "./call.js";
import { explained, options, streamed } from "./call.js";
import { MeshError } from "./errors.js";
import { Conversation } from "./streams/conversation.js";
import { Outbox } from "./streams/outbox.js";
import { Publisher } from "./streams/publisher.js";
import type { StreamItem } from "./streams/reading.js";
import { attentive, resumed, Tries } from "./streams/reading.js";
import { watched } from "./streams/watching.js";

const HEARTBEAT_MS = 5000;
// Heartbeats that may fail to come before a connection counts as broken.
const MISSED_HEARTBEATS = 2.5;
const ACKNOWLEDGE_MS = 15_000;

export interface SubscribeInit extends CallInit {
  /** Sequence of the last event that the reader has; 0 for all that there are. */
  readonly afterSequence?: bigint;
  /** The reader's own id, so that its place is kept while it is away. */
  readonly subscriberId?: string;
  /** Whether to begin with a gap when the event after `afterSequence` is no longer kept. */
  readonly allowGap?: boolean;
  /** How often the server tells that it is there, in milliseconds; 2.5 times as much is a broken connection. */
  readonly heartbeatMs?: number;
}

export interface PublishInit {
  /** Breaks the conversation off when aborted; the stream goes on without a producer. */
  readonly signal?: AbortSignal;
  readonly producerId?: string;
  /** Which producer of the stream this is; 0 takes over from the one before. */
  readonly epoch?: bigint;
  /** Most events that are sent and not acknowledged; then `send` waits. */
  readonly maxUnacknowledged?: number;
  /** Most bytes, likewise. */
  readonly maxUnacknowledgedBytes?: number;
  /** Silence in milliseconds, while an answer is due, after which a connection counts as broken; 15 s. */
  readonly silenceMs?: number;
}

/** The streams of a mesh as a browser sees them. Every failure is a `MeshError`. */
export interface Streams {
  /** Opens a stream; the answer has its id, its address over WebSocket and the token to publish to it. */
  open(request?: MessageInitShape<typeof OpenStreamRequestSchema>, init?: CallInit): Promise<OpenStreamResponse>;
  /**
   * Yields the events of a stream, each once and in order, until its last one; what is lost comes as a `StreamGap`. A
   * connection that breaks off, or falls silent, or a server that goes away, is not seen.
   */
  subscribe(streamId: string, init?: SubscribeInit): AsyncIterable<StreamItem>;
  /** Publishes to a stream over WebSocket; what is not acknowledged when a connection breaks is sent again. */
  publish(streamId: string, publishToken: string, init?: PublishInit): Promise<Publisher>;
  /** Yields which streams become available and complete, those that live first; breaks are not seen. */
  watchStreams(
    request?: MessageInitShape<typeof WatchStreamsRequestSchema>,
    init?: CallInit,
  ): AsyncIterable<WatchStreamsResponse>;
  /** Returns a stream as it stands. */
  get(streamId: string, init?: CallInit): Promise<Stream>;
  /** Returns a page of the streams of a workspace, newest first. */
  list(request?: MessageInitShape<typeof ListStreamsRequestSchema>, init?: CallInit): Promise<ListStreamsResponse>;
  /** Ends a stream in place of its producer; one that has ended stays as it is. */
  close(request: MessageInitShape<typeof CloseStreamRequestSchema>, init?: CallInit): Promise<Stream>;
  /** Tells what streams of this mesh can carry, and on which transports they can be read. */
  capabilities(init?: CallInit): Promise<GetCapabilitiesResponse>;
}

export interface StreamsInit {
  /** Waits between tries to come back. */
  readonly backoff?: Partial<BackoffPolicy>;
  /** What carries the calls, in place of gRPC-Web to the address. */
  readonly transport?: Transport;
  /** What opens a WebSocket, in place of the browser. */
  readonly webSocket?: (url: string) => WebSocket;
}

/**
 * Opens the streams of the mesh behind an address.
 *
 * @param baseUrl Address of the mesh, such as `http://127.0.0.1:8080`.
 */
export function createStreams(baseUrl: string, init: StreamsInit = {}): Streams {
  const client = createClient(StreamService, init.transport ?? createGrpcWebTransport({ baseUrl }));
  const policy = { ...BACKOFF, ...init.backoff };
  const openSocket = init.webSocket ?? ((url: string) => new WebSocket(url));
  const one = async (answer: Promise<{ stream?: Stream | undefined }>): Promise<Stream> => {
    const { stream } = await explained(answer);
    if (!stream) throw new MeshError("The answer names no stream.", "INTERNAL");
    return stream;
  };
  return {
    open: (request = {}, call) => explained(client.openStream(request, options(call))),
    get: (streamId, call) => one(client.getStream({ streamId }, options(call))),
    list: (request = {}, call) => explained(client.listStreams(request, options(call))),
    close: (request, call) => one(client.closeStream(request, options(call))),
    capabilities: (call) => explained(client.getCapabilities({}, options(call))),
    watchStreams: (request = {}, call = {}) =>
      watched(
        (resumeToken) =>
          streamed(call.signal, (signal) => client.watchStreams({ ...request, resumeToken }, options({ ...call, signal }))),
        new Tries(policy, call.signal),
        request.resumeToken,
      ),
    subscribe: (streamId, call = {}) => {
      const { heartbeatMs = HEARTBEAT_MS, subscriberId = crypto.randomUUID() } = call;
      const heartbeatInterval = { seconds: BigInt(Math.floor(heartbeatMs / 1000)), nanos: (heartbeatMs % 1000) * 1e6 };
      return resumed(
        ({ after, allowGap }) => {
          const request = { streamId, subscriberId, heartbeatInterval, afterSequence: after, allowGap };
          return streamed(call.signal, (signal) =>
            attentive(client.subscribe(request, options({ ...call, signal })), MISSED_HEARTBEATS * heartbeatMs),
          );
        },
        new Tries(policy, call.signal),
        { after: call.afterSequence ?? 0n, allowGap: call.allowGap ?? false },
      );
    },
    publish: async (streamId, publishToken, call = {}) => {
      const outbox = new Outbox(streamId, call.maxUnacknowledged ?? 1024, call.maxUnacknowledgedBytes ?? 8 * 1024 * 1024);
      const conversation = new Conversation(outbox, {
        open: (producerId, epoch) =>
          openSocket(socketUrl(baseUrl, streamId, { publish: "1", token: publishToken, producer_id: producerId, epoch: `${epoch}` })),
        look: () => client.getStream({ streamId }).then(({ stream }) => stream),
        tries: new Tries(policy, call.signal),
        silenceMs: call.silenceMs ?? ACKNOWLEDGE_MS,
        producerId: call.producerId ?? crypto.randomUUID(),
        epoch: call.epoch ?? 0n,
      });
      void conversation.run(); // never rejects: its failure goes to the outbox
      await conversation.opened();
      return new Publisher(outbox, conversation);
    },
  };
}

function socketUrl(baseUrl: string, streamId: string, query: Record<string, string>): string {
  const url = new URL(`/api/v1/streams/${encodeURIComponent(streamId)}/ws`, baseUrl);
  url.protocol = url.protocol.replace("http", "ws");
  url.search = new URLSearchParams(query).toString();
  return url.href;
}

import { Code } from "@connectrpc/connect";
import type { Status } from "@mediamesh/contracts/google/rpc/status_pb.js";
import type { Stream, StreamState } from "@mediamesh/contracts/stream/v1/stream_pb.js";
import { MeshError } from "../errors.js";
import type { Outbox } from "./outbox.js";
import type { Tries } from "./reading.js";
import type { Spelled } from "./spelling.js";
import { errorOf } from "./spelling.js";

/** How much the buffer of a stream takes before its policy acts. */
export interface PublishWindow {
  readonly items: number;
  readonly bytes: number;
}

// A socket that lasted so long, or had something stored, was no failure to open one.
const STEADY_MS = 1000;

/** How a producer ends its stream. */
export interface End {
  readonly state: StreamState;
  readonly error: Status | undefined;
}

interface ConversationInit {
  /** Opens a socket for a producer; the epoch is 0 until the stream has given one. */
  readonly open: (producerId: string, epoch: bigint) => WebSocket;
  /** Returns the stream as it stands. */
  readonly look: () => Promise<Stream | undefined>;
  readonly tries: Tries;
  /** Silence in milliseconds, while an answer is due, the first one too, after which a socket counts as broken. */
  readonly silenceMs: number;
  readonly producerId: string;
  readonly epoch: bigint;
}

/** A producer's conversation with its stream, through as many sockets as it takes. */
export class Conversation {
  readonly #outbox: Outbox;
  readonly #init: ConversationInit;
  #socket: WebSocket | undefined;
  #next = 0n;
  #isOpen = false;
  #hasLeft = false;
  #giveUp: ((why: MeshError) => void) | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;
  producerId: string;
  epoch: bigint;
  window: PublishWindow = { items: 0, bytes: 0 };
  isBlocked = false;
  dropped = 0;
  /** How the stream ends with the last event of the outbox; undefined while it goes on. */
  end: End | undefined;

  constructor(outbox: Outbox, init: ConversationInit) {
    this.#outbox = outbox;
    this.#init = init;
    this.producerId = init.producerId;
    this.epoch = init.epoch;
  }

  /** Talks until the producer leaves; what makes that impossible goes to the outbox, for those who wait there. */
  async run(): Promise<void> {
    const { signal } = this.#init.tries;
    const abort = () => this.#abort(signal?.reason);
    signal?.addEventListener("abort", abort);
    try {
      if (signal?.aborted) abort();
      while (!this.#hasLeft) await this.#talk();
    } catch (thrown) {
      this.#outbox.fail(MeshError.from(thrown));
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Waits until the stream has taken the producer. */
  opened(): Promise<void> {
    return this.#outbox.until(() => this.#isOpen);
  }

  /** Ends the conversation, for those who wait too; what is not acknowledged by then may not be stored. */
  leave(): void {
    this.#hasLeft = true;
    this.#socket?.close(1000);
    this.#outbox.fail(new MeshError(`The producer has left stream ${this.#outbox.streamId}.`, "CANCELLED", { code: Code.Canceled }));
  }

  /** Sends what the outbox has and the socket has not had yet. */
  pump(): void {
    if (this.#next === 0n || this.#socket?.readyState !== 1) return;
    // What another socket had under way may have been stored meanwhile.
    if (this.#next <= this.#outbox.acknowledged) this.#next = this.#outbox.acknowledged + 1n;
    for (let frame; (frame = this.#outbox.frame(this.#next)) !== undefined; this.#next += 1n) this.#socket.send(frame);
    if (this.#silence === undefined) this.#expect();
  }

  /** Makes use of one socket, and bears its failure if it may pass. */
  async #talk(): Promise<void> {
    const before = this.#outbox.acknowledged;
    const begin = performance.now();
    const { failure, isDismissed } = await this.#used();
    const wasOpen = this.#next > 0n;
    this.#next = 0n;
    this.isBlocked = false;
    if (this.#hasLeft) return;
    if (await this.#hasEnded(failure)) {
      this.#outbox.settle(this.#outbox.newest);
      this.#hasLeft = true;
      return;
    }
    if (this.end !== undefined && this.#outbox.isEmpty) {
      this.#hasLeft = true; // all is said
      return;
    }
    const wasSteady = wasOpen && (this.#outbox.acknowledged > before || performance.now() - begin > STEADY_MS);
    if (wasSteady) this.#init.tries.heard();
    if (!(wasSteady && isDismissed)) await this.#init.tries.bear(failure);
  }

  /** Opens a socket and resolves when it is closed, or given up. */
  #used(): Promise<{ failure: MeshError; isDismissed: boolean }> {
    return new Promise((resolve, reject) => {
      const socket = (this.#socket = this.#init.open(this.producerId, this.epoch));
      this.#expect(true);
      let failure: MeshError | undefined;
      let isDismissed = false;
      this.#giveUp = (why) => {
        resolve({ failure: failure ?? why, isDismissed });
        socket.close(1000);
      };
      socket.addEventListener("message", ({ data }: MessageEvent) => {
        if (socket !== this.#socket) return;
        try {
          const spelled = JSON.parse(String(data)) as Spelled;
          if (spelled["event_type"] === "error") failure = errorOf(spelled["error"]);
          else if (spelled["event_type"] === "go_away") {
            isDismissed = true;
            socket.close(1000);
          } else this.#take(spelled);
        } catch (thrown) {
          reject(thrown);
          socket.close(1000);
        }
      });
      socket.addEventListener("close", ({ code, reason }: CloseEvent) => {
        if (socket !== this.#socket) return;
        this.#expect(false);
        this.#giveUp?.(new MeshError(`The WebSocket was closed: ${reason || code}.`, "STREAM_INTERRUPTED"));
      });
    });
  }

  #take(spelled: Spelled): void {
    switch (spelled["event_type"]) {
      case "opened":
        this.#opened(spelled);
        break;
      case "ack":
        this.isBlocked = false;
        this.window = spelled["window"] as PublishWindow;
        this.#outbox.settle(sequenceOf(spelled["sequence"]));
        break;
      case "policy": {
        const dropped = spelled["dropped"] as Spelled | undefined;
        this.isBlocked = spelled["blocked"] === true;
        if (dropped) this.dropped += Number(dropped["last_sequence"]) - Number(dropped["first_sequence"]) + 1;
      }
    }
    this.#expect();
  }

  #opened(spelled: Spelled): void {
    const last = sequenceOf(spelled["last_sequence"]);
    this.window = spelled["window"] as PublishWindow;
    this.#next = last + 1n;
    if (this.#isOpen) this.#outbox.reopen(last);
    else {
      this.producerId = String(spelled["producer_id"]);
      this.epoch = sequenceOf(spelled["epoch"]);
      this.#isOpen = true;
      this.#outbox.begin(last);
    }
    this.pump();
  }

  /** Answers are due while something is not acknowledged, unless the policy of the stream holds the producer. */
  #expect(isDue = !this.isBlocked && !this.#outbox.isEmpty): void {
    clearTimeout(this.#silence);
    const { silenceMs } = this.#init;
    // Not by its `close` event: that waits for the other side to say goodbye.
    const giveUp = () => this.#giveUp?.(new MeshError(`The server said nothing for ${silenceMs / 1000} s.`, "STREAM_INTERRUPTED"));
    this.#silence = isDue ? setTimeout(giveUp, silenceMs) : undefined;
  }

  #abort(reason: unknown): void {
    this.#outbox.fail(MeshError.from(reason));
    this.leave();
  }

  /** Whether a refusal only means that the end of the stream is stored and was not acknowledged. */
  async #hasEnded(failure: MeshError): Promise<boolean> {
    if (this.end === undefined || !this.#isOpen || failure.reason !== "FAILED_PRECONDITION") return false;
    const stream = await this.#init.look();
    const { state, error } = this.end;
    return (
      stream?.epoch === this.epoch &&
      stream.lastSequence === this.#outbox.newest &&
      stream.state === state &&
      // A stream that somebody else ended has failed too: with another error, in the place of ours.
      stream.end?.error?.code === error?.code &&
      stream.end?.error?.message === error?.message
    );
  }
}

function sequenceOf(value: unknown): bigint {
  return BigInt(Number(value));
}

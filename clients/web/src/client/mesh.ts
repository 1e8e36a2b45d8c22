import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import type { ValueSchema } from "@mediamesh/contracts/agent/v1/value_pb.js";
import type { Execution, ExecutionEvent } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import type { FlowSourceSchema } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import type { ValidateFlowResponse } from "@mediamesh/contracts/flow/v1/flow_service_pb.js";
import { FlowService } from "@mediamesh/contracts/flow/v1/flow_service_pb.js";
import type { BackoffPolicy } from "./backoff.js";
import { BACKOFF } from "./backoff.js";
import type { CallInit } from "./call.js";
import { explained, options, streamed } from "./call.js";
import { MeshError } from "./errors.js";
import { resumed } from "./watch.js";

// How long a run that is left may take to hear that it is cancelled.
const LEAVE_MS = 5_000;

/** The text of a flow and the name of its file. */
export type FlowText = MessageInitShape<typeof FlowSourceSchema>;
/** Values for the output pins of `ui.*` nodes, by `node.pin`. */
export type FlowInputs = Record<string, MessageInitShape<typeof ValueSchema>>;

export interface RunInit extends CallInit {
  readonly workspaceId?: string;
}

export interface WatchInit extends CallInit {
  /** Sequence of the last event that the reader has; 0 for all. */
  readonly afterSequence?: bigint;
}

/** The mesh as a browser sees it. Every failure is a `MeshError`. */
export interface Mesh {
  /** Checks a flow and returns everything that is wrong with it. */
  validate(source: FlowText, init?: CallInit): Promise<ValidateFlowResponse>;
  /**
   * Runs a flow and yields its events, each once; to leave the loop, or to abort, cancels the run. When the stream breaks,
   * the events that follow come from `watch`: a run that another server took up goes on, one that ended says how.
   */
  run(source: FlowText, inputs: FlowInputs, init?: RunInit): AsyncIterable<ExecutionEvent>;
  /** Yields the events of an execution, each once, and resumes by itself after a break. */
  watch(executionId: string, init?: WatchInit): AsyncIterable<ExecutionEvent>;
  /** Cancels an execution; a second call changes nothing. */
  cancel(executionId: string, init?: CallInit): Promise<Execution>;
}

export interface MeshInit {
  /** Waits between the tries of `watch`. */
  readonly backoff?: Partial<BackoffPolicy>;
  /** What carries the calls, in place of gRPC-Web to the address. */
  readonly transport?: Transport;
}

/**
 * Opens the mesh behind an address.
 *
 * @param baseUrl Address of the mesh, such as `http://127.0.0.1:8080`.
 */
export function createMesh(baseUrl: string, init: MeshInit = {}): Mesh {
  const client = createClient(FlowService, init.transport ?? createGrpcWebTransport({ baseUrl }));
  const policy = { ...BACKOFF, ...init.backoff };
  const watch = (executionId: string, call: WatchInit = {}) =>
    resumed(
      (afterSequence) =>
        stream(call.signal, (signal) => client.watchExecution({ executionId, afterSequence }, options({ ...call, signal }))),
      policy,
      call.afterSequence,
      call.signal,
    );
  return {
    validate: (source, call) => explained(client.validateFlow({ source }, options(call))),
    run: (source, inputs, call = {}) =>
      followed(
        stream(call.signal, (signal) =>
          client.runFlow({ source, inputs, workspaceId: call.workspaceId ?? "" }, options({ ...call, signal })),
        ),
        (executionId, afterSequence) => watch(executionId, { ...call, afterSequence }),
        (executionId) => client.cancelExecution({ executionId }, { timeoutMs: LEAVE_MS }),
        call.signal,
      ),
    watch,
    cancel: async (executionId, call) => {
      const { execution } = await explained(client.cancelExecution({ executionId }, options(call)));
      if (!execution) throw new MeshError("The answer names no execution.", "INTERNAL");
      return execution;
    },
  };
}

async function* stream(
  signal: AbortSignal | undefined,
  open: (signal: AbortSignal) => AsyncIterable<{ event?: ExecutionEvent | undefined }>,
): AsyncGenerator<ExecutionEvent, void, undefined> {
  for await (const { event } of streamed(signal, open)) if (event) yield event;
}

/** Yields the events of a run's own stream, and those that follow a break from the log of the run; leaving them cancels it. */
async function* followed(
  own: AsyncIterable<ExecutionEvent>,
  follow: (executionId: string, afterSequence: bigint) => AsyncIterable<ExecutionEvent>,
  cancel: (executionId: string) => Promise<unknown>,
  signal: AbortSignal | undefined,
): AsyncGenerator<ExecutionEvent, void, undefined> {
  let executionId = "";
  let sequence = 0n;
  try {
    for await (const event of own) {
      executionId ||= event.executionId;
      if (event.sequence > sequence) sequence = event.sequence;
      yield event;
      if (event.event.case === "executionFinished") return;
    }
  } catch (thrown) {
    const broken = MeshError.from(thrown);
    if (!executionId || signal?.aborted || !broken.retryable) throw broken;
  }
  if (!executionId) return;
  let isEnded = false;
  try {
    for await (const event of follow(executionId, sequence)) {
      isEnded = event.event.case === "executionFinished";
      yield event;
    }
  } finally {
    // The server cancels a run whose own stream is left, but not one that is only watched.
    if (!isEnded) await cancel(executionId).catch(() => {});
  }
}

/** AgentService: one call's frames become one run. */

import { Code, ConnectError } from "@connectrpc/connect";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  AgentService,
  DescribeRequest,
  DescribeResponseSchema,
  OpenRun,
  RunRequest,
  RunResponse,
} from "@mediamesh/contracts/agent/v1/agent_service_pb.js";

import { Run } from "./agent.js";
import type { Agent } from "./agent.js";
import { MeshError, failure } from "./errors.js";
import { Inbox } from "./inbox.js";
import { checkOpening } from "./opening.js";
import { Outputs } from "./outputs.js";
import { MEDIA_TYPES, typeName } from "./pins.js";

const RUNTIME = "mediamesh-typescript";
const VERSION = "0.1.0";

export class Host implements ServiceImpl<typeof AgentService> {
  readonly #agents: ReadonlyMap<string, Agent>;
  #active = 0;

  constructor(agents: readonly Agent[]) {
    this.#agents = new Map(agents.map((agent) => [agent.manifest.id, agent]));
  }

  describe({ agentId }: DescribeRequest): MessageInitShape<typeof DescribeResponseSchema> {
    const agents = translated(() => (agentId === "" ? [...this.#agents.values()] : [this.#find(agentId)]));
    const manifests = agents.map(({ manifest }) => manifest);
    return {
      agents: manifests,
      capabilities: {
        runtime: RUNTIME,
        version: VERSION,
        streaming: true,
        inputModalities: modalities(manifests.flatMap(({ inputs }) => inputs)),
        outputModalities: modalities(manifests.flatMap(({ outputs }) => outputs)),
        supportedTransports: ["grpc"],
        activeRuns: this.#active,
      },
    };
  }

  async *run(requests: AsyncIterable<RunRequest>, context: HandlerContext): AsyncGenerator<RunResponse> {
    const frames = requests[Symbol.asyncIterator]();
    const open = await first(frames);
    const agent = translated(() => this.#find(open.agentId));
    const outputs = new Outputs(agent.manifest);
    const opening = translated(() => checkOpening(agent.manifest, open));
    const inbox = new Inbox(agent.manifest, open.streamInputs);
    const stopping = new AbortController();
    const signal = AbortSignal.any([context.signal, stopping.signal]);
    const stop = (cause: unknown): void => {
      inbox.fail(cause);
      outputs.frames.fail(cause);
      stopping.abort(cause);
    };
    context.signal.addEventListener("abort", () => stop(context.signal.reason), { once: true });
    const filling = inbox.fill(frames).catch(stop);
    const run = new Run(open.context, opening, inbox, outputs, signal);
    this.#active += 1;
    const working = agent
      .process(run)
      .then((given) => outputs.finish(given ?? {}))
      .catch(stop)
      .finally(() => {
        this.#active -= 1;
      });
    try {
      yield* outputs.frames;
    } catch (error) {
      if (context.signal.aborted) throw ConnectError.from(context.signal.reason);
      throw spelt(agent.manifest.id, error);
    } finally {
      stop(new ConnectError("The run is over.", Code.Canceled));
      void Promise.allSettled([filling, working]);
    }
  }

  #find(id: string): Agent {
    const agent = this.#agents.get(id);
    if (agent !== undefined) return agent;
    const known = [...this.#agents.keys()].join(", ");
    throw new MeshError("NOT_FOUND", `There is no agent '${id}' on this server; it has ${known}.`);
  }
}

async function first(frames: AsyncIterator<RunRequest>): Promise<OpenRun> {
  const next = await frames.next();
  if (next.done !== true && next.value.message.case === "open") return next.value.message.value;
  throw MeshError.ofFields([{ field: "open", description: "must be the first frame of a run" }]).toConnect();
}

function translated<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof MeshError ? error.toConnect() : error;
  }
}

/** What the call ends with; what the transport says of itself, such as a deadline, stays. */
function spelt(agent: string, error: unknown): ConnectError {
  return error instanceof ConnectError ? error : failure(agent, error).toConnect();
}

function modalities(pins: readonly { type: number }[]): string[] {
  return [...new Set(pins.map(({ type }) => (MEDIA_TYPES.has(type) ? typeName(type) : "text")))].sort();
}

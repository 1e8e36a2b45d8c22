/** Serves agents over gRPC, with grpc.health.v1 beside them. */

import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";

import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { AgentService } from "@mediamesh/contracts/agent/v1/agent_service_pb.js";

import type { Agent } from "./agent.js";
import { HealthCheckResponse_ServingStatus as ServingStatus, Health } from "./health_pb.js";
import { Host } from "./host.js";

const MOST_BYTES = 21 * 1024 * 1024; // one image inline, and the envelope around it

export type Serving = {
  readonly port: number;
  /** Say NOT_SERVING, let runs end for so many seconds, then close. */
  close(graceSeconds?: number): Promise<void>;
};

/** Serve agents until closed. */
export async function serving(agents: readonly Agent[], { host = "127.0.0.1", port = 0 } = {}): Promise<Serving> {
  let status = ServingStatus.SERVING;
  const known = new Set(["", AgentService.typeName]);
  const check = ({ service }: { service: string }) => {
    if (!known.has(service)) throw new ConnectError(`There is no service ${service}.`, Code.NotFound);
    return { status };
  };
  const handler = connectNodeAdapter({
    routes: (router) => {
      router.service(AgentService, new Host(agents));
      router.service(Health, { check });
    },
    grpc: true,
    grpcWeb: false,
    connect: false,
    readMaxBytes: MOST_BYTES,
  });
  const server = createServer(handler);
  const sessions = new Set<{ close(): void; destroy(): void }>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
  });
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(port, host, resolve));
  return {
    port: (server.address() as AddressInfo).port,
    async close(graceSeconds = 10) {
      status = ServingStatus.NOT_SERVING;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const session of sessions) session.close(); // a GOAWAY; calls in progress go on
      const timer = setTimeout(() => sessions.forEach((session) => session.destroy()), graceSeconds * 1000);
      await closed;
      clearTimeout(timer);
    },
  };
}

/** Serve agents until SIGTERM or Ctrl-C, as `MEDIAMESH_AGENT_HOST` and `MEDIAMESH_AGENT_PORT` say. */
export async function main(...agents: readonly Agent[]): Promise<void> {
  const host = process.env["MEDIAMESH_AGENT_HOST"] ?? "127.0.0.1";
  const server = await serving(agents, { host, port: Number(process.env["MEDIAMESH_AGENT_PORT"] ?? 0) });
  console.error(`${agents.map(({ manifest }) => manifest.id).join(", ")} on ${host}:${server.port}`);
  await new Promise<void>((resolve) => {
    for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => resolve());
  });
  await server.close();
}

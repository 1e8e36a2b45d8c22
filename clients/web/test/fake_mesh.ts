import type { IncomingMessage, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { createConnectRouter } from "@connectrpc/connect";
import { createFetchHandler } from "@connectrpc/connect/protocol";
import { FlowService } from "@mediamesh/contracts/flow/v1/flow_service_pb.js";
import { fakeFlows } from "./fake_flows.js";

const router = createConnectRouter().service(FlowService, fakeFlows(450));
const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, createFetchHandler(handler)]));

/** Answers the calls of the console as a mesh would; everything else goes on to `next`. */
export async function handle(request: IncomingMessage, response: ServerResponse, next: () => void): Promise<void> {
  const handler = handlers.get(request.url ?? "");
  if (!handler) return next();
  const left = new AbortController();
  response.on("close", () => left.abort());
  const answer = await handler(
    new Request(`http://fake${request.url}`, {
      method: request.method ?? "POST",
      headers: Object.entries(request.headers).map(([name, value]): [string, string] => [name, String(value)]),
      body: Readable.toWeb(request) as ReadableStream,
      signal: left.signal,
      duplex: "half",
    } as RequestInit),
  );
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  for await (const piece of answer.body ?? []) response.write(piece);
  response.end();
}

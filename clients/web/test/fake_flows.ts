import type { MessageInitShape } from "@bufbuild/protobuf";
import { create, fromJson } from "@bufbuild/protobuf";
import { anyPack, timestampNow, ValueSchema as JsonSchema } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { Code, ConnectError } from "@connectrpc/connect";
import { PinType } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import { ExecutionEventSchema, ExecutionState, type ExecutionEvent } from "@mediamesh/contracts/flow/v1/execution_pb.js";
import { FlowSchema, type Flow } from "@mediamesh/contracts/flow/v1/flow_pb.js";
import type { FlowService, RunFlowRequest } from "@mediamesh/contracts/flow/v1/flow_service_pb.js";
import { BadRequestSchema, ErrorInfoSchema } from "@mediamesh/contracts/google/rpc/error_details_pb.js";
import { StatusSchema } from "@mediamesh/contracts/google/rpc/status_pb.js";
import { MediaType } from "@mediamesh/contracts/media/v1/media_pb.js";
import { pause } from "../src/client/backoff.js";
import { hearing, MULTIMODAL, SHOWCASE, showcasing } from "./fake_streaming.js";

type EventInit = MessageInitShape<typeof ExecutionEventSchema>;
/** An event, and how long after the one before it comes. */
export type Happening = EventInit & { readonly afterMs?: number };

/** The flow as the mesh reads classify.mlab. */
export const CLASSIFY = create(FlowSchema, {
  id: "classify",
  name: "Classify a photo",
  description: "Names what a photo shows, with the five most likely labels.",
  nodes: [
    { id: "upload", type: "ui.file-upload", outputPins: [{ name: "file", type: PinType.IMAGE }], line: 10 },
    {
      id: "classify",
      type: "mediamesh.image-classifier",
      inputPins: [{ name: "image", type: PinType.IMAGE }],
      outputPins: [
        { name: "classification", type: PinType.JSON },
        { name: "confidence", type: PinType.NUMBER },
      ],
      line: 12,
    },
    { id: "show", type: "ui.stream-console", inputPins: [{ name: "input", type: PinType.JSON }], line: 16 },
  ],
  edges: [
    { from: { nodeId: "upload", pin: "file" }, to: { nodeId: "classify", pin: "image" } },
    { from: { nodeId: "classify", pin: "classification" }, to: { nodeId: "show", pin: "input" } },
  ],
});

export const LABELS = [
  { label: "Egyptian cat", index: 285, probability: 0.614 },
  { label: "tabby, tabby cat", index: 281, probability: 0.217 },
  { label: "tiger cat", index: 282, probability: 0.094 },
  { label: "lynx, catamount", index: 287, probability: 0.021 },
  { label: "Persian cat", index: 283, probability: 0.004 },
];

const WRONG_TYPE = "upload.file: the bytes are text/plain; an image must be image/jpeg, image/png, image/webp or image/gif.";

/** The details of the error for a file that is no picture. */
function wrongType() {
  return [
    {
      desc: ErrorInfoSchema,
      value: { reason: "UNSUPPORTED_MEDIA_TYPE", domain: "mediamesh.dev", metadata: { code: "E1010" } },
    },
    { desc: BadRequestSchema, value: { fieldViolations: [{ field: "upload.file", description: "is text/plain" }] } },
  ] as const;
}

/** Returns the events of a run that succeeds. */
export function succeeding(bytes = 48_213, stepMs = 0): Happening[] {
  const media = {
    type: MediaType.IMAGE,
    source: {
      case: "ref",
      value: {
        url: "s3://media/default/classify/e1/upload/file_1.jpg",
        sizeBytes: BigInt(bytes),
        metadata: { mimeType: "image/jpeg", width: 640, height: 480 },
      },
    },
  } as const;
  const labels = { kind: { case: "json", value: fromJson(JsonSchema, LABELS) } } as const;
  return [
    { event: { case: "executionStarted", value: { flow: CLASSIFY, workspaceId: "default" } } },
    { nodeId: "upload", event: { case: "nodeStarted", value: { agentId: "ui.file-upload", attempt: 1 } } },
    { nodeId: "upload", event: { case: "nodeOutput", value: { pin: "file", value: { kind: { case: "media", value: media } } } }, afterMs: stepMs },
    { nodeId: "upload", event: { case: "nodeFinished", value: { duration: { nanos: 8_400_000 } } } },
    { nodeId: "classify", event: { case: "nodeStarted", value: { agentId: "mediamesh.image-classifier", attempt: 1 } } },
    { nodeId: "classify", event: { case: "nodeProgress", value: { percent: 50, message: "running the model" } }, afterMs: stepMs },
    { nodeId: "classify", event: { case: "nodeOutput", value: { pin: "classification", value: labels } }, afterMs: stepMs },
    { nodeId: "classify", event: { case: "nodeOutput", value: { pin: "confidence", value: { kind: { case: "number", value: 0.614 } } } } },
    { nodeId: "classify", event: { case: "nodeFinished", value: { duration: { nanos: 43_000_000 } } } },
    { nodeId: "show", event: { case: "nodeStarted", value: { agentId: "ui.stream-console", attempt: 1 } } },
    { nodeId: "show", event: { case: "nodeOutput", value: { pin: "input", value: labels } } },
    { nodeId: "show", event: { case: "nodeFinished", value: { duration: { nanos: 200_000 } } } },
    { event: { case: "executionFinished", value: { state: ExecutionState.SUCCEEDED, duration: { nanos: 61_000_000 } } } },
  ];
}

/** Returns the events of a run whose classifier fails. */
export function failing(stepMs = 0): Happening[] {
  const error = create(StatusSchema, {
    code: Code.Aborted,
    message: "mediamesh.image-classifier broke off: the model server closed the stream.",
    details: [anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: "AGENT_FAILED", domain: "mediamesh.dev" }))],
  });
  return [
    ...succeeding(48_213, stepMs).slice(0, 6),
    { nodeId: "classify", event: { case: "nodeFailed", value: { error, duration: { nanos: 31_000_000 } } } },
    { nodeId: "show", event: { case: "nodeSkipped", value: { causeNodeId: "classify" } } },
    { event: { case: "executionFinished", value: { state: ExecutionState.FAILED, error, duration: { nanos: 52_000_000 } } } },
  ];
}

/** Numbers happenings as the log of a run does. */
export function numbered(happenings: EventInit[], executionId = "e1"): ExecutionEvent[] {
  return happenings.map(({ nodeId, event }, index) =>
    create(ExecutionEventSchema, {
      sequence: BigInt(index + 1),
      executionId,
      time: timestampNow(),
      nodeId: nodeId ?? "",
      ...(event && { event }),
    }),
  );
}

/**
 * A flow service that plays the same runs again and again.
 *
 * @param stepMs Milliseconds between its steps.
 */
export function fakeFlows(stepMs: number): Partial<ServiceImpl<typeof FlowService>> {
  const cancelled = new Set<string>();
  let runs = 0;
  return {
    validateFlow: ({ source }) => ({ flow: FLOWS[source?.name ?? ""] ?? CLASSIFY }),
    async *runFlow(request, context) {
      const happenings = played(request, stepMs);
      const executionId = `fake-${(runs += 1)}`;
      for (const [index, event] of numbered(happenings, executionId).entries()) {
        await pause(happenings[index]?.afterMs ?? 0, context.signal);
        if (cancelled.has(executionId)) return yield* stopped(executionId, index);
        event.time = timestampNow();
        yield { event };
      }
    },
    cancelExecution: ({ executionId }) => {
      cancelled.add(executionId);
      return { execution: { executionId, state: ExecutionState.CANCELLED } };
    },
  };
}

const FLOWS: Record<string, Flow> = { "showcase.mlab": SHOWCASE, "multimodal-test.mlab": MULTIMODAL };

function played(request: RunFlowRequest, stepMs: number): Happening[] {
  if (request.source?.name === "showcase.mlab") return showcasing(stepMs);
  if (request.source?.name === "multimodal-test.mlab") return hearing(stepMs);
  const kind = request.inputs["upload.file"]?.kind;
  const bytes = kind?.case === "media" && kind.value.source.case === "inline" ? kind.value.source.value : new Uint8Array();
  const text = new TextDecoder().decode(bytes.subarray(0, 64));
  if (text.startsWith("fail")) return failing(stepMs);
  if (/^[\x20-\x7e\s]+$/.test(text)) {
    throw new ConnectError(WRONG_TYPE, Code.InvalidArgument, undefined, [...wrongType()]);
  }
  return succeeding(bytes.length, stepMs);
}

function* stopped(executionId: string, index: number) {
  const events = numbered(
    [
      { nodeId: "classify", event: { case: "nodeCancelled", value: { duration: { nanos: 1_000_000 } } } },
      { event: { case: "executionFinished", value: { state: ExecutionState.CANCELLED, duration: { seconds: 1n } } } },
    ],
    executionId,
  );
  for (const event of events) {
    event.sequence += BigInt(index);
    yield { event };
  }
}

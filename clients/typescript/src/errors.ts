/** Errors as the contract has them: a code, one ErrorInfo of mediamesh.dev, and the fields that are wrong. */

import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema } from "@mediamesh/contracts/google/rpc/error_details_pb.js";

/** A field of a request and what is wrong with it. */
export type Violation = { field: string; description: string };

/** What the contract has for agents; the number is that of the error tables, where there is one. */
const REASONS = {
  INVALID_REQUEST: { code: Code.InvalidArgument },
  UNSUPPORTED_MEDIA_TYPE: { code: Code.InvalidArgument, number: "E1010" },
  MEDIA_TOO_LARGE: { code: Code.InvalidArgument, number: "E1011" },
  MEDIA_DECODE_FAILED: { code: Code.InvalidArgument, number: "E1013" },
  NOT_FOUND: { code: Code.NotFound },
  FAILED_PRECONDITION: { code: Code.FailedPrecondition },
  OVERLOADED: { code: Code.ResourceExhausted },
  DEADLINE_EXCEEDED: { code: Code.DeadlineExceeded },
  CANCELLED: { code: Code.Canceled },
  UNAVAILABLE: { code: Code.Unavailable },
  STREAMING_NOT_SUPPORTED: { code: Code.Unimplemented, number: "E4010" },
  MULTIMODAL_NOT_SUPPORTED: { code: Code.Unimplemented, number: "E4011" },
  AGENT_FAILED: { code: Code.Aborted },
} as const satisfies Record<string, { code: Code; number?: string }>;

export type Reason = keyof typeof REASONS;

/** An error that reaches the caller as it is; whatever else an agent throws becomes AGENT_FAILED. */
export class MeshError extends Error {
  constructor(
    readonly reason: Reason,
    message: string,
    readonly violations: readonly Violation[] = [],
    readonly metadata: Readonly<Record<string, string>> = {},
  ) {
    super(message);
  }

  /** The error for fields that are wrong; its text names them all. */
  static ofFields(violations: readonly Violation[], reason: Reason = "INVALID_REQUEST"): MeshError {
    const text = violations.map(({ field, description }) => `${field}: ${description}`).join("; ");
    return new MeshError(reason, text, violations);
  }

  /** The error as it travels. */
  toConnect(): ConnectError {
    const known: { code: Code; number?: string } = REASONS[this.reason];
    const metadata = known.number === undefined ? { ...this.metadata } : { ...this.metadata, code: known.number };
    const error = new ConnectError(this.message, known.code, undefined, [
      { desc: ErrorInfoSchema, value: { reason: this.reason, domain: "mediamesh.dev", metadata } },
      ...(this.violations.length > 0
        ? [{ desc: BadRequestSchema, value: { fieldViolations: [...this.violations] } }]
        : []),
    ]);
    return error;
  }
}

/** What a run ends with after `cause`, whatever that was; nothing of where in the code it arose. */
export function failure(agent: string, cause: unknown): MeshError {
  if (cause instanceof MeshError) return cause;
  const name = cause instanceof Error ? cause.constructor.name : typeof cause;
  const text = cause instanceof Error ? cause.message : "";
  console.error(`${agent} failed`, cause);
  return new MeshError("AGENT_FAILED", `${agent} failed: ${name}: ${text}`.slice(0, 1000), [], {
    agent,
    exception: name,
  });
}

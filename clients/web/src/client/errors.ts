import type { Any } from "@bufbuild/protobuf/wkt";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorReason } from "@mediamesh/contracts/errors/v1/error_reason_pb.js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "@mediamesh/contracts/google/rpc/error_details_pb.js";

/** What the mesh puts in ErrorInfo.domain. */
export const DOMAIN = "mediamesh.dev";

/** A field of the request that breaks a rule. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

interface MeshErrorInit {
  readonly code?: Code;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly violations?: readonly FieldViolation[];
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/** A failed call, or a failed part of a run, as the mesh explains it. */
export class MeshError extends Error {
  override readonly name = "MeshError";
  /** The `google.rpc` code of the status. */
  readonly code: Code;
  /** Further names and limits, for programs. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The fields that break a rule. */
  readonly violations: readonly FieldViolation[];
  /** Milliseconds after which trying again makes sense; undefined where nothing is said. */
  readonly retryAfterMs: number | undefined;

  /**
   * @param sentence What is wrong, for people.
   * @param reason A name from `ErrorReason`; empty when the failure was not explained by the mesh but by what is in between.
   */
  constructor(
    readonly sentence: string,
    readonly reason: keyof typeof ErrorReason | "",
    init: MeshErrorInit = {},
  ) {
    super(sentence, { cause: init.cause });
    this.code = init.code ?? Code.Unknown;
    this.metadata = init.metadata ?? {};
    this.violations = init.violations ?? [];
    this.retryAfterMs = init.retryAfterMs;
  }

  /** The number of the error, such as `E1010`; empty where none is assigned. */
  get number(): string {
    const value = this.reason ? ErrorReason[this.reason] : 0;
    return value >= 1000 ? `E${value}` : "";
  }

  /** Whether the same call, or a resumed one, may succeed: the connection broke, or a server is away or full. */
  get retryable(): boolean {
    if (this.reason) return RETRYABLE_REASONS.has(this.reason);
    return RETRYABLE_CODES.has(this.code);
  }

  /** Returns the error that anything thrown by a call stands for. */
  static from(thrown: unknown): MeshError {
    if (thrown instanceof MeshError) return thrown;
    const error = ConnectError.from(thrown);
    return explained(error.rawMessage, error.code, (schema) => error.findDetails(schema)[0], thrown);
  }

  /** Returns the error that a `google.rpc.Status` inside an event spells. */
  static fromStatus(status: { code: number; message: string; details: Any[] }): MeshError {
    return explained(status.message, status.code, (schema) => {
      for (const packed of status.details) {
        try {
          const detail = anyUnpack(packed, schema);
          if (detail) return detail;
        } catch {
          // Bytes that are no such message, in a status that somebody made by hand.
        }
      }
      return undefined;
    });
  }
}

// A dropped stream arrives as INTERNAL or UNKNOWN from proxies and from fetch(), without any ErrorInfo.
const RETRYABLE_CODES = new Set([Code.Unavailable, Code.Internal, Code.Unknown, Code.DataLoss]);
const RETRYABLE_REASONS = new Set(["UNAVAILABLE", "OVERLOADED", "STREAM_INTERRUPTED"]);

type Find = <Desc extends DescMessage>(schema: Desc) => MessageShape<Desc> | undefined;

function explained(message: string, code: Code, find: Find, cause?: unknown): MeshError {
  const info = find(ErrorInfoSchema);
  const delay = find(RetryInfoSchema)?.retryDelay;
  const reason = info?.domain === DOMAIN && info.reason in ErrorReason ? (info.reason as keyof typeof ErrorReason) : "";
  return new MeshError(message || Code[code] || "The call failed.", reason, {
    code,
    metadata: info?.metadata ?? {},
    violations: (find(BadRequestSchema)?.fieldViolations ?? []).map(({ field, description }) => ({ field, description })),
    retryAfterMs: delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6,
    cause,
  });
}
